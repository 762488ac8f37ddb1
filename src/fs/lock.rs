//! Advisory whole-file locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::{FsError, Result, at};

/// A held lock; released when dropped or when the process ends, however it ends.
///
/// On Linux this is `flock(2)`, the same call that Cargo uses for
/// `target/<profile>/.cargo-lock` (`src/cargo/util/flock.rs`).
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the exclusive lock; the file is created when absent.
    pub fn exclusive(path: &Path) -> Result<Self> {
        let file = open(path)?;
        at("lock", path, file.lock())?;
        Ok(Self { _file: file })
    }

    /// Waits for a shared lock.
    pub fn shared(path: &Path) -> Result<Self> {
        let file = open(path)?;
        at("lock", path, file.lock_shared())?;
        Ok(Self { _file: file })
    }

    /// Takes the exclusive lock if nobody holds any lock on the file now.
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(FsError {
                operation: "lock",
                path: path.to_owned(),
                source,
            }),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    at("open", path, options.open(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_excludes_until_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Lock::shared(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }
}
