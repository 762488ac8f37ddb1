//! Archives into the store: several come and are unpacked at the same time, and
//! each output is added as soon as all it refers to is there.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::{Fetched, SubstituteError, is_outage};
use crate::console::Progress;
use crate::digest::OutputId;
use crate::fs;
use crate::interrupt::{Held, SIGINT, SIGTERM};
use crate::output::provenance::Timestamp;
use crate::store::{Added, Origin, Source, Store};
use crate::substituter::{Entry, Substituter, SubstituterError};

/// Archives that are asked for at the same time.
const AHEAD: usize = 32;
/// How often is looked whether the user wants it to end.
const LOOK: Duration = Duration::from_millis(50);

/// Where archives come from and where they go.
pub(super) struct Fetch<'a> {
    pub(super) substituter: &'a Substituter,
    pub(super) store: &'a Store,
    pub(super) progress: &'a dyn Progress,
}

/// What a thread works on next: an entry, and its archive on the way.
type Begun = (usize, Result<Box<dyn Read + Send>, SubstituterError>);

/// How far an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// It is unpacked into this folder.
    Unpacked(PathBuf),
    /// Somebody adds it.
    Taken,
    Added,
    Failed,
}

/// What the threads share.
struct Shared {
    next: usize,
    begun: VecDeque<Begun>,
    stages: Vec<Stage>,
    /// The substituter does not answer any more.
    dead: bool,
    problems: Vec<SubstituteError>,
    fetched: Fetched,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // A thread that panicked leaves stages as they were: some entries wait for
    // ever, and are not added.
    shared
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Fetch<'_> {
    /// Fetches entries, which come dependencies first. What fails, and what
    /// refers to it, is left out.
    ///
    /// Ctrl-C and SIGTERM end it: what is half done is taken away, and then the
    /// process ends by the signal.
    pub(super) fn run(&self, entries: &[&Entry]) -> (Fetched, Vec<SubstituteError>) {
        let until = Instant::now() + worthwhile(entries);
        let sizes = entries.iter().map(|entry| entry.archive.size);
        let bytes = sizes.fold(0, u64::saturating_add);
        self.progress.begin_transfer(entries.len(), bytes);
        let held = Held::begin(&[SIGINT, SIGTERM]);
        let numbers: BTreeMap<OutputId, usize> = entries
            .iter()
            .enumerate()
            .map(|(number, entry)| (entry.output.id, number))
            .collect();
        let shared = Mutex::new(Shared {
            next: 0,
            begun: VecDeque::new(),
            stages: vec![Stage::Waiting; entries.len()],
            dead: false,
            problems: Vec::new(),
            fetched: Fetched::default(),
        });
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let threads = (threads * 2).min(entries.len());
        let working = AtomicUsize::new(threads);
        let waiting = std::thread::current();
        std::thread::scope(|scope| {
            let work = || {
                while let Some((number, content)) = self.next(entries, until, &shared) {
                    let unpacked = self.unpack(entries[number], content, &held);
                    self.note(entries, &numbers, &shared, (number, unpacked));
                    self.progress.advance();
                }
                working.fetch_sub(1, Ordering::SeqCst);
                waiting.unpark();
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            // A thread that panicked is finished and still counted.
            let is_over = || {
                let mut threads = threads.iter();
                working.load(Ordering::SeqCst) == 0 || threads.all(|thread| thread.is_finished())
            };
            while !is_over() {
                if held.asked().is_some() {
                    lock(&shared).dead = true;
                    self.substituter.stop();
                }
                std::thread::park_timeout(LOOK);
            }
        });
        let shared = shared
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for stage in &shared.stages {
            if let Stage::Unpacked(folder) = stage {
                let _ = fs::remove_dir_all(folder); // the collector does it otherwise
            }
        }
        if held.asked().is_some() {
            self.progress.end();
        }
        held.deliver();
        (shared.fetched, shared.problems)
    }

    /// The next archive, with others behind it on their way.
    fn next(&self, entries: &[&Entry], until: Instant, shared: &Mutex<Shared>) -> Option<Begun> {
        let mut shared = lock(shared);
        if shared.dead {
            return None;
        }
        while shared.begun.len() < AHEAD && shared.next < entries.len() {
            let number = shared.next;
            shared.next += 1;
            let content = self.substituter.download(entries[number].archive, until);
            shared.begun.push_back((number, content));
        }
        shared.begun.pop_front()
    }

    fn unpack(
        &self,
        entry: &Entry,
        content: Result<Box<dyn Read + Send>, SubstituterError>,
        held: &Held,
    ) -> Result<PathBuf, SubstituteError> {
        let folder = self.store.stage_path(&entry.output.store_name());
        let unpacked = content.and_then(|content| {
            let content = Shown {
                content,
                progress: self.progress,
                held,
            };
            let (output, archive) = (&entry.output, entry.archive);
            self.substituter.unpack(output, archive, content, &folder)
        });
        if unpacked.is_err() {
            let _ = fs::remove_dir_all(&folder);
        }
        Ok(unpacked.map(|()| folder)?)
    }

    /// Notes what came of an entry, and adds all that can be added now.
    fn note(
        &self,
        entries: &[&Entry],
        numbers: &BTreeMap<OutputId, usize>,
        shared: &Mutex<Shared>,
        (number, unpacked): (usize, Result<PathBuf, SubstituteError>),
    ) {
        let mut board = lock(shared);
        match unpacked {
            Ok(folder) => board.stages[number] = Stage::Unpacked(folder),
            Err(error) => {
                board.stages[number] = Stage::Failed;
                board.dead |= is_dead(&error);
                board.problems.push(error);
            }
        }
        while let Some((number, folder)) = ready(entries, numbers, &mut board.stages) {
            let entry = entries[number];
            // Others go on meanwhile.
            drop(board);
            let added = self.add(entry, &folder);
            let _ = fs::remove_dir_all(&folder); // the collector does it otherwise
            board = lock(shared);
            match added {
                Ok(()) => {
                    board.stages[number] = Stage::Added;
                    board.fetched.outputs += 1;
                    board.fetched.bytes += entry.archive.size;
                }
                Err(error) => {
                    board.stages[number] = Stage::Failed;
                    // A full disk does not get emptier.
                    board.dead = true;
                    board.problems.push(error);
                }
            }
        }
    }

    /// Makes an output visible, with what is said of it.
    fn add(&self, entry: &Entry, folder: &std::path::Path) -> Result<(), SubstituteError> {
        let output = &entry.output;
        let files = output.files.iter().enumerate();
        let files: Vec<PathBuf> = files
            .map(|(index, file)| folder.join(file.store_name(index)))
            .collect();
        let sources: Vec<Source<'_>> = files.iter().map(|file| Source::Share(file)).collect();
        let now = Timestamp::of(fs::now());
        let origin = Origin::substituter(self.substituter.place(), now);
        let signatures = entry.signatures.as_ref();
        let added = self.store.add_from(&origin, output, &sources, signatures)?;
        let name = output.store_name();
        if added == Added::Existing {
            // Another process was first, maybe with other bytes.
            let here = self.store.output(&name);
            if here.is_none_or(|here| here.content_hash() != output.content_hash()) {
                return Ok(());
            }
            if let Some(signatures) = signatures {
                self.store.merge_signatures(&name, signatures.clone())?;
            }
        }
        if let Some(provenance) = &entry.provenance
            && self.store.provenance(output)?.is_none()
        {
            self.store.add_provenance(&name, provenance)?;
        }
        Ok(())
    }
}

/// An unpacked entry of which all it refers to is added; it is taken by that.
/// Whatever refers to something that failed, fails.
fn ready(
    entries: &[&Entry],
    numbers: &BTreeMap<OutputId, usize>,
    stages: &mut [Stage],
) -> Option<(usize, PathBuf)> {
    for (number, entry) in entries.iter().enumerate() {
        let Stage::Unpacked(folder) = &stages[number] else {
            continue;
        };
        let references = || {
            let references = entry.output.references.iter();
            references.filter_map(|id| numbers.get(id).map(|number| &stages[*number]))
        };
        let folder = folder.clone();
        if references().any(|stage| *stage == Stage::Failed) {
            let _ = fs::remove_dir_all(&folder); // the collector does it otherwise
            stages[number] = Stage::Failed;
        } else if references().all(|stage| *stage == Stage::Added) {
            stages[number] = Stage::Taken;
            return Some((number, folder));
        }
    }
    None
}

/// Shows what is read, until the user has enough.
struct Shown<'a> {
    content: Box<dyn Read + Send>,
    progress: &'a dyn Progress,
    held: &'a Held,
}

impl Read for Shown<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.content.read(buffer)?;
        if self.held.asked().is_some() {
            return Err(std::io::Error::other("it was interrupted"));
        }
        self.progress.transferred(count as u64);
        Ok(count)
    }
}

/// How long fetching may take: compiling should not be faster. The times are
/// what the substituter says, so they count within bounds only.
fn worthwhile(entries: &[&Entry]) -> Duration {
    let seconds = entries
        .iter()
        .map(|entry| entry.output.seconds / f64::from(entry.output.jobs.max(1)));
    let seconds: f64 = seconds.sum();
    let seconds = if seconds.is_nan() { 0.0 } else { seconds };
    Duration::from_secs_f64(seconds.clamp(30.0, 3_600.0))
}

/// Whether an error says that the substituter as a whole is of no use now.
pub(super) fn is_dead(error: &SubstituteError) -> bool {
    let SubstituteError::Substituter(error) = error else {
        return false;
    };
    match error {
        SubstituterError::Read { source, .. } => source
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<SubstituterError>())
            .is_some_and(|inner| is_outage(inner) && !is_missing(inner)),
        SubstituterError::File(error) => error.is_full(),
        other => is_outage(other),
    }
}

/// A file that is not there is no outage.
fn is_missing(error: &SubstituterError) -> bool {
    matches!(error, SubstituterError::Status { status: 404, .. })
}
