//! Unpacks the archives of packages in the builder, before anything else runs
//! there: one file for each package is brought there, not thousands.
//!
//! Afterwards what is unpacked is read-only for whoever builds.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cargo::home::{UNPACKED, UNPACKED_MARK};
use crate::digest::ContentHash;
use crate::fs::{self, FsError};
use crate::store::FILE_TIME;

/// The [`Packed`] packages, below `in/`.
pub(super) const LIST: &str = "unpack.json";

/// All that is to be unpacked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Packed {
    /// Bytes that all of them may have; zero is no limit.
    pub(super) disk: u64,
    pub(super) packages: Vec<PackedPackage>,
}

/// An archive, and where it belongs; paths are below the list's folder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PackedPackage {
    pub(super) archive: PathBuf,
    /// Its last part is the package's name and version, as all names in the
    /// archive begin.
    pub(super) folder: PathBuf,
    /// SHA-256 of the archive.
    pub(super) sha256: ContentHash,
}

/// Why nothing can be built.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A file.
    #[error("an archive cannot be used")]
    File(#[from] FsError),
    /// The list.
    #[error("`{}` is not a list of archives", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// An archive was changed on its way.
    #[error("`{}` has another SHA-256 than was sent", archive.display())]
    Changed {
        /// The archive.
        archive: PathBuf,
    },
    /// Archives that are small can hold much.
    #[error("the unpacked packages have more than {limit} bytes")]
    TooMuch {
        /// What they may have.
        limit: u64,
    },
    /// An archive is none.
    #[error("`{}` cannot be unpacked", archive.display())]
    Unpack {
        /// The archive.
        archive: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Unpacks all that the list names.
pub fn run(list: &Path) -> Result<(), UnpackError> {
    let bytes = fs::read(list)?;
    let packed: Packed = serde_json::from_slice(&bytes).map_err(|source| UnpackError::List {
        path: list.to_owned(),
        source,
    })?;
    let below = list.parent().unwrap_or(Path::new("/"));
    let room = Room {
        limit: packed.disk,
        taken: AtomicU64::new(0),
    };
    packed.packages.par_iter().try_for_each(|package| {
        let bytes = fs::read(&below.join(&package.archive))?;
        let archive = || package.archive.clone();
        if ContentHash::of(&bytes) != package.sha256 {
            return Err(UnpackError::Changed { archive: archive() });
        }
        let folder = below.join(&package.folder);
        let stem = package.folder.file_name().unwrap_or_default();
        let unpacked = unpack(&bytes, Path::new(stem), &folder, &room);
        if room.is_exceeded() {
            return Err(UnpackError::TooMuch { limit: room.limit });
        }
        unpacked.map_err(|source| UnpackError::Unpack {
            archive: archive(),
            source,
        })?;
        // Cargo's mark that the folder is whole.
        let mark = folder.join(UNPACKED_MARK);
        Ok(fs::write_at(&mark, UNPACKED.as_bytes(), FILE_TIME)?)
    })
}

/// Bytes that all packages have so far, of those that they may have.
struct Room {
    limit: u64,
    taken: AtomicU64,
}

impl Room {
    fn take(&self, bytes: u64) -> io::Result<()> {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        match self.is_exceeded() {
            true => Err(io::ErrorKind::QuotaExceeded.into()),
            false => Ok(()),
        }
    }

    fn is_exceeded(&self) -> bool {
        self.limit > 0 && self.taken.load(Ordering::Relaxed) > self.limit
    }
}

/// What is read counts before it is written anywhere.
struct Counted<'a, R> {
    inner: R,
    room: &'a Room,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.room.take(count as u64)?;
        Ok(count)
    }
}

/// Unpacks a `.crate`, whose entries are all below `<name>-<version>/`.
fn unpack(bytes: &[u8], stem: &Path, to: &Path, room: &Room) -> io::Result<()> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let inner = flate2::read::GzDecoder::new(bytes);
    let mut archive = tar::Archive::new(Counted { inner, room });
    let mut folders: HashSet<PathBuf> = HashSet::new();
    let other = |error: FsError| io::Error::other(error);
    fs::create_dir_all(to).map_err(other)?;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind == tar::EntryType::XGlobalHeader {
            continue;
        }
        let path = entry.path()?.into_owned();
        let below = path.strip_prefix(stem).ok().filter(|below| {
            let mut parts = below.components();
            parts.all(|part| matches!(part, Component::Normal(_)))
        });
        let Some(below) = below.filter(|_| kind.is_file()) else {
            return Err(invalid(format!("`{}` has no place in it", path.display())));
        };
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        let file = to.join(below);
        let folder = file.parent().unwrap_or(to);
        if !folders.contains(folder) {
            fs::create_dir_all(folder).map_err(other)?;
            folders.insert(folder.to_owned());
        }
        fs::write_at(&file, &content, FILE_TIME).map_err(other)?;
        let mode = (entry.header().mode()? & 0o111) | 0o644;
        fs::set_mode(&file, mode).map_err(other)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(name: &str, kind: tar::EntryType) -> Vec<u8> {
        let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(encoder);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn an_archive_stays_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("to");
        let file = tar::EntryType::Regular;
        let room = Room {
            limit: 0,
            taken: AtomicU64::new(0),
        };
        let stem = Path::new("a-1.0.0");
        let archive = packed("a-1.0.0/src/lib.rs", file);
        assert!(unpack(&archive, stem, &to, &room).is_ok());
        assert!(to.join("src/lib.rs").is_file());
        for (name, kind) in [
            ("b-1.0.0/src/lib.rs", file),
            ("a-1.0.0/../x", file),
            ("a-1.0.0/link", tar::EntryType::Symlink),
        ] {
            assert!(
                unpack(&packed(name, kind), stem, &to, &room).is_err(),
                "{name}"
            );
        }
    }
}
