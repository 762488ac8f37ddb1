//! Recipes made valid by building them where nothing but the recipe can matter.
//!
//! ```text
//! workspace ─► skeleton ─┐                                   ┌─► audit ─► store
//!              sources ──┼─► builder: plan, link, Cargo, ────┤
//!              valid ────┘            harvest, check         └─► log
//! ```
//!
//! | module | job |
//! |---|---|
//! | [`generate`] | from recipes to a workspace that Cargo compiles to just them |
//! | `skeleton` | a workspace without its code |
//! | `sources` | a Cargo home with the packages needed |
//! | `job` | what the two halves say to each other |
//! | [`inside`] | the half that runs in the builder |
//! | `audit` | what an output must not show |
//! | `provenance` | where an output came from |
//! | [`journal`] | logs, and what was realised before |
//!
//! Invariants:
//! * An output gets into the store only after the audit, and only whole.
//! * Nothing is compiled whose recipe is not one that was asked for.
//! * What is valid, made by the same builder, is not made again.

mod audit;
pub mod generate;
pub mod inside;
mod job;
pub mod journal;
mod provenance;
mod skeleton;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub use inside::InsideError;
pub use skeleton::SkeletonError;
pub use sources::SourceError;

use crate::build::Observer;
use crate::builder::{self, Builder, BuilderError, Content, Entry, Limits, Stream, Task, Watcher};
use crate::cargo::glibc::GlibcVersion;
use crate::cargo::invocation::{Invocation, Subcommand};
use crate::digest::{Canonical, OutputId, RecipeHash};
use crate::environment::Environment;
use crate::fs::{self, FsError};
use crate::output::Output;
use crate::plan::inputs::Inspector;
use crate::plan::{Context, ContextError, Plan};
use crate::store::archive::{self, Packed};
use crate::store::{Store, StoreError};
use audit::Audit;
use job::{CargoMessage, Event, FORMAT, Job, Report};
use journal::{Entry as Note, Journal};
use skeleton::Skeleton;
use sources::Sources;

/// The exit code of the half in the builder when it writes too much.
pub(crate) const ABOVE: u8 = 4;

/// How the names of scratch folders begin, before the process.
const SCRATCH: &str = "realise-";

/// Lines of a failed build that an error shows.
const TAIL: usize = 20;

/// What is to be realised, and by whom.
pub struct Order<'a> {
    /// The user's variables.
    pub environment: &'a Environment,
    /// A folder of the workspace.
    pub folder: &'a Path,
    /// Arguments of Cargo's `build` and `check`.
    pub arguments: &'a [String],
    /// This program.
    pub program: &'a Path,
    /// Where outputs go.
    pub store: &'a Store,
    /// Who builds.
    pub builder: &'a dyn Builder,
    /// What it promises.
    pub terms: Terms,
}

/// What a builder promises and may use.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Its name, for people.
    pub name: String,
    /// Whether its toolchain is this machine's, so that recipes can be compared.
    pub same_toolchain: bool,
    /// The triple of the platform that it compiles on.
    pub host: String,
    /// The highest GLIBC version that its programs need.
    pub glibc: Option<GlibcVersion>,
    /// Folders of programs, for `PATH`.
    pub path: String,
    /// What a realisation may use.
    pub limits: Limits,
    /// Bytes that it may write.
    pub disk: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Realisation {
    /// Outputs that are valid now.
    pub valid: usize,
    /// Store names of those that are new.
    pub added: Vec<String>,
    /// Units of packages that have no output, with reasons.
    pub missing: Vec<(String, String)>,
    /// Whether nothing was to be done.
    pub settled: bool,
    /// Seconds in the builder.
    pub seconds: f64,
    /// Where the log is.
    pub log: Option<PathBuf>,
}

/// Why nothing was realised.
#[derive(Debug, thiserror::Error)]
pub enum RealiseError {
    /// The workspace.
    #[error("the workspace cannot be taken to a builder")]
    Skeleton(#[from] SkeletonError),
    /// The sources.
    #[error("the sources cannot be taken to a builder")]
    Sources(#[from] SourceError),
    /// Cargo has no plan.
    #[error("Cargo gives no plan")]
    Plan(#[from] ContextError),
    /// The builder.
    #[error("`{name}` could not be realised")]
    Builder {
        /// What was to be realised.
        name: String,
        /// Why.
        source: BuilderError,
    },
    /// The build failed.
    #[error("`{name}` could not be realised: {reason}")]
    Failed {
        /// What was to be realised.
        name: String,
        /// What the builder said.
        reason: String,
        /// The last lines of its log.
        tail: Vec<String>,
    },
    /// An output has something that it must not have, or is damaged.
    #[error("what the builder made is refused")]
    Refused(#[source] StoreError),
    /// What came back is not what this version writes.
    #[error("the builder's report cannot be read")]
    Report(#[source] serde_json::Error),
    /// The store.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// A file.
    #[error("a file cannot be used")]
    File(#[from] FsError),
}

/// Result of a realisation.
pub type Result<T> = std::result::Result<T, RealiseError>;

impl Order<'_> {
    /// Realises what a workspace depends on. What is valid already is left as it
    /// is; where all of it is, no builder starts.
    pub fn run(&self, observer: &mut dyn Observer) -> Result<Realisation> {
        observer.step("looking at the workspace");
        let skeleton = self.skeleton()?;
        let key = self.key(&skeleton);
        let journal = Journal::new(self.store);
        if let Some(outputs) = journal.realised(key)
            && outputs.iter().all(|name| self.is_valid(name))
        {
            return Ok(Realisation {
                valid: outputs.len(),
                settled: true,
                ..Realisation::default()
            });
        }
        let plan = self.plan()?;
        let valid = match self.terms.same_toolchain {
            true => self.valid(&plan),
            false => BTreeSet::new(),
        };
        let attempt = Attempt {
            order: self,
            name: plan.name.clone(),
            plan: &plan,
            skeleton: &skeleton,
            valid: &valid,
        };
        let scratch = Scratch::new(self.store)?;
        let (realisation, report) = attempt.run(&scratch, observer)?;
        if report.missing.is_empty() {
            let names: Vec<String> = report.outputs.into_iter().map(|r| r.output).collect();
            journal.remember(key, &names)?;
        }
        Ok(realisation)
    }

    /// Builds everything once more, in a fresh builder and from nothing, and
    /// compares it with what the store has.
    pub fn check(&self, observer: &mut dyn Observer) -> Result<Comparison> {
        let skeleton = self.skeleton()?;
        let plan = self.plan()?;
        let scratch = Scratch::new(self.store)?;
        let second = Store::open(&scratch.folder("store"))?;
        let order = Order {
            store: &second,
            terms: self.terms.clone(),
            ..*self
        };
        let attempt = Attempt {
            order: &order,
            name: plan.name.clone(),
            plan: &plan,
            skeleton: &skeleton,
            valid: &BTreeSet::new(),
        };
        let (_, report) = attempt.run(&scratch, observer)?;
        let mut comparison = Comparison::default();
        for realised in &report.outputs {
            let (ours, again) = (
                self.store.output(&realised.output),
                second.output(&realised.output),
            );
            match (ours, again) {
                (Some(ours), Some(again)) => comparison.compare(&ours, &again),
                _ => comparison.unmatched.push(realised.output.clone()),
            }
        }
        Ok(comparison)
    }

    fn skeleton(&self) -> Result<Skeleton> {
        let invocation = self.invocation();
        let mut platforms = vec![self.terms.host.as_str()];
        platforms.extend(invocation.values(&["--target"]));
        Ok(Skeleton::make(self.environment, self.folder, &platforms)?)
    }

    fn invocation(&self) -> Invocation {
        Invocation {
            subcommand: Subcommand::Build,
            arguments: self.arguments.to_vec(),
        }
    }

    /// Everything that decides what comes out.
    fn key(&self, skeleton: &Skeleton) -> RecipeHash {
        let mut key = Canonical::new("quickbuild-realisation-1");
        key.text(env!("CARGO_PKG_VERSION"));
        key.text(&self.builder.maker().to_string());
        key.list(self.arguments);
        for (name, value) in self.passed_variables() {
            key.text(&name).text(&value);
        }
        key.text(&skeleton.folder.to_string_lossy());
        for entry in &skeleton.files {
            key.text(&entry.path);
            if let Content::Bytes { bytes, .. } = &entry.content {
                key.bytes(bytes);
            }
        }
        RecipeHash::finish(key)
    }

    fn is_valid(&self, store_name: &str) -> bool {
        let output = self.store.output(store_name);
        output.is_some_and(|output| self.store.is_usable(&output))
    }

    fn plan(&self) -> Result<Planned> {
        let invocation = self.invocation();
        let cache = self.store.cache("");
        let context = Context::gather(self.environment, self.folder, &invocation, &cache)?;
        let inspector = Inspector::new(&context.environment, &context.settings, &context.roots);
        let plan = Plan::make(&context, self.store, &inspector);
        let asked = context
            .graph
            .roots
            .first()
            .and_then(|&root| plan.units.get(root));
        let name = asked.map(|unit| format!("{} {}", unit.package.name, unit.package.version));
        Ok(Planned {
            name: name.unwrap_or_else(|| self.folder.display().to_string()),
            lock: context.roots.workspace.join("Cargo.lock"),
            plan,
        })
    }

    /// Outputs of this builder for the plan's units, closed under references.
    fn valid(&self, planned: &Planned) -> BTreeSet<String> {
        let maker = self.builder.maker();
        let mut found: BTreeMap<OutputId, Output> = BTreeMap::new();
        for unit in planned.compiled() {
            let names = self.store.candidates(unit.host_recipe);
            let outputs = names.iter().filter_map(|name| self.store.output(name));
            let own =
                outputs.filter(|output| output.builder == maker && self.store.is_usable(output));
            found.extend(own.map(|output| (output.id, output)));
        }
        loop {
            let before = found.len();
            let ids: BTreeSet<OutputId> = found.keys().copied().collect();
            found.retain(|_, output| output.references.iter().all(|id| ids.contains(id)));
            if found.len() == before {
                return found.values().map(Output::store_name).collect();
            }
        }
    }

    /// Variables of the user that are part of recipes.
    fn passed_variables(&self) -> Vec<(String, String)> {
        let is_passed = |name: &str| {
            matches!(
                name,
                "RUSTFLAGS" | "CARGO_ENCODED_RUSTFLAGS" | "CARGO_BUILD_TARGET"
            ) || name.starts_with("CARGO_PROFILE_")
                || name.starts_with("CARGO_UNSTABLE_")
        };
        let passed = self.environment.matching(is_passed);
        passed.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    }
}

/// What is to be built, as this machine sees it.
struct Planned {
    /// What people call it: the package that was asked for, the first of many.
    name: String,
    lock: PathBuf,
    plan: Plan,
}

impl Planned {
    /// Units of packages that never change.
    fn compiled(&self) -> impl Iterator<Item = &crate::plan::Planned> {
        self.plan
            .units
            .iter()
            .filter(|unit| !unit.package.is_path())
    }
}

/// One run of a builder.
struct Attempt<'a> {
    order: &'a Order<'a>,
    name: String,
    plan: &'a Planned,
    skeleton: &'a Skeleton,
    /// Store names of outputs that need not be made.
    valid: &'a BTreeSet<String>,
}

impl Attempt<'_> {
    fn run(&self, scratch: &Scratch, observer: &mut dyn Observer) -> Result<(Realisation, Report)> {
        let order = self.order;
        observer.step("gathering sources");
        let mut files = self.files(scratch)?;
        files.extend(order.builder.files());
        let journal = Journal::new(order.store);
        let mut note = Note::begin(&self.name, order.builder.maker());
        note.recipes = self.plan.compiled().map(|unit| unit.recipe).collect();
        let mut log = journal.open(&note)?;

        let cancelled = Arc::new(AtomicBool::new(false));
        let signals = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];
        let handlers =
            signals.map(|signal| signal_hook::flag::register(signal, Arc::clone(&cancelled)));
        let output = scratch.folder("out");
        fs::create_dir_all(&output)?;
        let root = order.builder.root();
        let inside = |below: &str| root.join(below).to_string_lossy().into_owned();
        let command = [
            inside("in/quickbuild"),
            "realise".to_owned(),
            "--inside".to_owned(),
            inside("in/job.json"),
        ];
        let task = Task {
            name: &self.name,
            store: order.store.root(),
            files: &files,
            command: &command,
            environment: &order.variables(root),
            limits: order.terms.limits,
            output: &output,
        };
        observer.step(&format!("starting the builder {}", order.terms.name));
        let mut follower = Follower {
            observer,
            log: &mut log,
            cancelled: &cancelled,
            tail: Vec::new(),
            failed: None,
        };
        let started = Instant::now();
        let ran = order.builder.run(&task, &mut follower);
        let (tail, failed) = (follower.tail, follower.failed);
        let seconds = started.elapsed().as_secs_f64();
        for handler in handlers.into_iter().flatten() {
            signal_hook::low_level::unregister(handler);
        }
        observer.clear();
        let result = match ran {
            Ok(0) => {
                let run = provenance::Run {
                    invocation: log.name(),
                    started: note.started,
                    finished: fs::now().seconds(),
                };
                self.register(&output, &run, observer)
            }
            Ok(code) => Err(RealiseError::Failed {
                name: self.name.clone(),
                reason: failed.unwrap_or_else(|| format!("it ended with code {code}")),
                tail,
            }),
            Err(source) => Err(RealiseError::Builder {
                name: self.name.clone(),
                source,
            }),
        };
        let log = journal.close(log, note, result.as_ref().err())?;
        let (mut realisation, report) = result?;
        realisation.seconds = seconds;
        realisation.log = Some(log);
        Ok((realisation, report))
    }

    /// The files that the half in the builder works with.
    fn files(&self, scratch: &Scratch) -> Result<Vec<Entry>> {
        let order = self.order;
        let sources = Sources {
            environment: order.environment,
            lock: &self.plan.lock,
            cache: &order.store.cache("sources"),
            registries: &self.skeleton.registries,
            wanted: &self.skeleton.packages,
        };
        let mut files = sources.gather()?;
        let wanted = match order.terms.same_toolchain {
            true => self.plan.compiled().map(|unit| unit.recipe).collect(),
            false => Vec::new(),
        };
        let job = Job {
            format: FORMAT,
            maker: order.builder.maker(),
            root: order.builder.root().to_owned(),
            folder: self.skeleton.folder.clone(),
            arguments: order.arguments.to_vec(),
            wanted,
            disk: order.terms.disk,
        };
        let bytes = serde_json::to_vec(&job).expect("a job serialises");
        files.push(Entry {
            path: "in/job.json".to_owned(),
            content: Content::Bytes {
                bytes,
                executable: false,
            },
        });
        files.push(Entry {
            path: "in/quickbuild".to_owned(),
            content: Content::File(order.program.to_owned()),
        });
        if !self.valid.is_empty() {
            let to = scratch.folder("valid.tar");
            let names: Vec<String> = self.valid.iter().cloned().collect();
            let beyond = BTreeSet::new();
            archive::export_beyond(order.store, &names, &beyond, (&to, Packed::Plain))?;
            files.push(Entry {
                path: "in/valid.tar".to_owned(),
                content: Content::File(to),
            });
        }
        for folder in ["work/home", "work/tmp", "in/workspace"] {
            files.push(Entry {
                path: folder.to_owned(),
                content: Content::Folder,
            });
        }
        files.extend(self.skeleton.files.iter().cloned());
        Ok(files)
    }

    /// Audits what came back, and puts it into the store.
    fn register(
        &self,
        output: &Path,
        run: &provenance::Run,
        observer: &mut dyn Observer,
    ) -> Result<(Realisation, Report)> {
        let order = self.order;
        observer.step("auditing");
        let report = fs::read(&output.join("report.json"))?;
        let report: Report = serde_json::from_slice(&report).map_err(RealiseError::Report)?;
        let audit = Audit {
            root: order.builder.root(),
            glibc: order.terms.glibc,
        };
        let maker = order.builder.maker();
        let sealed = |output: &Output, folder: &Path| {
            if output.builder != maker {
                return Err(format!("it says that `{}` made it", output.builder));
            }
            audit.examine(output, folder)
        };
        let tar = output.join("outputs.tar");
        let imported = archive::import_examined(order.store, &tar, &sealed);
        let imported = imported.map_err(RealiseError::Refused)?;
        archive::add_namings(order.store, &report.namings).map_err(RealiseError::Refused)?;
        run.state(order.store, &imported.added, &report.outputs)?;
        observer.clear();
        let missing = report.missing.iter();
        let realisation = Realisation {
            valid: report.outputs.len(),
            added: imported.added,
            missing: missing
                .map(|m| (format!("{} ({})", m.package, m.kind), m.reason.clone()))
                .collect(),
            ..Realisation::default()
        };
        Ok((realisation, report))
    }
}

impl Order<'_> {
    /// All variables that the half in the builder sees.
    fn variables(&self, root: &Path) -> Vec<(String, String)> {
        let below = |path: &str| root.join(path).to_string_lossy().into_owned();
        let mut variables = vec![
            ("PATH".to_owned(), self.terms.path.clone()),
            ("HOME".to_owned(), below("work/home")),
            ("CARGO_HOME".to_owned(), below("in/cargo")),
            ("CARGO_TARGET_DIR".to_owned(), below("work/target")),
            ("CARGO_NET_OFFLINE".to_owned(), "true".to_owned()),
            ("TMPDIR".to_owned(), below("work/tmp")),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("TZ".to_owned(), "UTC".to_owned()),
        ];
        variables.extend(self.passed_variables());
        variables
    }
}

/// What two builds of the same made.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Outputs that are the same, byte for byte.
    pub same: usize,
    /// Files that differ: output, file, and what it was and is (SHA-256).
    pub differing: Vec<(String, String)>,
    /// Outputs that only one build has.
    pub unmatched: Vec<String>,
}

impl Comparison {
    fn compare(&mut self, ours: &Output, again: &Output) {
        let before = self.differing.len();
        let name = ours.store_name();
        for (index, file) in ours.files.iter().enumerate() {
            let other = again.files.get(index);
            if other.is_none_or(|other| other.name != file.name || other.sha256 != file.sha256) {
                self.differing.push((name.clone(), file.name.clone()));
            }
        }
        if ours.files.len() != again.files.len() {
            self.differing.push((name, "the list of files".to_owned()));
        } else if self.differing.len() == before {
            self.same += 1;
        }
    }
}

/// A folder in the store's `tmp/`, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(store: &Store) -> Result<Self> {
        let tmp = store.root().join("tmp");
        for folder in fs::list(&tmp)? {
            if is_left(&folder) {
                fs::remove_dir_all(&folder)?;
            }
        }
        let folder = fs::unique_beside(&scratch(store));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// A folder for what a realisation needs for a while; with
/// [`fs::unique_beside`] for each need. What is left of it when this process is
/// killed is removed by the next.
pub fn scratch(store: &Store) -> PathBuf {
    let name = format!("{SCRATCH}{}", std::process::id());
    store.root().join("tmp").join(name)
}

/// Whether a folder is of a realisation whose process is gone.
fn is_left(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    let process = name.and_then(|name| name.split_once(SCRATCH)?.1.split('.').next());
    process.is_some_and(|process| !Path::new("/proc").join(process).exists())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // the collector empties `tmp/`, too
    }
}

/// Follows the half in the builder.
struct Follower<'a> {
    observer: &'a mut dyn Observer,
    log: &'a mut journal::Log,
    cancelled: &'a AtomicBool,
    tail: Vec<String>,
    failed: Option<String>,
}

impl Watcher for Follower<'_> {
    fn line(&mut self, stream: Stream, line: &str) {
        if stream == Stream::Out {
            if let Ok(event) = serde_json::from_str::<Event>(line) {
                self.event(event);
                return;
            }
            if let Ok(message) = serde_json::from_str::<CargoMessage>(line) {
                if !matches!(message, CargoMessage::Other) {
                    self.observer.advance();
                }
                return;
            }
        }
        self.log.line(line);
        if self.tail.len() == TAIL {
            self.tail.remove(0);
        }
        self.tail.push(line.to_owned());
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl Follower<'_> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Planned { units } => {
                self.observer.step("building");
                self.observer.begin(units);
                self.log.line(&format!("{units} units are not valid yet"));
            }
            Event::Step { message } => self.log.line(&format!("== {message}")),
            Event::Warning { message } => {
                self.log.line(&format!("warning: {message}"));
                self.observer.warn(&message);
            }
            Event::Failed { message } => {
                self.log.line(&format!("failed: {message}"));
                self.failed = Some(message);
            }
        }
    }
}

/// Removes what killed realisations left on an engine; a warning is all that
/// comes of a failure.
pub fn sweep(engine: &builder::docker::Engine, observer: &mut dyn Observer) {
    match engine.sweep() {
        Ok(0) => {}
        Ok(count) => observer.warn(&format!(
            "{count} containers and volumes of realisations that were killed are removed"
        )),
        Err(error) => observer.warn(&crate::build::chain(&error)),
    }
}
