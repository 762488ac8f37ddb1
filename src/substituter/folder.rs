//! The back end for folders. Documents are changed by one writer at a time.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::backend::{Added, Backend, Change, Content, FRESH, Held, Listed, Version, Writer};
use super::{ArchiveRef, Result, SubstituterError};
use crate::digest::ContentHash;
use crate::fs::{self, Lock, Stamp};

/// Whoever holds this lock, and nobody else, changes documents.
const LOCK: &str = ".lock";
/// Folders with files of a substituter.
const FOLDERS: [&str; 4] = ["", "recipes", "closures", "archives"];

/// A folder of this machine.
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

impl Folder {
    fn read_bounded(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let path = self.root.join(path);
        let file = match fs::open(&path) {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        fs::at("read", &path, file.take(limit + 1).read_to_end(&mut bytes))?;
        if bytes.len() as u64 > limit {
            let url = path.display().to_string();
            return Err(SubstituterError::TooLarge { url, limit });
        }
        Ok(Some(bytes))
    }

    /// Waits for the lock, and says whether a file is as it was read.
    fn lock_as(&self, path: &Path, before: Option<&Version>) -> Result<Option<Lock>> {
        let lock = Lock::exclusive(&self.root.join(LOCK))?;
        let now = fs::read_optional(path)?.map(|bytes| version(&bytes));
        Ok((now.as_ref() == before).then_some(lock))
    }
}

fn version(bytes: &[u8]) -> Version {
    Version::of(ContentHash::of(bytes).to_string())
}

/// A name beside a file, which no reader takes for one of the substituter's.
fn hidden_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    fs::unique_beside(&path.with_file_name(format!(".{name}")))
}

/// Replaces a file at once with what `write` leaves under another name.
fn put(path: &Path, write: impl FnOnce(&Path) -> fs::Result<()>) -> fs::Result<()> {
    let beside = hidden_beside(path);
    let written = write(&beside)
        .and_then(|()| fs::sync(&beside))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

impl Backend for Folder {
    fn get(&self, paths: &[String], limit: u64) -> Result<Vec<Option<Vec<u8>>>> {
        let paths = paths.iter();
        paths.map(|path| self.read_bounded(path, limit)).collect()
    }

    fn open(&self, path: &str, _size: u64, _until: Instant) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(fs::open(&self.root.join(path))?))
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }
}

impl Writer for Folder {
    fn prepare(&self) -> Result<()> {
        for folder in FOLDERS {
            fs::create_dir_all(&self.root.join(folder))?;
        }
        Ok(())
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Held>> {
        let bytes = self.read_bounded(path, limit)?;
        Ok(bytes.map(|bytes| Held {
            version: version(&bytes),
            modified: Stamp::of(&self.root.join(path)).map(|stamp| stamp.mtime),
            bytes,
        }))
    }

    fn add(&self, path: &str, file: &Path, archive: ArchiveRef) -> Result<Added> {
        let path = self.root.join(path);
        if let Some(there) = Stamp::of(&path)
            && there.size == archive.size
            && there.mtime.age().is_some_and(|age| age < FRESH)
        {
            return Ok(Added::Existing);
        }
        if fs::rename(file, &path).is_err() {
            // Another device; what else is wrong shows now.
            put(&path, |beside| fs::copy(file, beside))?;
        }
        Ok(Added::New)
    }

    fn replace(
        &self,
        path: &str,
        content: Content<'_>,
        before: Option<&Version>,
    ) -> Result<Change> {
        let path = self.root.join(path);
        let Some(_lock) = self.lock_as(&path, before)? else {
            return Ok(Change::Lost);
        };
        put(&path, |beside| fs::write(beside, content.bytes))?;
        Ok(Change::Done)
    }

    fn list(&self) -> Result<Vec<Listed>> {
        let mut files = Vec::new();
        for folder in FOLDERS {
            for file in fs::list(&self.root.join(folder))? {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let Some(stamp) = Stamp::of(&file).filter(|_| !name.starts_with('.')) else {
                    continue;
                };
                let path = Path::new(folder).join(&*name);
                if file.is_file() {
                    files.push(Listed {
                        path: path.to_string_lossy().into_owned(),
                        size: stamp.size,
                        modified: Some(stamp.mtime),
                    });
                }
            }
        }
        Ok(files)
    }

    fn remove(&self, path: &str, before: Option<&Version>) -> Result<Change> {
        let path = self.root.join(path);
        if before.is_some() {
            let Some(_lock) = self.lock_as(&path, before)? else {
                return Ok(Change::Lost);
            };
            fs::remove_file(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
        Ok(Change::Done)
    }
}

/// Whether a folder belongs to the user or to root, and nobody else may write
/// to it.
pub(super) fn is_own(folder: &Path) -> bool {
    const OTHERS_WRITE: u32 = 0o022;
    let access = fs::open(folder).and_then(|open| fs::Access::of(&open, folder));
    access
        .is_ok_and(|access| (access.is_own || access.owner == 0) && access.mode & OTHERS_WRITE == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_others_write_to_is_not_own() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, own) in [(0o755, true), (0o700, true), (0o775, false), (0o777, false)] {
            fs::set_mode(folder.path(), mode).unwrap();
            assert_eq!(is_own(folder.path()), own, "{mode:o}");
        }
        assert!(!is_own(&folder.path().join("absent")));
    }

    #[test]
    fn files_are_read_within_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(&folder.path().join("a"), b"12345").unwrap();
        let backend = Folder::new(folder.path().to_owned());
        let paths = ["a".to_owned(), "b".to_owned()];
        let found = backend.get(&paths, 5).unwrap();
        assert_eq!(found, [Some(b"12345".to_vec()), None]);
        let error = backend.get(&paths, 4).unwrap_err();
        assert!(matches!(error, SubstituterError::TooLarge { limit: 4, .. }));
    }
}
