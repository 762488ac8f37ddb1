//! `quickbuild store …` and `quickbuild detach`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::arguments::{Format, StoreCommand};
use super::terminal::{print_json, print_line, size};
use super::{Exit, Failure, Surroundings};
use crate::cargo::invocation::{Invocation, Subcommand};
use crate::config::{parse_age, parse_size};
use crate::fs;
use crate::output::Output;
use crate::plan::state::{State, likely_build_dirs};
use crate::store::collect::{Limits, Run, collect, usage};
use crate::store::verify::{Depth, repair, verify};
use crate::store::{Store, archive};

pub(super) fn run(surroundings: &Surroundings, command: StoreCommand) -> Result<ExitCode, Failure> {
    let config = surroundings.config()?;
    let root = &config.store;
    match command {
        StoreCommand::List { package, format } => list(root, package.as_deref(), format),
        StoreCommand::Path { output: None } => {
            print_line(&root.display().to_string());
            Ok(Exit::Success.into())
        }
        StoreCommand::Path {
            output: Some(output),
        } => path(root, &output),
        StoreCommand::Du { format } => du(root, format),
        StoreCommand::Verify { quick } => {
            let problems = verify(root, if quick { Depth::Stamps } else { Depth::Content })?;
            for problem in &problems {
                print_line(&problem.to_string());
            }
            if problems.is_empty() {
                print_line("Every output is as it was made.");
                return Ok(Exit::Success.into());
            }
            print_line(&format!(
                "{} problems; `quickbuild store repair` cleans up.",
                problems.len()
            ));
            Ok(Exit::Found.into())
        }
        StoreCommand::Repair => {
            let problems = verify(root, Depth::Content)?;
            let report = repair(root, &problems)?;
            print_line(&format!(
                "{} outputs were set right, {} were thrown out.",
                report.mended.len(),
                report.discarded.len()
            ));
            Ok(Exit::Success.into())
        }
        StoreCommand::Gc {
            max_size,
            older_than,
            dry_run,
        } => {
            let max_size = match max_size {
                Some(text) => parse_size(&text).ok_or_else(|| {
                    Failure::new(format!("`{text}` is not a size")).hint("write `10GB` or `512MiB`")
                })?,
                None => config.max_size,
            };
            let older_than = match older_than {
                Some(text) => Some(parse_age(&text).ok_or_else(|| {
                    Failure::new(format!("`{text}` is not an age"))
                        .hint("write `30d`, `12h` or `2w`")
                })?),
                None => None,
            };
            let run = if dry_run { Run::Dry } else { Run::Real };
            let report = collect(
                root,
                Limits {
                    max_size,
                    older_than,
                    run,
                },
            )?;
            for name in &report.names {
                print_line(name);
            }
            let verb = if dry_run {
                "would be removed"
            } else {
                "were removed"
            };
            print_line(&format!(
                "{} outputs ({}) {verb}, {} free; {} stay ({}), {} of them linked.",
                report.taken.count,
                size(report.taken.bytes),
                size(report.freed),
                report.kept.count,
                size(report.kept.bytes),
                report.rooted.count
            ));
            Ok(Exit::Success.into())
        }
        StoreCommand::Export {
            archive: to,
            packages,
        } => {
            let store = Store::open(root)?;
            let wanted = |output: &Output| packages.is_empty() || packages.contains(&output.name);
            let names: Vec<String> = outputs(&store)?
                .into_iter()
                .filter(wanted)
                .map(|o| o.store_name())
                .collect();
            if names.is_empty() {
                return Err(Failure::new("the store has no output of these packages"));
            }
            let written = archive::export(&store, &names, &surroundings.folder.join(&to))?;
            print_line(&format!(
                "{} outputs are in `{}`.",
                written.len(),
                to.display()
            ));
            Ok(Exit::Success.into())
        }
        StoreCommand::Import { archive: from } => {
            let store = Store::open(root)?;
            let report = archive::import(&store, &surroundings.folder.join(from))?;
            print_line(&format!(
                "{} outputs are new, {} were there.",
                report.added.len(),
                report.existing.len()
            ));
            Ok(Exit::Success.into())
        }
    }
}

/// All outputs that can be had, by package and version.
pub(super) fn outputs(store: &Store) -> Result<Vec<Output>, Failure> {
    let mut outputs: Vec<Output> = store
        .available()?
        .iter()
        .filter_map(|name| store.output(name))
        .collect();
    outputs.sort_by(|a, b| (&a.name, &a.version, a.id).cmp(&(&b.name, &b.version, b.id)));
    Ok(outputs)
}

fn list(root: &Path, package: Option<&str>, format: Format) -> Result<ExitCode, Failure> {
    let store = Store::open(root)?;
    let mut outputs = outputs(&store)?;
    outputs.retain(|output| package.is_none_or(|package| output.name == package));
    match format {
        Format::Json => print_json(&outputs),
        Format::Text => {
            for output in &outputs {
                print_line(&format!(
                    "{}  {} {:?}  {}  {:.1} s",
                    output.store_name(),
                    output.target_kind,
                    output.produced,
                    size(output.size()),
                    output.seconds
                ));
            }
        }
    }
    Ok(Exit::Success.into())
}

fn path(root: &Path, wanted: &str) -> Result<ExitCode, Failure> {
    let store = Store::open(root)?;
    let names = store.names()?;
    let found: Vec<&String> = names
        .iter()
        .filter(|name| name.starts_with(wanted))
        .collect();
    match found.as_slice() {
        [name] => {
            print_line(&store.path(name).display().to_string());
            Ok(Exit::Success.into())
        }
        [] => Err(Failure::new(format!("no output begins with `{wanted}`"))
            .hint("`quickbuild store list` lists them")),
        several => Err(Failure::new(format!(
            "{} outputs begin with `{wanted}`",
            several.len()
        ))),
    }
}

fn du(root: &Path, format: Format) -> Result<ExitCode, Failure> {
    let usage = usage(root)?;
    if format == Format::Json {
        print_json(&usage);
        return Ok(Exit::Success.into());
    }
    print_line(&format!(
        "{} outputs, {} of files, {} on the disk, of which {} are also linked from target directories.",
        usage.total.count,
        size(usage.total.bytes),
        size(usage.disk),
        size(usage.shared)
    ));
    for package in usage.packages.iter().take(20) {
        print_line(&format!(
            "{:>10}  {}",
            size(package.amount.bytes),
            package.name
        ));
    }
    Ok(Exit::Success.into())
}

/// Replaces every file that shares its inode by a copy with the same time, and
/// forgets that the directory ever was linked.
pub(super) fn detach(
    surroundings: &Surroundings,
    target_dir: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let invocation = Invocation {
        subcommand: Subcommand::Build,
        arguments: Vec::new(),
    };
    let found = || {
        likely_build_dirs(&surroundings.environment, &invocation, &surroundings.folder)
            .into_iter()
            .next()
    };
    let Some(target_dir) = target_dir
        .map(|dir| surroundings.folder.join(dir))
        .or_else(found)
    else {
        return Err(Failure::new("quickbuild has linked nothing here")
            .hint("name the directory with `--target-dir`"));
    };
    let state = State::load(&target_dir);
    let mut copied = 0;
    for file in state.units.values().flat_map(|unit| &unit.files) {
        copied += usize::from(fs::unshare(&target_dir.join(&file.0))?);
    }
    State::remove(&target_dir)?;
    if let Ok(store) = surroundings
        .config()
        .and_then(|config| Ok(Store::open(&config.store)?))
    {
        store.remove_root(&target_dir)?;
    }
    print_line(&format!(
        "{copied} files in `{}` are its own now.",
        target_dir.display()
    ));
    Ok(Exit::Success.into())
}
