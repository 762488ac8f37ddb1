//! A store as a folder that can be served.
//!
//! ```text
//! <store>/cache/serve/      a published folder of all that the store has
//! ```
//!
//! A document names the SHA-256 of each archive, so an archive must exist before
//! anybody can ask for it: what is new in the store is packed in the background,
//! once, and then lies there as a file. What the store has no more is taken out
//! again, so the folder is never larger than the store. It can be deleted at any
//! time, and the collector does so when it is not served for a month.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::accept::replace;
use crate::console::Unseen;
use crate::digest::{ContentHash, OutputId};
use crate::fs::{self, FsError, Lock, Stamp, Time};
use crate::output::{Maker, Output};
use crate::publish::{Existing, Local, Publication, PublishError, Published, Scratch, StoreSource};
use crate::store::{Store, StoreError};
use crate::substituter::{
    Document, INVENTORY, Question, Substituter, SubstituterError, archive_path,
};
use crate::trust::PublicKey;

/// A folder that follows a store.
pub(super) struct Mirror {
    /// The store's folder.
    pub(super) store: PathBuf,
    /// Whether what was compiled on this machine is served, too.
    pub(super) local: Local,
    /// Keys that may have signed, to be named as the substituter's.
    pub(super) keys: Vec<PublicKey>,
}

/// The store cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum MirrorError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the folder.
    #[error(transparent)]
    File(#[from] FsError),
    /// What is in the folder.
    #[error(transparent)]
    Folder(#[from] SubstituterError),
    /// Publishing.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

type Result<T> = std::result::Result<T, MirrorError>;

/// The state of a store, as far as a mirror depends on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State(Vec<(PathBuf, Option<Time>)>);

impl Mirror {
    /// Where the folder is.
    pub(super) fn folder(&self) -> Result<PathBuf> {
        Ok(Store::open(&self.store)?.cache("serve"))
    }

    /// What the store has now; cheap enough to look every few seconds.
    pub(super) fn state(&self) -> Result<State> {
        let mut paths = fs::list(&self.store.join("paths"))?;
        paths.push(self.store.join("units"));
        let time = |path: &PathBuf| Stamp::of(path).map(|stamp| stamp.mtime);
        Ok(State(
            paths
                .into_iter()
                .map(|path| (path.clone(), time(&path)))
                .collect(),
        ))
    }

    /// Makes the folder what the store is.
    pub(super) fn follow(&self) -> Result<Published> {
        // Only for so long: the collector waits for it.
        let store = Store::open(&self.store)?;
        let folder = store.cache("serve");
        let (names, contents) = whole(&store, self.local)?;
        prune(&folder, &contents)?;
        let source = StoreSource {
            store: &store,
            names,
            keys: self.keys.clone(),
        };
        let scratch = Scratch::in_store(&store)?;
        let publication = Publication {
            source: &source,
            to: &Substituter::folder(&folder)?,
            scratch: scratch.path(),
            local: self.local,
            existing: Existing::Add,
            progress: &Unseen,
        };
        let published = publication.run()?;
        // For the collector.
        fs::set_mtime(&folder, fs::now())?;
        Ok(published)
    }
}

/// The outputs that are there with all they refer to, and the content of each
/// that may be served, as far as it is known.
fn whole(store: &Store, local: Local) -> Result<(Vec<String>, BTreeMap<OutputId, ContentHash>)> {
    let names = store.available()?.into_iter();
    let outputs = names.filter_map(|name| store.output(&name));
    let mut outputs: BTreeMap<OutputId, Output> =
        outputs.map(|output| (output.id, output)).collect();
    close(&mut outputs);
    let names = outputs.values().map(Output::store_name).collect();
    if local == Local::Leave {
        outputs.retain(|_, output| output.builder != Maker::Local);
        close(&mut outputs);
    }
    // What is lent is another content each time it was written.
    let is_known = |output: &&Output| output.files.iter().all(|file| file.sha256.is_some());
    let known = outputs.values().filter(is_known);
    let contents = known.map(|output| (output.id, output.content_hash()));
    Ok((names, contents.collect()))
}

/// Leaves out what refers to something that is not there.
fn close(outputs: &mut BTreeMap<OutputId, Output>) {
    loop {
        let is_there = |id: &OutputId| outputs.contains_key(id);
        let broken = outputs
            .values()
            .filter(|output| !output.references.iter().all(is_there));
        let broken: Vec<OutputId> = broken.map(|output| output.id).collect();
        if broken.is_empty() {
            return;
        }
        for id in broken {
            outputs.remove(&id);
        }
    }
}

/// Takes out of a published folder what is not among these contents: first out of
/// documents, then archives.
fn prune(folder: &Path, contents: &BTreeMap<OutputId, ContentHash>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let _lock = Lock::exclusive(&folder.join(".lock"))?;
    let mut named = BTreeSet::new();
    let mut has_changed = false;
    for question in [Question::Closures, Question::Recipes] {
        let place = match question {
            Question::Closures => "closures",
            Question::Recipes => "recipes",
        };
        for path in fs::list(&folder.join(place))? {
            let Some(bytes) = fs::read_optional(&path)? else {
                continue;
            };
            // What is unusable was left by a disk that was full, or by another
            // version.
            let document = Document::parse(&bytes, &path.display().to_string());
            let mut document = document.unwrap_or_default();
            let before = document.outputs.len();
            document
                .outputs
                .retain(|id, entry| contents.get(id) == Some(&entry.output.content_hash()));
            let is_whole = document.outputs.len() == before && before > 0;
            match question {
                _ if is_whole => {}
                Question::Recipes if !document.outputs.is_empty() => {
                    replace(&path, &document.to_bytes())?;
                }
                // A closure has no hole; it is made again if it can be.
                Question::Closures | Question::Recipes => fs::remove_file(&path)?,
            }
            has_changed |= !is_whole;
            if question == Question::Recipes {
                let entries = document.outputs.into_values();
                named.extend(entries.map(|entry| folder.join(archive_path(entry.archive.sha256))));
            }
        }
    }
    if has_changed {
        // It is written again with what is published next.
        fs::remove_file(&folder.join(INVENTORY))?;
        for path in fs::list(&folder.join("archives"))? {
            if !named.contains(&path) {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}
