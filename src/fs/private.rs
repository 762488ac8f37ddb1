//! Files for nobody but their owner.

use std::fs as std_fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::{Result, at, change, unique_beside};

/// Who may do what with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// The owner's number.
    pub owner: u32,
    /// Whether the owner is the user that runs this process.
    pub is_own: bool,
}

impl Access {
    /// Looks at an open file.
    pub fn of(file: &std_fs::File, path: &Path) -> Result<Self> {
        let metadata = at("inspect", path, file.metadata())?;
        // What Linux says of the process belongs to the user it runs as
        // (proc(5)).
        let process = Path::new("/proc/self");
        let own = at("inspect", process, std_fs::metadata(process))?;
        Ok(Self {
            mode: metadata.mode() & 0o7777,
            owner: metadata.uid(),
            is_own: metadata.uid() == own.uid(),
        })
    }
}

/// Writes a new file that only its owner can read, whole or not at all; fails
/// with [`is_present`](super::FsError::is_present) if there is one.
pub fn write_new_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = unique_beside(path);
    let written = change("write", &beside, || {
        let mut options = std_fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()
    });
    // Unlike a rename, a link replaces nothing.
    let linked = written.and_then(|()| change("create", path, || std_fs::hard_link(&beside, path)));
    let _ = std_fs::remove_file(&beside);
    linked
}

/// Creates a folder and its parents, for their owner alone; those that exist
/// stay as they are.
pub fn create_private_dir_all(path: &Path) -> Result<()> {
    change("create", path, || {
        std_fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{list, mode, open, read};

    #[test]
    fn a_private_file_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_new_private(&path, b"one").unwrap();
        let error = write_new_private(&path, b"two").unwrap_err();
        assert!(error.is_present(), "{error:?}");
        assert_eq!(read(&path).unwrap(), b"one");
        assert_eq!(list(folder.path()).unwrap(), std::slice::from_ref(&path));
        let access = Access::of(&open(&path).unwrap(), &path).unwrap();
        assert_eq!((access.mode, access.is_own), (0o600, true));
    }

    #[test]
    fn private_folders_are_the_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let before = mode(folder.path()).unwrap();
        let path = folder.path().join("a/b");
        create_private_dir_all(&path).unwrap();
        create_private_dir_all(&path).unwrap();
        assert_eq!(mode(&path).unwrap(), 0o700);
        assert_eq!(mode(folder.path()).unwrap(), before);
    }
}
