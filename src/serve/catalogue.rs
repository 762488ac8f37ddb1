//! All that a folder has published, in memory, for calls and for whoever wants
//! to publish more.
//!
//! The folder is the truth: whoever publishes there replaces documents by
//! renaming, which changes the time of `recipes/`, and then what has changed is
//! read again. Entries are packed once, one by one, so that an answer to a call
//! is no more than parts that lie ready, one behind the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use rayon::prelude::*;

use super::metrics::Stock;
use crate::console;
use crate::digest::{ContentHash, OutputId, RecipeHash, UnitKey};
use crate::fs::{self, FsError, Stamp};
use crate::substituter::{ArchiveRef, Document, Question, SubstituterError, document};

/// How coarse the times of a file system may be, in nanoseconds: what changed
/// later than so long before it was read may change again at the same time.
const TICK: i64 = 20_000_000;

/// What is published in a folder.
pub(super) struct Catalogue {
    folder: PathBuf,
    index: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    /// The stamp of `recipes/` for which this counts.
    seen: Option<Stamp>,
    documents: BTreeMap<RecipeHash, Published>,
    outputs: BTreeMap<OutputId, Listed>,
}

/// A recipe's document.
struct Published {
    stamp: Stamp,
    outputs: Vec<OutputId>,
    namings: Vec<(UnitKey, Bytes)>,
}

/// An output.
struct Listed {
    recipe: RecipeHash,
    content: ContentHash,
    references: Vec<OutputId>,
    archive: ArchiveRef,
    part: Bytes,
}

/// The answer to a call.
pub(super) struct Found {
    pub(super) parts: Vec<Bytes>,
    pub(super) outputs: usize,
}

type Loaded = (Published, Vec<(OutputId, Listed)>);

impl Catalogue {
    /// Reads all documents of a folder.
    pub(super) fn open(folder: &Path) -> Result<Self, FsError> {
        let catalogue = Self {
            folder: folder.to_owned(),
            index: RwLock::default(),
        };
        drop(catalogue.current()?);
        Ok(catalogue)
    }

    fn recipes(&self) -> PathBuf {
        self.folder.join("recipes")
    }

    /// What is published now.
    fn current(&self) -> Result<RwLockReadGuard<'_, Index>, FsError> {
        let stamp = Stamp::of(&self.recipes());
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        if stamp.is_some() && index.seen == stamp {
            return Ok(index);
        }
        drop(index);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if stamp.is_none() || index.seen != stamp {
            self.read(&mut index)?;
        }
        drop(index);
        Ok(self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads what has changed.
    fn read(&self, index: &mut Index) -> Result<(), FsError> {
        let seen = self.seen();
        let mut files = BTreeMap::new();
        for path in fs::list_unsorted(&self.recipes())? {
            let name = path.file_name().and_then(|name| name.to_str());
            let recipe = name.and_then(|name| name.strip_suffix(".json.zst")?.parse().ok());
            if let (Some(recipe), Some(stamp)) = (recipe, Stamp::of(&path)) {
                files.insert(recipe, (path, stamp));
            }
        }
        let is_there = |recipe: &RecipeHash| files.contains_key(recipe);
        let gone: Vec<RecipeHash> = index.documents.keys().copied().collect();
        for recipe in gone.into_iter().filter(|recipe| !is_there(recipe)) {
            index.forget(recipe);
        }
        let is_new = |recipe: &RecipeHash, stamp: &Stamp| {
            let known = index.documents.get(recipe);
            known.is_none_or(|known| known.stamp != *stamp)
        };
        files.retain(|recipe, (_, stamp)| is_new(recipe, stamp));
        let loaded: Vec<(RecipeHash, Option<Loaded>)> = files
            .into_par_iter()
            .map(|(recipe, (path, _))| (recipe, load(recipe, &path)))
            .collect();
        for (recipe, loaded) in loaded {
            index.replace(recipe, loaded);
        }
        index.seen = seen;
        Ok(())
    }

    /// The stamp of `recipes/`, if it is old enough to be told from the next one.
    fn seen(&self) -> Option<Stamp> {
        let now = fs::now();
        Stamp::of(&self.recipes()).filter(|stamp| stamp.mtime.0 < now.0 - TICK)
    }

    /// Reads one document again, which whoever holds the folder's lock has just
    /// replaced; nobody else replaces any meanwhile.
    pub(super) fn replaced(&self, recipe: RecipeHash) {
        let loaded = load(recipe, &self.folder.join(Question::Recipes.path(recipe)));
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.replace(recipe, loaded);
    }

    /// Whether it can be read.
    pub(super) fn is_readable(&self) -> bool {
        self.current().is_ok()
    }

    /// All outputs of recipes and all that these refer to.
    pub(super) fn lookup(&self, recipes: &[RecipeHash]) -> Result<Found, FsError> {
        let index = self.current()?;
        let found = index.closure(recipes);
        let namings = index.namings(recipes.iter().copied());
        Ok(Found {
            outputs: found.len(),
            parts: index.assemble(&found, namings),
        })
    }

    /// The document of a recipe's closure, as far as it is published; `Err` has
    /// an output that refers to something that is not.
    pub(super) fn closure(
        &self,
        recipe: RecipeHash,
    ) -> Result<Result<Document, OutputId>, SubstituterError> {
        let index = self.current()?;
        let found = index.closure(&[recipe]);
        let mut recipes = BTreeSet::new();
        for id in &found {
            let Some(listed) = index.outputs.get(id) else {
                continue;
            };
            recipes.insert(listed.recipe);
            if !listed.references.iter().all(|id| found.contains(id)) {
                return Ok(Err(*id));
            }
        }
        let namings = index.namings(recipes.into_iter());
        let bytes = index.assemble(&found, namings).concat();
        drop(index);
        Ok(Ok(Document::parse(
            &bytes,
            &Question::Closures.path(recipe),
        )?))
    }

    /// The content and the archive of a published output.
    pub(super) fn published(&self, id: OutputId) -> Option<(ContentHash, ArchiveRef)> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let found = index.outputs.get(&id);
        if let Some(listed) = found {
            return Some((listed.content, listed.archive));
        }
        drop(index);
        // Somebody else may have published it.
        let index = self.current().ok()?;
        let listed = index.outputs.get(&id)?;
        Some((listed.content, listed.archive))
    }

    /// Whether something of a recipe is published.
    pub(super) fn has(&self, recipe: RecipeHash) -> bool {
        let current = self.current();
        current.is_ok_and(|index| index.documents.contains_key(&recipe))
    }

    /// How much there is.
    pub(super) fn stock(&self) -> Stock {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let archives = index.outputs.values().map(|listed| listed.archive);
        Stock {
            recipes: index.documents.len(),
            outputs: index.outputs.len(),
            archived: archives.map(|archive| archive.size).sum(),
        }
    }
}

impl Index {
    fn forget(&mut self, recipe: RecipeHash) {
        let gone = self.documents.remove(&recipe);
        for id in gone.iter().flat_map(|document| &document.outputs) {
            self.outputs.remove(id);
        }
    }

    fn replace(&mut self, recipe: RecipeHash, loaded: Option<Loaded>) {
        self.forget(recipe);
        if let Some((document, outputs)) = loaded {
            self.documents.insert(recipe, document);
            self.outputs.extend(outputs);
        }
    }

    fn closure(&self, recipes: &[RecipeHash]) -> BTreeSet<OutputId> {
        let documents = recipes.iter().filter_map(|r| self.documents.get(r));
        let outputs = documents.flat_map(|document| &document.outputs);
        let mut open: Vec<OutputId> = outputs.copied().collect();
        let mut found = BTreeSet::new();
        while let Some(id) = open.pop() {
            if let Some(listed) = self.outputs.get(&id)
                && found.insert(id)
            {
                open.extend(&listed.references);
            }
        }
        found
    }

    fn namings(&self, recipes: impl Iterator<Item = RecipeHash>) -> BTreeMap<UnitKey, Bytes> {
        let documents = recipes.filter_map(|recipe| self.documents.get(&recipe));
        documents
            .flat_map(|document| document.namings.iter().cloned())
            .collect()
    }

    fn assemble(
        &self,
        found: &BTreeSet<OutputId>,
        namings: BTreeMap<UnitKey, Bytes>,
    ) -> Vec<Bytes> {
        let entries = found.iter().filter_map(|id| self.outputs.get(id));
        let entries: Vec<Bytes> = entries.map(|listed| listed.part.clone()).collect();
        Document::assemble(entries.into_iter(), namings.into_values())
    }
}

/// Reads a document; what cannot be read counts as absent.
fn load(recipe: RecipeHash, path: &Path) -> Option<Loaded> {
    // Before it is read: a change meanwhile is found the next time.
    let stamp = Stamp::of(path)?;
    let read = || -> Result<Document, SubstituterError> {
        let url = path.display().to_string();
        if stamp.size > document::MAX_DOCUMENT {
            let limit = document::MAX_DOCUMENT;
            return Err(SubstituterError::TooLarge { url, limit });
        }
        Document::parse(&fs::read(path)?, &url)
    };
    let document = match read() {
        Ok(document) => document,
        Err(error) => {
            let said = console::chain(&error);
            console::line(&format!("warning: a document is passed over: {said}"));
            return None;
        }
    };
    if let Some(reason) = document.refused.first() {
        let path = path.display();
        console::line(&format!(
            "warning: an entry of `{path}` is passed over: {reason}"
        ));
    }
    let own = document.outputs.into_iter();
    let own = own.filter(|(_, entry)| entry.output.host_recipe == recipe);
    let outputs = own.map(|(id, entry)| {
        let listed = Listed {
            recipe,
            content: entry.output.content_hash(),
            part: entry.to_part(),
            archive: entry.archive,
            references: entry.output.references,
        };
        (id, listed)
    });
    let outputs: Vec<(OutputId, Listed)> = outputs.collect();
    let namings = document.namings.into_iter();
    let published = Published {
        stamp,
        outputs: outputs.iter().map(|(id, _)| *id).collect(),
        namings: namings
            .map(|(key, naming)| (key, document::naming_part(&naming)))
            .collect(),
    };
    Some((published, outputs))
}
