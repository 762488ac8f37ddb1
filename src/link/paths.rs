//! Where one unit's files are in the target directory.

use std::path::PathBuf;

use crate::cargo::layout::Layout;
use crate::output::Naming;
use crate::plan::Planned;

/// The places of a unit.
#[derive(Debug, Clone)]
pub struct UnitPaths {
    /// Folder of the compiled files; for a build script's run, unused.
    pub out_dir: PathBuf,
    /// Folder of the fingerprint.
    pub fingerprint_dir: PathBuf,
    /// The fingerprint's hash, written last.
    pub hash: PathBuf,
    /// What went into it.
    pub json: PathBuf,
    /// Cargo's dep-info.
    pub dep_info: PathBuf,
    /// The compiler's messages.
    pub diagnostics: PathBuf,
    /// Its time is when the compilation started.
    pub invoked: PathBuf,
    /// Path of `hash` relative to the build directory: the unit's name in the
    /// state.
    pub name: String,
}

impl UnitPaths {
    /// Finds the places of a unit by its naming.
    pub fn new(layout: &Layout, unit: &Planned, naming: &Naming) -> Self {
        let platform = unit.unit.platform.as_deref();
        // A build script is compiled for the host whatever the platform is.
        let root = layout.root(platform.filter(|_| unit.kind != "build-script"));
        let fingerprint_dir = layout.fingerprint_dir(platform, &unit.package.name, &naming.unit_id);
        let hash = fingerprint_dir.join(&naming.stem);
        let name = hash.strip_prefix(&layout.build_dir).unwrap_or(&hash);
        Self {
            out_dir: root.join(&naming.out_dir),
            json: fingerprint_dir.join(format!("{}.json", naming.stem)),
            dep_info: fingerprint_dir.join(format!("dep-{}", naming.stem)),
            diagnostics: fingerprint_dir.join(format!("output-{}", naming.stem)),
            invoked: fingerprint_dir.join("invoked.timestamp"),
            name: name.to_string_lossy().into_owned(),
            hash,
            fingerprint_dir,
        }
    }
}

/// A file's name in the target directory: `@` stands for the extra filename.
pub fn file_name(name: &str, extra_filename: &str) -> String {
    name.replace('@', extra_filename)
}
