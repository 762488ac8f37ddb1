//! A package instance as one file: its library or proc macro with its own build
//! script. Pure: no I/O.
//!
//! [`Recipe`] describes one unit. A file holds what all its units share once,
//! then one `[[unit]]` table for each, dependencies first and the main unit
//! last. A package instance has exactly one text: whoever reads a file and
//! prints it again gets the same bytes, or the file was not canonical.
//! `docs/formats/recipe.md` has an example.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::text::{inline_list, key, quoted};
use super::{Dependency, FORMAT, Recipe, Target, Tools};
use crate::digest::RecipeHash;

/// The units of one package instance, dependencies first, the main unit last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRecipe {
    units: Vec<Recipe>,
    hashes: Vec<RecipeHash>,
}

/// Units of one file; a real package has one to five.
const UNITS: usize = 64;

/// Text or units that are no package instance.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Not TOML, or not the fields of a recipe file.
    #[error("not a recipe file")]
    Syntax(#[source] Box<toml::de::Error>),
    /// Written by another version of quickbuild.
    #[error("recipe format {found} is not supported, only {FORMAT} is")]
    Format {
        /// The version found.
        found: i64,
    },
    /// There is no unit.
    #[error("the recipe has no unit")]
    Empty,
    /// More units than a package instance has.
    #[error("the recipe has {0} units, more than {UNITS} are not supported")]
    TooMany(usize),
    /// A name that cannot be that of a published package.
    #[error("`{0}` is not a package name")]
    Name(String),
    /// A version that cannot be that of a published package.
    #[error("`{0}` is not a version")]
    Version(String),
    /// What files share differs between the units.
    #[error("the units are not of one package and toolchain")]
    Mixed,
    /// The last unit is not what others depend on.
    #[error("the last unit is a `{0}`, not a library or proc macro")]
    MainKind(String),
    /// A unit is not part of a build script.
    #[error("a `{0}` is no part of a package's library")]
    Kind(String),
    /// A unit that the main unit does not need.
    #[error("the main unit does not need the `{kind}` {hash}")]
    Unneeded {
        /// The unit's kind.
        kind: String,
        /// Its hash.
        hash: RecipeHash,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    format: u32,
    name: String,
    version: String,
    source: String,
    checksum: Option<String>,
    toolchain: Tools,
    #[serde(default)]
    settings: BTreeMap<String, String>,
    #[serde(default)]
    unit: Vec<UnitTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct UnitTable {
    kind: String,
    target: String,
    crate_types: Vec<String>,
    edition: String,
    features: Vec<String>,
    platform: String,
    #[serde(default)]
    test: bool,
    #[serde(default)]
    dependencies: Vec<Dependency>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
    #[serde(default)]
    profile: BTreeMap<String, String>,
}

impl PackageRecipe {
    /// Makes a package instance of units in any order, but the main unit last.
    pub fn new(mut units: Vec<Recipe>) -> Result<Self, PackageError> {
        if units.len() > UNITS {
            return Err(PackageError::TooMany(units.len()));
        }
        let main = units.pop().ok_or(PackageError::Empty)?;
        if main.format != FORMAT {
            let found = i64::from(main.format);
            return Err(PackageError::Format { found });
        }
        if !is_name(&main.name) {
            return Err(PackageError::Name(main.name));
        }
        if !is_version(&main.version) {
            return Err(PackageError::Version(main.version));
        }
        if !matches!(main.target.kind.as_str(), "lib" | "proc-macro") {
            return Err(PackageError::MainKind(main.target.kind));
        }
        for unit in &units {
            if !matches!(unit.target.kind.as_str(), "build-script" | "build-run") {
                return Err(PackageError::Kind(unit.target.kind.clone()));
            }
            if shared(unit) != shared(&main) {
                return Err(PackageError::Mixed);
            }
        }
        Self::in_order(main, units)
    }

    /// Dependencies before dependants, in the order in which the main unit
    /// reaches them: there is only one such order.
    fn in_order(main: Recipe, others: Vec<Recipe>) -> Result<Self, PackageError> {
        let mut waiting: BTreeMap<RecipeHash, Recipe> =
            others.into_iter().map(|unit| (unit.hash(), unit)).collect();
        let mut this = Self {
            units: Vec::new(),
            hashes: Vec::new(),
        };
        let hash = main.hash();
        this.place(hash, main, &mut waiting);
        match waiting.pop_first() {
            None => Ok(this),
            Some((hash, unit)) => Err(PackageError::Unneeded {
                kind: unit.target.kind,
                hash,
            }),
        }
    }

    /// A unit is taken out before those below it, so this ends.
    fn place(
        &mut self,
        hash: RecipeHash,
        unit: Recipe,
        waiting: &mut BTreeMap<RecipeHash, Recipe>,
    ) {
        for dependency in &unit.dependencies {
            if let Some(below) = waiting.remove(&dependency.recipe) {
                self.place(dependency.recipe, below, waiting);
            }
        }
        self.units.push(unit);
        self.hashes.push(hash);
    }

    /// The units, dependencies first.
    pub fn units(&self) -> &[Recipe] {
        &self.units
    }

    /// The units' hashes, in the order of [`Self::units`].
    pub fn hashes(&self) -> &[RecipeHash] {
        &self.hashes
    }

    /// The library or proc macro.
    pub fn main(&self) -> &Recipe {
        self.units.last().expect("there is a main unit")
    }

    /// The hash of the main unit, by which the instance is known.
    pub fn hash(&self) -> RecipeHash {
        *self.hashes.last().expect("there is a main unit")
    }

    /// The package's name.
    pub fn name(&self) -> &str {
        &self.main().name
    }

    /// The package's version.
    pub fn version(&self) -> &str {
        &self.main().version
    }

    /// Whether it is in the form without debug information, that of host units.
    pub fn is_host_form(&self) -> bool {
        !self.main().profile.contains_key("debuginfo")
    }

    /// What the units need from other files, sorted, each once.
    pub fn needs(&self) -> Vec<RecipeHash> {
        let dependencies = self.units.iter().flat_map(|unit| &unit.dependencies);
        let mut needs: Vec<RecipeHash> = dependencies
            .map(|dependency| dependency.recipe)
            .filter(|recipe| !self.hashes.contains(recipe))
            .collect();
        needs.sort_unstable();
        needs.dedup();
        needs
    }

    /// Where its file belongs in a repository:
    /// `<first two letters>/<name>/<version>-<hash>.toml`.
    pub fn path(&self) -> PathBuf {
        let name = self.name();
        let letters = &name[..name.len().min(2)];
        let file = format!("{}-{}.toml", self.version(), self.hash());
        [letters, name, &file].iter().collect()
    }

    /// The one text of this instance.
    pub fn to_toml(&self) -> String {
        let main = self.main();
        let mut text = format!("format = {}\n", main.format);
        line(&mut text, "name", &main.name);
        line(&mut text, "version", &main.version);
        line(&mut text, "source", &main.source);
        if let Some(checksum) = &main.checksum {
            line(&mut text, "checksum", checksum);
        }
        text.push_str("\n[toolchain]\n");
        line(&mut text, "rustc", &main.toolchain.rustc);
        line(&mut text, "cargo", &main.toolchain.cargo);
        line(&mut text, "layout", &main.toolchain.layout);
        let common = self.common_settings();
        table(&mut text, "settings", &common);
        for unit in &self.units {
            print_unit(&mut text, unit, &common);
        }
        text
    }

    /// Settings that all units have.
    fn common_settings(&self) -> BTreeMap<String, String> {
        let mut common = self.main().settings.clone();
        for unit in &self.units {
            common.retain(|name, value| unit.settings.get(name) == Some(value));
        }
        common
    }

    /// Reads a file; it need not be canonical.
    pub fn from_toml(text: &str) -> Result<Self, PackageError> {
        let syntax = |error| PackageError::Syntax(Box::new(error));
        let table: toml::Table = toml::from_str(text).map_err(syntax)?;
        if let Some(found) = table.get("format").and_then(toml::Value::as_integer)
            && found != i64::from(FORMAT)
        {
            return Err(PackageError::Format { found });
        }
        let file: File = toml::from_str(text).map_err(syntax)?;
        let units = file.unit.iter().map(|unit| Recipe {
            format: file.format,
            name: file.name.clone(),
            version: file.version.clone(),
            source: file.source.clone(),
            checksum: file.checksum.clone(),
            target: Target {
                kind: unit.kind.clone(),
                name: unit.target.clone(),
                crate_types: unit.crate_types.clone(),
                edition: unit.edition.clone(),
            },
            features: unit.features.clone(),
            platform: unit.platform.clone(),
            test: unit.test,
            toolchain: file.toolchain.clone(),
            profile: unit.profile.clone(),
            settings: file
                .settings
                .iter()
                .chain(&unit.settings)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            dependencies: unit.dependencies.clone(),
        });
        Self::new(units.collect())
    }
}

/// What the units of one file have in common.
fn shared(recipe: &Recipe) -> (u32, [&str; 3], Option<&str>, &Tools) {
    (
        recipe.format,
        [&recipe.name, &recipe.version, &recipe.source],
        recipe.checksum.as_deref(),
        &recipe.toolchain,
    )
}

/// What registries allow (Cargo book, "The name field"); it also keeps the name
/// of a file inside its folder.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn is_version(version: &str) -> bool {
    version.starts_with(|c: char| c.is_ascii_digit())
        && version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '+'))
}

fn line(text: &mut String, name: &str, value: &str) {
    text.push_str(&format!("{} = {}\n", key(name), quoted(value)));
}

fn table(text: &mut String, name: &str, values: &BTreeMap<String, String>) {
    if values.is_empty() {
        return;
    }
    text.push_str(&format!("\n[{name}]\n"));
    for (name, value) in values {
        line(text, name, value);
    }
}

fn print_unit(text: &mut String, unit: &Recipe, common: &BTreeMap<String, String>) {
    text.push_str("\n[[unit]]\n");
    line(text, "kind", &unit.target.kind);
    line(text, "target", &unit.target.name);
    let list = inline_list(&unit.target.crate_types);
    text.push_str(&format!("crate-types = {list}\n"));
    line(text, "edition", &unit.target.edition);
    text.push_str(&format!("features = {}\n", inline_list(&unit.features)));
    line(text, "platform", &unit.platform);
    if unit.test {
        text.push_str("test = true\n");
    }
    if !unit.dependencies.is_empty() {
        text.push_str("dependencies = [\n");
        for dependency in &unit.dependencies {
            let mut entry = format!(
                "name = {}, recipe = {}",
                quoted(&dependency.name),
                quoted(&dependency.recipe.to_string())
            );
            let flags = [
                ("public", dependency.public),
                ("noprelude", dependency.noprelude),
            ];
            for (name, _) in flags.iter().filter(|(_, set)| *set) {
                entry.push_str(&format!(", {name} = true"));
            }
            text.push_str(&format!("    {{ {entry} }},\n"));
        }
        text.push_str("]\n");
    }
    let mut own = unit.settings.clone();
    own.retain(|name, _| !common.contains_key(name));
    table(text, "unit.settings", &own);
    table(text, "unit.profile", &unit.profile);
}

#[cfg(test)]
mod tests;
