//! Units that are in place although the state does not say so: it was lost, or
//! another quickbuild wrote it at the same time.
//!
//! Linking a timed unit anew gives it a newer time, and what another command
//! compiled against it would be stale. So where everything is byte for byte
//! what linking would put there, it stays as it is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Job, Linker, content, file_name, is_looked_up};
use crate::cargo::dep_info::CargoDepInfo;
use crate::fs::{self, Stamp, Time};
use crate::output::Role;
use crate::plan::Plan;
use crate::plan::state::State;
use crate::store::is_untouched;

/// Notes the timed units that are in place unknown to the state.
pub(super) fn adopt(linker: &Linker<'_>, plan: &Plan, jobs: &mut [Job<'_>], state: &mut State) {
    let mut adoptable: HashMap<usize, Vec<PathBuf>> = jobs
        .par_iter()
        .filter(|job| job.output.timed && !job.in_place && job.is_expected)
        .filter_map(|job| Some((job.index, linker.files_in_place(job)?)))
        .collect();
    if adoptable.is_empty() {
        return;
    }
    let build_dir = &linker.context.layout.build_dir;
    // The newest time among the files of each unit, as Cargo compares it with
    // that of what depends on the unit.
    let mut times: HashMap<usize, Time> = HashMap::new();
    for job in jobs.iter_mut().filter(|job| job.output.timed) {
        let noted = || {
            let unit = state.units.get(&job.name).filter(|_| job.in_place)?;
            let files = unit.files.iter().map(|(file, _)| build_dir.join(file));
            Some(files.filter(|file| *file != job.paths.hash).collect())
        };
        let Some(mut files) = adoptable.remove(&job.index).or_else(noted) else {
            continue;
        };
        let stamps = files.iter().filter_map(|file| Stamp::of(file));
        let time = stamps.map(|stamp| stamp.mtime).max().unwrap_or_default();
        let needs = &plan.units[job.index].needs;
        // Not newer than what is linked now, which may depend on it.
        let in_order = time <= linker.time
            && needs
                .iter()
                .all(|need| times.get(need).is_none_or(|&needed| needed <= time));
        if !job.in_place && in_order {
            files.push(job.paths.hash.clone());
            state.note(build_dir, &job.name, job.output.id, &files);
            job.in_place = true;
        }
        times.insert(job.index, time);
    }
}

impl Linker<'_> {
    /// The files that tell whether a unit is still there, if all of it is what
    /// [`place`](Self::place) would write, times aside.
    fn files_in_place(&self, job: &Job<'_>) -> Option<Vec<PathBuf>> {
        let files = if job.unit.kind == "build-run" {
            self.run_in_place(job)?
        } else {
            self.compiled_in_place(job)?
        };
        let messages = content::diagnostics(self.store, job.unit, job.output).ok()?;
        let here = fs::read_optional(&job.paths.diagnostics).ok()?;
        if messages.unwrap_or_default() != here.unwrap_or_default() {
            return None;
        }
        let expected =
            super::local_dep_info(self.context, job.unit, job.output, job.out_dir.as_deref());
        let same = match expected {
            Some(expected) => {
                let here = CargoDepInfo::parse(&fs::read(&job.paths.dep_info).ok()?)?;
                sorted(here) == sorted(expected)
            }
            None => true,
        };
        same.then_some(files)
    }

    fn compiled_in_place(&self, job: &Job<'_>) -> Option<Vec<PathBuf>> {
        let emits = content::emits(job.unit, job.output);
        let mut files = Vec::new();
        for (index, file) in job.output.files.iter().enumerate() {
            if !emits.contains(&file.role) {
                continue;
            }
            let path = |extra: &str| job.paths.out_dir.join(file_name(&file.name, extra));
            let here = path(&job.naming.extra_filename);
            if is_looked_up(file.role) && Stamp::of(&path(&job.output.extra_filename)).is_none() {
                return None;
            }
            if !self.is_same(job, index, &here) {
                return None;
            }
            files.push(here);
        }
        if content::needs_empty_metadata(job.unit, job.output) {
            let here = job.empty_metadata();
            Stamp::of(&here).filter(|stamp| stamp.size == 0)?;
            files.push(here);
        }
        Some(files)
    }

    fn run_in_place(&self, job: &Job<'_>) -> Option<Vec<PathBuf>> {
        let places = self.run_files(job);
        let mut expected = 0;
        for (index, file) in job.output.files.iter().enumerate() {
            let here = match file.role {
                Role::OutDir => places.out_dir.join(&file.name),
                Role::Stdout => places.stdout.clone(),
                Role::Stderr => places.stderr.clone(),
                _ => continue,
            };
            expected += usize::from(file.role == Role::OutDir);
            let same = if file.portable {
                let text = self.local_text(&places, &self.store.file(job.output, index));
                fs::read(&here).ok() == text.ok()
                    && (file.role != Role::OutDir || fs::mode(&here).ok() == Some(file.mode))
            } else {
                self.is_same(job, index, &here)
            };
            if !same {
                return None;
            }
        }
        let is_complete = fs::walk(&places.out_dir).ok()?.len() == expected;
        let is_here =
            fs::read(&places.root_output).ok()? == places.out_dir.as_os_str().as_encoded_bytes();
        (is_complete && is_here).then(|| vec![places.stdout])
    }

    /// Whether a file has the content of one of the output's files.
    fn is_same(&self, job: &Job<'_>, index: usize, here: &Path) -> bool {
        let file = &job.output.files[index];
        let stored = Stamp::of(&self.store.file(job.output, index));
        match Stamp::of(here) {
            // The same inode; a lent one may have been written to.
            Some(stamp) if Some(stamp) == stored => is_untouched(file, &stamp),
            Some(stamp) => {
                stamp.size == file.size
                    && fs::hash_file(here).is_ok_and(|digest| Some(digest) == file.sha256)
            }
            None => false,
        }
    }
}

/// Cargo and we list the files in different orders.
fn sorted(mut info: CargoDepInfo) -> CargoDepInfo {
    info.files.sort();
    info.env.sort();
    info
}
