//! What the store lacks for a plan, fetched from substituters.
//!
//! ```text
//! missing units ─► documents ─► judged ─► plan with offers ─► archives ─► store
//!                  (cached)     signatures, conflicts         in parallel, dependencies first
//! ```
//!
//! | module | job |
//! |---|---|
//! | `round` | each substituter is asked once; signatures of several count together |
//! | `lookup` | which documents are asked for |
//! | [`cache`] | answers for a while |
//! | `judge` | which entries may be used here |
//! | `fetch` | archives into the store |
//! | [`stock`] | which packages a substituter has |
//!
//! Invariants:
//! * Nothing is in the store that was not verified, and nothing without all it
//!   refers to: whoever is killed leaves whole closures.
//! * A failure is a warning; what cannot be fetched is as it was before.

pub mod cache;
mod fetch;
mod judge;
mod lookup;
mod round;
pub mod stock;

use std::collections::BTreeSet;

use crate::config::Config;
use crate::console::{Progress, chain};
use crate::digest::{OutputId, UnitKey};
use crate::environment::Environment;
use crate::fs;
use crate::output::{Maker, Naming, Output};
use crate::plan::inputs::Inspector;
use crate::plan::{Context, Offers, Plan, Verdict};
use crate::store::{Store, StoreError};
use crate::substituter::{CacheInfo, Document, Entry, Substituter, SubstituterError};
use cache::LookupCache;
use fetch::Fetch;
use judge::{Judged, judge};
use round::{Asked, Others};

/// What keeps a substituter from being used.
#[derive(Debug, thiserror::Error)]
pub enum SubstituteError {
    /// The substituter.
    #[error(transparent)]
    Substituter(#[from] SubstituterError),
    /// The store.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The lookup cache.
    #[error("the lookup cache cannot be used")]
    File(#[from] fs::FsError),
    /// It failed a moment ago.
    #[error("`{place}` failed less than a minute ago and is left out: {reason}")]
    Down {
        /// The substituter.
        place: String,
        /// What happened.
        reason: String,
    },
    /// It signs with other keys than those that are trusted.
    #[error("`{place}` signs with {keys}, and none of that is trusted")]
    OtherKeys {
        /// The substituter.
        place: String,
        /// Its keys.
        keys: String,
    },
}

type Result<T> = std::result::Result<T, SubstituteError>;

/// How far fetching may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Everywhere.
    Network,
    /// Folders only.
    Disk,
}

/// The substituters in the order in which they are asked.
#[derive(Debug, Default)]
pub struct Substituters(Vec<Substituter>);

impl Substituters {
    /// The configured ones, with a message for each that cannot be used.
    pub fn open(
        config: &Config,
        environment: &Environment,
        reach: Reach,
        warn: &mut dyn FnMut(&str),
    ) -> Self {
        let mut list = Vec::new();
        for settings in &config.substituters {
            match Substituter::open(settings, environment) {
                Ok(substituter) if reach == Reach::Network || substituter.is_near() => {
                    list.push(substituter);
                }
                Ok(_far) => {}
                Err(error) => warn(&chain(&error)),
            }
        }
        Self(list)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is fetched for, and where it goes.
pub struct Scene<'a> {
    /// The command.
    pub context: &'a Context,
    /// Where outputs go.
    pub store: &'a Store,
    /// Compares inputs.
    pub inspector: &'a Inspector<'a>,
    /// Shows how far it is.
    pub progress: &'a dyn Progress,
}

/// What came of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// Outputs that are in the store now.
    pub outputs: usize,
    /// Bytes of their archives.
    pub bytes: u64,
}

impl Fetched {
    fn add(&mut self, other: Self) {
        self.outputs += other.outputs;
        self.bytes += other.bytes;
    }
}

/// Entries of a document that may be used and that the store lacks, dependencies
/// first, with how Cargo names units, and what is to be said about the others.
pub(crate) fn judge_all(
    store: &Store,
    from: &Substituter,
    document: Document,
) -> Result<(Vec<Entry>, Vec<Naming>, Vec<String>)> {
    let judged = judge(store, from, &Others::none(), document)?;
    let messages = judged.all_messages(&from.place());
    let namings = judged.namings.values().cloned().collect();
    Ok((judged.into_entries(), namings, messages))
}

/// Fetches entries, which come dependencies first. What fails, and what refers to
/// it, is left out.
pub(crate) fn fetch_all(
    from: &Substituter,
    store: &Store,
    entries: &[&Entry],
    progress: &dyn Progress,
) -> (Fetched, Vec<SubstituteError>) {
    let fetch = Fetch {
        substituter: from,
        store,
        progress,
    };
    if entries.is_empty() {
        return (Fetched::default(), Vec::new());
    }
    fetch.run(entries)
}

/// Which units of a plan a substituter is asked for; the second parameter says
/// whether members are among them.
type Wanted = fn(&Plan, bool) -> Vec<usize>;

/// What is to be fetched.
#[derive(Debug, Default)]
struct Chosen {
    outputs: BTreeSet<OutputId>,
    /// Units that are ready with it.
    units: BTreeSet<UnitKey>,
}

impl Scene<'_> {
    /// Fetches what makes more of a plan ready, from one substituter after the
    /// other, until nothing is missing. Gives the plan with what came of it.
    pub fn fill(
        &self,
        mut plan: Plan,
        substituters: &Substituters,
        warn: &mut dyn FnMut(&str),
    ) -> (Plan, Fetched) {
        let mut fetched = Fetched::default();
        if !self.store.is_writable() {
            return (plan, fetched);
        }
        let mut round = self.in_order(substituters);
        for number in 0..round.len() {
            let wanted = (&plan, lookup::missing as Wanted);
            let Some(judged) = self.judged(&mut round, number, wanted, warn) else {
                continue;
            };
            let chosen = self.choose(&plan, &judged);
            if chosen.units.is_empty() {
                continue;
            }
            fetched.add(self.fetch(&round[number], (&judged, chosen), warn));
            plan = Plan::make(self.context, self.store, self.inspector);
        }
        (plan, fetched)
    }

    /// Fetches all outputs of one maker for a plan's units.
    pub fn fill_of(
        &self,
        plan: &Plan,
        maker: Maker,
        substituters: &Substituters,
        warn: &mut dyn FnMut(&str),
    ) -> Fetched {
        let mut fetched = Fetched::default();
        let mut round = self.in_order(substituters);
        for number in 0..round.len() {
            let wanted = (plan, lookup::units as Wanted);
            let Some(judged) = self.judged(&mut round, number, wanted, warn) else {
                continue;
            };
            let entries = judged.accepted.values();
            let own = entries.filter(|entry| entry.output.builder == maker);
            let own: Vec<_> = own.map(|entry| &entry.output).collect();
            let recipes: BTreeSet<_> = own.iter().map(|o| o.host_recipe).collect();
            let units = plan.units.iter();
            let units = units.filter(|unit| recipes.contains(&unit.host_recipe));
            let chosen = Chosen {
                outputs: own.iter().map(|output| output.id).collect(),
                units: units.map(|unit| unit.key).collect(),
            };
            fetched.add(self.fetch(&round[number], (&judged, chosen), warn));
        }
        fetched
    }

    /// The substituters by priority, none of them asked yet.
    fn in_order<'s>(&self, substituters: &'s Substituters) -> Vec<Asked<'s>> {
        let all = substituters.0.iter();
        let mut all: Vec<Asked<'s>> = all
            .map(|substituter| Asked {
                substituter,
                cache: LookupCache::new(self.store, &substituter.place()),
                said: None,
            })
            .collect();
        all.sort_by_key(|asked| {
            let Asked {
                substituter, cache, ..
            } = asked;
            let said = || {
                let info = substituter.info(&cache.info()?).ok()?;
                Some(info.priority)
            };
            let set = substituter.settings().priority;
            set.or_else(said).unwrap_or(CacheInfo::default().priority)
        });
        all
    }

    /// Notes that a substituter is of no use for a while, and says so.
    fn give_up(&self, cache: &LookupCache, error: &SubstituteError, warn: &mut dyn FnMut(&str)) {
        if matches!(error, SubstituteError::Substituter(error) if is_outage(error)) {
            cache.note_outage(&chain(error));
        }
        warn(&chain(error));
    }

    /// What a substituter of the round has for units of a plan, as far as it may
    /// be used; `None` where that is nothing.
    fn judged(
        &self,
        round: &mut [Asked<'_>],
        number: usize,
        wanted: (&Plan, Wanted),
        warn: &mut dyn FnMut(&str),
    ) -> Option<Judged> {
        self.ask(&mut round[number], wanted, warn);
        let has_something = |asked: &Asked<'_>| {
            let said = asked.said.as_ref();
            said.is_some_and(|said| !said.outputs.is_empty())
        };
        if !has_something(&round[number]) {
            return None;
        }
        if round[number].substituter.policy().asks_for_several() {
            for other in &mut *round {
                self.ask(other, wanted, warn);
            }
        }
        // One that is alone is asked once, and nobody else wants to know.
        let document = match round.len() {
            1 => round[number].said.take()?,
            _ => round[number].said.clone()?,
        };
        let substituter = round[number].substituter;
        let others = Others::new(round, number);
        match judge(self.store, substituter, &others, document) {
            Ok(judged) => {
                for message in judged.messages(&substituter.place()) {
                    warn(&message);
                }
                Some(judged)
            }
            Err(error) => {
                warn(&chain(&error));
                None
            }
        }
    }

    /// Asks a substituter about units of a plan, if it was not asked yet and
    /// there are any.
    fn ask(
        &self,
        asked: &mut Asked<'_>,
        (plan, wanted): (&Plan, Wanted),
        warn: &mut dyn FnMut(&str),
    ) {
        let units = wanted(plan, asked.substituter.settings().members);
        if units.is_empty() || asked.said.is_some() {
            return;
        }
        let said = self.document(asked.substituter, &asked.cache, (plan, &units), warn);
        asked.said = Some(said.unwrap_or_else(|error| {
            self.give_up(&asked.cache, &error, warn);
            Document::default()
        }));
    }

    /// What a substituter says of units of a plan.
    fn document(
        &self,
        substituter: &Substituter,
        cache: &LookupCache,
        (plan, missing): (&Plan, &[usize]),
        warn: &mut dyn FnMut(&str),
    ) -> Result<Document> {
        let place = substituter.place();
        if let Some(reason) = cache.outage() {
            return Err(SubstituteError::Down { place, reason });
        }
        let info = self.info(substituter, cache)?;
        let policy = substituter.policy();
        if !policy.is_unsigned() && !info.keys.is_empty() && !policy.trusts_one_of(&info.keys) {
            let keys = info.keys.join(" ");
            return Err(SubstituteError::OtherKeys { place, keys });
        }
        let question = lookup::Lookup {
            substituter,
            cache,
            plan,
            missing,
        };
        question.ask(&info, warn)
    }

    fn info(&self, substituter: &Substituter, cache: &LookupCache) -> Result<CacheInfo> {
        if let Some(bytes) = cache.info() {
            return Ok(substituter.info(&bytes)?);
        }
        let bytes = substituter.info_bytes()?;
        let info = substituter.info(&bytes)?;
        cache.keep_info(&bytes);
        Ok(info)
    }

    /// Outputs by which more of a plan is ready, and the units that are.
    fn choose(&self, plan: &Plan, judged: &Judged) -> Chosen {
        let mut offers = Offers::default();
        for entry in judged.accepted.values() {
            offers.add_output(entry.output.clone());
        }
        for naming in judged.namings.values() {
            offers.add_naming(naming.clone());
        }
        let better = Plan::make_with(self.context, self.store, self.inspector, &offers);
        let mut chosen = Chosen::default();
        let named = |plan: &Plan| plan.resolution.namings.iter().flatten().count();
        if better.ready() > plan.ready()
            || (better.ready() == plan.ready() && named(&better) > named(plan))
        {
            for (unit, verdict) in better.units.iter().zip(&better.resolution.verdicts) {
                if let Verdict::Ready(output) = verdict {
                    chosen.outputs.insert(output.id);
                    chosen.units.insert(unit.key);
                }
            }
        }
        chosen
    }

    /// Fetches outputs with all they refer to.
    fn fetch(
        &self,
        asked: &Asked<'_>,
        (judged, chosen): (&Judged, Chosen),
        warn: &mut dyn FnMut(&str),
    ) -> Fetched {
        let Asked {
            substituter, cache, ..
        } = asked;
        let entries = judged.closure(&chosen.outputs);
        self.keep_namings(judged, &chosen.units, warn);
        if entries.is_empty() {
            return Fetched::default();
        }
        let fetch = Fetch {
            substituter,
            store: self.store,
            progress: self.progress,
        };
        let (fetched, problems) = fetch.run(&entries);
        for problem in problems.iter().take(3) {
            warn(&chain(problem));
        }
        if problems.len() > 3 {
            let more = problems.len() - 3;
            warn(&format!("{more} more outputs could not be fetched"));
        }
        let outage = problems.iter().find(|problem| fetch::is_dead(problem));
        if let Some(outage) = outage {
            cache.note_outage(&chain(outage));
        }
        fetched
    }

    /// Keeps how Cargo names units that are ready now, and no others: nobody has
    /// signed that.
    fn keep_namings(&self, judged: &Judged, units: &BTreeSet<UnitKey>, warn: &mut dyn FnMut(&str)) {
        let namings = judged.namings.values();
        let namings = namings.filter(|naming| units.contains(&naming.key));
        let namings: Vec<_> = namings.cloned().collect();
        if let Err(error) = crate::store::archive::add_namings(self.store, &namings) {
            warn(&chain(&error));
        }
    }
}

/// Whether another try in the next seconds would go the same way.
fn is_outage(error: &SubstituterError) -> bool {
    matches!(
        error,
        SubstituterError::Unreachable { .. }
            | SubstituterError::Slow { .. }
            | SubstituterError::Status { .. }
            | SubstituterError::Malformed { .. }
            | SubstituterError::Denied { .. }
    )
}

/// A store name for messages.
fn name(output: &Output) -> String {
    output.store_name()
}
