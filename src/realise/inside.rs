//! The half of a realisation that runs in the builder: an ordinary build, sealed.
//!
//! It links what is valid, lets Cargo compile the rest, harvests it, and has
//! `check` learn its names, so that one realisation serves `build`, `check` and
//! `clippy`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::ABOVE;
use super::job::{Event, FORMAT, Job, Missing, Realised, Report};
use crate::build::{self, Observer, Request, Seal, chain};
use crate::builder::REMAPPED;
use crate::cargo::invocation::{Invocation, Subcommand};
use crate::cargo::lock_file::Pin;
use crate::config::Config;
use crate::console::{self, Progress};
use crate::digest::RecipeHash;
use crate::environment::Environment;
use crate::fs;
use crate::plan::inputs::Inspector;
use crate::plan::{Context, Plan, Reason, Verdict};
use crate::store::archive;
use crate::store::{Store, StoreError};

/// How often the room that is taken is looked at: the longer that takes, the less
/// often, since it is taken from those who compile; but at least so often.
const TICK: Duration = Duration::from_millis(500);
const TICK_AT_MOST: Duration = Duration::from_secs(5);
/// How many times as long as a look the pause is.
const PAUSE: u32 = 100;

/// Bytes with which a disk is full: a linker asks for more.
const FULL: u64 = 64 << 20;

/// Why nothing can be realised.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// A file.
    #[error("a file cannot be used")]
    File(#[from] fs::FsError),
    /// There is no job.
    #[error("the job cannot be read")]
    NoJob(#[source] io::Error),
    /// Something else is there.
    #[error("what was given is not a job that this quickbuild knows")]
    Job(#[source] serde_json::Error),
    /// The store.
    #[error("the builder's store cannot be used")]
    Store(#[from] StoreError),
    /// Cargo cannot say what it would do.
    #[error("Cargo gives no plan")]
    Plan(#[from] crate::plan::ContextError),
    /// What would be built is not what is wanted.
    #[error("the unit graph here lacks {count} of the wanted recipes, such as `{example}`")]
    Unlike {
        /// How many.
        count: usize,
        /// One of them.
        example: RecipeHash,
    },
    /// Cargo cannot be started.
    #[error("Cargo cannot be run")]
    Cargo(#[from] build::CargoFailure),
    /// A command failed.
    #[error("`cargo {command}` failed")]
    Failed {
        /// Which.
        command: &'static str,
    },
}

/// Does the job that is the first line of this. What was made is left even where a
/// command fails.
pub fn run(
    mut from: impl BufRead,
    environment: &Environment,
    program: PathBuf,
) -> Result<(), InsideError> {
    let mut line = String::new();
    from.read_line(&mut line).map_err(InsideError::NoJob)?;
    let job: Job = serde_json::from_str(&line).map_err(InsideError::Job)?;
    let done = Arc::new(AtomicBool::new(false));
    if job.disk > 0 {
        watch_disk(job.root.join("work"), job.disk, Arc::clone(&done));
    }
    let inside = Inside {
        environment,
        program,
        job,
    };
    let result = inside.run();
    done.store(true, Ordering::Relaxed);
    if let Err(error) = &result {
        say(&Event::Failed {
            message: chain(error),
        });
    }
    result
}

/// Ends everything when more is written than may be.
fn watch_disk(folder: PathBuf, limit: u64, done: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        while !done.load(Ordering::Relaxed) {
            let began = Instant::now();
            if fs::tree_size(&folder) > limit {
                say(&Event::Failed {
                    message: format!("it wrote more than {limit} bytes"),
                });
                std::process::exit(i32::from(ABOVE));
            }
            std::thread::sleep((began.elapsed() * PAUSE).clamp(TICK, TICK_AT_MOST));
        }
    });
}

/// A compiler that finds no room dies in many ways; this says why.
fn warn_of_full_disk(folder: &Path) {
    if let Some(left) = fs::room(folder).filter(|&left| left < FULL) {
        say(&Event::Warning {
            message: format!(
                "{left} bytes are left on the builder's disk: make room where the engine keeps its volumes, \
                 or realise fewer recipes at once"
            ),
        });
    }
}

fn say(event: &Event) {
    let line = serde_json::to_string(event).expect("an event serialises");
    console::out(&format!("{line}\n"));
}

struct Inside<'a> {
    environment: &'a Environment,
    program: PathBuf,
    job: Job,
}

impl Inside<'_> {
    fn run(&self) -> Result<(), InsideError> {
        let job = &self.job;
        let mut config = Config::built_in(self.environment);
        config.store = job.root.join("work/store");
        let store = Store::open(&config.store)?;
        // What did not get here whole is made again.
        let is_whole = |name: &&String| {
            let output = store.output(name);
            output.is_some_and(|output| store.is_usable(&output))
        };
        let valid: BTreeSet<String> = job.valid.iter().filter(is_whole).cloned().collect();
        let build = self.plan(&store, Subcommand::Build)?;
        self.compare(&build)?;
        let missing = build.units.len() - build.ready();
        say(&Event::Planned { units: missing });

        let commands = [Subcommand::Build, Subcommand::Check];
        let mut failed = None;
        let mut left = BTreeMap::new();
        for command in commands {
            say(&Event::Step {
                message: format!("cargo {}", command.name()),
            });
            let is_last = command == Subcommand::Check;
            let request = self.request(command, is_last);
            let run = || build::run(&request, &config, &mut Speaker);
            let (status, report) = if is_last {
                run()?
            } else {
                // What Cargo says of the next command is kept until then: while it
                // waits for a linker there is a core to spare.
                std::thread::scope(|scope| {
                    scope.spawn(|| self.context(&store, Subcommand::Check));
                    run()
                })?
            };
            // The first of a package is why the others are left, too.
            for (name, reason) in report.left {
                left.entry(name).or_insert(reason);
            }
            if !status.success() {
                failed = Some(command.name());
                warn_of_full_disk(&job.root.join("work"));
                break;
            }
        }
        say(&Event::Step {
            message: "packing what was made".to_owned(),
        });
        let mut report = Report {
            format: FORMAT,
            ..Report::default()
        };
        for command in commands {
            self.note(&store, command, &left, &mut report)?;
        }
        report.missing.sort();
        report.missing.dedup();
        let out = job.root.join("work/out");
        let names: BTreeSet<String> = report.outputs.iter().map(|r| r.output.clone()).collect();
        let made: Vec<String> = names.difference(&valid).cloned().collect();
        archive::move_out(&store, &made, &out.join("paths"))?;
        say(&Event::Step {
            message: "done".to_owned(),
        });
        let text = serde_json::to_vec(&report).expect("a report serialises");
        fs::write(&out.join("report.json"), &text)?;
        match failed {
            Some(command) => Err(InsideError::Failed { command }),
            None => Ok(()),
        }
    }

    fn folder(&self) -> PathBuf {
        self.job.root.join("in/workspace").join(&self.job.folder)
    }

    fn invocation(&self, subcommand: Subcommand) -> Invocation {
        Invocation {
            subcommand,
            arguments: self.job.arguments.clone(),
        }
    }

    fn request(&self, subcommand: Subcommand, is_last: bool) -> Request {
        let mut invocation = self.invocation(subcommand);
        let mut own = vec!["--message-format=json-render-diagnostics".to_owned()];
        own.append(&mut invocation.arguments);
        invocation.arguments = own;
        let root = &self.job.root;
        let remapped = REMAPPED
            .iter()
            .map(|(below, name)| (root.join(below), (*name).to_owned()));
        Request {
            environment: self.environment.clone(),
            folder: self.folder(),
            invocation,
            program: self.program.clone(),
            seal: Some(Seal {
                maker: self.job.maker,
                remapped: remapped.collect(),
                is_last,
            }),
        }
    }

    fn context(&self, store: &Store, subcommand: Subcommand) -> Result<Context, InsideError> {
        let folder = self.folder();
        let invocation = self.invocation(subcommand);
        let cache = store.cache("");
        Ok(Context::gather(
            self.environment,
            &folder,
            &invocation,
            &cache,
        )?)
    }

    fn plan(&self, store: &Store, subcommand: Subcommand) -> Result<Plan, InsideError> {
        let context = self.context(store, subcommand)?;
        let inspector = Inspector::new(&context.environment, &context.settings, &context.roots);
        Ok(Plan::make(&context, store, &inspector))
    }

    /// Nothing is compiled if it is not what was asked for.
    fn compare(&self, plan: &Plan) -> Result<(), InsideError> {
        // What host and target share answers to both forms.
        let hashes = plan
            .units
            .iter()
            .map(|unit| [unit.recipe, unit.host_recipe]);
        let here: BTreeSet<RecipeHash> = hashes.flatten().collect();
        let absent = self
            .job
            .wanted
            .iter()
            .filter(|wanted| !here.contains(wanted));
        let absent: Vec<&RecipeHash> = absent.collect();
        match absent.first() {
            Some(&&example) => Err(InsideError::Unlike {
                count: absent.len(),
                example,
            }),
            None => Ok(()),
        }
    }

    /// What there is now for the units of a command.
    fn note(
        &self,
        store: &Store,
        subcommand: Subcommand,
        left: &BTreeMap<String, String>,
        report: &mut Report,
    ) -> Result<(), InsideError> {
        let context = self.context(store, subcommand)?;
        let inspector = Inspector::new(&context.environment, &context.settings, &context.roots);
        let plan = Plan::make(&context, store, &inspector);
        let resolution = &plan.resolution;
        let verdicts = resolution.verdicts.iter().zip(&resolution.namings);
        for (unit, (verdict, naming)) in plan.units.iter().zip(verdicts) {
            if unit.package.is_path() {
                continue;
            }
            if let Some(naming) = naming
                && !report.namings.iter().any(|known| known.key == naming.key)
            {
                report.namings.push(naming.clone());
            }
            match verdict {
                Verdict::Ready(output) => {
                    let output = output.store_name();
                    if report.outputs.iter().any(|known| known.output == output) {
                        continue;
                    }
                    let checksum = match context.common.pins.of(&unit.package) {
                        Some(Pin::Checksum(checksum)) => Some(checksum.clone()),
                        _ => None,
                    };
                    report.outputs.push(Realised {
                        recipe: unit.recipe,
                        output,
                        source: unit.unit.pkg_id.clone(),
                        features: unit.unit.features.clone(),
                        checksum,
                    });
                }
                Verdict::Missing(reason) => {
                    let known = left.get(&unit.package.name);
                    let reason = known.cloned().unwrap_or_else(|| explain(reason));
                    report.missing.push(Missing {
                        package: format!("{} {}", unit.package.name, unit.package.version),
                        kind: unit.kind.to_owned(),
                        reason,
                    });
                }
            }
        }
        Ok(())
    }
}

fn explain(reason: &Reason) -> String {
    match reason {
        Reason::Refused(refusal) => refusal.reason().to_owned(),
        _ => "it was not compiled".to_owned(),
    }
}

/// Speaks to the half outside.
struct Speaker;

impl Progress for Speaker {
    fn begin(&self, _pieces: usize) {}
    fn advance(&self) {}
}

impl Observer for Speaker {
    fn warn(&mut self, message: &str) {
        say(&Event::Warning {
            message: message.to_owned(),
        });
    }

    fn step(&mut self, message: &str) {
        say(&Event::Step {
            message: message.to_owned(),
        });
    }

    fn clear(&mut self) {}
}
