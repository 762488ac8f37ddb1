//! Which entries of a document may be used here.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

use super::Result;
use super::round::{Others, signers};
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
        // What refers to something refused is no news, and neither is what the
        // user does not want.
        self.messages_but(place, &[Objection::Reference, Objection::Runs])
    }

    /// All there is to know.
    pub(super) fn all_messages(&self, place: &str) -> Vec<String> {
        self.messages_but(place, &[])
    }

    fn messages_but(&self, place: &str, quiet: &[Objection]) -> Vec<String> {
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
        let is_told = |why: &Objection| *why != Objection::Conflict && !quiet.contains(why);
        let refused = self.refused.iter().filter(|(why, _)| is_told(why));
        messages.extend(
            refused.map(|(why, count)| format!("{count} outputs of `{place}` are refused: {why}")),
        );
        messages
    }

    /// All entries that may be used, dependencies first.
    pub(super) fn into_entries(mut self) -> Vec<Entry> {
        let order = self.order.iter();
        order.filter_map(|id| self.accepted.remove(id)).collect()
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
    others: &Others<'_>,
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
        let Some(mut entry) = entries.remove(&id) else {
            continue;
        };
        let from = (substituter, others);
        match objection(&here, from, &mut entry, &mut contents, &refused) {
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
    (substituter, others): (&Substituter, &Others<'_>),
    entry: &mut Entry,
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
    let mut elsewhere = Vec::new();
    if policy.asks_for_several() {
        elsewhere = others.signatures(entry, &claim.message());
    }
    entry.add_signatures(&elsewhere);
    if let Some(objection) = policy.objection(entry, &claim, &signers(&elsewhere)) {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::SubstituterSettings;
    use crate::environment::Environment;
    use crate::output::output_id;
    use crate::output::samples::full;
    use crate::substituter::ArchiveRef;
    use crate::trust::{SecretKey, Signatures};

    fn output(name: &str, references: &[&Output]) -> Output {
        let mut output = full();
        output.name = name.to_owned();
        output.inputs.env = vec![(name.to_owned(), None)];
        output.references = references.iter().map(|output| output.id).collect();
        output.files.clear();
        output.id = output_id(
            output.key,
            &output.inputs,
            &output.references,
            &output.builder,
        );
        output
    }

    fn entry(output: &Output) -> Entry {
        Entry {
            output: output.clone(),
            archive: ArchiveRef {
                sha256: ContentHash::of(b""),
                size: 1,
            },
            signatures: None,
            provenance: None,
        }
    }

    fn document(entries: &[Entry]) -> Document {
        let entries = entries.iter().map(|entry| (entry.output.id, entry.clone()));
        Document {
            outputs: entries.collect(),
            ..Document::default()
        }
    }

    fn substituter(keys: &[&SecretKey]) -> Substituter {
        let keys = keys.iter().map(|key| key.public().to_string()).collect();
        let settings = SubstituterSettings::new("/nowhere", Path::new("/"), keys);
        Substituter::open(&settings, &Environment::default()).unwrap()
    }

    fn names(judged: &Judged) -> Vec<&str> {
        let accepted = judged.order.iter();
        let accepted = accepted.filter_map(|id| judged.accepted.get(id));
        accepted.map(|entry| entry.output.name.as_str()).collect()
    }

    /// An empty store.
    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn a_hole_takes_all_above_it() {
        let (_folder, store) = store();
        let base = output("base", &[]);
        let middle = output("middle", &[&base]);
        let top = output("top", &[&middle, &base]);
        let apart = output("apart", &[]);
        let all = [&top, &apart, &middle, &base].map(entry);
        let unsigned = substituter(&[]);
        let judged = judge(&store, &unsigned, &Others::none(), document(&all)).unwrap();
        assert_eq!(judged.accepted.len(), 4);
        let order = names(&judged);
        let place = |name| order.iter().position(|found| *found == name).unwrap();
        assert!(place("base") < place("middle") && place("middle") < place("top"));
        let wanted = BTreeSet::from([middle.id]);
        let closure = judged.closure(&wanted);
        let closure: Vec<&str> = closure.iter().map(|e| e.output.name.as_str()).collect();
        assert_eq!(closure, ["base", "middle"]);

        let judged = judge(&store, &unsigned, &Others::none(), document(&all[..3])).unwrap();
        assert_eq!(names(&judged), ["apart"]);
        assert_eq!(judged.refused[&Objection::Reference], 2);
    }

    #[test]
    fn what_is_here_with_another_content_is_a_conflict() {
        let (_folder, store) = store();
        let base = output("base", &[]);
        let top = output("top", &[&base]);
        store.add(&base, &[]).unwrap();
        let unsigned = substituter(&[]);
        let same = judge(
            &store,
            &unsigned,
            &Others::none(),
            document(&[entry(&base), entry(&top)]),
        )
        .unwrap();
        assert_eq!(names(&same), ["top"]);
        assert_eq!(same.messages("p"), [""; 0]);
        // Without signatures, nothing says that these belong together.
        let alone = judge(&store, &unsigned, &Others::none(), document(&[entry(&top)])).unwrap();
        assert_eq!(names(&alone), [""; 0]);

        let mut other = base.clone();
        other.timed = !other.timed;
        let judged = judge(
            &store,
            &unsigned,
            &Others::none(),
            document(&[entry(&other), entry(&top)]),
        )
        .unwrap();
        assert_eq!(names(&judged), [""; 0]);
        let messages = judged.messages("p");
        assert_eq!(messages.len(), 1, "{messages:?}");
        assert!(messages[0].contains("CONFLICT"), "{messages:?}");
    }

    #[test]
    fn a_signature_is_for_the_references_that_are_here() {
        let key = SecretKey::generate("a-1".parse().unwrap()).unwrap();
        let base = output("base", &[]);
        let top = output("top", &[&base]);
        let signed = |output: &Output, below: &Output| {
            let claim = Claim::of(output, |_| Some(below.content_hash())).unwrap();
            Entry {
                signatures: Some(Signatures::new(key.sign(&claim.message()))),
                ..entry(output)
            }
        };
        let trusting = substituter(&[&key]);
        let (_folder, store) = store();
        store.add(&base, &[]).unwrap();
        let good = document(&[signed(&top, &base)]);
        let judged = judge(&store, &trusting, &Others::none(), good).unwrap();
        assert_eq!(names(&judged), ["top"]);
        let mut other = base.clone();
        other.timed = !other.timed;
        let bad = document(&[signed(&top, &other)]);
        let judged = judge(&store, &trusting, &Others::none(), bad).unwrap();
        assert_eq!(judged.refused[&Objection::Invalid], 1);
        let said = judged.messages("p");
        assert_eq!(said, ["1 outputs of `p` are refused: not what was signed"]);
    }
}
