//! Putting one unit into the target directory.

use std::path::{Path, PathBuf};

use super::content::{self, local_dep_info};
use super::{Job, Unnoted, file_name, is_looked_up, sharing};
use crate::bridge::remove_replay;
use crate::cargo::dep_info::{Base, CargoDepInfo};
use crate::cargo::fingerprint;
use crate::cargo::layout::RunFiles;
use crate::console::Progress;
use crate::fs::{self, Sharing, Stamp, Time};
use crate::output::{Output, Role};
use crate::plan::Context;
use crate::plan::inputs::Inspector;
use crate::plan::resolve::package_folder;
use crate::store::{FILE_TIME, Store};

/// Links units of one checkout.
pub struct Linker<'a> {
    /// The checkout and the command.
    pub context: &'a Context,
    /// Where outputs come from.
    pub store: &'a Store,
    /// What compared the inputs.
    pub inspector: &'a Inspector<'a>,
    /// The time of timed units' files; see [`time`](super::time).
    pub time: Time,
    /// What to do with units that are in place unknown to the state.
    pub unnoted: Unnoted,
    /// Told of each unit that is linked.
    pub progress: &'a dyn Progress,
}

impl Linker<'_> {
    /// Puts one unit into the target directory. Returns the files that tell
    /// whether it is still there.
    pub(super) fn place(&self, job: &Job<'_>) -> fs::Result<Vec<PathBuf>> {
        fs::create_dir_all(&job.paths.fingerprint_dir)?;
        if job.paths.hash.exists() {
            fs::truncate(&job.paths.hash)?;
        }
        let mut files = if job.unit.kind == "build-run" {
            self.place_run(job)?
        } else {
            self.place_compiled(job)?
        };
        self.place_fingerprint(job)?;
        files.push(job.paths.hash.clone());
        Ok(files)
    }

    fn place_compiled(&self, job: &Job<'_>) -> fs::Result<Vec<PathBuf>> {
        fs::create_dir_all(&job.paths.out_dir)?;
        if job.unit.kind == "build-script" {
            remove_replay(&job.paths.out_dir)?;
        }
        let mut placed = Vec::new();
        let emits = content::emits(job.unit, job.output);
        for (index, file) in job.output.files.iter().enumerate() {
            if !emits.contains(&file.role) {
                continue;
            }
            let to = job
                .paths
                .out_dir
                .join(file_name(&file.name, &job.naming.extra_filename));
            self.place_file(job, index, &to)?;
            placed.push(to);
            if job.naming.extra_filename != job.output.extra_filename && is_looked_up(file.role) {
                // Compiled code names its own file by the id it was made with.
                let original = file_name(&file.name, &job.output.extra_filename);
                let original = job.paths.out_dir.join(original);
                if Stamp::of(&original).is_none() {
                    self.place_file(job, index, &original)?;
                }
            }
        }
        if content::needs_empty_metadata(job.unit, job.output) {
            let to = job.empty_metadata();
            fs::remove_file(&to)?;
            fs::write_at(&to, b"", self.file_time(job.output))?;
            placed.push(to);
        }
        Ok(placed)
    }

    fn file_time(&self, output: &Output) -> Time {
        if output.timed { self.time } else { FILE_TIME }
    }

    fn place_file(&self, job: &Job<'_>, index: usize, to: &Path) -> fs::Result<()> {
        let Job { unit, output, .. } = job;
        match sharing(unit, output, output.files[index].role) {
            Sharing::Private => {
                let time = self.file_time(output);
                self.store.copy_out(output, index, to, time)
            }
            Sharing::Shared => {
                let from = self.store.file(output, index);
                fs::place_at(&from, to, Sharing::Shared, self.file_time(output)).map(drop)
            }
        }
    }

    fn place_run(&self, job: &Job<'_>) -> fs::Result<Vec<PathBuf>> {
        let files = self.run_files(job);
        fs::remove_dir_all(&files.out_dir)?;
        fs::create_dir_all(&files.out_dir)?;
        if let Some(folder) = files.stdout.parent() {
            fs::create_dir_all(folder)?;
        }
        let time = self.file_time(job.output);
        let mut made: Option<PathBuf> = None;
        for (index, file) in job.output.files.iter().enumerate() {
            let from = self.store.file(job.output, index);
            let to = match file.role {
                Role::OutDir => files.out_dir.join(&file.name),
                Role::Stdout => files.stdout.clone(),
                Role::Stderr => files.stderr.clone(),
                _ => continue,
            };
            let folder = to.parent().filter(|folder| made.as_deref() != Some(folder));
            if let Some(folder) = folder {
                fs::create_dir_all(folder)?;
                made = Some(folder.to_owned());
            }
            let time = match file.role {
                Role::OutDir => FILE_TIME,
                _ => time,
            };
            if file.portable {
                fs::write_at(&to, &self.local_text(&files, &from)?, time)?;
                fs::set_mode(&to, file.mode)?;
            } else {
                fs::place_at(&from, &to, Sharing::Private, time)?;
            }
        }
        fs::write(
            &files.root_output,
            files.out_dir.as_os_str().as_encoded_bytes(),
        )?;
        Ok(vec![files.stdout])
    }

    pub(super) fn run_files(&self, job: &Job<'_>) -> RunFiles {
        let platform = job.unit.unit.platform.as_deref();
        let layout = &self.context.layout;
        layout.run_files(platform, &job.unit.package.name, &job.naming.unit_id)
    }

    /// A stored text with this checkout's folders.
    pub(super) fn local_text(&self, files: &RunFiles, from: &Path) -> fs::Result<Vec<u8>> {
        let bytes = fs::read(from)?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.replace("@out-dir@", &files.out_dir.to_string_lossy());
        Ok(self.context.roots.local(&text).into_bytes())
    }

    fn place_fingerprint(&self, job: &Job<'_>) -> fs::Result<()> {
        let paths = &job.paths;
        let info = local_dep_info(self.context, job.unit, job.output, job.out_dir.as_deref());
        let time = self.reference_time(job, info.as_ref());
        if let Some(info) = info {
            fs::write_at(&paths.dep_info, &info.to_bytes(), time)?;
        }
        match content::diagnostics(self.store, job.unit, job.output)? {
            Some(text) => fs::write(&paths.diagnostics, &text)?,
            None => fs::remove_file(&paths.diagnostics)?,
        }
        fs::write(&paths.json, &job.fingerprint.to_json())?;
        let hex = fingerprint::to_hex(job.fingerprint.hash());
        fs::write(&paths.hash, hex.as_bytes())
    }

    /// The time that sources must not exceed: that of the newest input as it
    /// was compared, so that any later change is newer.
    fn reference_time(&self, job: &Job<'_>, info: Option<&CargoDepInfo>) -> Time {
        if !job.output.timed {
            return FILE_TIME;
        }
        let newest = self
            .inspector
            .newest_of(&job.output.inputs, package_folder(job.unit));
        newest
            .max(FILE_TIME)
            .min(self.time)
            .max(self.newest_generated(info))
    }

    /// The time of the newest file in `OUT_DIR` that the unit reads: a build
    /// script's run that stays where it is keeps the times of its files.
    fn newest_generated(&self, info: Option<&CargoDepInfo>) -> Time {
        let files = info.iter().flat_map(|info| &info.files);
        let build_dir = &self.context.layout.build_dir;
        let generated = files.filter(|(base, _)| *base == Base::BuildDir);
        let times = generated
            .map(|(_, path)| build_dir.join(path))
            .filter(|path| path.starts_with(build_dir))
            .filter_map(|path| Stamp::of(&path))
            .map(|stamp| stamp.mtime);
        times.max().unwrap_or_default()
    }

    /// A build script's output has the time of linking, so an edit between the
    /// comparison and now would go unnoticed: such units are withdrawn.
    pub(super) fn recheck(&self, pending: &[Job<'_>]) {
        for job in pending
            .iter()
            .filter(|job| job.unit.kind == "build-run" && job.output.timed)
        {
            let newest = self
                .inspector
                .newest_of(&job.output.inputs, package_folder(job.unit));
            if newest > self.inspector.newest() {
                let _ = fs::truncate(&job.paths.hash);
            }
        }
    }
}
