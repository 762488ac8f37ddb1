//! `quickbuild copy`

use std::process::ExitCode;

use serde::Serialize;

use super::arguments::{CopyArguments, Format};
use super::key::own_keys;
use super::push::{named, publish};
use super::terminal::{Terminal, Verbosity, print_json, print_line, size};
use super::{Exit, Failure, Surroundings};
use crate::build::Observer as _;
use crate::console::chain;
use crate::publish::copy::{SubstituterSource, Wanted};
use crate::publish::{Scratch, StoreSource};
use crate::store::Store;

/// What stands for the store.
const STORE: &str = "store";
/// Messages that are printed in full.
const MESSAGES: usize = 5;

pub(super) fn run(
    surroundings: &Surroundings,
    arguments: &CopyArguments,
) -> Result<ExitCode, Failure> {
    let config = surroundings.config()?;
    let store = Store::open(&config.store)?;
    let open = |url: &str| match url {
        STORE => Ok(None),
        url => surroundings.substituter(&config, url).map(Some),
    };
    let (from, to) = (open(&arguments.from)?, open(&arguments.to)?);
    let scratch = Scratch::new(&store, &surroundings.environment)?;
    let mut terminal = Terminal::new(Verbosity::Normal, false);
    terminal.step("copying outputs");
    match (&from, &to) {
        (None, None) => Err(Failure::new("the store is both ends")
            .hint("a folder of this name is written `./store`")),
        (None, Some(to)) => {
            let names = if arguments.recipes.is_empty() {
                store.available()?
            } else {
                named(&store, &arguments.recipes)?
            };
            let source = StoreSource {
                store: &store,
                names,
                keys: own_keys(surroundings),
            };
            publish(&arguments.publishing, (&source, to), &scratch, terminal)
        }
        (Some(from), to) => {
            let wanted = if arguments.recipes.is_empty() {
                Wanted::All
            } else {
                Wanted::Named(arguments.recipes.clone())
            };
            // What the store has need not come again, but goes to others.
            let empty = Store::open(&scratch.path().join("empty"))?;
            let here = if to.is_none() { &store } else { &empty };
            let source = SubstituterSource::read(from, &wanted, here, scratch.path());
            let source = source.map_err(|error| {
                Failure::from(error).hint(
                    "where a substituter does not say what it has, name recipes: `--recipe HASH`",
                )
            })?;
            terminal.clear();
            warn(&source.messages);
            match to {
                Some(to) => publish(&arguments.publishing, (&source, to), &scratch, terminal),
                None => fetch(arguments, &source, &store, terminal),
            }
        }
    }
}

/// Says what was not taken.
fn warn(messages: &[String]) {
    for message in messages.iter().take(MESSAGES) {
        Failure::new(message.as_str()).warn();
    }
    if messages.len() > MESSAGES {
        let more = messages.len() - MESSAGES;
        Failure::new(format!("{more} more problems like these")).warn();
    }
}

#[derive(Serialize)]
struct Report {
    added: usize,
    bytes: u64,
    failed: usize,
}

fn fetch(
    arguments: &CopyArguments,
    source: &SubstituterSource<'_>,
    store: &Store,
    mut terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let copied = source.fetch(store, &terminal);
    terminal.clear();
    let (fetched, problems) = copied?;
    let messages: Vec<String> = problems.iter().map(|problem| chain(problem)).collect();
    warn(&messages);
    if arguments.publishing.format == Format::Json {
        print_json(&Report {
            added: fetched.outputs,
            bytes: fetched.bytes,
            failed: problems.len(),
        });
    } else {
        print_line(&format!(
            "quickbuild: {} outputs copied into the store ({})",
            fetched.outputs,
            size(fetched.bytes)
        ));
    }
    Ok(if problems.is_empty() {
        Exit::Success.into()
    } else {
        Exit::Found.into()
    })
}
