use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use semver::VersionReq;

use super::*;
use crate::align::rules::Objection;
use crate::align::{Node, Offer, Package};
use crate::cargo::releases::{Release, Requirement};

/// What a small registry has.
#[derive(Default)]
struct Registry {
    releases: HashMap<(String, Version), Release>,
    vulnerable: Mutex<BTreeSet<(String, Version)>>,
    /// Whether there is no advisory database.
    is_blind: bool,
    /// Whether nothing can be asked for.
    is_offline: bool,
}

impl Registry {
    fn with(mut self, name: &str, versions: &[&str], needs: &[(&str, &str)]) -> Self {
        for version in versions {
            let requirements = needs.iter().map(|(package, versions)| Requirement {
                package: (*package).to_owned(),
                versions: VersionReq::parse(versions).unwrap(),
                optional: false,
                by_default: true,
                everywhere: true,
                features: Vec::new(),
            });
            let release = Release {
                requirements: requirements.collect(),
                ..Release::default()
            };
            let version = Version::parse(version).unwrap();
            self.releases.insert((name.to_owned(), version), release);
        }
        self
    }
}

impl Knowledge for Registry {
    fn release(&self, name: &str, version: &Version) -> Option<Arc<Release>> {
        let release = self.releases.get(&(name.to_owned(), version.clone()));
        release.cloned().map(Arc::new)
    }

    fn objection(&self, name: &str, version: &Version, release: &Release) -> Option<Objection> {
        let key = (name.to_owned(), version.clone());
        if self.vulnerable.lock().unwrap().contains(&key) {
            return Some(Objection::Vulnerable("RUSTSEC-0".to_owned()));
        }
        release.yanked.then_some(Objection::Yanked)
    }

    fn may_go_back(&self) -> bool {
        !self.is_blind
    }

    fn may_be_unknown(&self, name: &str) -> bool {
        !self.is_offline || self.releases.keys().any(|(known, _)| known == name)
    }
}

/// Packages by name and version, with what each needs; a node for each.
fn project(packages: &[(&str, &str, &[usize])]) -> Project {
    let nodes = packages
        .iter()
        .enumerate()
        .map(|(package, (_, _, needs))| Node {
            package,
            features: None,
            needs: needs.to_vec(),
            seconds: 1.0,
            offer: None,
        });
    let package = |(name, version, needs): &(&str, &str, &[usize])| Package {
        name: (*name).to_owned(),
        version: Version::parse(version).unwrap(),
        is_movable: true,
        needs: needs.to_vec(),
        requirements: None,
    };
    Project {
        nodes: nodes.collect(),
        packages: packages.iter().map(package).collect(),
    }
}

fn offers(list: &[(&str, &str, &[usize])]) -> Offers {
    let offer = |(name, version, needs): &(&str, &str, &[usize])| Offer {
        name: (*name).to_owned(),
        version: Version::parse(version).unwrap(),
        features: None,
        needs: needs.to_vec(),
    };
    Offers::new(list.iter().map(offer).collect())
}

fn steps(project: &Project, proposal: &Proposal) -> Vec<String> {
    let step = |step: &Step| format!("{} {}", project.packages[step.package].name, step.to);
    proposal.steps.iter().map(step).collect()
}

fn propose_all(project: &Project, offers: &Offers, registry: &Registry) -> Proposal {
    propose(project, offers, &BTreeSet::new(), registry)
}

#[test]
fn a_tree_is_moved_to_as_a_whole() {
    let project = project(&[
        ("c", "1.0.0", &[]),
        ("b", "1.0.0", &[0]),
        ("a", "1.0.0", &[1]),
    ]);
    let offers = offers(&[
        ("c", "1.2.0", &[]),
        ("b", "1.1.0", &[0]),
        ("a", "1.0.0", &[1]),
    ]);
    let registry = Registry::default()
        .with("c", &["1.0.0", "1.2.0"], &[])
        .with("b", &["1.0.0", "1.1.0"], &[("c", "^1")])
        .with("a", &["1.0.0"], &[("b", "^1")]);
    let proposal = propose_all(&project, &offers, &registry);
    assert_eq!(steps(&project, &proposal), ["c 1.2.0", "b 1.1.0"]);
    assert_eq!(
        (proposal.before, proposal.after, proposal.all),
        (0.0, 3.0, 3.0)
    );
    let gained: f64 = proposal.steps.iter().map(|step| step.seconds).sum();
    assert!((gained - 3.0).abs() < 1e-9);
}

#[test]
fn what_somebody_requires_or_nobody_should_use_is_not_proposed() {
    let project = project(&[("c", "1.0.0", &[]), ("b", "1.0.0", &[0])]);
    let offers = offers(&[("c", "1.2.0", &[])]);
    let registry = |requirement| {
        Registry::default()
            .with("c", &["1.0.0", "1.2.0"], &[])
            .with("b", &["1.0.0"], &[("c", requirement)])
    };
    let proposal = propose_all(&project, &offers, &registry("^1"));
    assert_eq!(steps(&project, &proposal), ["c 1.2.0"]);
    let proposal = propose_all(&project, &offers, &registry("=1.0.0"));
    assert_eq!(proposal.steps, []);
    let clash = proposal.clashes.keys().next().unwrap().to_string();
    assert_eq!(clash, "`b 1.0.0` requires `c =1.0.0`");
    // Unknown, vulnerable, yanked, kept.
    let unknown = Registry::default().with("b", &["1.0.0"], &[("c", "^1")]);
    assert_eq!(propose_all(&project, &offers, &unknown).steps, []);
    let vulnerable = registry("^1");
    let version = ("c".to_owned(), Version::new(1, 2, 0));
    vulnerable
        .vulnerable
        .lock()
        .unwrap()
        .insert(version.clone());
    let proposal = propose_all(&project, &offers, &vulnerable);
    assert_eq!(proposal.steps, []);
    let clash = proposal.clashes.keys().next().unwrap().to_string();
    assert_eq!(clash, "`c 1.2.0`: it is vulnerable (RUSTSEC-0)");
    let mut yanked = registry("^1");
    yanked.releases.get_mut(&version).unwrap().yanked = true;
    assert_eq!(propose_all(&project, &offers, &yanked).steps, []);
    let mut kept = project.clone();
    kept.packages[0].is_movable = false;
    assert_eq!(propose_all(&kept, &offers, &registry("^1")).steps, []);
}

#[test]
fn offline_nothing_moves_that_may_need_what_nobody_knows() {
    let project = project(&[
        ("a", "1.0.0", &[]),
        ("b", "1.0.0", &[]),
        ("c", "1.0.0", &[]),
    ]);
    let offers = offers(&[
        ("a", "1.1.0", &[]),
        ("b", "1.1.0", &[]),
        ("c", "1.1.0", &[]),
    ]);
    let mut registry = Registry::default()
        .with("a", &["1.0.0"], &[])
        .with("c", &["1.0.0"], &[])
        .with("c", &["1.1.0"], &[("new", "^1")])
        .with("a", &["1.1.0"], &[("new", "^1")])
        .with("b", &["1.0.0", "1.1.0"], &[("old", "^1")]);
    let mut edit = |name: &str, minor, by_default| {
        let release = (name.to_owned(), Version::new(1, minor, 0));
        let release = registry.releases.get_mut(&release).unwrap();
        let requirement = &mut release.requirements[0];
        (requirement.optional, requirement.by_default) = (true, by_default);
    };
    edit("a", 1, true);
    edit("b", 0, true);
    edit("b", 1, true);
    edit("c", 1, false);
    let proposal = propose_all(&project, &offers, &registry);
    assert_eq!(
        steps(&project, &proposal),
        ["a 1.1.0", "b 1.1.0", "c 1.1.0"]
    );
    registry.is_offline = true;
    let proposal = propose_all(&project, &offers, &registry);
    assert_eq!(steps(&project, &proposal), ["b 1.1.0", "c 1.1.0"]);
    let known = registry.with("new", &["1.0.0"], &[]);
    let proposal = propose_all(&project, &offers, &known);
    assert_eq!(
        steps(&project, &proposal),
        ["a 1.1.0", "b 1.1.0", "c 1.1.0"]
    );
}

/// No tree alone is worth what is lost with it.
#[test]
fn what_is_built_is_given_up_where_all_together_is_worth_more() {
    let mut project = project(&[
        ("c", "1.0.0", &[]),
        ("a", "1.0.0", &[0]),
        ("b", "1.0.0", &[0]),
        ("d", "1.0.0", &[0]),
    ]);
    for (node, offer) in [(0, 0), (1, 1), (2, 2)] {
        project.nodes[node].offer = Some(offer);
    }
    let offers = offers(&[
        ("c", "1.0.0", &[]),
        ("a", "1.0.0", &[0]),
        ("b", "1.0.0", &[0]),
        ("c", "1.1.0", &[]),
        ("a", "1.1.0", &[3]),
        ("b", "1.1.0", &[3]),
        ("d", "1.0.0", &[3]),
    ]);
    let needs = [("c", "^1")];
    let registry = Registry::default()
        .with("c", &["1.0.0", "1.1.0"], &[])
        .with("a", &["1.0.0", "1.1.0"], &needs)
        .with("b", &["1.0.0", "1.1.0"], &needs)
        .with("d", &["1.0.0"], &needs);
    let proposal = propose_all(&project, &offers, &registry);
    assert_eq!(
        steps(&project, &proposal),
        ["c 1.1.0", "a 1.1.0", "b 1.1.0"]
    );
    assert_eq!((proposal.before, proposal.after), (3.0, 4.0));
}

#[test]
fn packages_move_together_that_pin_each_other() {
    let project = project(&[
        ("core", "1.0.5", &[]),
        ("serde", "1.0.5", &[0]),
        ("json", "1.0.9", &[0]),
    ]);
    let offers = offers(&[
        ("core", "1.0.4", &[]),
        ("json", "1.0.8", &[0]),
        ("serde", "1.0.4", &[0]),
    ]);
    let registry = Registry::default()
        .with("core", &["1.0.4", "1.0.5"], &[])
        .with("serde", &["1.0.4"], &[("core", "=1.0.4")])
        .with("serde", &["1.0.5"], &[("core", "=1.0.5")])
        .with("json", &["1.0.8", "1.0.9"], &[("core", "^1")]);
    let proposal = propose_all(&project, &offers, &registry);
    assert_eq!(
        steps(&project, &proposal),
        ["core 1.0.4", "serde 1.0.4", "json 1.0.8"]
    );
}

#[test]
fn without_advisories_nothing_goes_back() {
    let project = project(&[("a", "1.5.0", &[]), ("b", "1.5.0", &[])]);
    let offers = offers(&[("a", "1.4.0", &[]), ("b", "1.6.0", &[])]);
    let mut registry = Registry::default()
        .with("a", &["1.4.0", "1.5.0"], &[])
        .with("b", &["1.5.0", "1.6.0"], &[]);
    let proposal = propose_all(&project, &offers, &registry);
    assert_eq!(steps(&project, &proposal), ["a 1.4.0", "b 1.6.0"]);
    registry.is_blind = true;
    let proposal = propose_all(&project, &offers, &registry);
    assert_eq!(steps(&project, &proposal), ["b 1.6.0"]);
}

#[test]
fn a_new_version_may_bring_packages_in_and_must_have_its_features() {
    let mut project = project(&[("a", "1.0.0", &[])]);
    let offers = offers(&[("new", "0.3.0", &[]), ("a", "1.1.0", &[0])]);
    let registry = Registry::default()
        .with("a", &["1.0.0"], &[])
        .with("new", &["0.3.0"], &[])
        .with("a", &["1.1.0"], &[("new", "^0.3")]);
    let proposal = propose_all(&project, &offers, &registry);
    assert_eq!(steps(&project, &proposal), ["a 1.1.0"]);
    assert_eq!(proposal.added, [("new".to_owned(), Version::new(0, 3, 0))]);
    // Nothing offers a package that it needs.
    let missing = registry.with("a", &["1.1.0"], &[("other", "^1")]);
    assert_eq!(propose_all(&project, &offers, &missing).steps, []);
    // Its features are others.
    project.nodes[0].features = Some(vec!["x".to_owned()]);
    let mut offers = offers;
    offers.list[1].features = Some(Vec::new());
    let registry = Registry::default()
        .with("a", &["1.0.0"], &[])
        .with("new", &["0.3.0"], &[])
        .with("a", &["1.1.0"], &[("new", "^0.3")]);
    assert_eq!(propose_all(&project, &offers, &registry).steps, []);
}

#[test]
fn what_is_built_already_is_not_lost_for_less() {
    // Both users are built against c 1.0.0; moving it would serve one new node.
    let mut project = project(&[
        ("c", "1.0.0", &[]),
        ("b", "1.0.0", &[0]),
        ("a", "1.0.0", &[0]),
    ]);
    let offers = offers(&[
        ("c", "1.0.0", &[]),
        ("b", "1.0.0", &[0]),
        ("c", "1.1.0", &[]),
        ("a", "1.0.0", &[2]),
    ]);
    project.nodes[0].offer = Some(0);
    project.nodes[1].offer = Some(1);
    let registry = Registry::default()
        .with("c", &["1.0.0", "1.1.0"], &[])
        .with("b", &["1.0.0"], &[("c", "^1")])
        .with("a", &["1.0.0"], &[("c", "^1")]);
    assert_eq!(propose_all(&project, &offers, &registry).steps, []);
    project.nodes[2].seconds = 10.0;
    let proposal = propose_all(&project, &offers, &registry);
    assert_eq!(steps(&project, &proposal), ["c 1.1.0"]);
    assert_eq!((proposal.before, proposal.after), (2.0, 11.0));
}

/// A chain of packages, each with three versions, and trees that were built of it.
#[derive(Debug, Clone)]
struct Case {
    packages: usize,
    requirements: Vec<u64>,
    trees: Vec<Vec<u64>>,
}

fn case() -> impl Strategy<Value = Case> {
    (1..4usize).prop_flat_map(|packages| {
        let requirements =
            proptest::collection::vec(prop_oneof![3 => Just(0), 1 => 0..3u64], packages);
        let trees = proptest::collection::vec(proptest::collection::vec(0..3u64, packages), 0..4);
        (Just(packages), requirements, trees).prop_map(|(packages, requirements, trees)| Case {
            packages,
            requirements,
            trees,
        })
    })
}

proptest! {
    /// What is proposed meets all requirements; and of all ways to move, none is
    /// worth more on a chain where everything is compatible.
    #[test]
    fn nothing_is_worth_more_on_a_chain(case in case()) {
        let name = |position: usize| format!("p{position}");
        let version = |minor: u64| Version::new(1, minor, 0);
        let mut registry = Registry::default();
        for position in 0..case.packages {
            for minor in 0..3 {
                // Each version needs at least some version of the one below.
                let needs = (position > 0).then(|| Requirement {
                    package: name(position - 1),
                    versions: VersionReq::parse(&format!(">=1.{}", case.requirements[position].min(minor))).unwrap(),
                    optional: false,
                    by_default: true,
                    everywhere: true,
                    features: Vec::new(),
                });
                let release = Release { requirements: needs.into_iter().collect(), ..Release::default() };
                registry.releases.insert((name(position), version(minor)), release);
            }
        }
        let mut list = Vec::new();
        for tree in &case.trees {
            for (position, minor) in tree.iter().enumerate() {
                let needs = (position > 0).then(|| list.len() - 1);
                list.push(Offer { name: name(position), version: version(*minor), features: None, needs: needs.into_iter().collect() });
            }
        }
        let offers = Offers::new(list);
        let packages: Vec<Package> = (0..case.packages).map(|position| Package {
            name: name(position),
            version: version(2),
            is_movable: true,
            needs: position.checked_sub(1).into_iter().collect(),
            requirements: None,
        }).collect();
        let nodes = (0..case.packages).map(|package| Node {
            package,
            features: None,
            needs: package.checked_sub(1).into_iter().collect(),
            seconds: 1.0,
            offer: None,
        }).collect();
        let project = Project { packages, nodes };
        let banned = BTreeSet::new();
        let lookup = Lookup::new(&project, &offers, &banned, &registry);
        let all = |moves: &Moves| moves.keys().copied().collect::<BTreeSet<usize>>();
        let proposal = propose(&project, &offers, &banned, &registry);
        let moves: Moves = proposal.steps.iter().map(|step| (step.package, step.to.clone())).collect();
        prop_assert!(fit(&lookup, &moves, &BTreeSet::new(), &all(&moves)).is_ok());
        // Who only glances promises no more, and sees it where there is something.
        let seen = glance(&project, &offers, &registry, 1);
        let moves: Moves = seen.steps.iter().map(|step| (step.package, step.to.clone())).collect();
        prop_assert!(fit(&lookup, &moves, &BTreeSet::new(), &all(&moves)).is_ok());
        let seen = seen.after - seen.before;
        let gained = proposal.after - proposal.before;
        prop_assert!(seen >= 0.0 && seen <= gained + LEAST, "{seen} {gained}");
        prop_assert_eq!(seen > 0.0, gained > 0.0);
        // What is required may make a tree unreachable that a version would open
        // which nobody has built; such are not looked for.
        if case.requirements.iter().any(|requirement| *requirement > 0) {
            return Ok(());
        }
        let mut best = 0.0_f64;
        for choice in 0..3u64.pow(case.packages as u32) {
            let minors = (0..case.packages).map(|position| choice / 3u64.pow(position as u32) % 3);
            let moves: Moves = minors.enumerate().filter(|(_, minor)| *minor != 2).map(|(at, minor)| (at, version(minor))).collect();
            if fit(&lookup, &moves, &BTreeSet::new(), &all(&moves)).is_ok() {
                best = best.max(value(&lookup, &moves, &BTreeSet::new()).seconds);
            }
        }
        prop_assert!(proposal.after + 1e-9 >= best, "{} < {best}", proposal.after);
    }
}
