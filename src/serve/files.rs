//! Files that are sent: small ones that were sent lately lie in memory, whole, for
//! all who ask.
//!
//! A file is sent from there as long as its path has the stamp that it had when it
//! was read, so what is replaced or removed is gone from there at once. That saves
//! opening, reading and copying it, which is most of the work of sending it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hashlink::LruCache;

use super::body::{Content, FilePart, Pool};
use crate::digest::{ContentHash, ContentHasher};
use crate::fs::{self, File, Stamp};

/// Bytes of all that lie in memory, and of one: there is room for a hundred.
const ROOM: u64 = 64 << 20;
const LARGEST: u64 = 640 << 10;

/// What the files of a folder are sent from.
#[derive(Default)]
pub(super) struct Files {
    kept: Mutex<Kept>,
    pool: Arc<Pool>,
}

/// A file that can be sent.
#[derive(Clone)]
pub(super) struct Open {
    path: Arc<PathBuf>,
    stamp: Stamp,
    content: Opened,
}

#[derive(Clone)]
enum Opened {
    Kept(Bytes),
    File(Arc<File>),
}

impl Files {
    /// Opens a file, if it does not lie in memory.
    pub(super) fn open(&self, path: PathBuf) -> fs::Result<Open> {
        let kept = Stamp::of(&path).and_then(|stamp| Some((stamp, self.kept().get(&path, stamp)?)));
        let (stamp, content) = match kept {
            Some((stamp, bytes)) => (stamp, Opened::Kept(bytes)),
            None => self.read(&path)?,
        };
        Ok(Open {
            path: Arc::new(path),
            stamp,
            content,
        })
    }

    fn read(&self, path: &Path) -> fs::Result<(Stamp, Opened)> {
        let file = fs::open(path)?;
        let stamp = Stamp::of_open(&file, path)?;
        if stamp.size <= LARGEST {
            let mut bytes = vec![0; stamp.size as usize];
            // What must come from a device does not keep this thread waiting.
            if fs::read_at_once(&file, path, 0, &mut bytes)? == Some(bytes.len()) {
                let bytes = Bytes::from(bytes);
                self.kept().keep(path.to_owned(), stamp, bytes.clone());
                return Ok((stamp, Opened::Kept(bytes)));
            }
        }
        Ok((stamp, Opened::File(Arc::new(file))))
    }

    /// Some of the bytes of a file, which it has.
    pub(super) fn part(&self, open: Open, range: Range<u64>) -> Content {
        match open.content {
            Opened::Kept(bytes) => {
                Content::Whole(bytes.slice(range.start as usize..range.end as usize))
            }
            Opened::File(file) => FilePart::new(file, open.path, Arc::clone(&self.pool))
                .part(range.start, range.end - range.start),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Reads all of it.
    pub(super) fn hash(&self) -> fs::Result<ContentHash> {
        let file = match &self.content {
            Opened::Kept(bytes) => return Ok(ContentHash::of(bytes)),
            Opened::File(file) => file,
        };
        let mut hasher = ContentHasher::default();
        let mut buffer = vec![0; 128 << 10];
        let mut offset = 0;
        loop {
            let count = fs::read_at(file, &self.path, offset, &mut buffer)?;
            if count == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&buffer[..count]);
            offset += count as u64;
        }
    }
}

/// The small files that were asked for last.
struct Kept {
    files: LruCache<PathBuf, (Stamp, Bytes)>,
    size: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            files: LruCache::new_unbounded(),
            size: 0,
        }
    }
}

impl Kept {
    /// The content of a path that has this stamp.
    fn get(&mut self, path: &Path, stamp: Stamp) -> Option<Bytes> {
        let (of, bytes) = self.files.get(path)?;
        (*of == stamp).then(|| bytes.clone())
    }

    /// Keeps a content, and as much of the others as there is room for.
    fn keep(&mut self, path: PathBuf, stamp: Stamp, bytes: Bytes) {
        self.size += bytes.len() as u64;
        let before = self.files.insert(path, (stamp, bytes));
        self.size -= size(before);
        while self.size > ROOM {
            let oldest = self.files.remove_lru();
            self.size -= size(oldest.map(|(_, file)| file));
        }
    }
}

fn size(file: Option<(Stamp, Bytes)>) -> u64 {
    file.map_or(0, |(_, bytes)| bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::now;

    fn stamp(inode: u64) -> Stamp {
        Stamp {
            mtime: now(),
            size: LARGEST,
            inode,
        }
    }

    fn large(byte: u8) -> Bytes {
        vec![byte; LARGEST as usize].into()
    }

    #[test]
    fn a_file_that_was_replaced_is_not_sent() {
        let (mut kept, path) = (Kept::default(), Path::new("file"));
        let (old, new) = (stamp(1), stamp(2));
        kept.keep(path.to_owned(), old, large(1));
        assert_eq!(kept.get(path, old), Some(large(1)));
        assert_eq!(kept.get(path, new), None);
        kept.keep(path.to_owned(), new, large(2));
        assert_eq!(kept.get(path, new), Some(large(2)));
        assert_eq!(kept.size, LARGEST);
    }

    #[test]
    fn what_nobody_wants_makes_room() {
        let mut kept = Kept::default();
        let name = |number: u64| PathBuf::from(number.to_string());
        let (stamp, count) = (stamp(1), ROOM / LARGEST);
        for number in 0..count {
            kept.keep(name(number), stamp, large(0));
        }
        assert!(kept.get(&name(0), stamp).is_some()); // and is wanted now
        kept.keep(name(count), stamp, large(0));
        assert!(kept.get(&name(0), stamp).is_some());
        assert!(kept.get(&name(1), stamp).is_none());
        assert_eq!(kept.size, count * LARGEST);
    }
}
