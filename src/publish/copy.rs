//! From one substituter to another, or into the store. What is read is verified
//! by the policy of where it comes from, every byte included.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Attached, PublishError, Result, Source, is_named};
use crate::console::Progress;
use crate::digest::{OutputId, RecipeHash};
use crate::fs;
use crate::output::{Naming, Output};
use crate::store::Store;
use crate::substitute::{Fetched, SubstituteError, fetch_all, judge_all};
use crate::substituter::{
    ArchiveRef, Document, Entry, Inventory, Question, Substituter, SubstituterError,
};
use crate::trust::PublicKey;

/// How long one archive may take.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Documents that are asked for at once.
const BATCH: usize = 256;

/// What is copied of a substituter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it; it must say what it has: be listed, or have an inventory.
    All,
    /// Outputs of these packages, or of recipes that begin so, with all they
    /// need. It must say what it has, unless all are whole host recipe hashes.
    Named(Vec<String>),
}

/// The outputs of a substituter that its policy accepts.
pub struct SubstituterSource<'a> {
    from: &'a Substituter,
    /// Dependencies first.
    entries: Vec<Entry>,
    by_id: BTreeMap<OutputId, usize>,
    namings: Vec<Naming>,
    keys: Vec<PublicKey>,
    /// Where archives are unpacked for a look.
    scratch: &'a Path,
    /// What the user should know.
    pub messages: Vec<String>,
}

impl<'a> SubstituterSource<'a> {
    /// Reads and judges documents. `store` decides about conflicts, and has what
    /// need not be copied: an empty one, if all is to be.
    pub fn read(
        from: &'a Substituter,
        wanted: &Wanted,
        store: &Store,
        scratch: &'a Path,
    ) -> Result<Self> {
        let info = from.info(&from.info_bytes()?)?;
        let mut messages = Vec::new();
        let document = documents(from, wanted, &mut messages)?;
        let (entries, namings, refused) = judge_all(store, from, document)?;
        messages.extend(refused);
        let keys = info.keys.iter().filter_map(|key| key.parse().ok());
        let by_id = entries.iter().enumerate();
        Ok(Self {
            by_id: by_id
                .map(|(number, entry)| (entry.output.id, number))
                .collect(),
            keys: keys.collect(),
            from,
            entries,
            namings,
            scratch,
            messages,
        })
    }

    fn entry(&self, output: &Output) -> Option<&Entry> {
        self.entries.get(*self.by_id.get(&output.id)?)
    }

    /// Copies all of it into a store.
    pub fn fetch(
        &self,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<(Fetched, Vec<SubstituteError>)> {
        let entries: Vec<&Entry> = self.entries.iter().collect();
        let fetched = fetch_all(self.from, store, &entries, progress);
        crate::store::archive::add_namings(store, &self.namings)?;
        Ok(fetched)
    }
}

/// All that a substituter says of what is wanted.
fn documents(from: &Substituter, wanted: &Wanted, messages: &mut Vec<String>) -> Result<Document> {
    let named = match wanted {
        Wanted::All => None,
        Wanted::Named(names) => Some(names),
    };
    let whole: Option<Vec<RecipeHash>> =
        named.and_then(|names| names.iter().map(|name| name.parse().ok()).collect());
    // A closure tells all that is needed of a recipe.
    if let Some(recipes) = whole {
        let mut document = Document::default();
        for question in [Question::Closures, Question::Recipes] {
            read(from, question, &recipes, &mut document, messages)?;
        }
        return Ok(document);
    }
    let (questions, recipes) = known(from, messages)?;
    let mut document = Document::default();
    for question in questions {
        read(from, *question, &recipes, &mut document, messages)?;
    }
    if let Some(names) = named {
        let meant = document
            .outputs
            .values()
            .filter(|entry| is_named(&entry.output, names));
        let mut open: Vec<OutputId> = meant.map(|entry| entry.output.id).collect();
        let mut kept = BTreeSet::new();
        while let Some(id) = open.pop() {
            if kept.insert(id)
                && let Some(entry) = document.outputs.get(&id)
            {
                open.extend(&entry.output.references);
            }
        }
        document.outputs.retain(|id, _| kept.contains(id));
    }
    Ok(document)
}

/// The recipes that a substituter has something of, and what to ask about them.
/// A place that cannot be listed, such as a web server, may have an inventory,
/// which names libraries and proc macros; closures have what these need.
fn known(
    from: &Substituter,
    messages: &mut Vec<String>,
) -> Result<(&'static [Question], Vec<RecipeHash>)> {
    let source = match from.writer().and_then(|writer| writer.list()) {
        Ok(listed) => {
            let listed = listed.iter().filter_map(|file| Question::of(&file.path));
            let recipes = listed.filter(|(question, _)| *question == Question::Recipes);
            let recipes = recipes.map(|(_, recipe)| recipe).collect();
            return Ok((&[Question::Recipes], recipes));
        }
        Err(error) => error,
    };
    let place = from.place();
    let Some(bytes) = from.inventory_bytes()? else {
        return Err(PublishError::Unlisted { place, source });
    };
    let inventory = Inventory::parse(&bytes, &place)?;
    messages.push(format!(
        "`{place}` cannot be listed; what its inventory names is copied, with all it needs"
    ));
    let recipes = inventory.packages.into_keys().collect();
    Ok((&[Question::Closures, Question::Recipes], recipes))
}

/// Adds what documents of one kind say.
fn read(
    from: &Substituter,
    question: Question,
    recipes: &[RecipeHash],
    into: &mut Document,
    messages: &mut Vec<String>,
) -> Result<()> {
    for recipes in recipes.chunks(BATCH) {
        let answers = from.documents(question, recipes)?;
        for (recipe, bytes) in recipes.iter().zip(answers) {
            let Some(bytes) = bytes else { continue };
            match from.parse(&bytes, &question.path(*recipe)) {
                Ok(mut document) => {
                    if question == Question::Recipes {
                        let is_its = |entry: &Entry| entry.output.host_recipe == *recipe;
                        document.outputs.retain(|_, entry| is_its(entry));
                    }
                    messages.append(&mut document.refused);
                    into.add(&document);
                }
                Err(error) => messages.push(crate::console::chain(&error)),
            }
        }
    }
    Ok(())
}

impl Source for SubstituterSource<'_> {
    fn outputs(&self) -> Result<Vec<Output>> {
        let outputs = self.entries.iter().map(|entry| entry.output.clone());
        Ok(outputs.collect())
    }

    fn namings(&self) -> Result<Vec<Naming>> {
        Ok(self.namings.clone())
    }

    fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    fn attached(&self, output: &Output) -> Result<Attached> {
        Ok(self
            .entry(output)
            .map_or_else(Attached::default, |entry| Attached {
                signatures: entry.signatures.clone(),
                provenance: entry.provenance.clone(),
            }))
    }

    /// Fetches the archive as it is, and unpacks it: only then is it known to
    /// have the files that were signed.
    fn archive(&self, output: &Output, to: &Path) -> Result<ArchiveRef> {
        let absent = || SubstituterError::Absent {
            place: self.from.file(&output.store_name()),
        };
        let archive = self.entry(output).ok_or_else(absent)?.archive;
        let content = self.from.download(archive, Instant::now() + LONGEST)?;
        let mut content = content.take(archive.size.saturating_add(1));
        let written = fs::write_hashed(&mut content, to)?;
        written.map_err(|source| SubstituterError::Read {
            store_name: output.store_name(),
            place: self.from.place(),
            source,
        })?;
        let folder = fs::unique_beside(&self.scratch.join("look"));
        let looked = self
            .from
            .unpack(output, archive, Box::new(fs::open(to)?), &folder);
        let _ = fs::remove_dir_all(&folder);
        looked?;
        Ok(archive)
    }
}
