//! `quickbuild align`: which packages to move so that more is prebuilt.

mod hint;
mod proof;
mod sources;
mod workspace;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::analyse::{index_homes, look_up};
use super::arguments::{AlignArguments, Format};
use super::plan::command;
use super::terminal::{print_json, print_line};
use super::{Exit, Failure, Surroundings};
use crate::align::project::packages;
use crate::align::{Project, Proposal};
use crate::analyse::alignment::locked;
use crate::analyse::trees;
use crate::cargo::index_cache::{IndexCache, Target};
use crate::cargo::invocation::Invocation;
use crate::cargo::lock_graph::LockGraph;
use crate::cargo::members::Members;
use crate::cargo::releases::Releases;
use crate::cargo::relock::Network;
use crate::cargo::source::PackageSource;
use crate::config::Config;
use crate::fs;
use crate::plan::{Context, graph};
use crate::store::Store;
pub(super) use hint::hint;
use proof::{Bench, Proved};
use sources::Sources;
use workspace::Facts;
pub(super) use workspace::is_main;

/// Reasons that are told why more does not fit.
const REASONS: usize = 3;

pub(super) fn run(
    surroundings: &Surroundings,
    arguments: &AlignArguments,
) -> Result<ExitCode, Failure> {
    let config = surroundings.config()?;
    let store = Store::open(&config.store)?;
    let scratch = Scratch(store.stage_path("align"));
    fs::create_dir_all(&scratch.0)?;
    let invocation = command(arguments.arguments.clone());
    let manifest = invocation.manifest_path();
    let manifest = manifest.map(|path| surroundings.folder.join(path));
    let environment = &surroundings.environment;
    let members = Members::load(environment, &surroundings.folder, manifest.as_deref())?;
    let path = members.root.join("Cargo.lock");
    let bytes = fs::read_optional(&path)?.ok_or_else(|| {
        Failure::new(format!("`{}` does not exist", path.display()))
            .hint("`cargo generate-lockfile` writes it")
    })?;
    let scene = Scene {
        surroundings,
        arguments,
        config: &config,
        store: &store,
        members: &members,
        invocation: &invocation,
        lock: LockGraph::parse(&bytes)
            .map_err(|error| Failure::new(format!("`{}`: {error}", path.display())))?,
    };
    let facts = scene.facts()?;
    let (project, sources) = scene.project()?;
    let bench = Bench {
        surroundings,
        members: &members,
        lock: &bytes,
        scratch: &scratch.0,
        network: scene.network(),
        is_applied: arguments.apply,
        invocation: arguments.analysis.is_none().then_some(&invocation),
    };
    let proved = bench.prove(&project, &sources, &facts)?;
    let report = Report::of(&project, &proved, &scene.lock)?;
    let is_applied = match &proved.lock {
        Some(lock) if arguments.apply => {
            replace(&path, &bytes, lock)?;
            true
        }
        _ => false,
    };
    match arguments.format {
        Format::Json => print_json(&report),
        Format::Text => report.print(arguments, is_applied),
    }
    let would_help = !report.changes.is_empty() && !is_applied;
    let exit = match would_help && arguments.check {
        true => Exit::Found,
        false => Exit::Success,
    };
    Ok(exit.into())
}

/// A folder that is gone when this is dropped.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // the collector does it otherwise
    }
}

/// Replaces a lock file at once, if it is as it was read.
fn replace(path: &Path, before: &[u8], lock: &[u8]) -> Result<(), Failure> {
    if fs::read(path)? != before {
        return Err(Failure::new(format!(
            "`{}` was changed by somebody else meanwhile, and is as they left it",
            path.display()
        )));
    }
    // A link stays one.
    let path = fs::canonicalize(path)?;
    let mode = fs::mode(&path)?;
    let beside = fs::unique_beside(&path);
    let written = fs::write(&beside, lock)
        .and_then(|()| fs::set_mode(&beside, mode))
        .and_then(|()| fs::sync(&beside))
        .and_then(|()| fs::rename(&beside, &path));
    if written.is_err() {
        let _ = fs::remove_file(&beside); // nobody looks at it
    }
    Ok(written?)
}

/// What is asked, and what is there.
struct Scene<'a> {
    surroundings: &'a Surroundings,
    arguments: &'a AlignArguments,
    config: &'a Config,
    store: &'a Store,
    members: &'a Members,
    invocation: &'a Invocation,
    lock: LockGraph,
}

impl Scene<'_> {
    /// Whether Cargo may ask registries.
    fn network(&self) -> Network {
        match self.arguments.offline {
            true => Network::Forbidden,
            false => Network::Allowed,
        }
    }

    /// What is known of versions.
    fn facts(&self) -> Result<Facts, Failure> {
        let surroundings = self.surroundings;
        if self.arguments.lookup {
            let public = self.lock.packages.iter().filter(|package| {
                let source = package.source.as_deref().and_then(PackageSource::parse);
                source == Some(PackageSource::CratesIo)
            });
            look_up(
                surroundings,
                &public.map(|package| package.name.clone()).collect(),
            )?;
        }
        let given = self.arguments.advisory_db.as_deref();
        let given = given.map(|folder| surroundings.folder.join(folder));
        let given = given.or_else(|| self.config.advisory_db.clone());
        let cargo_home = surroundings.environment.cargo_home();
        let (folder, advisories) = Facts::advisories(given.as_deref(), &cargo_home);
        if advisories.is_none() {
            let folder = folder.display();
            let said = format!("there is no advisory database in `{folder}`");
            if given.is_some() {
                return Err(Failure::new(said).hint("it has a folder `crates`"));
            }
            Failure::new(format!(
                "{said}, so vulnerable versions are not known, and nothing moves to an older one"
            ))
            .hint("`cargo audit` puts it there; `--advisory-db DIR` names another one")
            .warn();
        }
        Ok(Facts {
            releases: Releases::open(&index_homes(surroundings)?)?,
            advisories,
            rust: self.members.rust_version(),
            network: self.network(),
        })
    }

    /// The workspace, and what is prebuilt.
    fn project(&self) -> Result<(Project, Sources), Failure> {
        let surroundings = self.surroundings;
        let keep = self.arguments.keep.iter().chain(&self.config.keep);
        let keep: BTreeSet<String> = keep.cloned().collect();
        let manifests = workspace::manifests(self.members);
        let packages = packages(&self.lock, &manifests, &keep);
        let packages = packages
            .ok_or_else(|| Failure::new("a version in Cargo.lock is none that Cargo writes"))?;
        if let Some(analysis) = &self.arguments.analysis {
            let sources = Sources::of_analysis(&surroundings.folder.join(analysis))?;
            let target = Target::ask(&surroundings.environment, &surroundings.folder, None)?;
            let index = IndexCache::open(target, &index_homes(surroundings)?)?;
            let mut cut = self.lock.clone();
            trees::cut(&mut cut, &index);
            let seconds = |name: &str, version: &str| sources.seconds(None, name, version);
            let project = locked(packages, &cut, &sources.offers, &seconds);
            return Ok((project, sources));
        }
        let context = Context::gather(
            &surroundings.environment,
            &surroundings.folder,
            self.invocation,
            &self.store.cache(""),
        )?;
        let inventory = sources::inventories(
            surroundings,
            (self.config, self.store),
            &self.arguments.substituter,
            self.arguments.offline,
        )?;
        let sources = Sources::of_inventory(inventory, &context.toolchain.rustc);
        let units = graph::describe(&context.graph, &context.common);
        let project = workspace::planned(packages, &units, &sources);
        Ok((project, sources))
    }
}

/// What is printed; `docs/formats/alignment.md` describes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    format: u32,
    /// Seconds of all packages that are compiled.
    seconds_before: f64,
    seconds_after: f64,
    prebuilt_before: f64,
    prebuilt_after: f64,
    changes: Vec<Change>,
    /// What Cargo changes besides.
    also: Vec<String>,
    proved_by_recipes: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    doubt: Option<String>,
    refuted: usize,
    /// Why trees do not fit, and how many do not for this reason.
    clashes: Vec<(String, usize)>,
}

#[derive(Debug, Serialize)]
struct Change {
    package: String,
    from: String,
    to: String,
    seconds: f64,
}

impl Report {
    fn of(project: &Project, proved: &Proved, before: &LockGraph) -> Result<Self, Failure> {
        let Proposal {
            steps,
            all,
            before: was,
            after,
            clashes,
            ..
        } = &proved.proposal;
        let changes = steps.iter().map(|step| {
            let package = &project.packages[step.package];
            Change {
                package: package.name.clone(),
                from: package.version.to_string(),
                to: step.to.to_string(),
                seconds: step.seconds,
            }
        });
        let changes: Vec<Change> = changes.collect();
        let also = match &proved.lock {
            Some(lock) => others(before, &LockGraph::parse(lock)?, &changes),
            None => Vec::new(),
        };
        let mut clashes: Vec<(String, usize)> = clashes
            .iter()
            .map(|(clash, count)| (clash.to_string(), *count))
            .collect();
        clashes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Ok(Self {
            format: 1,
            seconds_before: *all,
            seconds_after: proved.by_recipes.map_or(*all, |exact| exact.all),
            prebuilt_before: *was,
            prebuilt_after: proved.by_recipes.map_or(*after, |exact| exact.prebuilt),
            changes,
            also,
            proved_by_recipes: proved.by_recipes.is_some(),
            doubt: proved.doubt.clone(),
            refuted: proved.refuted,
            clashes,
        })
    }

    fn print(&self, arguments: &AlignArguments, is_applied: bool) {
        let percent = |part: f64, whole: f64| 100.0 * part / whole.max(f64::MIN_POSITIVE);
        let before = percent(self.prebuilt_before, self.seconds_before);
        let count = self.changes.len();
        if count == 0 {
            print_line(&format!(
                "No change helps: {before:.0} % of your {:.1} s is prebuilt.",
                self.seconds_before
            ));
        } else {
            print_line(&format!(
                "{} {count} package{} and {:.0} % of your {:.1} s is prebuilt; {} {before:.0} %.\n",
                if is_applied { "Changed" } else { "Change" },
                if count == 1 { "" } else { "s" },
                percent(self.prebuilt_after, self.seconds_after),
                self.seconds_after,
                if is_applied { "it was" } else { "now it is" },
            ));
            print_line(&format!(
                "  {:<28} {:>14} {:>14} {:>16}",
                "package", "from", "to", "seconds gained"
            ));
            for change in &self.changes {
                print_line(&format!(
                    "  {:<28} {:>14} {:>14} {:>16.1}",
                    change.package, change.from, change.to, change.seconds
                ));
            }
            let named: f64 = self.changes.iter().map(|change| change.seconds).sum();
            let left = |all: f64, prebuilt: f64| all - prebuilt;
            let gained = left(self.seconds_before, self.prebuilt_before)
                - left(self.seconds_after, self.prebuilt_after);
            if gained > named + 0.05 {
                print_line(&format!(
                    "  {:<28} {:>14} {:>14} {:>16.1}",
                    "others, by their features",
                    "",
                    "",
                    gained - named
                ));
            }
            if !self.also.is_empty() {
                print_line(&format!(
                    "\nCargo changes besides: {}.",
                    self.also.join(", ")
                ));
            }
            print_line(&format!("\n{}", self.proof(arguments)));
            if !is_applied {
                print_line(
                    "`quickbuild align --apply` changes Cargo.lock; nothing is changed now.",
                );
            }
        }
        for (clash, trees) in self.clashes.iter().take(REASONS) {
            print_line(&format!("{trees} prebuilt trees do not fit: {clash}."));
        }
    }

    fn proof(&self, arguments: &AlignArguments) -> String {
        let resolved = "Cargo has made these changes in a copy, and takes the lock file";
        if self.proved_by_recipes {
            return format!("{resolved}; the recipes are those that are prebuilt.");
        }
        match (&self.doubt, &arguments.analysis) {
            (Some(doubt), _) => format!(
                "{resolved}. Recipes were not compared, only versions and features: {doubt}."
            ),
            (None, Some(_)) => format!(
                "{resolved}. An analysis knows versions only, so features may keep some of it from being used."
            ),
            (None, None) => format!("{resolved}."),
        }
    }
}

/// Packages that differ between two lock files beyond what was wanted.
fn others(before: &LockGraph, after: &LockGraph, changes: &[Change]) -> Vec<String> {
    let all = |lock: &LockGraph| -> BTreeSet<(String, String)> {
        let packages = lock.packages.iter();
        let named = packages.map(|package| (package.name.clone(), package.version.clone()));
        named.collect()
    };
    let (before, after) = (all(before), all(after));
    let is_from = |(name, version): &&(String, String)| {
        changes
            .iter()
            .any(|change| change.package == *name && change.from == *version)
    };
    let is_to = |(name, version): &&(String, String)| {
        changes
            .iter()
            .any(|change| change.package == *name && change.to == *version)
    };
    let gone = before
        .difference(&after)
        .filter(|package| !is_from(package));
    let gone = gone.map(|(name, version)| format!("{name} {version} goes"));
    let come = after.difference(&before).filter(|package| !is_to(package));
    let come = come.map(|(name, version)| format!("{name} {version} comes"));
    gone.chain(come).collect()
}
