//! Unpacks the archives of packages in the builder, before anything else runs
//! there: one file for each package is brought there, not thousands.
//!
//! Afterwards what is unpacked is read-only for whoever builds.

use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cargo::home::{UNPACKED, UNPACKED_MARK};
use crate::digest::ContentHash;
use crate::fs::{self, FsError};
use crate::store::FILE_TIME;

/// The list of [`PackedPackage`]s below `in/`.
pub(super) const LIST: &str = "unpack.json";

/// Bytes that an unpacked package may have, as on crates.io's servers ten times
/// over: more is an attack.
const MAX_UNPACKED: u64 = 5 << 30;

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
    let packages: Vec<PackedPackage> =
        serde_json::from_slice(&bytes).map_err(|source| UnpackError::List {
            path: list.to_owned(),
            source,
        })?;
    let below = list.parent().unwrap_or(Path::new("/"));
    packages.par_iter().try_for_each(|package| {
        let bytes = fs::read(&below.join(&package.archive))?;
        let archive = || package.archive.clone();
        if ContentHash::of(&bytes) != package.sha256 {
            return Err(UnpackError::Changed { archive: archive() });
        }
        let folder = below.join(&package.folder);
        let stem = package.folder.file_name().unwrap_or_default();
        unpack(&bytes, Path::new(stem), &folder).map_err(|source| UnpackError::Unpack {
            archive: archive(),
            source,
        })?;
        // Cargo's mark that the folder is whole.
        let mark = folder.join(UNPACKED_MARK);
        Ok(fs::write_at(&mark, UNPACKED.as_bytes(), FILE_TIME)?)
    })
}

/// Unpacks a `.crate`, whose entries are all below `<name>-<version>/`.
fn unpack(bytes: &[u8], stem: &Path, to: &Path) -> io::Result<()> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let decoder = flate2::read::GzDecoder::new(bytes).take(MAX_UNPACKED);
    let mut archive = tar::Archive::new(decoder);
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
        fs::create_dir_all(file.parent().unwrap_or(to)).map_err(other)?;
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
        assert!(
            unpack(
                &packed("a-1.0.0/src/lib.rs", file),
                Path::new("a-1.0.0"),
                &to
            )
            .is_ok()
        );
        assert!(to.join("src/lib.rs").is_file());
        for (name, kind) in [
            ("b-1.0.0/src/lib.rs", file),
            ("a-1.0.0/../x", file),
            ("a-1.0.0/link", tar::EntryType::Symlink),
        ] {
            assert!(
                unpack(&packed(name, kind), Path::new("a-1.0.0"), &to).is_err(),
                "{name}"
            );
        }
    }
}
