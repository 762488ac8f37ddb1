//! A recipe repository: a folder of recipe files that pull requests feed.
//!
//! ```text
//! <root>/
//!   README.md, …                      other files: not looked at
//!   se/serde/1.0.228-<hash>.toml      one package instance
//! ```
//!
//! `<hash>` is the recipe hash of the instance's main unit. A repository is
//! sound if every file is canonical and has its right name, if everything that
//! a file needs is there, and if the registries agree with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use petgraph::graph::{DiGraph, NodeIndex};
use serde::Serialize;

use super::package::{PackageError, PackageRecipe};
use crate::cargo::registry_index::RegistryIndex;
use crate::cargo::source::PackageSource;
use crate::digest::RecipeHash;
use crate::fs;

/// One file of a repository.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Relative to the repository.
    pub path: PathBuf,
    /// What it says.
    pub recipe: PackageRecipe,
}

/// A repository as it was read.
#[derive(Debug, Default)]
pub struct Repository {
    entries: Vec<Entry>,
    /// Files by the hashes of their units, in order.
    by_unit: HashMap<RecipeHash, Vec<usize>>,
    /// What was found wrong while reading.
    problems: Vec<Problem>,
}

/// Something wrong with a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Problem {
    /// The file, relative to the repository.
    pub file: PathBuf,
    /// What is wrong with it.
    #[serde(flatten)]
    pub fault: Fault,
}

/// What can be wrong with a file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(
    tag = "fault",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Fault {
    /// It is no recipe file.
    #[error("cannot be read: {reason}")]
    Unreadable {
        /// Why not.
        reason: String,
    },
    /// It says the same as a canonical file in other words.
    #[error("is not in canonical form; `quickbuild recipe add` writes it so")]
    NotCanonical,
    /// Its name does not say what is in it.
    #[error("belongs at `{}`", expected.display())]
    Misplaced {
        /// Where it belongs.
        expected: PathBuf,
    },
    /// Another file says the same.
    #[error("is the same recipe as `{}`", other.display())]
    Duplicate {
        /// The other file.
        other: PathBuf,
    },
    /// Something it needs has no file.
    #[error("needs `{name}` {recipe}, which no file describes")]
    Missing {
        /// The dependency's name.
        name: String,
        /// Its hash.
        recipe: RecipeHash,
    },
    /// It needs itself.
    #[error("needs itself, by way of {}", list(through))]
    Cycle {
        /// The other files on the cycle.
        through: Vec<PathBuf>,
    },
    /// The source is a folder or of an unknown form.
    #[error("has the source `{url}`, which others cannot fetch")]
    Source {
        /// The source.
        url: String,
    },
    /// The registry has no such version.
    #[error("is not in the registry")]
    Unpublished,
    /// The registry has another archive.
    #[error("has the checksum {found}, and the registry has {published}")]
    Checksum {
        /// The checksum in the file.
        found: String,
        /// The registry's.
        published: String,
    },
    /// The version was withdrawn.
    #[error("is yanked")]
    Yanked,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.fault)
    }
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "nothing else".to_owned();
    }
    let paths: Vec<String> = paths.iter().map(|p| format!("`{}`", p.display())).collect();
    paths.join(", ")
}

/// No recipe, or more than one, answers to a name.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum FindError {
    /// None does.
    #[error("no recipe is called `{0}`")]
    None(String),
    /// Several do.
    #[error("{} recipes are called `{name}`", paths.len())]
    Several {
        /// What was asked for.
        name: String,
        /// The files.
        paths: Vec<PathBuf>,
    },
}

/// A closure that the repository does not have as a whole.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClosureError {
    /// Nothing describes this recipe.
    #[error("no file describes the recipe {recipe}{}", needed_by(by))]
    Missing {
        /// The recipe.
        recipe: RecipeHash,
        /// The file that needs it; none for what was asked for.
        by: Option<PathBuf>,
    },
    /// A recipe needs itself.
    #[error("`{}` needs itself", .0.display())]
    Cycle(PathBuf),
}

fn needed_by(by: &Option<PathBuf>) -> String {
    by.as_ref()
        .map(|by| format!(", which `{}` needs", by.display()))
        .unwrap_or_default()
}

impl Repository {
    /// Reads all files; a folder that is not there is an empty repository.
    pub fn read(root: &Path) -> fs::Result<Self> {
        let mut this = Self::default();
        for path in fs::walk(root)? {
            if path.components().count() < 2 {
                continue;
            }
            let file = root.join(&path);
            if fs::read_link(&file).is_ok() {
                // What it points to may be nobody's business.
                let reason = "it is a symbolic link".to_owned();
                this.fault(&path, Fault::Unreadable { reason });
                continue;
            }
            let text = fs::read(&file)?;
            match read(&text) {
                Ok(recipe) => {
                    if recipe.to_toml().as_bytes() != text {
                        this.fault(&path, Fault::NotCanonical);
                    }
                    if recipe.path() != path {
                        let expected = recipe.path();
                        this.fault(&path, Fault::Misplaced { expected });
                    }
                    this.entries.push(Entry { path, recipe });
                }
                Err(reason) => this.fault(&path, Fault::Unreadable { reason }),
            }
        }
        for (index, entry) in this.entries.iter().enumerate() {
            for hash in entry.recipe.hashes() {
                this.by_unit.entry(*hash).or_default().push(index);
            }
        }
        Ok(this)
    }

    fn fault(&mut self, file: &Path, fault: Fault) {
        self.problems.push(Problem {
            file: file.to_owned(),
            fault,
        });
    }

    /// The files, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Writes a recipe where it belongs. Returns whether it is new there.
    pub fn write(root: &Path, recipe: &PackageRecipe) -> fs::Result<bool> {
        let path = root.join(recipe.path());
        let text = recipe.to_toml();
        let there = fs::read_optional(&path)?;
        if there.as_deref() == Some(text.as_bytes()) {
            return Ok(false);
        }
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write_atomic(&path, text.as_bytes())?;
        Ok(there.is_none())
    }

    /// Finds a recipe by its hash, the beginning of its hash, its name, or
    /// `name@version`.
    pub fn find(&self, text: &str) -> Result<&Entry, FindError> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let matching = |test: &dyn Fn(&PackageRecipe) -> bool| -> Vec<&Entry> {
            let entries = self.entries.iter();
            entries.filter(|entry| test(&entry.recipe)).collect()
        };
        let mut found = matching(&|recipe| {
            recipe.name() == name && version.is_none_or(|version| recipe.version() == version)
        });
        if found.is_empty() && !text.is_empty() {
            found = matching(&|recipe| recipe.hash().to_string().starts_with(text));
        }
        match found.as_slice() {
            [] => Err(FindError::None(text.to_owned())),
            [entry] => Ok(entry),
            several => Err(FindError::Several {
                name: text.to_owned(),
                paths: several.iter().map(|entry| entry.path.clone()).collect(),
            }),
        }
    }

    /// The file that describes a recipe.
    pub fn get(&self, recipe: RecipeHash) -> Option<&Entry> {
        let index = *self.by_unit.get(&recipe)?.first()?;
        self.entries.get(index)
    }

    /// Recipes with all they need, dependencies first, each once.
    pub fn closure(&self, roots: &[RecipeHash]) -> Result<Vec<&PackageRecipe>, ClosureError> {
        let mut order = Vec::new();
        // Whether all below a file is in the order; absent: not reached yet.
        let mut finished: BTreeMap<usize, bool> = BTreeMap::new();
        for root in roots {
            let start = self.index_of(*root, None, &finished)?;
            if finished.contains_key(&start) {
                continue;
            }
            finished.insert(start, false);
            let mut open = vec![(start, self.needs_of(start))];
            while let Some((index, needs)) = open.last_mut() {
                let entry = &self.entries[*index];
                let Some(need) = needs.pop() else {
                    finished.insert(*index, true);
                    order.push(&entry.recipe);
                    open.pop();
                    continue;
                };
                let need = self.index_of(need, Some(entry), &finished)?;
                match finished.get(&need) {
                    Some(true) => {}
                    Some(false) => {
                        let path = self.entries[need].path.clone();
                        return Err(ClosureError::Cycle(path));
                    }
                    None => {
                        finished.insert(need, false);
                        open.push((need, self.needs_of(need)));
                    }
                }
            }
        }
        Ok(order)
    }

    /// What a file needs, the last first.
    fn needs_of(&self, index: usize) -> Vec<RecipeHash> {
        let mut needs = self.entries[index].recipe.needs();
        needs.reverse();
        needs
    }

    /// The file of a recipe. A build script's run may be in several; one that is
    /// in the closure already is taken first.
    fn index_of(
        &self,
        recipe: RecipeHash,
        by: Option<&Entry>,
        finished: &BTreeMap<usize, bool>,
    ) -> Result<usize, ClosureError> {
        let files = self.by_unit.get(&recipe).map_or(&[][..], Vec::as_slice);
        let known = files.iter().find(|file| finished.contains_key(file));
        known
            .or(files.first())
            .copied()
            .ok_or_else(|| ClosureError::Missing {
                recipe,
                by: by.map(|entry| entry.path.clone()),
            })
    }

    /// Looks for all that can be found without asking a registry.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = self.problems.clone();
        let mut fault = |entry: &Entry, fault| {
            problems.push(Problem {
                file: entry.path.clone(),
                fault,
            });
        };
        let mut first: HashMap<RecipeHash, &Entry> = HashMap::new();
        for entry in &self.entries {
            let other = first.entry(entry.recipe.hash()).or_insert(entry);
            if other.path != entry.path {
                let other = other.path.clone();
                fault(entry, Fault::Duplicate { other });
            }
            if PackageSource::parse(&entry.recipe.main().source).is_none() {
                let url = entry.recipe.main().source.clone();
                fault(entry, Fault::Source { url });
            }
        }
        let claimed = self.claimed();
        let mut edges = DiGraph::<(), ()>::new();
        let nodes: Vec<NodeIndex> = self.entries.iter().map(|_| edges.add_node(())).collect();
        for (index, entry) in self.entries.iter().enumerate() {
            for need in entry.recipe.needs() {
                let by_name = claimed.get(&need);
                for file in self.by_unit.get(&need).into_iter().flatten().chain(by_name) {
                    edges.update_edge(nodes[index], nodes[*file], ());
                }
                if !self.by_unit.contains_key(&need) {
                    let name = name_of(&entry.recipe, need);
                    fault(entry, Fault::Missing { name, recipe: need });
                }
            }
        }
        for cycle in petgraph::algo::tarjan_scc(&edges) {
            let of = |node: &NodeIndex| &self.entries[node.index()];
            if cycle.len() > 1 || edges.contains_edge(cycle[0], cycle[0]) {
                let through = cycle[1..].iter().map(|node| of(node).path.clone());
                let through = through.collect();
                fault(of(&cycle[0]), Fault::Cycle { through });
            }
        }
        problems.sort();
        problems
    }

    /// Files by the hashes in their names. What is in a file that was edited by
    /// hand has another hash, and others still refer to the old one.
    fn claimed(&self) -> HashMap<RecipeHash, usize> {
        let hash = |entry: &Entry| {
            let (_, hash) = entry.path.file_stem()?.to_str()?.rsplit_once('-')?;
            hash.parse().ok()
        };
        let entries = self.entries.iter().enumerate();
        entries
            .filter_map(|(index, entry)| Some((hash(entry)?, index)))
            .collect()
    }

    /// Sources of registries with the names of their packages here.
    pub fn registries(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut registries: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for entry in &self.entries {
            let source = &entry.recipe.main().source;
            if matches!(
                PackageSource::parse(source),
                Some(PackageSource::CratesIo | PackageSource::Registry { .. })
            ) {
                let names = registries.entry(source).or_default();
                names.insert(entry.recipe.name());
            }
        }
        registries
    }

    /// Compares the packages of a source with what its registry says now.
    pub fn check_registry(&self, source: &str, index: &RegistryIndex) -> Vec<Problem> {
        let of_source = |entry: &&Entry| entry.recipe.main().source == source;
        let entries = self.entries.iter().filter(of_source);
        let faults = entries.filter_map(|entry| {
            let recipe = &entry.recipe;
            let found = recipe.main().checksum.clone().unwrap_or_default();
            let fault = match index.of(recipe.name(), recipe.version()) {
                None => Fault::Unpublished,
                Some(published) if published.checksum != found => Fault::Checksum {
                    found,
                    published: published.checksum.clone(),
                },
                Some(published) if published.yanked => Fault::Yanked,
                Some(_) => return None,
            };
            Some(Problem {
                file: entry.path.clone(),
                fault,
            })
        });
        faults.collect()
    }
}

/// Reads a file; the error is for people.
fn read(bytes: &[u8]) -> Result<PackageRecipe, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    PackageRecipe::from_toml(text).map_err(|error| match error {
        // Without the lines that are wrong: a report is a list.
        PackageError::Syntax(ref cause) => format!("{error}: {}", cause.message()),
        other => other.to_string(),
    })
}

/// The name by which a package knows one of its dependencies.
fn name_of(recipe: &PackageRecipe, need: RecipeHash) -> String {
    let mut edges = recipe.units().iter().flat_map(|unit| &unit.dependencies);
    edges
        .find(|edge| edge.recipe == need)
        .map_or(String::new(), |edge| edge.name.clone())
}

#[cfg(test)]
mod tests;
