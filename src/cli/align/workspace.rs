//! A workspace as the search for alignments sees it.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use semver::Version;

use super::sources::Sources;
use crate::align::{Knowledge, Node, Objection, Package, Project};
use crate::cargo::advisories::Advisories;
use crate::cargo::members::Members;
use crate::cargo::releases::{Release, Releases, Requirement};
use crate::cargo::relock::Network;
use crate::digest::RecipeHash;
use crate::output::Produced;
use crate::plan::Planned;

/// What a command compiles of a lock file's packages, by its plan.
pub(super) fn planned(packages: Vec<Package>, units: &[Planned], sources: &Sources) -> Project {
    let mut places: HashMap<(&str, String), usize> = HashMap::new();
    for (position, package) in packages.iter().enumerate() {
        places.insert((&package.name, package.version.to_string()), position);
    }
    let mut nodes: Vec<Node> = Vec::new();
    let mut known: HashMap<RecipeHash, usize> = HashMap::new();
    let mut open: Vec<(usize, bool)> = (0..units.len()).rev().map(|unit| (unit, false)).collect();
    let mut seen = BTreeSet::new();
    while let Some((index, is_done)) = open.pop() {
        let unit = &units[index];
        if !is_done {
            if is_main(unit) && seen.insert(index) {
                open.push((index, true));
                open.extend(below(units, index).into_iter().map(|need| (need, false)));
            }
            continue;
        }
        let key = (unit.package.name.as_str(), unit.package.version.clone());
        let Some(package) = places.get(&key) else {
            continue;
        };
        if known.contains_key(&unit.host_recipe) {
            continue;
        }
        let needs = below(units, index).into_iter();
        let needs = needs.filter_map(|need| known.get(&units[need].host_recipe).copied());
        let needs: BTreeSet<usize> = needs.collect();
        let offer = sources.by_recipe.get(&unit.host_recipe).copied();
        let mut features = unit.unit.features.clone();
        features.sort_unstable();
        known.insert(unit.host_recipe, nodes.len());
        nodes.push(Node {
            package: *package,
            features: Some(features),
            needs: needs.into_iter().collect(),
            seconds: sources.seconds(offer, &unit.package.name, &unit.package.version),
            offer,
        });
    }
    drop(places);
    Project { packages, nodes }
}

/// Whether a unit is what others depend on, of a package that somebody else has
/// published.
pub(in crate::cli) fn is_main(unit: &Planned) -> bool {
    matches!(unit.kind, "lib" | "proc-macro")
        && unit.produced != Produced::Test
        && !unit.package.is_path()
        && unit.refused.is_none()
}

/// Main units that a main unit needs, itself or by its build script.
fn below(units: &[Planned], index: usize) -> Vec<usize> {
    let package = &units[index].package;
    let mut found = Vec::new();
    let mut open: Vec<usize> = units[index].needs.clone();
    let mut seen: BTreeSet<usize> = BTreeSet::new();
    while let Some(need) = open.pop() {
        if !seen.insert(need) {
            continue;
        }
        if is_main(&units[need]) {
            found.push(need);
        } else if units[need].package == *package {
            open.extend(&units[need].needs);
        }
    }
    found.sort_unstable();
    found
}

/// What the workspace's manifests require, by package.
pub(super) fn manifests(members: &Members) -> HashMap<String, Vec<Requirement>> {
    let mut manifests: HashMap<String, Vec<Requirement>> = HashMap::new();
    for member in members.packages.values() {
        let known = manifests.entry(member.name.clone()).or_default();
        known.extend(member.requirements.iter().cloned());
    }
    manifests
}

/// What is known of published versions on this machine.
pub(super) struct Facts {
    pub(super) releases: Releases,
    pub(super) advisories: Option<Advisories>,
    /// The oldest Rust that the workspace says to support.
    pub(super) rust: Option<Version>,
    /// Whether Cargo may ask for what is not known.
    pub(super) network: Network,
}

impl Facts {
    /// The advisory database: the given one, or the one that `cargo audit` keeps.
    pub(super) fn advisories(
        given: Option<&Path>,
        cargo_home: &Path,
    ) -> (PathBuf, Option<Advisories>) {
        let folder = given.map_or_else(|| cargo_home.join("advisory-db"), Path::to_owned);
        let advisories = Advisories::open(&folder);
        (folder, advisories)
    }
}

impl Knowledge for Facts {
    fn release(&self, name: &str, version: &Version) -> Option<Arc<Release>> {
        self.releases.of(name, &version.to_string())
    }

    fn may_go_back(&self) -> bool {
        self.advisories.is_some()
    }

    fn may_be_unknown(&self, name: &str) -> bool {
        self.network == Network::Allowed || self.releases.has(name)
    }

    fn objection(&self, name: &str, version: &Version, release: &Release) -> Option<Objection> {
        if release.yanked {
            return Some(Objection::Yanked);
        }
        if let (Some(rust), Some(needed)) = (&self.rust, &release.rust_version)
            && needed > rust
        {
            return Some(Objection::Rust(needed.clone()));
        }
        let advisories = self.advisories.as_ref()?;
        let id = advisories.affecting(name, version)?;
        Some(Objection::Vulnerable(id))
    }
}
