//! Recipes as files, and workspaces generated from them.

mod files;
mod generated;

use std::path::{Path, PathBuf};

use quickbuild::recipe::package::PackageRecipe;
use quickbuild::recipe::repository::Repository;

use crate::support::{Outcome, Project, TestEnv, walk};

/// Exports a project's recipes into a repository beside it.
#[track_caller]
fn export(env: &TestEnv, project: &Project, arguments: &[&str]) -> PathBuf {
    let recipes = env.root().join("recipes");
    let mut all = vec!["recipe", "export", "--to", recipes.to_str().unwrap()];
    all.extend(arguments);
    let _ = env.quickbuild(project, &all).success();
    recipes
}

#[track_caller]
fn check(env: &TestEnv, project: &Project, recipes: &Path, arguments: &[&str]) -> Outcome {
    let mut all = vec!["recipe", "check", recipes.to_str().unwrap()];
    all.extend(arguments);
    env.quickbuild(project, &all)
}

/// A closure of all recipes of a repository.
fn closure(recipes: &Path) -> Vec<PackageRecipe> {
    let repository = Repository::read(recipes).unwrap();
    assert!(repository.check().is_empty(), "{:?}", repository.check());
    let entries = repository.entries().iter();
    entries.map(|entry| entry.recipe.clone()).collect()
}

/// Names of the packages of a repository, with `host` for the host's form.
fn names(closure: &[PackageRecipe]) -> Vec<String> {
    let name = |recipe: &PackageRecipe| {
        let host = if recipe.is_host_form() { " host" } else { "" };
        format!("{} {}{host}", recipe.name(), recipe.version())
    };
    closure.iter().map(name).collect()
}

fn file_of(recipes: &Path, name: &str) -> PathBuf {
    let files = walk(recipes).into_iter();
    let mut files = files.filter(|file| file.parent().unwrap().ends_with(name));
    files.next().unwrap()
}
