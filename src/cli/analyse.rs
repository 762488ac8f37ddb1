//! `quickbuild analyse`: what many lock files have in common.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use super::align::is_main;
use super::arguments::{AnalyseArguments, AnalysisFormat};
use super::plan::command;
use super::recipe;
use super::selection;
use super::terminal::{print, print_json};
use super::{Exit, Failure, Surroundings};
use crate::analyse::alignment::{Alignment, Index, Question, Subject};
use crate::analyse::census::{Census, Freshness, fold};
use crate::analyse::costs::{Cost, Measurements};
use crate::analyse::downloads::Downloads;
use crate::analyse::history::history;
use crate::analyse::projects::{self, Found, Search, parse_day};
use crate::analyse::report::{FOLDS, LeftOut, Questions, Report, report};
use crate::analyse::selection::Budget;
use crate::analyse::{page, recipes, text, trees};
use crate::build::chain;
use crate::cargo::index_cache::{IndexCache, Target};
use crate::cargo::registry_index::RegistryIndex;
use crate::cargo::releases::Releases;
use crate::cargo::source::PackageSource;
use crate::config::parse_size;
use crate::fs;
use crate::plan::{Context, graph};
use crate::store::Store;

/// Where what the registry was asked for is kept, in the store.
const LOOKED_UP: &str = "cache/registry-index";

pub(super) fn run(
    surroundings: &Surroundings,
    arguments: &AnalyseArguments,
) -> Result<ExitCode, Failure> {
    let freshness = Freshness {
        since: match &arguments.since {
            Some(text) => Some(parse_day(text).ok_or_else(|| {
                Failure::new(format!("`{text}` is not a date")).hint("write `2026-01-31`")
            })?),
            None => None,
        },
        half_life: arguments.half_life,
    };
    let budget = match (arguments.budget_seconds, &arguments.budget_bytes) {
        (Some(seconds), _) => Some(Budget::Seconds(seconds)),
        (None, Some(text)) => {
            let bytes = parse_size(text).ok_or_else(|| {
                Failure::new(format!("`{text}` is not a size")).hint("write `10GB` or `512MiB`")
            })?;
            Some(Budget::Bytes(bytes as f64))
        }
        (None, None) => None,
    };
    let paths = arguments
        .paths
        .iter()
        .map(|path| surroundings.folder.join(path));
    let mut search = Search::run(&paths.collect::<Vec<_>>());
    if !arguments.tier.is_empty() {
        search.found.retain(|found| {
            let tier = found.tier.as_ref();
            tier.is_some_and(|tier| arguments.tier.contains(tier))
        });
    }
    let mut left_out: Vec<LeftOut> = search
        .faults
        .iter()
        .map(|(path, fault)| LeftOut {
            path: path.display().to_string(),
            reason: chain(fault),
        })
        .collect();
    let index = match arguments.platform.as_str() {
        "all" => None,
        triple => Some(index(
            surroundings,
            (triple != "host").then_some(triple),
            &search,
            arguments.lookup,
        )?),
    };
    let (census, faults) = Census::take(&search.found, freshness, index.as_ref());
    left_out.extend(faults.iter().map(|(path, fault)| LeftOut {
        path: path.display().to_string(),
        reason: chain(fault),
    }));
    left_out.sort_by(|a, b| a.path.cmp(&b.path));
    if census.projects.is_empty() {
        for left in &left_out {
            crate::console::line(&format!("warning: {}: {}", left.path, left.reason));
        }
        return Err(Failure::new("there is no lock file to analyse")
            .hint("name folders with `Cargo.lock` files in them, or such files"));
    }
    let mut measurements = Measurements::default();
    measurements.add_archives(&surroundings.environment.cargo_home())?;
    let root = surroundings.config()?.store;
    if root.is_dir() {
        measurements.add_store(&Store::open(&root)?)?;
    }
    for page in &arguments.timings {
        measurements.add_report(&surroundings.folder.join(page))?;
    }
    let (costs, error) = measurements.costs(&census);
    let questions = Questions {
        packages: arguments.package.clone(),
        budget,
        downloads: match &arguments.downloads {
            Some(path) => Some(Downloads::read(&surroundings.folder.join(path))?),
            None => None,
        },
        platform: index.as_ref().map(|index| index.target().triple.clone()),
    };
    let mut report = report(&census, &costs, error, &questions, left_out);
    if arguments.align {
        report.alignment = Some(alignment(
            surroundings,
            (&search.found, freshness, index.as_ref()),
            (&census, &costs),
            &measurements,
            (&report, &questions),
        )?);
    }
    if arguments.plan {
        let (planned, failed) = planned(surroundings, &search.found)?;
        report.recipes = Some(recipes::compare(&planned));
        report.left_out.extend(failed);
    }
    if arguments.history {
        for found in &search.found {
            match history(&found.path, index.as_ref(), &measurements) {
                Ok(history) => report.history.push(history),
                Err(error) => report.left_out.push(LeftOut {
                    path: found.path.display().to_string(),
                    reason: format!("its history: {}", chain(&error)),
                }),
            }
        }
    }
    if let Some(to) = &arguments.recipes {
        let selection = report.selection.as_ref().ok_or_else(|| {
            Failure::new("`--recipes` needs a budget")
                .hint("`--budget-seconds N` or `--budget-bytes SIZE`")
        })?;
        let known = recipe::folder(surroundings, arguments.known.clone());
        let to = surroundings.folder.join(to);
        let written = selection::write(selection, &known, &to, arguments.branch.as_deref())?;
        crate::console::line(&format!(
            "{} recipes of {} of the {} chosen trees, {} of them new{}",
            written.recipes,
            written.trees,
            selection.trees.len(),
            written.new,
            match &written.branch {
                Some(branch) => format!(", on the branch `{branch}`"),
                None => String::new(),
            }
        ));
    }
    match arguments.format {
        AnalysisFormat::Text => print(&text::text(&report)),
        AnalysisFormat::Json => print_json(&report),
        AnalysisFormat::Html => print(&page::page(&report)),
    }
    let exit = match report.left_out.is_empty() {
        true => Exit::Success,
        false => Exit::Found,
    };
    Ok(exit.into())
}

/// Share of the seconds of all trees that alignment is judged with.
const BUDGET: f64 = 0.2;

/// What moving to prebuilt versions makes of projects that were not looked at.
fn alignment(
    surroundings: &Surroundings,
    (found, freshness, index): (&[Found], Freshness, Option<&IndexCache>),
    (census, costs): (&Census, &[Cost]),
    measurements: &Measurements,
    (report, questions): (&Report, &Questions),
) -> Result<Alignment, Failure> {
    // What cannot be read has been reported.
    let weights = freshness.weights(found).into_iter();
    let subjects = weights.filter_map(|(found, weight)| {
        let lock = projects::read(&found.path).ok()?;
        let mut cut = lock.clone();
        if let Some(index) = index {
            trees::cut(&mut cut, index);
        }
        Some(Subject {
            fold: fold(&found.repository, FOLDS),
            found: found.clone(),
            weight,
            lock,
            cut,
        })
    });
    let subjects: Vec<Subject> = subjects.collect();
    debug_assert_eq!(subjects.len(), census.projects.len());
    let packages = census.packages.iter().zip(costs);
    let seconds = packages.map(|(package, cost)| {
        let key = (package.name.as_str(), package.version.as_str());
        (key, cost.seconds)
    });
    let question = Question {
        subjects: &subjects,
        folds: FOLDS,
        budget: BUDGET,
        whole: report.costs.distinct_seconds,
        packages: &questions.packages,
        measurements,
        seconds: &seconds.collect(),
        index: &Index(Releases::open(&index_homes(surroundings)?)?),
    };
    Ok(question.answer())
}

/// What `cargo build` compiles in workspaces, and those that cannot be planned.
fn planned(
    surroundings: &Surroundings,
    found: &[Found],
) -> Result<(Vec<recipes::Planned>, Vec<LeftOut>), Failure> {
    let store = Store::open(&surroundings.config()?.store)?;
    let (mut planned, mut failed) = (Vec::new(), Vec::new());
    for found in found {
        let folder = found.path.parent().unwrap_or(&surroundings.folder);
        if !folder.join("Cargo.toml").is_file() {
            continue;
        }
        let context = Context::gather(
            &surroundings.environment,
            folder,
            &command(Vec::new()),
            &store.cache(""),
        );
        match context {
            Ok(context) => {
                let units = graph::describe(&context.graph, &context.common);
                let main = units.iter().filter(|unit| is_main(unit));
                let packages = main.map(|unit| recipes::Compiled {
                    name: unit.package.name.clone(),
                    version: unit.package.version.clone(),
                    recipe: unit.host_recipe,
                });
                planned.push(recipes::Planned {
                    repository: found.repository.clone(),
                    packages: packages.collect(),
                });
            }
            Err(error) => failed.push(LeftOut {
                path: folder.display().to_string(),
                reason: format!("its plan: {}", chain(&error)),
            }),
        }
    }
    Ok((planned, failed))
}

/// What is known of platforms: what Cargo has looked up before and, on demand,
/// what it looks up now, which is kept in the store's cache.
fn index(
    surroundings: &Surroundings,
    triple: Option<&str>,
    search: &Search,
    lookup: bool,
) -> Result<IndexCache, Failure> {
    let environment = &surroundings.environment;
    let target = Target::ask(environment, &surroundings.folder, triple)?;
    if lookup {
        let mut names: BTreeSet<String> = BTreeSet::new();
        for found in &search.found {
            // What cannot be read is reported when it is counted.
            let Ok(lock) = projects::read(&found.path) else {
                continue;
            };
            let source = |text: &String| PackageSource::parse(text);
            let public = lock.packages.into_iter().filter(|package| {
                package.source.as_ref().and_then(source) == Some(PackageSource::CratesIo)
            });
            names.extend(public.map(|package| package.name));
        }
        look_up(surroundings, &names)?;
    }
    Ok(IndexCache::open(target, &index_homes(surroundings)?)?)
}

/// Lets Cargo look up packages in the registry; the answer is kept in the store's
/// cache.
pub(super) fn look_up(
    surroundings: &Surroundings,
    names: &BTreeSet<String>,
) -> Result<(), Failure> {
    let scratch = surroundings.config()?.store.join(LOOKED_UP);
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    fs::remove_dir_all(&scratch)?;
    fs::create_dir_all(&scratch)?;
    RegistryIndex::ask(
        &surroundings.environment,
        &surroundings.folder,
        &PackageSource::CratesIo,
        &names,
        &scratch,
    )?;
    Ok(())
}

/// Cargo homes that have an index, the most recent last.
pub(super) fn index_homes(surroundings: &Surroundings) -> Result<[PathBuf; 2], Failure> {
    let looked_up = surroundings.config()?.store.join(LOOKED_UP);
    Ok([
        surroundings.environment.cargo_home(),
        looked_up.join("home"),
    ])
}
