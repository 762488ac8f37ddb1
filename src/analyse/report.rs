//! The answers of an analysis, as `docs/formats/analysis.md` describes them.

use serde::Serialize;

use super::alignment::Alignment;
use super::bundles::{self, Reach};
use super::census::{Census, NodeId, Project, fold};
use super::costs::{Cost, FitError, Origin};
use super::downloads::Downloads;
use super::history::History;
use super::recipes::Recipes;
use super::selection::{self, Budget, Choice};

/// Version of the report.
pub const FORMAT: u32 = 1;

/// Parts that repositories are divided into: each is judged once by what was
/// chosen on the others.
pub const FOLDS: usize = 5;
/// Shares of the seconds of all distinct trees that a curve has points for.
const SHARES: [f64; 14] = [
    0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0,
];
/// Trees that are listed.
const LISTED: usize = 30;

/// All answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// What was counted.
    pub counted: Counted,
    /// Where seconds are from.
    pub costs: Costs,
    /// Who shares.
    pub sharing: Sharing,
    /// What a budget covers.
    pub coverage: Vec<Point>,
    /// Single packages.
    pub bundles: Vec<Reach>,
    /// Trees of the most value.
    pub top: Vec<Top>,
    /// Crates by how many trees they come in.
    pub crates: Vec<Drift>,
    /// What was chosen under the budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// What moving to other versions makes of it; absent if it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alignment: Option<Alignment>,
    /// What is shared by recipes, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipes: Option<Recipes>,
    /// How lock files moved, if that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// What was left out.
    pub left_out: Vec<LeftOut>,
}

/// What was counted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counted {
    /// Lock files.
    pub projects: usize,
    /// Repositories.
    pub repositories: usize,
    /// Packages in all lock files, with folders left out.
    pub packages: usize,
    /// Those whose tree has no folder in it.
    pub shareable: usize,
    /// Different trees among those.
    pub distinct_trees: usize,
    /// Different packages among those.
    pub distinct_packages: usize,
    /// The platform whose packages are counted; absent for those of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Packages of which it is known what they need on it.
    pub placed: usize,
}

/// Where seconds are from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Costs {
    /// Packages that were measured.
    pub measured: usize,
    /// Packages of which another version was.
    pub other_version: usize,
    /// Packages that are estimated.
    pub estimated: usize,
    /// Seconds of all packages of all lock files.
    pub seconds: f64,
    /// Seconds of all distinct trees.
    pub distinct_seconds: f64,
    /// Bytes of all distinct trees.
    pub distinct_bytes: f64,
    /// How wrong estimates are; absent if too little was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<FitError>,
}

/// Shares from 0 to 1 of what lock files have.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sharing {
    /// Packages whose tree another repository has, too.
    pub packages: f64,
    /// The same, of compile seconds.
    pub seconds: f64,
    /// Packages that another repository has in the same version, whatever is
    /// below.
    pub versions: f64,
}

/// What a budget covers, by seconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Point {
    /// Share of the seconds of all distinct trees.
    pub budget: f64,
    /// Share of the seconds of the projects that trees were chosen on.
    pub seen: f64,
    /// Share of the seconds of projects that nobody looked at.
    pub unseen: f64,
}

/// A tree of much value.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Top {
    /// `<crate>-<version>`, and its hash.
    pub name: String,
    /// Its hash.
    pub tree: String,
    /// Packages in it.
    pub size: usize,
    /// Lock files that have it.
    pub projects: u32,
    /// Repositories that have it.
    pub repositories: u32,
    /// Seconds of the whole tree.
    pub seconds: f64,
    /// How its package's seconds are known.
    pub origin: Origin,
}

/// How many trees a crate comes in.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Drift {
    /// The crate.
    pub name: String,
    /// Repositories that have it.
    pub repositories: usize,
    /// Versions of it.
    pub versions: usize,
    /// Trees of it.
    pub trees: usize,
    /// Share of these repositories that have the most common tree.
    pub largest: f64,
}

/// What was chosen under the budget.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Selection {
    /// Seconds of one processor to build all.
    pub build_seconds: f64,
    /// Bytes to store.
    pub bytes: f64,
    /// Share of the projects' seconds that are saved.
    pub saved: f64,
    /// The packages, in the order of building.
    pub trees: Vec<Selected>,
}

/// One tree of a selection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Selected {
    /// The crate.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its hash.
    pub tree: String,
    /// Hashes of the trees that it needs itself.
    pub needs: Vec<String>,
    /// Seconds.
    pub seconds: f64,
    /// Repositories that have it.
    pub repositories: u32,
}

/// A file that was not counted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LeftOut {
    /// The file.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Questions {
    /// Packages whose dependents are looked at.
    pub packages: Vec<String>,
    /// What is to be chosen under.
    pub budget: Option<Budget>,
    /// What trees count in the selection; otherwise projects do.
    pub downloads: Option<Downloads>,
    /// The platform that the census is about.
    pub platform: Option<String>,
}

/// Answers questions about a census.
pub fn report(
    census: &Census,
    costs: &[Cost],
    error: Option<FitError>,
    questions: &Questions,
    left_out: Vec<LeftOut>,
) -> Report {
    let seconds: Vec<f64> = census
        .nodes
        .iter()
        .map(|node| costs[node.package as usize].seconds)
        .collect();
    let fold = |project: &Project| fold(&census.repositories[project.repository as usize], FOLDS);
    let count = |origin: Origin| costs.iter().filter(|cost| cost.origin == origin).count();
    let all_seconds: f64 = census
        .projects
        .iter()
        .flat_map(|project| &project.trees)
        .map(|tree| seconds[*tree as usize])
        .sum();
    let selection = questions.budget.map(|budget| {
        let mut weights = census.weights_of(|_| true);
        if let Some(downloads) = &questions.downloads {
            weights = downloads.weights(census, &weights);
        }
        let choices = selection::select(census, costs, &weights, budget);
        describe(census, &seconds, &weights, &choices)
    });
    Report {
        format: FORMAT,
        counted: Counted {
            projects: census.projects.len(),
            repositories: census.repositories.len(),
            packages: census.projects.iter().map(|project| project.packages).sum(),
            shareable: census
                .projects
                .iter()
                .map(|project| project.trees.len())
                .sum(),
            distinct_trees: census.nodes.len(),
            distinct_packages: census.packages.len(),
            platform: questions.platform.clone(),
            placed: census.placed,
        },
        costs: Costs {
            measured: count(Origin::Measured),
            other_version: count(Origin::OtherVersion),
            estimated: count(Origin::Estimated),
            seconds: all_seconds,
            distinct_seconds: seconds.iter().sum(),
            distinct_bytes: census
                .nodes
                .iter()
                .map(|node| costs[node.package as usize].bytes)
                .sum(),
            error,
        },
        sharing: sharing(census, &seconds),
        coverage: coverage(census, costs, &seconds, &fold),
        bundles: questions
            .packages
            .iter()
            .map(|package| bundles::reach(census, package, FOLDS, &fold))
            .collect(),
        top: top(census, costs, &seconds),
        crates: drift(census),
        selection,
        alignment: None,
        history: Vec::new(),
        recipes: None,
        left_out,
    }
}

fn sharing(census: &Census, seconds: &[f64]) -> Sharing {
    let mut repositories = vec![(u32::MAX, 0u32); census.packages.len()];
    for project in &census.projects {
        for tree in &project.trees {
            let entry = &mut repositories[census.nodes[*tree as usize].package as usize];
            if std::mem::replace(&mut entry.0, project.repository) != project.repository {
                entry.1 += 1;
            }
        }
    }
    let (mut packages, mut shared, mut versions) = (0.0, 0.0, 0.0);
    let (mut all_seconds, mut shared_seconds) = (0.0, 0.0);
    for project in &census.projects {
        packages += project.weight * project.packages as f64;
        for tree in &project.trees {
            let node = &census.nodes[*tree as usize];
            let cost = project.weight * seconds[*tree as usize];
            all_seconds += cost;
            if node.repositories > 1 {
                shared += project.weight;
                shared_seconds += cost;
            }
            if repositories[node.package as usize].1 > 1 {
                versions += project.weight;
            }
        }
    }
    Sharing {
        packages: ratio(shared, packages),
        seconds: ratio(shared_seconds, all_seconds),
        versions: ratio(versions, packages),
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// What budgets cover, of projects that were looked at and of those that were
/// not.
fn coverage(
    census: &Census,
    costs: &[Cost],
    seconds: &[f64],
    fold: &dyn Fn(&Project) -> usize,
) -> Vec<Point> {
    let whole: f64 = seconds.iter().sum();
    let mut points: Vec<Point> = SHARES
        .iter()
        .map(|budget| Point {
            budget: *budget,
            seen: 0.0,
            unseen: 0.0,
        })
        .collect();
    let mut totals = [0.0; 2];
    for held in 0..FOLDS {
        let training = census.weights_of(|project| fold(project) != held);
        let unseen = census.weights_of(|project| fold(project) == held);
        let choices = selection::select(census, costs, &training, Budget::Seconds(whole));
        let sum = |weights: &[f64]| -> f64 {
            weights
                .iter()
                .zip(seconds)
                .map(|(weight, seconds)| weight * seconds)
                .sum()
        };
        totals[0] += sum(&training);
        totals[1] += sum(&unseen);
        let (mut saved_seen, mut saved_unseen) = (0.0, 0.0);
        let mut choices = choices.iter().peekable();
        for point in &mut points {
            while let Some(choice) =
                choices.next_if(|choice| choice.spent_seconds <= point.budget * whole)
            {
                let node = choice.node as usize;
                saved_seen += training[node] * seconds[node];
                saved_unseen += unseen[node] * seconds[node];
            }
            point.seen += saved_seen;
            point.unseen += saved_unseen;
        }
    }
    for point in &mut points {
        point.seen = ratio(point.seen, totals[0]);
        point.unseen = ratio(point.unseen, totals[1]);
    }
    points
}

/// Trees whose sharing saves most: seconds of the whole tree times repositories
/// beyond the first.
fn top(census: &Census, costs: &[Cost], seconds: &[f64]) -> Vec<Top> {
    let mut shared: Vec<NodeId> = (0..census.nodes.len() as NodeId)
        .filter(|node| census.nodes[*node as usize].repositories > 1)
        .collect();
    // The package's own part decides who is looked at more closely: whole trees
    // of all would cost too much.
    let own = |node: &NodeId| {
        let of = &census.nodes[*node as usize];
        f64::from(of.repositories - 1) * seconds[*node as usize] * (1.0 + of.children.len() as f64)
    };
    shared.sort_by(|a, b| own(b).total_cmp(&own(a)).then(a.cmp(b)));
    shared.truncate(LISTED * 20);
    let tops = shared.into_iter().map(|node| {
        let closure = census.closure(node);
        let of = &census.nodes[node as usize];
        let package = census.package(node);
        Top {
            name: format!("{}-{}", package.name, package.version),
            tree: of.hash.to_string(),
            size: closure.len(),
            projects: of.projects,
            repositories: of.repositories,
            seconds: closure.iter().map(|node| seconds[*node as usize]).sum(),
            origin: costs[of.package as usize].origin,
        }
    });
    let mut tops: Vec<Top> = tops.collect();
    let value = |top: &Top| top.seconds * f64::from(top.repositories - 1);
    tops.sort_by(|a, b| {
        value(b)
            .total_cmp(&value(a))
            .then_with(|| a.name.cmp(&b.name))
    });
    tops.truncate(LISTED);
    tops
}

/// Crates that most repositories have, and how many trees they come in.
fn drift(census: &Census) -> Vec<Drift> {
    #[derive(Default)]
    struct Seen {
        repositories: std::collections::BTreeSet<u32>,
        versions: std::collections::BTreeSet<u32>,
        trees: usize,
        largest: u32,
    }
    let mut crates: std::collections::BTreeMap<&str, Seen> = std::collections::BTreeMap::new();
    for node in &census.nodes {
        let seen = crates
            .entry(&census.packages[node.package as usize].name)
            .or_default();
        seen.versions.insert(node.package);
        seen.trees += 1;
        seen.largest = seen.largest.max(node.repositories);
    }
    for project in &census.projects {
        for tree in &project.trees {
            if let Some(seen) = crates.get_mut(census.package(*tree).name.as_str()) {
                seen.repositories.insert(project.repository);
            }
        }
    }
    let mut drifts: Vec<Drift> = crates
        .into_iter()
        .map(|(name, seen)| Drift {
            name: name.to_owned(),
            repositories: seen.repositories.len(),
            versions: seen.versions.len(),
            trees: seen.trees,
            largest: ratio(f64::from(seen.largest), seen.repositories.len() as f64),
        })
        .collect();
    drifts.sort_by(|a, b| {
        b.repositories
            .cmp(&a.repositories)
            .then_with(|| a.name.cmp(&b.name))
    });
    drifts.truncate(LISTED);
    drifts
}

fn describe(census: &Census, seconds: &[f64], weights: &[f64], choices: &[Choice]) -> Selection {
    let all: f64 = weights
        .iter()
        .zip(seconds)
        .map(|(weight, seconds)| weight * seconds)
        .sum();
    let last = choices.last();
    let hash = |node: &NodeId| census.nodes[*node as usize].hash.to_string();
    Selection {
        build_seconds: last.map_or(0.0, |last| last.spent_seconds),
        bytes: last.map_or(0.0, |last| last.spent_bytes),
        saved: ratio(last.map_or(0.0, |last| last.saved), all),
        trees: choices
            .iter()
            .map(|choice| {
                let package = census.package(choice.node);
                let node = &census.nodes[choice.node as usize];
                Selected {
                    name: package.name.clone(),
                    version: package.version.clone(),
                    tree: node.hash.to_string(),
                    needs: node.children.iter().map(hash).collect(),
                    seconds: seconds[choice.node as usize],
                    repositories: node.repositories,
                }
            })
            .collect(),
    }
}
