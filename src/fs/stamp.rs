//! Modification times, and what tells that a file was touched.

use std::fs as std_fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Result, change};

/// A modification time in nanoseconds since 1970.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(pub i64);

impl Time {
    /// The time `seconds` after 1970.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds * 1_000_000_000)
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Nanoseconds within the second.
    pub fn nanoseconds(self) -> u32 {
        self.0.rem_euclid(1_000_000_000) as u32
    }

    /// How long ago it was; `None` for a time to come.
    pub fn age(self) -> Option<Duration> {
        let nanoseconds = now().0.checked_sub(self.0)?;
        Some(Duration::from_nanos(u64::try_from(nanoseconds).ok()?))
    }
}

impl From<Time> for SystemTime {
    /// Times before 1970 become 1970.
    fn from(time: Time) -> Self {
        let seconds = u64::try_from(time.seconds()).unwrap_or(0);
        UNIX_EPOCH + Duration::new(seconds, time.nanoseconds())
    }
}

/// The time now.
pub fn now() -> Time {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time(elapsed.as_nanos() as i64)
}

/// What `stat` tells about a file; two equal stamps mean an untouched file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Modification time.
    pub mtime: Time,
    /// Size in bytes.
    pub size: u64,
    /// Inode number.
    pub inode: u64,
}

impl Stamp {
    /// Reads the stamp; `None` if there is no such file.
    pub fn of(path: &Path) -> Option<Self> {
        Some(Self::from_metadata(&std_fs::metadata(path).ok()?))
    }

    /// The stamp of an open file.
    pub fn of_open(file: &std_fs::File, path: &Path) -> Result<Self> {
        let metadata = super::at("inspect", path, file.metadata())?;
        Ok(Self::from_metadata(&metadata))
    }

    fn from_metadata(metadata: &std_fs::Metadata) -> Self {
        // Saturating: file systems know years that 64 bits of nanoseconds do not.
        let nanoseconds = metadata.mtime().saturating_mul(1_000_000_000);
        Self {
            mtime: Time(nanoseconds.saturating_add(metadata.mtime_nsec())),
            size: metadata.size(),
            inode: metadata.ino(),
        }
    }

    /// Bytes on the device, the number of hardlinks and the device of a file.
    pub fn usage(path: &Path) -> Option<(u64, u64, u64)> {
        let metadata = std_fs::symlink_metadata(path).ok()?;
        Some((metadata.blocks() * 512, metadata.nlink(), metadata.dev()))
    }
}

/// Sets the modification time.
pub fn set_mtime(path: &Path, time: Time) -> Result<()> {
    change("set time of", path, || {
        let file = std_fs::File::open(path)?;
        file.set_modified(time.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtime_is_kept_to_the_nanosecond() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        crate::fs::write(&path, b"x").unwrap();
        let time = Time(1_234_567_890_123_456_789);
        set_mtime(&path, time).unwrap();
        assert_eq!(Stamp::of(&path).unwrap().mtime, time);
    }
}
