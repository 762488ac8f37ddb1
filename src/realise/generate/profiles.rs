//! Profiles of a generated workspace: what most recipes have, and overrides for
//! packages that differ (Cargo book, "Profiles").

use std::collections::BTreeMap;

use serde_json::Value;

use super::{GenerateError, Id, Instance, Package};
use crate::recipe::Recipe;
use crate::recipe::text::{key, quoted};

/// Fields that an override may set.
const OVERRIDABLE: [&str; 7] = [
    "opt_level",
    "codegen_units",
    "debuginfo",
    "split_debuginfo",
    "debug_assertions",
    "overflow_checks",
    "strip",
];

/// Fields that only the whole profile can set.
const WHOLE: [&str; 3] = ["lto", "panic", "rpath"];

/// One table of settings, as manifest text by manifest key.
type Table = BTreeMap<String, String>;

/// The profile with its overrides.
pub(super) struct Profiles {
    name: &'static str,
    whole: Table,
    host: Table,
    /// By package id specification.
    packages: BTreeMap<String, Table>,
}

type Fields = BTreeMap<String, String>;

impl Profiles {
    pub(super) fn of(packages: &BTreeMap<Id<'_>, Package<'_>>) -> Result<Self, GenerateError> {
        let targets = || packages.values().filter_map(|package| package.target);
        let hosts = || packages.values().filter_map(|package| package.host);
        for instance in targets().chain(hosts()) {
            known(instance)?;
        }
        let whole = most_common(targets().map(|instance| &instance.recipe.main().profile));
        let scripts = || {
            let units = packages.values().flat_map(Package::instances);
            let units = units.flat_map(|instance| instance.recipe.units());
            units.filter(|unit| unit.target.kind == "build-script")
        };
        let on_host = hosts()
            .map(|instance| instance.recipe.main())
            .chain(scripts());
        let host = most_common(on_host.map(|unit| &unit.profile));
        // With assertions and no optimisation a recipe is one of `dev`; build
        // scripts are told the profile's name, so it should be the likely one.
        let like = if whole.is_empty() { &host } else { &whole };
        let is_dev = like.get("debug_assertions").is_none_or(|v| v == "true");
        let mut this = Self {
            name: if is_dev { "dev" } else { "release" },
            whole: settings(&whole, &[&OVERRIDABLE[..], &WHOLE]),
            host: settings(&host, &[&OVERRIDABLE[..4]]),
            packages: BTreeMap::new(),
        };
        for field in ["debug-assertions", "overflow-checks"] {
            let name = field.replace('-', "_");
            if let Some(value) = host.get(&name) {
                this.host.insert(field.to_owned(), value.clone());
            }
        }
        this.host.retain(|name, _| name != "debug");
        for package in packages.values() {
            let table = overrides(package, &whole, &host)?;
            if !table.is_empty() {
                let main = package.main();
                let spec = format!("{}@{}", main.name, main.version);
                this.packages.insert(spec, table);
            }
        }
        Ok(this)
    }

    /// What makes Cargo use the profile.
    pub(super) fn arguments(&self) -> Option<String> {
        (self.name == "release").then(|| "--release".to_owned())
    }

    /// The profile's tables of the manifest.
    pub(super) fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut table = |name: String, values: &Table| {
            if values.is_empty() {
                return;
            }
            text.push_str(&format!("\n[{name}]\n"));
            for (name, value) in values {
                text.push_str(&format!("{name} = {value}\n"));
            }
        };
        table(format!("profile.{}", self.name), &self.whole);
        table(format!("profile.{}.build-override", self.name), &self.host);
        for (spec, values) in &self.packages {
            let name = format!("profile.{}.package.{}", self.name, key(spec));
            table(name, values);
        }
        text
    }
}

/// Fails for fields that no manifest on stable can ask for, and for incremental
/// compilation, which Cargo keeps to members. Such a field may be there and off.
fn known(instance: &Instance<'_>) -> Result<(), GenerateError> {
    for (field, value) in &instance.recipe.main().profile {
        let known = OVERRIDABLE.iter().chain(&WHOLE).any(|known| known == field);
        let off = matches!(value.as_str(), "null" | "[]" | "false");
        if !known && !off {
            return Err(error(instance, field, value));
        }
    }
    Ok(())
}

fn error(instance: &Instance<'_>, field: &str, value: &str) -> GenerateError {
    GenerateError::Profile {
        recipe: instance.name.clone(),
        field: field.to_owned(),
        value: value.to_owned(),
    }
}

fn most_common<'a>(profiles: impl Iterator<Item = &'a Fields>) -> Fields {
    let mut count: BTreeMap<&Fields, usize> = BTreeMap::new();
    for profile in profiles {
        *count.entry(profile).or_default() += 1;
    }
    let most = count.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(profile, _)| profile.clone()).unwrap_or_default()
}

/// The manifest's settings for some fields of a profile.
fn settings(profile: &Fields, fields: &[&[&str]]) -> Table {
    let fields = fields.iter().flat_map(|fields| fields.iter());
    fields
        .filter_map(|field| setting(field, profile.get(*field)?))
        .collect()
}

/// A profile's field as the manifest spells it; none for what only the absence
/// of a setting gives.
fn setting(field: &str, value: &str) -> Option<(String, String)> {
    let name = match field {
        "debuginfo" => "debug".to_owned(),
        other => other.replace('_', "-"),
    };
    let value: Value = serde_json::from_str(value).ok()?;
    let value = match value {
        Value::Null => return None,
        Value::String(text) => word(&text),
        // `{"deferred": "None"}` is the default, `{"resolved": …}` a choice
        // (`StripInner` and `Strip` in `src/cargo/core/profiles.rs`).
        Value::Object(choice) => match choice.get("resolved")? {
            Value::String(_) => "\"none\"".to_owned(),
            Value::Object(named) => quoted(named.values().next()?.as_str()?),
            _ => return None,
        },
        other => other.to_string(),
    };
    Some((name, value))
}

/// Numbers and truth values stand without quotes.
fn word(text: &str) -> String {
    match text {
        "true" | "false" => text.to_owned(),
        _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.to_owned(),
        _ => quoted(text),
    }
}

/// What sets a package apart. An override is for the package's instances on
/// both sides, and for its build script.
fn overrides(package: &Package<'_>, whole: &Fields, host: &Fields) -> Result<Table, GenerateError> {
    let mut table = Table::new();
    for instance in package.instances() {
        for unit in instance.recipe.units() {
            let base = match unit.target.kind.as_str() {
                "build-run" => continue, // follows the library's
                "build-script" => host,
                _ if instance.host => host,
                _ => whole,
            };
            for (field, value) in differing(unit, base) {
                let overridable = OVERRIDABLE.contains(&field);
                let on_host = std::ptr::eq(base, host);
                if !overridable && on_host {
                    continue; // Cargo's own decision for host units
                }
                let found = setting(field, value).filter(|_| overridable);
                let Some((name, value)) = found else {
                    return Err(error(instance, field, value));
                };
                let before = table.insert(name, value.clone());
                if before.is_some_and(|before| before != value) {
                    return Err(error(instance, field, &value));
                }
            }
        }
    }
    Ok(table)
}

fn differing<'a>(unit: &'a Recipe, base: &Fields) -> Vec<(&'a str, &'a str)> {
    let fields = unit.profile.iter();
    fields
        .filter(|(name, value)| base.get(*name) != Some(value))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}
