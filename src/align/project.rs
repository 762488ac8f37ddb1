//! A lock file, what a build compiles of it, and what is offered.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use semver::Version;

use super::rules::{Clash, Knowledge, Objection};
use crate::cargo::lock_graph::LockGraph;
use crate::cargo::releases::{Release, Requirement};
use crate::cargo::relock::line;
use crate::cargo::source::PackageSource;

/// A package of a lock file.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Whether it may have another version: it is from the registry, and the user
    /// has not said that it stays.
    pub is_movable: bool,
    /// Positions of what it needs.
    pub needs: Vec<usize>,
    /// What its manifest requires, if that is not in the registry's index.
    pub requirements: Option<Vec<Requirement>>,
}

/// A library or proc macro that a build compiles: a package in one selection of
/// features. Where features are not known, each package is one.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its package.
    pub package: usize,
    /// Its features, sorted, if they are known.
    pub features: Option<Vec<String>>,
    /// Positions of the nodes that it needs, each before it.
    pub needs: Vec<usize>,
    /// Seconds that it takes.
    pub seconds: f64,
    /// What is built already and fits as it is.
    pub offer: Option<OfferId>,
}

/// A lock file with what is built of it.
#[derive(Debug, Clone, Default)]
pub struct Project {
    /// Its packages.
    pub packages: Vec<Package>,
    /// What a build compiles, dependencies first.
    pub nodes: Vec<Node>,
}

/// The packages of a lock file; `None` if a version is none. `manifests` have what
/// folders require, by name; packages in `keep` have the version that they have.
pub fn packages(
    lock: &LockGraph,
    manifests: &HashMap<String, Vec<Requirement>>,
    keep: &BTreeSet<String>,
) -> Option<Vec<Package>> {
    let packages = lock.packages.iter().map(|package| {
        let source = package.source.as_deref();
        let is_public = source.and_then(PackageSource::parse) == Some(PackageSource::CratesIo);
        Some(Package {
            is_movable: is_public && !keep.contains(&package.name),
            name: package.name.clone(),
            version: Version::parse(&package.version).ok()?,
            needs: package.dependencies.clone(),
            requirements: match source {
                None => manifests.get(&package.name).cloned(),
                Some(_) => None,
            },
        })
    });
    packages.collect()
}

/// Position of an offer.
pub type OfferId = usize;

/// A package that is built.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// The features that it was built with, sorted, if they are known.
    pub features: Option<Vec<String>>,
    /// The offers that it was built against.
    pub needs: Vec<OfferId>,
}

/// All that is built.
#[derive(Debug, Clone, Default)]
pub struct Offers {
    /// Each with all it needs; in any order.
    pub list: Vec<Offer>,
    by_version: HashMap<String, HashMap<Version, Vec<OfferId>>>,
}

impl Offers {
    /// Makes them ready to be looked up.
    pub fn new(list: Vec<Offer>) -> Self {
        let mut by_version: HashMap<String, HashMap<Version, Vec<OfferId>>> = HashMap::new();
        for (id, offer) in list.iter().enumerate() {
            let versions = by_version.entry(offer.name.clone()).or_default();
            let version = versions.entry(offer.version.clone()).or_default();
            version.push(id);
        }
        Self { list, by_version }
    }

    /// Those of a version of a package.
    pub fn of(&self, name: &str, version: &Version) -> &[OfferId] {
        let versions = self.by_version.get(name);
        let found = versions.and_then(|versions| versions.get(version));
        found.map_or(&[], Vec::as_slice)
    }

    /// An offer with all below it; `None` if it needs itself, or one that is not
    /// there.
    pub fn closure(&self, root: OfferId) -> Option<Vec<OfferId>> {
        let mut seen = BTreeSet::from([root]);
        let mut open = vec![root];
        let mut all = Vec::new();
        while let Some(id) = open.pop() {
            all.push(id);
            for need in &self.list.get(id)?.needs {
                if *need == root {
                    return None;
                }
                if seen.insert(*need) {
                    open.push(*need);
                }
            }
        }
        Some(all)
    }
}

impl Project {
    /// The project, as if nothing were built for it as it is.
    pub(super) fn unbuilt(&self) -> Self {
        let mut bare = self.clone();
        for node in &mut bare.nodes {
            node.offer = None;
        }
        bare
    }
}

/// What is looked up again and again.
pub(super) struct Lookup<'a> {
    pub(super) project: &'a Project,
    pub(super) offers: &'a Offers,
    /// Who needs a package.
    pub(super) dependents: Vec<Vec<usize>>,
    /// Packages by name.
    pub(super) by_name: HashMap<&'a str, Vec<usize>>,
    /// The nodes of each package.
    pub(super) nodes: Vec<Vec<usize>>,
    /// Offers that turned out not to be what they seem.
    pub(super) banned: &'a BTreeSet<OfferId>,
    pub(super) knowledge: &'a dyn Knowledge,
    /// For each offer, the nodes of all packages of its name.
    namesakes: Vec<Rc<[usize]>>,
    /// Answers of [`Lookup::offers_for`], by node.
    fitting: RefCell<Vec<HashMap<Version, Rc<[OfferId]>>>>,
    /// Answers of [`Lookup::has_features`].
    selections: RefCell<HashMap<(OfferId, usize), bool>>,
    /// Answers of [`Lookup::admit`].
    admitted: RefCell<HashMap<OfferId, Result<(), Clash>>>,
    /// Answers of [`Lookup::judge`], by package.
    judged: RefCell<Vec<HashMap<Version, Judged>>>,
}

/// What is known of a version.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    /// `None` if it does not exist, or nobody knows.
    pub(super) release: Option<Arc<Release>>,
    /// Why nobody should move to it.
    pub(super) objection: Option<Objection>,
    /// Packages of the lock file that it names, by position and sorted.
    pub(super) named: Rc<[usize]>,
}

/// New versions of packages, by position.
pub type Moves = BTreeMap<usize, Version>;

impl<'a> Lookup<'a> {
    pub(super) fn new(
        project: &'a Project,
        offers: &'a Offers,
        banned: &'a BTreeSet<OfferId>,
        knowledge: &'a dyn Knowledge,
    ) -> Self {
        let packages = &project.packages;
        let mut dependents = vec![Vec::new(); packages.len()];
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (position, package) in packages.iter().enumerate() {
            by_name.entry(&package.name).or_default().push(position);
            for need in &package.needs {
                dependents[*need].push(position);
            }
        }
        let mut nodes = vec![Vec::new(); packages.len()];
        for (position, node) in project.nodes.iter().enumerate() {
            nodes[node.package].push(position);
        }
        let nodes_of = |packages: &Vec<usize>| -> Rc<[usize]> {
            packages
                .iter()
                .flat_map(|package| nodes[*package].iter().copied())
                .collect()
        };
        let named: HashMap<&str, Rc<[usize]>> = by_name
            .iter()
            .map(|(name, packages)| (*name, nodes_of(packages)))
            .collect();
        let none: Rc<[usize]> = Rc::default();
        let namesakes = offers
            .list
            .iter()
            .map(|offer| named.get(&*offer.name).unwrap_or(&none).clone());
        Self {
            namesakes: namesakes.collect(),
            fitting: RefCell::new(vec![HashMap::new(); project.nodes.len()]),
            project,
            offers,
            dependents,
            by_name,
            nodes,
            banned,
            knowledge,
            selections: RefCell::default(),
            admitted: RefCell::default(),
            judged: RefCell::new(vec![HashMap::new(); packages.len()]),
        }
    }

    /// What is known of a version of a package.
    pub(super) fn judge(&self, package: usize, version: &Version) -> Judged {
        if let Some(known) = self.judged.borrow()[package].get(version) {
            return known.clone();
        }
        let name = &self.project.packages[package].name;
        let release = self.knowledge.release(name, version);
        let objection = match &release {
            Some(release) => self.knowledge.objection(name, version, release),
            None => Some(Objection::Unknown),
        };
        let requirements = release.iter().flat_map(|release| &release.requirements);
        let named = requirements.flat_map(|requirement| self.named(&requirement.package));
        let named: BTreeSet<usize> = named.copied().collect();
        let judged = Judged {
            release,
            objection,
            named: named.into_iter().collect(),
        };
        self.judged.borrow_mut()[package].insert(version.clone(), judged.clone());
        judged
    }

    /// The offers of a version of a node's package that have its features.
    pub(super) fn offers_for(&self, node: usize, version: &Version) -> Rc<[OfferId]> {
        if let Some(known) = self.fitting.borrow()[node].get(version) {
            return Rc::clone(known);
        }
        let package = self.project.nodes[node].package;
        let offers = self
            .offers
            .of(&self.project.packages[package].name, version)
            .iter()
            .copied();
        let is_one =
            |offer: &OfferId| !self.banned.contains(offer) && self.has_features(*offer, node);
        let offers: Rc<[OfferId]> = offers.filter(is_one).collect();
        self.fitting.borrow_mut()[node].insert(version.clone(), Rc::clone(&offers));
        offers
    }

    /// The nodes of all packages that have the name of an offer.
    pub(super) fn nodes_named(&self, offer: OfferId) -> &[usize] {
        &self.namesakes[offer]
    }

    /// Sees whether somebody may have an offer that comes in.
    pub(super) fn admit(&self, offer: OfferId) -> Result<(), Clash> {
        if let Some(known) = self.admitted.borrow().get(&offer) {
            return known.clone();
        }
        let Offer { name, version, .. } = &self.offers.list[offer];
        let objection = match self.knowledge.release(name, version) {
            Some(release) => self.knowledge.objection(name, version, &release),
            None => Some(Objection::Unknown),
        };
        let refuse = |objection| Clash::Version {
            package: format!("{name} {version}"),
            objection,
        };
        let admitted = objection.map_or(Ok(()), |objection| Err(refuse(objection)));
        self.admitted.borrow_mut().insert(offer, admitted.clone());
        admitted
    }

    /// Whether a package, as it is now, names another.
    pub(super) fn names(&self, package: usize, name: &str) -> bool {
        let release = self
            .judge(package, &self.project.packages[package].version)
            .release;
        let requirements = release.iter().flat_map(|release| &release.requirements);
        let mut names = requirements.map(|requirement| &requirement.package);
        names.any(|named| named == name)
    }

    pub(super) fn named(&self, name: &str) -> &[usize] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The package that another version would take the place of: Cargo has at
    /// most one of compatible versions.
    pub(super) fn place(&self, name: &str, version: &Version) -> Option<usize> {
        let mut same = self.named(name).iter().copied();
        same.find(|position| line(&self.project.packages[*position].version) == line(version))
    }

    /// The version of a package with some moved.
    pub(super) fn version<'v>(&'v self, package: usize, moves: &'v Moves) -> &'v Version {
        let now = &self.project.packages[package].version;
        moves.get(&package).unwrap_or(now)
    }

    /// Whether an offer has the features of a node. Where features are not known,
    /// what both need tells, as far as another version does not explain it.
    pub(super) fn has_features(&self, offer: OfferId, node: usize) -> bool {
        let key = (offer, node);
        let (offer, node) = (&self.offers.list[offer], &self.project.nodes[node]);
        if let (Some(offered), Some(wanted)) = (&offer.features, &node.features) {
            return offered == wanted;
        }
        if let Some(known) = self.selections.borrow().get(&key) {
            return *known;
        }
        let is_same = self.is_same_selection(offer, node);
        self.selections.borrow_mut().insert(key, is_same);
        is_same
    }

    fn is_same_selection(&self, offer: &Offer, node: &Node) -> bool {
        let package = &self.project.packages[node.package];
        let offered = offer.needs.iter().map(|need| &self.offers.list[*need].name);
        let offered: BTreeSet<&String> = offered.collect();
        let below = node
            .needs
            .iter()
            .map(|need| self.project.nodes[*need].package);
        let own: BTreeSet<&String> = below
            .map(|package| &self.project.packages[package].name)
            .collect();
        if offered == own {
            return true;
        }
        if offer.version == package.version {
            return false;
        }
        let release = |version| self.knowledge.release(&package.name, version);
        let (Some(old), Some(new)) = (release(&package.version), release(&offer.version)) else {
            return false;
        };
        let has = |release: &Release, name: &str| {
            let mut all = release.requirements.iter();
            all.any(|requirement| requirement.package == name)
        };
        let requires = |release: &Release, name: &str| {
            let mut all = release.requirements.iter();
            all.any(|requirement| requirement.package == name && !requirement.optional)
        };
        let gone = own.difference(&offered).all(|name| !has(&new, name));
        let come = offered.difference(&own);
        gone && come
            .into_iter()
            .all(|name| requires(&new, name) && !requires(&old, name))
    }
}
