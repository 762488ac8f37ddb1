//! Parts of an open file, for whoever sends it to many at once.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::{Result, at};

/// Reads from a place of a file what fits and is in memory. `None` means that it
/// would have to wait for a device, or that the file system does not tell;
/// nothing means the end of the file.
pub fn read_at_once(
    file: &File,
    path: &Path,
    offset: u64,
    buffer: &mut [u8],
) -> Result<Option<usize>> {
    let mut buffers = [IoSliceMut::new(buffer)];
    match preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
        Err(error) => at("read", path, Err(error.into())),
    }
}

/// The same, waiting for it.
pub fn read_at(file: &File, path: &Path, offset: u64, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return at("read", path, read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs;

    #[test]
    fn parts_are_read_with_and_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"0123456789").unwrap();
        let file = fs::open(&path).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(read_at(&file, &path, 3, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer, b"3456");
        // Just written, so in memory, wherever the file system can tell.
        if let Some(count) = read_at_once(&file, &path, 8, &mut buffer).unwrap() {
            assert_eq!(&buffer[..count], b"89");
        }
        assert_eq!(read_at(&file, &path, 10, &mut buffer).unwrap(), 0);
    }
}
