//! Recipes: declarative, hashed descriptions of what is to be compiled.
//!
//! A recipe describes one target of one package: a library, proc macro, build
//! script, the run of a build script, a binary, test, example or benchmark. The
//! *mode* (check or build) is not in it: one recipe has several emissions.
//! `docs/formats/recipe.md` gives the reason for each field.
//!
//! | module | job |
//! |---|---|
//! | [`package`] | a package instance as one file; pure |
//! | `text` | TOML in one spelling; pure |
//! | [`retarget`] | recipes for another toolchain; pure |
//! | [`repository`] | a folder of such files: read, written, checked |

pub mod package;
pub mod repository;
pub mod retarget;
pub(crate) mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{Canonical, RecipeHash};

/// Version of the recipe format; part of every hash.
pub const FORMAT: u32 = 1;

/// What is to be compiled, with what, for which platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// [`FORMAT`].
    pub format: u32,
    /// Package name.
    pub name: String,
    /// Package version.
    pub version: String,
    /// Registry or Git URL as in Cargo.lock, or `path+` and the package's
    /// folder relative to the workspace.
    pub source: String,
    /// SHA-256 of the package's archive, from Cargo.lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Which target of the package.
    pub target: Target,
    /// Enabled features, sorted.
    pub features: Vec<String>,
    /// Target triple.
    pub platform: String,
    /// Whether it is compiled as a test harness (`--test`).
    #[serde(default)]
    pub test: bool,
    /// The tools.
    pub toolchain: Tools,
    /// Every field of the resolved profile but its name.
    pub profile: BTreeMap<String, String>,
    /// Flags and settings outside the profile: RUSTFLAGS, linker, ….
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// What it needs, in Cargo's order.
    #[serde(default)]
    pub dependencies: Vec<Dependency>,
}

/// A target of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Target {
    /// `lib`, `proc-macro`, `build-script`, `build-run`, `bin`, `test`, ….
    pub kind: String,
    /// The target's name.
    pub name: String,
    /// Crate types, in Cargo's order.
    pub crate_types: Vec<String>,
    /// Edition of the language.
    pub edition: String,
}

/// The tools that compile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tools {
    /// `rustc -vV`, whole: two nightlies share their unit ids, not their code.
    pub rustc: String,
    /// `cargo -V`: names and freshness are Cargo's.
    pub cargo: String,
    /// Layout of the build directory: `legacy` or `per-unit`.
    pub layout: String,
}

/// A dependency edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Dependency {
    /// The name under which the compiler sees it.
    pub name: String,
    /// The recipe needed.
    pub recipe: RecipeHash,
    /// Public dependency (RFC 3516).
    #[serde(default)]
    pub public: bool,
    /// Not in the extern prelude.
    #[serde(default)]
    pub noprelude: bool,
}

/// Text that is not a recipe.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// Not TOML, or not the fields of a recipe.
    #[error("not a recipe")]
    Syntax(#[source] toml::de::Error),
    /// Written by another version of quickbuild.
    #[error("recipe format {found} is not supported, only {FORMAT} is")]
    Format {
        /// The version found.
        found: u32,
    },
}

impl Recipe {
    /// SHA-256 of the canonical form: all fields in the order in which they are
    /// declared, strings and lists preceded by their lengths.
    pub fn hash(&self) -> RecipeHash {
        RecipeHash::finish(self.canonical("quickbuild-recipe"))
    }

    /// The canonical form under another domain, for identifiers that hold a
    /// recipe and more.
    pub fn canonical(&self, domain: &str) -> Canonical {
        let mut canonical = Canonical::new(domain);
        canonical.number(u64::from(self.format));
        canonical
            .text(&self.name)
            .text(&self.version)
            .text(&self.source);
        canonical.option(self.checksum.as_deref());
        canonical.text(&self.target.kind).text(&self.target.name);
        canonical
            .list(&self.target.crate_types)
            .text(&self.target.edition);
        canonical.list(&self.features).text(&self.platform);
        canonical.number(u64::from(self.test));
        canonical
            .text(&self.toolchain.rustc)
            .text(&self.toolchain.cargo);
        canonical.text(&self.toolchain.layout);
        for table in [&self.profile, &self.settings] {
            canonical.number(table.len() as u64);
            for (name, value) in table {
                canonical.text(name).text(value);
            }
        }
        canonical.number(self.dependencies.len() as u64);
        for dependency in &self.dependencies {
            canonical.text(&dependency.name);
            canonical.text(&dependency.recipe.to_string());
            canonical.number(u64::from(dependency.public));
            canonical.number(u64::from(dependency.noprelude));
        }
        canonical
    }

    /// The recipe as a file that a person can read.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a recipe has no nested arrays of mixed kinds")
    }

    /// Reads a recipe file.
    pub fn from_toml(text: &str) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text).map_err(RecipeError::Syntax)?;
        if recipe.format != FORMAT {
            return Err(RecipeError::Format {
                found: recipe.format,
            });
        }
        Ok(recipe)
    }

    /// The recipe without what only concerns debugging: what a build script or
    /// proc macro *does* is the same with and without debug information, so a
    /// host unit needs no output of its own for it.
    pub fn without_debug_information(mut self) -> Self {
        for field in ["debuginfo", "split_debuginfo", "strip"] {
            self.profile.remove(field);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            format: FORMAT,
            name: "serde".to_owned(),
            version: "1.0.228".to_owned(),
            source: "registry+https://github.com/rust-lang/crates.io-index".to_owned(),
            checksum: Some("00".to_owned()),
            target: Target {
                kind: "lib".to_owned(),
                name: "serde".to_owned(),
                crate_types: vec!["lib".to_owned()],
                edition: "2021".to_owned(),
            },
            features: vec!["std".to_owned()],
            platform: "x86_64-unknown-linux-gnu".to_owned(),
            test: false,
            toolchain: Tools {
                rustc: "rustc 1.95.0".to_owned(),
                cargo: "cargo 1.95.0".to_owned(),
                layout: "legacy".to_owned(),
            },
            profile: [("opt_level", "0"), ("debuginfo", "2")]
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .into(),
            settings: BTreeMap::new(),
            dependencies: vec![Dependency {
                name: "serde_core".to_owned(),
                recipe: "0123456789abcdfghijklmnpqrsvwxyz".parse().unwrap(),
                public: false,
                noprelude: false,
            }],
        }
    }

    /// A pinned literal: whoever changes the canonical form changes every
    /// store and every substituter.
    #[test]
    fn hash_is_pinned() {
        assert_eq!(
            recipe().hash().to_string(),
            "qiwy7y9h1lh66mp1ld1hjh63yya7nk5y"
        );
    }

    #[test]
    fn toml_round_trips() {
        let text = recipe().to_toml();
        assert_eq!(Recipe::from_toml(&text).unwrap(), recipe());
    }

    #[test]
    fn every_field_counts() {
        type Change = fn(&mut Recipe);
        let changes: [Change; 11] = [
            |r| r.name.push('x'),
            |r| r.version.push('x'),
            |r| r.source.push('x'),
            |r| r.checksum = None,
            |r| r.target.kind.push('x'),
            |r| r.features.clear(),
            |r| r.platform.push('x'),
            |r| r.test = true,
            |r| r.toolchain.rustc.push('x'),
            |r| drop(r.settings.insert("rustflags".to_owned(), "x".to_owned())),
            |r| r.dependencies[0].public = true,
        ];
        let mut seen = vec![recipe().hash()];
        for change in changes {
            let mut changed = recipe();
            change(&mut changed);
            assert!(!seen.contains(&changed.hash()));
            seen.push(changed.hash());
        }
    }

    #[test]
    fn another_format_is_refused_by_number() {
        let text = recipe().to_toml().replace("format = 1", "format = 9");
        let error = Recipe::from_toml(&text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "recipe format 9 is not supported, only 1 is"
        );
    }
}
