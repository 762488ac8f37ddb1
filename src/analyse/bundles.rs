//! Who can have one package's whole tree from a few builds.
//!
//! A *bundle* is one tree of a package, built. Without alignment a project is
//! served by a bundle if it has exactly this tree. With alignment it may first
//! move to newer versions, as `cargo update` would: a project is served by a
//! bundle if the bundle has the same packages (by name and by what Cargo takes
//! for compatible) and none is older than the project's. Packages that are there
//! or not because of features, or because another version needs others, count as
//! different, so this is a lower bound of what alignment can do; features without
//! dependencies of their own are not visible in a lock file, and are no part of
//! it.
//!
//! Bundles are chosen on some projects and judged on others.

use std::collections::BTreeMap;

use cargo_lock::Version;
use serde::Serialize;

use super::census::{Census, NodeId, Project};

/// How many bundles are looked at.
pub const MOST: usize = 10;

/// Shares of a package's dependents, by projects' weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reach {
    /// The package.
    pub package: String,
    /// Projects that have it.
    pub projects: usize,
    /// Distinct trees of it.
    pub trees: usize,
    /// What one bundle, and what ten, serve of the projects they were chosen on.
    pub exact: Served,
    /// The same, on projects that nobody looked at when choosing.
    pub exact_unseen: Served,
    /// With alignment, on projects that nobody looked at.
    pub aligned_unseen: Served,
}

/// Shares from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Served {
    /// By the best bundle.
    pub one: f64,
    /// By the best ten.
    pub ten: f64,
}

impl Served {
    fn of(shares: &[f64], all: f64) -> Self {
        let first =
            |count: usize| shares.iter().take(count).sum::<f64>() / all.max(f64::MIN_POSITIVE);
        Self {
            one: first(1),
            ten: first(MOST),
        }
    }
}

/// A package's compatible versions (Cargo book, "Version requirement syntax"):
/// the leftmost number that is not zero decides.
type Line = (String, u64, u64, u64);

fn line(name: &str, version: &Version) -> Line {
    let name = name.to_owned();
    match (version.major, version.minor, version.patch) {
        (0, 0, patch) => (name, 0, 0, patch),
        (0, minor, _) => (name, 0, minor, 0),
        (major, _, _) => (name, major, 0, 0),
    }
}

/// A tree as alignment sees it: the newest version of each line.
type Shape = BTreeMap<Line, Version>;

/// One dependent of the package.
struct Dependent {
    tree: NodeId,
    fold: usize,
    weight: f64,
}

/// The reach of bundles of one package; `fold` divides projects into so many
/// parts, each of which is judged once by bundles chosen on the others.
pub fn reach(
    census: &Census,
    package: &str,
    folds: usize,
    fold: &dyn Fn(&Project) -> usize,
) -> Reach {
    let roots = census
        .nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| census.packages[node.package as usize].name == package);
    let roots: Vec<NodeId> = roots.map(|(position, _)| position as NodeId).collect();
    let mut dependents: Vec<Dependent> = Vec::new();
    let mut projects = 0;
    for project in &census.projects {
        let trees = roots
            .iter()
            .filter(|root| project.trees.binary_search(root).is_ok());
        let trees: Vec<NodeId> = trees.copied().collect();
        projects += usize::from(!trees.is_empty());
        // A project with two versions needs both; each is half of it.
        let weight = project.weight / trees.len().max(1) as f64;
        dependents.extend(trees.into_iter().map(|tree| Dependent {
            tree,
            fold: fold(project),
            weight,
        }));
    }
    let all: f64 = dependents.iter().map(|dependent| dependent.weight).sum();
    let shapes: BTreeMap<NodeId, Option<Shape>> = roots
        .iter()
        .map(|root| (*root, shape(census, *root)))
        .collect();
    let (_, exact) = exact(&dependents, None);
    let mut unseen = [vec![0.0; MOST], vec![0.0; MOST]];
    for held in 0..folds {
        let (bundles, _) = self::exact(&dependents, Some(held));
        let aligned = aligned(&dependents, &shapes, held);
        for dependent in dependents.iter().filter(|dependent| dependent.fold == held) {
            if let Some(position) = bundles.iter().position(|bundle| *bundle == dependent.tree) {
                unseen[0][position] += dependent.weight;
            }
            let fitting = shapes[&dependent.tree]
                .as_ref()
                .and_then(|shape| aligned.iter().position(|bundle| serves(bundle, shape)));
            if let Some(position) = fitting {
                unseen[1][position] += dependent.weight;
            }
        }
    }
    let mut trees: Vec<NodeId> = dependents.iter().map(|dependent| dependent.tree).collect();
    trees.sort_unstable();
    trees.dedup();
    Reach {
        package: package.to_owned(),
        projects,
        trees: trees.len(),
        exact: Served::of(&exact, all),
        exact_unseen: Served::of(&unseen[0], all),
        aligned_unseen: Served::of(&unseen[1], all),
    }
}

/// The trees that most projects have, but for those of one fold, with what they
/// count.
fn exact(dependents: &[Dependent], without: Option<usize>) -> (Vec<NodeId>, Vec<f64>) {
    let mut counts: BTreeMap<NodeId, f64> = BTreeMap::new();
    for dependent in dependents
        .iter()
        .filter(|dependent| Some(dependent.fold) != without)
    {
        *counts.entry(dependent.tree).or_default() += dependent.weight;
    }
    let mut counts: Vec<(NodeId, f64)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    counts.truncate(MOST);
    counts.into_iter().unzip()
}

/// The shapes that most projects have, but for those of one fold, each with the
/// newest versions that one of these projects has.
fn aligned(
    dependents: &[Dependent],
    shapes: &BTreeMap<NodeId, Option<Shape>>,
    without: usize,
) -> Vec<Shape> {
    let mut counts: BTreeMap<Vec<&Line>, (f64, Shape)> = BTreeMap::new();
    for dependent in dependents
        .iter()
        .filter(|dependent| dependent.fold != without)
    {
        let Some(shape) = &shapes[&dependent.tree] else {
            continue;
        };
        let (weight, newest) = counts.entry(shape.keys().collect()).or_default();
        *weight += dependent.weight;
        for (line, version) in shape {
            let known = newest
                .entry(line.clone())
                .or_insert_with(|| version.clone());
            if version > known {
                known.clone_from(version);
            }
        }
    }
    let mut counts: Vec<(f64, Shape)> = counts.into_values().collect();
    counts.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    counts.truncate(MOST);
    counts.into_iter().map(|(_, shape)| shape).collect()
}

/// Whether a project with `shape` can move to `bundle` without going back.
fn serves(bundle: &Shape, shape: &Shape) -> bool {
    bundle.len() == shape.len()
        && bundle
            .iter()
            .zip(shape)
            .all(|((line, new), (other, old))| line == other && new >= old)
}

/// None if a version is not one, or if two packages of one line are there, from
/// two sources.
fn shape(census: &Census, root: NodeId) -> Option<Shape> {
    let mut shape = Shape::new();
    for node in census.closure(root) {
        let package = census.package(node);
        let version = Version::parse(&package.version).ok()?;
        if shape
            .insert(line(&package.name, &version), version)
            .is_some()
        {
            return None;
        }
    }
    Some(shape)
}
