//! What a command lacked, for whoever builds ahead.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use crate::cargo::source::is_crates_io;
use crate::cargo::toolchain::builder_name;
use crate::cargo::unit_graph::Source;
use crate::digest::RecipeHash;
use crate::link;
use crate::plan::export::export;
use crate::plan::state::State;
use crate::plan::{Context, Plan, Planned, Reason, Verdict};
use crate::recipe::Recipe;
use crate::recipe::package::PackageRecipe;

/// What a command lacked of crates.io's packages, and what it had.
#[derive(Debug, Clone, Default)]
pub struct Lack {
    /// The workspace's folder.
    pub workspace: PathBuf,
    /// The builder that would fit.
    pub builder: String,
    /// What was lacking, and what that needs, each after what it needs.
    pub recipes: Vec<PackageRecipe>,
    /// Units put in place now instead of being compiled.
    pub hits: u64,
    /// Units that were lacking.
    pub misses: u64,
    /// Seconds that the hits once took.
    pub seconds_saved: f64,
    /// Seconds that the misses took, as far as they are in the store now.
    pub seconds_compiled: f64,
    missing: Vec<usize>,
}

impl Lack {
    /// What a plan lacks; `in_place` says which units were where they belong.
    pub fn before(context: &Context, plan: &Plan, in_place: &[bool]) -> Self {
        let mut lack = Self {
            workspace: context.roots.workspace.clone(),
            builder: builder_name(&context.toolchain.rustc).unwrap_or_default(),
            recipes: lacking(context, plan),
            ..Self::default()
        };
        for (index, planned) in plan.units.iter().enumerate() {
            if !is_public(planned) {
                continue;
            }
            match &plan.resolution.verdicts[index] {
                Verdict::Ready(output) if !in_place[index] => {
                    lack.hits += 1;
                    lack.seconds_saved += output.seconds;
                }
                // What no recipe describes, nobody can build ahead.
                Verdict::Ready(_) | Verdict::Missing(Reason::Refused(_)) => {}
                Verdict::Missing(_) => {
                    lack.misses += 1;
                    lack.missing.push(index);
                }
            }
        }
        lack
    }

    /// Adds what is known when they are compiled.
    pub(super) fn after(&mut self, plan: &Plan) {
        let compiled = self.missing.iter();
        let compiled = compiled.filter_map(|&index| plan.resolution.output(index));
        self.seconds_compiled = compiled.map(|output| output.seconds).sum();
    }
}

fn is_public(planned: &Planned) -> bool {
    match &planned.package.source {
        Source::Immutable(source) => is_crates_io(source),
        Source::Path(_) => false,
    }
}

/// Whether a unit says nothing of this machine and its user: flags and settings
/// may name folders, or have secrets in them.
fn is_plain(unit: &Recipe) -> bool {
    is_crates_io(&unit.source)
        && unit.settings.keys().all(|name| name == "cross")
        && !unit.profile.contains_key("rustflags")
}

/// Which units of a plan are linked where they belong.
pub fn in_place(context: &Context, plan: &Plan, state: &State) -> Vec<bool> {
    let is_in_place = |index: usize| {
        let output = plan.resolution.output(index)?;
        let naming = plan.resolution.namings[index].as_ref()?;
        let paths = link::UnitPaths::new(&context.layout, &plan.units[index], naming);
        let unit = state.units.get(&paths.name)?;
        Some(unit.output == output.id)
    };
    let indices = 0..plan.units.len();
    indices
        .map(|index| is_in_place(index) == Some(true))
        .collect()
}

/// Recipes of what is missing, with all that they need, dependencies first; only
/// of packages from crates.io that need nothing from anywhere else, and that are
/// compiled with no settings of the user's.
fn lacking(context: &Context, plan: &Plan) -> Vec<PackageRecipe> {
    let verdicts = plan.resolution.verdicts.iter().zip(&plan.units);
    let missing = verdicts.filter(|(verdict, _)| matches!(verdict, Verdict::Missing(_)));
    let missing = missing.flat_map(|(_, unit)| [unit.recipe, unit.host_recipe]);
    let missing: BTreeSet<RecipeHash> = missing.collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let mut packages = export(&plan.units, &context.common).packages;
    packages.sort_by_key(PackageRecipe::hash);
    // One may need any of another's units: the run of a build script, by `links`.
    let mut of_unit = HashMap::new();
    for package in &packages {
        for unit in package.hashes() {
            of_unit.entry(*unit).or_insert(package);
        }
    }
    let mut order = Order {
        of_unit,
        done: HashMap::new(),
        list: Vec::new(),
    };
    for package in &packages {
        if package.hashes().iter().any(|hash| missing.contains(hash)) {
            order.visit(package);
        }
    }
    order.list.into_iter().cloned().collect()
}

/// Packages in an order in which each comes after what it needs.
struct Order<'a> {
    of_unit: HashMap<RecipeHash, &'a PackageRecipe>,
    /// Whether all of it is public, by the main unit.
    done: HashMap<RecipeHash, bool>,
    list: Vec<&'a PackageRecipe>,
}

impl<'a> Order<'a> {
    /// Adds one after what it needs, if all of it is public; says whether it is.
    fn visit(&mut self, package: &'a PackageRecipe) -> bool {
        if let Some(done) = self.done.get(&package.hash()) {
            return *done;
        }
        let mut is_public = package.units().iter().all(is_plain);
        for needed in package.needs() {
            // Hashes have no circles.
            let needed = self.of_unit.get(&needed).copied();
            is_public &= needed.is_some_and(|needed| self.visit(needed));
        }
        self.done.insert(package.hash(), is_public);
        if is_public {
            self.list.push(package);
        }
        is_public
    }
}
