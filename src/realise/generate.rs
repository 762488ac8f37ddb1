//! From recipes to a workspace whose unit graph has them.
//!
//! Every package of the closure is an exact, aliased dependency of one package
//! that does nothing, with the recorded features and without default ones: in
//! `[dependencies]` where the target needs it, in `[build-dependencies]` where
//! only the host does, in both under one alias where both do. Profiles are
//! what the recipes have in common, with overrides for packages that differ.
//! `Cargo.lock` holds the pins; what other platforms need, Cargo adds.
//!
//! ```text
//! <folder>/
//!   Cargo.toml, Cargo.lock
//!   lib.rs                 empty
//!   build.rs               empty; there if the host needs packages
//!   .cargo/config.toml     flags and target tables, where recipes have them
//! ```
//!
//! Nothing is believed: [`inspect`] plans the workspace and says which recipes
//! its graph does not have, and why. Closures that one graph cannot have
//! together are told apart by [`batches`].

mod batches;
mod inspect;
mod manifest;
mod profiles;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

pub use batches::batches;
pub use inspect::{InspectError, Inspected, Missing, Network, Place, inspect};

use crate::digest::RecipeHash;
use crate::fs;
use crate::recipe::Recipe;
use crate::recipe::package::PackageRecipe;

/// A workspace that stands for a closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Its files, relative to its folder.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Arguments for `cargo build`, such as `--release` or `--target`.
    pub arguments: Vec<String>,
    /// Variables that Cargo must be started with, such as RUSTFLAGS.
    pub environment: Vec<(String, String)>,
}

impl Generated {
    /// Writes the files.
    pub fn write(&self, folder: &Path) -> fs::Result<()> {
        for (path, bytes) in &self.files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap_or(folder))?;
            fs::write(&path, bytes)?;
        }
        Ok(())
    }
}

/// Why recipes cannot be rebuilt by one generated workspace. Recipes are named
/// by the paths of their files.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GenerateError {
    /// Nothing was asked for.
    #[error("there is no recipe to generate a workspace for")]
    Empty,
    /// The closure is not one.
    #[error("`{recipe}` needs {needs}, which is not among the recipes given")]
    Open {
        /// The recipe.
        recipe: String,
        /// What it needs.
        needs: RecipeHash,
    },
    /// Two recipes want different surroundings.
    #[error("`{second}` wants another {what} than `{first}`; realise them one after the other")]
    Differ {
        /// What differs.
        what: &'static str,
        /// A recipe.
        first: String,
        /// One that does not go with it.
        second: String,
    },
    /// One graph has a package once for the target and once for the host.
    #[error(
        "`{first}` and `{second}` are one package with different features or dependencies; realise them one after the other"
    )]
    Twice {
        /// A recipe.
        first: String,
        /// Another of the same package and platform.
        second: String,
    },
    /// Cargo does not resolve two compatible versions of one package.
    #[error(
        "`{first}` and `{second}` have compatible versions, of which Cargo takes only one; realise them one after the other"
    )]
    Compatible {
        /// A recipe.
        first: String,
        /// Another.
        second: String,
    },
    /// The package cannot be fetched.
    #[error("`{recipe}` has the source `{url}`, which no manifest can name")]
    Source {
        /// The recipe.
        recipe: String,
        /// Its source.
        url: String,
    },
    /// No manifest gives this package this profile.
    #[error("`{recipe}` has `{field} = {value}` in its profile, which no manifest can ask for")]
    Profile {
        /// The recipe.
        recipe: String,
        /// The profile's field.
        field: String,
        /// Its value.
        value: String,
    },
    /// A setting that belongs to one machine, or that is not known.
    #[error("`{recipe}` has the setting `{name}`, which cannot be set up elsewhere")]
    Setting {
        /// The recipe.
        recipe: String,
        /// The setting.
        name: String,
    },
}

/// A package instance with what the generator has to know of it.
struct Instance<'a> {
    recipe: &'a PackageRecipe,
    /// Its file's path, by which errors name it.
    name: String,
    host: bool,
}

/// A package with its instances.
struct Package<'a> {
    alias: String,
    target: Option<&'a Instance<'a>>,
    host: Option<&'a Instance<'a>>,
}

impl<'a> Package<'a> {
    /// What both instances agree on.
    fn main(&self) -> &'a Recipe {
        let instance = self.target.or(self.host);
        instance.expect("a package has an instance").recipe.main()
    }

    fn instances(&self) -> impl Iterator<Item = &'a Instance<'a>> {
        self.target.into_iter().chain(self.host)
    }
}

/// Name, version and source: what makes a package one to Cargo.
type Id<'a> = (&'a str, &'a str, &'a str);

fn id(recipe: &Recipe) -> Id<'_> {
    (&recipe.name, &recipe.version, &recipe.source)
}

/// Generates a workspace for a closure, in any order.
pub fn generate(closure: &[PackageRecipe]) -> Result<Generated, GenerateError> {
    let instances: Vec<Instance<'_>> = closure
        .iter()
        .map(|recipe| Instance {
            recipe,
            name: recipe.path().display().to_string(),
            host: recipe.is_host_form(),
        })
        .collect();
    let first = instances.first().ok_or(GenerateError::Empty)?;
    let owners = owners(&instances)?;
    let packages = packages(&instances)?;
    compatible_once(&packages)?;
    for instance in &instances {
        let (own, common) = (instance.recipe.main(), first.recipe.main());
        if own.toolchain != common.toolchain {
            return Err(differ("toolchain", first, instance));
        }
        if shared_settings(own) != shared_settings(common) {
            return Err(differ("setting", first, instance));
        }
    }
    let mut targets = instances.iter().filter(|instance| !instance.host);
    let target = targets.next();
    for other in targets {
        let wants = |instance: &Instance<'_>| {
            let main = instance.recipe.main();
            (main.platform.clone(), main.settings.contains_key("cross"))
        };
        if let Some(target) = target.filter(|target| wants(target) != wants(other)) {
            return Err(differ("platform", target, other));
        }
    }

    let profiles = profiles::Profiles::of(&packages)?;
    let surroundings = manifest::Surroundings::of(first)?;
    let mut files = vec![
        (
            PathBuf::from("Cargo.toml"),
            manifest::manifest(&packages, &owners, &profiles)?.into_bytes(),
        ),
        (
            PathBuf::from("Cargo.lock"),
            manifest::lock(&packages, &owners).into_bytes(),
        ),
        (PathBuf::from("lib.rs"), Vec::new()),
    ];
    if packages.values().any(|package| package.host.is_some()) {
        files.push((PathBuf::from("build.rs"), b"fn main() {}\n".to_vec()));
    }
    if let Some(config) = surroundings.config {
        files.push((PathBuf::from(".cargo/config.toml"), config.into_bytes()));
    }
    let mut arguments = surroundings.arguments;
    arguments.extend(profiles.arguments());
    if let Some(main) = target.map(|target| target.recipe.main())
        && main.settings.contains_key("cross")
    {
        arguments.extend(["--target".to_owned(), main.platform.clone()]);
    }
    Ok(Generated {
        files,
        arguments,
        environment: surroundings.environment,
    })
}

fn differ(what: &'static str, first: &Instance<'_>, second: &Instance<'_>) -> GenerateError {
    GenerateError::Differ {
        what,
        first: first.name.clone(),
        second: second.name.clone(),
    }
}

/// Settings but `cross`, which the platform brings.
fn shared_settings(recipe: &Recipe) -> BTreeMap<&str, &str> {
    let settings = recipe.settings.iter();
    settings
        .filter(|(name, _)| *name != "cross")
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// The package behind each unit; fails where a unit needs what is not there.
fn owners<'a>(instances: &[Instance<'a>]) -> Result<HashMap<RecipeHash, Id<'a>>, GenerateError> {
    let mut owners = HashMap::new();
    for instance in instances {
        for hash in instance.recipe.hashes() {
            owners.insert(*hash, id(instance.recipe.main()));
        }
    }
    for instance in instances {
        let needs = instance.recipe.needs().into_iter();
        if let Some(needs) = needs.into_iter().find(|need| !owners.contains_key(need)) {
            let recipe = instance.name.clone();
            return Err(GenerateError::Open { recipe, needs });
        }
    }
    Ok(owners)
}

fn packages<'a>(
    instances: &'a [Instance<'a>],
) -> Result<BTreeMap<Id<'a>, Package<'a>>, GenerateError> {
    let mut packages: BTreeMap<Id<'a>, Package<'a>> = BTreeMap::new();
    let mut aliases = BTreeSet::new();
    for instance in instances {
        let main = instance.recipe.main();
        let package = packages.entry(id(main)).or_insert_with(|| Package {
            alias: alias(main, &mut aliases),
            target: None,
            host: None,
        });
        let place = if instance.host {
            &mut package.host
        } else {
            &mut package.target
        };
        match place {
            None => *place = Some(instance),
            Some(other) if other.recipe == instance.recipe => {}
            Some(other) => {
                return Err(GenerateError::Twice {
                    first: other.name.clone(),
                    second: instance.name.clone(),
                });
            }
        }
    }
    Ok(packages)
}

/// A name for a dependency that no other has.
fn alias(main: &Recipe, taken: &mut BTreeSet<String>) -> String {
    let version: String = main
        .version
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let mut alias = format!("{}-{version}", main.name);
    // The compiler does not tell `-` from `_`.
    while !taken.insert(alias.replace('-', "_")) {
        alias.push_str("-x");
    }
    alias
}

/// Fails where two versions of a package are compatible.
fn compatible_once(packages: &BTreeMap<Id<'_>, Package<'_>>) -> Result<(), GenerateError> {
    let mut seen: BTreeMap<(&str, &str, String), &Package<'_>> = BTreeMap::new();
    for ((name, version, source), package) in packages {
        let range = (*name, *source, compatible_range(version));
        if let Some(other) = seen.insert(range, package) {
            let name = |package: &Package<'_>| {
                let mut instances = package.instances();
                instances.next().map_or(String::new(), |i| i.name.clone())
            };
            return Err(GenerateError::Compatible {
                first: name(other),
                second: name(package),
            });
        }
    }
    Ok(())
}

/// The leading numbers up to the first that is not zero (Cargo book, "SemVer
/// Compatibility"): versions that share them are compatible.
fn compatible_range(version: &str) -> String {
    let numbers = version.split(['.', '-', '+']).take(3);
    let mut range = String::new();
    for number in numbers {
        range.push_str(number);
        range.push('.');
        if number != "0" {
            break;
        }
    }
    range
}

#[cfg(test)]
mod tests;
