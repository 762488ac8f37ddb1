//! Files of secret keys: one line, for nobody but their owner.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{KeyError, SecretKey};
use crate::fs::{self, FsError};

/// Bytes that a key file may have: more than any has.
const MAX_SIZE: u64 = 1_000;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It is out of reach, or cannot be written.
    #[error("the key file cannot be used")]
    File(#[from] FsError),
    /// There is one already.
    #[error("there is a key in `{}` already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others may read or write it.
    #[error("others have access to the secret key in `{}` (mode {mode:o})", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is another user's.
    #[error("the secret key in `{}` belongs to another user (number {owner})", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The user's number.
        owner: u32,
    },
    /// It is no key.
    #[error("`{}` is no secret key", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, if it is text at all.
        source: Option<KeyError>,
    },
}

/// Writes a key into a new file that only its owner can read.
pub fn create_key_file(path: &Path, key: &SecretKey) -> Result<(), KeyFileError> {
    let mut text = key.to_text();
    text.push('\n');
    match fs::write_new_private(path, text.as_bytes()) {
        Err(error) if error.is_present() => Err(KeyFileError::Exists {
            path: path.to_owned(),
        }),
        other => Ok(other?),
    }
}

/// Reads a key file, if nobody else can.
pub fn read_key_file(path: &Path) -> Result<SecretKey, KeyFileError> {
    let file = fs::open(path)?;
    // Of the open file, so that no other can take its place in between.
    let access = fs::Access::of(&file, path)?;
    if !access.is_own {
        return Err(KeyFileError::Foreign {
            path: path.to_owned(),
            owner: access.owner,
        });
    }
    if access.mode & 0o077 != 0 {
        return Err(KeyFileError::Open {
            path: path.to_owned(),
            mode: access.mode,
        });
    }
    // With room for all of it, since growing would leave copies in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MAX_SIZE as usize));
    fs::at("read", path, file.take(MAX_SIZE).read_to_end(&mut bytes))?;
    let content = |source| KeyFileError::Content {
        path: path.to_owned(),
        source,
    };
    let text = std::str::from_utf8(&bytes).map_err(|_binary| content(None))?;
    SecretKey::parse(text.trim_end()).map_err(|error| content(Some(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::generate("test-1".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_file_keeps_the_key_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = key();
        create_key_file(&path, &key).unwrap();
        assert_eq!(fs::mode(&path).unwrap(), 0o600);
        assert_eq!(read_key_file(&path).unwrap().public(), key.public());
        assert_eq!(fs::list(folder.path()).unwrap(), [path]);
    }

    #[test]
    fn no_key_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let first = key();
        create_key_file(&path, &first).unwrap();
        let again = create_key_file(&path, &key());
        assert!(matches!(again, Err(KeyFileError::Exists { .. })));
        assert_eq!(read_key_file(&path).unwrap().public(), first.public());
        assert_eq!(fs::list(folder.path()).unwrap(), [path]);
    }

    #[test]
    fn what_others_can_reach_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create_key_file(&path, &key()).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644] {
            fs::set_mode(&path, mode).unwrap();
            let error = read_key_file(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Open { mode: found, .. } if found == mode));
        }
        fs::set_mode(&path, 0o400).unwrap();
        read_key_file(&path).unwrap();
        // A link is what it points to.
        let link = folder.path().join("link");
        fs::symlink(&path, &link).unwrap();
        read_key_file(&link).unwrap();
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for junk in [&b""[..], b"\xff\xfe", b"a:b", &[b'a'; 5_000]] {
            fs::write(&path, junk).unwrap();
            fs::set_mode(&path, 0o600).unwrap();
            let error = read_key_file(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Content { .. }));
        }
        let absent = read_key_file(&folder.path().join("none"));
        assert!(matches!(absent, Err(KeyFileError::File(error)) if error.is_absent()));
    }
}
