//! `quickbuild prune`

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::arguments::{Format, PruneArguments};
use super::push::advise;
use super::terminal::{Terminal, Verbosity, print_json, print_line, size};
use super::{Exit, Failure, Surroundings};
use crate::build::Observer as _;
use crate::config::{parse_age, parse_size};
use crate::publish::prune::{Limits, Mode, prune};

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report<'a> {
    removed: &'a [String],
    kept: usize,
    archives: usize,
    bytes: u64,
    dry_run: bool,
}

pub(super) fn run(
    surroundings: &Surroundings,
    arguments: &PruneArguments,
) -> Result<ExitCode, Failure> {
    let config = surroundings.config()?;
    let older_than = match &arguments.older_than {
        None => None,
        Some(text) => Some(parse_age(text).map(Duration::from_secs).ok_or_else(|| {
            Failure::new(format!("`{text}` is not a time; write `90d` or `12h`"))
        })?),
    };
    let max_size = match &arguments.max_size {
        None => None,
        Some(text) => Some(parse_size(text).ok_or_else(|| {
            Failure::new(format!("`{text}` is not a size; write `50GB` or `512MiB`"))
        })?),
    };
    let substituter = surroundings.substituter(&config, &arguments.substituter)?;
    let limits = Limits {
        older_than,
        max_size,
        keep: arguments.keep.clone(),
    };
    let mode = if arguments.dry_run {
        Mode::DryRun
    } else {
        Mode::Remove
    };
    let mut terminal = Terminal::new(Verbosity::Normal, false);
    terminal.step("reading what is published");
    let pruned = prune(&substituter, &limits, mode);
    terminal.clear();
    let pruned = pruned.map_err(advise)?;
    if arguments.format == Format::Json {
        print_json(&Report {
            removed: &pruned.outputs,
            kept: pruned.kept,
            archives: pruned.archives,
            bytes: pruned.bytes,
            dry_run: arguments.dry_run,
        });
        return Ok(Exit::Success.into());
    }
    if arguments.dry_run {
        pruned.outputs.iter().for_each(|name| print_line(name));
    }
    let verb = if arguments.dry_run {
        "would go"
    } else {
        "are gone"
    };
    print_line(&format!(
        "quickbuild: {} outputs {verb}, {} stay; {} archives {verb} ({})",
        pruned.outputs.len(),
        pruned.kept,
        pruned.archives,
        size(pruned.bytes)
    ));
    if pruned.by_host {
        print_line("The registry removes archives itself when it collects what no manifest has.");
    }
    Ok(Exit::Success.into())
}
