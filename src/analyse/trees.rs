//! A hash for each package of a lock file that covers all below it.

use std::collections::HashMap;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::cargo::index_cache::IndexCache;
use crate::cargo::lock_graph::{LockGraph, LockedPackage};
use crate::cargo::source::{CRATES_IO, PackageSource};
use crate::digest::{Canonical, TreeHash};

/// What one package of a lock file stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Position in the lock file.
    pub package: usize,
    /// Its hash.
    pub hash: TreeHash,
    /// Positions in the list of trees, each before this one.
    pub children: Vec<usize>,
}

/// Leaves out what is not needed on the index's platform, as far as the index is
/// at hand, and then what nothing needs any more. Says for how many packages the
/// index was at hand.
pub fn cut(lock: &mut LockGraph, index: &IndexCache) -> usize {
    let mut known = 0;
    let names: Vec<String> = lock
        .packages
        .iter()
        .map(|package| package.name.clone())
        .collect();
    for package in &mut lock.packages {
        if source(package) != CRATES_IO {
            continue;
        }
        if let Some(needed) = index.needed(&package.name, &package.version) {
            known += 1;
            package
                .dependencies
                .retain(|child| needed.contains(&names[*child]));
        }
    }
    sweep(lock);
    known
}

/// Leaves out what no folder needs.
pub fn sweep(lock: &mut LockGraph) {
    let folders = lock.packages.iter().enumerate();
    let folders = folders.filter(|(_, package)| package.source.is_none());
    let mut open: Vec<usize> = folders.map(|(position, _)| position).collect();
    // Without a folder nobody knows what the lock file is for.
    if open.is_empty() {
        return;
    }
    let mut needed = vec![false; lock.packages.len()];
    for folder in &open {
        needed[*folder] = true;
    }
    while let Some(package) = open.pop() {
        for child in &lock.packages[package].dependencies {
            if !std::mem::replace(&mut needed[*child], true) {
                open.push(*child);
            }
        }
    }
    let mut places = vec![0; needed.len()];
    let mut next = 0;
    for (place, needed) in places.iter_mut().zip(&needed) {
        *place = next;
        next += usize::from(*needed);
    }
    let mut keep = needed.iter();
    lock.packages
        .retain(|_| keep.next().copied().unwrap_or(true));
    for package in &mut lock.packages {
        for child in &mut package.dependencies {
            *child = places[*child];
        }
    }
}

/// The trees that others could have as well, dependencies first: those in which
/// nothing is a folder.
///
/// Packages that need each other, which happens where tests of one need the
/// other, have one hash for all of them as their children's; each then adds
/// itself, and none of them is a child of another.
pub fn trees(lock: &LockGraph) -> Vec<Tree> {
    let mut graph = DiGraph::<(), ()>::with_capacity(lock.packages.len(), 0);
    for _ in &lock.packages {
        graph.add_node(());
    }
    for (position, package) in lock.packages.iter().enumerate() {
        for child in &package.dependencies {
            graph.add_edge(NodeIndex::new(position), NodeIndex::new(*child), ());
        }
    }
    let mut trees: Vec<Tree> = Vec::new();
    let mut places: HashMap<usize, usize> = HashMap::new();
    let mut component_of = vec![usize::MAX; lock.packages.len()];
    // Dependencies come first in this order. Nothing recurs, so that no chain is
    // too long for a thread's stack.
    for (number, component) in kosaraju_scc(&graph).into_iter().enumerate() {
        let members: Vec<usize> = component.iter().map(|node| node.index()).collect();
        for member in &members {
            component_of[*member] = number;
        }
        let shareable = members.iter().all(|member| {
            let package = &lock.packages[*member];
            package.source.is_some()
                && package
                    .dependencies
                    .iter()
                    .all(|child| component_of[*child] == number || places.contains_key(child))
        });
        if !shareable {
            continue;
        }
        let together = (members.len() > 1).then(|| together(lock, &members, &places, &trees));
        let made = members.iter().map(|member| {
            let package = &lock.packages[*member];
            let known = package.dependencies.iter().filter_map(|c| places.get(c));
            let children: Vec<usize> = known.copied().collect();
            let hashes = children.iter().map(|child| trees[*child].hash);
            Tree {
                package: *member,
                hash: hash(package, hashes.chain(together)),
                children,
            }
        });
        let made: Vec<Tree> = made.collect();
        for tree in made {
            places.insert(tree.package, trees.len());
            trees.push(tree);
        }
    }
    trees
}

/// A hash of packages that need each other and of what they need.
fn together(
    lock: &LockGraph,
    members: &[usize],
    places: &HashMap<usize, usize>,
    trees: &[Tree],
) -> TreeHash {
    let alone = members.iter().map(|member| {
        let package = &lock.packages[*member];
        let known = package.dependencies.iter().filter_map(|c| places.get(c));
        hash(package, known.map(|child| trees[*child].hash))
    });
    let mut alone: Vec<TreeHash> = alone.collect();
    alone.sort_unstable();
    let mut canonical = Canonical::new("quickbuild-trees-1");
    for hash in alone {
        canonical.bytes(hash.as_bytes());
    }
    TreeHash::finish(canonical)
}

fn hash(package: &LockedPackage, children: impl Iterator<Item = TreeHash>) -> TreeHash {
    let mut children: Vec<TreeHash> = children.collect();
    children.sort_unstable();
    let mut canonical = Canonical::new("quickbuild-tree-1");
    canonical
        .text(&package.name)
        .text(&package.version)
        .text(source(package));
    for child in children {
        canonical.bytes(child.as_bytes());
    }
    TreeHash::finish(canonical)
}

/// crates.io has two spellings.
pub fn source(package: &LockedPackage) -> &str {
    let text = package.source.as_deref().unwrap_or_default();
    match PackageSource::parse(text) {
        Some(PackageSource::CratesIo) => CRATES_IO,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_may_be_long_and_a_ring_large() {
        let package = |position: usize, next: usize| LockedPackage {
            name: format!("p{position}"),
            version: "1.0.0".to_owned(),
            source: Some(CRATES_IO.to_owned()),
            dependencies: vec![next],
        };
        const LENGTH: usize = 200_000;
        let mut packages: Vec<_> = (0..LENGTH).map(|p| package(p, p + 1)).collect();
        packages[LENGTH - 1].dependencies.clear();
        let mut lock = LockGraph { packages };
        let found = trees(&lock);
        assert_eq!((found.len(), found[0].package), (LENGTH, LENGTH - 1));
        lock.packages[LENGTH - 1].dependencies = vec![0];
        assert_eq!(trees(&lock).len(), LENGTH);
    }

    fn lock(packages: &[(&str, &str, &[usize])]) -> LockGraph {
        let package = |(name, source, dependencies): &(&str, &str, &[usize])| LockedPackage {
            name: (*name).to_owned(),
            version: "1.0.0".to_owned(),
            source: (!source.is_empty()).then(|| (*source).to_owned()),
            dependencies: dependencies.to_vec(),
        };
        LockGraph {
            packages: packages.iter().map(package).collect(),
        }
    }

    fn hashes(lock: &LockGraph) -> Vec<(String, TreeHash)> {
        let named = |tree: Tree| (lock.packages[tree.package].name.clone(), tree.hash);
        let mut hashes: Vec<(String, TreeHash)> = trees(lock).into_iter().map(named).collect();
        hashes.sort();
        hashes
    }

    #[test]
    fn a_hash_covers_all_below_and_nothing_else() {
        let one = lock(&[
            ("a", CRATES_IO, &[1]),
            ("b", CRATES_IO, &[2]),
            ("c", CRATES_IO, &[]),
            ("app", "", &[0]),
        ]);
        let reordered = lock(&[
            ("app", "", &[3, 1]),
            ("c", "sparse+https://index.crates.io/", &[]),
            ("b", CRATES_IO, &[1]),
            ("a", CRATES_IO, &[2]),
        ]);
        assert_eq!(hashes(&one), hashes(&reordered));
        assert_eq!(hashes(&one).len(), 3);
        let mut other = one.clone();
        other.packages[2].version = "1.0.1".to_owned();
        let pairs = hashes(&one).into_iter().zip(hashes(&other));
        assert!(pairs.into_iter().all(|(one, other)| one != other));
    }

    #[test]
    fn a_tree_with_a_folder_is_nobody_elses() {
        let patched = lock(&[
            ("a", CRATES_IO, &[1]),
            ("b", "", &[]),
            ("c", CRATES_IO, &[]),
        ]);
        let names: Vec<String> = hashes(&patched).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["c"]);
    }

    #[test]
    fn packages_that_need_each_other_have_hashes_of_their_own() {
        let round = |first: usize| {
            let mut packages = vec![
                ("a", CRATES_IO, &[1, 2][..]),
                ("b", CRATES_IO, &[0][..]),
                ("c", CRATES_IO, &[][..]),
            ];
            if first == 1 {
                packages = vec![
                    ("b", CRATES_IO, &[2][..]),
                    ("c", CRATES_IO, &[][..]),
                    ("a", CRATES_IO, &[0, 1][..]),
                ];
            }
            lock(&packages)
        };
        assert_eq!(hashes(&round(0)), hashes(&round(1)));
        assert_eq!(hashes(&round(0)).len(), 3);
        let mut other = round(0);
        other.packages[2].version = "2.0.0".to_owned();
        assert_ne!(hashes(&round(0))[1], hashes(&other)[1]);
    }
}
