//! From recipes to orders: each batch of closures that one workspace can have
//! is generated, looked at, and then realised like any workspace.

use std::path::PathBuf;

use super::generate::{self, GenerateError, Generated, InspectError, Network, Place};
use super::scratch::scratch;
use crate::digest::RecipeHash;
use crate::environment::Environment;
use crate::fs::{self, FsError};
use crate::recipe::package::PackageRecipe;
use crate::store::Store;

/// A generated workspace, removed when dropped.
#[derive(Debug)]
pub struct Assignment {
    /// Where it is.
    pub folder: PathBuf,
    /// Arguments of Cargo.
    pub arguments: Vec<String>,
    /// The user's variables, and what the recipes need.
    pub environment: Environment,
    /// What people call it.
    pub name: String,
    /// All recipes that must come of it.
    pub wanted: Vec<RecipeHash>,
}

impl Drop for Assignment {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder); // the next realisation does it otherwise
    }
}

/// Why recipes cannot be realised.
#[derive(Debug, thiserror::Error)]
pub enum AssignError {
    /// No workspace has them.
    #[error("the recipes cannot be built as they are")]
    Generate(#[from] GenerateError),
    /// Cargo does not understand the workspace.
    #[error("the recipes cannot be planned")]
    Inspect(#[from] InspectError),
    /// Cargo would build something else.
    #[error("`{recipe}` cannot be built as it is: {reason}")]
    Unlike {
        /// The recipe's file.
        recipe: String,
        /// How what would be built differs.
        reason: String,
    },
    /// A file.
    #[error("the generated workspace cannot be written")]
    File(#[from] FsError),
}

/// Makes a workspace of each batch of closures. Where the toolchain of the
/// recipes is this machine's, Cargo is asked whether it would build just them;
/// otherwise the half in the builder asks.
pub fn assign(
    closures: &[Vec<PackageRecipe>],
    environment: &Environment,
    store: &Store,
    toolchain: &str,
) -> Result<Vec<Assignment>, AssignError> {
    let mut assignments = Vec::new();
    for batch in generate::batches(closures)? {
        let generated = generate::generate(&batch)?;
        let folder = fs::unique_beside(&scratch(store));
        let mut own = environment.clone();
        for (name, value) in &generated.environment {
            own.set(name, value.clone());
        }
        let assignment = Assignment {
            arguments: generated.arguments.clone(),
            environment: own,
            name: name(&batch),
            wanted: batch
                .iter()
                .flat_map(|recipe| recipe.hashes().iter().copied())
                .collect(),
            folder,
        };
        generated.write(&assignment.folder)?;
        if batch
            .iter()
            .all(|recipe| recipe.main().toolchain.rustc == toolchain)
        {
            look_at(&generated, &batch, &assignment, store)?;
        }
        assignments.push(assignment);
    }
    Ok(assignments)
}

fn look_at(
    generated: &Generated,
    batch: &[PackageRecipe],
    assignment: &Assignment,
    store: &Store,
) -> Result<(), AssignError> {
    let cache = store.cache("");
    let place = Place {
        folder: &assignment.folder,
        environment: &assignment.environment,
        cache: &cache,
        network: Network::Allowed,
    };
    let inspected = generate::inspect(generated, batch, place)?;
    match inspected.missing.into_iter().next() {
        Some(missing) => Err(AssignError::Unlike {
            reason: missing.to_string(),
            recipe: missing.recipe,
        }),
        None => Ok(()),
    }
}

/// The package that nothing else needs, and how many recipes go with it.
fn name(batch: &[PackageRecipe]) -> String {
    let last = batch.last();
    let name = last.map_or(String::new(), |recipe| {
        format!("{} {}", recipe.name(), recipe.version())
    });
    match batch.len() {
        0 | 1 => name,
        count => format!("{name} and {} more", count - 1),
    }
}
