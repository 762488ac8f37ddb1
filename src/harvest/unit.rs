//! One unit of a harvest: its name, and its place in store and target.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Found;
use super::collect::Collected;
use crate::bridge::Record;
use crate::cargo::fingerprint::Fingerprint;
use crate::fs::{self, Sharing, Stamp, Time};
use crate::output::{FORMAT, Naming, Output, Role};
use crate::plan::state::State;
use crate::plan::{Context, Plan, Planned};
use crate::store::{Added, FILE_TIME, Source, Store, StoreError};

/// Where a file of the output comes from.
pub(super) enum Origin {
    /// A file that the store shares.
    Shared(PathBuf),
    /// A file that the store copies.
    Private(PathBuf),
    /// A program that the store holds on to.
    Lent(PathBuf),
    Bytes(Vec<u8>),
}

impl Origin {
    /// The file in the target directory, if it is one.
    fn path(&self) -> Option<(&Path, Sharing)> {
        match self {
            Self::Shared(path) => Some((path, Sharing::Shared)),
            Self::Private(path) | Self::Lent(path) => Some((path, Sharing::Private)),
            Self::Bytes(_) => None,
        }
    }
}

/// How Cargo names a unit that it had compiled, up to the fingerprint. `None` if
/// the compiler was asked for something elsewhere.
pub(super) fn compile_naming(
    context: &Context,
    unit: &Planned,
    record: &Record,
    since: Time,
) -> Option<Naming> {
    let platform = unit.unit.platform.as_deref();
    let platform = platform.filter(|_| unit.kind != "build-script");
    let root = context.layout.root(platform);
    let unit_id = match &record.unit_id {
        Some(unit_id) => unit_id.clone(),
        None => noted_id(context, unit, since)?,
    };
    Some(Naming {
        format: FORMAT,
        key: unit.key,
        recipe: Some(unit.host_recipe),
        unit_id,
        extra_filename: record.extra_filename.clone(),
        out_dir: record.out_dir.strip_prefix(root).ok()?.to_owned(),
        stem: unit.stem.clone(),
        fingerprint: blank_fingerprint(),
        absolute_path: false,
        deps: Vec::new(),
    })
}

/// The id of a unit whose command line does not tell it: in the legacy layout
/// Cargo gives the `cdylib` of a path package no extra filename
/// (`CompilationFiles::use_extra_filename`). It is in the name of the one folder
/// of the package with a fingerprint of this target written since.
fn noted_id(context: &Context, unit: &Planned, since: Time) -> Option<String> {
    let platform = unit.unit.platform.as_deref();
    let folders = context.layout.fingerprints(platform, &unit.package.name);
    let ids = folders.into_iter().filter_map(|(id, folder)| {
        let written = Stamp::of(&folder.join(&unit.stem))?;
        (written.mtime >= since).then_some(id)
    });
    let ids: Vec<String> = ids.collect();
    match ids.as_slice() {
        [id] => Some(id.clone()),
        _ => None,
    }
}

/// A placeholder until the real one is proved.
pub(super) fn blank_fingerprint() -> Fingerprint {
    Fingerprint {
        rustc: 0,
        features: String::new(),
        declared_features: String::new(),
        target: 0,
        profile: 0,
        path: 0,
        deps: Vec::new(),
        local: Vec::new(),
        rustflags: Vec::new(),
        config: 0,
        compile_kind: 0,
    }
}

/// A build script's run has no command line of a compiler. Its id is in the
/// `OUT_DIR` that Cargo gave to what depends on it.
pub(super) fn run_naming(
    context: &Context,
    plan: &Plan,
    index: usize,
    records: &BTreeMap<usize, Record>,
) -> Option<Naming> {
    let unit = &plan.units[index];
    if unit.kind != "build-run" {
        return None;
    }
    let known = plan.resolution.namings[index]
        .as_ref()
        .map(|naming| naming.unit_id.clone());
    let from_dependants = || {
        records.iter().find_map(|(dependant, record)| {
            let same = plan.units[*dependant].unit.pkg_id == unit.unit.pkg_id
                && plan.units[*dependant].needs.contains(&index);
            let out_dir = record.build_script_out_dir.as_ref().filter(|_| same)?;
            context.layout.run_id(out_dir, &unit.package.name)
        })
    };
    let unit_id = known.or_else(from_dependants)?;
    Some(Naming {
        format: FORMAT,
        key: unit.key,
        recipe: Some(unit.host_recipe),
        extra_filename: format!("-{unit_id}"),
        unit_id,
        out_dir: PathBuf::new(),
        stem: unit.stem.clone(),
        fingerprint: blank_fingerprint(),
        absolute_path: false,
        deps: Vec::new(),
    })
}

/// Adds a collected unit. Returns the output that the target directory now
/// has, if it is in the store, and whether it is new there.
pub(super) fn add(
    context: &Context,
    plan: &Plan,
    store: &Store,
    found: &Found<'_>,
    collected: Collected,
    state: &mut State,
) -> Result<(Option<Output>, bool), StoreError> {
    let Collected { output, sources } = &collected;
    let borrowed: Vec<Source<'_>> = sources
        .iter()
        .map(|origin| match origin {
            Origin::Shared(path) => Source::Share(path),
            Origin::Private(path) => Source::Copy(path),
            Origin::Lent(path) => Source::Lend(path),
            Origin::Bytes(bytes) => Source::Bytes(bytes.clone()),
        })
        .collect();
    if output.timed {
        carry_time(sources)?;
    }
    let added = store.add(output, &borrowed)?;
    if added == Added::Existing {
        // The first output of an id wins. With other bytes it is of no use to
        // what is compiled against the ones here.
        let existing = store.output(&output.store_name());
        if !existing.is_some_and(|existing| collected.is_same(store, &existing)) {
            return Ok((None, false));
        }
    }
    let unit = &plan.units[found.index];
    let mut files: Vec<PathBuf> = Vec::new();
    let settled = settle(context, unit, found, output, sources, &mut files);
    if settled.is_ok() {
        files.push(found.paths.hash.clone());
        state.note(
            &context.layout.build_dir,
            &found.paths.name,
            output.id,
            &files,
        );
    }
    Ok((Some(collected.output), added == Added::New))
}

/// Gives the files that stay private the time of the newest. A library shares its
/// inode with the store and so loses its time, and an incremental compilation
/// leaves metadata that came out the same as it was, with its old time.
fn carry_time(sources: &[Origin]) -> fs::Result<()> {
    let paths = sources.iter().filter_map(Origin::path);
    let newest = paths
        .filter_map(|(path, _)| Stamp::of(path))
        .map(|stamp| stamp.mtime)
        .max();
    let private = sources.iter().filter_map(Origin::path);
    for (path, _) in private.filter(|(_, sharing)| *sharing == Sharing::Private) {
        fs::set_mtime(path, newest.unwrap_or(FILE_TIME))?;
    }
    Ok(())
}

/// Gives the files in the target directory the times that they would have if
/// they had been linked.
fn settle(
    context: &Context,
    unit: &Planned,
    found: &Found<'_>,
    output: &Output,
    sources: &[Origin],
    files: &mut Vec<PathBuf>,
) -> fs::Result<()> {
    if unit.kind == "build-run" {
        let platform = unit.unit.platform.as_deref();
        let run = context
            .layout
            .run_files(platform, &unit.package.name, &found.naming.unit_id);
        if !output.timed {
            for file in output.files_of(Role::OutDir) {
                fs::set_mtime(&run.out_dir.join(&file.1.name), FILE_TIME)?;
            }
            fs::set_mtime(&run.stdout, FILE_TIME)?;
        }
        files.push(run.stdout);
        return Ok(());
    }
    for origin in sources {
        if let Some((path, sharing)) = origin.path() {
            if sharing == Sharing::Private && !output.timed {
                fs::set_mtime(path, FILE_TIME)?;
            }
            files.push(path.to_owned());
        }
    }
    Ok(())
}
