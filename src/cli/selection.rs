//! The selection of an analysis as recipe files: those that are known of the chosen
//! trees, in a folder, or as a branch of the recipe repository that the folder is in.
//!
//! A recipe is of a tree if it has its name and version, and so on for all that it
//! needs. One tree may have several recipes, with different features or profiles;
//! all of them are taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Failure;
use crate::analyse::report::{Selected, Selection};
use crate::cargo::output_of;
use crate::digest::RecipeHash;
use crate::fs;
use crate::recipe::repository::Repository;

/// What was written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Recipe files.
    pub(super) recipes: usize,
    /// Those that were not there.
    pub(super) new: usize,
    /// Chosen trees of which a recipe is known.
    pub(super) trees: usize,
    /// The branch, if one was made.
    pub(super) branch: Option<String>,
}

/// Writes the recipes of a selection that a repository knows into a folder.
pub(super) fn write(
    selection: &Selection,
    known: &Path,
    to: &Path,
    branch: Option<&str>,
) -> Result<Written, Failure> {
    let repository = Repository::read(known)?;
    let (recipes, trees) = chosen(selection, &repository);
    if recipes.is_empty() {
        return Err(Failure::new(format!(
            "`{}` has no recipe of a chosen tree",
            known.display()
        ))
        .hint(
            "`quickbuild recipe export` writes recipes; `--known DIR` names a folder with some",
        ));
    }
    let mut written = Written {
        recipes: recipes.len(),
        trees,
        branch: branch.map(str::to_owned),
        ..Written::default()
    };
    match branch {
        None => written.new = put(&repository, &recipes, to)?,
        Some(branch) => {
            written.new = on_branch(to, branch, &|folder| put(&repository, &recipes, folder))?;
        }
    }
    Ok(written)
}

/// Recipes of chosen trees, and how many trees have one.
fn chosen(selection: &Selection, repository: &Repository) -> (BTreeSet<RecipeHash>, usize) {
    let trees: HashMap<&str, &Selected> = selection
        .trees
        .iter()
        .map(|tree| (tree.tree.as_str(), tree))
        .collect();
    let mut by_name: HashMap<(&str, &str), Vec<&Selected>> = HashMap::new();
    for tree in &selection.trees {
        let same = by_name.entry((&tree.name, &tree.version)).or_default();
        same.push(tree);
    }
    let mut search = Search {
        repository,
        trees: &trees,
        known: BTreeMap::new(),
    };
    let mut recipes = BTreeSet::new();
    let mut found = BTreeSet::new();
    for entry in repository.entries() {
        let recipe = &entry.recipe;
        let same = by_name.get(&(recipe.name(), recipe.version()));
        for tree in same.into_iter().flatten() {
            if search.is_of(recipe.hash(), tree) {
                recipes.insert(recipe.hash());
                found.insert(tree.tree.as_str());
            }
        }
    }
    (recipes, found.len())
}

struct Search<'a> {
    repository: &'a Repository,
    trees: &'a HashMap<&'a str, &'a Selected>,
    known: BTreeMap<(RecipeHash, &'a str), bool>,
}

impl<'a> Search<'a> {
    fn is_of(&mut self, recipe: RecipeHash, tree: &'a Selected) -> bool {
        let key = (recipe, tree.tree.as_str());
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        // What needs itself is of no tree.
        self.known.insert(key, false);
        let is_of = self.look(recipe, tree);
        self.known.insert(key, is_of);
        is_of
    }

    fn look(&mut self, recipe: RecipeHash, tree: &'a Selected) -> bool {
        let repository = self.repository;
        let Some(entry) = repository.get(recipe) else {
            return false;
        };
        let of = &entry.recipe;
        if of.name() != tree.name || of.version() != tree.version {
            return false;
        }
        let trees = self.trees;
        of.needs().into_iter().all(|need| {
            let needs = tree.needs.iter();
            let mut below = needs.filter_map(|need| trees.get(need.as_str()).copied());
            below.any(|below| self.is_of(need, below))
        })
    }
}

fn put(
    repository: &Repository,
    recipes: &BTreeSet<RecipeHash>,
    to: &Path,
) -> Result<usize, Failure> {
    let mut new = 0;
    for recipe in recipes {
        if let Some(entry) = repository.get(*recipe) {
            new += usize::from(Repository::write(to, &entry.recipe)?);
        }
    }
    Ok(new)
}

/// Writes into a new branch of the Git repository around a folder. What is checked
/// out there stays as it is.
fn on_branch(
    folder: &Path,
    branch: &str,
    write: &dyn Fn(&Path) -> Result<usize, Failure>,
) -> Result<usize, Failure> {
    let git = |folder: &Path, arguments: &[&str]| {
        let mut command = Command::new("git");
        output_of(command.arg("-C").arg(folder).args(arguments))
    };
    let below = git(folder, &["rev-parse", "--show-prefix"]).map_err(|error| {
        Failure::from(error).hint("`--branch` needs a folder of a Git repository")
    })?;
    let root = git(folder, &["rev-parse", "--git-common-dir"])?;
    let root: PathBuf = folder.join(root.trim());
    let place = fs::unique_beside(&root.join("quickbuild-selection"));
    let text = place.to_string_lossy().into_owned();
    git(folder, &["worktree", "add", "--quiet", "-b", branch, &text])?;
    let done = write(&place.join(below.trim())).and_then(|new| {
        if new > 0 {
            git(&place, &["add", "--all"])?;
            let message = format!("Add {new} recipes of the trees that are worth most");
            git(&place, &["commit", "--quiet", "--message", &message])?;
        }
        Ok(new)
    });
    let removed = git(folder, &["worktree", "remove", "--force", &text]);
    if done.is_err() {
        // The first error tells what went wrong.
        let _ = git(folder, &["branch", "--quiet", "-D", branch]);
    }
    let new = done?;
    removed?;
    Ok(new)
}
