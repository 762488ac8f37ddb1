//! The moves that are worth most.
//!
//! A candidate is the tree of one offer, as the moves that lead to it. Candidates
//! are taken one after the other, what is worth most for each moved package first,
//! as long as they fit together; a second run takes what is worth most at all
//! first. A third one forgets at first what is built already for the project as it
//! is, which it would give up for nothing single, and often for all together. The
//! best of the three counts. A tree saves no more than the seconds
//! of what it has in the project and is not built yet, so most candidates need not
//! be tried. In the end, each move goes that nothing is lost without.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;

use super::project::{Lookup, Moves, OfferId, Offers, Project};
use super::rules::{Clash, Knowledge, fit};
use super::value::{Value, value};

/// Seconds for each moved package that a candidate must be worth.
const LEAST: f64 = 0.05;
/// Candidates that are tried at most before the best of them is taken.
const TRIED: usize = 32;

/// What to do, and what it is worth.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proposal {
    /// The moves, dependencies first.
    pub steps: Vec<Step>,
    /// Packages that come in, with the versions they are to have.
    pub added: Vec<(String, Version)>,
    /// Offers that it counts on, each with a node that it is for.
    pub offers: Vec<(usize, OfferId)>,
    /// Seconds of all that a build compiles.
    pub all: f64,
    /// Those that are built already as it is.
    pub before: f64,
    /// Those that are built already afterwards.
    pub after: f64,
    /// Why trees that would be worth something do not fit, with how many do not.
    pub clashes: BTreeMap<Clash, usize>,
}

/// One package that moves.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its position in the lock file.
    pub package: usize,
    /// Its new version.
    pub to: Version,
    /// Its part of the seconds that are gained.
    pub seconds: f64,
}

/// The tree of an offer, as a project would have to move.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    moves: Moves,
    added: BTreeSet<OfferId>,
    /// Nodes that could be served by it.
    nodes: BTreeSet<usize>,
}

/// Looks for the moves that make most of a project built already. Offers that are
/// `banned` count for nothing.
pub fn propose(
    project: &Project,
    offers: &Offers,
    banned: &BTreeSet<OfferId>,
    knowledge: &dyn Knowledge,
) -> Proposal {
    let lookup = Lookup::new(project, offers, banned, knowledge);
    let search = Search { lookup: &lookup };
    let candidates = search.candidates();
    let run = |order| {
        let lookup = Lookup::new(project, offers, banned, knowledge);
        let search = Search { lookup: &lookup };
        let taken = search.run(&candidates, order, usize::MAX, search.start());
        (taken.clashes.clone(), search.thin(taken))
    };
    let afresh = || {
        let bare = project.unbuilt();
        let lookup = Lookup::new(&bare, offers, banned, knowledge);
        let search = Search { lookup: &lookup };
        let taken = search.run(&candidates, Order::ForEachMove, usize::MAX, search.start());
        let lookup = Lookup::new(project, offers, banned, knowledge);
        let search = Search { lookup: &lookup };
        let taken = search.take(taken.moves, taken.added);
        search.thin(search.run(&candidates, Order::AtAll, usize::MAX, taken))
    };
    let ((first, second), third) = rayon::join(
        || rayon::join(|| run(Order::ForEachMove), || run(Order::AtAll)),
        afresh,
    );
    let mut clashes = BTreeMap::new();
    for (clash, count) in first.0.into_iter().chain(second.0) {
        let known = clashes.entry(clash).or_insert(0);
        *known = count.max(*known);
    }
    let mut best = first.1;
    for other in [second.1, third] {
        if other.value.seconds > best.value.seconds + LEAST {
            best = other;
        }
    }
    let mut proposal = search.describe(best);
    proposal.clashes = clashes;
    proposal
}

/// What could be gained at least: what [`propose`] does, but no more than `rounds`
/// candidates are taken, those that are worth most first.
pub fn glance(
    project: &Project,
    offers: &Offers,
    knowledge: &dyn Knowledge,
    rounds: usize,
) -> Proposal {
    let banned = BTreeSet::new();
    let lookup = Lookup::new(project, offers, &banned, knowledge);
    let search = Search { lookup: &lookup };
    search.describe(search.run(&search.candidates(), Order::AtAll, rounds, search.start()))
}

/// Whether a project can move so that it has the whole tree of an offer.
pub fn reaches(
    project: &Project,
    offers: &Offers,
    root: OfferId,
    knowledge: &dyn Knowledge,
) -> bool {
    let banned = BTreeSet::new();
    let lookup = Lookup::new(project, offers, &banned, knowledge);
    let Some(candidate) = (Search { lookup: &lookup }).candidate(root) else {
        return false;
    };
    let Candidate { moves, added, .. } = candidate;
    fit(&lookup, &moves, &added, &moves.keys().copied().collect()).is_ok()
        && value(&lookup, &moves, &added)
            .offers
            .iter()
            .any(|offers| offers.contains(&root))
}

/// What is taken first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// What is worth most for each moved package.
    ForEachMove,
    /// What is worth most.
    AtAll,
}

/// What has been taken.
#[derive(Debug, Clone, Default)]
struct Taken {
    moves: Moves,
    added: BTreeSet<OfferId>,
    value: Value,
    clashes: BTreeMap<Clash, usize>,
}

struct Search<'a> {
    lookup: &'a Lookup<'a>,
}

impl Search<'_> {
    /// All trees that the project could move to, each set of moves once.
    fn candidates(&self) -> Vec<Candidate> {
        let offers = &self.lookup.offers.list;
        let ids =
            (0..offers.len()).filter(|id| self.lookup.by_name.contains_key(&*offers[*id].name));
        let mut found: BTreeMap<(Moves, BTreeSet<OfferId>), BTreeSet<usize>> = BTreeMap::new();
        for id in ids {
            if let Some(candidate) = self.candidate(id)
                && !candidate.moves.is_empty()
            {
                let nodes = found.entry((candidate.moves, candidate.added)).or_default();
                nodes.extend(candidate.nodes);
            }
        }
        let found = found.into_iter();
        let found = found.map(|((moves, added), nodes)| Candidate {
            moves,
            added,
            nodes,
        });
        found.collect()
    }

    fn candidate(&self, root: OfferId) -> Option<Candidate> {
        let lookup = self.lookup;
        let mut candidate = Candidate {
            moves: Moves::new(),
            added: BTreeSet::new(),
            nodes: BTreeSet::new(),
        };
        for id in lookup.offers.closure(root)? {
            let offer = &lookup.offers.list[id];
            if lookup.banned.contains(&id) {
                return None;
            }
            let Some(package) = lookup.place(&offer.name, &offer.version) else {
                // What is not there at all may come in with what needs it.
                if id == root {
                    return None;
                }
                candidate.added.insert(id);
                continue;
            };
            let nodes = lookup.nodes[package].iter().copied();
            let nodes: Vec<usize> = nodes
                .filter(|node| lookup.has_features(id, *node))
                .collect();
            if nodes.is_empty() {
                return None;
            }
            candidate.nodes.extend(nodes);
            let now = &lookup.project.packages[package];
            if now.version != offer.version {
                if !now.is_movable {
                    return None;
                }
                let wanted = candidate.moves.insert(package, offer.version.clone());
                if wanted.is_some_and(|wanted| wanted != offer.version) {
                    return None;
                }
            } else if candidate.moves.contains_key(&package) {
                return None;
            }
        }
        Some(candidate)
    }

    /// Nothing has been taken.
    fn start(&self) -> Taken {
        self.take(Moves::new(), BTreeSet::new())
    }

    fn take(&self, moves: Moves, added: BTreeSet<OfferId>) -> Taken {
        Taken {
            value: value(self.lookup, &moves, &added),
            moves,
            added,
            clashes: BTreeMap::new(),
        }
    }

    /// Takes candidates as long as one is worth something, and at most so many.
    fn run(
        &self,
        candidates: &[Candidate],
        order: Order,
        rounds: usize,
        mut taken: Taken,
    ) -> Taken {
        let mut open: Vec<&Candidate> = candidates.iter().collect();
        for _ in 0..rounds {
            let Some((best, moves, added, value)) = self.best(&mut open, order, &mut taken) else {
                break;
            };
            open.retain(|candidate| *candidate != best);
            taken.moves = moves;
            taken.added = added;
            taken.value = value;
        }
        taken
    }

    /// The best candidate, with all moves and their value then. Those that cannot
    /// be taken any more are left out of `open`.
    fn best<'c>(
        &self,
        open: &mut Vec<&'c Candidate>,
        order: Order,
        taken: &mut Taken,
    ) -> Option<(&'c Candidate, Moves, BTreeSet<OfferId>, Value)> {
        let is_open = |candidate: &&Candidate| {
            let mut moves = candidate.moves.iter();
            moves.all(|(package, to)| taken.moves.get(package).is_none_or(|known| known == to))
        };
        open.retain(is_open);
        let nodes = &self.lookup.project.nodes;
        let rank = |gain: f64, moves: usize| match order {
            Order::ForEachMove => gain / moves.max(1) as f64,
            Order::AtAll => gain,
        };
        let mut bounds: Vec<(f64, usize, &'c Candidate)> = Vec::with_capacity(open.len());
        for candidate in open.iter().copied() {
            let moves = candidate.moves.keys();
            let moves = moves.filter(|package| !taken.moves.contains_key(package));
            let moves = moves.count();
            let missing = candidate.nodes.iter();
            let missing = missing.filter(|node| taken.value.offers[**node].is_empty());
            let bound: f64 = missing.map(|node| nodes[*node].seconds).sum();
            if bound > LEAST * moves.max(1) as f64 {
                bounds.push((rank(bound, moves), moves, candidate));
            }
        }
        bounds.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut best: Option<(f64, &Candidate, Moves, BTreeSet<OfferId>, Value)> = None;
        let mut tried = 0;
        for (bound, count, candidate) in bounds {
            if best.as_ref().is_some_and(|best| best.0 >= bound) || tried >= TRIED {
                break;
            }
            let mut moves = taken.moves.clone();
            moves.extend(candidate.moves.clone());
            let added = &taken.added | &candidate.added;
            let fresh = candidate.moves.keys().copied();
            let fresh = fresh.filter(|package| !taken.moves.contains_key(package));
            if let Err(clash) = fit(self.lookup, &moves, &added, &fresh.collect()) {
                // It may fit when others have moved.
                if taken.moves.is_empty() {
                    *taken.clashes.entry(clash).or_insert(0) += 1;
                }
                continue;
            }
            tried += 1;
            let value = value(self.lookup, &moves, &added);
            let gain = value.seconds - taken.value.seconds;
            let worth = rank(gain, count);
            if gain > LEAST * count.max(1) as f64 && best.as_ref().is_none_or(|best| worth > best.0)
            {
                best = Some((worth, candidate, moves, added, value));
            }
        }
        best.map(|(_, candidate, moves, added, value)| (candidate, moves, added, value))
    }

    /// Leaves out moves that nothing is lost without.
    fn thin(&self, mut taken: Taken) -> Taken {
        let packages: Vec<usize> = taken.moves.keys().copied().collect();
        for package in packages {
            let mut moves = taken.moves.clone();
            moves.remove(&package);
            let value = value(self.lookup, &moves, &taken.added);
            let is_as_good = value.seconds + 1e-9 >= taken.value.seconds;
            let left = BTreeSet::from([package]);
            if is_as_good && fit(self.lookup, &moves, &taken.added, &left).is_ok() {
                taken.moves = moves;
                taken.value = value;
            }
        }
        taken
    }

    fn describe(&self, taken: Taken) -> Proposal {
        let project = self.lookup.project;
        let before = value(self.lookup, &Moves::new(), &BTreeSet::new());
        let mut seconds: BTreeMap<usize, f64> = BTreeMap::new();
        for (position, node) in project.nodes.iter().enumerate() {
            let (was, is) = (&before.offers[position], &taken.value.offers[position]);
            let gain = match (was.is_empty(), is.is_empty()) {
                (true, false) => node.seconds,
                (false, true) => -node.seconds,
                _ => continue,
            };
            let movers = self.movers(position, &taken.moves);
            for package in &movers {
                *seconds.entry(*package).or_default() += gain / movers.len() as f64;
            }
        }
        let mut offers = Vec::new();
        for (position, found) in taken.value.offers.iter().enumerate() {
            if before.offers[position] != *found {
                offers.extend(found.iter().map(|offer| (position, *offer)));
            }
        }
        let order = project.nodes.iter().map(|node| node.package);
        let mut place: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, package) in order.enumerate() {
            place.entry(package).or_insert(at);
        }
        let steps = taken.moves.into_iter().map(|(package, to)| Step {
            package,
            to,
            seconds: seconds.get(&package).copied().unwrap_or(0.0),
        });
        let mut steps: Vec<Step> = steps.collect();
        steps.sort_by_key(|step| (place.get(&step.package).copied(), step.package));
        let added = taken
            .added
            .iter()
            .map(|offer| &self.lookup.offers.list[*offer]);
        Proposal {
            steps,
            added: added
                .map(|offer| (offer.name.clone(), offer.version.clone()))
                .collect(),
            offers,
            all: project.nodes.iter().map(|node| node.seconds).sum(),
            before: before.seconds,
            after: taken.value.seconds,
            clashes: BTreeMap::new(),
        }
    }

    /// The moved packages that a node has its change from: its own, or else those
    /// below it.
    fn movers(&self, position: usize, moves: &Moves) -> Vec<usize> {
        let nodes = &self.lookup.project.nodes;
        if moves.contains_key(&nodes[position].package) {
            return vec![nodes[position].package];
        }
        let mut seen = BTreeSet::from([position]);
        let mut open = vec![position];
        let mut movers = BTreeSet::new();
        while let Some(node) = open.pop() {
            for need in &nodes[node].needs {
                if moves.contains_key(&nodes[*need].package) {
                    movers.insert(nodes[*need].package);
                } else if seen.insert(*need) {
                    open.push(*need);
                }
            }
        }
        movers.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
