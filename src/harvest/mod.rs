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
mod unit;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::bridge::Record;
use crate::cargo::fingerprint::{self, Fingerprint};
use crate::digest::{OutputId, UnitKey};
use crate::fs;
use crate::link::UnitPaths;
use crate::output::{FORMAT, Naming, Output, Role};
use crate::plan::inputs::Inspector;
use crate::plan::state::State;
use crate::plan::{Context, Plan, Reason, Verdict};
use crate::store::{Store, StoreError};

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
    pub left: Vec<(usize, String)>,
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
    /// Store names of the build script runs that were replayed.
    pub replayed: BTreeSet<String>,
}

/// Takes what Cargo compiled, and learns the names of what was served. The
/// caller holds Cargo's locks. Afterwards `plan` says what is ready now.
pub fn harvest(
    context: &Context,
    plan: &mut Plan,
    store: &Store,
    inspector: &Inspector<'_>,
    session: &Session,
    state: &mut State,
) -> Harvest {
    inspector.forget();
    let in_place = plan.linkable();
    let digests = collect::digests(plan, &session.records);
    let mut harvester = Harvester {
        context,
        store,
        inspector,
        session,
        digests,
        differing: BTreeSet::new(),
        result: Harvest::default(),
    };
    // Fingerprint hashes of all units that are proved so far.
    let mut proved: HashMap<u64, UnitKey> = HashMap::new();
    let order = plan.order.clone();
    for index in order {
        let record = session.records.get(&index);
        let untouched = in_place[index]
            && record.is_none()
            && !was_run_again(context, plan, index, &session.records, state);
        if untouched {
            if let Some(hash) = present_hash(context, plan, index) {
                proved.insert(hash, plan.units[index].key);
            }
            continue;
        }
        let Some(found) = find(context, plan, index, record, &session.records, &proved) else {
            continue; // not asked for, failed, or of an unknown form
        };
        proved.insert(found.fingerprint.hash(), plan.units[index].key);
        if let Err(error) = harvester.take(plan, &found, state) {
            harvester.result.error.get_or_insert(error);
        }
    }
    harvester.result
}

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

/// Finds a unit's fingerprint and proves it.
fn find<'a>(
    context: &Context,
    plan: &Plan,
    index: usize,
    record: Option<&'a Record>,
    records: &BTreeMap<usize, Record>,
    proved: &HashMap<u64, UnitKey>,
) -> Option<Found<'a>> {
    let unit = &plan.units[index];
    if unit.refused.is_some() {
        return None;
    }
    let naming = match record {
        Some(record) => Naming {
            format: FORMAT,
            key: unit.key,
            unit_id: record.unit_id.clone(),
            extra_filename: record.extra_filename.clone(),
            out_dir: unit::relative_out_dir(context, unit, &record.out_dir)?,
            stem: unit.stem.clone(),
            fingerprint: unit::blank_fingerprint(),
            absolute_path: false,
            deps: Vec::new(),
        },
        None => unit::run_naming(context, plan, index, records)?,
    };
    let paths = UnitPaths::new(&context.layout, unit, &naming);
    let written = fingerprint::from_hex(&fs::read(&paths.hash).ok()?)?;
    let parsed = Fingerprint::parse(&fs::read(&paths.json).ok()?)?;
    if parsed.hash() != written {
        return None; // another encoding than the known one: not provable
    }
    let deps = parsed.deps.iter().map(|dep| proved.get(&dep.3).copied());
    let deps: Option<Vec<UnitKey>> = deps.collect();
    let absolute = fingerprint::path_hash(&unit.unit.target.src_path);
    let mut template = parsed.clone();
    if unit.kind == "build-run" {
        template.local.clear();
    }
    let absolute_path = parsed.path == absolute;
    if !absolute_path && !unit.package.is_path() && unit.kind != "build-run" {
        return None; // a path of unknown meaning
    }
    Some(Found {
        index,
        record,
        naming: Naming {
            fingerprint: template,
            absolute_path,
            deps: deps?,
            ..naming
        },
        fingerprint: parsed,
        paths,
    })
}

struct Harvester<'a> {
    context: &'a Context,
    store: &'a Store,
    inspector: &'a Inspector<'a>,
    session: &'a Session,
    /// Digests of all compiled files.
    digests: collect::Digests,
    /// Units whose files here are not those that the store has under the same
    /// name: what is compiled against them is not what it would be elsewhere.
    differing: BTreeSet<usize>,
    result: Harvest,
}

impl Harvester<'_> {
    /// Puts a unit into the store, or only its name if the store has it.
    fn take(
        &mut self,
        plan: &mut Plan,
        found: &Found<'_>,
        state: &mut State,
    ) -> Result<(), StoreError> {
        let index = found.index;
        let ready = plan.resolution.output(index).cloned();
        let served = found.record.is_some_and(|record| record.served.is_some());
        let replayed = ready
            .as_ref()
            .is_some_and(|output| self.session.replayed.contains(&output.store_name()));
        if served {
            self.result.served += 1;
        } else if !replayed {
            self.result.compiled += 1;
        }
        if plan.resolution.namings[index].as_ref() != Some(&found.naming) {
            self.store.add_naming(&found.naming)?;
            plan.resolution.namings[index] = Some(found.naming.clone());
            self.result.named += 1;
        }
        if ready.is_some() && (served || replayed) {
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
        let taking = collect::Taking {
            context: self.context,
            inspector: self.inspector,
            digests: &self.digests,
        };
        match taking.collect(plan, found, references) {
            Ok(collected) => self.keep(plan, found, collected, ready.as_deref(), state),
            Err(collect::Unfit(reason)) => {
                self.leave(plan, index, &reason);
                Ok(())
            }
        }
    }

    fn keep(
        &mut self,
        plan: &mut Plan,
        found: &Found<'_>,
        collected: collect::Collected,
        ready: Option<&Output>,
        state: &mut State,
    ) -> Result<(), StoreError> {
        if let Some(ready) = ready {
            // Cargo did again what the store has. The store's stays; what
            // depends on this one is taken only if the two are the same.
            if !same_content(ready, collected.output()) {
                self.differing.insert(found.index);
            }
            state.units.remove(&found.paths.name);
            return Ok(());
        }
        let (output, added) = unit::add(self.context, plan, self.store, found, collected, state)?;
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
        self.result.left.push((index, reason.to_owned()));
    }
}

/// Whether two outputs hold the same bytes, messages aside.
fn same_content(a: &Output, b: &Output) -> bool {
    let digests = |output: &Output| -> Vec<_> {
        let files = output.files.iter();
        let files = files.filter(|file| !matches!(file.role, Role::Diagnostics | Role::Stderr));
        files
            .map(|file| (file.role, file.name.clone(), file.sha256))
            .collect()
    };
    digests(a) == digests(b)
}
