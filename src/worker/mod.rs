//! A worker: asks a service for something to build, builds it in a container,
//! and sends what came of it.
//!
//! ```text
//! service ─► lease ─► `quickbuild realise` ─► export ─► service
//!              ▲ a sign of life, and the end of the log, again and again
//! ```
//!
//! | module | job |
//! |---|---|
//! | `calls` | what is asked of the service |
//! | `child` | the realisation, in a process of its own |
//! | `planning` | trees that came without recipes, when there is nothing to build |
//! | `features` | which features a lock file shows; pure |
//!
//! Invariants:
//! * Nothing of a recipe runs outside a container: the realisation is told to
//!   take no other builder.
//! * A worker signs nothing, and has no key.
//! * What became of a lease is told, or the service finds out by silence; a
//!   worker that is told that its lease is gone stops at once.

mod calls;
mod child;
mod features;
mod planning;

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::ServiceSettings;
use crate::console;
use crate::digest::RecipeHash;
use crate::environment::Environment;
use crate::fs::{self, FsError};
use crate::interrupt::{Held, SIGINT, SIGTERM};
use crate::publish::Scratch;
use crate::recipe::package::{PackageError, PackageRecipe};
use crate::report::work::{Job, Verdict};
use crate::store::{Store, StoreError};
use crate::substituter::SubstituterError;
use calls::Service;

/// The longest pause of a worker that a service has nothing for, or that finds
/// none.
const LONGEST: Duration = Duration::from_secs(30);
/// How long a service may be away before what was built is given up.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(100);

/// What a worker works with.
#[derive(Debug, Clone)]
pub struct Worker {
    /// The service, with a token for work.
    pub service: ServiceSettings,
    /// What it is called.
    pub name: String,
    /// The builders that this machine has.
    pub builders: Vec<String>,
    /// This program.
    pub program: PathBuf,
    /// The user's variables.
    pub environment: Environment,
    /// Where it was started, which decides about the configuration.
    pub folder: PathBuf,
    /// The store's folder.
    pub store: PathBuf,
    /// Whether it ends when there is nothing to build.
    pub once: bool,
}

/// Why a worker ends, or cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The service.
    #[error("the service cannot be asked")]
    Service(#[from] SubstituterError),
    /// The service says no.
    #[error("the service refuses: {said}")]
    Refused {
        /// The status.
        status: u16,
        /// How its answer begins.
        said: String,
    },
    /// What it answers is not understood.
    #[error("what the service answers cannot be read")]
    Answer(#[source] serde_json::Error),
    /// The lease is gone.
    #[error("the service has given the build to somebody else")]
    Lost,
    /// A recipe is none.
    #[error("the service gives a recipe that is none")]
    Recipe(#[from] PackageError),
    /// The store.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// A file.
    #[error("a file cannot be used")]
    File(#[from] FsError),
    /// The realisation could not be started.
    #[error("the realisation cannot be started")]
    Start(#[source] std::io::Error),
    /// It did not work.
    #[error("{reason}")]
    Undone {
        /// Whether the recipe is to blame.
        recipe: bool,
        /// Why.
        reason: String,
    },
    /// Somebody asked to stop.
    #[error("the worker was stopped")]
    Stopped,
}

/// Result of something that a worker does.
pub type Result<T> = std::result::Result<T, WorkerError>;

/// What is known of a lease while it is worked on.
#[derive(Default)]
struct Course {
    state: Mutex<CourseState>,
    changed: Condvar,
}

#[derive(Default)]
struct CourseState {
    log: String,
    is_lost: bool,
    is_done: bool,
}

impl Course {
    fn with<T>(&self, work: impl FnOnce(&mut CourseState) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_lost(&self) -> bool {
        self.with(|state| state.is_lost)
    }

    fn end(&self) {
        self.with(|state| state.is_done = true);
        self.changed.notify_all();
    }

    /// Waits until it is over, at most so long; tells whether it is.
    fn wait(&self, longest: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(state, longest, |state| !state.is_done);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_done
    }
}

impl Worker {
    /// Works until it is told to stop. What goes wrong with one build is said,
    /// and the next one is asked for.
    ///
    /// Fails if the service refuses this worker.
    pub fn run(&self) -> Result<()> {
        let held = Held::begin(&[SIGINT, SIGTERM]);
        let service = Service::open(self)?;
        let mut pause = Duration::from_secs(1);
        let mut is_away = false;
        let planned = planning::builders(self, &held);
        while held.asked().is_none() {
            match service.lease() {
                Ok(Some(job)) => {
                    (pause, is_away) = (Duration::from_secs(1), false);
                    self.work(&service, &job, &held);
                    continue;
                }
                Ok(None) if self.plan(&service, &planned, &held) => {
                    (pause, is_away) = (Duration::from_secs(1), false);
                    continue;
                }
                Ok(None) if self.once => return Ok(()),
                Ok(None) => is_away = false,
                Err(error @ WorkerError::Refused { .. }) => return Err(error),
                Err(error) if self.once => return Err(error),
                Err(error) => {
                    if !is_away {
                        let said = console::chain(&error);
                        console::line(&format!("warning: {said}; trying again"));
                    }
                    is_away = true;
                }
            }
            let until = Instant::now() + pause;
            while held.asked().is_none() && Instant::now() < until {
                std::thread::sleep(LOOK);
            }
            pause = (pause * 2).min(LONGEST);
        }
        console::line("quickbuild: the worker was asked to stop");
        Ok(())
    }

    /// Plans a tree, if there is any; tells whether there was. What cannot be asked
    /// or told now is asked or told another time.
    fn plan(&self, service: &Service, builders: &[String], held: &Held) -> bool {
        if builders.is_empty() {
            return false;
        }
        let Ok(Some(tree)) = service.tree(builders) else {
            return false;
        };
        let name = format!("{} {} for {}", tree.name, tree.version, tree.builder);
        let planned = planning::plan(self, &tree, held);
        let reason = match &planned {
            // Another worker will be asked.
            Err(WorkerError::Stopped) => return false,
            Ok(recipes) => {
                console::line(&format!(
                    "quickbuild: planned {name}: {} recipes",
                    recipes.len()
                ));
                String::new()
            }
            Err(error) => {
                let said = console::chain(error);
                console::line(&format!("warning: {name} cannot be planned: {said}"));
                said
            }
        };
        if let Err(error) = service.planned(&tree, planned.unwrap_or_default(), reason) {
            let said = console::chain(&error);
            console::line(&format!("warning: {name}: {said}"));
        }
        true
    }

    /// Does a job, and tells what came of it.
    fn work(&self, service: &Service, job: &Job, held: &Held) {
        let name = format!("{} for {}", job.name, job.builder);
        console::line(&format!("quickbuild: building {name}"));
        let course = Course::default();
        let done = std::thread::scope(|scope| {
            scope.spawn(|| beat(service, job, &course));
            let done = self.make(service, job, &course, held);
            course.end();
            done
        });
        match done {
            Ok(Verdict {
                accepted,
                waiting,
                conflicts,
            }) => {
                let waits = match waiting {
                    0 => String::new(),
                    waiting => format!(", {waiting} wait for another worker"),
                };
                console::line(&format!(
                    "quickbuild: {name}: {accepted} outputs are published{waits}"
                ));
                for conflict in conflicts {
                    console::line(&format!(
                        "warning: CONFLICT: `{conflict}` was made with another content before"
                    ));
                }
            }
            Err(error) => {
                let said = console::chain(&error);
                console::line(&format!("warning: {name}: {said}"));
                let log = course.with(|state| std::mem::take(&mut state.log));
                if let Err(error) = service.failed(job, &error, log) {
                    let said = console::chain(&error);
                    console::line(&format!("warning: that could not be told: {said}"));
                }
            }
        }
    }

    fn scratch(&self) -> Result<Scratch> {
        Ok(Scratch::in_store(&Store::open(&self.store)?)?)
    }

    fn make(&self, service: &Service, job: &Job, course: &Course, held: &Held) -> Result<Verdict> {
        let scratch = self.scratch()?;
        let outputs = child::realise(self, job, &scratch, course, held)?;
        // The whole log, before the lease ends.
        let log = course.with(|state| state.log.clone());
        if let Err(error @ WorkerError::Lost) = service.alive(job, log) {
            return Err(error);
        }
        let export = child::export(self, &outputs, &scratch)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let sent = service.outputs(job, &export);
            let again = match &sent {
                Err(WorkerError::Service(_)) => true,
                Err(WorkerError::Refused { status, .. }) => *status == 429 || *status >= 500,
                _ => false,
            };
            if !again || Instant::now() > until {
                return sent;
            }
            if course.is_lost() {
                return Err(WorkerError::Lost);
            }
            if held.asked().is_some() {
                return Err(WorkerError::Stopped);
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }
}

/// Tells the service that the worker lives, often enough that two signs may be
/// lost.
fn beat(service: &Service, job: &Job, course: &Course) {
    let pause = Duration::from_secs(job.seconds).max(Duration::from_secs(1)) / 4;
    while !course.wait(pause) {
        let log = course.with(|state| state.log.clone());
        if let Err(WorkerError::Lost) = service.alive(job, log) {
            course.with(|state| state.is_lost = true);
            return;
        }
    }
}

/// The recipe that a job is for.
fn wanted(job: &Job) -> Result<(RecipeHash, Vec<PackageRecipe>)> {
    let recipes = job.recipes.iter();
    let recipes = recipes.map(|text| PackageRecipe::from_toml(text));
    let recipes: Vec<_> = recipes.collect::<std::result::Result<_, _>>()?;
    let Some(last) = recipes.last() else {
        return Err(WorkerError::Undone {
            recipe: false,
            reason: "the service gives no recipe".to_owned(),
        });
    };
    Ok((last.hash(), recipes))
}

/// The end of a text file, as far as it can be read now.
fn end_of(path: &std::path::Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    crate::report::work::end_of_log(&text).to_owned()
}

/// The line that says why.
fn last_error(said: &str) -> String {
    let errors = said.lines().rev();
    let mut errors = errors.filter_map(|line| line.strip_prefix("error: "));
    errors
        .next()
        .unwrap_or("it ended without a word")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_says_why() {
        assert_eq!(last_error("a\nerror: no\nhint: b\n"), "no");
        assert_eq!(last_error("a\n"), "it ended without a word");
    }
}
