//! What a place can do. Bytes only: nothing here is verified.
//!
//! Paths are those of `docs/formats/substituter.md`, whatever a back end makes of
//! them. A [`Writer`] changes one file at a time, at once or not at all.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{ArchiveRef, Result};
use crate::fs::Time;

/// How long an archive that no document names is spared: somebody may be about
/// to name it.
pub const GRACE: Duration = Duration::from_secs(86_400);
/// How old an archive may be that a writer finds and does not put there anew.
pub(super) const FRESH: Duration = Duration::from_secs(43_200);

/// Where bytes come from.
pub(super) trait Backend: Send + Sync {
    /// Whole files of at most `limit` bytes, in the order of their paths; `None`
    /// for what does not exist. The first error ends it.
    fn get(&self, paths: &[String], limit: u64) -> Result<Vec<Option<Vec<u8>>>>;

    /// Starts reading a file that should have `size` bytes, and that nobody
    /// wants any more after `until`.
    fn open(&self, path: &str, size: u64, until: Instant) -> Result<Box<dyn Read + Send>>;

    /// Sends a body and gives the answer; `None` where nobody answers calls.
    fn post(&self, _path: &str, _body: Vec<u8>, _limit: u64) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// Ends what [`open`](Self::open) has begun: readers that wait get an error.
    fn stop(&self) {}

    /// What writes there, if anything can.
    fn writer(&self) -> Option<&dyn Writer> {
        None
    }
}

/// What tells one content of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// An `ETag`, a digest or an id.
    pub(super) tag: Option<String>,
    /// A number, where the place counts.
    pub(super) number: Option<String>,
}

impl Version {
    pub(super) fn of(tag: impl Into<String>) -> Self {
        Self {
            tag: Some(tag.into()),
            number: None,
        }
    }
}

/// A file as it is now.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Which content this is.
    pub version: Version,
    /// Since when, if the place tells.
    pub modified: Option<Time>,
}

/// What is to be in a file.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// The archives it names: a registry keeps only what is referred to.
    pub archives: &'a [ArchiveRef],
}

/// What came of putting an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It was not there.
    New,
    /// It was there.
    Existing,
}

/// What came of changing a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is changed.
    Done,
    /// Somebody else was faster; nothing is changed.
    Lost,
}

/// A file of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path.
    pub path: String,
    /// Its bytes, if the place tells.
    pub size: u64,
    /// When it was put there, if the place tells.
    pub modified: Option<Time>,
}

/// What writes to a place.
pub trait Writer: Send + Sync {
    /// Makes ready for writing, and creates the place if it is absent.
    fn prepare(&self) -> Result<()> {
        Ok(())
    }

    /// A file of at most `limit` bytes as it is now, past all caches.
    fn read(&self, path: &str, limit: u64) -> Result<Option<Held>>;

    /// Puts the archive in `file` there, which may be moved away, unless it is
    /// there.
    fn add(&self, path: &str, file: &Path, archive: ArchiveRef) -> Result<Added>;

    /// Replaces a file that was read as `before`, or that was not there.
    fn replace(&self, path: &str, content: Content<'_>, before: Option<&Version>)
    -> Result<Change>;

    /// Whether [`replace`](Self::replace) can overwrite what somebody else wrote
    /// at the very same time, so that what was written is to be looked at again.
    fn is_racy(&self) -> bool {
        false
    }

    /// All files, in any order.
    fn list(&self) -> Result<Vec<Listed>>;

    /// Removes a file; one that is not there is no error. With a version, only
    /// if it is as it was read.
    fn remove(&self, path: &str, before: Option<&Version>) -> Result<Change>;
}

/// The name of a file where there are no folders.
pub(super) fn flat(path: &str) -> String {
    path.replace('/', "-")
}

/// The path that a flat name stands for, if it is one of the substituter's.
pub(super) fn unflat(name: &str) -> Option<String> {
    let folders = ["recipes", "closures", "archives"];
    let path = folders.iter().find_map(|folder| {
        let rest = name.strip_prefix(folder)?.strip_prefix('-')?;
        Some(format!("{folder}/{rest}"))
    });
    let files = [super::document::INFO, super::INVENTORY];
    path.or_else(|| files.contains(&name).then(|| name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_names_lead_back() {
        for path in [
            "recipes/a.json.zst",
            "archives/b-c.tar.zst",
            "quickbuild-cache.json",
            "inventory.json.zst",
        ] {
            assert_eq!(unflat(&flat(path)).as_deref(), Some(path));
        }
        assert_eq!(unflat("notes.txt"), None);
        assert_eq!(unflat("recipesx"), None);
    }
}
