//! Out of `target/`, into the store: what Cargo compiled, with the conditions
//! under which it may be used again, and how Cargo named it.
//!
//! A unit is taken only if its fingerprint can be proved: the hash that Cargo
//! wrote is the one that is recomputed from the JSON beside it, and every
//! dependency in it is a unit that is in the store with the very bytes found
//! here. What cannot be proved stays in `target/` and is compiled again
//! elsewhere.

mod collect;
mod embedded;
mod executable;
mod inputs;
mod macros;
mod unit;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use collect::{Collected, Compiled, Unfit};
use rayon::prelude::*;

use crate::bridge::Record;
use crate::cargo::build_script::Reads;
use crate::cargo::fingerprint::{self, Fingerprint};
use crate::console::Progress;
use crate::digest::{OutputId, UnitKey};
use crate::fs::{self, Time};
use crate::link::UnitPaths;
use crate::output::{Maker, Naming, Output};
use crate::plan::inputs::Inspector;
use crate::plan::state::State;
use crate::plan::{Context, Plan, Reason, Verdict};
use crate::store::{Store, StoreError};

const UNKNOWN: &str = "it cannot be told from another unit by the compiler's command line";

/// What a harvest brought.
#[derive(Debug, Default)]
pub struct Harvest {
    /// Units that Cargo compiled.
    pub compiled: usize,
    /// Units that the wrapper served.
    pub served: usize,
    /// Outputs that are new in the store.
    pub added: usize,
    /// Compiled units that stay out of the store, with the reason.
    pub left: Vec<(String, String)>,
    /// Names that were learned.
    pub named: usize,
    /// The first error of the store; what was taken before it is in.
    pub error: Option<StoreError>,
}

/// Everything about one unit that Cargo handled in this run.
pub(crate) struct Found<'a> {
    pub(crate) index: usize,
    pub(crate) record: Option<&'a Record>,
    pub(crate) naming: Naming,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) paths: UnitPaths,
}

/// What Cargo did with the wrapper in front of rustc.
#[derive(Debug, Default)]
pub struct Session {
    /// Compilations, by the index of the unit.
    pub records: BTreeMap<usize, Record>,
    /// Crates that were compiled as no known unit.
    pub unknown: Vec<String>,
    /// Store names of the build script runs that were replayed.
    pub replayed: BTreeSet<String>,
    /// When it began.
    pub started: Time,
}

/// What a harvest needs.
pub struct Harvesting<'a> {
    /// The checkout and the command.
    pub context: &'a Context,
    /// Where outputs go.
    pub store: &'a Store,
    /// What hashes inputs.
    pub inspector: &'a Inspector<'a>,
    /// Who compiled what is found.
    pub maker: Maker,
    /// What Cargo did.
    pub session: &'a Session,
    /// Whether the compiler was made to name its sources otherwise.
    pub remapped: bool,
    /// Told of each unit that was looked at.
    pub progress: &'a dyn Progress,
}

impl Harvesting<'_> {
    /// Takes what Cargo compiled, and learns the names of what was served. The
    /// caller holds Cargo's locks. Afterwards `plan` says what is ready now.
    pub fn run(&self, plan: &mut Plan, state: &mut State) -> Harvest {
        self.inspector.forget();
        let unknown = self.session.unknown.iter();
        let mut harvester = Harvester {
            harvesting: self,
            differing: BTreeSet::new(),
            result: Harvest {
                compiled: self.session.unknown.len(),
                left: unknown
                    .map(|name| (name.clone(), UNKNOWN.to_owned()))
                    .collect(),
                ..Harvest::default()
            },
        };
        let found = harvester.find_all(plan, state);
        let mut compiled = self.examine_all(plan, &found);
        for found in &found {
            let compiled = compiled.remove(&found.index);
            if let Err(error) = harvester.take(plan, found, compiled, state) {
                harvester.result.error.get_or_insert(error);
            }
        }
        harvester.result
    }

    /// Looks at all that was compiled, by the index of the unit.
    fn examine_all(&self, plan: &Plan, found: &[Found<'_>]) -> HashMap<usize, Examined> {
        let compiled: Vec<(&Found<'_>, &Record)> = found
            .iter()
            .filter(|found| !self.is_reused(plan, found))
            .filter_map(|found| Some((found, found.record?)))
            .collect();
        self.progress.begin(compiled.len());
        let macros = macros::Sources::default();
        let examined = compiled.into_par_iter().map(|(found, record)| {
            let unit = &plan.units[found.index];
            let reads = match unit.package.is_path() {
                true => macros.reads(plan, unit),
                false => Reads::default(),
            };
            let examined = self.examine(unit, found, record, &reads);
            self.progress.advance();
            (found.index, examined)
        });
        examined.collect()
    }

    /// Whether a unit came from the store in this run.
    fn is_reused(&self, plan: &Plan, found: &Found<'_>) -> bool {
        let Some(ready) = plan.resolution.output(found.index) else {
            return false;
        };
        let served = found.record.is_some_and(|record| record.served.is_some());
        served || self.session.replayed.contains(&ready.store_name())
    }
}

/// What looking at a compiled unit gave.
type Examined = Result<Compiled, Unfit>;

/// The hash in a unit's fingerprint file, if the unit is named.
fn present_hash(context: &Context, plan: &Plan, index: usize) -> Option<u64> {
    let naming = plan.resolution.namings[index].as_ref()?;
    let paths = UnitPaths::new(&context.layout, &plan.units[index], naming);
    fingerprint::from_hex(&fs::read(&paths.hash).ok()?)
}

/// Whether a build script ran although it was linked: its record is nowhere,
/// but its files are not as they were left.
fn was_run_again(
    context: &Context,
    plan: &Plan,
    index: usize,
    records: &BTreeMap<usize, Record>,
    state: &State,
) -> bool {
    let (Some(output), Some(naming)) = (
        plan.resolution.output(index),
        &plan.resolution.namings[index],
    ) else {
        return false;
    };
    let unit = &plan.units[index];
    if records.is_empty() || unit.kind != "build-run" {
        return false;
    }
    let paths = UnitPaths::new(&context.layout, unit, naming);
    !state.is_in_place(&context.layout.build_dir, &paths.name, output.id)
}

/// Why there is nothing to take of a unit.
enum Absence {
    /// Nobody asked for it, or its compilation failed.
    NotMade,
    /// It was compiled, and stays out of the store for this reason.
    Unproved(&'static str),
}

/// Finds a unit's fingerprint and proves it.
fn find<'a>(
    context: &Context,
    plan: &Plan,
    index: usize,
    session: &'a Session,
    proved: &HashMap<u64, UnitKey>,
) -> Result<Found<'a>, Absence> {
    use Absence::{NotMade, Unproved};
    let records = &session.records;
    let unit = &plan.units[index];
    if let Some(refusal) = unit.refused {
        return Err(records
            .get(&index)
            .map_or(NotMade, |_| Unproved(refusal.reason())));
    }
    let record = records.get(&index);
    let naming = match record {
        Some(record) => unit::compile_naming(context, unit, record, session.started)
            .ok_or(Unproved("where Cargo notes its fingerprint is unknown"))?,
        None => unit::run_naming(context, plan, index, records).ok_or(NotMade)?,
    };
    let paths = UnitPaths::new(&context.layout, unit, &naming);
    let written = fs::read(&paths.hash).ok();
    let written = written.and_then(|bytes| fingerprint::from_hex(&bytes));
    // Cargo empties the file first, and fills it when all went well.
    let written = written.ok_or(NotMade)?;
    let json = fs::read(&paths.json).ok();
    let parsed = json.and_then(|bytes| Fingerprint::parse(&bytes));
    let parsed = parsed.filter(|parsed| parsed.hash() == written);
    let parsed = parsed.ok_or(Unproved("its fingerprint is of an unknown form"))?;
    let deps = parsed.deps.iter().map(|dep| proved.get(&dep.3).copied());
    let deps: Option<Vec<UnitKey>> = deps.collect();
    let deps = deps.ok_or(Unproved("something it needs is not proved"))?;
    let absolute = fingerprint::path_hash(&unit.unit.target.src_path);
    let mut template = parsed.clone();
    if unit.kind == "build-run" {
        template.local.clear();
    }
    let absolute_path = parsed.path == absolute;
    if !absolute_path && !unit.package.is_path() && unit.kind != "build-run" {
        return Err(Unproved("its fingerprint has a path of unknown meaning"));
    }
    Ok(Found {
        index,
        record,
        naming: Naming {
            fingerprint: template,
            absolute_path,
            deps,
            ..naming
        },
        fingerprint: parsed,
        paths,
    })
}

struct Harvester<'a> {
    harvesting: &'a Harvesting<'a>,
    /// Units whose files here are not those that the store has under the same
    /// name: what is compiled against them is not what it would be elsewhere.
    differing: BTreeSet<usize>,
    result: Harvest,
}

impl<'a> Harvester<'a> {
    /// All units that Cargo handled in this run and that can be proved,
    /// dependencies first.
    fn find_all(&mut self, plan: &mut Plan, state: &State) -> Vec<Found<'a>> {
        let Harvesting {
            context, session, ..
        } = *self.harvesting;
        let records = &session.records;
        let in_place = plan.linkable();
        // Fingerprint hashes of all units that are proved so far.
        let mut proved: HashMap<u64, UnitKey> = HashMap::new();
        let mut all = Vec::new();
        for index in plan.order.clone() {
            let untouched = in_place[index]
                && !records.contains_key(&index)
                && !was_run_again(context, plan, index, records, state);
            if untouched {
                if let Some(hash) = present_hash(context, plan, index) {
                    proved.insert(hash, plan.units[index].key);
                }
                continue;
            }
            match find(context, plan, index, session, &proved) {
                Ok(found) => {
                    proved.insert(found.fingerprint.hash(), plan.units[index].key);
                    all.push(found);
                }
                Err(Absence::Unproved(reason)) => {
                    let served = records.get(&index).is_some_and(|r| r.served.is_some());
                    self.result.compiled += usize::from(!served);
                    self.leave(plan, index, reason);
                }
                Err(Absence::NotMade) => {}
            }
        }
        all
    }

    /// Puts a unit into the store, or only its name if the store has it.
    fn take(
        &mut self,
        plan: &mut Plan,
        found: &Found<'_>,
        compiled: Option<Examined>,
        state: &mut State,
    ) -> Result<(), StoreError> {
        let index = found.index;
        let ready = plan.resolution.output(index).cloned();
        let reused = self.harvesting.is_reused(plan, found);
        if !reused {
            self.result.compiled += 1;
        } else if found.record.is_some() {
            self.result.served += 1;
        }
        if plan.resolution.namings[index].as_ref() != Some(&found.naming) {
            self.harvesting.store.add_naming(&found.naming)?;
            plan.resolution.namings[index] = Some(found.naming.clone());
            self.result.named += 1;
        }
        if reused {
            // Linked again with the right times by the caller.
            state.units.remove(&found.paths.name);
            return Ok(());
        }
        let needs = &plan.units[index].needs;
        if needs.iter().any(|need| self.differing.contains(need)) {
            self.leave(
                plan,
                index,
                "something it was compiled against differs from what the store has",
            );
            return Ok(());
        }
        let references = needs
            .iter()
            .map(|&need| plan.resolution.output(need).map(|output| output.id));
        let references: Option<Vec<OutputId>> = references.collect();
        let Some(references) = references else {
            self.leave(plan, index, "something it needs is not in the store");
            return Ok(());
        };
        match self.harvesting.collect(plan, found, compiled, references) {
            Ok(collected) => self.keep(plan, found, collected, ready.as_deref(), state),
            Err(Unfit(reason)) => {
                self.leave(plan, index, &reason);
                Ok(())
            }
        }
    }

    fn keep(
        &mut self,
        plan: &mut Plan,
        found: &Found<'_>,
        collected: Collected,
        ready: Option<&Output>,
        state: &mut State,
    ) -> Result<(), StoreError> {
        if let Some(ready) = ready {
            // Cargo did again what the store has. The store's stays; what
            // depends on this one is taken only if the two are the same.
            if !collected.is_same(self.harvesting.store, ready) {
                self.differing.insert(found.index);
            }
            state.units.remove(&found.paths.name);
            return Ok(());
        }
        let (output, added) = unit::add(
            self.harvesting.context,
            plan,
            self.harvesting.store,
            found,
            collected,
            state,
        )?;
        match output {
            Some(output) => {
                self.result.added += usize::from(added);
                plan.resolution.verdicts[found.index] = Verdict::Ready(Arc::new(output));
            }
            None => {
                self.differing.insert(found.index);
                self.leave(plan, found.index, "the store has it with other bytes");
            }
        }
        Ok(())
    }

    /// Leaves a unit out, and so all that depends on it.
    fn leave(&mut self, plan: &mut Plan, index: usize, reason: &str) {
        plan.resolution.verdicts[index] = Verdict::Missing(Reason::NotInStore);
        let name = plan.units[index].package.name.clone();
        self.result.left.push((name, reason.to_owned()));
    }
}
