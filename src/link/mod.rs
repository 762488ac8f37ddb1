//! From the store into `target/`, so that Cargo finds units Fresh.
//!
//! A unit is linked in an order that a kill at any point cannot turn into a
//! wrong answer: its fingerprint is withdrawn, its big files are placed, then
//! the small ones, and the fingerprint is written last. All that Cargo compares
//! times of gets one time: [`FILE_TIME`](crate::store::FILE_TIME) for what never changes, the time of
//! linking for what depends on a checkout ("timed" units). The latter makes
//! whatever was compiled against a replaced file older than it, and so stale.

mod adopt;
mod content;
mod paths;
mod place;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

pub use content::{expected_fingerprint, local_dep_info, local_rustc_dep_info, without_clippy};
pub use paths::{UnitPaths, file_name};
pub use place::Linker;

use crate::cargo::fingerprint::{self, Fingerprint};
use crate::cargo::layout::Layout;
use crate::digest::UnitKey;
use crate::fs::{self, FsError, Lock, Sharing, Stamp, Time};
use crate::output::{Naming, Output, Role};
use crate::plan::inputs::Inspector;
use crate::plan::resolve::package_folder;
use crate::plan::state::State;
use crate::plan::{Context, Plan};

/// What linking did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Linked {
    /// Units that were put into the target directory.
    pub placed: usize,
    /// Units that were there already.
    pub in_place: usize,
}

/// What to do with a unit that is in place although the state does not say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnoted {
    /// Leave it, if all of it is what linking would put there: the state was
    /// lost, or another quickbuild is writing it.
    Adopt,
    /// Link it: it was served in this run, and has the times of the run.
    Replace,
}

/// Cargo's locks on the build directory, as long as we write there.
#[derive(Debug)]
pub struct TargetLock {
    _locks: Vec<Lock>,
}

impl TargetLock {
    /// Takes the locks of the host's folder and of all platforms'. `waiting` is
    /// called once if another process holds one.
    pub fn take(
        layout: &Layout,
        target_dir: &Path,
        platforms: &[Option<String>],
        mut waiting: impl FnMut(),
    ) -> fs::Result<Self> {
        prepare_build_dir(&layout.build_dir)?;
        let mut roots: Vec<PathBuf> = platforms
            .iter()
            .map(|p| layout.root(p.as_deref()))
            .collect();
        roots.push(layout.root(None));
        if target_dir != layout.build_dir {
            let artefacts = Layout {
                build_dir: target_dir.to_owned(),
                ..layout.clone()
            };
            roots.extend(platforms.iter().map(|p| artefacts.root(p.as_deref())));
            roots.push(artefacts.root(None));
        }
        roots.sort();
        roots.dedup();
        let mut locks = Vec::new();
        for root in roots {
            fs::create_dir_all(&root)?;
            let file = Layout::lock_file(&root);
            locks.push(match Lock::try_exclusive(&file)? {
                Some(lock) => lock,
                None => {
                    waiting();
                    Lock::exclusive(&file)?
                }
            });
        }
        Ok(Self { _locks: locks })
    }
}

/// Makes the build directory as Cargo does: marked as a cache, so that backups
/// leave it out (`paths::create_dir_all_excluded_from_backups_atomic`).
fn prepare_build_dir(build_dir: &Path) -> fs::Result<()> {
    if build_dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(build_dir)?;
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n\
        # This file is a cache directory tag; see https://bford.info/cachedir/\n";
    fs::write(&build_dir.join("CACHEDIR.TAG"), tag.as_bytes())
}

impl Linker<'_> {
    /// Links all units that can be linked and are not in place.
    ///
    /// The caller holds the [`TargetLock`] and saves the state. A unit that
    /// cannot be linked, because a file is gone or the disk is full, is left to
    /// Cargo with all that depends on it; the first such error is returned
    /// beside the count.
    pub fn link(&self, plan: &Plan, state: &mut State) -> (Linked, Option<FsError>) {
        let context = self.context;
        let linkable = plan.linkable();
        let fingerprints = fingerprints(context, plan, &linkable);
        let mut jobs = jobs(context, plan, state, &fingerprints);
        if self.unnoted == Unnoted::Adopt {
            adopt::adopt(self, plan, &mut jobs, state);
        }
        refresh_timed(&mut jobs, plan, self.inspector, state, self.time);

        let (in_place, mut pending): (Vec<Job<'_>>, Vec<Job<'_>>) =
            jobs.into_iter().partition(|job| job.in_place);
        // A program may take as long to copy as all else to link: it goes first.
        pending.sort_by_cached_key(|job| std::cmp::Reverse(job.copied_bytes()));
        let mut linked = Linked {
            placed: 0,
            in_place: in_place.len(),
        };
        self.progress.begin(pending.len());
        let mut results: Vec<(usize, fs::Result<Vec<PathBuf>>)> = pending
            .par_iter()
            .with_max_len(1)
            .map(|job| {
                let placed = self.place(job);
                self.progress.advance();
                (job.index, placed)
            })
            .collect();
        results.sort_by_key(|(index, _)| *index);

        let mut error = None;
        let mut failed = vec![false; plan.units.len()];
        let by_index: HashMap<usize, &Job<'_>> =
            pending.iter().map(|job| (job.index, job)).collect();
        for (index, result) in results {
            let job = by_index[&index];
            match result {
                Ok(files) => {
                    linked.placed += 1;
                    state.note(&context.layout.build_dir, &job.name, job.output.id, &files);
                    self.store.touch(&job.output.store_name(), job.unit.key);
                }
                Err(cause) => {
                    failed[index] = true;
                    error.get_or_insert(cause);
                }
            }
        }
        linked.placed -= withdraw(context, plan, &fingerprints, &by_index, &mut failed, state);
        self.recheck(&pending);
        (linked, error)
    }
}

/// Withdraws the fingerprints of units whose dependencies failed or were
/// replaced without them. Returns how many of those had been placed.
fn withdraw(
    context: &Context,
    plan: &Plan,
    fingerprints: &[Option<Fingerprint>],
    placed: &HashMap<usize, &Job<'_>>,
    failed: &mut [bool],
    state: &mut State,
) -> usize {
    let mut withdrawn = 0;
    for &index in &plan.order {
        let needs = &plan.units[index].needs;
        let was_placed = placed.contains_key(&index) && !failed[index];
        let broken = needs.iter().any(|&need| failed[need]);
        let replaced = needs
            .iter()
            .any(|need| placed.get(need).is_some_and(|job| job.replaces));
        let outdated = fingerprints[index].is_none() && replaced;
        if !(failed[index] || broken || outdated) {
            continue;
        }
        failed[index] |= broken;
        let Some(naming) = &plan.resolution.namings[index] else {
            continue;
        };
        let paths = UnitPaths::new(&context.layout, &plan.units[index], naming);
        if paths.hash.is_file() {
            // If even this fails, the time or hash of the dependency makes the
            // unit stale in Cargo's eyes.
            let _ = fs::truncate(&paths.hash);
        }
        state.units.remove(&paths.name);
        if broken && was_placed {
            withdrawn += 1;
        }
    }
    withdrawn
}

/// One unit to be linked.
struct Job<'a> {
    index: usize,
    unit: &'a crate::plan::Planned,
    output: &'a Output,
    naming: &'a Naming,
    fingerprint: &'a Fingerprint,
    paths: UnitPaths,
    /// Its fingerprint's path in the build directory, for the state.
    name: String,
    /// `OUT_DIR` of its package's build script here.
    out_dir: Option<PathBuf>,
    /// For a build script's run, what it printed.
    run_stdout: Option<PathBuf>,
    /// Whether the fingerprint that stands here is the one wanted.
    is_expected: bool,
    in_place: bool,
    /// Whether another version stands in its place now.
    replaces: bool,
}

/// The fingerprints that Cargo will compute here, dependencies first.
fn fingerprints(context: &Context, plan: &Plan, linkable: &[bool]) -> Vec<Option<Fingerprint>> {
    let mut hashes: HashMap<UnitKey, u64> = HashMap::new();
    let mut fingerprints: Vec<Option<Fingerprint>> = vec![None; plan.units.len()];
    for &index in &plan.order {
        let (Some(output), Some(naming)) = (
            plan.resolution.output(index),
            &plan.resolution.namings[index],
        ) else {
            continue;
        };
        if !linkable[index] {
            continue;
        }
        let unit = &plan.units[index];
        let fingerprint = expected_fingerprint(context, unit, output, naming, &|key| {
            hashes.get(key).copied()
        });
        if let Some(fingerprint) = &fingerprint {
            hashes.insert(unit.key, fingerprint.hash());
        }
        fingerprints[index] = fingerprint;
    }
    fingerprints
}

fn jobs<'a>(
    context: &'a Context,
    plan: &'a Plan,
    state: &State,
    fingerprints: &'a [Option<Fingerprint>],
) -> Vec<Job<'a>> {
    let build_dir = &context.layout.build_dir;
    let mut jobs: Vec<Job<'a>> = Vec::new();
    for &index in &plan.order {
        let (Some(fingerprint), Some(output), Some(naming)) = (
            &fingerprints[index],
            plan.resolution.output(index),
            &plan.resolution.namings[index],
        ) else {
            continue;
        };
        let unit = &plan.units[index];
        let paths = UnitPaths::new(&context.layout, unit, naming);
        let name = paths.name.clone();
        let hash = fs::read_optional(&paths.hash).ok().flatten();
        let current = hash.as_deref().and_then(fingerprint::from_hex);
        let is_expected = current == Some(fingerprint.hash());
        let in_place = is_expected && state.is_in_place(build_dir, &name, output.id);
        jobs.push(Job {
            index,
            unit,
            output,
            naming,
            fingerprint,
            name,
            out_dir: out_dir(context, plan, index),
            run_stdout: (unit.kind == "build-run").then(|| {
                let platform = unit.unit.platform.as_deref();
                let layout = &context.layout;
                layout
                    .run_files(platform, &unit.package.name, &naming.unit_id)
                    .stdout
            }),
            is_expected,
            in_place,
            replaces: current.is_some() && !in_place,
            paths,
        });
    }
    jobs
}

/// The `OUT_DIR` that a unit sees.
pub fn out_dir(context: &Context, plan: &Plan, index: usize) -> Option<PathBuf> {
    let unit = &plan.units[index];
    let run = if unit.kind == "build-run" {
        index
    } else {
        let is_own_run = |&&need: &&usize| {
            plan.units[need].kind == "build-run" && plan.units[need].unit.pkg_id == unit.unit.pkg_id
        };
        *unit.needs.iter().find(is_own_run)?
    };
    let naming = plan.resolution.namings[run].as_ref()?;
    let run = &plan.units[run];
    let files = context.layout.run_files(
        run.unit.platform.as_deref(),
        &run.package.name,
        &naming.unit_id,
    );
    Some(files.out_dir)
}

/// Timed units that are in place have to be linked again all the same if their
/// sources were touched, or if something they depend on gets a newer time.
fn refresh_timed(
    jobs: &mut [Job<'_>],
    plan: &Plan,
    inspector: &Inspector<'_>,
    state: &State,
    time: Time,
) {
    let mut placed: BTreeSet<usize> = BTreeSet::new();
    for job in jobs.iter_mut().filter(|job| job.output.timed) {
        if job.in_place {
            let files = state.units.get(&job.name).map(|unit| unit.files.as_slice());
            let times = files
                .unwrap_or_default()
                .iter()
                .map(|(_, stamp)| stamp.mtime);
            let outdated = times.max().unwrap_or_default() < time
                && plan.units[job.index]
                    .needs
                    .iter()
                    .any(|need| placed.contains(need));
            job.in_place = !outdated && !job.is_touched(inspector);
        }
        if !job.in_place {
            placed.insert(job.index);
        }
    }
}

impl Job<'_> {
    /// Where a check unit whose output has no metadata wants an empty file.
    fn empty_metadata(&self) -> PathBuf {
        let name = self.unit.unit.crate_name();
        let extra = &self.naming.extra_filename;
        self.paths.out_dir.join(format!("lib{name}{extra}.rmeta"))
    }

    /// Bytes that are copied where files cannot share blocks.
    fn copied_bytes(&self) -> u64 {
        let files = self.output.files.iter();
        let copied = files.filter(|file| {
            self.unit.kind == "build-run"
                || sharing(self.unit, self.output, file.role) == Sharing::Private
        });
        copied.map(|file| file.size).sum()
    }

    /// Whether a source is newer than what Cargo compares it with.
    fn is_touched(&self, inspector: &Inspector<'_>) -> bool {
        let reference = match &self.run_stdout {
            Some(stdout) => stdout,
            None => &self.paths.dep_info,
        };
        let newest = inspector.newest_of(&self.output.inputs, package_folder(self.unit));
        Stamp::of(reference).is_none_or(|stamp| stamp.mtime < newest)
    }
}

/// The time that timed units get in this run. All that is linked in one run has
/// one time, so that what Cargo compiles in between is newer; it is newer than
/// anything linked before, whatever the clock says. Sources from the future
/// stay newer still: Cargo compiles them each time, and so it shall.
pub fn time(state: &State) -> Time {
    fs::now().max(Time(state.high_water.0 + 1))
}

/// Files that the compiler finds by the name compiled into other files.
fn is_looked_up(role: Role) -> bool {
    matches!(role, Role::Metadata | Role::Library | Role::Native)
}

/// Which files may share an inode with the store.
pub fn sharing(unit: &crate::plan::Planned, output: &Output, role: Role) -> Sharing {
    let immutable = match role {
        Role::Library => true,
        Role::Metadata => !output.timed,
        Role::Native => unit.kind == "proc-macro" && !output.timed,
        Role::Executable => unit.kind == "build-script" && !output.timed,
        _ => false,
    };
    if immutable {
        Sharing::Shared
    } else {
        Sharing::Private
    }
}
