//! Manifest, lock file and configuration of a generated workspace.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::profiles::Profiles;
use super::{GenerateError, Id, Instance, Package, shared_settings};
use crate::cargo::source::PackageSource;
use crate::digest::RecipeHash;
use crate::recipe::text::{inline_list, key, quoted};

/// The name of the package that needs the closure.
const NAME: &str = "quickbuild-closure";

pub(super) fn manifest(
    packages: &BTreeMap<Id<'_>, Package<'_>>,
    owners: &HashMap<RecipeHash, Id<'_>>,
    profiles: &Profiles,
) -> Result<String, GenerateError> {
    let mut text = format!(
        "[package]\nname = \"{NAME}\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
        publish = false\nautobins = false\n"
    );
    if packages.values().any(|package| package.host.is_some()) {
        text.push_str("build = \"build.rs\"\n");
    }
    text.push_str("\n[workspace]\nresolver = \"2\"\n\n[lib]\npath = \"lib.rs\"\n");
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("\n[{title}]\n{}\n", lines.join("\n")));
        }
    };
    let lines = |instance: &dyn Fn(&Package<'_>) -> Option<Vec<String>>| {
        let lines = packages.values().filter_map(|package| {
            let features = instance(package)?;
            Some(dependency(package, &features))
        });
        lines.collect::<Result<Vec<String>, GenerateError>>()
    };
    let features = |instance: &Instance<'_>| instance.recipe.main().features.clone();
    section(
        "dependencies",
        lines(&|package| package.target.map(features))?,
    );
    section(
        "build-dependencies",
        lines(&|package| package.host.map(features))?,
    );
    section("patch.crates-io", patches(packages, owners)?);
    text.push_str(&profiles.to_toml());
    Ok(text)
}

fn dependency(package: &Package<'_>, features: &[String]) -> Result<String, GenerateError> {
    let main = package.main();
    let source = source(package)?;
    // What follows `+` does not count in a requirement, and Cargo says so.
    let version = main.version.split('+').next().unwrap_or_default();
    let mut fields = vec![
        format!("package = {}", quoted(&main.name)),
        format!("version = {}", quoted(&format!("={version}"))),
    ];
    fields.extend(place(&source));
    fields.push("default-features = false".to_owned());
    if !features.is_empty() {
        fields.push(format!("features = {}", inline_list(features)));
    }
    Ok(format!(
        "{} = {{ {} }}",
        key(&package.alias),
        fields.join(", ")
    ))
}

fn source(package: &Package<'_>) -> Result<PackageSource, GenerateError> {
    let main = package.main();
    PackageSource::parse(&main.source).ok_or_else(|| GenerateError::Source {
        recipe: name(package),
        url: main.source.clone(),
    })
}

fn name(package: &Package<'_>) -> String {
    let mut instances = package.instances();
    instances.next().map_or(String::new(), |i| i.name.clone())
}

/// Where a dependency comes from. The commit of a Git package is in the lock
/// file: its source has to keep the reference by which it was asked for.
fn place(source: &PackageSource) -> Vec<String> {
    match source {
        PackageSource::CratesIo => Vec::new(),
        PackageSource::Registry { index } => vec![format!("registry-index = {}", quoted(index))],
        PackageSource::Git { url, reference, .. } => {
            let mut fields = vec![format!("git = {}", quoted(url))];
            if let Some((kind, value)) = reference {
                fields.push(format!("{kind} = {}", quoted(value)));
            }
            fields
        }
    }
}

/// Git packages that stand in for packages of crates.io: those that a package of
/// crates.io needs, since it cannot have asked for them itself.
fn patches(
    packages: &BTreeMap<Id<'_>, Package<'_>>,
    owners: &HashMap<RecipeHash, Id<'_>>,
) -> Result<Vec<String>, GenerateError> {
    let mut patched: BTreeSet<Id<'_>> = BTreeSet::new();
    for package in packages.values() {
        if source(package)? == PackageSource::CratesIo {
            patched.extend(edges(package, owners));
        }
    }
    let mut lines = Vec::new();
    for id in patched {
        let package = &packages[&id];
        let source = source(package)?;
        if source != PackageSource::CratesIo {
            let mut fields = vec![format!("package = {}", quoted(id.0))];
            fields.extend(place(&source));
            let alias = key(&package.alias);
            lines.push(format!("{alias} = {{ {} }}", fields.join(", ")));
        }
    }
    Ok(lines)
}

/// The packages that a package needs.
fn edges<'a>(package: &Package<'_>, owners: &HashMap<RecipeHash, Id<'a>>) -> BTreeSet<Id<'a>> {
    let needs = package
        .instances()
        .flat_map(|instance| instance.recipe.needs());
    needs
        .filter_map(|need| owners.get(&need).copied())
        .collect()
}

/// The lock file: what recipes pin. What other platforms and features that are
/// off need is not in recipes; Cargo adds it and keeps what is here.
pub(super) fn lock(
    packages: &BTreeMap<Id<'_>, Package<'_>>,
    owners: &HashMap<RecipeHash, Id<'_>>,
) -> String {
    let all: BTreeSet<Id<'_>> = packages.keys().copied().collect();
    let mut text = "# This file is automatically @generated by Cargo.\n\
        # It is not intended for manual editing.\nversion = 4\n"
        .to_owned();
    let mut entries: BTreeMap<(&str, &str, &str), String> = BTreeMap::new();
    for (id, package) in packages {
        let (name, version, source) = id;
        let mut entry = format!(
            "name = {}\nversion = {}\nsource = {}\n",
            quoted(name),
            quoted(version),
            quoted(source)
        );
        if let Some(checksum) = &package.main().checksum {
            entry.push_str(&format!("checksum = {}\n", quoted(checksum)));
        }
        entry.push_str(&list(&edges(package, owners), &all));
        entries.insert(*id, entry);
    }
    let own = format!(
        "name = {}\nversion = \"0.0.0\"\n{}",
        quoted(NAME),
        list(&all, &all)
    );
    entries.insert((NAME, "0.0.0", ""), own);
    for entry in entries.values() {
        text.push_str(&format!("\n[[package]]\n{entry}"));
    }
    text
}

/// Dependencies as short as they are clear (Cargo's `encode.rs`).
fn list(ids: &BTreeSet<Id<'_>>, all: &BTreeSet<Id<'_>>) -> String {
    if ids.is_empty() {
        return String::new();
    }
    let of_name = |name: &str| all.iter().filter(|id| id.0 == name).count();
    let of_version = |name: &str, version: &str| {
        let same = all.iter().filter(|id| id.0 == name && id.1 == version);
        same.count()
    };
    let mut text = "dependencies = [\n".to_owned();
    for (name, version, source) in ids {
        let word = if of_name(name) == 1 {
            (*name).to_owned()
        } else if of_version(name, version) == 1 {
            format!("{name} {version}")
        } else {
            format!("{name} {version} ({source})")
        };
        text.push_str(&format!(" {},\n", quoted(&word)));
    }
    text.push_str("]\n");
    text
}

/// What recipes assume outside manifest and lock file.
pub(super) struct Surroundings {
    pub(super) config: Option<String>,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
}

impl Surroundings {
    /// Undoes `recipe_settings` in `src/plan/context.rs`.
    pub(super) fn of(instance: &Instance<'_>) -> Result<Self, GenerateError> {
        let mut config = toml::Table::new();
        let mut this = Self {
            config: None,
            arguments: Vec::new(),
            environment: Vec::new(),
        };
        for (name, value) in shared_settings(instance.recipe.main()) {
            let error = || GenerateError::Setting {
                recipe: instance.name.clone(),
                name: name.to_owned(),
            };
            let parsed = || {
                let value: serde_json::Value = serde_json::from_str(value).ok()?;
                toml::Value::try_from(value).ok()
            };
            // Folders of one user stand as names.
            if value.contains("@workspace@")
                || value.contains("@cargo-home@")
                || value.contains("@build-dir@")
            {
                return Err(error());
            }
            match name {
                // A list or string of a configuration file is JSON here.
                "rustflags" if value.starts_with(['[', '"']) => {
                    let flags = parsed().ok_or_else(error)?;
                    let build = toml::Table::from_iter([("rustflags".to_owned(), flags)]);
                    config.insert("build".to_owned(), build.into());
                }
                "rustflags" => this
                    .environment
                    .push(("RUSTFLAGS".to_owned(), value.to_owned())),
                "target" => {
                    config.insert("target".to_owned(), parsed().ok_or_else(error)?);
                }
                "unstable" => {
                    let flags = value.split(' ');
                    let flags = flags.flat_map(|flag| ["-Z".to_owned(), flag.to_owned()]);
                    this.arguments.extend(flags);
                }
                name if name.starts_with("CARGO_TARGET_") => {
                    this.environment.push((name.to_owned(), value.to_owned()));
                }
                _ => return Err(error()),
            }
        }
        if !config.is_empty() {
            this.config = Some(toml::to_string(&config).expect("settings are plain tables"));
        }
        Ok(this)
    }
}
