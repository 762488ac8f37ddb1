//! Outputs that are not in the store and could be: what substituters have.

use std::collections::HashMap;
use std::sync::Arc;

use crate::digest::{RecipeHash, UnitKey};
use crate::output::{Naming, Output};

/// What a plan may count on besides the store. Whoever offers it has seen to it
/// that all an output refers to is offered as well, or in the store.
#[derive(Debug, Default)]
pub struct Offers {
    outputs: HashMap<RecipeHash, Vec<Arc<Output>>>,
    namings: HashMap<UnitKey, Naming>,
}

impl Offers {
    /// Adds an output.
    pub fn add_output(&mut self, output: Output) {
        let outputs = self.outputs.entry(output.host_recipe).or_default();
        outputs.push(Arc::new(output));
    }

    /// Adds how Cargo names a unit.
    pub fn add_naming(&mut self, naming: Naming) {
        self.namings.insert(naming.key, naming);
    }

    /// The outputs of a recipe.
    pub(super) fn candidates(&self, host_recipe: RecipeHash) -> &[Arc<Output>] {
        self.outputs.get(&host_recipe).map_or(&[], Vec::as_slice)
    }

    /// How Cargo names a unit.
    pub(super) fn naming(&self, key: UnitKey) -> Option<&Naming> {
        self.namings.get(&key)
    }
}
