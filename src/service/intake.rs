//! What a client sends, taken apart and checked. Pure.
//!
//! Invariants:
//! * Nothing is passed on that crates.io could not have published: names and
//!   versions have its alphabet, so that no markup and no query gets any further.
//! * A package that is not from crates.io is left out here, and so is every
//!   package that needs it. Nothing else of it is kept.

use std::collections::HashMap;

use crate::analyse::trees::trees;
use crate::cargo::lock_graph::{LockError, LockGraph, LockedPackage};
use crate::cargo::source::{CRATES_IO, is_crates_io};
use crate::digest::{ContentHash, RecipeHash};
use crate::recipe::package::{PackageError, PackageRecipe};
use crate::report::{FORMAT, Report, Usage};

/// Packages that a lock file may have; the largest of 335 real ones has 1,130.
pub const PACKAGES: usize = 5_000;
/// Recipes that a report may have.
pub const RECIPES: usize = 5_000;
/// Characters of a project's name.
const PROJECT: usize = 64;
/// The project of whoever names none.
pub const NO_PROJECT: &str = "-";
/// Seconds that one report may claim: a day.
const SECONDS: f64 = 86_400.0;
/// Units that one report may claim.
const UNITS: u64 = 100_000;

/// What somebody may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A package with the versions of all below it.
    Tree,
    /// A package instance.
    Recipe,
    /// A builder.
    Builder,
}

impl Kind {
    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Recipe => "recipe",
            Self::Builder => "builder",
        }
    }

    /// Its number in the table of counts.
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Tree => 1,
            Self::Recipe => 2,
            Self::Builder => 3,
        }
    }

    /// The kind of a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let all = [Self::Tree, Self::Recipe, Self::Builder];
        all.into_iter().find(|kind| kind.name() == name)
    }
}

/// Something that is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// What it is.
    pub kind: Kind,
    /// A tree hash, a recipe hash or a builder's name.
    pub hash: String,
    /// The package; of a builder, its name.
    pub name: String,
    /// Its version; of a builder, nothing.
    pub version: String,
    /// Positions of what it needs, each before this one.
    pub needs: Vec<usize>,
    /// With all below it, and itself.
    pub packages: usize,
    /// The text of a recipe's file.
    pub text: Option<String>,
}

/// A report that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Intake {
    /// The project.
    pub project: String,
    /// Of all that decides what is counted.
    pub content: ContentHash,
    /// What is counted; what it needs comes first.
    pub wants: Vec<Want>,
    /// Packages that were left out.
    pub left_out: usize,
    /// What a command got and lacked.
    pub usage: Option<Usage>,
}

/// Why a report is refused.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It is not what a packed body is.
    #[error("the body cannot be unpacked")]
    Packed(#[source] std::io::Error),
    /// It is larger than it looked.
    #[error("the unpacked body has more than {0} bytes")]
    Swelling(usize),
    /// It is not the JSON that is expected.
    #[error("this is no report")]
    Json(#[source] serde_json::Error),
    /// Another version.
    #[error("format {0} is not known, only {FORMAT} is")]
    Format(u32),
    /// Nothing is in it.
    #[error("the report has no lock file, no recipe and no usage")]
    Empty,
    /// The lock file is none.
    #[error("this is no Cargo.lock")]
    Lock(#[from] LockError),
    /// A recipe is none.
    #[error("recipe {position} is none")]
    Recipe {
        /// Counted from one.
        position: usize,
        /// Why.
        source: PackageError,
    },
    /// A recipe is not in its one spelling.
    #[error("recipe {0} is not canonical")]
    NotCanonical(usize),
    /// A recipe comes before what it needs, or without.
    #[error("`{recipe}` needs `{needed}`, which does not come before it")]
    Order {
        /// The one.
        recipe: RecipeHash,
        /// The other.
        needed: RecipeHash,
    },
    /// A recipe of something that is not on crates.io.
    #[error("`{0}` is not from crates.io")]
    Foreign(String),
    /// Too much.
    #[error("{what}: {found}, more than {limit} are not taken")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// So many.
        found: usize,
        /// At most.
        limit: usize,
    },
    /// Not a name.
    #[error("{what} is not made of up to {limit} letters, digits and `-_.`")]
    Name {
        /// What.
        what: &'static str,
        /// Characters.
        limit: usize,
    },
    /// Not a package that crates.io could have.
    #[error("a package has a name or version that crates.io does not allow")]
    Package,
    /// A number that cannot be.
    #[error("`{0}` is out of range")]
    Range(&'static str),
}

impl Intake {
    /// Reads a Cargo.lock as it is.
    pub fn of_lock(text: &[u8], project: Option<&str>) -> Result<Self, IntakeError> {
        let project = name(project.unwrap_or(NO_PROJECT), "the project")?;
        let (wants, left_out) = wanted_trees(text)?;
        Ok(Self {
            project,
            content: ContentHash::of(text),
            wants,
            left_out,
            usage: None,
        })
    }

    /// Reads a [`Report`].
    pub fn of_report(json: &[u8]) -> Result<Self, IntakeError> {
        let report: Report = serde_json::from_slice(json).map_err(IntakeError::Json)?;
        if report.format != FORMAT {
            return Err(IntakeError::Format(report.format));
        }
        if report.lock.is_none() && report.recipes.is_empty() && report.usage.is_none() {
            return Err(IntakeError::Empty);
        }
        let project = name(
            report.project.as_deref().unwrap_or(NO_PROJECT),
            "the project",
        )?;
        let mut wants = Vec::new();
        let mut left_out = 0;
        if let Some(lock) = &report.lock {
            (wants, left_out) = wanted_trees(lock.as_bytes())?;
        }
        add_recipes(&mut wants, &report.recipes)?;
        if let Some(builder) = &report.builder {
            let builder = name(builder, "the builder")?;
            wants.push(Want {
                kind: Kind::Builder,
                hash: builder.clone(),
                name: builder,
                version: String::new(),
                needs: Vec::new(),
                packages: 0,
                text: None,
            });
        }
        if let Some(usage) = &report.usage {
            check_usage(usage)?;
        }
        let mut content = crate::digest::ContentHasher::default();
        let builder = report.builder.as_deref().unwrap_or_default();
        for part in [builder, "\n", report.lock.as_deref().unwrap_or_default()] {
            content.update(part.as_bytes());
        }
        for recipe in &report.recipes {
            content.update(b"\0");
            content.update(recipe.as_bytes());
        }
        Ok(Self {
            project,
            content: content.finish(),
            wants,
            left_out,
            usage: report.usage,
        })
    }
}

fn name(text: &str, what: &'static str) -> Result<String, IntakeError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.len() > PROJECT || !text.bytes().all(is_allowed) {
        let limit = PROJECT;
        return Err(IntakeError::Name { what, limit });
    }
    Ok(text.to_owned())
}

/// crates.io's rules for new names, and the alphabet of semantic versions
/// (crates.io's `Crate::validate_crate_name`; semver.org 2.0.0, 2 and 9 to 11).
fn is_published(name: &str, version: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_version = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+".contains(&byte);
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.len() <= 64
        && name.bytes().all(is_name)
        && version.starts_with(|first: char| first.is_ascii_digit())
        && version.len() <= 128
        && version.bytes().all(is_version)
}

/// The trees of a lock file, and how many packages are in none.
fn wanted_trees(text: &[u8]) -> Result<(Vec<Want>, usize), IntakeError> {
    let mut lock = LockGraph::parse(text)?;
    if lock.packages.len() > PACKAGES {
        return Err(IntakeError::TooMany {
            what: "packages",
            found: lock.packages.len(),
            limit: PACKAGES,
        });
    }
    for package in &mut lock.packages {
        // From now on as good as a folder, which nobody else has.
        let is_public = package.source.as_deref().is_some_and(is_crates_io);
        package.source = is_public.then(|| CRATES_IO.to_owned());
        if is_public && !is_published(&package.name, &package.version) {
            return Err(IntakeError::Package);
        }
    }
    let found = trees(&lock);
    let left_out = lock.packages.len() - found.len();
    let needs: Vec<&[usize]> = found.iter().map(|tree| &tree.children[..]).collect();
    let sizes = sizes(&needs);
    let wants = found.iter().zip(sizes).map(|(tree, packages)| {
        let LockedPackage { name, version, .. } = &lock.packages[tree.package];
        Want {
            kind: Kind::Tree,
            hash: tree.hash.to_string(),
            name: name.clone(),
            version: version.clone(),
            needs: tree.children.clone(),
            packages,
            text: None,
        }
    });
    Ok((wants.collect(), left_out))
}

/// How many there are below each, and itself.
fn sizes(needs: &[&[usize]]) -> Vec<usize> {
    let words = needs.len().div_ceil(64);
    let mut below = vec![0_u64; words * needs.len()];
    let mut sizes = Vec::with_capacity(needs.len());
    for (position, needed) in needs.iter().enumerate() {
        let (before, own) = below.split_at_mut(position * words);
        let own = &mut own[..words];
        own[position / 64] |= 1 << (position % 64);
        for needed in *needed {
            let theirs = &before[needed * words..][..words];
            for (word, more) in own.iter_mut().zip(theirs) {
                *word |= more;
            }
        }
        sizes.push(own.iter().map(|word| word.count_ones() as usize).sum());
    }
    sizes
}

/// Recipes as wants, each after what it needs.
pub(super) fn wanted_recipes(texts: &[String]) -> Result<Vec<Want>, IntakeError> {
    let mut wants = Vec::new();
    add_recipes(&mut wants, texts)?;
    Ok(wants)
}

/// Adds recipes, each after what it needs.
fn add_recipes(wants: &mut Vec<Want>, texts: &[String]) -> Result<(), IntakeError> {
    if texts.len() > RECIPES {
        return Err(IntakeError::TooMany {
            what: "recipes",
            found: texts.len(),
            limit: RECIPES,
        });
    }
    let begin = wants.len();
    let mut places: HashMap<RecipeHash, usize> = HashMap::new();
    for (position, text) in texts.iter().enumerate() {
        let position = position + 1;
        let recipe = PackageRecipe::from_toml(text);
        let recipe = recipe.map_err(|source| IntakeError::Recipe { position, source })?;
        if recipe.to_toml() != *text {
            return Err(IntakeError::NotCanonical(position));
        }
        let main = recipe.main();
        if !is_published(&main.name, &main.version) {
            return Err(IntakeError::Package);
        }
        if !recipe.units().iter().all(|unit| is_crates_io(&unit.source)) {
            return Err(IntakeError::Foreign(recipe.name().to_owned()));
        }
        let place = |needed: RecipeHash| {
            let recipe = recipe.hash();
            let place = places.get(&needed).copied();
            place.ok_or(IntakeError::Order { recipe, needed })
        };
        let needs = recipe.needs().into_iter().map(place);
        let mut needs: Vec<usize> = needs.collect::<Result<_, _>>()?;
        needs.sort_unstable();
        needs.dedup();
        if places.contains_key(&recipe.hash()) {
            continue;
        }
        // Others may need any of its units: the run of a build script, by `links`.
        // One that several recipes have is the first one's.
        for unit in recipe.hashes() {
            places.entry(*unit).or_insert(wants.len());
        }
        wants.push(Want {
            kind: Kind::Recipe,
            hash: recipe.hash().to_string(),
            name: recipe.name().to_owned(),
            version: recipe.version().to_owned(),
            needs,
            packages: 0,
            text: Some(text.clone()),
        });
    }
    let needs = wants[begin..].iter().map(|want| {
        let needs = want.needs.iter().map(|needed| needed - begin);
        needs.collect::<Vec<usize>>()
    });
    let needs: Vec<Vec<usize>> = needs.collect();
    let needs: Vec<&[usize]> = needs.iter().map(Vec::as_slice).collect();
    for (want, size) in wants[begin..].iter_mut().zip(sizes(&needs)) {
        want.packages = size;
    }
    Ok(())
}

fn check_usage(usage: &Usage) -> Result<(), IntakeError> {
    name(&usage.id, "the report's id")?;
    for (what, units) in [("hits", usage.hits), ("misses", usage.misses)] {
        if units > UNITS {
            return Err(IntakeError::Range(what));
        }
    }
    for (what, seconds) in [
        ("seconds-saved", usage.seconds_saved),
        ("seconds-compiled", usage.seconds_compiled),
    ] {
        if !(0.0..=SECONDS).contains(&seconds) {
            return Err(IntakeError::Range(what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
