//! Which entries of a document may be used here.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

use super::Result;
use crate::digest::{ContentHash, OutputId, UnitKey};
use crate::output::{Claim, Maker, Naming, Output};
use crate::store::Store;
use crate::substituter::{Document, Entry, Objection, Substituter, archive};

/// Entries that are verified as far as that goes without their files.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Those that the store lacks and that may be used.
    pub(super) accepted: BTreeMap<OutputId, Entry>,
    /// Their ids, dependencies first.
    order: Vec<OutputId>,
    /// How Cargo names units.
    pub(super) namings: BTreeMap<UnitKey, Naming>,
    /// How many were refused, and why.
    refused: BTreeMap<Objection, usize>,
    /// Outputs that are here with another content.
    conflicts: Vec<String>,
}

impl Judged {
    /// What the user should know.
    pub(super) fn messages(&self, place: &str) -> Vec<String> {
        let mut messages: Vec<String> = self
            .conflicts
            .iter()
            .map(|name| {
                format!(
                    "CONFLICT: `{place}` has another content for `{name}` than the store; \
                     the store's stays, and one of the two was not made as it should be"
                )
            })
            .collect();
        // What refers to something refused is no news, and neither is what the
        // user does not want.
        let quiet = [Objection::Reference, Objection::Runs, Objection::Conflict];
        let refused = self.refused.iter().filter(|(why, _)| !quiet.contains(why));
        messages.extend(
            refused.map(|(why, count)| format!("{count} outputs of `{place}` are refused: {why}")),
        );
        messages
    }

    /// These outputs and all they refer to, as far as the store lacks them,
    /// dependencies first.
    pub(super) fn closure(&self, wanted: &BTreeSet<OutputId>) -> Vec<&Entry> {
        let mut found = BTreeSet::new();
        let mut open: Vec<OutputId> = wanted.iter().copied().collect();
        while let Some(id) = open.pop() {
            if let Some(entry) = self.accepted.get(&id)
                && found.insert(id)
            {
                open.extend(&entry.output.references);
            }
        }
        let order = self.order.iter().filter(|id| found.contains(id));
        order.filter_map(|id| self.accepted.get(id)).collect()
    }
}

/// The outputs of the store, as far as they can be used.
struct Here<'a> {
    store: &'a Store,
    names: BTreeMap<OutputId, String>,
}

impl Here<'_> {
    fn output(&self, id: OutputId) -> Option<Output> {
        let output = self.store.output(self.names.get(&id)?)?;
        // A program that was taken unread is read now: only then can it be
        // compared.
        let output = self.store.settle(output).ok()?;
        self.store.is_usable(&output).then_some(output)
    }
}

/// Judges all entries of a document, dependencies first.
pub(super) fn judge(
    store: &Store,
    substituter: &Substituter,
    document: Document,
) -> Result<Judged> {
    let here = Here {
        store,
        names: store.names_by_id()?,
    };
    let mut judged = Judged {
        order: dependencies_first(&document.outputs),
        namings: document.namings,
        ..Judged::default()
    };
    let mut entries = document.outputs;
    // The content of all that may be referred to: accepted, or here as well.
    let mut contents: BTreeMap<OutputId, ContentHash> = BTreeMap::new();
    let mut refused: BTreeSet<OutputId> = BTreeSet::new();
    for id in judged.order.clone() {
        let Some(entry) = entries.remove(&id) else {
            continue;
        };
        match objection(&here, substituter, &entry, &mut contents, &refused) {
            Ok(Standing::Here) => {}
            Ok(Standing::New) => {
                contents.insert(id, entry.output.content_hash());
                judged.accepted.insert(id, entry);
            }
            Err(objection) => {
                refused.insert(id);
                // Two local compilations of one id are alike only by chance.
                if objection == Objection::Conflict && entry.output.builder != Maker::Local {
                    judged.conflicts.push(entry.output.store_name());
                }
                *judged.refused.entry(objection).or_default() += 1;
            }
        }
    }
    // What refers to itself, however far around.
    let circular = entries.len();
    if circular > 0 {
        *judged.refused.entry(Objection::Reference).or_default() += circular;
    }
    Ok(judged)
}

/// Whether an entry that may be used is needed at all.
enum Standing {
    /// The store has it.
    Here,
    /// It can be fetched.
    New,
}

fn objection(
    here: &Here<'_>,
    substituter: &Substituter,
    entry: &Entry,
    contents: &mut BTreeMap<OutputId, ContentHash>,
    refused: &BTreeSet<OutputId>,
) -> std::result::Result<Standing, Objection> {
    let policy = substituter.policy();
    let own = here.output(entry.output.id);
    if let Some(own) = &own {
        let content = own.content_hash();
        if content != entry.output.content_hash() {
            return Err(Objection::Conflict);
        }
        contents.insert(own.id, content);
        return Ok(Standing::Here);
    }
    for id in &entry.output.references {
        if refused.contains(id) {
            return Err(Objection::Reference);
        }
        // Without a signature only the place itself says what belongs together.
        if !contents.contains_key(id)
            && !policy.is_unsigned()
            && let Some(own) = here.output(*id)
        {
            contents.insert(*id, own.content_hash());
        }
    }
    let content_of = |id: OutputId| contents.get(&id).copied();
    let claim = Claim::of(&entry.output, content_of).map_err(|_missing| Objection::Reference)?;
    if let Some(objection) = policy.objection(entry, &claim) {
        return Err(objection);
    }
    if !archive::is_plausible(&entry.output, entry.archive) {
        return Err(Objection::Implausible);
    }
    Ok(Standing::New)
}

/// Ids in an order in which what an output refers to comes before it; what is in
/// a circle is left out.
fn dependencies_first(entries: &BTreeMap<OutputId, Entry>) -> Vec<OutputId> {
    let ids: Vec<OutputId> = entries.keys().copied().collect();
    let numbers: BTreeMap<OutputId, usize> = ids
        .iter()
        .enumerate()
        .map(|(number, id)| (*id, number))
        .collect();
    let mut graph: DiGraph<(), (), usize> = DiGraph::default();
    for _ in &ids {
        graph.add_node(());
    }
    for (number, entry) in entries.values().enumerate() {
        for id in &entry.output.references {
            if let Some(&reference) = numbers.get(id) {
                graph.add_edge(NodeIndex::new(reference), NodeIndex::new(number), ());
            }
        }
    }
    // An id is a hash of those it refers to, so nobody can make a circle.
    let sorted = toposort(&graph, None).unwrap_or_default();
    sorted.into_iter().map(|node| ids[node.index()]).collect()
}
