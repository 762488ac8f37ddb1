//! Folders for what a realisation needs for a while.

use std::path::{Path, PathBuf};

use super::Result;
use crate::fs;
use crate::store::Store;

/// How the names of scratch folders begin, before the process.
const SCRATCH: &str = "realise-";

/// A folder in the store's `tmp/`, gone when dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(store: &Store) -> Result<Self> {
        let tmp = store.root().join("tmp");
        for folder in fs::list(&tmp)? {
            if is_left(&folder) {
                fs::remove_dir_all(&folder)?;
            }
        }
        let folder = fs::unique_beside(&scratch(store));
        fs::create_private_dir_all(&folder)?;
        Ok(Self(folder))
    }

    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// A folder for what a realisation needs for a while; with
/// [`fs::unique_beside`] for each need. What is left of it when this process is
/// killed is removed by the next.
pub fn scratch(store: &Store) -> PathBuf {
    let name = format!("{SCRATCH}{}", std::process::id());
    store.root().join("tmp").join(name)
}

/// Whether a folder is of a realisation whose process is gone.
fn is_left(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    let process = name.and_then(|name| name.split_once(SCRATCH)?.1.split('.').next());
    process.is_some_and(|process| !Path::new("/proc").join(process).exists())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // the collector empties `tmp/`, too
    }
}
