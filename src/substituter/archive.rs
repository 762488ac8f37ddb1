//! The files of one output as one archive: a tar in one frame of Zstandard.
//!
//! * The same files give the same bytes: no time, no user gets in.
//! * [`unpack`] takes nothing on trust: any other entry, order, size, mode or
//!   SHA-256 refuses it, and it reads no more than the manifest promises.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use super::ArchiveRef;
use crate::digest::{ContentHash, ContentHasher};
use crate::fs::{self, FsError};
use crate::output::{FILE_TIME, Output};

/// More costs more time than it saves, as measured on an axum service: level 9
/// gives 17.2 % of the files' size in 6.6 s, level 12 gives 17.0 % in 14.4 s.
const LEVEL: i32 = 9;
/// Bytes that a reader must remember, as a power of two.
const MAX_WINDOW: u32 = 26;
/// The smallest window worth setting.
const MIN_WINDOW: u32 = 17;
/// Bytes that an archive may have beyond those of its files.
const MAX_SURPLUS: u64 = 1 << 20;
const BLOCK: u64 = 512;

/// An archive that is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is not the archive of the output.
    #[error("{0}")]
    Refused(String),
    /// It breaks off, or is not in Zstandard.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// A file cannot be written.
    #[error("a file cannot be written")]
    File(#[from] FsError),
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, UnpackError> {
    Err(UnpackError::Refused(reason.into()))
}

/// Bytes of the tar.
fn tar_size(output: &Output) -> u64 {
    let files = output.files.iter();
    let entries = files.map(|file| BLOCK + file.size.div_ceil(BLOCK) * BLOCK);
    entries.sum::<u64>() + 2 * BLOCK
}

/// Whether an archive of this size can be that of the output: packing does not
/// make files much larger.
pub fn is_plausible(output: &Output, archive: ArchiveRef) -> bool {
    archive.size <= tar_size(output).saturating_add(MAX_SURPLUS)
}

/// Writes the archive of an output to a new file. `files` are those of the
/// manifest, in its order.
pub fn pack(output: &Output, files: &[PathBuf], to: &Path) -> fs::Result<ArchiveRef> {
    let target = Hashing {
        inner: fs::create(to)?,
        hasher: ContentHasher::default(),
        size: 0,
    };
    let written = write(output, files, target)?;
    let Hashing {
        inner,
        hasher,
        size,
    } = fs::at("write", to, written)?;
    fs::at("sync", to, inner.sync_all())?;
    Ok(ArchiveRef {
        sha256: hasher.finish(),
        size,
    })
}

/// The inner error is that of the archive, the outer one that of a file.
fn write<W: Write>(output: &Output, files: &[PathBuf], to: W) -> fs::Result<io::Result<W>> {
    let size = tar_size(output);
    let begin = || -> io::Result<_> {
        let mut encoder = zstd::Encoder::new(to, LEVEL)?;
        let needed = size.next_power_of_two().trailing_zeros();
        encoder.window_log(needed.clamp(MIN_WINDOW, MAX_WINDOW))?;
        // A library repeats its metadata, as far behind it as that is long.
        encoder.long_distance_matching(true)?;
        encoder.set_pledged_src_size(Some(size))?;
        Ok(tar::Builder::new(encoder))
    };
    let mut tar = match begin() {
        Ok(tar) => tar,
        Err(error) => return Ok(Err(error)),
    };
    for (index, (file, path)) in output.files.iter().zip(files).enumerate() {
        let content = fs::open(path)?;
        let mut header = tar::Header::new_ustar();
        header.set_mode(file.mode);
        header.set_size(file.size);
        header.set_mtime(FILE_TIME.seconds().unsigned_abs());
        header.set_uid(0);
        header.set_gid(0);
        let appended = header.set_path(file.store_name(index)).and_then(|()| {
            header.set_cksum();
            tar.append(&header, content.take(file.size))
        });
        if let Err(error) = appended {
            return Ok(Err(error));
        }
    }
    Ok(tar.into_inner().and_then(|encoder| encoder.finish()))
}

/// Unpacks an archive into a new folder, as `files/<n>`, while it comes.
pub fn unpack(
    output: &Output,
    archive: ArchiveRef,
    content: impl Read,
    into: &Path,
) -> Result<(), UnpackError> {
    fs::create_dir_all(&into.join("files"))?;
    compare(output, archive, content, Some(into))
}

/// Sees whether [`unpack`] would unpack it.
pub fn verify(output: &Output, archive: ArchiveRef, content: impl Read) -> Result<(), UnpackError> {
    compare(output, archive, content, None)
}

fn compare(
    output: &Output,
    archive: ArchiveRef,
    content: impl Read,
    into: Option<&Path>,
) -> Result<(), UnpackError> {
    let mut content = Hashing {
        // Neither an endless archive nor one that is longer than it says.
        inner: content.take(archive.size.saturating_add(1)),
        hasher: ContentHasher::default(),
        size: 0,
    };
    read(output, &mut content, into)?;
    if content.size != archive.size {
        let (found, wanted) = (content.size, archive.size);
        return refuse(format!("it has {found} bytes instead of {wanted}"));
    }
    if content.hasher.finish() != archive.sha256 {
        return refuse("it has another SHA-256");
    }
    Ok(())
}

fn read(output: &Output, content: impl Read, into: Option<&Path>) -> Result<(), UnpackError> {
    let buffered = BufReader::with_capacity(128 << 10, content);
    let decoder = zstd::Decoder::with_buffer(buffered).map_err(UnpackError::Read)?;
    let mut decoder = decoder.single_frame();
    decoder
        .window_log_max(MAX_WINDOW)
        .map_err(UnpackError::Read)?;
    // No more is unpacked than the manifest promises, whatever was packed.
    let mut archive = tar::Archive::new(decoder.take(tar_size(output) + 1));
    let mut next = 0;
    for entry in archive.entries().map_err(UnpackError::Read)?.raw(true) {
        let mut entry = entry.map_err(UnpackError::Read)?;
        let Some(file) = output.files.get(next) else {
            return refuse("it has more files than the manifest");
        };
        let name = file.store_name(next);
        if !entry.header().entry_type().is_file() || *entry.path_bytes() != *name.as_bytes() {
            let found = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            return refuse(format!("it has {found:?} where `{name}` belongs"));
        }
        if entry.size() != file.size {
            let (found, wanted) = (entry.size(), file.size);
            return refuse(format!("`{name}` has {found} bytes instead of {wanted}"));
        }
        if entry.header().mode().ok() != Some(file.mode) {
            return refuse(format!("`{name}` has another mode"));
        }
        let path = into.map(|folder| folder.join(&name));
        let read = match &path {
            Some(path) => fs::write_hashed(&mut entry, path)?,
            None => hash(&mut entry),
        };
        let (size, digest) = read.map_err(UnpackError::Read)?;
        if (size, Some(digest)) != (file.size, file.sha256) {
            return refuse(format!("`{name}` has another SHA-256"));
        }
        if let Some(path) = &path {
            fs::set_mode(path, file.mode)?;
        }
        next += 1;
    }
    if next != output.files.len() {
        return refuse(format!("file {next} is not in it"));
    }
    // A tar ends with two blocks of zeros, and the first has been read.
    let mut rest = Vec::new();
    let mut decoder = archive.into_inner();
    decoder.read_to_end(&mut rest).map_err(UnpackError::Read)?;
    if rest != [0; BLOCK as usize] {
        return refuse("it does not end where it should");
    }
    // Nothing may follow the frame.
    let mut behind = decoder.into_inner().finish();
    let mut byte = [0];
    match behind.read(&mut byte).map_err(UnpackError::Read)? {
        0 => Ok(()),
        _ => refuse("something follows it"),
    }
}

/// The length and the digest of a stream.
fn hash(content: impl Read) -> io::Result<(u64, ContentHash)> {
    let mut hashing = Hashing {
        inner: content,
        hasher: ContentHasher::default(),
        size: 0,
    };
    io::copy(&mut hashing, &mut io::sink())?;
    Ok((hashing.size, hashing.hasher.finish()))
}

/// Counts and hashes what passes.
struct Hashing<T> {
    inner: T,
    hasher: ContentHasher,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
