//! What alignment makes of it, with real requirements: on lock files that nobody
//! looked at, by repository.
//!
//! Whoever prebuilds moves the lock files that are known to the newest versions
//! that were published, and builds what is worth most then; what projects have as
//! they are, and would move away from, counts little. A project that was not looked at
//! then moves as [`align`](crate::align) proposes: by the registry's index as far as
//! it is at hand. Of folders no manifest is read; what they need directly only moves
//! up. Which features a package has shows in what it needs; those that need nothing
//! do not show.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rayon::prelude::*;
use semver::Version;
use serde::Serialize;

use super::bundles::MOST;
use super::census::{Census, NodeId};
use super::costs::Measurements;
use super::projects::Found;
use super::selection::{self, Budget};
use super::trees;
use super::upgrade::{Newest, upgrade};
use crate::align::project::packages;
use crate::align::{Knowledge, Node, Objection, Offer, OfferId, Offers, Project, propose, reaches};
use crate::cargo::lock_graph::LockGraph;
use crate::cargo::releases::{Release, Releases};
use crate::cargo::relock::line;

/// What a tree counts that its project would move away from. Not everybody moves.
const STAYS: f64 = 0.1;

/// What is measured of projects that were not looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Alignment {
    /// Share of the seconds of all different trees that may be spent.
    pub budget: f64,
    /// Share of their seconds that is prebuilt as they are.
    pub before: f64,
    /// The same after they have moved.
    pub after: f64,
    /// Packages that a project moves, on average.
    pub moves: f64,
    /// The same shares of the projects of each tier, where projects have tiers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tiers: BTreeMap<String, Shares>,
    /// For each package, who gets its whole tree.
    pub bundles: Vec<Reached>,
}

/// Shares of seconds that are prebuilt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Shares {
    /// As projects are.
    pub before: f64,
    /// After they have moved.
    pub after: f64,
}

/// Who gets a package's whole tree.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reached {
    /// The package.
    pub package: String,
    /// Share of its dependents, from the best bundle.
    pub one: f64,
    /// From the best ten.
    pub ten: f64,
}

/// What is known of versions, for whoever supports all Rusts.
pub struct Index(pub Releases);

impl Knowledge for Index {
    fn release(&self, name: &str, version: &Version) -> Option<Arc<Release>> {
        self.0.of(name, &version.to_string())
    }

    fn objection(&self, _: &str, _: &Version, release: &Release) -> Option<Objection> {
        release.yanked.then_some(Objection::Yanked)
    }

    fn published(&self, name: &str) -> Vec<Version> {
        self.0.published(name)
    }
}

/// A lock file with what is known of its project.
pub struct Subject {
    /// The project.
    pub found: Found,
    /// What it counts.
    pub weight: f64,
    /// The part that it is judged with.
    pub fold: usize,
    /// All of the lock file.
    pub lock: LockGraph,
    /// The part that one platform needs.
    pub cut: LockGraph,
}

/// What is asked.
pub struct Question<'a> {
    /// The lock files, sorted by repository.
    pub subjects: &'a [Subject],
    /// How many parts there are.
    pub folds: usize,
    /// Share of `whole` that may be spent.
    pub budget: f64,
    /// Seconds of all different trees.
    pub whole: f64,
    /// Packages whose dependents are looked at.
    pub packages: &'a [String],
    /// What compiling costs, as far as somebody has compiled it.
    pub measurements: &'a Measurements,
    /// Seconds of each package of all lock files, estimated where they are not
    /// measured.
    pub seconds: &'a HashMap<(&'a str, &'a str), f64>,
    /// What is known of versions.
    pub index: &'a Index,
}

/// Sums of one part.
#[derive(Default)]
struct Sums {
    all: f64,
    before: f64,
    after: f64,
    moves: f64,
    weight: f64,
    /// By tier: all, before, after.
    tiers: BTreeMap<String, [f64; 3]>,
    /// By package: dependents, and those that each bundle serves.
    reached: BTreeMap<String, (f64, [f64; MOST])>,
}

impl Question<'_> {
    /// Chooses on some projects and judges on the others, for each part.
    pub fn answer(&self) -> Alignment {
        let mut sums = Sums::default();
        for fold in 0..self.folds {
            self.judge(fold, &mut sums);
        }
        let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let bundles = self.packages.iter().map(|package| {
            let (all, served) = sums.reached.get(package).copied().unwrap_or_default();
            Reached {
                package: package.clone(),
                one: ratio(served[0], all),
                ten: ratio(served.iter().sum(), all),
            }
        });
        Alignment {
            budget: self.budget,
            before: ratio(sums.before, sums.all),
            after: ratio(sums.after, sums.all),
            moves: ratio(sums.moves, sums.weight),
            tiers: sums
                .tiers
                .iter()
                .map(|(tier, [all, before, after])| {
                    let shares = Shares {
                        before: ratio(*before, *all),
                        after: ratio(*after, *all),
                    };
                    (tier.clone(), shares)
                })
                .collect(),
            bundles: bundles.collect(),
        }
    }

    fn judge(&self, fold: usize, sums: &mut Sums) {
        let known = self.subjects.iter().filter(|subject| subject.fold != fold);
        let known: Vec<&Subject> = known.collect();
        let newest = Newest::of(known.iter().map(|subject| &subject.cut), self.index);
        let locks: Vec<[(&Found, f64, LockGraph); 2]> = known
            .par_iter()
            .map(|subject| {
                let moved = upgrade(&subject.cut, &newest, self.index);
                let locks = [subject.cut.clone(), moved];
                locks.map(|lock| (&subject.found, subject.weight, lock))
            })
            .collect();
        let census = Census::of(locks.into_iter().flatten().collect());
        let (costs, _) = self.measurements.costs(&census);
        let weights = weights(&census);
        let budget = Budget::Seconds(self.budget * self.whole);
        let chosen = selection::select(&census, &costs, &weights, budget);
        let chosen: BTreeSet<NodeId> = chosen.iter().map(|choice| choice.node).collect();
        let (offers, _) = offers(&census, &chosen);
        let bundles = self.packages.iter().map(|package| {
            let roots = best(&census, &weights, package);
            let closures = roots.iter().flat_map(|root| census.closure(*root));
            let (offers, places) = self::offers(&census, &closures.collect());
            let roots: Vec<OfferId> = roots.iter().map(|root| places[root]).collect();
            (package, offers, roots)
        });
        let bundles: Vec<(&String, Offers, Vec<OfferId>)> = bundles.collect();
        let seconds = |name: &str, version: &str| {
            let known = self.seconds.get(&(name, version));
            known.copied().unwrap_or(1.0)
        };
        let unseen = self
            .subjects
            .par_iter()
            .filter(|subject| subject.fold == fold);
        let judged = unseen.filter_map(|subject| {
            let mut sums = Sums::default();
            let project = project(&subject.lock, &subject.cut, &offers, &seconds)?;
            let proposal = propose(&project, &offers, &BTreeSet::new(), self.index);
            sums.all = subject.weight * proposal.all;
            sums.before = subject.weight * proposal.before;
            sums.after = subject.weight * proposal.after;
            sums.moves = subject.weight * proposal.steps.len() as f64;
            sums.weight = subject.weight;
            if let Some(tier) = &subject.found.tier {
                let seconds = [sums.all, sums.before, sums.after];
                sums.tiers.insert(tier.clone(), seconds);
            }
            for (package, offers, roots) in &bundles {
                let reached = self.reached(subject, package, offers, roots)?;
                sums.reached.insert((*package).clone(), reached);
            }
            Some(sums)
        });
        for part in judged.collect::<Vec<Sums>>() {
            sums.all += part.all;
            sums.before += part.before;
            sums.after += part.after;
            sums.moves += part.moves;
            sums.weight += part.weight;
            for (tier, seconds) in part.tiers {
                let known = sums.tiers.entry(tier).or_default();
                for (known, seconds) in known.iter_mut().zip(seconds) {
                    *known += seconds;
                }
            }
            for (package, (all, served)) in part.reached {
                let known = sums.reached.entry(package).or_default();
                known.0 += all;
                for (known, served) in known.1.iter_mut().zip(served) {
                    *known += served;
                }
            }
        }
    }

    /// What a project counts as a dependent of a package, and for which bundle.
    fn reached(
        &self,
        subject: &Subject,
        package: &str,
        offers: &Offers,
        roots: &[OfferId],
    ) -> Option<(f64, [f64; MOST])> {
        let mut served = [0.0; MOST];
        let own = subject.cut.packages.iter().filter(|of| of.name == package);
        let own: Vec<Version> = own.filter_map(|of| of.version.parse().ok()).collect();
        if own.is_empty() {
            return Some((0.0, served));
        }
        // A project with two versions needs both; each is half of it.
        let part = subject.weight / own.len() as f64;
        let project = project(&subject.lock, &subject.cut, offers, &|_, _| 1.0)?;
        for version in own {
            let found = roots.iter().position(|root| {
                let offer = &offers.list[*root];
                line(&offer.version) == line(&version)
                    && reaches(&project, offers, *root, self.index)
            });
            if let Some(found) = found {
                served[found] += part;
            }
        }
        Some((subject.weight, served))
    }
}

/// What trees count for those who may move, in a census that has each lock file as
/// it is and then moved: where it moves away from a tree, the tree counts little.
/// Whoever has a tree has all below it, so nothing below one counts less.
fn weights(census: &Census) -> Vec<f64> {
    let mut weights = vec![0.0; census.nodes.len()];
    for pair in census.projects.chunks_exact(2) {
        let [now, moved] = pair else { continue };
        for tree in &moved.trees {
            weights[*tree as usize] += moved.weight;
        }
        let left = now.trees.iter();
        for tree in left.filter(|tree| moved.trees.binary_search(tree).is_err()) {
            weights[*tree as usize] += now.weight * STAYS;
        }
    }
    weights
}

/// The trees of a package that count most.
fn best(census: &Census, weights: &[f64], package: &str) -> Vec<NodeId> {
    let nodes = 0..census.nodes.len() as NodeId;
    let mut roots: Vec<NodeId> = nodes
        .filter(|node| census.package(*node).name == package)
        .collect();
    roots.sort_by(|a, b| {
        let (a, b) = (*a as usize, *b as usize);
        weights[b].total_cmp(&weights[a]).then(a.cmp(&b))
    });
    roots.truncate(MOST);
    roots
}

/// Some trees of a census, each with all it needs, as offers.
fn offers(census: &Census, chosen: &BTreeSet<NodeId>) -> (Offers, HashMap<NodeId, OfferId>) {
    let mut places = HashMap::new();
    let mut list = Vec::new();
    for node in chosen {
        let package = census.package(*node);
        let Ok(version) = Version::parse(&package.version) else {
            continue;
        };
        let children = census.nodes[*node as usize].children.iter();
        let needs: Option<Vec<OfferId>> =
            children.map(|child| places.get(child).copied()).collect();
        let Some(needs) = needs else { continue };
        places.insert(*node, list.len());
        list.push(Offer {
            name: package.name.clone(),
            version,
            features: None,
            needs,
        });
    }
    (Offers::new(list), places)
}

/// A lock file as an analysis counts it: one node for each package of the part
/// that one platform needs. `None` if a version is none.
pub fn project(
    lock: &LockGraph,
    cut: &LockGraph,
    offers: &Offers,
    seconds: &dyn Fn(&str, &str) -> f64,
) -> Option<Project> {
    let packages = packages(lock, &HashMap::new(), &BTreeSet::new())?;
    Some(locked(packages, cut, offers, seconds))
}

/// The same for packages that are known already.
pub fn locked(
    packages: Vec<crate::align::Package>,
    cut: &LockGraph,
    offers: &Offers,
    seconds: &dyn Fn(&str, &str) -> f64,
) -> Project {
    let key = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    let places = packages.iter().enumerate();
    let places = places.map(|(at, package)| (key(&package.name, &package.version.to_string()), at));
    let places: HashMap<(String, String), usize> = places.collect();
    let mut nodes: Vec<Node> = Vec::new();
    let mut known: BTreeMap<usize, usize> = BTreeMap::new();
    for tree in trees::trees(cut) {
        let package = &cut.packages[tree.package];
        let Some(place) = places.get(&key(&package.name, &package.version)) else {
            continue;
        };
        let needs = package.dependencies.iter();
        let needs: Vec<usize> = needs.filter_map(|need| known.get(need).copied()).collect();
        let is_same = |offer: &OfferId| {
            let wanted = &offers.list[*offer].needs;
            let has = |need: &usize| {
                let offer = nodes[*need].offer;
                offer.is_some_and(|offer| wanted.contains(&offer))
            };
            wanted.len() == needs.len() && needs.iter().all(has)
        };
        let version = &packages[*place].version;
        let mut same = offers.of(&package.name, version).iter().copied();
        let offer = same.find(is_same);
        known.insert(tree.package, nodes.len());
        nodes.push(Node {
            package: *place,
            features: None,
            seconds: seconds(&package.name, &package.version),
            needs,
            offer,
        });
    }
    Project { packages, nodes }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cargo::lock_graph::LockedPackage;
    use crate::cargo::source::CRATES_IO;

    #[test]
    fn what_a_project_moves_away_from_counts_little() {
        let found = Found {
            path: PathBuf::from("Cargo.lock"),
            name: "demo".to_owned(),
            repository: "demo".to_owned(),
            tier: None,
            day: None,
        };
        let lock = |version: &str| LockGraph {
            packages: [
                ("a", "1.0.0", vec![1]),
                ("b", version, vec![]),
                ("c", "1.0.0", vec![]),
            ]
            .map(|(name, version, dependencies)| LockedPackage {
                name: name.to_owned(),
                version: version.to_owned(),
                source: Some(CRATES_IO.to_owned()),
                dependencies,
            })
            .into(),
        };
        let locks = [("1.0.0", 1.0), ("1.1.0", 1.0)];
        let census = Census::of(locks.map(|(of, weight)| (&found, weight, lock(of))).into());
        let weights = weights(&census);
        let mut named: Vec<(String, f64)> = (0..census.nodes.len())
            .map(|node| {
                let below = census.closure(node as NodeId).into_iter();
                let below = below.map(|of| census.package(of));
                let below = below.map(|of| format!("{} {}", of.name, of.version));
                (below.collect::<Vec<_>>().join(", "), weights[node])
            })
            .collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let named: Vec<(&str, f64)> = named.iter().map(|(of, weight)| (&**of, *weight)).collect();
        assert_eq!(
            named,
            [
                ("b 1.0.0", STAYS),
                ("b 1.0.0, a 1.0.0", STAYS),
                ("b 1.1.0", 1.0),
                ("b 1.1.0, a 1.0.0", 1.0),
                ("c 1.0.0", 1.0),
            ]
        );
    }
}
