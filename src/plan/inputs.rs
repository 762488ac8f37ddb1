//! Whether the inputs that an output assumes are the ones found here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::cargo::package_files;
use crate::cargo::settings::{Settings, effective_variable};
use crate::cargo::workspace::Roots;
use crate::digest::{ContentHash, ContentHasher};
use crate::environment::Environment;
use crate::fs::{self, Stamp, Time};
use crate::output::{InputBase, InputFile, Inputs};

/// The first input that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A file has other content, or is missing.
    File(PathBuf),
    /// A variable has another value.
    Variable(String),
    /// Another commit is checked out.
    GitHead,
    /// The files name folders that are elsewhere here; nothing else differs.
    Folders,
}

/// Compares inputs, hashing each file once in a run. Files are hashed again in
/// each run: times prove nothing across checkouts.
#[derive(Debug)]
pub struct Inspector<'a> {
    environment: &'a Environment,
    settings: &'a Settings,
    roots: &'a Roots,
    hashes: Mutex<HashMap<PathBuf, Option<ContentHash>>>,
    newest: Mutex<Time>,
}

impl<'a> Inspector<'a> {
    /// An inspector for one run.
    pub fn new(environment: &'a Environment, settings: &'a Settings, roots: &'a Roots) -> Self {
        Self {
            environment,
            settings,
            roots,
            hashes: Mutex::new(HashMap::new()),
            newest: Mutex::new(Time::default()),
        }
    }

    /// The value that a compilation sees for a variable.
    pub fn variable(&self, name: &str) -> Option<&'a str> {
        effective_variable(self.environment, self.settings, name)
    }

    /// Looks for a difference.
    pub fn difference(&self, inputs: &Inputs, package: Option<&Path>) -> Option<Difference> {
        for (name, value) in &inputs.env {
            if self.variable(name).map(|v| self.roots.portable(v)) != *value {
                return Some(Difference::Variable(name.clone()));
            }
        }
        if let Some(commit) = &inputs.git_head {
            let here = package
                .and_then(package_files::git_head)
                .unwrap_or_default();
            if here != *commit {
                return Some(Difference::GitHead);
            }
        }
        let file = inputs.files.iter().find(|file| {
            let path = self.locate(file, package);
            self.digest(&path) != Some(file.sha256)
        });
        if let Some(file) = file {
            return Some(Difference::File(file.path.clone()));
        }
        let moved = |(name, folder): &(String, PathBuf)| {
            let here = self.roots.folder(name).or(package);
            here != Some(folder)
        };
        let moved = inputs.folders.iter().any(moved);
        moved.then_some(Difference::Folders)
    }

    /// Forgets all digests: after Cargo ran, files may have other content than
    /// when they were compared.
    pub fn forget(&self) {
        self.hashes.lock().expect("no panic while hashing").clear();
    }

    /// Where an input is here.
    pub fn locate(&self, file: &InputFile, package: Option<&Path>) -> PathBuf {
        match file.base {
            InputBase::Package => package.unwrap_or(&self.roots.workspace).join(&file.path),
            InputBase::Workspace => self.roots.workspace.join(&file.path),
            InputBase::Absolute => file.path.clone(),
        }
    }

    /// The digest of a file, or of all files below a folder.
    pub fn digest(&self, path: &Path) -> Option<ContentHash> {
        let known = |hashes: &HashMap<PathBuf, Option<ContentHash>>| hashes.get(path).copied();
        if let Some(digest) = known(&self.hashes.lock().expect("no panic while hashing")) {
            return digest;
        }
        let digest = if path.is_dir() {
            self.digest_folder(path)
        } else {
            self.digest_file(path)
        };
        let mut hashes = self.hashes.lock().expect("no panic while hashing");
        hashes.insert(path.to_owned(), digest);
        digest
    }

    fn digest_file(&self, path: &Path) -> Option<ContentHash> {
        let stamp = Stamp::of(path)?;
        let mut newest = self.newest.lock().expect("no panic while comparing");
        *newest = stamp.mtime.max(*newest);
        drop(newest);
        fs::hash_file(path).ok()
    }

    fn digest_folder(&self, folder: &Path) -> Option<ContentHash> {
        let mut hasher = ContentHasher::default();
        for file in fs::walk(folder).ok()? {
            hasher.update(file.as_os_str().as_encoded_bytes());
            hasher.update(b"\0");
            let digest = self.digest_file(&folder.join(&file));
            hasher.update(digest.map_or([0; 32], |d| *d.as_bytes()).as_slice());
        }
        // Cargo looks at the time of the folders, too (`mtime_recursive`).
        let newest_folder = Stamp::of(folder)?.mtime;
        let mut newest = self.newest.lock().expect("no panic while comparing");
        *newest = newest_folder.max(*newest);
        Some(hasher.finish())
    }

    /// The newest time among an output's input files now.
    pub fn newest_of(&self, inputs: &Inputs, package: Option<&Path>) -> Time {
        let times = inputs
            .files
            .iter()
            .map(|file| newest_below(&self.locate(file, package)));
        times.max().unwrap_or_default()
    }

    /// The time of the newest file that was looked at.
    pub fn newest(&self) -> Time {
        *self.newest.lock().expect("no panic while comparing")
    }
}

/// The newest time of a file, or of a folder and all that is below it.
fn newest_below(path: &Path) -> Time {
    let own = Stamp::of(path).map_or(Time::default(), |stamp| stamp.mtime);
    if !path.is_dir() {
        return own;
    }
    let below = fs::list(path).unwrap_or_default();
    below
        .iter()
        .map(|path| newest_below(path))
        .max()
        .unwrap_or_default()
        .max(own)
}
