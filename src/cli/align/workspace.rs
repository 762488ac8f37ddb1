//! A workspace as the search for alignments sees it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use semver::Version;

use super::sources::Sources;
use crate::align::{Knowledge, Node, Objection, Package, Project};
use crate::cargo::advisories::Advisories;
use crate::cargo::index_cache::IndexCache;
use crate::cargo::lock_graph::LockGraph;
use crate::cargo::members::Members;
use crate::cargo::releases::{Release, Releases, Requirement};
use crate::cargo::source::PackageSource;
use crate::digest::RecipeHash;
use crate::output::Produced;
use crate::plan::Planned;

/// The packages of a lock file. Those in `keep` have the version that they have.
pub(super) fn packages(
    lock: &LockGraph,
    members: Option<&Members>,
    keep: &BTreeSet<String>,
) -> Option<Vec<Package>> {
    let mut manifests: HashMap<&str, Vec<Requirement>> = HashMap::new();
    for member in members.iter().flat_map(|members| members.packages.values()) {
        let known = manifests.entry(&member.name).or_default();
        known.extend(member.requirements.iter().cloned());
    }
    let packages = lock.packages.iter().map(|package| {
        let source = package.source.as_deref();
        let is_public = source.and_then(PackageSource::parse) == Some(PackageSource::CratesIo);
        let requirements = match source {
            None => manifests.get(package.name.as_str()).cloned(),
            Some(_) => None,
        };
        Some(Package {
            is_movable: is_public && !keep.contains(&package.name),
            name: package.name.clone(),
            version: Version::parse(&package.version).ok()?,
            needs: package.dependencies.clone(),
            requirements,
        })
    });
    packages.collect()
}

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
pub(super) fn is_main(unit: &Planned) -> bool {
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

/// The packages of a lock file as an analysis counts them: one node for each, with
/// all features, those of other platforms left out as far as that is known.
pub(super) fn locked(
    packages: Vec<Package>,
    lock: &LockGraph,
    index: &IndexCache,
    sources: &Sources,
) -> Project {
    let mut cut = lock.clone();
    crate::analyse::trees::cut(&mut cut, index);
    let key = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    let places = packages.iter().enumerate();
    let places = places.map(|(at, package)| (key(&package.name, &package.version.to_string()), at));
    let places: HashMap<(String, String), usize> = places.collect();
    let mut nodes: Vec<Node> = Vec::new();
    let mut known: BTreeMap<usize, usize> = BTreeMap::new();
    for tree in crate::analyse::trees::trees(&cut) {
        let package = &cut.packages[tree.package];
        let Some(place) = places.get(&key(&package.name, &package.version)) else {
            continue;
        };
        let needs = package.dependencies.iter();
        let needs: Vec<usize> = needs.filter_map(|need| known.get(need).copied()).collect();
        let version = &packages[*place].version;
        let offers = sources.offers.of(&package.name, version).iter().copied();
        let is_same = |offer: &usize| {
            let wanted = &sources.offers.list[*offer].needs;
            let has = needs.iter().filter_map(|need| nodes[*need].offer);
            wanted.len() == needs.len()
                && has.clone().count() == needs.len()
                && has.into_iter().all(|offer| wanted.contains(&offer))
        };
        let offer = offers.into_iter().find(is_same);
        known.insert(tree.package, nodes.len());
        nodes.push(Node {
            package: *place,
            features: None,
            seconds: sources.seconds(offer, &package.name, &package.version),
            needs,
            offer,
        });
    }
    Project { packages, nodes }
}

/// What is known of published versions on this machine.
pub(super) struct Facts {
    pub(super) releases: Releases,
    pub(super) advisories: Option<Advisories>,
    /// The oldest Rust that the workspace says to support.
    pub(super) rust: Option<Version>,
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
