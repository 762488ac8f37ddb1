//! Both layouts of Cargo's build directory (`src/cargo/core/compiler/layout.rs`).
//!
//! ```text
//! legacy, up to Cargo 1.99            per unit, `-Zbuild-dir-new-layout`
//! <build dir>/[<triple>/]<profile>/   <build dir>/[<triple>/]<profile>/
//!   .cargo-lock                         .cargo-lock
//!   .fingerprint/<pkg>-<id>/            build/<pkg>/<id>/fingerprint/
//!   deps/  examples/                    build/<pkg>/<id>/out/
//!   build/<pkg>-<id>/  (script)         build/<pkg>/<id>/out/
//!   build/<pkg>-<id>/out, output, …     build/<pkg>/<id>/out/, run/stdout, …
//! ```

use std::path::{Path, PathBuf};

use super::unit_graph::Unit;
use crate::fs;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayoutKind {
    /// Files of one kind share a folder.
    Legacy,
    /// Each unit has a folder.
    PerUnit,
}

/// The build directory of one profile.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Root of the build directory.
    pub build_dir: PathBuf,
    /// Folder of the profile: `debug`, `release` or a custom profile's name.
    pub profile_dir: String,
    /// Which layout it has.
    pub kind: LayoutKind,
}

/// Names and places of a build script's run.
#[derive(Debug, Clone)]
pub struct RunFiles {
    /// `OUT_DIR`.
    pub out_dir: PathBuf,
    /// What the script printed; Cargo replays it.
    pub stdout: PathBuf,
    /// What it printed on standard error.
    pub stderr: PathBuf,
    /// The `OUT_DIR` that occurs in `stdout`.
    pub root_output: PathBuf,
    /// Its time is when the script was started.
    pub invoked: PathBuf,
}

/// The folder of a profile (Cargo book, "Profiles": `dev` and `test` share one).
pub fn profile_dir(profile: &str) -> &str {
    match profile {
        "dev" | "test" => "debug",
        "release" | "bench" => "release",
        custom => custom,
    }
}

impl Layout {
    /// The profile's folder for a platform; `None` is the host.
    pub fn root(&self, platform: Option<&str>) -> PathBuf {
        let mut root = self.build_dir.clone();
        if let Some(triple) = platform {
            // A custom target is named by its file's stem.
            let short = Path::new(triple).file_stem().unwrap_or_default();
            root.push(if triple.ends_with(".json") {
                Path::new(short)
            } else {
                Path::new(triple)
            });
        }
        root.push(&self.profile_dir);
        root
    }

    /// The folder of a unit's fingerprint.
    pub fn fingerprint_dir(&self, platform: Option<&str>, package: &str, id: &str) -> PathBuf {
        let root = self.root(platform);
        match self.kind {
            LayoutKind::Legacy => root.join(".fingerprint").join(format!("{package}-{id}")),
            LayoutKind::PerUnit => root
                .join("build")
                .join(package)
                .join(id)
                .join("fingerprint"),
        }
    }

    /// The units of a package that have a fingerprint: ids with their folders.
    pub fn fingerprints(&self, platform: Option<&str>, package: &str) -> Vec<(String, PathBuf)> {
        let any = self.fingerprint_dir(platform, package, "");
        let (parent, prefix) = match self.kind {
            LayoutKind::Legacy => (any.parent(), format!("{package}-")),
            LayoutKind::PerUnit => return Vec::new(), // the command line tells the id
        };
        let folders = fs::list(parent.unwrap_or(&any)).unwrap_or_default();
        let with_id = folders.into_iter().filter_map(|folder| {
            let id = folder.file_name()?.to_str()?.strip_prefix(&prefix)?;
            Some((id.to_owned(), folder))
        });
        with_id.collect()
    }

    /// The files of a build script's run.
    pub fn run_files(&self, platform: Option<&str>, package: &str, id: &str) -> RunFiles {
        let build = self.root(platform).join("build");
        let (unit, run, stdout) = match self.kind {
            LayoutKind::Legacy => {
                let unit = build.join(format!("{package}-{id}"));
                (unit.clone(), unit, "output")
            }
            LayoutKind::PerUnit => {
                let unit = build.join(package).join(id);
                (unit.clone(), unit.join("run"), "stdout")
            }
        };
        RunFiles {
            out_dir: unit.join("out"),
            stdout: run.join(stdout),
            stderr: run.join("stderr"),
            root_output: run.join("root-output"),
            invoked: run.join("invoked.timestamp"),
        }
    }

    /// The unit id in an `OUT_DIR` of a build script's run.
    pub fn run_id(&self, out_dir: &Path, package: &str) -> Option<String> {
        let unit = out_dir.parent()?.file_name()?.to_str()?;
        match self.kind {
            LayoutKind::Legacy => unit
                .strip_prefix(package)?
                .strip_prefix('-')
                .map(str::to_owned),
            LayoutKind::PerUnit => Some(unit.to_owned()),
        }
    }

    /// The unit id of a compilation, from its `-C extra-filename` or, where a
    /// unit has a folder of its own, from its `--out-dir`.
    pub fn compile_id(&self, out_dir: &Path, extra_filename: &str) -> Option<String> {
        match self.kind {
            LayoutKind::Legacy => {
                let id = extra_filename.strip_prefix('-');
                id.map(str::to_owned).or_else(|| {
                    // Build scripts: `build/<pkg>-<id>`.
                    let folder = out_dir.file_name()?.to_str()?;
                    folder.rsplit_once('-').map(|(_, id)| id.to_owned())
                })
            }
            LayoutKind::PerUnit => Some(out_dir.parent()?.file_name()?.to_str()?.to_owned()),
        }
    }

    /// The file whose lock excludes Cargo: `flock`ed exclusively by Cargo up
    /// to 1.99 and shared by later ones, which have finer locks below it.
    pub fn lock_file(root: &Path) -> PathBuf {
        root.join(".cargo-lock")
    }

    /// Cargo's cache of what the compiler said about itself.
    pub fn rustc_info(&self) -> PathBuf {
        self.build_dir.join(".rustc_info.json")
    }

    /// Our own folder in the build directory.
    pub fn own_dir(&self) -> PathBuf {
        own_dir(&self.build_dir)
    }
}

/// Our own folder in a build directory.
pub fn own_dir(build_dir: &Path) -> PathBuf {
    build_dir.join(".quickbuild")
}

/// The stem of a unit's files in its fingerprint folder, such as `lib-serde`,
/// `test-bin-bat` or `run-build-script-build-script-build`
/// (`CompilationFiles::fingerprint_file_path`).
pub fn fingerprint_stem(unit: &Unit, test: bool, run: bool) -> String {
    let kind = ["bin", "bench", "example", "custom-build", "test"]
        .into_iter()
        .find(|kind| unit.is_kind(kind));
    let kind = match kind {
        Some("custom-build") => "build-script",
        Some("test") => "integration-test",
        Some(kind) => kind,
        None => "lib",
    };
    let flavour = match (test, run) {
        (true, _) => "test-",
        (_, true) => "run-",
        _ => "",
    };
    format!("{flavour}{kind}-{}", unit.target.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(kind: LayoutKind) -> Layout {
        Layout {
            build_dir: "/t".into(),
            profile_dir: "debug".to_owned(),
            kind,
        }
    }

    #[test]
    fn both_layouts_have_their_places() {
        let legacy = layout(LayoutKind::Legacy);
        let per_unit = layout(LayoutKind::PerUnit);
        assert_eq!(
            legacy.fingerprint_dir(None, "serde", "ab"),
            Path::new("/t/debug/.fingerprint/serde-ab")
        );
        assert_eq!(
            per_unit.fingerprint_dir(Some("x-y"), "serde", "ab"),
            Path::new("/t/x-y/debug/build/serde/ab/fingerprint")
        );
        assert_eq!(
            legacy.root(Some("/a/board.json")),
            Path::new("/t/board/debug")
        );
    }

    #[test]
    fn run_ids_are_read_back() {
        for kind in [LayoutKind::Legacy, LayoutKind::PerUnit] {
            let layout = layout(kind);
            let files = layout.run_files(None, "zstd-sys", "0123");
            assert_eq!(
                layout.run_id(&files.out_dir, "zstd-sys"),
                Some("0123".to_owned())
            );
        }
    }
}
