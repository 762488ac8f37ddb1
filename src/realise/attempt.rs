//! One run of a builder: what it is given, what it says, what it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use super::audit::Audit;
use super::begin::Beginning;
use super::job::{CargoMessage, Event, FORMAT, Job, Report};
use super::journal::{self, Entry as Note, Journal};
use super::order::Planned;
use super::scratch::Scratch;
use super::skeleton::Skeleton;
use super::{Order, Realisation, RealiseError, Result, provenance};
use crate::build::Observer;
use crate::builder::{Content, Entry, Load, Stream, Watcher};
use crate::digest::RecipeHash;
use crate::fs;
use crate::interrupt::Held;
use crate::output::{Maker, Output};
use crate::store::{Store, archive};

/// Lines of a failed build that an error shows.
const TAIL: usize = 20;

/// One run of a builder.
pub(super) struct Attempt<'a> {
    pub(super) order: &'a Order<'a>,
    /// The store that gets the outputs; that of the order has the log.
    pub(super) into: &'a Store,
    pub(super) plan: &'a Planned,
    pub(super) skeleton: &'a Skeleton,
    /// Store names of outputs that need not be made, with all they need.
    pub(super) valid: &'a BTreeSet<String>,
}

impl Attempt<'_> {
    pub(super) fn run(
        &self,
        begun: Beginning<'_>,
        scratch: &Scratch,
        observer: &mut dyn Observer,
    ) -> Result<(Realisation, Report)> {
        let order = self.order;
        let files = self.valid_outputs();
        let job = self.job();
        let output = scratch.folder("out");
        fs::create_dir_all(&output)?;
        let journal = Journal::new(order.store);
        let mut note = Note::begin(&self.plan.name, order.builder.maker());
        let recipes = self.plan.compiled().map(|unit| unit.recipe);
        note.recipes = recipes
            .chain(order.wanted.iter().flatten().copied())
            .collect();
        let mut log = journal.open(&note)?;
        let load = Load {
            files: &files,
            input: &job,
            output: &output,
        };
        observer.step(&format!("starting the builder {}", order.terms.name));
        let mut follower = Follower {
            observer,
            log: &mut log,
            held: begun.held,
            started: Instant::now(),
            tail: Vec::new(),
            failed: None,
        };
        let started = follower.started;
        let ran = begun.task.and_then(|task| task.run(&load, &mut follower));
        let (tail, failed) = (follower.tail, follower.failed);
        let seconds = started.elapsed().as_secs_f64();
        observer.clear();
        let result = std::thread::scope(|scope| {
            scope.spawn(|| order.builder.tidy());
            match ran {
                Ok(0) => {
                    let run = provenance::Run {
                        invocation: log.name(),
                        started: note.started,
                        finished: fs::now().seconds(),
                    };
                    self.register(&output, &run, observer)
                }
                Ok(code) => Err(RealiseError::Failed {
                    name: self.plan.name.clone(),
                    reason: failed.unwrap_or_else(|| format!("it ended with code {code}")),
                    tail,
                }),
                Err(source) => Err(RealiseError::Builder {
                    name: self.plan.name.clone(),
                    source,
                }),
            }
        });
        let log = journal.close(log, note, result.as_ref().err())?;
        let (mut realisation, report) = result?;
        realisation.seconds = seconds;
        realisation.log = Some(log);
        Ok((realisation, report))
    }

    /// What the half in the builder is to do: a line.
    fn job(&self) -> Vec<u8> {
        let order = self.order;
        let wanted = match &order.wanted {
            Some(wanted) => wanted.clone(),
            None if order.terms.same_toolchain => {
                self.plan.compiled().map(|unit| unit.recipe).collect()
            }
            None => Vec::new(),
        };
        let job = Job {
            format: FORMAT,
            maker: order.builder.maker(),
            root: order.builder.root().to_owned(),
            folder: self.skeleton.folder.clone(),
            arguments: order.arguments.to_vec(),
            wanted,
            disk: order.terms.disk,
            valid: self.valid.clone(),
        };
        let mut line = serde_json::to_vec(&job).expect("a job serialises");
        line.push(b'\n');
        line
    }

    /// A store with the outputs that need not be made.
    fn valid_outputs(&self) -> Vec<Entry> {
        let bytes = |path, bytes| Entry {
            path,
            content: Content::Bytes {
                bytes,
                executable: false,
            },
        };
        let store = self.order.store;
        let mut files = Vec::new();
        let mut index: BTreeMap<RecipeHash, String> = BTreeMap::new();
        for name in self.valid {
            let Some(output) = store.output(name) else {
                continue; // it is gone, and will be made
            };
            files.push(Entry {
                path: format!("work/store/paths/{name}"),
                content: Content::Tree(store.path(name)),
            });
            let lines = index.entry(output.host_recipe).or_default();
            lines.push_str(&format!("{name}\n"));
            if let Some(naming) = store.naming(output.key) {
                let naming = serde_json::to_vec(&naming).expect("a naming serialises");
                files.push(bytes(
                    format!("work/store/units/{}.json", output.key),
                    naming,
                ));
            }
        }
        let index = index.into_iter();
        files.extend(index.map(|(recipe, lines)| {
            bytes(format!("work/store/index/{recipe}"), lines.into_bytes())
        }));
        files
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
        let sealed = Sealed {
            maker: order.builder.maker(),
            audit: Audit {
                root: order.builder.root(),
                glibc: order.terms.glibc,
                libraries: order.terms.libraries,
            },
        };
        let imported = archive::import_folder(self.into, &output.join("paths"), &sealed);
        let imported = imported.map_err(RealiseError::Refused)?;
        archive::add_namings(self.into, &report.namings).map_err(RealiseError::Refused)?;
        run.state(self.into, &imported.added, &report.outputs)?;
        observer.clear();
        let missing = report.missing.iter();
        let outputs = report.outputs.iter();
        let realisation = Realisation {
            valid: outputs.map(|made| made.output.clone()).collect(),
            added: imported.added,
            missing: missing
                .map(|m| (format!("{} ({})", m.package, m.kind), m.reason.clone()))
                .collect(),
            ..Realisation::default()
        };
        Ok((realisation, report))
    }
}

/// What an output of a builder has to be.
struct Sealed<'a> {
    maker: Maker,
    audit: Audit<'a>,
}

impl archive::Examine for Sealed<'_> {
    fn manifest(&self, output: &Output) -> std::result::Result<(), String> {
        if output.builder != self.maker {
            return Err(format!("it says that `{}` made it", output.builder));
        }
        self.audit.manifest(output)
    }

    fn content(
        &self,
        output: &Output,
        index: usize,
        bytes: &[u8],
    ) -> std::result::Result<(), String> {
        self.audit.content(output, index, bytes)
    }
}

/// Follows the half in the builder.
struct Follower<'a> {
    observer: &'a mut dyn Observer,
    log: &'a mut journal::Log,
    held: &'a Held,
    started: Instant,
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
        self.held.asked().is_some()
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
            Event::Step { message } => {
                let seconds = self.started.elapsed().as_secs_f64();
                self.log
                    .line(&format!("== {message} (after {seconds:.2} s)"));
            }
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
