//! Which trees to build under a budget.
//!
//! Building a tree saves its package's seconds in each project that has it, and
//! it can only be used with all below it. So what is chosen is closed: with a
//! tree, everything that it needs. What a tree is worth does not depend on what
//! else is chosen, once its dependencies are: the value of a closed set is a sum
//! over its trees, and so is its cost.
//!
//! With a budget of *seconds*, greedy is optimal but for the last tree. A tree
//! saves `weight × seconds` and costs `seconds`, so its value for its cost is its
//! weight; and whoever has a tree has all below it, so nothing below a tree has
//! less weight. Taking trees by weight therefore takes dependencies first by
//! itself, and is the best fractional filling of the knapsack; what is lost
//! against the best whole filling is less than one tree.
//!
//! With a budget of *bytes*, or both priced, value for cost is not monotone any
//! more: a cheap package may hang on dear ones. Then trees are taken with all
//! that they still lack, by value for cost of the whole, which is the usual
//! approximation of a knapsack with precedence.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::census::{Census, NodeId};
use super::costs::Cost;

/// What a build may cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// Seconds of one processor.
    Seconds(f64),
    /// Bytes of storage.
    Bytes(f64),
}

/// A tree that was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The tree.
    pub node: NodeId,
    /// Seconds spent on it and all chosen before it.
    pub spent_seconds: f64,
    /// Bytes stored for it and all chosen before it.
    pub spent_bytes: f64,
    /// Seconds that it and all chosen before it save, over all projects by
    /// their weights.
    pub saved: f64,
}

/// What of a tree counts.
struct Priced<'a> {
    census: &'a Census,
    costs: &'a [Cost],
    weights: &'a [f64],
    budget: Budget,
}

impl Priced<'_> {
    fn cost(&self, node: NodeId) -> Cost {
        self.costs[self.census.nodes[node as usize].package as usize]
    }

    fn price(&self, node: NodeId) -> f64 {
        let cost = self.cost(node);
        match self.budget {
            Budget::Seconds(_) => cost.seconds,
            Budget::Bytes(_) => cost.bytes.max(1.0),
        }
    }

    fn value(&self, node: NodeId) -> f64 {
        self.weights[node as usize] * self.cost(node).seconds
    }

    fn limit(&self) -> f64 {
        match self.budget {
            Budget::Seconds(limit) | Budget::Bytes(limit) => limit,
        }
    }

    /// What a tree still lacks, dependencies first, with price and value.
    fn lacking(&self, root: NodeId, taken: &[bool]) -> (Vec<NodeId>, f64, f64) {
        let mut lacking: Vec<NodeId> = Vec::new();
        let mut seen = std::collections::HashSet::from([root]);
        let mut open = vec![root];
        let (mut price, mut value) = (0.0, 0.0);
        while let Some(node) = open.pop() {
            lacking.push(node);
            price += self.price(node);
            value += self.value(node);
            for child in &self.census.nodes[node as usize].children {
                if !taken[*child as usize] && seen.insert(*child) {
                    open.push(*child);
                }
            }
        }
        lacking.sort_unstable();
        (lacking, price, value)
    }
}

/// A tree on the heap, by what it was worth when it was looked at.
#[derive(PartialEq)]
struct Offer {
    density: f64,
    node: NodeId,
}

impl Eq for Offer {}

impl Ord for Offer {
    fn cmp(&self, other: &Self) -> Ordering {
        let density = self.density.total_cmp(&other.density);
        // The earlier tree first: it is the dependency.
        density.then(other.node.cmp(&self.node))
    }
}

impl PartialOrd for Offer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Chooses trees, each with all it needs before it, as long as the budget
/// lasts. `weights` say what a tree counts, as in [`Census::weights_of`]; trees
/// that count nothing are never chosen.
pub fn select(census: &Census, costs: &[Cost], weights: &[f64], budget: Budget) -> Vec<Choice> {
    let priced = Priced {
        census,
        costs,
        weights,
        budget,
    };
    match budget {
        Budget::Seconds(_) => by_weight(&priced),
        Budget::Bytes(_) => by_density(&priced),
    }
}

fn by_weight(priced: &Priced) -> Vec<Choice> {
    let mut order: Vec<NodeId> = (0..priced.census.nodes.len() as NodeId).collect();
    order.retain(|node| priced.weights[*node as usize] > 0.0);
    // Stable: dependencies stay before what needs them.
    order.sort_by(|a, b| priced.weights[*b as usize].total_cmp(&priced.weights[*a as usize]));
    let mut ledger = Ledger::new(priced);
    for node in order {
        // A dependency may have been passed over as too dear.
        if ledger.has_all_below(node) {
            ledger.take(&[node]);
        }
    }
    ledger.choices
}

fn by_density(priced: &Priced) -> Vec<Choice> {
    let nodes = &priced.census.nodes;
    let mut parents: Vec<Vec<NodeId>> = vec![Vec::new(); nodes.len()];
    for (position, node) in nodes.iter().enumerate() {
        for child in &node.children {
            parents[*child as usize].push(position as NodeId);
        }
    }
    let mut ledger = Ledger::new(priced);
    let offer = |node: NodeId, taken: &[bool]| {
        let (_, price, value) = priced.lacking(node, taken);
        Offer {
            density: value / price,
            node,
        }
    };
    let mut heap: BinaryHeap<Offer> = (0..nodes.len() as NodeId)
        .filter(|node| priced.weights[*node as usize] > 0.0)
        .map(|node| offer(node, &ledger.taken))
        .collect();
    while let Some(best) = heap.pop() {
        if ledger.taken[best.node as usize] {
            continue;
        }
        let (lacking, price, value) = priced.lacking(best.node, &ledger.taken);
        if value / price < best.density {
            // It shared what has been taken since.
            heap.push(Offer {
                density: value / price,
                node: best.node,
            });
            continue;
        }
        if ledger.take(&lacking) {
            let mut touched: Vec<NodeId> = lacking
                .iter()
                .flat_map(|node| parents[*node as usize].iter().copied())
                .filter(|parent| priced.weights[*parent as usize] > 0.0)
                .filter(|parent| !ledger.taken[*parent as usize])
                .collect();
            touched.sort_unstable();
            touched.dedup();
            heap.extend(touched.into_iter().map(|node| offer(node, &ledger.taken)));
        }
    }
    ledger.choices
}

/// What has been taken and spent.
struct Ledger<'a> {
    priced: &'a Priced<'a>,
    taken: Vec<bool>,
    choices: Vec<Choice>,
    spent: f64,
}

impl<'a> Ledger<'a> {
    fn new(priced: &'a Priced<'a>) -> Self {
        Self {
            priced,
            taken: vec![false; priced.census.nodes.len()],
            choices: Vec::new(),
            spent: 0.0,
        }
    }

    fn has_all_below(&self, node: NodeId) -> bool {
        let mut children = self.priced.census.nodes[node as usize].children.iter();
        children.all(|child| self.taken[*child as usize])
    }

    /// Takes trees if the budget allows all of them.
    fn take(&mut self, nodes: &[NodeId]) -> bool {
        let price: f64 = nodes.iter().map(|node| self.priced.price(*node)).sum();
        if self.spent + price > self.priced.limit() {
            return false;
        }
        self.spent += price;
        for node in nodes {
            self.taken[*node as usize] = true;
            let cost = self.priced.cost(*node);
            let before = self.choices.last();
            self.choices.push(Choice {
                node: *node,
                spent_seconds: before.map_or(0.0, |c| c.spent_seconds) + cost.seconds,
                spent_bytes: before.map_or(0.0, |c| c.spent_bytes) + cost.bytes,
                saved: before.map_or(0.0, |c| c.saved) + self.priced.value(*node),
            });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analyse::census::{Node, Package};
    use crate::analyse::costs::Origin;
    use crate::digest::{Canonical, TreeHash};

    /// Trees that need some of those before them; each with a weight of its own,
    /// beside those of what needs it.
    fn census() -> impl Strategy<Value = (Census, Vec<Cost>, Vec<f64>)> {
        let tree = (1u32..20, 1u32..20, 0u32..4, any::<u8>());
        prop::collection::vec(tree, 1..9).prop_map(|trees| {
            let mut census = Census::default();
            let mut costs = Vec::new();
            let mut weights = Vec::new();
            for (position, (seconds, bytes, weight, mask)) in trees.into_iter().enumerate() {
                let mut canonical = Canonical::new("test");
                canonical.number(position as u64);
                let children = (0..position as NodeId).filter(|child| mask >> child & 1 == 1);
                census.nodes.push(Node {
                    hash: TreeHash::finish(canonical),
                    package: position as u32,
                    children: children.collect(),
                    projects: 0,
                    repositories: 0,
                    weight: 0.0,
                });
                census.packages.push(Package {
                    name: format!("p{position}"),
                    version: "1.0.0".to_owned(),
                    source: String::new(),
                });
                costs.push(Cost {
                    seconds: seconds.into(),
                    bytes: bytes.into(),
                    origin: Origin::Measured,
                });
                weights.push(f64::from(weight));
            }
            // Whoever has a tree has all below it.
            let own = weights.clone();
            for (root, weight) in own.iter().enumerate() {
                for node in census.closure(root as NodeId) {
                    if node as usize != root {
                        weights[node as usize] += weight;
                    }
                }
            }
            (census, costs, weights)
        })
    }

    /// The best closed set under a budget, by trying all.
    fn best(priced: &Priced) -> f64 {
        let count = priced.census.nodes.len();
        let sets = (0u32..1 << count).filter(|set| {
            (0..count).filter(|node| set >> node & 1 == 1).all(|node| {
                let children = &priced.census.nodes[node].children;
                children.iter().all(|child| set >> child & 1 == 1)
            })
        });
        let sum = |set: u32, of: &dyn Fn(NodeId) -> f64| -> f64 {
            let chosen = (0..count).filter(|node| set >> node & 1 == 1);
            chosen.map(|node| of(node as NodeId)).sum()
        };
        let values = sets
            .filter(|set| sum(*set, &|node| priced.price(node)) <= priced.limit())
            .map(|set| sum(set, &|node| priced.value(node)));
        values.fold(0.0, f64::max)
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_closed_and_affordable(
            (census, costs, weights) in census(), limit in 1u32..100, bytes in any::<bool>(),
        ) {
            let limit = f64::from(limit);
            let budget = if bytes { Budget::Bytes(limit) } else { Budget::Seconds(limit) };
            let choices = select(&census, &costs, &weights, budget);
            let mut taken = std::collections::BTreeSet::new();
            for choice in &choices {
                let children = &census.nodes[choice.node as usize].children;
                prop_assert!(children.iter().all(|child| taken.contains(child)));
                prop_assert!(taken.insert(choice.node));
            }
            let spent = choices.last().map_or(0.0, |last| match budget {
                Budget::Seconds(_) => last.spent_seconds,
                Budget::Bytes(_) => last.spent_bytes,
            });
            prop_assert!(spent <= limit);
        }

        /// With seconds, less than the dearest tree's worth is lost.
        #[test]
        fn seconds_are_spent_all_but_best((census, costs, weights) in census(), limit in 1u32..100) {
            let budget = Budget::Seconds(f64::from(limit));
            let choices = select(&census, &costs, &weights, budget);
            let saved = choices.last().map_or(0.0, |last| last.saved);
            let priced = Priced { census: &census, costs: &costs, weights: &weights, budget };
            let nodes = 0..census.nodes.len() as NodeId;
            let dearest = nodes.map(|node| priced.value(node)).fold(0.0, f64::max);
            prop_assert!(saved + dearest >= best(&priced), "{} {}", saved, best(&priced));
        }
    }
}
