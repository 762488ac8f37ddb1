//! `quickbuild push`

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde::Serialize;

use super::arguments::{Format, PublishingArguments, PushArguments};
use super::key::own_keys;
use super::plan::planned;
use super::store::outputs;
use super::terminal::{Terminal, Verbosity, print_json, print_line, size};
use super::{Exit, Failure, Surroundings};
use crate::build::Observer as _;
use crate::output::Output;
use crate::plan::Verdict;
use crate::publish::{
    Existing, Local, Publication, PublishError, Published, Scratch, Source, StoreSource, is_named,
};
use crate::store::Store;
use crate::substituter::{Substituter, SubstituterError};

pub(super) fn run(
    surroundings: &Surroundings,
    arguments: &PushArguments,
) -> Result<ExitCode, Failure> {
    let config = surroundings.config()?;
    let to = surroundings.substituter(&config, &arguments.to)?;
    let store = Store::open(&config.store)?;
    let source = StoreSource {
        store: &store,
        names: selected(surroundings, &store, arguments)?,
        keys: own_keys(surroundings),
    };
    let scratch = Scratch::new(&store, &surroundings.environment)?;
    let mut terminal = Terminal::new(Verbosity::Normal, false);
    terminal.step("publishing outputs");
    publish(&arguments.publishing, (&source, &to), &scratch, terminal)
}

/// Publishes what a source has, and says what came of it.
pub(super) fn publish(
    arguments: &PublishingArguments,
    (source, to): (&dyn Source, &Substituter),
    scratch: &Scratch,
    mut terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let publication = Publication {
        source,
        to,
        scratch: scratch.path(),
        local: if arguments.include_local {
            Local::Publish
        } else {
            Local::Leave
        },
        existing: if arguments.only_missing {
            Existing::Leave
        } else {
            Existing::Add
        },
        progress: &terminal,
    };
    let published = publication.run();
    terminal.clear();
    report(&published.map_err(advise)?, arguments.format)
}

/// Says what helps where somebody is not let in.
pub(super) fn advise(error: PublishError) -> Failure {
    let is_denied = matches!(
        error,
        PublishError::Substituter(SubstituterError::Denied { .. })
    );
    let failure = Failure::from(error);
    if is_denied {
        failure.hint("docs/formats/quickbuild-toml.md says what is shown to which kind of place")
    } else {
        failure
    }
}

/// Store names of what is to be published.
fn selected(
    surroundings: &Surroundings,
    store: &Store,
    arguments: &PushArguments,
) -> Result<Vec<String>, Failure> {
    if arguments.all {
        return Ok(store.available()?);
    }
    if arguments.recipes.is_empty() {
        let plan = planned(surroundings, store, arguments.arguments.clone())?;
        let verdicts = plan.resolution.verdicts.iter();
        let names: BTreeSet<String> = verdicts
            .filter_map(|verdict| match verdict {
                Verdict::Ready(output) => Some(output.store_name()),
                Verdict::Missing(_) => None,
            })
            .collect();
        if names.is_empty() {
            return Err(
                Failure::new("nothing that this workspace uses is in the store")
                    .hint("`quickbuild build` or `quickbuild realise` makes it first"),
            );
        }
        return Ok(names.into_iter().collect());
    }
    named(store, &arguments.recipes)
}

/// Store names of the outputs of packages, or of recipes that begin so.
pub(super) fn named(store: &Store, recipes: &[String]) -> Result<Vec<String>, Failure> {
    let all = outputs(store)?;
    let mut names = Vec::new();
    for wanted in recipes {
        let is_meant = |output: &&Output| is_named(output, std::slice::from_ref(wanted));
        let found: Vec<String> = all
            .iter()
            .filter(is_meant)
            .map(Output::store_name)
            .collect();
        if found.is_empty() {
            return Err(
                Failure::new(format!("the store has no output of `{wanted}`"))
                    .hint("`quickbuild store list` lists them"),
            );
        }
        names.extend(found);
    }
    Ok(names)
}

#[derive(Serialize)]
struct Report<'a> {
    added: &'a [String],
    existing: usize,
    conflicts: &'a [String],
    withheld: usize,
    local: usize,
    bytes: u64,
}

fn report(published: &Published, format: Format) -> Result<ExitCode, Failure> {
    let Published {
        added,
        existing,
        conflicts,
        withheld,
        local,
        bytes,
    } = published;
    if format == Format::Json {
        print_json(&Report {
            added,
            existing: *existing,
            conflicts,
            withheld: *withheld,
            local: *local,
            bytes: *bytes,
        });
    } else {
        print_line(&format!(
            "quickbuild: {} outputs published ({}), {existing} were there",
            added.len(),
            size(*bytes)
        ));
    }
    if *local > 0 {
        Failure::new(format!(
            "{local} outputs were compiled on this machine, or against such, and stay here"
        ))
        .hint("`quickbuild realise` makes them in a builder; `--include-local` publishes them as they are")
        .warn();
    }
    if conflicts.is_empty() {
        return Ok(Exit::Success.into());
    }
    for name in conflicts {
        Failure::new(format!(
            "CONFLICT: `{name}` is published with another content, which stays"
        ))
        .warn();
    }
    Failure::new(format!(
        "{withheld} outputs refer to such and are not published"
    ))
    .warn();
    Ok(Exit::Found.into())
}
