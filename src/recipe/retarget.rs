//! Recipes for another toolchain. Pure.
//!
//! Everything but the tools stays as it is, and hashes follow from the bottom up.
//! So a hash is that of the other Cargo wherever it resolves features, profiles
//! and units as the first one did. Nothing here proves that it does: a builder
//! compares hashes before it compiles.

use std::collections::BTreeMap;

use super::package::{PackageError, PackageRecipe};
use super::{Recipe, Tools};
use crate::digest::RecipeHash;

/// Why recipes cannot be given another toolchain.
#[derive(Debug, thiserror::Error)]
pub enum RetargetError {
    /// What one needs does not come before it.
    #[error("`{0}` is needed, and does not come before what needs it")]
    Absent(RecipeHash),
    /// What comes out is no package instance.
    #[error("the recipe cannot have another toolchain")]
    Package(#[from] PackageError),
}

/// Gives recipes, each after what it needs, other tools; in the same order.
pub fn retarget(
    recipes: &[PackageRecipe],
    tools: &Tools,
) -> Result<Vec<PackageRecipe>, RetargetError> {
    let mut hashes: BTreeMap<RecipeHash, RecipeHash> = BTreeMap::new();
    let mut retargeted = Vec::with_capacity(recipes.len());
    for recipe in recipes {
        let mut units = Vec::with_capacity(recipe.units().len());
        for (unit, hash) in recipe.units().iter().zip(recipe.hashes()) {
            let mut unit: Recipe = unit.clone();
            unit.toolchain = tools.clone();
            for dependency in &mut unit.dependencies {
                let new = hashes.get(&dependency.recipe);
                dependency.recipe = *new.ok_or(RetargetError::Absent(dependency.recipe))?;
            }
            hashes.insert(*hash, unit.hash());
            units.push(unit);
        }
        retargeted.push(PackageRecipe::new(units)?);
    }
    Ok(retargeted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a`, and `b` with a build script that needs it.
    fn recipes(rustc: &str) -> Vec<PackageRecipe> {
        let file = |name: &str, units: &str| {
            let text = format!(
                "format = 1\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"registry+x\"\n\n\
                 [toolchain]\nrustc = \"{rustc}\"\ncargo = \"cargo of {rustc}\"\n\
                 layout = \"legacy\"\n{units}"
            );
            PackageRecipe::from_toml(&text).unwrap()
        };
        let unit = |kind: &str, needs: &[(&str, RecipeHash)]| {
            let needs = needs
                .iter()
                .map(|(name, hash)| format!("{{ name = \"{name}\", recipe = \"{hash}\" }}"));
            let needs: Vec<String> = needs.collect();
            format!(
                "\n[[unit]]\nkind = \"{kind}\"\ntarget = \"x\"\ncrate-types = [\"lib\"]\n\
                 edition = \"2021\"\nfeatures = []\nplatform = \"p\"\ndependencies = [{}]\n",
                needs.join(", ")
            )
        };
        let a = file("a", &unit("lib", &[]));
        // The hash of the build script, before the library can name it.
        let script = unit("build-script", &[("a", a.hash())]);
        let alone = file("b", &script.replace("build-script", "lib"));
        let mut script_alone = alone.main().clone();
        script_alone.target.kind = "build-script".to_owned();
        let library = unit("lib", &[("script", script_alone.hash()), ("a", a.hash())]);
        let b = file("b", &(script + &library));
        vec![a, b]
    }

    #[test]
    fn every_hash_is_that_of_the_other_toolchain() {
        let (old, new) = (recipes("1.0"), recipes("2.0"));
        assert_ne!(old, new);
        assert_eq!(retarget(&old, &new[0].main().toolchain).unwrap(), new);
        assert_eq!(retarget(&new, &old[0].main().toolchain).unwrap(), old);
    }

    #[test]
    fn what_is_needed_must_be_there() {
        let old = recipes("1.0");
        let tools = old[0].main().toolchain.clone();
        let error = retarget(&old[1..], &tools).unwrap_err();
        assert!(error.to_string().contains(&old[0].hash().to_string()));
    }
}
