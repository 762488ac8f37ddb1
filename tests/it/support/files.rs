//! Files of projects and stores.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Copies a folder. The copies have times of now, each file another: a clock
/// that ticks slowly gives many files one time, and Cargo then names any of
/// them as the newest of its package, which must not decide other tests.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for file in walk(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(&target, fs::read(file).unwrap()).unwrap();
    }
    let now = SystemTime::now();
    for (place, file) in walk(to).iter().rev().enumerate() {
        let earlier = Duration::from_micros(u64::try_from(place).unwrap());
        set_time(file, now - earlier);
    }
}

/// Sets a file's time.
pub(crate) fn set_time(path: &Path, time: SystemTime) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

/// Replaces text in a file, which must have it.
pub(crate) fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "`{from}` is not in {}", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}

/// Gives a file the time of now without changing it.
pub(crate) fn touch(path: &Path) {
    set_time(path, SystemTime::now());
}

/// All files below a folder.
pub(crate) fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}

/// Times and content of a store's outputs, to show that nobody writes to them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeMap<PathBuf, (SystemTime, u64)>);

impl Snapshot {
    pub(crate) fn of(store: &Path) -> Self {
        let files = walk(&store.join("paths")).into_iter();
        // The time of a manifest is that of its last use.
        let files = files.filter(|path| path.file_name().unwrap() != "manifest.json");
        let describe = |path: PathBuf| {
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            let hash = fnv(&fs::read(&path).unwrap());
            (path, (time, hash))
        };
        Self(files.map(describe).collect())
    }

    /// Fails unless all files that were there are as they were.
    #[track_caller]
    pub(crate) fn assert_kept(&self, store: &Path) {
        let now = Self::of(store);
        assert!(!self.0.is_empty(), "the store is empty");
        for (path, state) in &self.0 {
            assert_eq!(now.0.get(path), Some(state), "{}", path.display());
        }
    }
}

/// FNV-1a: enough to see a change, and without a dependency.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
