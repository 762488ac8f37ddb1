//! The back end for folders.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Backend, Result, SubstituterError};
use crate::fs;

/// A folder of this machine.
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

impl Backend for Folder {
    fn get(&self, paths: &[String], limit: u64) -> Result<Vec<Option<Vec<u8>>>> {
        let read = |path: &String| {
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
        };
        paths.iter().map(read).collect()
    }

    fn open(&self, path: &str, _size: u64, _until: Instant) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(fs::open(&self.root.join(path))?))
    }

    fn post(&self, _path: &str, _body: Vec<u8>, _limit: u64) -> Result<Option<Vec<u8>>> {
        Ok(None)
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
