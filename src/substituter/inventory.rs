//! What packages a substituter has, in one file: each with the packages below it,
//! so that somebody can find out which versions to move to. Pure: bytes in,
//! values out.
//!
//! It is advice and nothing else. What is fetched is asked for by recipe and
//! verified as ever, so a forged or old inventory can waste somebody's time, and
//! no more; nobody signs it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::{format, json, malformed, pack, unpack};
use super::{FORMAT, Result};
use crate::digest::{OutputId, RecipeHash};
use crate::output::{Naming, Output, Produced};

/// Path of the file.
pub const INVENTORY: &str = "inventory.json.zst";
/// Packages that an inventory may have; a writer adds no more.
pub const MAX_LISTED: usize = 200_000;

/// A package that is published: a library or a proc macro in one selection of
/// features, for one toolchain and profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Features that it was compiled with, sorted; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    /// Cargo's hash of `rustc -vV`, in hexadecimal digits; absent if that is not
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<String>,
    /// Host recipes of the packages that it, or its build script, needs; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<RecipeHash>,
    /// Seconds that it took, with its build script.
    pub seconds: f64,
}

impl Listed {
    /// Whether its texts are what registries allow, and its seconds a number.
    fn is_harmless(&self) -> bool {
        let is_word = |text: &str, more: &str| {
            let first = text.chars().next();
            first.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
                && text.len() <= 128
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        is_word(&self.name, "-_")
            && is_word(&self.version, ".+-_")
            && self.seconds.is_finite()
            && self.seconds >= 0.0
    }
}

/// All that is published, by host recipe.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    /// The packages.
    pub packages: BTreeMap<RecipeHash, Listed>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    recipe: RecipeHash,
    #[serde(flatten)]
    listed: Listed,
}

impl Inventory {
    /// Reads what came from `url`. Rows that are not understood are passed over.
    pub fn parse(bytes: &[u8], url: &str) -> Result<Self> {
        let bytes = unpack(bytes, url)?;
        let mut value = json(&bytes, url)?;
        format(&value, url)?;
        let Some(Value::Array(rows)) = value.get_mut("packages").map(Value::take) else {
            return Err(malformed(url, "`packages` is not a list".to_owned()));
        };
        let rows = rows.into_iter().take(MAX_LISTED);
        let rows = rows.filter_map(|row| serde_json::from_value::<Row>(row).ok());
        let rows = rows.filter(|row| row.listed.is_harmless());
        Ok(Self {
            packages: rows.map(|row| (row.recipe, row.listed)).collect(),
        })
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct File {
            format: u32,
            packages: Vec<Row>,
        }
        let row = |(recipe, listed): (&RecipeHash, &Listed)| Row {
            recipe: *recipe,
            listed: listed.clone(),
        };
        let file = File {
            format: FORMAT,
            packages: self.packages.iter().map(row).collect(),
        };
        pack(&serde_json::to_vec(&file).expect("an inventory serialises"))
    }

    /// What some outputs are packages of. Those whose references are not among
    /// them are left out.
    pub fn of<'a>(
        outputs: impl IntoIterator<Item = &'a Output>,
        namings: impl IntoIterator<Item = &'a Naming>,
    ) -> Self {
        let outputs = outputs.into_iter().map(|output| (output.id, output));
        let outputs: BTreeMap<OutputId, &Output> = outputs.collect();
        let named = namings.into_iter();
        let named = named.filter_map(|naming| Some((naming.recipe?, naming)));
        let named: BTreeMap<RecipeHash, &Naming> = named.collect();
        let mut inventory = Self::default();
        for output in outputs.values().filter(|output| is_package(output)) {
            let Some((needs, seconds)) = below(output, &outputs) else {
                continue;
            };
            let naming = named.get(&output.host_recipe);
            let fingerprint = naming.map(|naming| &naming.fingerprint);
            let listed = Listed {
                name: output.name.clone(),
                version: output.version.clone(),
                features: fingerprint.and_then(|of| serde_json::from_str(&of.features).ok()),
                toolchain: fingerprint.map(|of| format!("{:016x}", of.rustc)),
                needs: needs.into_iter().collect(),
                seconds,
            };
            let known = inventory.packages.entry(output.host_recipe);
            let known = known.or_insert_with(|| listed.clone());
            // A check is cheaper than the build that serves it.
            known.seconds = known.seconds.max(listed.seconds);
        }
        inventory
    }

    /// Adds what another inventory says; what is there stays, and no more than
    /// [`MAX_LISTED`] packages are taken.
    pub fn add(&mut self, other: &Self) {
        for (recipe, listed) in &other.packages {
            if self.packages.len() < MAX_LISTED || self.packages.contains_key(recipe) {
                let known = self.packages.entry(*recipe);
                known.or_insert_with(|| listed.clone());
            }
        }
    }

    /// Leaves only packages of these recipes.
    pub fn retain(&mut self, is_published: impl Fn(RecipeHash) -> bool) {
        self.packages.retain(|recipe, _| is_published(*recipe));
    }
}

/// Whether others may depend on it.
fn is_package(output: &Output) -> bool {
    let is_library = matches!(output.target_kind.as_str(), "lib" | "proc-macro");
    is_library && !matches!(output.produced, Produced::Test)
}

/// What a package needs, with its own build script's needs and seconds.
fn below(
    output: &Output,
    outputs: &BTreeMap<OutputId, &Output>,
) -> Option<(BTreeSet<RecipeHash>, f64)> {
    let mut needs = BTreeSet::new();
    let mut seconds = output.seconds;
    let mut open: Vec<OutputId> = output.references.clone();
    let mut seen: BTreeSet<OutputId> = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let other = outputs.get(&id)?;
        let is_own = other.name == output.name && other.version == output.version;
        match other.target_kind.as_str() {
            "build-script" | "build-run" if is_own => {
                seconds += other.seconds;
                open.extend(&other.references);
            }
            // What another package's build script says comes with that package.
            "build-script" | "build-run" => {}
            _ => {
                needs.insert(other.host_recipe);
            }
        }
    }
    Some((needs, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Canonical;
    use crate::output::samples;
    use proptest::prelude::*;

    fn listed(name: &str) -> Listed {
        Listed {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            features: Some(vec!["std".to_owned()]),
            toolchain: None,
            needs: Vec::new(),
            seconds: 1.5,
        }
    }

    fn recipe(text: &str) -> RecipeHash {
        let mut canonical = Canonical::new("sample");
        canonical.text(text);
        RecipeHash::finish(canonical)
    }

    #[test]
    fn what_is_written_is_read_and_what_is_odd_is_passed_over() {
        let mut inventory = Inventory::default();
        inventory.packages.insert(recipe("a"), listed("serde"));
        let url = "u";
        assert_eq!(
            Inventory::parse(&inventory.to_bytes(), url).unwrap(),
            inventory
        );
        for name in ["--config", "a b", "../a", ""] {
            let mut odd = inventory.clone();
            odd.packages.insert(recipe("b"), listed(name));
            assert_eq!(Inventory::parse(&odd.to_bytes(), url).unwrap(), inventory);
        }
        let newer = pack(b"{\"format\":2,\"packages\":[]}");
        assert!(Inventory::parse(&newer, url).is_err());
        assert!(Inventory::parse(&pack(b"{\"format\":1}"), url).is_err());
    }

    #[test]
    fn a_build_script_is_part_of_its_package() {
        let make = |kind: &str, name: &str, references: &[&Output]| {
            let mut output = samples::full();
            output.name = name.to_owned();
            output.target_kind = kind.to_owned();
            output.host_recipe = recipe(&format!("{kind} {name}"));
            let mut id = Canonical::new("sample");
            id.text(kind).text(name);
            output.id = OutputId::finish(id);
            output.seconds = 2.0;
            output.references = references.iter().map(|output| output.id).collect();
            output
        };
        let cc = make("lib", "cc", &[]);
        let script = make("build-script", "a", &[&cc]);
        let run = make("build-run", "a", &[&script]);
        let library = make("lib", "a", &[&run]);
        let user = make("lib", "user", &[&library, &run]);
        let all = [&cc, &script, &run, &library, &user];
        let inventory = Inventory::of(all, []);
        assert_eq!(inventory.packages.len(), 3);
        let found = &inventory.packages[&library.host_recipe];
        assert_eq!((found.seconds, &found.needs), (6.0, &vec![cc.host_recipe]));
        let found = &inventory.packages[&user.host_recipe];
        assert_eq!(found.needs, [library.host_recipe]);
        // Without what it refers to, nothing is said of it.
        assert_eq!(Inventory::of([&user], []).packages.len(), 0);
    }

    proptest! {
        #[test]
        fn junk_never_panics(json in "[\\[\\]{}\":,a-z0-9]{0,60}", bytes in any::<Vec<u8>>()) {
            let _ = Inventory::parse(&pack(json.as_bytes()), "u");
            let _ = Inventory::parse(&bytes, "u");
        }
    }
}
