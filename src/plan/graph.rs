//! From Cargo's unit graph to recipes. Pure: no I/O, no clock, no environment.
//!
//! Each unit gets three identifiers, computed from its dependencies upwards:
//!
//! * its **recipe**, in which the mode is folded, so that a check unit and a
//!   build unit of the same library share one; for a host unit (a proc macro, a
//!   build script, or what only those need) debug information is folded, too,
//!   because Cargo gives host units of `build` and of `check` different ones;
//! * its **host recipe**: the same with debug information folded everywhere,
//!   by which a host unit finds what a target unit produced;
//! * its **key**, which folds nothing and decides how Cargo names the unit.

use std::collections::{BTreeMap, HashMap};

use petgraph::graph::{DiGraph, NodeIndex};

use crate::cargo::layout::fingerprint_stem;
use crate::cargo::lock_file::{Pin, PinIndex};
use crate::cargo::unit_graph::{Dependency as Edge, Mode, PackageId, Source, Unit, UnitGraph};
use crate::cargo::workspace::Roots;
use crate::digest::{RecipeHash, UnitKey};
use crate::output::Produced;
use crate::recipe::{Dependency, FORMAT, Recipe, Target, Tools};

/// What one unit of the graph comes down to.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Cargo's unit.
    pub unit: Unit,
    /// Its package.
    pub package: PackageId,
    /// Whether only the host runs it.
    pub host: bool,
    /// Whether it is compiled with `--test`.
    pub test: bool,
    /// Whether it is a member of the workspace.
    pub member: bool,
    /// Kind of target, as in the recipe.
    pub kind: &'static str,
    /// Mode-independent identity.
    pub recipe: RecipeHash,
    /// Identity without debug information.
    pub host_recipe: RecipeHash,
    /// Exact identity.
    pub key: UnitKey,
    /// Stem of its files in the fingerprint folder.
    pub stem: String,
    /// How it would be produced if Cargo compiled it now.
    pub produced: Produced,
    /// Indices of what it needs, binaries left out: those make nothing stale.
    pub needs: Vec<usize>,
    /// Why the unit is left to Cargo, if it is.
    pub refused: Option<Refusal>,
}

/// Why a unit cannot be described by a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Documentation is not kept.
    Documentation,
    /// Two units of the graph look the same from outside.
    Ambiguous,
    /// Cargo.lock does not say which commit or which archive the package is.
    Unpinned,
    /// The package id or mode is of a form that is not known.
    Unknown,
    /// Something it needs is refused.
    Dependency,
}

impl Refusal {
    /// The reason in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Documentation => "documentation is not kept in the store",
            Self::Ambiguous => "two units look the same in the unit graph",
            Self::Unpinned => "`Cargo.lock` does not say which commit or archive it is",
            Self::Unknown => "this form of package or mode is not known",
            Self::Dependency => "something it needs is left to Cargo",
        }
    }
}

/// What is the same for all units of a command.
#[derive(Debug, Clone)]
pub struct Common {
    /// The tools.
    pub tools: Tools,
    /// Host triple.
    pub host: String,
    /// Flags and settings outside the profile.
    pub settings: BTreeMap<String, String>,
    /// What the lock file says about packages.
    pub pins: PinIndex,
    /// Folders that may not occur in a recipe.
    pub roots: Roots,
    /// The program between Cargo and rustc for members: clippy's driver.
    pub workspace_wrapper: Option<String>,
    /// Names of the workspace's members.
    pub members: Vec<String>,
    /// Whether only tests are checked (`Invocation::checks_tests_only`).
    pub checks_tests_only: bool,
}

/// Describes all units; the order is that of the graph.
pub fn describe(graph: &UnitGraph, common: &Common) -> Vec<Planned> {
    let order = dependencies_first(graph);
    let host = host_units(graph);
    let tests = test_units(graph, common.checks_tests_only);
    let mut done: Vec<Option<Planned>> = vec![None; graph.units.len()];
    for index in order {
        let unit = &graph.units[index];
        let facts = Facts {
            host: host[index],
            test: tests[index],
        };
        done[index] = Some(describe_unit(unit, facts, common, &done));
    }
    let mut planned: Vec<Planned> = done.into_iter().flatten().collect();
    refuse_ambiguous(&mut planned);
    planned
}

struct Facts {
    host: bool,
    test: bool,
}

/// Indices with dependencies before dependants. Cargo's graph has no cycles; if
/// one comes all the same, the units on it are left out and so left to Cargo.
pub fn dependencies_first(graph: &UnitGraph) -> Vec<usize> {
    let mut edges = DiGraph::<(), ()>::new();
    for _ in &graph.units {
        edges.add_node(());
    }
    for (index, unit) in graph.units.iter().enumerate() {
        for dependency in &unit.dependencies {
            edges.add_edge(NodeIndex::new(dependency.index), NodeIndex::new(index), ());
        }
    }
    petgraph::algo::toposort(&edges, None)
        .map(|order| order.into_iter().map(NodeIndex::index).collect())
        .unwrap_or_default()
}

/// A unit is a host unit if every way to it leads through a proc macro or the
/// compilation of a build script.
fn host_units(graph: &UnitGraph) -> Vec<bool> {
    let starts_host = |unit: &Unit| {
        unit.is_kind("proc-macro") || (unit.is_kind("custom-build") && unit.mode == Mode::Build)
    };
    let mut host = vec![true; graph.units.len()];
    let mut open: Vec<usize> = graph.roots.clone();
    while let Some(index) = open.pop() {
        if !host[index] || starts_host(&graph.units[index]) {
            continue;
        }
        host[index] = false;
        open.extend(graph.units[index].dependencies.iter().map(|d| d.index));
    }
    host
}

/// Which units are compiled with `--test`. A check unit does not say so; of two
/// that differ in nothing else the second is the test, as Cargo sorts them, and
/// what others depend on is not a test.
fn test_units(graph: &UnitGraph, tests_only: bool) -> Vec<bool> {
    let mut needed = vec![false; graph.units.len()];
    for unit in &graph.units {
        for dependency in &unit.dependencies {
            needed[dependency.index] = true;
        }
    }
    let mut tests = vec![false; graph.units.len()];
    let mut seen: HashMap<(&str, &str, &[String]), usize> = HashMap::new();
    for (index, unit) in graph.units.iter().enumerate() {
        tests[index] = match unit.mode {
            Mode::Test => true,
            Mode::Check if unit.is_kind("test") || unit.is_kind("bench") => true,
            Mode::Check if graph.roots.contains(&index) && !unit.is_kind("example") => {
                let id = (
                    unit.pkg_id.as_str(),
                    unit.target.name.as_str(),
                    &*unit.target.kind,
                );
                let earlier = seen.insert(id, index).is_some();
                !needed[index] && (earlier || tests_only)
            }
            _ => false,
        };
    }
    tests
}

fn describe_unit(unit: &Unit, facts: Facts, common: &Common, done: &[Option<Planned>]) -> Planned {
    let package = PackageId::parse(&unit.pkg_id);
    let known = package.is_some() && unit.mode != Mode::Unknown && !unit.is_std;
    let package = package.unwrap_or_else(|| PackageId {
        name: unit.target.name.clone(),
        version: String::new(),
        source: Source::Immutable(unit.pkg_id.clone()),
    });
    let member = package.is_path() && common.members.contains(&package.name);
    let run = unit.mode == Mode::RunCustomBuild;
    let needs = needs(unit, |index| done[index].as_ref());
    let dependencies = |identity: &dyn Fn(&Planned) -> RecipeHash| {
        edges(&needs, |index| done[index].as_ref(), identity)
    };

    let pin = common.pins.of(&package);
    let exact = Recipe {
        dependencies: dependencies(&|p| if p.host { p.host_recipe } else { p.recipe }),
        ..bare_recipe(unit, &package, facts.test, common)
    };
    let host_form = Recipe {
        dependencies: dependencies(&|p| p.host_recipe),
        ..exact.clone()
    };
    let host_recipe = host_form.without_debug_information().hash();
    let recipe = if facts.host {
        host_recipe
    } else {
        exact.hash()
    };

    let mut key = exact.canonical("quickbuild-unit-1");
    key.text(&format!("{:?}", unit.mode));
    key.option(common.workspace_wrapper.as_deref().filter(|_| member));
    for edge in &needs {
        let below = done[edge.index].as_ref();
        key.option(below.map(|p| p.key.to_string()).as_deref());
    }

    let refused_below = needs.iter().any(|edge| {
        done[edge.index]
            .as_ref()
            .is_none_or(|p| p.refused.is_some())
    });
    let refused = match unit.mode {
        Mode::Doc | Mode::Doctest | Mode::Docscrape => Some(Refusal::Documentation),
        _ if !known => Some(Refusal::Unknown),
        _ if pin.is_none() && !package.is_path() => Some(Refusal::Unpinned),
        _ if refused_below => Some(Refusal::Dependency),
        _ => None,
    };
    let produced = match unit.mode {
        Mode::RunCustomBuild => Produced::Run,
        Mode::Check if member && common.workspace_wrapper.is_some() => Produced::Clippy,
        Mode::Check => Produced::Check,
        Mode::Test => Produced::Test,
        _ => Produced::Build,
    };
    Planned {
        stem: fingerprint_stem(unit, facts.test, run),
        host: facts.host,
        test: facts.test,
        member,
        kind: kind(unit),
        recipe,
        host_recipe,
        key: UnitKey::finish(key),
        produced,
        needs: needs.iter().map(|edge| edge.index).collect(),
        refused,
        unit: unit.clone(),
        package,
    }
}

/// In which of its two forms a recipe is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// With debug information, for the target: [`Planned::recipe`] of a unit
    /// that is no host unit.
    Target,
    /// Without: [`Planned::host_recipe`].
    Host,
}

/// The recipe behind a unit's [`Planned::recipe`] or [`Planned::host_recipe`],
/// written out, for exporting it. `units` are all of the graph.
pub fn recipe_of(units: &[Planned], index: usize, form: Form, common: &Common) -> Recipe {
    let planned = &units[index];
    let needs = needs(&planned.unit, |index| units.get(index));
    let identity = |p: &Planned| match form {
        Form::Target if !p.host => p.recipe,
        _ => p.host_recipe,
    };
    let recipe = Recipe {
        dependencies: edges(&needs, |index| units.get(index), &identity),
        ..bare_recipe(&planned.unit, &planned.package, planned.test, common)
    };
    match form {
        Form::Target => recipe,
        Form::Host => recipe.without_debug_information(),
    }
}

/// What a unit needs, binaries left out: those make nothing stale.
fn needs<'a, 'p>(unit: &'a Unit, of: impl Fn(usize) -> Option<&'p Planned>) -> Vec<&'a Edge> {
    let is_bin = |edge: &&Edge| of(edge.index).is_some_and(|p| p.unit.is_kind("bin"));
    let edges = unit.dependencies.iter();
    edges.filter(|edge| !is_bin(edge)).collect()
}

fn edges<'p>(
    needs: &[&Edge],
    of: impl Fn(usize) -> Option<&'p Planned>,
    identity: &dyn Fn(&Planned) -> RecipeHash,
) -> Vec<Dependency> {
    let edges = needs.iter().filter_map(|edge| {
        Some(Dependency {
            name: edge.extern_crate_name.clone(),
            recipe: identity(of(edge.index)?),
            public: edge.public,
            noprelude: edge.noprelude,
        })
    });
    edges.collect()
}

/// A unit's recipe, but for its dependencies.
fn bare_recipe(unit: &Unit, package: &PackageId, test: bool, common: &Common) -> Recipe {
    let pin = common.pins.of(package);
    Recipe {
        format: FORMAT,
        name: package.name.clone(),
        version: package.version.clone(),
        source: source(package, pin, &common.roots),
        checksum: match pin {
            Some(Pin::Checksum(checksum)) => Some(checksum.clone()),
            _ => None,
        },
        target: Target {
            kind: kind(unit).to_owned(),
            name: unit.target.name.clone(),
            crate_types: unit.target.crate_types.clone(),
            edition: unit.target.edition.clone(),
        },
        features: unit.features.clone(),
        platform: unit.platform.clone().unwrap_or_else(|| common.host.clone()),
        test,
        toolchain: common.tools.clone(),
        profile: profile(unit),
        settings: settings(unit, common),
        dependencies: Vec::new(),
    }
}

fn kind(unit: &Unit) -> &'static str {
    if unit.mode == Mode::RunCustomBuild {
        return "build-run";
    }
    let kinds = [
        ("custom-build", "build-script"),
        ("proc-macro", "proc-macro"),
        ("bin", "bin"),
        ("test", "test"),
        ("bench", "bench"),
        ("example", "example"),
    ];
    let found = kinds.iter().find(|(kind, _)| unit.is_kind(kind));
    found.map_or("lib", |(_, name)| name)
}

/// Every field of the profile but its name, which Cargo leaves out of its
/// hashes, too (`Profile::comparable`).
fn profile(unit: &Unit) -> BTreeMap<String, String> {
    let fields = unit.profile.iter().filter(|(name, _)| *name != "name");
    fields
        .map(|(name, value)| (name.clone(), value.to_string()))
        .collect()
}

fn source(package: &PackageId, pin: Option<&Pin>, roots: &Roots) -> String {
    match &package.source {
        Source::Immutable(url) => match pin {
            Some(Pin::Revision(revision)) => format!("{url}#{revision}"),
            _ => url.clone(),
        },
        Source::Path(path) => {
            // Cargo hashes a path inside the workspace relative to it.
            let relative = path.strip_prefix(&roots.workspace).unwrap_or(path);
            format!("path+{}", relative.display())
        }
    }
}

fn settings(unit: &Unit, common: &Common) -> BTreeMap<String, String> {
    let mut settings = common.settings.clone();
    // With `--target`, RUSTFLAGS and target tables leave host units alone.
    if unit.platform.is_some() {
        settings.insert("cross".to_owned(), "true".to_owned());
    }
    settings
}

fn refuse_ambiguous(planned: &mut [Planned]) {
    let mut count: HashMap<UnitKey, usize> = HashMap::new();
    for unit in planned.iter() {
        *count.entry(unit.key).or_default() += 1;
    }
    let twice: Vec<bool> = planned.iter().map(|unit| count[&unit.key] > 1).collect();
    for (unit, twice) in planned.iter_mut().zip(twice) {
        if twice && unit.refused.is_none() {
            unit.refused = Some(Refusal::Ambiguous);
        }
    }
    // Spread upwards until nothing changes: the list is in Cargo's order, not
    // in dependency order.
    loop {
        let refused: Vec<bool> = planned.iter().map(|unit| unit.refused.is_some()).collect();
        let mut changed = false;
        for unit in planned.iter_mut() {
            if unit.refused.is_none() && unit.needs.iter().any(|&need| refused[need]) {
                unit.refused = Some(Refusal::Dependency);
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}
