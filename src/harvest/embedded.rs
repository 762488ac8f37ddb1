//! Folders of this machine inside compiled files.
//!
//! Compiled code names its sources, which is harmless: at worst a panic or a
//! debugger shows the path of another checkout. A folder that the code *uses*,
//! by `env!("OUT_DIR")` or from a macro, is not: such an output may only be
//! used where the folders are the same. The two look different: a source's
//! name goes on to a file that the compiler read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use object::read::archive::ArchiveFile;
use object::read::{ReadCache, ReadRef};
use object::{Object as _, ObjectSection as _, SectionFlags};

use super::inputs::Dependencies;
use crate::cargo::dep_info::RustcDepInfo;
use crate::cargo::workspace::find;
use crate::fs;
use crate::output::Role;
use crate::plan::{Context, Planned};

/// What is known of the folders that a compilation had to do with.
pub(super) struct Folders<'a> {
    pub(super) context: &'a Context,
    pub(super) dependencies: &'a Dependencies<'a>,
    pub(super) info: &'a RustcDepInfo,
    /// Whether the compiler was made to name its sources otherwise. Then a
    /// folder that is named all the same is used, whatever follows it.
    pub(super) remapped: bool,
}

impl Folders<'_> {
    /// The folders that compiled files use, as conditions of an output.
    pub(super) fn used<'a>(
        &self,
        unit: &Planned,
        files: impl Iterator<Item = (Role, &'a Path)>,
    ) -> Vec<(String, PathBuf)> {
        let folders = folders(self.context, unit, self.dependencies, self.info);
        if folders.is_empty() {
            return Vec::new();
        }
        used_folders(self, &folders, files)
    }
}

fn used_folders<'a>(
    Folders {
        context,
        dependencies,
        info,
        remapped,
    }: &Folders<'_>,
    folders: &[PathBuf],
    files: impl Iterator<Item = (Role, &'a Path)>,
) -> Vec<(String, PathBuf)> {
    // Metadata has the compiler's working directory beside every source's
    // name, so there it means nothing, unless the code asked for a folder.
    let working_directory = dependencies.folder;
    let asked = info.env.iter().any(|(_, value)| {
        value
            .as_ref()
            .is_some_and(|v| Path::new(v) == working_directory)
    });
    let search = Search {
        harmless: (!asked).then_some(working_directory),
        info: (!remapped).then_some(info),
    };
    let mut used: BTreeSet<(String, PathBuf)> = BTreeSet::new();
    for (role, path) in files {
        let uses = uses(role, path, folders, &search);
        for (folder, uses) in folders.iter().zip(uses) {
            if uses {
                let around = context.roots.around(folder);
                let (name, root) = around.unwrap_or(("@package@", folder));
                used.insert((name.to_owned(), root.to_owned()));
            }
        }
    }
    used.into_iter().collect()
}

/// The folders to look for: for what is compiled in the workspace, the
/// workspace and the build directory; elsewhere only what a variable names.
fn folders(
    context: &Context,
    unit: &Planned,
    dependencies: &Dependencies<'_>,
    info: &RustcDepInfo,
) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    if unit.package.is_path() {
        folders.extend([
            context.roots.workspace.clone(),
            context.layout.build_dir.clone(),
        ]);
        folders.extend(dependencies.package.map(Path::to_owned));
    }
    let places = [
        "OUT_DIR",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_TARGET_TMPDIR",
        "CARGO",
    ];
    for (name, value) in &info.env {
        if (places.contains(&name.as_str()) || name.starts_with("CARGO_BIN_EXE_"))
            && let Some(value) = value
        {
            folders.push(PathBuf::from(value));
        }
    }
    folders.sort();
    folders.dedup();
    folders.retain(|folder| folder.as_os_str().len() > 1);
    folders
}

/// What counts as harmless.
struct Search<'a> {
    /// A folder that may stand alone in metadata.
    harmless: Option<&'a Path>,
    /// What was read, where names of sources are harmless.
    info: Option<&'a RustcDepInfo>,
}

/// Which of the folders a file uses; all of them if it cannot be read.
fn uses(role: Role, path: &Path, folders: &[PathBuf], search: &Search<'_>) -> Vec<bool> {
    let each = |uses: &dyn Fn(&Path, &[u8]) -> bool| -> Vec<bool> {
        let name = |folder: &PathBuf| uses(folder, folder.as_os_str().as_encoded_bytes());
        folders.iter().map(name).collect()
    };
    let any = |parts: &[&[u8]], name: &[u8]| {
        let used = |part: &&[u8]| is_used(part, name, false, search.info);
        parts.iter().any(used)
    };
    let read = || match role {
        // Most of a linked file is debug information, which is left out.
        Role::Executable | Role::Native => {
            let cache = ReadCache::new(fs::open(path).ok()?);
            match loaded_sections(&cache) {
                Some(parts) if !parts.is_empty() => Some(each(&|_, name| any(&parts, name))),
                _ => {
                    let bytes = fs::read(path).ok()?;
                    Some(each(&|_, name| any(&[&bytes], name)))
                }
            }
        }
        Role::Library => {
            let bytes = fs::read(path).ok()?;
            let parts = library_sections(&bytes);
            Some(each(&|_, name| any(&parts, name)))
        }
        _ => {
            let bytes = fs::read(path).ok()?;
            Some(each(&|folder, name| {
                is_used(&bytes, name, search.harmless == Some(folder), search.info)
            }))
        }
    };
    read().unwrap_or_else(|| vec![true; folders.len()])
}

/// The loaded sections of a library's objects. Its metadata is looked at in a
/// file of its own.
fn library_sections(bytes: &[u8]) -> Vec<&[u8]> {
    let Ok(archive) = ArchiveFile::parse(bytes) else {
        return vec![bytes];
    };
    let mut parts = Vec::new();
    for member in archive.members() {
        let Ok(member) = member else {
            return vec![bytes];
        };
        match member.data(bytes) {
            Ok(data) if member.name().ends_with(b".o") => {
                parts.extend(loaded_sections(data).unwrap_or_else(|| vec![data]));
            }
            Ok(_) => {}
            Err(_) => return vec![bytes],
        }
    }
    parts
}

/// The sections of an object that are loaded when it runs: debug information
/// is not. `None` if it is no object, or a damaged one.
fn loaded_sections<'a, R: ReadRef<'a>>(data: R) -> Option<Vec<&'a [u8]>> {
    let object = object::File::parse(data).ok()?;
    let allocated = object.sections().filter(|section| match section.flags() {
        SectionFlags::Elf { sh_flags, .. } => sh_flags.0 & object::elf::SHF_ALLOC.0 != 0,
        _ => true,
    });
    allocated.map(|section| section.data().ok()).collect()
}

/// Whether a folder occurs other than as the beginning of a source's name.
fn is_used(bytes: &[u8], folder: &[u8], alone_is_fine: bool, info: Option<&RustcDepInfo>) -> bool {
    let mut start = 0;
    while let Some(offset) = find(&bytes[start..], folder) {
        let after = start + offset + folder.len();
        let alone = bytes.get(after) != Some(&b'/');
        if !(alone && alone_is_fine
            || info.is_some_and(|info| is_source_name(&bytes[after..], info)))
        {
            return true;
        }
        start = after;
    }
    false
}

/// Whether what follows a folder makes it the name of a Rust source, or of a
/// file that the compiler read.
fn is_source_name(rest: &[u8], info: &RustcDepInfo) -> bool {
    if rest.first() != Some(&b'/') {
        return false;
    }
    let end = rest
        .iter()
        .position(|b| *b < 0x20 || *b >= 0x7f)
        .unwrap_or(rest.len());
    let text = String::from_utf8_lossy(&rest[1..end.min(4096)]);
    // Strings lie one behind the other without an end mark.
    let as_source = text.find(".rs").is_some_and(|at| !text[..at].contains(' '));
    as_source
        || info.files.iter().any(|file| {
            let relative: PathBuf = Path::new(file)
                .components()
                .rev()
                .take(3)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect();
            text.contains(&*relative.to_string_lossy())
        })
}

/// A file that a build script left in `OUT_DIR`.
pub(super) enum OutDirFile {
    /// It names no folder, or only where that is harmless.
    Plain,
    /// Text that names folders, which can be replaced.
    Text(String),
    /// It names these folders, and nothing is known about how.
    Bound(Vec<(String, PathBuf)>),
}

/// How rustc's metadata begins (`METADATA_HEADER` in `rustc_metadata`); the probes
/// of some build scripts leave it behind.
const METADATA: &[u8] = b"rust\0\0\0";

/// Classifies a file in `OUT_DIR`.
pub(super) fn out_dir_file(context: &Context, bytes: &[u8]) -> OutDirFile {
    let found = context.roots.found_in(bytes);
    if found.is_empty() {
        return OutDirFile::Plain;
    }
    // Objects, archives of objects and metadata name the folders of their sources
    // for debuggers and messages.
    let is_code = object::File::parse(bytes).is_ok()
        || ArchiveFile::parse(bytes).is_ok()
        || bytes.starts_with(METADATA);
    match std::str::from_utf8(bytes) {
        _ if is_code => OutDirFile::Plain,
        Ok(text) => OutDirFile::Text(text.to_owned()),
        Err(_) => {
            let folders = found
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), context.roots.folder(name)?.to_owned())));
            OutDirFile::Bound(folders.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_named_and_a_folder_is_used() {
        let info = RustcDepInfo {
            files: vec![
                "/w/target/out/private.rs".to_owned(),
                "/w/assets/a.bin".to_owned(),
            ],
            env: Vec::new(),
        };
        assert!(!is_used(
            b"\0/w/src/main.rsnext string",
            b"/w",
            false,
            Some(&info)
        ));
        assert!(!is_used(
            b"\0/w/target/out/private.rs\0",
            b"/w/target/out",
            false,
            Some(&info)
        ));
        assert!(is_used(
            b"\0/w/target/out\0",
            b"/w/target/out",
            false,
            Some(&info)
        ));
        assert!(!is_used(b"\0/w\x01", b"/w", true, Some(&info)));
        assert!(is_used(
            b"\0/w/templates/x.html\0",
            b"/w",
            false,
            Some(&info)
        ));
    }
}
