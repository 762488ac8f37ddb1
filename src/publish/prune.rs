//! What is not wanted any more goes, from a substituter of one's own.
//!
//! Invariants:
//! * An output stays if one stays that refers to it, so what stays is whole.
//! * Closures go first, then recipes' documents, what refers to others first,
//!   then archives that no document names: whoever is killed leaves no document
//!   that names an absent archive.
//! * An archive that was put there less than a day ago stays: somebody may be
//!   about to name it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::place::Place;
use super::{PublishError, Result, is_named};
use crate::digest::{ContentHash, OutputId, RecipeHash};
use crate::fs::{self, Time};
use crate::substituter::backend::{Change, GRACE, Listed};
use crate::substituter::{Document, Entry, Question, Substituter, archive_path};

/// Documents that are looked at before others changed them for good.
const ATTEMPTS: u32 = 10;

/// What is to go.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// What was published longer ago than this.
    pub older_than: Option<Duration>,
    /// The oldest, until archives have no more bytes than this.
    pub max_size: Option<u64>,
    /// Packages, or beginnings of recipe hashes, that stay whatever their age.
    pub keep: Vec<String>,
}

/// Whether something is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Remove,
    /// It is only said what would be.
    DryRun,
}

/// What came of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Store names of outputs that are not published any more.
    pub outputs: Vec<String>,
    /// How many stay.
    pub kept: usize,
    /// Archives that are gone, and their bytes.
    pub archives: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Whether the host removes archives itself, some time later.
    pub by_host: bool,
}

/// A published output and when that was.
struct Published {
    entry: Entry,
    time: Time,
}

/// Removes what is to go.
pub fn prune(substituter: &Substituter, limits: &Limits, mode: Mode) -> Result<Pruned> {
    substituter.info(&substituter.info_bytes()?)?;
    let place = Place::open(substituter)?;
    let listed = list(&place, substituter)?;
    let documents = read_all(&place, &listed)?;
    let times: BTreeMap<&str, Time> = listed
        .iter()
        .filter_map(|file| Some((file.path.as_str(), file.modified?)))
        .collect();
    let mut published: BTreeMap<OutputId, Published> = BTreeMap::new();
    for (path, held) in &documents {
        if !matches!(Question::of(path), Some((Question::Recipes, _))) {
            continue;
        }
        for entry in held.document.outputs.values() {
            let of_archive = times.get(archive_path(entry.archive.sha256).as_str());
            let time = of_archive.copied().or(held.modified);
            let entry = entry.clone();
            // What nobody knows the age of is as young as can be.
            let time = time.unwrap_or_else(fs::now);
            published.insert(entry.output.id, Published { entry, time });
        }
    }
    let order = doomed(&published, limits);
    let gone: BTreeSet<OutputId> = order.iter().copied().collect();
    let mut pruned = Pruned {
        outputs: order
            .iter()
            .map(|id| published[id].entry.output.store_name())
            .collect(),
        kept: published.len() - order.len(),
        ..Pruned::default()
    };
    if mode == Mode::Remove && !gone.is_empty() {
        let stay = published.iter().filter(|(id, _)| !gone.contains(id));
        let stay: BTreeSet<RecipeHash> = stay.map(|(_, p)| p.entry.output.host_recipe).collect();
        let went = order
            .iter()
            .map(|id| published[id].entry.output.host_recipe);
        let went: BTreeSet<RecipeHash> = went.filter(|recipe| !stay.contains(recipe)).collect();
        place.take_stock(|known| known.retain(|recipe| !went.contains(&recipe)))?;
        withdraw(&place, &documents, &published, &order)?;
    }
    sweep(&place, substituter, (&gone, mode), &mut pruned)?;
    Ok(pruned)
}

fn list(place: &Place<'_>, substituter: &Substituter) -> Result<Vec<Listed>> {
    place
        .writer()
        .list()
        .map_err(|source| PublishError::Unlisted {
            place: substituter.place(),
            source,
        })
}

/// A document as it was read.
struct Read {
    document: Document,
    modified: Option<Time>,
}

fn read_all(place: &Place<'_>, listed: &[Listed]) -> Result<BTreeMap<String, Read>> {
    let paths = listed
        .iter()
        .filter(|file| Question::of(&file.path).is_some());
    let paths: Vec<&String> = paths.map(|file| &file.path).collect();
    let read = place.workers().each(&paths, |path| {
        let held = place.read(path)?;
        let document = place.document(path, held.as_ref())?;
        let modified = held.as_ref().and_then(|held| held.modified);
        let read = Read { document, modified };
        Ok::<_, PublishError>(((*path).clone(), read))
    })?;
    Ok(read.into_iter().collect())
}

/// What goes, in the order in which it does: what refers to others first.
///
/// An output counts as published when the last one was that refers to it, so the
/// oldest are those that nothing young needs.
fn doomed(published: &BTreeMap<OutputId, Published>, limits: &Limits) -> Vec<OutputId> {
    let mut times: BTreeMap<OutputId, Time> =
        published.iter().map(|(id, p)| (*id, p.time)).collect();
    let order = referring_first(published);
    for id in &order {
        let time = times[id];
        for reference in &published[id].entry.output.references {
            if let Some(known) = times.get_mut(reference) {
                *known = (*known).max(time);
            }
        }
    }
    let kept = kept(published, &limits.keep);
    let place: BTreeMap<OutputId, usize> =
        order.iter().enumerate().map(|(at, id)| (*id, at)).collect();
    let mut oldest: Vec<OutputId> = order.into_iter().filter(|id| !kept.contains(id)).collect();
    oldest.sort_by_key(|id| (times[id], place[id]));
    // Outputs with the same files have one archive.
    let mut uses: BTreeMap<ContentHash, (usize, u64)> = BTreeMap::new();
    for Published { entry, .. } in published.values() {
        let archive = entry.archive;
        uses.entry(archive.sha256).or_insert((0, archive.size)).0 += 1;
    }
    let mut size: u64 = uses.values().map(|(_, size)| size).sum();
    let limit = limits.max_size.unwrap_or(u64::MAX);
    let mut doomed = Vec::new();
    for id in oldest {
        let is_old = limits
            .older_than
            .is_some_and(|limit| times[&id].age().is_some_and(|age| age > limit));
        // Those that follow are younger, and what is left is small enough.
        if !is_old && size <= limit {
            break;
        }
        if let Some((count, bytes)) = uses.get_mut(&published[&id].entry.archive.sha256) {
            *count -= 1;
            if *count == 0 {
                size -= *bytes;
            }
        }
        doomed.push(id);
    }
    doomed
}

/// All outputs, what refers to others before those.
fn referring_first(published: &BTreeMap<OutputId, Published>) -> Vec<OutputId> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for &root in published.keys() {
        let mut open = vec![(root, false)];
        while let Some((id, is_done)) = open.pop() {
            let Some(output) = published.get(&id) else {
                continue;
            };
            if is_done {
                order.push(id);
            } else if seen.insert(id) {
                open.push((id, true));
                let references = &output.entry.output.references;
                open.extend(references.iter().map(|id| (*id, false)));
            }
        }
    }
    order.reverse();
    order
}

/// What is named to stay, with all it refers to.
fn kept(published: &BTreeMap<OutputId, Published>, names: &[String]) -> BTreeSet<OutputId> {
    let meant = published
        .values()
        .filter(|p| is_named(&p.entry.output, names));
    let mut open: Vec<OutputId> = meant.map(|p| p.entry.output.id).collect();
    let mut kept = BTreeSet::new();
    while let Some(id) = open.pop() {
        if kept.insert(id)
            && let Some(output) = published.get(&id)
        {
            open.extend(&output.entry.output.references);
        }
    }
    kept
}

/// Takes outputs out of all documents.
fn withdraw(
    place: &Place<'_>,
    documents: &BTreeMap<String, Read>,
    published: &BTreeMap<OutputId, Published>,
    order: &[OutputId],
) -> Result<()> {
    let gone: BTreeSet<OutputId> = order.iter().copied().collect();
    let closures = documents.iter().filter(|(path, read)| {
        let is_closure = matches!(Question::of(path), Some((Question::Closures, _)));
        is_closure && read.document.outputs.keys().any(|id| gone.contains(id))
    });
    let closures: Vec<&String> = closures.map(|(path, _)| path).collect();
    place
        .workers()
        .each(&closures, |path| take_out(place, path, &gone))?;
    let mut referring: BTreeMap<OutputId, Vec<OutputId>> = BTreeMap::new();
    let mut by_recipe: BTreeMap<RecipeHash, Vec<OutputId>> = BTreeMap::new();
    for &id in order {
        let output = &published[&id].entry.output;
        by_recipe.entry(output.host_recipe).or_default().push(id);
        for &reference in &output.references {
            referring.entry(reference).or_default().push(id);
        }
    }
    // One after the other: what refers to an output goes before it.
    let mut left = gone;
    for id in order {
        if !left.contains(id) {
            continue;
        }
        let recipe = published[id].entry.output.host_recipe;
        let is_free = |id: &&OutputId| {
            let mut others = referring.get(id).into_iter().flatten();
            left.contains(*id) && !others.any(|other| left.contains(other))
        };
        let free = by_recipe[&recipe].iter().filter(is_free);
        let free: BTreeSet<OutputId> = free.copied().collect();
        take_out(place, &Question::Recipes.path(recipe), &free)?;
        left.retain(|id| !free.contains(id));
    }
    Ok(())
}

/// Takes outputs out of one document, and removes it if nothing stays. A closure
/// without an output of its own recipe goes as a whole: nobody asks for it.
fn take_out(place: &Place<'_>, path: &str, gone: &BTreeSet<OutputId>) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let Some(held) = place.read(path)? else {
            return Ok(());
        };
        let before = place.document(path, Some(&held))?;
        let mut document = before.clone();
        document.outputs.retain(|id, _| !gone.contains(id));
        if document.outputs.len() == before.outputs.len() {
            return Ok(());
        }
        let of_recipe = Question::of(path).map(|(_, recipe)| recipe);
        let outputs = &document.outputs;
        let stays = outputs
            .values()
            .any(|entry| Some(entry.output.host_recipe) == of_recipe);
        let changed = if stays {
            place.write(path, &document, Some(&held.version))?
        } else {
            place.remove(path, Some(&held.version))?
        };
        if changed == Change::Done {
            return Ok(());
        }
    }
    Err(PublishError::Contended {
        path: path.to_owned(),
    })
}

/// Removes archives that no document names now. Documents are read once more:
/// somebody may have published meanwhile.
fn sweep(
    place: &Place<'_>,
    substituter: &Substituter,
    (gone, mode): (&BTreeSet<OutputId>, Mode),
    pruned: &mut Pruned,
) -> Result<()> {
    let listed = list(place, substituter)?;
    let mut named: BTreeSet<String> = BTreeSet::new();
    for read in read_all(place, &listed)?.into_values() {
        for entry in read.document.outputs.values() {
            // A dry run has left in place what would be gone now.
            if mode == Mode::Remove || !gone.contains(&entry.output.id) {
                named.insert(archive_path(entry.archive.sha256));
            }
        }
    }
    let archives: Vec<&Listed> = listed
        .iter()
        .filter(|file| file.path.starts_with("archives/"))
        .collect();
    pruned.by_host = archives.is_empty() && pruned.outputs.len() + pruned.kept > 0;
    let is_old = |file: &Listed| {
        let age = file.modified.and_then(Time::age);
        age.is_some_and(|age| age > GRACE)
    };
    let unnamed = archives
        .into_iter()
        .filter(|file| !named.contains(&file.path) && is_old(file));
    let unnamed: Vec<&Listed> = unnamed.collect();
    pruned.archives = unnamed.len();
    pruned.bytes = unnamed.iter().map(|file| file.size).sum();
    if mode == Mode::Remove {
        place
            .workers()
            .each(&unnamed, |file| place.remove(&file.path, None))?;
    }
    Ok(())
}
