//! Which output serves which unit, and why the others are left to Cargo.
//!
//! A unit may have several outputs in the store: made by `build` or by
//! `check`, with and without debug information, from other inputs. An output
//! can only be used together with the very outputs it was compiled against. So
//! the choice runs from dependencies upwards, each unit taking the first output
//! that refers to what was chosen below it. There are several sensible orders
//! of preference, and a greedy choice can go wrong in each, so all are tried
//! and the one that leaves least to compile is taken. Where several makers
//! have outputs, there is an order for each, since what one has made is closed
//! more likely than a mixture.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::graph::{Planned, Refusal};
use super::inputs::{Difference, Inspector};
use super::offers::Offers;
use crate::cargo::glibc::GlibcVersion;
use crate::cargo::toolchain::Toolchain;
use crate::cargo::unit_graph::Source;
use crate::digest::{OutputId, UnitKey};
use crate::output::{Inputs, Maker, Naming, Output, Produced, Role};
use crate::store::Store;

/// What is to be done for a unit.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The store has it, with all that it needs.
    Ready(Arc<Output>),
    /// Cargo compiles it.
    Missing(Reason),
}

/// Why a unit is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It cannot be described.
    Refused(Refusal),
    /// The store has no output of its recipe.
    NotInStore,
    /// It has, but compiled from other inputs; this one differs.
    Inputs(Difference),
    /// It has, but compiled against other outputs.
    References,
    /// It has, but for a newer GNU C library than this system's.
    Glibc {
        /// What the output asks for.
        needed: GlibcVersion,
        /// What is here, if that is known.
        here: Option<GlibcVersion>,
    },
    /// It had, but somebody wrote to the files.
    Damaged,
    /// Something it needs is not ready.
    Dependency,
}

impl Reason {
    /// A word for counting and for JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::NotInStore => "not-in-store",
            Self::Inputs(_) => "inputs",
            Self::References => "references",
            Self::Glibc { .. } => "glibc",
            Self::Damaged => "damaged",
            Self::Dependency => "dependency",
        }
    }

    /// The reason in words.
    pub fn describe(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.reason().to_owned(),
            Self::NotInStore => "the store has no output of its recipe yet".to_owned(),
            Self::Inputs(Difference::File(path)) => {
                format!(
                    "`{}` differs from what the stored output was compiled from",
                    path.display()
                )
            }
            Self::Inputs(Difference::Variable(name)) => {
                format!("the variable `{name}` differs from when the stored output was compiled")
            }
            Self::Inputs(Difference::GitHead) => {
                "its build script asks Git for the commit, and another one is checked out"
                    .to_owned()
            }
            Self::Inputs(Difference::Folders) => {
                "the stored output names folders of another checkout".to_owned()
            }
            Self::References => "it was compiled against other outputs of what it needs".to_owned(),
            Self::Glibc {
                needed,
                here: Some(here),
            } => {
                format!("the stored output needs GLIBC {needed}, and this system has {here}")
            }
            Self::Glibc { needed, here: None } => format!(
                "the stored output needs GLIBC {needed}, and this system does not say what it has"
            ),
            Self::Damaged => {
                "its files in the store were changed; `quickbuild store repair` cleans up"
                    .to_owned()
            }
            Self::Dependency => "something it needs is not ready".to_owned(),
        }
    }
}

/// Everything the store says about one unit.
struct Known {
    /// Outputs of its recipe that may serve its mode, with a difference in
    /// inputs if there is one.
    outputs: Vec<(Arc<Output>, Option<Reason>)>,
    naming: Option<Naming>,
}

/// The choice for all units.
#[derive(Debug)]
pub struct Resolution {
    /// One for each unit.
    pub verdicts: Vec<Verdict>,
    /// How Cargo names each unit, where known.
    pub namings: Vec<Option<Naming>>,
}

impl Resolution {
    /// The output chosen for a unit.
    pub fn output(&self, index: usize) -> Option<&Arc<Output>> {
        match &self.verdicts[index] {
            Verdict::Ready(output) => Some(output),
            Verdict::Missing(_) => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Preference {
    /// What one maker made first.
    Made(Maker),
    /// The very unit first.
    Exact,
    /// What was compiled and linked first: it serves check units as well.
    Linked,
    /// What most other outputs were compiled against first.
    Referenced,
}

/// The folder of a package whose files may change: a path package, or one that
/// is vendored. What lies in Cargo's home never does.
pub fn package_folder(planned: &Planned) -> Option<&Path> {
    if let Source::Path(path) = &planned.package.source {
        return Some(path);
    }
    let source = &planned.unit.target.src_path;
    let text = source.to_string_lossy();
    if text.contains("/registry/src/") || text.contains("/git/checkouts/") {
        return None;
    }
    source
        .ancestors()
        .find(|folder| folder.join("Cargo.toml").is_file())
}

/// Where outputs are looked for.
pub struct Shelf<'a> {
    /// What is here.
    pub store: &'a Store,
    /// What could be here.
    pub offers: &'a Offers,
}

impl Shelf<'_> {
    /// All outputs of a recipe, the newest first: the likeliest for a member
    /// that changes; what is only offered comes last. Each with whether it is
    /// here.
    fn outputs(&self, unit: &Planned) -> Vec<(Arc<Output>, bool)> {
        let names = self.store.candidates(unit.host_recipe);
        let here = names.iter().rev();
        let here = here.filter_map(|name| self.store.output(name));
        let mut outputs: Vec<(Arc<Output>, bool)> =
            here.map(|output| (Arc::new(output), true)).collect();
        let offered = self.offers.candidates(unit.host_recipe).iter();
        let is_new = |offered: &&Arc<Output>| {
            let mut known = outputs.iter();
            !known.any(|(output, _)| output.id == offered.id && self.store.is_usable(output))
        };
        let new: Vec<_> = offered.filter(is_new).cloned().collect();
        outputs.extend(new.into_iter().map(|output| (output, false)));
        outputs
    }

    fn naming(&self, key: UnitKey) -> Option<Naming> {
        let here = self.store.naming(key);
        here.or_else(|| self.offers.naming(key).cloned())
    }
}

/// Chooses.
pub fn resolve(
    units: &[Planned],
    order: &[usize],
    shelf: &Shelf<'_>,
    inspector: &Inspector<'_>,
    toolchain: &Toolchain,
) -> Resolution {
    let known: Vec<Known> = units
        .par_iter()
        .map(|unit| ask(unit, shelf, inspector, toolchain))
        .collect();
    Resolution {
        verdicts: choose_best(units, order, &known),
        namings: known.into_iter().map(|known| known.naming).collect(),
    }
}

/// Tries all orders of preference and takes the choice that saves most.
fn choose_best(units: &[Planned], order: &[usize], known: &[Known]) -> Vec<Verdict> {
    let references = count_references(known);
    let mut preferences = makers(known);
    preferences.extend([
        Preference::Exact,
        Preference::Linked,
        Preference::Referenced,
    ]);
    let choices = preferences.into_iter().map(|preference| {
        let preference = Order {
            preference,
            references: &references,
        };
        choose(units, order, known, &preference)
    });
    let seconds = |verdicts: &[Verdict]| -> f64 {
        let ready = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Ready(output) => Some(output.seconds + 0.01),
            Verdict::Missing(_) => None,
        });
        ready.sum()
    };
    let best = choices.max_by(|a, b| seconds(a).total_cmp(&seconds(b)));
    best.unwrap_or_default()
}

/// An order for each maker; none where there is only one.
fn makers(known: &[Known]) -> Vec<Preference> {
    let outputs = known.iter().flat_map(|known| &known.outputs);
    let makers: BTreeSet<Maker> = outputs.map(|(output, _)| output.builder).collect();
    if makers.len() < 2 {
        return Vec::new();
    }
    makers.into_iter().map(Preference::Made).collect()
}

fn ask(
    unit: &Planned,
    shelf: &Shelf<'_>,
    inspector: &Inspector<'_>,
    toolchain: &Toolchain,
) -> Known {
    if unit.refused.is_some() {
        return Known {
            outputs: Vec::new(),
            naming: None,
        };
    }
    let package = package_folder(unit);
    // A vendored package may have been edited, whatever the lock file says of
    // it. An output that was compiled from the registry knows no files.
    let is_vendored = package.is_some() && !unit.package.is_path();
    let knows_sources = |output: &Output| {
        !is_vendored || output.produced == Produced::Run || !output.inputs.files.is_empty()
    };
    let outputs = shelf
        .outputs(unit)
        .into_iter()
        .filter(|(output, _)| serves(output, unit) && knows_sources(output))
        .map(|(output, is_here)| {
            let inputs = inputs_of(&output, unit);
            let difference = inspector.difference(&inputs, package);
            let reason = difference
                .map(Reason::Inputs)
                .or_else(|| lacks_glibc(&output, unit, toolchain))
                .or_else(|| {
                    (is_here && !shelf.store.is_usable(&output)).then_some(Reason::Damaged)
                });
            (output, reason)
        })
        .collect();
    Known {
        outputs,
        naming: shelf.naming(unit.key),
    }
}

/// Whether an output would not start here: the dynamic linker refuses what
/// asks for symbols of a newer C library. What is compiled for another platform
/// does not run here anyway.
fn lacks_glibc(output: &Output, unit: &Planned, toolchain: &Toolchain) -> Option<Reason> {
    let needed = output.glibc?;
    let runs_here = unit
        .unit
        .platform
        .as_deref()
        .is_none_or(|platform| platform == toolchain.host());
    let here = toolchain.glibc;
    let is_met = match here {
        Some(here) => needed <= here,
        // What was made here runs here; of others nothing is known.
        None => output.builder == Maker::Local,
    };
    (runs_here && !is_met).then_some(Reason::Glibc { needed, here })
}

/// The conditions for using an output as this unit. What only clippy reads is
/// none for `cargo check`; see [`is_plain_clippy`].
fn inputs_of<'a>(output: &'a Output, unit: &Planned) -> Cow<'a, Inputs> {
    if output.produced != Produced::Clippy || unit.produced == Produced::Clippy {
        return Cow::Borrowed(&output.inputs);
    }
    let mut inputs = output.inputs.clone();
    inputs.env.retain(|(name, _)| !name.starts_with("CLIPPY_"));
    Cow::Owned(inputs)
}

/// Whether an output of a unit's host recipe can stand in for the unit.
fn serves(output: &Output, unit: &Planned) -> bool {
    let recipe = unit.host || output.recipe == unit.recipe;
    recipe
        && match unit.produced {
            Produced::Check => match output.produced {
                Produced::Check | Produced::Test | Produced::Build => true,
                Produced::Clippy => is_plain_clippy(output),
                Produced::Run => false,
            },
            Produced::Clippy => output.key == unit.key,
            other => output.produced == other,
        }
}

/// Whether clippy compiled what rustc would have: `cfg(clippy)` may change the
/// code, and lint levels given to clippy may change rustc's own warnings.
fn is_plain_clippy(output: &Output) -> bool {
    let arguments = output
        .inputs
        .env
        .iter()
        .find(|(name, _)| name == "CLIPPY_ARGS");
    let plain = |value: &str| {
        value
            .split("__CLIPPY_HACKERY__")
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .all(|word| {
                word.starts_with("clippy::")
                    || matches!(word, "-W" | "-A" | "-D" | "-F" | "--no-deps")
            })
    };
    arguments.is_none_or(|(_, value)| value.as_deref().is_none_or(plain))
        && output.files_of(Role::Metadata).next().is_some()
        && !output.mentions_clippy
}

/// How many usable outputs were compiled against each output.
fn count_references(known: &[Known]) -> HashMap<OutputId, usize> {
    let mut count = HashMap::new();
    let usable = known
        .iter()
        .flat_map(|known| &known.outputs)
        .filter(|(_, reason)| reason.is_none());
    for id in usable.flat_map(|(output, _)| &output.references) {
        *count.entry(*id).or_default() += 1;
    }
    count
}

/// An order in which outputs are considered.
struct Order<'a> {
    preference: Preference,
    references: &'a HashMap<OutputId, usize>,
}

impl Order<'_> {
    /// Smaller is better.
    fn rank(&self, output: &Output, unit: &Planned) -> (bool, usize, bool) {
        let most_referenced = |references| usize::MAX - references;
        let other = output.key != unit.key;
        let metadata_only = matches!(output.produced, Produced::Check | Produced::Clippy);
        let references = self.references.get(&output.id).copied().unwrap_or_default();
        match self.preference {
            Preference::Made(maker) => (
                output.builder != maker,
                most_referenced(references),
                metadata_only,
            ),
            Preference::Exact => (other, 0, metadata_only),
            Preference::Linked => (metadata_only, 0, other),
            Preference::Referenced => (metadata_only, most_referenced(references), other),
        }
    }
}

fn choose(
    units: &[Planned],
    order: &[usize],
    known: &[Known],
    preference: &Order<'_>,
) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> =
        vec![Verdict::Missing(Reason::Refused(Refusal::Unknown)); units.len()];
    for &index in order {
        let unit = &units[index];
        let mut wanted: Option<Vec<BTreeSet<OutputId>>> = Some(Vec::new());
        for &need in &unit.needs {
            let mut ids = BTreeSet::new();
            if let Verdict::Ready(output) = &verdicts[need] {
                ids.insert(output.id);
            }
            if unit.kind == "build-run" && units[need].kind == "build-script" {
                ids.extend(elsewhere(&units[need], &known[need], need, &verdicts));
            }
            wanted = wanted.filter(|_| !ids.is_empty());
            if let Some(wanted) = &mut wanted {
                wanted.push(ids);
            }
        }
        verdicts[index] = choose_one(unit, &known[index], wanted.as_deref(), preference);
    }
    verdicts
}

/// Outputs of a build script that differ from the one here in nothing but the
/// place of the folders that they name. What a run of one has left serves for
/// the other: in it, the same folders have names, or are conditions.
fn elsewhere(script: &Planned, known: &Known, index: usize, verdicts: &[Verdict]) -> Vec<OutputId> {
    let is_needed = |id: &OutputId| {
        let needs = script.needs.iter().map(|&need| &verdicts[need]);
        needs
            .into_iter()
            .any(|need| matches!(need, Verdict::Ready(output) if output.id == *id))
    };
    let is_same = |output: &Output| match &verdicts[index] {
        Verdict::Ready(here) => {
            here.inputs.files == output.inputs.files
                && here.inputs.env == output.inputs.env
                && here.references == output.references
        }
        Verdict::Missing(reason) => {
            *reason == Reason::Inputs(Difference::Folders)
                && output.references.iter().all(is_needed)
        }
    };
    let moved = known.outputs.iter().filter(|(output, reason)| {
        *reason == Some(Reason::Inputs(Difference::Folders)) && is_same(output)
    });
    moved.map(|(output, _)| output.id).collect()
}

/// Whether an output was compiled against one of each set, and nothing else.
fn refers_to(output: &Output, wanted: &[BTreeSet<OutputId>]) -> bool {
    let references: BTreeSet<&OutputId> = output.references.iter().collect();
    let is_wanted = |id: &&OutputId| wanted.iter().any(|ids| ids.contains(id));
    references.iter().all(is_wanted)
        && wanted
            .iter()
            .all(|ids| ids.iter().any(|id| references.contains(id)))
}

fn choose_one(
    unit: &Planned,
    known: &Known,
    wanted: Option<&[BTreeSet<OutputId>]>,
    preference: &Order<'_>,
) -> Verdict {
    if let Some(refusal) = unit.refused {
        return Verdict::Missing(Reason::Refused(refusal));
    }
    let mut outputs: Vec<&(Arc<Output>, Option<Reason>)> = known.outputs.iter().collect();
    outputs.sort_by_key(|(output, _)| preference.rank(output, unit));
    let mut reason = if known.outputs.is_empty() {
        Reason::NotInStore
    } else {
        Reason::References
    };
    for (output, difference) in outputs {
        match (difference, wanted) {
            (None, Some(wanted)) if refers_to(output, wanted) => {
                return Verdict::Ready(Arc::clone(output));
            }
            (Some(difference), _) => reason = difference.clone(),
            _ => {}
        }
    }
    let is_own = matches!(
        reason,
        Reason::NotInStore | Reason::Inputs(_) | Reason::Glibc { .. }
    );
    if wanted.is_none() && !is_own {
        reason = Reason::Dependency;
    }
    Verdict::Missing(reason)
}

#[cfg(test)]
mod tests;
