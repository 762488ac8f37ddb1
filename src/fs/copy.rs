//! Copying what is in a file, by whichever way is the faster one here.
//!
//! A program with debug information has hundreds of megabytes, and a copy of it
//! is most of what a second checkout waits for. Through the page cache such a copy
//! goes at the speed of memory, which in a virtual machine can be slow: memory that
//! the host has to find first takes longer to write to than a fast disk does. Past
//! the page cache it goes at the speed of the disk. Nothing tells beforehand, so
//! the file is copied in pieces, each by the way that took less time the last time.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

/// Bytes from which on there is a choice of ways.
const LARGE: u64 = 32 << 20;

/// Bytes that are copied until the choice is made anew.
const PIECE: u64 = 8 << 20;

/// Bytes that are written past the page cache at once.
const BLOCK: usize = 1 << 20;

/// What such a write's place, length and memory are multiples of: no less than
/// what any common device asks for (`open(2)`, `O_DIRECT`).
const ALIGNMENT: usize = 4096;

/// Copies all of `source` into `target`, which is empty and was opened at `path`.
pub(super) fn contents(source: &mut File, target: &mut File, path: &Path) -> io::Result<()> {
    let size = source.metadata()?.len();
    if size < LARGE {
        return io::copy(source, target).map(drop);
    }
    let mut past = Past::open(target, path, size);
    // None was tried yet, so each is.
    let (mut cached, mut direct) = (Duration::ZERO, Duration::ZERO);
    let mut done = 0;
    while size - done >= PIECE {
        let began = Instant::now();
        if let Some(way) = past.as_mut().filter(|_| direct < cached) {
            if way.copy(source, done).is_ok() {
                direct = began.elapsed();
                done += PIECE;
            } else {
                past = None; // what is wrong with the files themselves shows again
            }
            continue;
        }
        through_cache(source, target, done, PIECE)?;
        cached = began.elapsed();
        done += PIECE;
    }
    through_cache(source, target, done, size - done)
}

fn through_cache(source: &mut File, target: &mut File, at: u64, length: u64) -> io::Result<()> {
    source.seek(SeekFrom::Start(at))?;
    target.seek(SeekFrom::Start(at))?;
    let copied = io::copy(&mut source.take(length), target)?;
    if copied == length {
        return Ok(());
    }
    let message = format!("{copied} bytes were read where there were {length}");
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
}

/// A file that is written to past the page cache.
struct Past {
    file: File,
    memory: Vec<u8>,
    /// Where in `memory` a write may begin.
    start: usize,
}

impl Past {
    /// `None` where the file system has no such way.
    fn open(target: &File, path: &Path, size: u64) -> Option<Self> {
        let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(path)
            .ok()?;
        // Blocks are found once, and not for each write; the size grows all the same
        // with what is there, so that nothing unwritten ever looks like content.
        fallocate(target, FallocateFlags::KEEP_SIZE, 0, size).ok()?;
        Self::to(file)
    }

    fn to(file: File) -> Option<Self> {
        let memory = vec![0; BLOCK + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        (start < ALIGNMENT).then_some(Self {
            file,
            memory,
            start,
        })
    }

    /// Copies a [`PIECE`] to the same place.
    fn copy(&mut self, source: &File, at: u64) -> io::Result<()> {
        let block = &mut self.memory[self.start..self.start + BLOCK];
        for offset in (at..at + PIECE).step_by(BLOCK) {
            source.read_exact_at(block, offset)?;
            self.file.write_all_at(block, offset)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that are nowhere the same, and end in the middle of everything.
    fn content(size: u64) -> Vec<u8> {
        let words = (0..size.div_ceil(8)).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        bytes.truncate(size as usize);
        bytes
    }

    fn copied(folder: &Path, bytes: &[u8]) -> Vec<u8> {
        let (from, to) = (folder.join("from"), folder.join("to"));
        std::fs::write(&from, bytes).unwrap();
        let mut target = File::create(&to).unwrap();
        contents(&mut File::open(&from).unwrap(), &mut target, &to).unwrap();
        std::fs::read(&to).unwrap()
    }

    #[test]
    fn a_copy_has_all_there_was() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 1, LARGE - 1, LARGE, LARGE + PIECE + 1234] {
            let bytes = content(size);
            assert!(copied(folder.path(), &bytes) == bytes, "{size} bytes");
        }
    }

    #[test]
    fn both_ways_put_bytes_where_they_belong() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let bytes = content(3 * PIECE);
        std::fs::write(&from, &bytes).unwrap();
        let mut source = File::open(&from).unwrap();
        let mut target = File::create(&to).unwrap();
        // Whether or not the file system of temporary files knows direct writes.
        let mut past = Past::to(target.try_clone().unwrap()).unwrap();
        through_cache(&mut source, &mut target, 2 * PIECE, PIECE).unwrap();
        past.copy(&source, PIECE).unwrap();
        through_cache(&mut source, &mut target, 0, PIECE).unwrap();
        assert!(std::fs::read(&to).unwrap() == bytes);
        assert_eq!(target.metadata().unwrap().len(), 3 * PIECE);
    }

    #[test]
    fn a_file_that_shrinks_is_no_copy() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, b"short").unwrap();
        let mut target = File::create(&to).unwrap();
        let error = through_cache(&mut File::open(&from).unwrap(), &mut target, 0, 6);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
