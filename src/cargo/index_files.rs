//! The files in which Cargo keeps what it has looked up in the index of crates.io:
//! [`registry_index`](super::registry_index) says how they are made.
//!
//! Only the lines that somebody wants are parsed, by those who want them: an index
//! has hundreds for most packages.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::home::index_path;
use crate::fs;

/// The files of some Cargo homes.
#[derive(Debug, Default)]
pub(super) struct IndexFiles {
    folders: Vec<PathBuf>,
    read: Mutex<HashMap<String, Arc<Lines>>>,
}

/// The lines of the index about one package, by version.
pub(super) type Lines = HashMap<String, Vec<u8>>;

impl IndexFiles {
    /// Looks at the index of crates.io in some Cargo homes; what a later one says
    /// goes before what an earlier one does.
    pub(super) fn open(cargo_homes: &[PathBuf]) -> fs::Result<Self> {
        Ok(Self {
            folders: folders(cargo_homes)?,
            ..Self::default()
        })
    }

    /// The lines about a package by version; none if the index is not at hand.
    pub(super) fn of(&self, name: &str) -> Arc<Lines> {
        let lock = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = lock().get(name) {
            return Arc::clone(file);
        }
        let mut file = Lines::new();
        for folder in &self.folders {
            if let Ok(Some(bytes)) = fs::read_optional(&folder.join(index_path(name))) {
                split(&bytes, &mut file);
            }
        }
        let file = Arc::new(file);
        lock().insert(name.to_owned(), Arc::clone(&file));
        file
    }
}

/// Finds the lines of a cache file: each is behind its version
/// ([`registry_index`](super::registry_index) says more).
fn split(bytes: &[u8], file: &mut Lines) {
    let mut version: &[u8] = &[];
    for part in bytes.split(|byte| *byte == 0) {
        if part.starts_with(b"{") {
            let version = String::from_utf8_lossy(version).into_owned();
            file.insert(version, part.to_vec());
        }
        version = part;
    }
}

/// The folders in Cargo homes in which the index of crates.io is kept.
fn folders(cargo_homes: &[PathBuf]) -> fs::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for home in cargo_homes {
        for folder in fs::list(&home.join("registry/index"))? {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("index.crates.io-") || name.starts_with("github.com-") {
                folders.push(folder.join(".cache"));
            }
        }
    }
    Ok(folders)
}
