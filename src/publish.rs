//! Outputs of the store into a folder that is a substituter.
//!
//! Invariants, of `docs/formats/substituter.md`:
//! * Archives come first, then documents of recipes, dependencies before what
//!   refers to them, then closures: whoever is killed leaves nothing that names
//!   what is not there, and the next one goes on.
//! * Documents are changed by one writer at a time, and replaced at once.
//! * The first published output of an id stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::console::Progress;
use crate::digest::{ContentHash, OutputId, RecipeHash};
use crate::fs::{self, FsError, Lock};
use crate::output::{Claim, Maker, Naming, Output};
use crate::store::{Store, StoreError};
use crate::substituter::{
    ArchiveRef, CacheInfo, Document, Entry, Question, SubstituterError, archive, archive_path,
    document,
};
use crate::trust::PublicKey;

/// Outputs that are published before the next ones are packed.
const BATCH: usize = 64;

/// Why nothing more was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The store.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The substituter.
    #[error("the substituter cannot be written to")]
    Substituter(#[from] SubstituterError),
    /// A file of it.
    #[error("the substituter cannot be written to")]
    File(#[from] FsError),
    /// A document has something of a newer quickbuild.
    #[error("`{path}` has entries that this quickbuild does not understand: {reason}")]
    Newer {
        /// The document.
        path: String,
        /// The first of them.
        reason: String,
    },
}

type Result<T> = std::result::Result<T, PublishError>;

/// Whether outputs of this machine's own making are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// They are left out: they name folders of this machine.
    Leave,
    /// The user says so.
    Publish,
}

/// What is published where.
pub struct Publication<'a> {
    /// Where it comes from.
    pub store: &'a Store,
    /// The folder.
    pub to: &'a Path,
    /// Whether local outputs are published.
    pub local: Local,
    /// Keys that may have signed, to be named as the substituter's.
    pub keys: &'a [PublicKey],
    /// Shows how far it is.
    pub progress: &'a dyn Progress,
}

/// What came of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Published {
    /// Store names of what is new there.
    pub added: Vec<String>,
    /// How many were there.
    pub existing: usize,
    /// Store names of what is there with another content.
    pub conflicts: Vec<String>,
    /// How many refer to such, and were left out.
    pub withheld: usize,
    /// How many were left out as local.
    pub local: usize,
    /// Bytes of new archives.
    pub bytes: u64,
}

impl Publication<'_> {
    /// Publishes outputs and all they refer to.
    pub fn run(&self, names: &[String]) -> Result<Published> {
        let outputs = self.store.whole_closure(names)?;
        let mut published = Published::default();
        let outputs = self.allowed(outputs, &mut published);
        self.prepare(&outputs)?;
        self.progress.begin(outputs.len());
        let mut namings: BTreeMap<RecipeHash, Vec<Naming>> = BTreeMap::new();
        for naming in self.store.namings()? {
            if let Some(recipe) = naming.recipe {
                namings.entry(recipe).or_default().push(naming);
            }
        }
        let mut board = Board {
            publication: self,
            namings,
            entries: BTreeMap::new(),
            published,
        };
        for batch in outputs.chunks(BATCH) {
            board.publish(batch)?;
        }
        board.close(&outputs)?;
        Ok(board.published)
    }

    /// Those that may be published, dependencies first.
    fn allowed(&self, outputs: Vec<Output>, published: &mut Published) -> Vec<Output> {
        let mut left = BTreeSet::new();
        let is_allowed = |output: &Output| {
            let is_left = (self.local == Local::Leave && output.builder == Maker::Local)
                || output.references.iter().any(|id| left.contains(id));
            if is_left {
                left.insert(output.id);
            }
            !is_left
        };
        let allowed: Vec<Output> = outputs.into_iter().filter(is_allowed).collect();
        published.local = left.len();
        allowed
    }

    /// Makes the folder a substituter, or sees that it is one of this format.
    fn prepare(&self, outputs: &[Output]) -> Result<()> {
        for folder in ["", "recipes", "closures", "archives"] {
            fs::create_dir_all(&self.to.join(folder))?;
        }
        let _lock = self.lock()?;
        let path = self.to.join(document::INFO);
        let url = path.display().to_string();
        let bytes = fs::read_optional(&path)?;
        let before = match &bytes {
            Some(bytes) => Some(CacheInfo::parse(bytes, &url)?),
            None => None,
        };
        let mut info = before.clone().unwrap_or_default();
        for key in self.signers(outputs)? {
            if !info.keys.contains(&key) {
                info.keys.push(key);
            }
        }
        if before.as_ref() != Some(&info) {
            fs::write_atomic(&path, &info.to_bytes())?;
        }
        Ok(())
    }

    /// Those of the keys that have signed one of the outputs.
    fn signers(&self, outputs: &[Output]) -> Result<Vec<String>> {
        let contents: BTreeMap<OutputId, ContentHash> = outputs
            .iter()
            .map(|output| (output.id, output.content_hash()))
            .collect();
        let mut found = Vec::new();
        for output in outputs {
            let Some(signatures) = self.store.signatures(&output.store_name())? else {
                continue;
            };
            let Ok(claim) = Claim::of(output, |id| contents.get(&id).copied()) else {
                continue;
            };
            let message = claim.message();
            let signers = self.keys.iter();
            let signers = signers.filter(|key| signatures.are_by(key, &message));
            found.extend(signers.map(PublicKey::to_string));
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn lock(&self) -> Result<Lock> {
        Ok(Lock::exclusive(&self.to.join(".lock"))?)
    }

    /// Reads a document; a missing one is empty.
    fn read(&self, path: &str) -> Result<Document> {
        let Some(bytes) = fs::read_optional(&self.to.join(path))? else {
            return Ok(Document::default());
        };
        let document = Document::parse(&bytes, path)?;
        match document.refused.first() {
            None => Ok(document),
            Some(reason) => Err(PublishError::Newer {
                path: self.to.join(path).display().to_string(),
                reason: reason.clone(),
            }),
        }
    }

    fn write(&self, path: &str, document: &Document) -> Result<()> {
        let path = self.to.join(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = fs::unique_beside(&path.with_file_name(format!(".{name}")));
        let written = fs::write(&beside, &document.to_bytes())
            .and_then(|()| fs::sync(&beside))
            .and_then(|()| fs::rename(&beside, &path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        Ok(written?)
    }

    /// Puts the archive of an output into its place, unless it is there.
    fn archive(&self, output: &Output) -> Result<ArchiveRef> {
        let files = (0..output.files.len()).map(|index| self.store.file(output, index));
        let files: Vec<PathBuf> = files.collect();
        let name = format!("archives/.{}", output.store_name());
        let beside = fs::unique_beside(&self.to.join(name));
        let placed = archive::pack(output, &files, &beside).and_then(|packed| {
            fs::rename(&beside, &self.to.join(archive_path(packed.sha256)))?;
            Ok(packed)
        });
        if placed.is_err() {
            let _ = fs::remove_file(&beside);
        }
        Ok(placed?)
    }
}

/// A publication under way.
struct Board<'a> {
    publication: &'a Publication<'a>,
    namings: BTreeMap<RecipeHash, Vec<Naming>>,
    /// What is published there of what is to be, with this content.
    entries: BTreeMap<OutputId, Entry>,
    published: Published,
}

impl Board<'_> {
    /// Publishes some outputs, whose references are published.
    fn publish(&mut self, batch: &[Output]) -> Result<()> {
        let publication = self.publication;
        // What is there need not be packed again.
        let is_new = |output: &&Output| -> Result<bool> {
            let document = publication.read(&Question::Recipes.path(output.host_recipe))?;
            Ok(!document.outputs.contains_key(&output.id))
        };
        let mut new = Vec::new();
        for output in batch {
            if is_new(&output)? {
                new.push(output);
            }
        }
        let packed: Result<Vec<(OutputId, ArchiveRef)>> = new
            .par_iter()
            .map(|output| {
                let packed = publication.archive(output)?;
                publication.progress.advance();
                Ok((output.id, packed))
            })
            .collect();
        let packed: BTreeMap<OutputId, ArchiveRef> = packed?.into_iter().collect();
        let _lock = publication.lock()?;
        for output in batch {
            self.enter(output, packed.get(&output.id).copied())?;
        }
        Ok(())
    }

    /// Enters one output into the document of its recipe.
    fn enter(&mut self, output: &Output, packed: Option<ArchiveRef>) -> Result<()> {
        let publication = self.publication;
        let name = output.store_name();
        let content = output.content_hash();
        let is_published = |id: &OutputId| self.entries.contains_key(id);
        if !output.references.iter().all(is_published) {
            self.published.withheld += 1;
            return Ok(());
        }
        let path = Question::Recipes.path(output.host_recipe);
        let mut document = publication.read(&path)?;
        let before = document.clone();
        let signatures = publication.store.signatures(&name)?;
        let provenance = publication.store.provenance(output)?;
        match (document.outputs.get_mut(&output.id), packed) {
            (Some(there), _) if there.output.content_hash() != content => {
                self.published.conflicts.push(name);
                return Ok(());
            }
            (Some(there), _) => {
                match (&mut there.signatures, signatures) {
                    (Some(known), Some(more)) => known.merge(more),
                    (known @ None, more) => *known = more,
                    (Some(_), None) => {}
                }
                there.provenance = there.provenance.take().or(provenance);
                self.published.existing += 1;
            }
            (None, Some(archive)) => {
                let entry = Entry {
                    output: output.clone(),
                    archive,
                    signatures,
                    provenance,
                };
                document.outputs.insert(output.id, entry);
                self.published.added.push(name);
                self.published.bytes += archive.size;
            }
            // It was there a moment ago.
            (None, None) => {
                self.published.withheld += 1;
                return Ok(());
            }
        }
        self.name(output.host_recipe, &mut document);
        if document != before {
            publication.write(&path, &document)?;
        }
        if let Some(entry) = document.outputs.remove(&output.id) {
            self.entries.insert(output.id, entry);
        }
        Ok(())
    }

    /// Adds the namings of a recipe's units; those that are there stay.
    fn name(&self, recipe: RecipeHash, document: &mut Document) {
        for naming in self.namings.get(&recipe).into_iter().flatten() {
            let known = document.namings.entry(naming.key);
            known.or_insert_with(|| naming.clone());
        }
    }

    /// Writes the closures of what is published now.
    fn close(&self, outputs: &[Output]) -> Result<()> {
        let _lock = self.publication.lock()?;
        let mut recipes: BTreeMap<RecipeHash, Vec<OutputId>> = BTreeMap::new();
        for output in outputs {
            let is_asked_for = !matches!(output.target_kind.as_str(), "build-script" | "build-run");
            if is_asked_for && self.entries.contains_key(&output.id) {
                recipes
                    .entry(output.host_recipe)
                    .or_default()
                    .push(output.id);
            }
        }
        let recipes: Vec<_> = recipes.into_iter().collect();
        recipes.par_iter().try_for_each(|(recipe, ids)| {
            let path = Question::Closures.path(*recipe);
            let mut document = self.publication.read(&path)?;
            let before = document.clone();
            let mut open = ids.clone();
            let mut seen = BTreeSet::new();
            while let Some(id) = open.pop() {
                if let Some(entry) = self.entries.get(&id)
                    && seen.insert(id)
                {
                    open.extend(&entry.output.references);
                    // The recipe's document is the newer one.
                    document.outputs.insert(id, entry.clone());
                    self.name(entry.output.host_recipe, &mut document);
                }
            }
            if document == before {
                return Ok(());
            }
            self.publication.write(&path, &document)
        })
    }
}
