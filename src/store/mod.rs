//! The local store: outputs in hash-addressed folders that never change.
//!
//! ```text
//! <store>/
//!   format                         the format version, one number
//!   paths/<output id>-<name>-<version>/
//!     manifest.json                written last; its time is the last use, to ten minutes
//!     files/<n>                    the n-th file of the manifest
//!     signatures  provenance.json  origin.json
//!                                  what is said of it; all optional, added later
//!   index/<recipe hash>            the outputs of a recipe, one name a line
//!   units/<unit key>.json          how Cargo names a unit
//!   roots/<id>.json                a target directory and what it links
//!   cache/                         answers that can be asked for again
//!   tmp/  trash/  locks/
//! ```
//!
//! Invariants:
//! * A path exists whole or not at all: it is staged in `tmp/` and renamed.
//! * All files of a path have the time [`FILE_TIME`], or the manifest has
//!   another (`lend`); what has neither, or another size than the manifest's,
//!   was written to by somebody, and is out.
//! * The first output of an id wins; nothing replaces it.
//! * Who uses the store holds a shared lock; the collector needs it alone.
//!
//! Nothing here parses recipes, and nothing here knows a target directory.

pub mod archive;
mod attached;
mod closure;
pub mod collect;
mod lend;
pub mod origin;
pub mod signing;
pub mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::{Canonical, ContentHash, OutputId, RecipeHash, UnitKey};
use crate::fs::{self, FsError, Lock, Placement, Sharing, Stamp, Time};
use crate::output::{self, File, Naming, Output};

pub use crate::output::FILE_TIME;
pub use origin::Origin;

/// Version of the store's layout.
pub const FORMAT: u32 = 1;

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its folder is out of reach, full or read-only.
    #[error("the store at `{}` cannot be used", path.display())]
    Access {
        /// The store.
        path: PathBuf,
        /// What failed.
        source: FsError,
    },
    /// It was made by a newer quickbuild.
    #[error("the store at `{}` has format {found}, this quickbuild knows {FORMAT}", path.display())]
    Format {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: String,
    },
    /// A file operation failed in the middle of something.
    #[error("a store operation failed")]
    File(#[from] FsError),
    /// A manifest is not what this version writes.
    #[error("`{}` is not a manifest", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// What is said of an output beside its manifest is not what this version
    /// writes.
    #[error("`{}` is malformed; `quickbuild store repair` takes it away", path.display())]
    Attached {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody uses the store, and the operation needs it alone.
    #[error("the store at `{}` is in use", path.display())]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// An output cannot be exported.
    #[error("cannot export `{store_name}`")]
    Export {
        /// The output.
        store_name: String,
        /// What is wrong with it.
        source: verify::Kind,
    },
    /// An output cannot be signed.
    #[error("cannot sign `{store_name}`")]
    Sign {
        /// The output.
        store_name: String,
        /// What is wrong with it.
        source: verify::Kind,
    },
    /// An archive cannot be read: it is cut off, or not an archive at all.
    #[error("cannot unpack `{}`", path.display())]
    Unpack {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An archive is not what `store export` writes, or does not verify.
    #[error("the archive is refused: {reason}")]
    Archive {
        /// Why.
        reason: String,
    },
}

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// An open store. While it lives, the collector stays away.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    writable: bool,
    _lock: Option<Lock>,
}

/// A file on its way into the store.
#[derive(Debug)]
pub enum Source<'a> {
    /// A file that nobody will write to: taken by hardlink.
    Share(&'a Path),
    /// A file of the target directory that may change: copied.
    Copy(&'a Path),
    /// A program of the target directory, taken by hardlink without reading it.
    Lend(&'a Path),
    /// Bytes made by us.
    Bytes(Vec<u8>),
}

/// A target directory that links outputs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Root {
    /// The build directory.
    pub target: PathBuf,
    /// What it links.
    pub outputs: Vec<OutputId>,
}

/// Whether an output was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is in the store now.
    New,
    /// It was there before, from somebody else.
    Existing,
}

impl Store {
    /// Opens the store, making it if there is none. A store that cannot be
    /// written to is opened for reading.
    pub fn open(root: &Path) -> Result<Self> {
        let access = |source| StoreError::Access {
            path: root.to_owned(),
            source,
        };
        let format = root.join("format");
        let mut writable = true;
        match fs::read_optional(&format).map_err(access)? {
            Some(text) => {
                let found = String::from_utf8_lossy(&text).trim().to_owned();
                if found != FORMAT.to_string() {
                    return Err(StoreError::Format {
                        path: root.to_owned(),
                        found,
                    });
                }
            }
            None => {
                for folder in [
                    "paths", "index", "units", "roots", "cache", "tmp", "trash", "locks",
                ] {
                    fs::create_dir_all(&root.join(folder)).map_err(access)?;
                }
                fs::write_atomic(&format, format!("{FORMAT}\n").as_bytes()).map_err(access)?;
            }
        }
        let lock = match Lock::shared(&root.join("locks/store")) {
            Ok(lock) => Some(lock),
            Err(error) if error.is_read_only() => {
                writable = false;
                None
            }
            Err(error) => return Err(access(error)),
        };
        Ok(Self {
            root: root.to_owned(),
            writable,
            _lock: lock,
        })
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether outputs can be added.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The folder for answers that can be asked for again.
    pub fn cache(&self, name: &str) -> PathBuf {
        self.root.join("cache").join(name)
    }

    /// The folder of an output.
    pub fn path(&self, store_name: &str) -> PathBuf {
        self.root.join("paths").join(store_name)
    }

    /// The store names of all outputs that a recipe may be served by, the
    /// oldest first. Lines that are damaged are passed over.
    pub fn candidates(&self, host_recipe: RecipeHash) -> Vec<String> {
        let Ok(text) = fs::read_text(&self.index_file(host_recipe)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = Vec::new();
        for line in text.lines() {
            if is_store_name(line) && !names.iter().any(|name| name == line) {
                names.push(line.to_owned());
            }
        }
        names
    }

    fn index_file(&self, host_recipe: RecipeHash) -> PathBuf {
        self.root.join("index").join(host_recipe.to_string())
    }

    /// Reads an output's manifest; `None` if there is none, or none that this
    /// version understands.
    pub fn output(&self, store_name: &str) -> Option<Output> {
        let output = read_manifest(&self.path(store_name)).ok()??;
        (output.format == output::FORMAT && output.store_name() == store_name).then_some(output)
    }

    /// Whether an output's files are as they were when they came in, as far as
    /// size and time tell.
    pub fn is_intact(&self, output: &Output) -> bool {
        let folder = self.path(&output.store_name());
        output.files.iter().enumerate().all(|(index, file)| {
            Stamp::of(&folder.join(file.store_name(index)))
                .is_some_and(|stamp| is_untouched(file, &stamp))
        })
    }

    /// Whether an output can be used. Where only times are off, somebody has
    /// touched files without changing them, as Cargo does with what it believes
    /// to be its own: if the content is right, the time is set right again.
    pub fn is_usable(&self, output: &Output) -> bool {
        self.is_intact(output) || self.mend(output)
    }

    fn mend(&self, output: &Output) -> bool {
        let folder = self.path(&output.store_name());
        self.writable
            && output.files.iter().enumerate().all(|(index, file)| {
                let path = folder.join(file.store_name(index));
                match Stamp::of(&path) {
                    Some(stamp) if is_untouched(file, &stamp) => true,
                    Some(stamp) if stamp.size == file.size && file.sha256.is_some() => {
                        fs::hash_file(&path).is_ok_and(|digest| Some(digest) == file.sha256)
                            && fs::set_mtime(&path, FILE_TIME).is_ok()
                    }
                    _ => false,
                }
            })
    }

    /// The place of a file of an output.
    pub fn file(&self, output: &Output, index: usize) -> PathBuf {
        let folder = self.path(&output.store_name());
        folder.join(output.files[index].store_name(index))
    }

    /// Notes that an output was used now under a unit's name, for the collector:
    /// to ten minutes, which is enough for an order of use.
    pub fn touch(&self, store_name: &str, key: UnitKey) {
        const TEN_MINUTES: i64 = 600_000_000_000;
        if self.writable {
            let manifest = self.path(store_name).join("manifest.json");
            let now = fs::now();
            for file in [manifest, self.naming_file(key)] {
                let noted = Stamp::of(&file).map_or(Time::default(), |stamp| stamp.mtime);
                if (now.0 - noted.0).abs() > TEN_MINUTES {
                    // A missed note costs nothing but order.
                    let _ = fs::set_mtime(&file, now);
                }
            }
        }
    }

    /// Adds an output whose files come from `sources`, one for each file of the
    /// manifest. Sizes and digests must be right in the manifest; of what is
    /// lent the digest is unknown.
    pub fn add(&self, output: &Output, sources: &[Source<'_>]) -> Result<Added> {
        self.add_beside(output, sources, &[])
    }

    /// The same, with files beside the manifest that become visible with it.
    fn add_beside(
        &self,
        output: &Output,
        sources: &[Source<'_>],
        beside: &[(&str, Vec<u8>)],
    ) -> Result<Added> {
        let stage = fs::unique_beside(&self.root.join("tmp").join(output.store_name()));
        self.add_prepared(output, &stage, beside, || {
            self.stage(&stage, output, sources)
        })
    }

    /// Makes a folder, once it is prepared, the output's. If it is not needed or
    /// something fails, nothing is left of it.
    fn add_prepared(
        &self,
        output: &Output,
        stage: &Path,
        beside: &[(&str, Vec<u8>)],
        prepare: impl FnOnce() -> Result<()>,
    ) -> Result<Added> {
        let store_name = output.store_name();
        if self.has(&store_name) {
            fs::remove_dir_all(stage)?;
            self.index(output)?;
            return Ok(Added::Existing);
        }
        let target = self.path(&store_name);
        let staged = prepare().and_then(|()| {
            for (file, bytes) in beside {
                fs::write(&stage.join(file), bytes)?;
            }
            if target.exists() {
                // Damaged, or left by a broken copy: out of the way first.
                self.discard(&store_name)?;
            }
            // A line without a path is passed over; a path without a line would
            // never be found, and stand in the way of another.
            self.index(output)?;
            Ok(fs::rename(stage, &target)?)
        });
        if let Err(error) = staged {
            let _ = fs::remove_dir_all(stage);
            if self.has(&store_name) {
                self.index(output)?;
                return Ok(Added::Existing); // another process was first
            }
            return Err(error);
        }
        Ok(Added::New)
    }

    /// Whether there is an output of this name that can be used.
    fn has(&self, store_name: &str) -> bool {
        self.output(store_name)
            .is_some_and(|output| self.is_usable(&output))
    }

    fn stage(&self, stage: &Path, output: &Output, sources: &[Source<'_>]) -> Result<()> {
        fs::create_dir_all(&stage.join("files"))?;
        let mut output = output.clone();
        for (index, (file, source)) in output.files.iter_mut().zip(sources).enumerate() {
            let to = stage.join(file.store_name(index));
            match source {
                Source::Share(from) => {
                    if fs::place(from, &to, Sharing::Shared)? == Placement::Copy {
                        fs::set_mode(&to, file.mode)?;
                    }
                }
                Source::Copy(from) => {
                    fs::place(from, &to, Sharing::Private)?;
                }
                Source::Lend(from) => {
                    file.time = lend::lend(from, &to)?;
                    continue;
                }
                Source::Bytes(bytes) => {
                    fs::write(&to, bytes)?;
                    fs::set_mode(&to, file.mode)?; // whatever the umask is
                }
            }
            fs::set_mtime(&to, FILE_TIME)?;
        }
        write_manifest(stage, &output)
    }

    fn index(&self, output: &Output) -> Result<()> {
        let name = output.store_name();
        if !self.candidates(output.host_recipe).contains(&name) {
            let file = self.index_file(output.host_recipe);
            // A line that was broken off must not swallow this one.
            let broken = fs::read_optional(&file)?
                .is_some_and(|text| !text.ends_with(b"\n") && !text.is_empty());
            let start = if broken { "\n" } else { "" };
            fs::append(&file, format!("{start}{name}\n").as_bytes())?;
        }
        Ok(())
    }

    /// Moves a path to the trash at once, then deletes it.
    pub fn discard(&self, store_name: &str) -> Result<()> {
        let trash = fs::unique_beside(&self.root.join("trash").join(store_name));
        fs::rename(&self.path(store_name), &trash)?;
        fs::remove_dir_all(&trash)?;
        Ok(())
    }

    /// How Cargo names a unit, if that was learned.
    pub fn naming(&self, key: UnitKey) -> Option<Naming> {
        let bytes = fs::read(&self.naming_file(key)).ok()?;
        let naming: Naming = serde_json::from_slice(&bytes).ok()?;
        (naming.format == output::FORMAT && naming.key == key).then_some(naming)
    }

    /// Keeps how Cargo names a unit.
    pub fn add_naming(&self, naming: &Naming) -> Result<()> {
        let bytes = serde_json::to_vec(naming).expect("a naming serialises");
        fs::write_atomic(&self.naming_file(naming.key), &bytes)?;
        Ok(())
    }

    fn naming_file(&self, key: UnitKey) -> PathBuf {
        self.root.join("units").join(format!("{key}.json"))
    }

    /// Notes which outputs a target directory links.
    pub fn add_root(&self, root: &Root) -> Result<()> {
        let bytes = serde_json::to_vec(root).expect("a root serialises");
        fs::write_atomic(&self.root_file(&root.target), &bytes)?;
        Ok(())
    }

    /// Forgets a target directory: nothing is kept for its sake.
    pub fn remove_root(&self, target: &Path) -> Result<()> {
        Ok(fs::remove_file(&self.root_file(target))?)
    }

    fn root_file(&self, target: &Path) -> PathBuf {
        let mut id = Canonical::new("quickbuild-root");
        id.text(&target.to_string_lossy());
        let name = format!("{}.json", OutputId::finish(id));
        self.root.join("roots").join(name)
    }

    /// The store name of each output's id.
    pub fn names_by_id(&self) -> Result<BTreeMap<OutputId, String>> {
        closure::store_names(self)
    }

    /// How Cargo names all units that were ever named here.
    pub fn namings(&self) -> Result<Vec<Naming>> {
        let files = fs::list(&self.root.join("units"))?;
        let key = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok();
        let keys = files.iter().filter_map(key);
        Ok(keys.filter_map(|key| self.naming(key)).collect())
    }

    /// A name for a folder in which something is prepared; it does not exist.
    pub fn stage_path(&self, name: &str) -> PathBuf {
        fs::unique_beside(&self.root.join("tmp").join(name))
    }

    /// The store names of all outputs.
    pub fn names(&self) -> Result<Vec<String>> {
        let paths = fs::list(&self.root.join("paths"))?;
        let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
        Ok(names
            .filter(|name| is_store_name(name))
            .map(str::to_owned)
            .collect())
    }
}

/// Whether a file of the store is as it came in, as far as size and time tell.
pub(crate) fn is_untouched(file: &File, stamp: &Stamp) -> bool {
    stamp.size == file.size && is_its_time(file, stamp.mtime)
}

/// Whether a file of the store has the time that it should have.
fn is_its_time(file: &File, time: Time) -> bool {
    time == FILE_TIME || Some(time) == file.time
}

/// Reads the manifest in a store path.
fn read_manifest(folder: &Path) -> Result<Option<Output>> {
    let path = folder.join("manifest.json");
    let Some(bytes) = fs::read_optional(&path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StoreError::Manifest { path, source })
}

/// Writes the one form of a manifest, if it is not there yet.
fn write_manifest(folder: &Path, output: &Output) -> Result<()> {
    let path = folder.join("manifest.json");
    let manifest = serde_json::to_vec(output).expect("a manifest serialises");
    if fs::read_optional(&path)?.as_ref() != Some(&manifest) {
        fs::write(&path, &manifest)?;
    }
    Ok(())
}

/// Whether a name may be one of a store path: an id, a dash, and nothing that
/// could lead out of the folder.
pub fn is_store_name(name: &str) -> bool {
    let id = name.split('-').next().unwrap_or_default();
    id.parse::<OutputId>().is_ok() && name.len() > id.len() + 1 && !name.contains('/')
}

/// Describes a file for a manifest.
pub fn describe(role: output::Role, name: String, path: &Path) -> fs::Result<File> {
    let sha256 = fs::hash_file(path)?;
    describe_hashed(role, name, path, sha256)
}

/// Describes a file whose digest is known.
pub fn describe_hashed(
    role: output::Role,
    name: String,
    path: &Path,
    sha256: ContentHash,
) -> fs::Result<File> {
    Ok(File {
        sha256: Some(sha256),
        ..describe_unread(role, name, path)?
    })
}

/// Describes a file that is to be lent.
pub fn describe_unread(role: output::Role, name: String, path: &Path) -> fs::Result<File> {
    Ok(File {
        role,
        name,
        size: Stamp::of(path).map_or(0, |stamp| stamp.size),
        sha256: None,
        time: None,
        mode: fs::mode(path)?,
        portable: false,
    })
}

/// Describes bytes for a manifest.
pub fn describe_bytes(role: output::Role, name: String, bytes: &[u8]) -> File {
    File {
        role,
        name,
        size: bytes.len() as u64,
        sha256: Some(ContentHash::of(bytes)),
        time: None,
        mode: 0o644,
        portable: true,
    }
}
