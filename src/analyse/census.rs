//! Distinct trees of many projects, and who has them.

use std::collections::HashMap;
use std::path::PathBuf;

use rayon::prelude::*;

use super::projects::{self, Fault, Found};
use super::trees::{self, Tree};
use crate::cargo::index_cache::IndexCache;
use crate::cargo::lock_graph::LockGraph;
use crate::digest::{ContentHash, TreeHash};

/// Lock files that are in memory at a time.
const BATCH: usize = 256;

/// A name, a version and a source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it is from, as lock files spell it.
    pub source: String,
}

/// Position in [`Census::nodes`].
pub type NodeId = u32;

/// A package with the versions of all below it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its hash.
    pub hash: TreeHash,
    /// Position in [`Census::packages`].
    pub package: u32,
    /// What it needs, each before it in the census.
    pub children: Box<[NodeId]>,
    /// How many lock files have it.
    pub projects: u32,
    /// How many repositories.
    pub repositories: u32,
    /// The sum of the weights of those that have it, each repository's weight
    /// divided among its projects.
    pub weight: f64,
}

/// One lock file that was counted.
#[derive(Debug, Clone)]
pub struct Project {
    /// What it is called.
    pub name: String,
    /// Position in [`Census::repositories`].
    pub repository: u32,
    /// Packages in the lock file, without its own and other folders.
    pub packages: usize,
    /// What it counts for.
    pub weight: f64,
    /// Its trees, sorted.
    pub trees: Vec<NodeId>,
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Census {
    /// Distinct trees, dependencies first.
    pub nodes: Vec<Node>,
    /// Distinct packages.
    pub packages: Vec<Package>,
    /// Names of repositories.
    pub repositories: Vec<String>,
    /// In the order they were given.
    pub projects: Vec<Project>,
    /// Packages of all lock files of which it is known what they need on which
    /// platform.
    pub placed: usize,
}

/// What makes a project count more or less.
#[derive(Debug, Clone, Copy, Default)]
pub struct Freshness {
    /// Projects whose last change is before this day are left out; those
    /// without a date stay.
    pub since: Option<i64>,
    /// A project counts half as much for each so many days before the newest.
    pub half_life: Option<f64>,
}

impl Freshness {
    /// What a project counts, given the newest day of all; nothing if it is
    /// left out.
    fn weight(&self, day: Option<i64>, newest: Option<i64>) -> Option<f64> {
        let (Some(day), Some(newest)) = (day, newest) else {
            return Some(1.0);
        };
        if self.since.is_some_and(|since| day < since) {
            return None;
        }
        let age = (newest - day) as f64;
        Some(self.half_life.map_or(1.0, |days| 0.5_f64.powf(age / days)))
    }
}

impl Freshness {
    /// What each project counts that is not left out; a repository counts once,
    /// however many projects it has.
    pub fn weights<'f>(&self, found: &'f [Found]) -> Vec<(&'f Found, f64)> {
        let newest = found.iter().filter_map(|found| found.day).max();
        let chosen = found
            .iter()
            .filter_map(|found| Some((found, self.weight(found.day, newest)?)));
        let mut chosen: Vec<(&Found, f64)> = chosen.collect();
        let mut siblings: HashMap<&str, f64> = HashMap::new();
        for (found, _) in &chosen {
            *siblings.entry(&found.repository).or_default() += 1.0;
        }
        for (found, weight) in &mut chosen {
            *weight /= siblings[found.repository.as_str()];
        }
        chosen
    }
}

impl Census {
    /// Reads and counts lock files, sorted by repository as a search gives them.
    /// What cannot be read is named and passed over. With an index, packages
    /// that are not needed on its platform are left out.
    pub fn take(
        found: &[Found],
        freshness: Freshness,
        index: Option<&IndexCache>,
    ) -> (Self, Vec<(PathBuf, Fault)>) {
        let chosen = freshness.weights(found);
        let mut faults = Vec::new();
        let mut clerk = Clerk::default();
        for batch in chosen.chunks(BATCH) {
            let read = batch.par_iter().map(|(found, weight)| {
                let mut lock = projects::read(&found.path).map_err(|fault| (*found, fault))?;
                let placed = index.map_or(0, |index| trees::cut(&mut lock, index));
                let trees = trees::trees(&lock);
                Ok((*found, *weight, lock, trees, placed))
            });
            let read: Vec<Result<_, (&Found, Fault)>> = read.collect();
            for read in read {
                match read {
                    Ok((found, weight, lock, trees, placed)) => {
                        clerk.census.placed += placed;
                        clerk.enter(found, weight, lock, &trees);
                    }
                    Err((found, fault)) => faults.push((found.path.clone(), fault)),
                }
            }
        }
        (clerk.census, faults)
    }

    /// Counts lock files that are there, sorted by repository, each with what it
    /// counts.
    pub fn of(locks: Vec<(&Found, f64, LockGraph)>) -> Self {
        let mut clerk = Clerk::default();
        for (found, weight, lock) in locks {
            let trees = trees::trees(&lock);
            clerk.enter(found, weight, lock, &trees);
        }
        clerk.census
    }

    /// All below a tree, with it.
    pub fn closure(&self, root: NodeId) -> Vec<NodeId> {
        let mut seen = std::collections::HashSet::from([root]);
        let mut open = vec![root];
        let mut all = Vec::new();
        while let Some(node) = open.pop() {
            all.push(node);
            let children = self.nodes[node as usize].children.iter().copied();
            open.extend(children.filter(|child| seen.insert(*child)));
        }
        all.sort_unstable();
        all
    }

    /// The package of a tree.
    pub fn package(&self, node: NodeId) -> &Package {
        &self.packages[self.nodes[node as usize].package as usize]
    }

    /// The same projects as if only some had been counted: the counts of each
    /// tree.
    pub fn weights_of(&self, chosen: impl Fn(&Project) -> bool) -> Vec<f64> {
        let mut weights = vec![0.0; self.nodes.len()];
        for project in self.projects.iter().filter(|project| chosen(project)) {
            for tree in &project.trees {
                weights[*tree as usize] += project.weight;
            }
        }
        weights
    }
}

/// Which of some parts a name belongs to: the same on every machine.
pub fn fold(name: &str, folds: usize) -> usize {
    let hash = ContentHash::of(name.as_bytes());
    usize::from(hash.as_bytes()[0]) % folds
}

/// Gives numbers to what is met for the first time.
#[derive(Default)]
struct Clerk {
    census: Census,
    nodes: HashMap<TreeHash, NodeId>,
    packages: HashMap<Package, u32>,
    /// The repository that had a tree last: projects come by repository.
    last: Vec<u32>,
}

impl Clerk {
    fn enter(&mut self, found: &Found, weight: f64, lock: LockGraph, trees: &[Tree]) {
        let census = &mut self.census;
        if census.repositories.last() != Some(&found.repository) {
            census.repositories.push(found.repository.clone());
        }
        let repository = census.repositories.len() as u32 - 1;
        let mut ids: Vec<NodeId> = Vec::with_capacity(trees.len());
        for tree in trees {
            let id = match self.nodes.get(&tree.hash) {
                Some(id) => *id,
                None => {
                    let locked = &lock.packages[tree.package];
                    let package = Package {
                        name: locked.name.clone(),
                        version: locked.version.clone(),
                        source: trees::source(locked).to_owned(),
                    };
                    let next = self.packages.len() as u32;
                    let number = *self.packages.entry(package.clone()).or_insert_with(|| {
                        census.packages.push(package);
                        next
                    });
                    let children = tree.children.iter().map(|child| ids[*child]);
                    let id = census.nodes.len() as NodeId;
                    census.nodes.push(Node {
                        hash: tree.hash,
                        package: number,
                        children: children.collect(),
                        projects: 0,
                        repositories: 0,
                        weight: 0.0,
                    });
                    self.nodes.insert(tree.hash, id);
                    self.last.push(u32::MAX);
                    id
                }
            };
            ids.push(id);
            let node = &mut census.nodes[id as usize];
            node.projects += 1;
            node.weight += weight;
            if std::mem::replace(&mut self.last[id as usize], repository) != repository {
                node.repositories += 1;
            }
        }
        ids.sort_unstable();
        let external = lock
            .packages
            .iter()
            .filter(|package| package.source.is_some());
        census.projects.push(Project {
            name: found.name.clone(),
            repository,
            packages: external.count(),
            weight,
            trees: ids,
        });
    }
}
