//! What workspaces share by recipes: a lock file does not tell features, profiles
//! and toolchains, so trees overstate what is shared.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::digest::RecipeHash;

/// A library or proc macro that a command compiles.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Compiled {
    /// Its package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its recipe.
    pub recipe: RecipeHash,
}

/// What was planned of one workspace.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The repository that it is of.
    pub repository: String,
    /// What is compiled there, of others' packages.
    pub packages: BTreeSet<Compiled>,
}

/// What is shared.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Recipes {
    /// Workspaces that were planned.
    pub workspaces: usize,
    /// Packages in all of them; one in two selections of features counts twice.
    pub packages: usize,
    /// Different recipes.
    pub distinct: usize,
    /// Share of packages whose recipe another repository has.
    pub shared: f64,
    /// Share of packages of which another repository has the version, in whatever
    /// recipe.
    pub versions: f64,
    /// The packages with most recipes in one version.
    pub most: Vec<Varied>,
}

/// A version of a package that comes in several recipes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Varied {
    /// `<name>-<version>`.
    pub package: String,
    /// How many.
    pub recipes: usize,
}

/// Packages that are listed.
const LISTED: usize = 10;

/// Compares workspaces.
pub fn compare(planned: &[Planned]) -> Recipes {
    let mut by_recipe: BTreeMap<RecipeHash, BTreeSet<&str>> = BTreeMap::new();
    let mut by_version: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    let mut recipes: BTreeMap<(&str, &str), BTreeSet<RecipeHash>> = BTreeMap::new();
    for workspace in planned {
        for of in &workspace.packages {
            let key = (of.name.as_str(), of.version.as_str());
            let repository = workspace.repository.as_str();
            by_recipe.entry(of.recipe).or_default().insert(repository);
            by_version.entry(key).or_default().insert(repository);
            recipes.entry(key).or_default().insert(of.recipe);
        }
    }
    let all = || planned.iter().flat_map(|workspace| &workspace.packages);
    let packages = all().count();
    let share = |count: usize| count as f64 / (packages.max(1)) as f64;
    let shared = all().filter(|of| by_recipe[&of.recipe].len() > 1);
    let versions = all().filter(|of| by_version[&(&*of.name, &*of.version)].len() > 1);
    let mut most: Vec<Varied> = recipes
        .iter()
        .filter(|(_, recipes)| recipes.len() > 1)
        .map(|((name, version), recipes)| Varied {
            package: format!("{name}-{version}"),
            recipes: recipes.len(),
        })
        .collect();
    most.sort_by(|a, b| {
        let count = b.recipes.cmp(&a.recipes);
        count.then_with(|| a.package.cmp(&b.package))
    });
    most.truncate(LISTED);
    Recipes {
        workspaces: planned.len(),
        packages,
        distinct: by_recipe.len(),
        shared: share(shared.count()),
        versions: share(versions.count()),
        most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Canonical;

    #[test]
    fn versions_overstate_what_is_shared() {
        let workspace = |repository: &str, packages: &[(&str, &str)]| {
            let packages = packages.iter().map(|(name, recipe)| {
                let mut canonical = Canonical::new("sample");
                canonical.text(name).text(recipe);
                Compiled {
                    name: (*name).to_owned(),
                    version: "1.0.0".to_owned(),
                    recipe: RecipeHash::finish(canonical),
                }
            });
            Planned {
                repository: repository.to_owned(),
                packages: packages.collect(),
            }
        };
        let compared = compare(&[
            workspace("one", &[("a", "std"), ("b", "std")]),
            workspace("two", &[("a", "std"), ("b", "alloc")]),
        ]);
        assert_eq!((compared.packages, compared.distinct), (4, 3));
        assert_eq!((compared.shared, compared.versions), (0.5, 1.0));
        assert_eq!(compared.most.len(), 1);
        assert_eq!(compared.most[0].package, "b-1.0.0");
        assert_eq!(compare(&[]).packages, 0);
    }
}
