//! What is built already, with some packages moved.
//!
//! A node whose version, and all below it, is as it was has the offer that it had.
//! Any other has an offer of its package's new version with the same features, if
//! all that this was built against is offered for the nodes below.

use std::collections::BTreeSet;

use super::project::{Lookup, Moves, OfferId};

/// What is built already.
#[derive(Debug, Clone, Default)]
pub(super) struct Value {
    /// For each node, the offers that would do.
    pub(super) offers: Vec<Vec<OfferId>>,
    /// Seconds of all that have one.
    pub(super) seconds: f64,
}

/// How often nodes are looked at again that need what comes behind them.
const ROUNDS: usize = 4;

/// Looks at all nodes. `added` are offers of packages that are not in the lock
/// file yet, and come in with a move.
pub(super) fn value(lookup: &Lookup, moves: &Moves, added: &BTreeSet<OfferId>) -> Value {
    let nodes = &lookup.project.nodes;
    let mut found = Value {
        offers: vec![Vec::new(); nodes.len()],
        seconds: 0.0,
    };
    let mut changed = vec![false; nodes.len()];
    for (position, node) in nodes.iter().enumerate() {
        changed[position] =
            moves.contains_key(&node.package) || node.needs.iter().any(|need| changed[*need]);
        if !changed[position] {
            found.offers[position].extend(node.offer);
        }
    }
    for _ in 0..ROUNDS {
        let mut is_settled = true;
        for position in (0..nodes.len()).filter(|position| changed[*position]) {
            let offers = fitting(lookup, moves, added, (position, &found.offers));
            if offers != found.offers[position] {
                found.offers[position] = offers;
                is_settled = false;
            }
        }
        if is_settled {
            break;
        }
    }
    let served = nodes.iter().zip(&found.offers);
    let served = served.filter(|(_, offers)| !offers.is_empty());
    found.seconds = served.fold(0.0, |sum, (node, _)| sum + node.seconds);
    found
}

fn fitting(
    lookup: &Lookup,
    moves: &Moves,
    added: &BTreeSet<OfferId>,
    (position, found): (usize, &[Vec<OfferId>]),
) -> Vec<OfferId> {
    let node = &lookup.project.nodes[position];
    let package = &lookup.project.packages[node.package];
    let is_moved = moves.contains_key(&node.package);
    let version = lookup.version(node.package, moves);
    let is_below = |need: OfferId| {
        let mut below = node.needs.iter();
        if below.any(|below| found[*below].contains(&need)) {
            return true;
        }
        // Another version may need what this one does not.
        let offer = &lookup.offers.list[need];
        let others = || {
            let packages = lookup.named(&offer.name).iter();
            packages.flat_map(|package| &lookup.nodes[*package])
        };
        is_moved && (added.contains(&need) || others().any(|other| found[*other].contains(&need)))
    };
    let offers = lookup.offers.of(&package.name, version).iter().copied();
    let offers = offers.filter(|offer| {
        let needs = &lookup.offers.list[*offer].needs;
        !lookup.banned.contains(offer)
            && (is_moved || needs.len() == node.needs.len())
            && lookup.has_features(*offer, position)
            && needs.iter().all(|need| is_below(*need))
    });
    offers.collect()
}
