//! Which closures share a workspace.

use std::collections::BTreeSet;

use super::{GenerateError, generate};
use crate::digest::RecipeHash;
use crate::recipe::package::PackageRecipe;

/// Puts closures together, so that what they share is compiled once and Cargo
/// starts seldom: each joins the first batch that it goes with, the largest
/// first. Fails for a closure that no workspace can have.
pub fn batches(closures: &[Vec<PackageRecipe>]) -> Result<Vec<Vec<PackageRecipe>>, GenerateError> {
    let mut open: Vec<&Vec<PackageRecipe>> = closures.iter().collect();
    open.sort_by_key(|closure| std::cmp::Reverse(closure.len()));
    let mut batches: Vec<Vec<PackageRecipe>> = Vec::new();
    for closure in open {
        let joined = batches.iter().enumerate().find_map(|(at, batch)| {
            let joined = join(batch, closure);
            generate(&joined).is_ok().then_some((at, joined))
        });
        match joined {
            Some((at, joined)) => batches[at] = joined,
            None => {
                generate(closure)?;
                batches.push(join(&[], closure));
            }
        }
    }
    Ok(batches)
}

/// Both, each recipe once, dependencies still first.
fn join(batch: &[PackageRecipe], closure: &[PackageRecipe]) -> Vec<PackageRecipe> {
    let mut seen: BTreeSet<RecipeHash> = BTreeSet::new();
    let both = batch.iter().chain(closure);
    both.filter(|recipe| seen.insert(recipe.hash()))
        .cloned()
        .collect()
}
