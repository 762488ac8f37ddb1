//! The collector: takes outputs that nobody needs, the least recently used
//! first; and the sums for `store du`.
//!
//! `choose` decides over plain data. What it holds to:
//! * Nothing that a root reaches is taken, and nothing used within the hour.
//! * An output counts as used when anything that refers to it was used. So a
//!   dependency never goes before its dependants, and what stays is closed.
//!
//! A kill at any point leaves a sound store: dependants go first, and an index
//! line without a path is passed over by readers and dropped by the next run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::replace;
use std::path::{Path, PathBuf};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::attached::{ORIGIN, PROVENANCE, SIGNATURES};
use super::{FORMAT, Result, Root, Store, StoreError, is_store_name};
use crate::digest::OutputId;
use crate::fs::{self, Lock, Stamp};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// What may stay.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of files above which the least recently used outputs are taken.
    pub max_size: u64,
    /// Seconds without use after which an output is taken in any case.
    pub older_than: Option<u64>,
    /// Whether to remove or to tell only.
    pub run: Run,
}

/// Whether anything is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// What is taken is removed.
    Real,
    /// The report tells what would be removed.
    Dry,
}

/// A number of outputs and their files' bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What the collector did, or would do.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Outputs that stay, the rooted ones included.
    pub kept: Amount,
    /// Outputs that a target directory links, and what they refer to.
    pub rooted: Amount,
    /// Outputs and broken paths that were taken.
    pub taken: Amount,
    /// Bytes that the device gets back: none for a file that a target
    /// directory shares, but also those of leftovers.
    pub freed: u64,
    /// Names of what was taken, dependants before dependencies.
    pub names: Vec<String>,
}

/// Takes what [`Limits`] and the roots allow; an absent store is an empty one.
///
/// Fails with [`StoreError::Busy`] while anybody has the store open, the
/// caller included.
pub fn collect(root: &Path, limits: Limits) -> Result<Report> {
    let Some(store) = open_alone(root)? else {
        return Ok(Report::default());
    };
    let now = fs::now().seconds();
    let (linked, gone) = read_roots(&store)?;
    let (readable, broken): (Vec<_>, Vec<_>) = survey(&store)?
        .into_iter()
        .partition(|path| path.manifest.is_some());
    let choice = choose(&nodes(&readable, &linked), &limits, now);

    let mut report = Report::default();
    let mut living = BTreeSet::new();
    for (path, fate) in readable.iter().zip(&choice.fates) {
        match fate {
            Fate::Taken => continue, // below, in order
            Fate::Rooted => report.rooted.add(path.size()),
            Fate::Recent | Fate::Kept => {}
        }
        report.kept.add(path.size());
        living.insert(path.name.as_str());
    }
    let mut taken: Vec<&StorePath> = choice.taken.iter().map(|&index| &readable[index]).collect();
    taken.extend(broken.iter().filter(|path| age(&path.folder, now) > HOUR));
    for path in &taken {
        report.taken.add(path.size());
        report.names.push(path.name.clone());
    }
    let mut others = stale_files(&store, now)?;
    others.extend(gone);
    let mut files: Vec<Occupied> = taken.iter().flat_map(|path| path.files.clone()).collect();
    for path in &others {
        files.extend(occupied(path)?);
    }
    report.freed = Tally::of(&files).values().map(Tally::freed).sum();

    if limits.run == Run::Real {
        for path in taken {
            if path.manifest.is_some() {
                store.discard(&path.name)?;
            } else {
                remove(&path.folder)?;
            }
        }
        for path in others {
            remove(&path)?;
        }
        prune_index(&store, &living)?;
    }
    Ok(report)
}

/// Opens a store for this process alone, waiting for nobody; `None` if there
/// is no store.
pub(super) fn open_alone(root: &Path) -> Result<Option<Store>> {
    let Some(found) = fs::read_optional(&root.join("format"))? else {
        return Ok(None);
    };
    let found = String::from_utf8_lossy(&found).trim().to_owned();
    let path = root.to_owned();
    if found != FORMAT.to_string() {
        return Err(StoreError::Format { path, found });
    }
    let Some(lock) = Lock::try_exclusive(&root.join("locks/store"))? else {
        return Err(StoreError::Busy { path });
    };
    Ok(Some(Store {
        root: path,
        writable: true,
        _lock: Some(lock),
    }))
}

/// An output as the decision sees it.
#[derive(Debug, Clone)]
struct Node {
    size: u64,
    /// Seconds since 1970.
    last_use: i64,
    /// Numbers of other nodes.
    references: Vec<usize>,
    /// Whether a root names it.
    rooted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Rooted,
    Recent,
    Kept,
    Taken,
}

struct Choice {
    fates: Vec<Fate>,
    /// In the order in which to remove.
    taken: Vec<usize>,
}

/// Decides what is taken.
fn choose(nodes: &[Node], limits: &Limits, now: i64) -> Choice {
    let mut rooted = vec![false; nodes.len()];
    for start in (0..nodes.len()).filter(|&index| nodes[index].rooted) {
        reach(nodes, start, |index| !replace(&mut rooted[index], true));
    }
    let last_use = effective_last_use(nodes);
    let sizes = nodes.iter().map(|node| node.size);
    let mut total = sizes.fold(0, u64::saturating_add);
    let mut choice = Choice {
        fates: vec![Fate::Kept; nodes.len()],
        taken: Vec::new(),
    };
    for group in groups(nodes, &last_use) {
        let age = now.saturating_sub(last_use[group[0]]);
        let seconds = u64::try_from(age).unwrap_or(0);
        let old = limits.older_than.is_some_and(|limit| seconds > limit);
        let fate = if rooted[group[0]] {
            Fate::Rooted
        } else if age <= HOUR {
            Fate::Recent
        } else if old || total > limits.max_size {
            Fate::Taken
        } else {
            Fate::Kept
        };
        for index in group {
            choice.fates[index] = fate;
            if fate == Fate::Taken {
                total = total.saturating_sub(nodes[index].size);
                choice.taken.push(index);
            }
        }
    }
    choice
}

/// Walks along references for as long as `enter` says that a node is new.
fn reach(nodes: &[Node], start: usize, mut enter: impl FnMut(usize) -> bool) {
    let mut open = vec![start];
    while let Some(index) = open.pop() {
        if enter(index) {
            open.extend(&nodes[index].references);
        }
    }
}

/// The last use of each node or of anything that refers to it.
fn effective_last_use(nodes: &[Node]) -> Vec<i64> {
    let mut last_use: Vec<i64> = nodes.iter().map(|node| node.last_use).collect();
    let mut latest_first: Vec<usize> = (0..nodes.len()).collect();
    latest_first.sort_by_key(|&index| Reverse(nodes[index].last_use));
    let mut seen = vec![false; nodes.len()];
    for start in latest_first {
        reach(nodes, start, |index| {
            let new = !replace(&mut seen[index], true);
            if new {
                last_use[index] = nodes[start].last_use;
            }
            new
        });
    }
    last_use
}

/// All nodes, the least recently used first and dependants before their
/// dependencies. A group is one node: ids are hashes of what they refer to, so
/// only damage makes a cycle, which then goes or stays as a whole.
fn groups(nodes: &[Node], last_use: &[i64]) -> Vec<Vec<usize>> {
    let mut graph: DiGraph<(), (), usize> = DiGraph::default();
    for _ in nodes {
        graph.add_node(());
    }
    for (from, node) in nodes.iter().enumerate() {
        for &to in &node.references {
            graph.add_edge(NodeIndex::new(from), NodeIndex::new(to), ());
        }
    }
    let components = kosaraju_scc(&graph).into_iter().rev(); // it has dependencies first
    let groups = components.map(|group| group.into_iter().map(NodeIndex::index).collect());
    let mut groups: Vec<Vec<usize>> = groups.collect();
    groups.sort_by_key(|group| last_use[group[0]]);
    groups
}

/// What is read of a manifest here. Later formats may change the rest without
/// their outputs looking broken to an older collector.
#[derive(Deserialize)]
struct Manifest {
    name: String,
    references: Vec<OutputId>,
}

/// An entry of `paths/`.
struct StorePath {
    folder: PathBuf,
    name: String,
    id: Option<OutputId>,
    /// `None` makes it a broken path.
    manifest: Option<Manifest>,
    /// Seconds since 1970.
    last_use: i64,
    files: Vec<Occupied>,
}

impl StorePath {
    fn read(folder: PathBuf) -> Result<Self> {
        let name = folder.file_name().unwrap_or_default();
        let id = name.to_str().filter(|name| is_store_name(name));
        let id = id.and_then(|name| name.split('-').next()?.parse().ok());
        let file = folder.join("manifest.json");
        // Unreadable is as good as absent: nobody can use such a path.
        let manifest = fs::read(&file).ok().filter(|_| id.is_some());
        Ok(Self {
            manifest: manifest.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            last_use: Stamp::of(&file).map_or(0, |stamp| stamp.mtime.seconds()),
            files: occupied(&folder)?,
            name: name.to_string_lossy().into_owned(),
            id,
            folder,
        })
    }

    /// Bytes of its files.
    fn size(&self) -> u64 {
        let sizes = self.files.iter().map(|file| file.size);
        sizes.fold(0, u64::saturating_add) // a sparse file may claim anything
    }
}

fn survey(store: &Store) -> Result<Vec<StorePath>> {
    let folders = fs::list(&store.root.join("paths"))?;
    folders.into_par_iter().map(StorePath::read).collect()
}

fn nodes(paths: &[StorePath], linked: &BTreeSet<OutputId>) -> Vec<Node> {
    let mut numbers: BTreeMap<OutputId, Vec<usize>> = BTreeMap::new();
    for (number, path) in paths.iter().enumerate() {
        if let Some(id) = path.id {
            numbers.entry(id).or_default().push(number);
        }
    }
    let nodes = paths.iter().map(|path| {
        let manifest = path.manifest.iter();
        let references = manifest.flat_map(|manifest| &manifest.references);
        let references = references.filter_map(|id| numbers.get(id));
        Node {
            size: path.size(),
            last_use: path.last_use,
            references: references.flatten().copied().collect(),
            rooted: path.id.is_some_and(|id| linked.contains(&id)),
        }
    });
    nodes.collect()
}

/// The outputs that living target directories link, and the files of roots
/// that are not worth keeping: of targets that are gone, or damaged. Whoever
/// links into a target again writes its root again.
fn read_roots(store: &Store) -> Result<(BTreeSet<OutputId>, Vec<PathBuf>)> {
    let mut linked = BTreeSet::new();
    let mut gone = Vec::new();
    for file in fs::list(&store.root.join("roots"))? {
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match serde_json::from_slice::<Root>(&fs::read(&file)?) {
            // A target that cannot be looked at counts as living.
            Ok(root) if !matches!(root.target.try_exists(), Ok(false)) => {
                linked.extend(root.outputs);
            }
            _ => gone.push(file),
        }
    }
    Ok((linked, gone))
}

/// Leftovers of whoever was killed, and answers and namings long unused.
fn stale_files(store: &Store, now: i64) -> Result<Vec<PathBuf>> {
    let folders = [
        ("tmp", HOUR),
        ("trash", HOUR),
        ("cache", 30 * DAY),
        ("units", 90 * DAY),
        ("index", i64::MAX),
        ("roots", i64::MAX),
    ];
    let mut stale = Vec::new();
    for (folder, limit) in folders {
        for path in fs::list(&store.root.join(folder))? {
            // `write_atomic` gives what it has not renamed yet this ending.
            let unfinished = path.extension().is_some_and(|extension| extension == "tmp");
            if age(&path, now) > if unfinished { HOUR } else { limit } {
                stale.push(path);
            }
        }
    }
    Ok(stale)
}

/// Seconds since the last change.
fn age(path: &Path, now: i64) -> i64 {
    let changed = Stamp::of(path).map_or(0, |stamp| stamp.mtime.seconds());
    now.saturating_sub(changed)
}

fn remove(path: &Path) -> fs::Result<()> {
    if path.is_dir() && !fs::is_symlink(path) {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

fn prune_index(store: &Store, living: &BTreeSet<&str>) -> Result<()> {
    for file in fs::list(&store.root.join("index"))? {
        if !file.is_file() || file.extension().is_some() {
            continue;
        }
        let bytes = fs::read(&file)?;
        let text = String::from_utf8_lossy(&bytes);
        let kept: Vec<&str> = text.lines().filter(|line| living.contains(line)).collect();
        if kept.is_empty() {
            fs::remove_file(&file)?;
        } else if kept.len() != text.lines().count() {
            fs::write_atomic(&file, format!("{}\n", kept.join("\n")).as_bytes())?;
        }
    }
    Ok(())
}

/// What a file occupies.
#[derive(Debug, Clone)]
struct Occupied {
    /// Bytes in it; none for a manifest and what is beside it, which are no
    /// files of their output.
    size: u64,
    /// Bytes on the device.
    disk: u64,
    links: u64,
    device: u64,
    inode: u64,
}

/// The files of a path; of a file, itself.
fn occupied(path: &Path) -> Result<Vec<Occupied>> {
    let files = if path.is_dir() && !fs::is_symlink(path) {
        fs::walk(path)?
    } else {
        vec![PathBuf::new()]
    };
    let files = files.into_iter().filter_map(|file| {
        let is_own = !is_beside(&file);
        let file = if file.as_os_str().is_empty() {
            path.to_owned()
        } else {
            path.join(file)
        };
        let (disk, links, device) = Stamp::usage(&file)?;
        let stamp = Stamp::of(&file)?;
        Some(Occupied {
            size: if is_own { stamp.size } else { 0 },
            disk,
            links,
            device,
            inode: stamp.inode,
        })
    });
    Ok(files.collect())
}

/// Whether a file of a path says something of its output.
fn is_beside(file: &Path) -> bool {
    ["manifest.json", SIGNATURES, PROVENANCE, ORIGIN]
        .iter()
        .any(|name| file == Path::new(name))
}

/// One inode among some files.
#[derive(Debug, Default)]
struct Tally {
    /// How many of the files it is.
    seen: u64,
    links: u64,
    disk: u64,
}

impl Tally {
    /// Tells files that are one from files that are several, by device and
    /// inode.
    fn of(files: &[Occupied]) -> BTreeMap<(u64, u64), Self> {
        let mut tallies: BTreeMap<_, Self> = BTreeMap::new();
        for file in files {
            let tally = tallies.entry((file.device, file.inode)).or_default();
            tally.seen += 1;
            tally.links = file.links;
            tally.disk = file.disk;
        }
        tallies
    }

    /// Bytes that are given back when the files are removed.
    fn freed(&self) -> u64 {
        if self.links > self.seen { 0 } else { self.disk }
    }
}

/// What a store occupies.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Outputs, and broken paths, with the bytes of their files.
    pub total: Amount,
    /// Bytes on the device, manifests included and each inode counted once.
    pub disk: u64,
    /// Those of `disk` that target directories hold as well, by hardlinks.
    pub shared: u64,
    /// Outputs by package, the biggest first.
    pub packages: Vec<PackageUsage>,
}

/// What the outputs of a package occupy, all versions together.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct PackageUsage {
    /// Package name.
    pub name: String,
    /// Its outputs.
    pub amount: Amount,
}

/// Sums up what a store occupies.
pub fn usage(root: &Path) -> Result<Usage> {
    let store = Store::open(root)?;
    let mut usage = Usage::default();
    let mut packages: BTreeMap<String, Amount> = BTreeMap::new();
    let mut files = Vec::new();
    for path in survey(&store)? {
        usage.total.add(path.size());
        if let Some(manifest) = &path.manifest {
            let package = packages.entry(manifest.name.clone()).or_default();
            package.add(path.size());
        }
        files.extend(path.files);
    }
    for tally in Tally::of(&files).values() {
        usage.disk += tally.disk;
        usage.shared += tally.disk - tally.freed();
    }
    for (name, amount) in packages {
        usage.packages.push(PackageUsage { name, amount });
    }
    let packages = &mut usage.packages;
    packages.sort_by_key(|package| Reverse(package.amount.bytes));
    Ok(usage)
}

#[cfg(test)]
mod tests;
