//! `quickbuild realise` and `quickbuild log`.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::arguments::{BuilderKind, Format, RealiseArguments};
use super::terminal::{Terminal, Verbosity, print, print_json, print_line};
use super::{Exit, Failure, Surroundings};
use crate::build::{Observer, chain};
use crate::builder::docker::{Engine, Image};
use crate::builder::image::{PATH, REPOSITORY, definitions};
use crate::builder::pin::pinned_image;
use crate::builder::{BuilderError, Limits, local};
use crate::cargo::toolchain::Toolchain;
use crate::config::{Config, project_file};
use crate::fs;
use crate::realise::journal::Journal;
use crate::realise::{self, Comparison, Order, Realisation, RealiseError, Terms};
use crate::store::Store;

/// Bytes that a realisation may write.
const DISK: u64 = 50_000_000_000;

pub(super) fn run(
    surroundings: &Surroundings,
    arguments: RealiseArguments,
) -> Result<ExitCode, Failure> {
    if let Some(job) = &arguments.inside {
        return inside(surroundings, job);
    }
    let config = surroundings.config()?;
    let store = Store::open(&config.store)?;
    let here = &surroundings.folder;
    let folder = arguments
        .workspace
        .as_ref()
        .map_or(here.clone(), |dir| here.join(dir));
    let toolchain = Toolchain::detect(
        &surroundings.environment,
        &folder,
        &store.cache("toolchains"),
    )?;
    let own = builder_name(&toolchain);
    let name = arguments.toolchain.clone().unwrap_or_else(|| own.clone());
    let mut terminal = Terminal::new(Verbosity::Normal, false);
    let project = project_file(&surroundings.folder);
    let known = definitions(project.as_deref().and_then(Path::parent))?;
    let settings = config.builders.get(&name).cloned().unwrap_or_default();
    let usual = Limits::default();
    let mut terms = Terms {
        same_toolchain: name == own,
        host: toolchain.host().to_owned(),
        glibc: known.get(&name).ok().map(|definition| definition.glibc),
        path: PATH.to_owned(),
        limits: Limits {
            memory: settings.memory.unwrap_or(usual.memory),
            processes: settings.processes.unwrap_or(usual.processes),
            time: settings.time.unwrap_or(usual.time),
            ..usual
        },
        disk: settings.disk.unwrap_or(DISK),
        name,
    };
    let order = |builder, terms| Order {
        environment: &surroundings.environment,
        folder: &folder,
        arguments: &arguments.arguments,
        program: &surroundings.program,
        store: &store,
        builder,
        terms,
    };
    let engine = match arguments.builder {
        Some(BuilderKind::Local) => None,
        kind => match Engine::connect(&surroundings.environment) {
            Ok(engine) => Some(engine),
            Err(error) if kind.is_none() => {
                terminal.warn(&format!("{}; building on this machine", chain(&error)));
                None
            }
            Err(error) => {
                return Err(Failure::from(error)
                    .hint("start Docker or Podman, or set DOCKER_HOST")
                    .hint("`--builder local` builds on this machine, for this machine"));
            }
        },
    };
    let result = match &engine {
        Some(engine) => {
            realise::sweep(engine, &mut terminal);
            let image = image(engine, &config, &terms.name)?;
            let builder = engine.builder(image)?;
            work(&order(&builder, terms), &arguments, &mut terminal)
        }
        None => {
            let beside = realise::scratch(&store);
            let scratch = local::Scratch::new(&beside, &surroundings.environment)?;
            let programs = surroundings.environment.get("PATH").unwrap_or_default();
            // The toolchain itself, not rustup's stand-ins, which look for
            // settings in the user's home.
            let own = toolchain.sysroot.join("bin");
            let wrapped = scratch.programs();
            terms.path = format!("{}:{}:{programs}", wrapped.display(), own.display());
            work(&order(&scratch, terms), &arguments, &mut terminal)
        }
    };
    terminal.clear();
    result
}

fn inside(surroundings: &Surroundings, job: &Path) -> Result<ExitCode, Failure> {
    let program = surroundings.program.clone();
    realise::inside::run(job, &surroundings.environment, program)?;
    Ok(Exit::Success.into())
}

/// The pinned image; where none is pinned, the one that was made here, whose
/// digest is in all that it makes.
fn image(engine: &Engine, config: &Config, name: &str) -> Result<Image, Failure> {
    let found = match pinned_image(engine, config, name) {
        Err(BuilderError::NotPinned { .. }) => {
            let image = format!("{REPOSITORY}:{}", name.replace('+', "_"));
            let found = engine.image(&image)?;
            found.ok_or(BuilderError::NoImage { image })
        }
        found => found,
    };
    found.map_err(|error| {
        let failure = Failure::from(error);
        failure.hint(format!(
            "`quickbuild builder build {name}` makes it, and `builder list` knows the others"
        ))
    })
}

/// The builder of a toolchain: its release, or `nightly`, and its host.
fn builder_name(toolchain: &Toolchain) -> String {
    let release = toolchain
        .rustc
        .lines()
        .find_map(|line| line.strip_prefix("release: "))
        .unwrap_or_default();
    let release = if release.contains("nightly") {
        "nightly"
    } else {
        release
    };
    format!("{release}-{}", toolchain.host())
}

fn work(
    order: &Order<'_>,
    arguments: &RealiseArguments,
    terminal: &mut Terminal,
) -> Result<ExitCode, Failure> {
    let realisation = order.run(terminal).map_err(failure)?;
    terminal.clear();
    match arguments.format {
        Format::Text => print_line(&summary(&realisation)),
        Format::Json => print_json(&Printed::new(&realisation)),
    }
    for (unit, reason) in &realisation.missing {
        terminal.warn(&format!("{unit} has no output: {reason}"));
    }
    if !arguments.check {
        return Ok(Exit::Success.into());
    }
    let comparison = order.check(terminal).map_err(failure)?;
    terminal.clear();
    Ok(compare(&comparison).into())
}

/// One line, as Cargo would say it.
fn summary(realisation: &Realisation) -> String {
    let valid = realisation.valid;
    if realisation.settled {
        return format!("quickbuild: all {valid} outputs are valid, nothing to do");
    }
    format!(
        "quickbuild: {valid} outputs valid, {} of them new, {} units without; {:.1} s in the builder",
        realisation.added.len(),
        realisation.missing.len(),
        realisation.seconds
    )
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Printed<'a> {
    valid: usize,
    added: &'a [String],
    missing: Vec<PrintedMissing<'a>>,
    seconds: f64,
}

#[derive(Serialize)]
struct PrintedMissing<'a> {
    unit: &'a str,
    reason: &'a str,
}

impl<'a> Printed<'a> {
    fn new(realisation: &'a Realisation) -> Self {
        let missing = realisation.missing.iter();
        Self {
            valid: realisation.valid,
            added: &realisation.added,
            missing: missing
                .map(|(unit, reason)| PrintedMissing { unit, reason })
                .collect(),
            seconds: realisation.seconds,
        }
    }
}

fn compare(comparison: &Comparison) -> Exit {
    let Comparison {
        same,
        differing,
        unmatched,
    } = comparison;
    for (output, file) in differing {
        print_line(&format!("differs: {output}: {file}"));
    }
    for output in unmatched {
        print_line(&format!("only one build has {output}"));
    }
    let outputs = same + unmatched.len();
    print_line(&format!(
        "quickbuild: {same} outputs are the same byte for byte, {} files differ, {} of {outputs} outputs have no counterpart",
        differing.len(),
        unmatched.len()
    ));
    if differing.is_empty() && unmatched.is_empty() {
        Exit::Success
    } else {
        Exit::Found
    }
}

fn failure(error: RealiseError) -> Failure {
    let (tail, name) = match &error {
        RealiseError::Failed { tail, name, .. } => (tail.clone(), Some(name.clone())),
        RealiseError::Builder { name, .. } => (Vec::new(), Some(name.clone())),
        _ => (Vec::new(), None),
    };
    for line in &tail {
        crate::console::line(&format!("  | {line}"));
    }
    let failure = Failure::from(error);
    match name.as_deref().and_then(|name| name.split(' ').next()) {
        Some(name) => failure.hint(format!("`quickbuild log {name}` shows all that was said")),
        None => failure,
    }
}

pub(super) fn log(surroundings: &Surroundings, recipe: &str) -> Result<ExitCode, Failure> {
    let store = Store::open(&surroundings.config()?.store)?;
    let Some((_, path)) = Journal::new(&store).find(recipe) else {
        return Err(Failure::new(format!("no log is about `{recipe}`"))
            .hint("give a recipe hash, or how it begins, or a package's name"));
    };
    print(&fs::read_text(&path)?);
    Ok(Exit::Success.into())
}
