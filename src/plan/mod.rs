//! What is needed, what is there, and why the rest is not.
//!
//! | module | job |
//! |---|---|
//! | [`context`] | asks Cargo what a command means |
//! | `answers` | remembers what Cargo said |
//! | [`graph`] | unit graph → recipes; pure |
//! | [`export`] | recipes of a command's packages, written out; pure |
//! | [`inputs`] | compares files and variables with what an output assumes |
//! | [`offers`] | what substituters have |
//! | [`resolve`] | chooses an output for each unit |
//! | [`state`] | what is in a target directory already |

mod answers;
pub mod context;
pub mod export;
pub mod graph;
pub mod inputs;
pub mod offers;
pub mod resolve;
pub mod state;

use std::collections::HashMap;

pub use context::{Context, ContextError};
pub use graph::Planned;
pub use offers::Offers;
pub use resolve::{Reason, Resolution, Verdict};

use crate::digest::UnitKey;
use crate::store::Store;
use inputs::Inspector;
use resolve::Shelf;

/// A plan: every unit with its verdict.
#[derive(Debug)]
pub struct Plan {
    /// The units, in the graph's order.
    pub units: Vec<Planned>,
    /// Their indices, dependencies first.
    pub order: Vec<usize>,
    /// What the store has for them.
    pub resolution: Resolution,
    /// The unit behind each key.
    pub by_key: HashMap<UnitKey, usize>,
}

impl Plan {
    /// Plans a command.
    pub fn make(context: &Context, store: &Store, inspector: &Inspector<'_>) -> Self {
        Self::make_with(context, store, inspector, &Offers::default())
    }

    /// Plans a command as if what is offered were in the store.
    pub fn make_with(
        context: &Context,
        store: &Store,
        inspector: &Inspector<'_>,
        offers: &Offers,
    ) -> Self {
        let units = graph::describe(&context.graph, &context.common);
        let order = graph::dependencies_first(&context.graph);
        let shelf = Shelf { store, offers };
        let resolution = resolve::resolve(&units, &order, &shelf, inspector, &context.toolchain);
        let by_key = units
            .iter()
            .enumerate()
            .map(|(index, unit)| (unit.key, index))
            .collect();
        Self {
            units,
            order,
            resolution,
            by_key,
        }
    }

    /// The number of units that are ready.
    pub fn ready(&self) -> usize {
        let verdicts = self.resolution.verdicts.iter();
        verdicts
            .filter(|verdict| matches!(verdict, Verdict::Ready(_)))
            .count()
    }

    /// Seconds that the ready units took when they were compiled, divided by
    /// the number of compile jobs then: about what a build would wait for them.
    pub fn seconds_ready(&self) -> f64 {
        let seconds = self
            .resolution
            .verdicts
            .iter()
            .map(|verdict| match verdict {
                Verdict::Ready(output) => output.seconds / f64::from(output.jobs.max(1)),
                Verdict::Missing(_) => 0.0,
            });
        seconds.sum()
    }

    /// Indices of units that can be linked: ready, their names known, and all
    /// they need linkable, too. The others that are ready need the bridge.
    pub fn linkable(&self) -> Vec<bool> {
        let mut linkable = vec![false; self.units.len()];
        for &index in &self.order {
            let naming = self.resolution.namings[index].as_ref();
            linkable[index] = self.resolution.output(index).is_some()
                && naming.is_some_and(|naming| {
                    let known =
                        |key: &UnitKey| self.by_key.get(key).is_some_and(|&dep| linkable[dep]);
                    naming.deps.iter().all(known)
                })
                && self.units[index].needs.iter().all(|&need| linkable[need]);
        }
        linkable
    }
}
