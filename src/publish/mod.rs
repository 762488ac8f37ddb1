//! Outputs into a substituter, from the store or from another substituter.
//!
//! | module | job |
//! |---|---|
//! | `source` | where outputs come from: the store |
//! | [`copy`] | where outputs come from: another substituter |
//! | `place` | documents read, changed and replaced, archives put there |
//! | [`prune`] | what is not wanted any more is removed |
//!
//! Invariants, of `docs/formats/substituter.md`:
//! * Archives come first, then documents of recipes, dependencies before what
//!   refers to them, then closures: whoever is killed leaves nothing that names
//!   what is not there, and the next one goes on.
//! * A document is replaced only as it was read: of two writers neither loses
//!   anything.
//! * The first published output of an id stays.

pub mod copy;
mod place;
pub mod prune;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::console::Progress;
use crate::digest::{ContentHash, OutputId, RecipeHash};
use crate::environment::Environment;
use crate::fs::{self, FsError};
use crate::output::{Claim, Maker, Naming, Output};
use crate::store::{Store, StoreError};
use crate::substitute::SubstituteError;
use crate::substituter::backend::{Added, Held};
use crate::substituter::{
    ArchiveRef, Document, Entry, Inventory, Question, Substituter, SubstituterError,
};
use crate::trust::PublicKey;
use place::Place;

pub use source::{Attached, Source, StoreSource};

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
    /// The substituter that is copied from.
    #[error("the substituter cannot be copied from")]
    Source(#[from] SubstituteError),
    /// A file on the way.
    #[error("a file on the way cannot be written")]
    File(#[from] FsError),
    /// A document has something of a newer quickbuild.
    #[error("`{path}` has entries that this quickbuild does not understand: {reason}")]
    Newer {
        /// The document.
        path: String,
        /// The first of them.
        reason: String,
    },
    /// Others change a document all the time.
    #[error("`{path}` was changed by somebody else each time that it was to be replaced")]
    Contended {
        /// The document.
        path: String,
    },
    /// A place does not say what it has.
    #[error("`{place}` does not say what it has")]
    Unlisted {
        /// The place.
        place: String,
        /// Why.
        source: SubstituterError,
    },
}

type Result<T> = std::result::Result<T, PublishError>;

/// Whether one of the names is that of an output's package, or how the hash of
/// one of its recipes begins.
pub fn is_named(output: &Output, names: &[String]) -> bool {
    let (recipe, host_recipe) = (output.recipe.to_string(), output.host_recipe.to_string());
    let is_meant = |name: &String| {
        output.name == *name || recipe.starts_with(name) || host_recipe.starts_with(name)
    };
    names.iter().any(is_meant)
}

/// A folder for what is on its way, gone when this is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// One in the store, whose collector finds what a killed process leaves, or
    /// in the system's folder where the store cannot be written to.
    pub fn new(store: &Store, environment: &Environment) -> fs::Result<Self> {
        if store.is_writable() {
            return Self::in_store(store);
        }
        let parent = environment.get("TMPDIR").unwrap_or("/tmp");
        Self::at(fs::unique_beside(
            &Path::new(parent).join("quickbuild-publish"),
        ))
    }

    /// One in a store that can be written to.
    pub fn in_store(store: &Store) -> fs::Result<Self> {
        Self::at(store.stage_path("publish"))
    }

    /// This one, which is made.
    pub fn at(folder: PathBuf) -> fs::Result<Self> {
        fs::create_private_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // the collector does it otherwise
    }
}

/// Whether outputs of this machine's own making are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// They are left out: they name folders of this machine.
    Leave,
    /// The user says so.
    Publish,
}

/// What is done about outputs that are published already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Their signatures and provenance are added to.
    Add,
    /// They are left as they are.
    Leave,
}

/// What is published where.
pub struct Publication<'a> {
    /// Where it comes from.
    pub source: &'a dyn Source,
    /// Where it goes.
    pub to: &'a Substituter,
    /// A folder that is there, for archives on their way.
    pub scratch: &'a Path,
    /// Whether local outputs are published.
    pub local: Local,
    /// What is done about what is there.
    pub existing: Existing,
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
    /// Publishes all that the source has.
    pub fn run(&self) -> Result<Published> {
        let mut published = Published::default();
        let outputs = self.allowed(self.source.outputs()?, &mut published);
        let place = Place::open(self.to)?;
        place.introduce(&self.signers(&outputs)?)?;
        self.progress.begin(outputs.len());
        let mut namings: BTreeMap<RecipeHash, Vec<Naming>> = BTreeMap::new();
        for naming in self.source.namings()? {
            if let Some(recipe) = naming.recipe {
                namings.entry(recipe).or_default().push(naming);
            }
        }
        let mut board = Board {
            publication: self,
            place,
            namings,
            entries: BTreeMap::new(),
            published,
        };
        for batch in outputs.chunks(BATCH) {
            board.publish(batch)?;
        }
        board.close(&outputs)?;
        board.place.settle()?;
        board.list()?;
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

    /// Those of the source's keys that have signed one of the outputs.
    fn signers(&self, outputs: &[Output]) -> Result<Vec<String>> {
        let contents: BTreeMap<OutputId, ContentHash> = outputs
            .iter()
            .map(|output| (output.id, output.content_hash()))
            .collect();
        let mut found = Vec::new();
        for output in outputs {
            let Some(signatures) = self.source.attached(output)?.signatures else {
                continue;
            };
            let Ok(claim) = Claim::of(output, |id| contents.get(&id).copied()) else {
                continue;
            };
            let message = claim.message();
            let signers = self.source.keys().iter();
            let signers = signers.filter(|key| signatures.are_by(key, &message));
            found.extend(signers.map(PublicKey::to_string));
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}

/// A publication under way.
struct Board<'a> {
    publication: &'a Publication<'a>,
    place: Place<'a>,
    namings: BTreeMap<RecipeHash, Vec<Naming>>,
    /// What is published there of what is to be, with this content.
    entries: BTreeMap<OutputId, Entry>,
    published: Published,
}

/// What came of entering an output into the document of its recipe.
enum Entered {
    New(Entry),
    /// It was there; it may have more signatures now.
    Existing(Entry),
    Conflict,
    /// It was there a moment ago, and has no archive now.
    Gone,
}

impl Board<'_> {
    /// Publishes some outputs, whose references are published.
    fn publish(&mut self, batch: &[Output]) -> Result<()> {
        let recipes: BTreeSet<RecipeHash> = batch.iter().map(|o| o.host_recipe).collect();
        let recipes: Vec<RecipeHash> = recipes.into_iter().collect();
        let read = self.place.workers().each(&recipes, |&recipe| {
            let path = Question::Recipes.path(recipe);
            let held = self.place.read(&path)?;
            let document = self.place.document(&path, held.as_ref())?;
            Ok::<_, PublishError>((recipe, (held, document)))
        })?;
        let read: BTreeMap<RecipeHash, _> = read.into_iter().collect();
        // What is there need not be packed again.
        let (there, new): (Vec<&Output>, Vec<&Output>) = batch
            .iter()
            .partition(|output| read[&output.host_recipe].1.outputs.contains_key(&output.id));
        there
            .iter()
            .for_each(|_| self.publication.progress.advance());
        let archives = self.place.workers().each(&new, |output| {
            let archive = self.archive(output)?;
            self.publication.progress.advance();
            Ok::<_, PublishError>((output.id, archive))
        })?;
        let held = read.into_iter();
        let held = held.map(|(recipe, (held, _))| (recipe, held)).collect();
        self.enter(batch, &archives.into_iter().collect(), held)
    }

    /// Puts the archive of an output into its place, unless it is there.
    fn archive(&self, output: &Output) -> Result<(ArchiveRef, Added)> {
        let name = self.publication.scratch.join(output.store_name());
        let file = fs::unique_beside(&name);
        let placed = self
            .place
            .workers()
            .compute(|| self.publication.source.archive(output, &file))
            .and_then(|archive| Ok((archive, self.place.add(&file, archive)?)));
        let _ = fs::remove_file(&file);
        placed
    }

    /// Enters outputs into the documents of their recipes, in waves: what others
    /// refer to comes first.
    fn enter(
        &mut self,
        batch: &[Output],
        archives: &BTreeMap<OutputId, (ArchiveRef, Added)>,
        held: BTreeMap<RecipeHash, Option<Held>>,
    ) -> Result<()> {
        let held = Mutex::new(held);
        let mut open: Vec<&Output> = batch.iter().collect();
        while !open.is_empty() {
            let waiting: BTreeSet<OutputId> = open.iter().map(|output| output.id).collect();
            let is_free =
                |output: &&Output| !output.references.iter().any(|id| waiting.contains(id));
            let (wave, later): (Vec<&Output>, Vec<&Output>) = open.into_iter().partition(is_free);
            open = later;
            if wave.is_empty() {
                // What refers to itself; an id is a hash, so nobody can make it.
                self.published.withheld += open.len();
                return Ok(());
            }
            let mut by_recipe: BTreeMap<RecipeHash, Vec<&Output>> = BTreeMap::new();
            for output in wave {
                if output
                    .references
                    .iter()
                    .all(|id| self.entries.contains_key(id))
                {
                    by_recipe
                        .entry(output.host_recipe)
                        .or_default()
                        .push(output);
                } else {
                    self.published.withheld += 1;
                }
            }
            let by_recipe: Vec<_> = by_recipe.into_iter().collect();
            let entered = self.place.workers().each(&by_recipe, |(recipe, outputs)| {
                let first = match held.lock() {
                    Ok(mut held) => held.remove(recipe),
                    Err(_panicked) => None,
                };
                self.enter_recipe(*recipe, outputs, archives, first)
            })?;
            for (output, entered) in entered.into_iter().flatten() {
                self.note(output, entered, archives);
            }
        }
        Ok(())
    }

    /// Enters outputs of one recipe into its document. `first` is the document as
    /// it was read a moment ago, if it was.
    fn enter_recipe<'o>(
        &self,
        recipe: RecipeHash,
        outputs: &[&'o Output],
        archives: &BTreeMap<OutputId, (ArchiveRef, Added)>,
        first: Option<Option<Held>>,
    ) -> Result<Vec<(&'o Output, Entered)>> {
        let source = self.publication.source;
        let path = Question::Recipes.path(recipe);
        self.place.update(&path, first, |document| {
            let mut entered = Vec::new();
            for &output in outputs {
                let attached = source.attached(output)?;
                let result = match (
                    document.outputs.get_mut(&output.id),
                    archives.get(&output.id),
                ) {
                    (Some(there), _) => {
                        if there.output.content_hash() == output.content_hash() {
                            if self.publication.existing == Existing::Add {
                                there.add(attached.signatures, attached.provenance);
                            }
                            Entered::Existing(there.clone())
                        } else {
                            Entered::Conflict
                        }
                    }
                    (None, Some(&(archive, _))) => {
                        let entry = Entry {
                            output: output.clone(),
                            archive,
                            signatures: attached.signatures,
                            provenance: attached.provenance,
                        };
                        document.outputs.insert(output.id, entry.clone());
                        Entered::New(entry)
                    }
                    (None, None) => Entered::Gone,
                };
                entered.push((output, result));
            }
            let is_new = |(_, entered): &(_, Entered)| matches!(entered, Entered::New(_));
            if self.publication.existing == Existing::Add || entered.iter().any(is_new) {
                self.name(recipe, document);
            }
            Ok(entered)
        })
    }

    fn note(
        &mut self,
        output: &Output,
        entered: Entered,
        archives: &BTreeMap<OutputId, (ArchiveRef, Added)>,
    ) {
        match entered {
            Entered::New(entry) => {
                self.published.added.push(output.store_name());
                if let Some((archive, Added::New)) = archives.get(&output.id) {
                    self.published.bytes += archive.size;
                }
                self.entries.insert(output.id, entry);
            }
            Entered::Existing(entry) => {
                self.published.existing += 1;
                self.entries.insert(output.id, entry);
            }
            Entered::Conflict => self.published.conflicts.push(output.store_name()),
            Entered::Gone => self.published.withheld += 1,
        }
    }

    /// Adds an entry of a recipe's document, as it was when it was entered there:
    /// the closure may know more of it by now.
    fn add_to_closure(&self, entry: &Entry, document: &mut Document) {
        let content = entry.output.content_hash();
        match document.outputs.get_mut(&entry.output.id) {
            Some(_) if self.publication.existing == Existing::Leave => return,
            Some(there) if there.output.content_hash() == content => {
                there.archive = entry.archive;
                there.add(entry.signatures.clone(), entry.provenance.clone());
            }
            _ => {
                document.outputs.insert(entry.output.id, entry.clone());
            }
        }
        self.name(entry.output.host_recipe, document);
    }

    /// Adds the namings of a recipe's units; those that are there stay.
    fn name(&self, recipe: RecipeHash, document: &mut Document) {
        for naming in self.namings.get(&recipe).into_iter().flatten() {
            let known = document.namings.entry(naming.key);
            known.or_insert_with(|| naming.clone());
        }
    }

    /// Adds the packages of what is published now to the inventory.
    fn list(&self) -> Result<()> {
        let outputs = self.entries.values().map(|entry| &entry.output);
        let inventory = Inventory::of(outputs, self.namings.values().flatten());
        self.place.take_stock(|known| known.add(&inventory))
    }

    /// Writes the closures of what is published now.
    fn close(&self, outputs: &[Output]) -> Result<()> {
        let mut recipes: BTreeMap<RecipeHash, Vec<OutputId>> = BTreeMap::new();
        for output in outputs {
            let is_asked_for = !matches!(output.target_kind.as_str(), "build-script" | "build-run");
            if is_asked_for && self.entries.contains_key(&output.id) {
                let ids = recipes.entry(output.host_recipe).or_default();
                ids.push(output.id);
            }
        }
        let recipes: Vec<_> = recipes.into_iter().collect();
        self.place.workers().each(&recipes, |(recipe, ids)| {
            let path = Question::Closures.path(*recipe);
            self.place.update(&path, None, |document| {
                let mut open = ids.clone();
                let mut seen = BTreeSet::new();
                while let Some(id) = open.pop() {
                    if let Some(entry) = self.entries.get(&id)
                        && seen.insert(id)
                    {
                        open.extend(&entry.output.references);
                        self.add_to_closure(entry, document);
                    }
                }
                Ok(())
            })
        })?;
        Ok(())
    }
}
