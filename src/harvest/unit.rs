//! One unit of a harvest: its name, and its place in store and target.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::collect::Collected;
use super::{Found, same_content};
use crate::bridge::Record;
use crate::cargo::fingerprint::Fingerprint;
use crate::fs::{self, Sharing, Stamp};
use crate::output::{FORMAT, Naming, Output, Role};
use crate::plan::state::State;
use crate::plan::{Context, Plan, Planned};
use crate::store::{Added, FILE_TIME, Source, Store, StoreError};

/// Where a file of the output comes from.
pub(super) enum Origin {
    Path(PathBuf, Sharing),
    Bytes(Vec<u8>),
}

/// `--out-dir` relative to the folder that a naming assumes.
pub(super) fn relative_out_dir(
    context: &Context,
    unit: &Planned,
    out_dir: &Path,
) -> Option<PathBuf> {
    let platform = unit
        .unit
        .platform
        .as_deref()
        .filter(|_| unit.kind != "build-script");
    out_dir
        .strip_prefix(context.layout.root(platform))
        .ok()
        .map(Path::to_owned)
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
    let Collected { output, sources } = collected;
    let borrowed: Vec<Source<'_>> = sources
        .iter()
        .map(|origin| match origin {
            Origin::Path(path, Sharing::Shared) => Source::Share(path),
            Origin::Path(path, Sharing::Private) => Source::Copy(path),
            Origin::Bytes(bytes) => Source::Bytes(bytes.clone()),
        })
        .collect();
    if output.timed {
        carry_time(&sources)?;
    }
    let added = store.add(&output, &borrowed)?;
    if added == Added::Existing {
        // The first output of an id wins. With other bytes it is of no use to
        // what is compiled against the ones here.
        let existing = store.output(&output.store_name());
        if !existing.is_some_and(|existing| same_content(&existing, &output)) {
            return Ok((None, false));
        }
    }
    let unit = &plan.units[found.index];
    let mut files: Vec<PathBuf> = Vec::new();
    let settled = settle(context, unit, found, &output, &sources, &mut files);
    if settled.is_ok() {
        files.push(found.paths.hash.clone());
        state.note(
            &context.layout.build_dir,
            &found.paths.name,
            output.id,
            &files,
        );
    }
    Ok((Some(output), added == Added::New))
}

/// Gives the files that stay private the time of the newest. A library shares its
/// inode with the store and so loses its time, and an incremental compilation
/// leaves metadata that came out the same as it was, with its old time.
fn carry_time(sources: &[Origin]) -> fs::Result<()> {
    let paths = |wanted: Option<Sharing>| {
        sources.iter().filter_map(move |origin| match origin {
            Origin::Path(path, sharing) if wanted.is_none_or(|w| w == *sharing) => Some(path),
            _ => None,
        })
    };
    let newest = paths(None)
        .filter_map(|path| Stamp::of(path))
        .map(|stamp| stamp.mtime)
        .max();
    for path in paths(Some(Sharing::Private)) {
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
        if let Origin::Path(path, sharing) = origin {
            if *sharing == Sharing::Private && !output.timed {
                fs::set_mtime(path, FILE_TIME)?;
            }
            files.push(path.clone());
        }
    }
    Ok(())
}
