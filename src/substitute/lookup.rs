//! Which documents are asked for: as few as tell about all missing units.

use std::collections::BTreeSet;

use super::cache::{Known, LookupCache};
use super::{Result, chain};
use crate::digest::RecipeHash;
use crate::plan::{Plan, Verdict};
use crate::substituter::{CacheInfo, Document, Question, Substituter, document};

/// Problems of one kind that are told in full.
const MESSAGES: usize = 2;

/// Units that a substituter may be asked for.
pub(super) fn units(plan: &Plan, members: bool) -> Vec<usize> {
    let asked = |&index: &usize| {
        let unit = &plan.units[index];
        unit.refused.is_none() && (members || !unit.package.is_path())
    };
    (0..plan.units.len()).filter(asked).collect()
}

/// The units of these that are not ready, or that nobody here knows Cargo's
/// name of.
pub(super) fn missing(plan: &Plan, members: bool) -> Vec<usize> {
    let resolution = &plan.resolution;
    let is_missing = |&index: &usize| {
        let is_ready = matches!(resolution.verdicts[index], Verdict::Ready(_));
        !is_ready || resolution.namings[index].is_none()
    };
    units(plan, members)
        .into_iter()
        .filter(is_missing)
        .collect()
}

/// A question about some units of a plan.
pub(super) struct Lookup<'a> {
    pub(super) substituter: &'a Substituter,
    pub(super) cache: &'a LookupCache,
    pub(super) plan: &'a Plan,
    pub(super) missing: &'a [usize],
}

impl Lookup<'_> {
    /// All that the substituter says of these units and what they need.
    pub(super) fn ask(&self, info: &CacheInfo, warn: &mut dyn FnMut(&str)) -> Result<Document> {
        let recipes = self.recipes();
        if info.lookup
            && let Some(document) = self.call(&recipes, warn)?
        {
            return Ok(document);
        }
        let mut document = Document::default();
        let (top, with_closure) = self.top();
        self.get(Question::Closures, &top, &mut document, warn)?;
        let told: BTreeSet<RecipeHash> = document
            .outputs
            .values()
            .map(|entry| entry.output.host_recipe)
            .collect();
        // What has no closure is not published.
        let rest = recipes
            .iter()
            .filter(|recipe| !told.contains(recipe) && !with_closure.contains(recipe));
        let rest: Vec<RecipeHash> = rest.copied().collect();
        self.get(Question::Recipes, &rest, &mut document, warn)?;
        Ok(document)
    }

    fn recipes(&self) -> BTreeSet<RecipeHash> {
        let units = self.missing.iter().map(|&index| &self.plan.units[index]);
        units.map(|unit| unit.host_recipe).collect()
    }

    /// Recipes that no other missing one needs, and which of them would have a
    /// closure if they were published.
    fn top(&self) -> (Vec<RecipeHash>, BTreeSet<RecipeHash>) {
        let needed: BTreeSet<RecipeHash> = self
            .missing
            .iter()
            .flat_map(|&index| &self.plan.units[index].needs)
            .map(|&need| self.plan.units[need].host_recipe)
            .collect();
        let top = self.missing.iter().map(|&index| &self.plan.units[index]);
        let top = top.filter(|unit| {
            !needed.contains(&unit.host_recipe)
                && !matches!(unit.kind, "build-script" | "build-run")
        });
        let top: BTreeSet<RecipeHash> = top.map(|unit| unit.host_recipe).collect();
        (top.iter().copied().collect(), top)
    }

    /// Asks for everything at once; `None` where nobody answers.
    fn call(
        &self,
        recipes: &BTreeSet<RecipeHash>,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Option<Document>> {
        let open: Vec<RecipeHash> = recipes
            .iter()
            .filter(|&&recipe| {
                let path = Question::Recipes.path(recipe);
                !matches!(self.cache.document(&path), Some(Known::Absent))
            })
            .copied()
            .collect();
        if open.is_empty() {
            return Ok(Some(Document::default()));
        }
        let Some(answers) = self.substituter.lookup(&open)? else {
            return Ok(None);
        };
        let mut document = Document::default();
        for bytes in answers {
            let answer = self.substituter.parse(&bytes, document::CALL)?;
            merge(&mut document, answer, warn);
        }
        for recipe in open {
            let is_told = |entry: &crate::substituter::Entry| entry.output.host_recipe == recipe;
            if !document.outputs.values().any(is_told) {
                self.cache.keep(&Question::Recipes.path(recipe), None);
            }
        }
        Ok(Some(document))
    }

    /// Gets documents, those that are known from the cache.
    fn get(
        &self,
        question: Question,
        recipes: &[RecipeHash],
        document: &mut Document,
        warn: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let mut open = Vec::new();
        for &recipe in recipes {
            match self.cache.document(&question.path(recipe)) {
                Some(Known::Absent) => {}
                Some(Known::Bytes(bytes)) => self.read(question, recipe, &bytes, document, warn),
                None => open.push(recipe),
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let answers = self.substituter.documents(question, &open)?;
        let mut problems = 0;
        let mut warn_some = |message: &str| {
            problems += 1;
            if problems <= MESSAGES {
                warn(message);
            }
        };
        for (recipe, answer) in open.into_iter().zip(answers) {
            self.cache.keep(&question.path(recipe), answer.as_deref());
            if let Some(bytes) = answer {
                self.read(question, recipe, &bytes, document, &mut warn_some);
            }
        }
        if problems > MESSAGES {
            let more = problems - MESSAGES;
            warn(&format!("{more} more problems like these"));
        }
        Ok(())
    }

    fn read(
        &self,
        question: Question,
        recipe: RecipeHash,
        bytes: &[u8],
        document: &mut Document,
        warn: &mut dyn FnMut(&str),
    ) {
        match self.substituter.parse(bytes, &question.path(recipe)) {
            Ok(mut answer) => {
                if question == Question::Recipes {
                    answer
                        .outputs
                        .retain(|_, entry| entry.output.host_recipe == recipe);
                }
                merge(document, answer, warn);
            }
            Err(error) => warn(&chain(&error)),
        }
    }
}

/// Adds what another document says. Of two entries about one output, the first
/// stays; the same content adds its signatures.
fn merge(into: &mut Document, other: Document, warn: &mut dyn FnMut(&str)) {
    for reason in other.refused.iter().take(MESSAGES) {
        warn(&format!("an entry is passed over: {reason}"));
    }
    for (id, entry) in other.outputs {
        let Some(known) = into.outputs.get_mut(&id) else {
            into.outputs.insert(id, entry);
            continue;
        };
        if known.output.content_hash() != entry.output.content_hash() {
            let name = super::name(&known.output);
            warn(&format!("there are two contents of `{name}` at one place"));
            continue;
        }
        known.add(entry.signatures, entry.provenance);
    }
    for (key, naming) in other.namings {
        into.namings.entry(key).or_insert(naming);
    }
}
