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
    // When a node was looked at last, and when its offers changed last.
    let (mut looked, mut altered) = (vec![0; nodes.len()], vec![0; nodes.len()]);
    let mut now = 0;
    for round in 0..ROUNDS {
        let (mut is_settled, mut is_ordered) = (true, true);
        for position in (0..nodes.len()).filter(|position| changed[*position]) {
            let node = &nodes[position];
            let is_stale = |need: &usize| altered[*need] > looked[position];
            let is_due =
                round == 0 || moves.contains_key(&node.package) || node.needs.iter().any(is_stale);
            if !is_due {
                continue;
            }
            now += 1;
            looked[position] = now;
            let (offers, is_ahead) = fitting(lookup, moves, added, (position, &found.offers));
            is_ordered &= !is_ahead;
            if offers != found.offers[position] {
                found.offers[position] = offers;
                altered[position] = now;
                is_settled = false;
            }
        }
        // Nobody has looked at what was not known yet.
        if is_settled || is_ordered {
            break;
        }
    }
    let served = nodes.iter().zip(&found.offers);
    let served = served.filter(|(_, offers)| !offers.is_empty());
    found.seconds = served.fold(0.0, |sum, (node, _)| sum + node.seconds);
    found
}

/// The offers that would do for a node, and whether something behind it was looked at.
fn fitting(
    lookup: &Lookup,
    moves: &Moves,
    added: &BTreeSet<OfferId>,
    (position, found): (usize, &[Vec<OfferId>]),
) -> (Vec<OfferId>, bool) {
    let node = &lookup.project.nodes[position];
    let package = &lookup.project.packages[node.package];
    let moved = moves.get(&node.package);
    let mut is_ahead = false;
    let mut has = |other: usize, need: OfferId| {
        is_ahead |= other > position;
        found[other].contains(&need)
    };
    let mut is_below = |need: OfferId| {
        if node.needs.iter().any(|below| has(*below, need)) {
            return true;
        }
        // Another version may need what this one does not.
        let mut others = lookup.nodes_named(need).iter();
        moved.is_some() && (added.contains(&need) || others.any(|other| has(*other, need)))
    };
    let offers = lookup.offers_for(position, moved.unwrap_or(&package.version));
    let offers = offers.iter().copied().filter(|offer| {
        let needs = &lookup.offers.list[*offer].needs;
        (moved.is_some() || needs.len() == node.needs.len())
            && needs.iter().all(|need| is_below(*need))
    });
    let offers = offers.collect();
    (offers, is_ahead)
}
