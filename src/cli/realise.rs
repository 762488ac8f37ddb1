//! `quickbuild realise` and `quickbuild log`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread::ScopedJoinHandle;

use serde::Serialize;

use super::arguments::{BuilderKind, Format, RealiseArguments};
use super::terminal::{Terminal, Verbosity, print, print_json, print_line};
use super::{Exit, Failure, Surroundings};
use crate::build::{Observer, chain};
use crate::builder::definition::tag;
use crate::builder::docker::{Engine, Image};
use crate::builder::image::{PATH, REPOSITORY, definitions};
use crate::builder::pin::{limits, pinned_image};
use crate::builder::{Builder, BuilderError, Limits, local};
use crate::cargo::toolchain::{Toolchain, builder_name, field};
use crate::config::{Config, project_file};
use crate::digest::RecipeHash;
use crate::environment::Environment;
use crate::fs;
use crate::realise::journal::Journal;
use crate::realise::recipes::{Assignment, assign};
use crate::realise::{self, Comparison, Order, Realisation, RealiseError, Terms};
use crate::recipe::package::PackageRecipe;
use crate::store::Store;
use crate::substitute::{Reach, Substituters};

/// Bytes that a realisation may write.
const DISK: u64 = 50_000_000_000;

pub(super) fn run(
    surroundings: &Surroundings,
    arguments: RealiseArguments,
) -> Result<ExitCode, Failure> {
    if arguments.inside {
        return inside(surroundings);
    }
    if let Some(list) = &arguments.unpack {
        let word = realise::LastWord::reserve();
        realise::unpack(list)?;
        word.say();
        return Ok(Exit::Success.into());
    }
    let scene = Scene::new(surroundings, arguments)?;
    let mut terminal = Terminal::new(Verbosity::Normal, false);
    let done = scene.run(&mut terminal);
    terminal.clear();
    done
}

/// What a realisation starts from.
struct Scene<'a> {
    surroundings: &'a Surroundings,
    arguments: RealiseArguments,
    config: Config,
    store: Store,
    toolchain: Toolchain,
    folder: PathBuf,
}

/// Something to be realised.
struct Piece {
    folder: PathBuf,
    environment: Environment,
    arguments: Vec<String>,
    name: Option<String>,
    wanted: Option<Vec<RecipeHash>>,
    /// `rustc -vV` of the builder, where that is known.
    rustc: String,
    /// Keeps a generated workspace.
    _assignment: Option<Assignment>,
}

impl<'a> Scene<'a> {
    fn new(surroundings: &'a Surroundings, arguments: RealiseArguments) -> Result<Self, Failure> {
        let config = surroundings.config()?;
        let store = Store::open(&config.store)?;
        let here = &surroundings.folder;
        let folder = arguments.workspace.as_ref();
        let folder = folder.map_or(here.clone(), |dir| here.join(dir));
        let toolchain = Toolchain::detect(
            &surroundings.environment,
            &folder,
            &store.cache("toolchains"),
        )?;
        Ok(Self {
            surroundings,
            arguments,
            config,
            store,
            toolchain,
            folder,
        })
    }

    fn run(&self, terminal: &mut Terminal) -> Result<ExitCode, Failure> {
        let pieces = self.pieces(terminal)?;
        let engine = self.engine(terminal)?;
        if let Some(engine) = &engine {
            realise::sweep(engine, terminal);
        }
        let jobs = (self.arguments.jobs.get() as usize).min(pieces.len());
        if jobs < 2 {
            let mut exit = Exit::Success;
            for piece in pieces {
                exit = exit.max(self.realise(&piece, engine.as_ref(), terminal)?);
            }
            return Ok(exit.into());
        }
        // Each has a connection of its own, and says its result only.
        let engines = engine.is_some();
        let queue = Mutex::new(pieces);
        let next = || queue.lock().ok().and_then(|mut pieces| pieces.pop());
        let work = || -> Result<Exit, Failure> {
            let engine = match engines {
                true => Some(Engine::connect(&self.surroundings.environment)?),
                false => None,
            };
            let mut terminal = Terminal::new(Verbosity::Quiet, false);
            let mut exit = Exit::Success;
            while let Some(piece) = next() {
                exit = exit.max(self.realise(&piece, engine.as_ref(), &mut terminal)?);
            }
            Ok(exit)
        };
        let results: Vec<Result<Exit, Failure>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            let join = |thread: ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_panic| {
                    Err(Failure::new("a thread of a realisation has panicked"))
                })
            };
            threads.into_iter().map(join).collect()
        });
        let mut exit = Exit::Success;
        for result in results {
            exit = exit.max(result?);
        }
        Ok(exit.into())
    }

    /// Realises one workspace.
    fn realise(
        &self,
        piece: &Piece,
        engine: Option<&Engine>,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let mut terms = self.terms(piece)?;
        if let Some(engine) = engine {
            let image = image(engine, &self.config, &terms.name)?;
            terms.path = image.path.clone().unwrap_or(terms.path);
            let builder = engine.builder(image)?;
            return self.work(piece, &builder, terms, terminal);
        }
        let beside = realise::scratch(&self.store);
        let scratch = local::Scratch::new(&beside, &self.surroundings.environment)?;
        terms.path = self.local_path(&scratch);
        terms.libraries = true; // they are this machine's, as all is
        terms.glibc = None;
        self.work(piece, &scratch, terms, terminal)
    }

    /// The workspace, or a generated one for each batch of recipes.
    fn pieces(&self, terminal: &mut Terminal) -> Result<Vec<Piece>, Failure> {
        if self.arguments.recipes.is_empty() && !self.arguments.all {
            return Ok(vec![Piece {
                folder: self.folder.clone(),
                environment: self.surroundings.environment.clone(),
                arguments: self.arguments.arguments.clone(),
                name: None,
                wanted: None,
                rustc: self.toolchain.rustc.clone(),
                _assignment: None,
            }]);
        }
        terminal.step("planning the recipes");
        let root = super::recipe::folder(self.surroundings, self.arguments.repository.clone());
        let repository = super::recipe::open(&root)?;
        let mut roots = Vec::new();
        if self.arguments.all {
            roots.extend(repository.entries().iter().map(|entry| entry.recipe.hash()));
        }
        for wanted in &self.arguments.recipes {
            let entry = repository.find(wanted).map_err(super::recipe::not_found)?;
            roots.push(entry.recipe.hash());
        }
        let mut closures: Vec<Vec<PackageRecipe>> = Vec::new();
        for root in roots {
            let closure = repository.closure(&[root])?;
            closures.push(closure.into_iter().cloned().collect());
        }
        let assigned = assign(
            &closures,
            &self.surroundings.environment,
            &self.store,
            &self.toolchain.rustc,
        )?;
        let rustc = closures.first().and_then(|closure| closure.first());
        let rustc = rustc.map_or(String::new(), |recipe| {
            recipe.main().toolchain.rustc.clone()
        });
        let piece = |assignment: Assignment| Piece {
            folder: assignment.folder.clone(),
            environment: assignment.environment.clone(),
            arguments: assignment.arguments.clone(),
            name: Some(assignment.name.clone()),
            wanted: Some(assignment.wanted.clone()),
            rustc: rustc.clone(),
            _assignment: Some(assignment),
        };
        Ok(assigned.into_iter().map(piece).collect())
    }

    fn engine(&self, terminal: &mut Terminal) -> Result<Option<Engine>, Failure> {
        let kind = self.arguments.builder;
        if kind == Some(BuilderKind::Local) {
            return Ok(None);
        }
        match Engine::connect(&self.surroundings.environment) {
            Ok(engine) => Ok(Some(engine)),
            Err(error) if kind.is_none() => {
                terminal.warn(&format!("{}; building on this machine", chain(&error)));
                Ok(None)
            }
            Err(error) => Err(Failure::from(error)
                .hint("start Docker or Podman, or set DOCKER_HOST")
                .hint("`--builder local` builds on this machine, for this machine")),
        }
    }

    /// What the builder of a piece promises and may use.
    fn terms(&self, piece: &Piece) -> Result<Terms, Failure> {
        let own = builder_name(&piece.rustc).unwrap_or_else(|| "unknown".to_owned());
        let name = self
            .arguments
            .toolchain
            .clone()
            .unwrap_or_else(|| own.clone());
        let project = project_file(&self.surroundings.folder);
        let known = definitions(project.as_deref().and_then(Path::parent))?;
        let disk = self
            .config
            .builders
            .get(&name)
            .and_then(|settings| settings.disk);
        Ok(Terms {
            same_toolchain: name == own && piece.rustc == self.toolchain.rustc,
            host: field(&piece.rustc, "host").unwrap_or("unknown").to_owned(),
            glibc: known.get(&name).ok().map(|definition| definition.glibc),
            libraries: name.contains('+'),
            path: PATH.to_owned(),
            limits: Limits {
                cores: self.share_of_cores(),
                ..limits(&self.config, &name)
            },
            disk: disk.unwrap_or(DISK),
            name,
        })
    }

    /// Cores for each of several realisations; one alone has all.
    fn share_of_cores(&self) -> u64 {
        let jobs = u64::from(self.arguments.jobs.get());
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        if jobs < 2 { 0 } else { (cores / jobs).max(1) }
    }

    /// The wrapped C compilers, the toolchain itself, not rustup's stand-ins,
    /// which look for settings in the user's home, and the rest.
    fn local_path(&self, scratch: &local::Scratch) -> String {
        let programs = self
            .surroundings
            .environment
            .get("PATH")
            .unwrap_or_default();
        let own = self.toolchain.sysroot.join("bin");
        let wrapped = scratch.programs();
        format!("{}:{}:{programs}", wrapped.display(), own.display())
    }

    fn work(
        &self,
        piece: &Piece,
        builder: &dyn Builder,
        terms: Terms,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let mut warnings = Vec::new();
        let reach = match self.arguments.arguments.iter().any(|a| a == "--offline") {
            true => Reach::Disk,
            false => Reach::Network,
        };
        let substituters = Substituters::open(
            &self.config,
            &self.surroundings.environment,
            reach,
            &mut |message| warnings.push(message.to_owned()),
        );
        for warning in warnings {
            terminal.warn(&warning);
        }
        let order = Order {
            environment: &piece.environment,
            folder: &piece.folder,
            arguments: &piece.arguments,
            name: piece.name.clone(),
            wanted: piece.wanted.clone(),
            program: &self.surroundings.program,
            store: &self.store,
            builder,
            terms,
            substituters: &substituters,
        };
        let realisation = match order.run(terminal) {
            Ok(realisation) => realisation,
            Err(error) => {
                if self.arguments.format == Format::Json {
                    terminal.clear();
                    print_json(&Undone::new(&error));
                }
                return Err(failure(error));
            }
        };
        terminal.clear();
        match self.arguments.format {
            Format::Text => print_line(&summary(&realisation)),
            Format::Json => print_json(&Printed::new(&realisation)),
        }
        for (unit, reason) in &realisation.missing {
            terminal.warn(&format!("{unit} has no output: {reason}"));
        }
        if !self.arguments.check {
            return Ok(Exit::Success);
        }
        let comparison = order.check(&realisation, terminal).map_err(failure)?;
        terminal.clear();
        Ok(compare(&comparison))
    }
}

fn inside(surroundings: &Surroundings) -> Result<ExitCode, Failure> {
    let word = realise::LastWord::reserve();
    let program = surroundings.program.clone();
    realise::inside::run(std::io::stdin().lock(), &surroundings.environment, program)?;
    word.say();
    Ok(Exit::Success.into())
}

/// The pinned image; where none is pinned, the one that was made here, whose
/// digest is in all that it makes.
pub(super) fn image(engine: &Engine, config: &Config, name: &str) -> Result<Image, Failure> {
    let found = match pinned_image(engine, config, name) {
        Err(BuilderError::NotPinned { .. }) => {
            let image = format!("{REPOSITORY}:{}", tag(name));
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

/// One line, as Cargo would say it.
fn summary(realisation: &Realisation) -> String {
    let valid = realisation.valid.len();
    if realisation.settled {
        return match realisation.fetched.outputs {
            0 => format!("quickbuild: all {valid} outputs are valid, nothing to do"),
            fetched => {
                format!("quickbuild: all {valid} outputs are valid, {fetched} of them fetched")
            }
        };
    }
    format!(
        "quickbuild: {valid} outputs valid, {} of them new, {} fetched, {} units without; {:.1} s in the builder",
        realisation.added.len(),
        realisation.fetched.outputs,
        realisation.missing.len(),
        realisation.seconds
    )
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Printed<'a> {
    valid: usize,
    outputs: &'a [String],
    added: &'a [String],
    fetched: usize,
    missing: Vec<PrintedMissing<'a>>,
    seconds: f64,
}

/// What `--format json` prints where nothing came of it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Undone {
    /// Why.
    error: String,
    /// Whether what was to be built is to blame, and not the machine.
    recipe: bool,
}

impl Undone {
    fn new(error: &RealiseError) -> Self {
        Self {
            error: chain(error),
            recipe: error.is_of_recipe(),
        }
    }
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
            valid: realisation.valid.len(),
            outputs: &realisation.valid,
            added: &realisation.added,
            fetched: realisation.fetched.outputs,
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
