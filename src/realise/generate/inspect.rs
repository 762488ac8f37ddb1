//! Whether a generated workspace has the recipes it stands for.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use super::Generated;
use crate::cargo::invocation::{Invocation, Subcommand};
use crate::digest::RecipeHash;
use crate::environment::Environment;
use crate::plan::graph::{self, Form, Planned, recipe_of};
use crate::plan::{Context, ContextError};
use crate::recipe::Recipe;
use crate::recipe::package::PackageRecipe;

/// Whether Cargo may ask a registry for what the lock file lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// `--offline`: only what Cargo's home has.
    Forbidden,
    /// Cargo may ask.
    Allowed,
}

/// A generated workspace as Cargo sees it.
#[derive(Debug)]
pub struct Inspected {
    /// What was found out about it.
    pub context: Context,
    /// Its units.
    pub units: Vec<Planned>,
    /// Wanted recipes that it does not have.
    pub missing: Vec<Missing>,
}

/// A wanted recipe that no unit of the graph has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The file of the recipe.
    pub recipe: String,
    /// The unit's kind.
    pub kind: String,
    /// Its hash.
    pub hash: RecipeHash,
    /// Fields in which the most similar unit differs; none if there is no unit
    /// of this package and kind.
    pub differs: Vec<&'static str>,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            recipe,
            kind,
            hash,
            differs,
        } = self;
        write!(f, "`{recipe}`: {kind} {hash}: ")?;
        if differs.is_empty() {
            write!(f, "Cargo would compile no such unit")
        } else {
            write!(
                f,
                "Cargo would compile it with other {}",
                differs.join(", ")
            )
        }
    }
}

/// A generated workspace that Cargo does not understand.
#[derive(Debug, thiserror::Error)]
#[error("Cargo cannot plan the workspace that stands for the recipes")]
pub struct InspectError(#[from] ContextError);

/// Where a generated workspace is inspected.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Where it was written. Configuration files above it count.
    pub folder: &'a Path,
    /// The variables of this process.
    pub environment: &'a Environment,
    /// Where answers of Cargo are kept.
    pub cache: &'a Path,
    /// Whether Cargo may ask a registry.
    pub network: Network,
}

/// Plans a generated workspace, and compares it with the closure it was
/// generated from. Nothing is compiled; Cargo completes `Cargo.lock`.
pub fn inspect(
    generated: &Generated,
    closure: &[PackageRecipe],
    place: Place<'_>,
) -> Result<Inspected, InspectError> {
    let mut environment = place.environment.clone();
    for (name, value) in &generated.environment {
        environment.set(name, value.clone());
    }
    let mut arguments = generated.arguments.clone();
    if place.network == Network::Forbidden {
        arguments.push("--offline".to_owned());
    }
    let invocation = Invocation {
        subcommand: Subcommand::Build,
        arguments,
    };
    let context = Context::gather(&environment, place.folder, &invocation, place.cache)?;
    let units = graph::describe(&context.graph, &context.common);
    let found: HashSet<RecipeHash> = units
        .iter()
        .flat_map(|unit| [unit.recipe, unit.host_recipe])
        .collect();
    let mut missing = Vec::new();
    let mut seen = BTreeSet::new();
    for package in closure {
        for (unit, hash) in package.units().iter().zip(package.hashes()) {
            if !found.contains(hash) && seen.insert(*hash) {
                missing.push(Missing {
                    recipe: package.path().display().to_string(),
                    kind: unit.target.kind.clone(),
                    hash: *hash,
                    differs: nearest(unit, &units, &context),
                });
            }
        }
    }
    Ok(Inspected {
        context,
        units,
        missing,
    })
}

/// The fields in which the most similar unit of the graph differs.
fn nearest(wanted: &Recipe, units: &[Planned], context: &Context) -> Vec<&'static str> {
    let form = if wanted.profile.contains_key("debuginfo") {
        Form::Target
    } else {
        Form::Host
    };
    let similar = units.iter().enumerate().filter(|(_, unit)| {
        unit.package.name == wanted.name
            && unit.package.version == wanted.version
            && unit.kind == wanted.target.kind
    });
    similar
        .map(|(index, _)| differing(wanted, &recipe_of(units, index, form, &context.common)))
        .min_by_key(Vec::len)
        .unwrap_or_default()
}

fn differing(a: &Recipe, b: &Recipe) -> Vec<&'static str> {
    let fields = [
        ("source", a.source == b.source),
        ("checksum", a.checksum == b.checksum),
        ("target", a.target == b.target),
        ("features", a.features == b.features),
        ("platform", a.platform == b.platform),
        ("toolchain", a.toolchain == b.toolchain),
        ("profile", a.profile == b.profile),
        ("settings", a.settings == b.settings),
        ("dependencies", a.dependencies == b.dependencies),
    ];
    let differing = fields.iter().filter(|(_, same)| !same);
    differing.map(|(name, _)| *name).collect()
}
