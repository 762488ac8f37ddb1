//! One command, from plan to summary.
//!
//! ```text
//! nothing changed since the last time? ──yes──► Cargo
//!   │ no
//! plan ─► fetch ─► link ─► Cargo, with the wrapper if something is missing
//!                            └─► harvest ─► link what was learned
//! ```
//!
//! Whatever fails on our side, Cargo runs, and its exit code is ours.

mod collection;
mod lack;
mod process;
mod rustc_info;
mod substitution;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::bridge::{Record, Records, Session, uncover_script};
use crate::cargo::invocation::{Invocation, Subcommand};
use crate::config::Config;
use crate::console::Progress;
use crate::environment::Environment;
use crate::fs::{self, Time};
use crate::harvest::{self, Harvest, Harvesting};
use crate::link::{self, Linker, TargetLock, Unnoted};
use crate::output::Maker;
use crate::plan::context::Context;
use crate::plan::inputs::Inspector;
use crate::plan::resolve::package_folder;
use crate::plan::state::{self, Settled, State};
use crate::plan::{ContextError, Plan, Reason, Verdict};
use crate::store::{Root, Store};
use crate::substitute::Fetched;

pub use crate::console::chain;
pub use lack::{Lack, in_place};
pub use process::{CargoFailure, exit_code};
pub use substitution::{Substitution, substitute};

/// A command with its surroundings.
#[derive(Debug)]
pub struct Request {
    /// Variables.
    pub environment: Environment,
    /// Where the command was given.
    pub folder: PathBuf,
    /// The command.
    pub invocation: Invocation,
    /// This program, to be used as the wrapper.
    pub program: PathBuf,
    /// Whether it runs in a builder.
    pub seal: Option<Seal>,
}

/// What is different in a builder.
#[derive(Debug, Clone)]
pub struct Seal {
    /// Who makes the outputs.
    pub maker: Maker,
    /// Folders of the builder, and by what compiled files name them.
    pub remapped: Vec<(PathBuf, String)>,
    /// Whether the target directory is of no use after this command.
    pub is_last: bool,
}

impl Request {
    fn maker(&self) -> Maker {
        let seal = self.seal.as_ref();
        seal.map_or(Maker::Local, |seal| seal.maker)
    }

    fn is_last(&self) -> bool {
        self.seal.as_ref().is_some_and(|seal| seal.is_last)
    }
}

/// What happened, for the summary.
#[derive(Debug, Default)]
pub struct Report {
    /// Units of the command.
    pub units: usize,
    /// Units that came from the store, now or earlier.
    pub from_store: usize,
    /// Units that Cargo compiled.
    pub built: usize,
    /// Seconds that the units put in place now once took.
    pub seconds_saved: f64,
    /// What was fetched from substituters.
    pub fetched: Fetched,
    /// Whether there was nothing to do.
    pub settled: bool,
    /// Compiled units that stay out of the store, with reasons.
    pub left: Vec<(String, String)>,
    /// What a service could have had, where one is to be told.
    pub lack: Option<Lack>,
}

/// What the caller shows while a command runs.
pub trait Observer: Progress {
    /// Something went wrong on our side; the build goes on.
    fn warn(&mut self, message: &str);
    /// A step begins that may take a moment.
    fn step(&mut self, message: &str);
    /// Cargo is about to run and wants the terminal.
    fn clear(&mut self);
}

/// Runs a command. The status is Cargo's.
pub fn run(
    request: &Request,
    config: &Config,
    observer: &mut dyn Observer,
) -> Result<(ExitStatus, Report), CargoFailure> {
    if let Some(reason) = request.invocation.unsupported() {
        if request.invocation.subcommand != Subcommand::Doc || !reason.contains("nothing") {
            observer.warn(&format!("{reason}; Cargo runs alone"));
        }
        return Ok((process::plain(request)?, Report::default()));
    }
    if let Some(settled) = settled(request) {
        let report = Report {
            units: settled.units,
            from_store: settled.ready,
            settled: true,
            ..Report::default()
        };
        return Ok((process::plain(request)?, report));
    }
    match prepare(request, config, observer) {
        Ok(prepared) => {
            let result = prepared.run(observer);
            if result.as_ref().is_ok_and(|(_, report)| report.built > 0) {
                collection::run_if_due(request, config);
            }
            result
        }
        Err(problem) => {
            observer.clear();
            if let Problem::Ours(reason) = &problem {
                observer.warn(&format!("{reason}; Cargo runs alone"));
            }
            let status = process::plain(request)?;
            // Whatever keeps Cargo from planning keeps it from building; it has not.
            if let Problem::Cargos(reason) = problem
                && status.success()
            {
                observer.warn(&format!("{reason}; Cargo ran alone"));
            }
            Ok((status, Report::default()))
        }
    }
}

/// Whether all that the last run of this command depended on is unchanged.
fn settled(request: &Request) -> Option<Settled> {
    let key = state::command_key(&request.environment, &request.invocation, &request.folder);
    let folders =
        state::likely_build_dirs(&request.environment, &request.invocation, &request.folder);
    folders.iter().find_map(|folder| {
        let state = State::load(folder);
        state.is_settled(&key, &request.environment).cloned()
    })
}

struct Prepared<'a> {
    request: &'a Request,
    config: &'a Config,
    store: Store,
    context: Context,
}

/// Why Cargo runs alone.
enum Problem {
    /// Something that Cargo does not know of.
    Ours(String),
    /// Something that Cargo will say itself, unless it builds all the same.
    Cargos(String),
}

/// Opens the store and asks Cargo.
fn prepare<'a>(
    request: &'a Request,
    config: &'a Config,
    observer: &mut dyn Observer,
) -> Result<Prepared<'a>, Problem> {
    let store = Store::open(&config.store).map_err(|error| Problem::Ours(chain(&error)))?;
    observer.step("asking Cargo for the unit graph");
    let cache = store.cache("");
    let context = Context::gather(
        &request.environment,
        &request.folder,
        &request.invocation,
        &cache,
    );
    let context = context.map_err(|error| match error {
        ContextError::NoManifest { .. } | ContextError::Cargo(_) => Problem::Cargos(chain(&error)),
        error => Problem::Ours(chain(&error)),
    })?;
    Ok(Prepared {
        request,
        config,
        store,
        context,
    })
}

impl Prepared<'_> {
    fn run(self, observer: &mut dyn Observer) -> Result<(ExitStatus, Report), CargoFailure> {
        let Prepared {
            request,
            store,
            context,
            ..
        } = &self;
        observer.step("looking into the store");
        let inspector = Inspector::new(&context.environment, &context.settings, &context.roots);
        let plan = Plan::make(context, store, &inspector);
        let (mut plan, fetched) = self.fill(plan, &inspector, observer);
        let mut report = Report {
            units: plan.units.len(),
            from_store: plan.ready(),
            fetched,
            ..Report::default()
        };

        observer.step("linking units");
        let linkable = plan.linkable();
        let lock = match self.lock(&plan, observer) {
            Ok(lock) => lock,
            Err(error) => {
                observer.clear();
                observer.warn(&format!("{}; Cargo runs alone", chain(&error)));
                return Ok((process::plain(request)?, Report::default()));
            }
        };
        let mut state = State::load(&context.layout.build_dir);
        let time = link::time(&state);
        let before = in_place(context, &plan, &state);
        if linkable.iter().any(|&linkable| linkable) {
            let linker = Linker {
                context,
                store,
                inspector: &inspector,
                time,
                unnoted: Unnoted::Adopt,
                progress: &*observer,
            };
            let (linked, error) = linker.link(&plan, &mut state);
            if let Some(error) = error {
                observer.warn(&format!("not all units could be linked: {}", chain(&error)));
            }
            if linked.placed > 0 {
                self.save(&mut state, observer);
            }
        }
        rustc_info::restore(context, store);
        drop(lock);
        report.seconds_saved = saved(&plan, &before);
        let service = self.config.service.as_ref();
        let mut lack = service
            .filter(|service| service.report)
            .map(|_| Lack::before(context, &plan, &before));

        let session = self.session(&plan, &linkable, observer);
        observer.clear();
        let status = match &session {
            Some(session) => process::wrapped(request, context, session)?,
            None => process::plain(request)?,
        };
        let handled = session.as_ref().map(handled);
        let idle = session.as_ref().is_none_or(Session::is_idle);
        if let Some(session) = session {
            session.end();
        }
        if let Some(handled) = handled.filter(|_| !idle && store.is_writable()) {
            let harvest = self.harvest(
                &mut plan,
                &inspector,
                &handled,
                (&mut state, time),
                observer,
            );
            report.built = harvest.compiled;
            report.left = harvest.left;
            if let Some(lack) = &mut lack {
                lack.after(&plan);
            }
        }
        report.lack = lack;
        if !request.is_last() {
            self.settle(&plan, &mut state, status, idle, observer);
        }
        Ok((status, report))
    }

    fn lock(&self, plan: &Plan, observer: &mut dyn Observer) -> fs::Result<TargetLock> {
        let platforms: BTreeSet<Option<String>> = plan
            .units
            .iter()
            .map(|unit| unit.unit.platform.clone())
            .collect();
        let platforms: Vec<Option<String>> = platforms.into_iter().collect();
        TargetLock::take(
            &self.context.layout,
            &self.context.target_dir,
            &platforms,
            || {
                observer.step("waiting for another Cargo in this build directory");
            },
        )
    }

    fn save(&self, state: &mut State, observer: &mut dyn Observer) {
        if let Err(error) = state.save(&self.context.layout.build_dir) {
            observer.warn(&format!(
                "the state of the build directory is not kept: {}",
                chain(&error)
            ));
        }
    }

    /// A session is needed if Cargo will ask rustc for anything that is to be
    /// kept, served or named.
    fn session(
        &self,
        plan: &Plan,
        linkable: &[bool],
        observer: &mut dyn Observer,
    ) -> Option<Session> {
        let wanted = plan
            .resolution
            .verdicts
            .iter()
            .enumerate()
            .any(|(index, verdict)| match verdict {
                Verdict::Ready(_) => !linkable[index],
                Verdict::Missing(_) => true,
            });
        if !wanted {
            return None;
        }
        crate::bridge::sweep(&self.context.layout.build_dir);
        let remapped = self
            .request
            .seal
            .as_ref()
            .map_or(&[][..], |seal| &seal.remapped);
        let program = (self.request.program.as_path(), remapped);
        match Session::start(&self.context, plan, &self.store, program) {
            Ok(session) => Some(session),
            Err(error) => {
                observer.warn(&format!(
                    "{}; what is compiled now is not kept",
                    chain(&error)
                ));
                None
            }
        }
    }

    fn harvest(
        &self,
        plan: &mut Plan,
        inspector: &Inspector<'_>,
        handled: &harvest::Session,
        (state, time): (&mut State, Time),
        observer: &mut dyn Observer,
    ) -> Harvest {
        let Self { context, store, .. } = self;
        let Ok(_lock) = self.lock(plan, observer) else {
            return Harvest::default();
        };
        // Another quickbuild may have worked here in the meantime.
        let before = state.high_water;
        state.merge(
            State::load(&context.layout.build_dir),
            &context.layout.build_dir,
        );
        let time = if state.high_water > before {
            link::time(state)
        } else {
            time
        };
        observer.step("taking what was compiled into the store");
        let harvesting = Harvesting {
            context,
            store,
            inspector,
            session: handled,
            maker: self.request.maker(),
            remapped: self.request.seal.is_some(),
            progress: &*observer,
        };
        let harvest = harvesting.run(plan, state);
        if let Some(error) = &harvest.error {
            observer.warn(&format!(
                "not all that was compiled is in the store: {}",
                chain(error)
            ));
        }
        // What was served has the times of this run; Cargo would call what
        // depends on it stale the next time.
        if !self.request.is_last() && (harvest.served > 0 || harvest.named > 0) {
            observer.step("linking what was served");
            let linker = Linker {
                context,
                store,
                inspector,
                time,
                unnoted: Unnoted::Replace,
                progress: &*observer,
            };
            let (_, error) = linker.link(plan, state);
            if let Some(error) = error {
                observer.warn(&format!("not all units could be linked: {}", chain(&error)));
            }
        }
        observer.clear();
        harvest
    }

    /// Notes that nothing is left to do, if that is so.
    fn settle(
        &self,
        plan: &Plan,
        state: &mut State,
        status: ExitStatus,
        idle: bool,
        observer: &mut dyn Observer,
    ) {
        let Self {
            context,
            store,
            request,
            ..
        } = self;
        if !context.layout.build_dir.is_dir() {
            return;
        }
        let key = state::command_key(&request.environment, &request.invocation, &request.folder);
        let settled = status.success()
            && plan.resolution.verdicts.iter().all(|verdict| {
                matches!(
                    verdict,
                    Verdict::Ready(_) | Verdict::Missing(Reason::Refused(_))
                )
            })
            && plan
                .linkable()
                .iter()
                .zip(&plan.resolution.verdicts)
                .all(|(linkable, verdict)| *linkable || matches!(verdict, Verdict::Missing(_)));
        if settled {
            let entry = self.settled_entry(plan, state);
            state.settled.insert(key, entry);
            if idle {
                rustc_info::keep(context, store);
            }
        }
        self.save(state, observer);
        self.add_root(state);
    }

    fn add_root(&self, state: &State) {
        if self.store.is_writable() {
            let root = Root {
                target: self.context.layout.build_dir.clone(),
                outputs: state.outputs(),
            };
            // Without it the collector may take what is linked here, which
            // costs a build elsewhere and nothing here.
            let _ = self.store.add_root(&root);
        }
    }

    fn settled_entry(&self, plan: &Plan, state: &State) -> Settled {
        let context = &self.context;
        let mut watched = state::watch(context);
        let mut variables: BTreeSet<String> = BTreeSet::new();
        let mut paths: BTreeSet<PathBuf> = BTreeSet::new();
        for (index, unit) in plan.units.iter().enumerate() {
            let (Some(output), Some(naming)) = (
                plan.resolution.output(index),
                &plan.resolution.namings[index],
            ) else {
                continue;
            };
            variables.extend(output.inputs.env.iter().map(|(name, _)| name.clone()));
            let roots = &context.roots;
            for file in &output.inputs.files {
                let package = package_folder(unit).unwrap_or(&roots.workspace);
                let path = match file.base {
                    crate::output::InputBase::Package => package.join(&file.path),
                    crate::output::InputBase::Workspace => roots.workspace.join(&file.path),
                    crate::output::InputBase::Absolute => file.path.clone(),
                };
                watch_tree(&path, &mut paths);
            }
            if output.inputs.git_head.is_some() {
                let git = package_folder(unit)
                    .and_then(|p| p.ancestors().map(|a| a.join(".git")).find(|g| g.exists()));
                paths.extend(git.map(|git| git.join("logs/HEAD")));
            }
            let name = link::UnitPaths::new(&context.layout, unit, naming).name;
            if let Some(unit) = state.units.get(&name) {
                let build_dir = &context.layout.build_dir;
                watched.extend(
                    unit.files
                        .iter()
                        .map(|(file, stamp)| (build_dir.join(file), Some(*stamp))),
                );
            }
        }
        watched.extend(state::stamp_all(paths));
        let value = |name: String| {
            let value = self.request.environment.get(&name).map(str::to_owned);
            (name, value)
        };
        Settled {
            watched,
            variables: variables
                .into_iter()
                .filter(|name| name != "CLIPPY_ARGS")
                .map(value)
                .collect(),
            units: plan.units.len(),
            ready: plan.ready(),
            seconds: plan.seconds_ready(),
        }
    }
}

/// What happened in a session. Build scripts that were covered are themselves
/// again.
fn handled(session: &Session) -> harvest::Session {
    let Records { units, unknown } = session.records().unwrap_or_default();
    let scripts = units
        .values()
        .filter(|record| record.served.is_none() && record.crate_name.starts_with("build_script_"));
    for record in scripts {
        // Where this fails, the program in its place runs it.
        let _ = uncover_script(&record.out_dir.join(record.stem()));
    }
    let finished = |record: &Record| {
        let name = format!("{}.d", record.stem());
        let written = fs::Stamp::of(&record.out_dir.join(name));
        written.is_some_and(|stamp| stamp.mtime >= session.started())
    };
    harvest::Session {
        records: units,
        unknown: unknown
            .into_iter()
            .filter(finished)
            .map(|record| record.crate_name)
            .collect(),
        replayed: session.replayed(),
        started: session.started(),
    }
}

/// A folder that is an input counts with all that is below it.
fn watch_tree(path: &Path, paths: &mut BTreeSet<PathBuf>) {
    paths.insert(path.to_owned());
    if path.is_dir() {
        for below in fs::list(path).unwrap_or_default() {
            watch_tree(&below, paths);
        }
    }
}

/// Seconds that a build would have waited for the units that were not there.
fn saved(plan: &Plan, before: &[bool]) -> f64 {
    let seconds = (0..plan.units.len())
        .filter(|&index| !before[index])
        .filter_map(|index| {
            let output = plan.resolution.output(index)?;
            Some(output.seconds / f64::from(output.jobs.max(1)))
        });
    seconds.sum()
}
