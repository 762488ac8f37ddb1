//! Finds what is damaged in a store, and sets it right or takes it out.
//!
//! [`verify`] only reads, beside whoever uses the store. [`repair`] has the
//! store to itself and trusts no finding: it looks at each named path again,
//! content included, before it changes anything. It takes out rather than
//! mends, since Cargo compiles what is missing; only a wrong time or mode
//! around proven content is set right, and malformed
//! signatures or provenance are taken away from it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;

use super::{FILE_TIME, Result, Store, attached, collect, is_its_time, is_store_name};
use crate::digest::OutputId;
use crate::fs::{self, Stamp};
use crate::output::{FORMAT, File, Output, output_id};

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Manifests, and what `stat` tells about the files.
    Stamps,
    /// The SHA-256 of every file as well.
    Content,
}

/// Something that is wrong with a store path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path's name.
    pub store_name: String,
    /// What is wrong.
    pub kind: Kind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.store_name, self.kind)
    }
}

/// What can be wrong with a store path; `file` is a place such as `files/0`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Kind {
    /// It is not an output, or was removed in part.
    #[error("it has no manifest")]
    NoManifest,
    /// Its manifest is out of reach or not what this version writes.
    #[error("its manifest cannot be read: {reason}")]
    Manifest { reason: String },
    /// Another version of quickbuild wrote it; [`repair`] leaves it alone.
    #[error("its manifest has format {found}, this quickbuild knows {FORMAT}")]
    Format { found: u32 },
    /// The folder has another name than the manifest gives it.
    #[error("its manifest is that of `{found}`")]
    Name { found: String },
    /// The id does not follow from what the manifest says.
    #[error("its unit, inputs, references and maker make the id `{computed}`")]
    Id { computed: OutputId },
    /// A file of the manifest is not there.
    #[error("`{file}` is missing, or no regular file")]
    Missing { file: String },
    /// A file has been cut off or extended.
    #[error("`{file}` has {found} bytes instead of {expected}")]
    Size {
        file: String,
        expected: u64,
        found: u64,
    },
    /// A file has been written to, or at least touched.
    #[error("`{file}` has another time than the store's files have")]
    Time { file: String },
    /// A file's permission bits have been changed.
    #[error("`{file}` has mode {found:o} instead of {expected:o}")]
    Mode {
        file: String,
        expected: u32,
        found: u32,
    },
    /// A file cannot be read.
    #[error("`{file}` cannot be read: {reason}")]
    Unreadable { file: String, reason: String },
    /// A file's bytes have been changed.
    #[error("`{file}` has another SHA-256 than its manifest says")]
    Content { file: String },
    /// What is said of it beside the manifest is not what this version writes;
    /// [`repair`] takes that away, and nothing else.
    #[error("its `{file}` is malformed: {reason}")]
    Attached { file: &'static str, reason: String },
    /// It is useless without another output.
    #[error("it refers to `{id}`, which is missing")]
    Reference { id: OutputId },
}

impl Kind {
    /// Whether nothing is wrong with the content.
    pub(super) fn is_mendable(&self) -> bool {
        matches!(
            self,
            Self::Time { .. } | Self::Mode { .. } | Self::Attached { .. }
        )
    }
}

/// What [`repair`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Store names of what was taken out.
    pub discarded: Vec<String>,
    /// Store names of outputs whose times or modes were set right.
    pub mended: Vec<String>,
}

/// Looks for damage in all paths of a store, sorted by store name.
///
/// Damage is no error; an error is a store that cannot be opened or listed.
pub fn verify(root: &Path, depth: Depth) -> Result<Vec<Problem>> {
    let store = Store::open(root)?;
    let names = store.names()?;
    let inspected: Vec<Inspection> = names
        .par_iter()
        .map(|name| inspect(&store, name, depth))
        .collect();
    // Listed again, since what came in meanwhile may refer to what came in
    // meanwhile; dependencies are added first.
    let present = present(&store)?;
    let mut problems = Vec::new();
    for (store_name, inspection) in names.into_iter().zip(inspected) {
        let missing = inspection
            .references
            .into_iter()
            .filter(|id| !present.contains(id));
        let missing = missing.map(|id| Kind::Reference { id });
        problems.extend(
            inspection
                .kinds
                .into_iter()
                .chain(missing)
                .map(|kind| Problem {
                    store_name: store_name.clone(),
                    kind,
                }),
        );
    }
    Ok(problems)
}

/// Takes out what is damaged among the paths that `problems` name, then
/// whatever refers to something missing, again and again.
///
/// Fails with [`Busy`](super::StoreError::Busy) while anybody has the store
/// open, the caller included.
pub fn repair(root: &Path, problems: &[Problem]) -> Result<RepairReport> {
    let mut report = RepairReport::default();
    let Some(store) = collect::open_alone(root)? else {
        return Ok(report);
    };
    let names: BTreeSet<&str> = problems.iter().map(|p| p.store_name.as_str()).collect();
    let names: Vec<&str> = names
        .into_iter()
        .filter(|name| is_store_name(name))
        .collect();
    let inspected: Vec<Inspection> = names
        .par_iter()
        .map(|name| inspect(&store, name, Depth::Content))
        .collect();
    for (name, Inspection { kinds, .. }) in names.into_iter().zip(inspected) {
        if kinds.iter().any(|kind| matches!(kind, Kind::Format { .. })) {
            continue;
        } else if !kinds.iter().all(Kind::is_mendable) {
            if discard(&store, name)? {
                report.discarded.push(name.to_owned());
            }
        } else if !kinds.is_empty() {
            mend(&store, name, &kinds)?;
            report.mended.push(name.to_owned());
        }
    }
    discard_incomplete(&store, &mut report.discarded)?;
    Ok(report)
}

/// A path as it was found.
#[derive(Default)]
pub(super) struct Inspection {
    /// What its manifest refers to, if it can be read.
    references: Vec<OutputId>,
    /// What is wrong with it, missing references apart.
    pub(super) kinds: Vec<Kind>,
}

/// Looks at one path.
pub(super) fn inspect(store: &Store, store_name: &str, depth: Depth) -> Inspection {
    let output = match read(store, store_name) {
        Ok(output) => output,
        Err(kind) => {
            return Inspection {
                kinds: vec![kind],
                ..Inspection::default()
            };
        }
    };
    let mut kinds = Vec::new();
    let found = output.store_name();
    if found != store_name {
        kinds.push(Kind::Name { found });
    }
    let computed = output_id(
        output.key,
        &output.inputs,
        &output.references,
        &output.builder,
    );
    if computed != output.id {
        kinds.push(Kind::Id { computed });
    }
    let folder = store.path(store_name);
    for (index, file) in output.files.iter().enumerate() {
        kinds.extend(inspect_file(&folder, file.store_name(index), file, depth));
    }
    let malformed = attached::malformed(store, &output).into_iter();
    kinds.extend(malformed.map(|(file, reason)| Kind::Attached { file, reason }));
    Inspection {
        references: output.references,
        kinds,
    }
}

fn read(store: &Store, store_name: &str) -> std::result::Result<Output, Kind> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    let bytes = match fs::read_optional(&store.path(store_name).join("manifest.json")) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(Kind::NoManifest),
        Err(error) => {
            return Err(Kind::Manifest {
                reason: reason(&error),
            });
        }
    };
    // The format by itself first: other formats may have other fields.
    match serde_json::from_slice(&bytes) {
        Ok(Versioned { format }) if format != FORMAT => Err(Kind::Format { found: format }),
        _ => serde_json::from_slice(&bytes).map_err(|error| Kind::Manifest {
            reason: error.to_string(),
        }),
    }
}

fn inspect_file(folder: &Path, place: String, file: &File, depth: Depth) -> Vec<Kind> {
    let path = folder.join(&place);
    let stamp = Stamp::of(&path).filter(|_| path.is_file() && !fs::is_symlink(&path));
    let Some(stamp) = stamp else {
        return vec![Kind::Missing { file: place }];
    };
    let mut kinds = Vec::new();
    if !is_its_time(file, stamp.mtime) {
        kinds.push(match file.sha256 {
            Some(_) => Kind::Time {
                file: place.clone(),
            },
            // Nothing else could tell whether it is still the same.
            None => Kind::Content {
                file: place.clone(),
            },
        });
    }
    match fs::mode(&path) {
        Ok(found) if found == file.mode || file.time.is_some() => {}
        Ok(found) => kinds.push(Kind::Mode {
            file: place.clone(),
            expected: file.mode,
            found,
        }),
        Err(error) => kinds.push(Kind::Unreadable {
            file: place.clone(),
            reason: reason(&error),
        }),
    }
    if stamp.size != file.size {
        kinds.push(Kind::Size {
            file: place,
            expected: file.size,
            found: stamp.size,
        });
    } else if depth == Depth::Content {
        match fs::hash_file(&path) {
            Ok(sha256) if file.sha256.is_none_or(|expected| expected == sha256) => {}
            Ok(_) => kinds.push(Kind::Content { file: place }),
            Err(error) => kinds.push(Kind::Unreadable {
                file: place,
                reason: reason(&error),
            }),
        }
    }
    kinds
}

/// The error with its cause, since a [`Kind`] can be compared and kept.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The ids of all paths, whatever is in them.
fn present(store: &Store) -> Result<BTreeSet<OutputId>> {
    let names = store.names()?;
    let ids = names
        .iter()
        .filter_map(|name| name.split('-').next()?.parse().ok());
    Ok(ids.collect())
}

/// Takes a path out; `false` if there is none.
fn discard(store: &Store, store_name: &str) -> Result<bool> {
    let path = store.path(store_name);
    if path.is_dir() && !fs::is_symlink(&path) {
        store.discard(store_name)?;
    } else if path.exists() || fs::is_symlink(&path) {
        fs::remove_file(&path)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn mend(store: &Store, store_name: &str, kinds: &[Kind]) -> Result<()> {
    let folder = store.path(store_name);
    for kind in kinds {
        match kind {
            Kind::Mode { file, expected, .. } => fs::set_mode(&folder.join(file), *expected)?,
            Kind::Time { file } => fs::set_mtime(&folder.join(file), FILE_TIME)?,
            Kind::Attached { file, .. } => store.detach(store_name, file)?,
            _ => {} // none is left here
        }
    }
    Ok(())
}

fn discard_incomplete(store: &Store, discarded: &mut Vec<String>) -> Result<()> {
    let names = store.names()?;
    let outputs = names.into_par_iter().filter_map(|name| store.output(&name));
    let mut outputs: Vec<(OutputId, String, Vec<OutputId>)> = outputs
        .map(|output| (output.id, output.store_name(), output.references))
        .collect();
    let mut present = present(store)?;
    loop {
        let (complete, incomplete): (Vec<_>, Vec<_>) = outputs
            .into_iter()
            .partition(|(_, _, references)| references.iter().all(|id| present.contains(id)));
        if incomplete.is_empty() {
            return Ok(());
        }
        for (id, store_name, _) in incomplete {
            store.discard(&store_name)?;
            present.remove(&id);
            discarded.push(store_name);
        }
        outputs = complete;
    }
}

/// Outputs for tests, here and in the modules beside.
#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use crate::digest::{Canonical, RecipeHash, UnitKey};
    use crate::output::{Inputs, Maker, Role};
    use crate::store::{Source, describe_bytes};

    /// The manifest of a library of some files.
    pub(in crate::store) fn output(name: &str, references: &[&Output], files: &[&[u8]]) -> Output {
        let canonical = || {
            let mut canonical = Canonical::new("sample");
            canonical.text(name);
            canonical
        };
        let key = UnitKey::finish(canonical());
        let references: Vec<OutputId> = references.iter().map(|output| output.id).collect();
        let described = files.iter().enumerate().map(|(index, bytes)| {
            describe_bytes(Role::Library, format!("lib{name}@.{index}"), bytes)
        });
        let manifest = serde_json::json!({
            "format": FORMAT,
            "id": output_id(key, &Inputs::default(), &references, &Maker::Local),
            "recipe": RecipeHash::finish(canonical()),
            "host-recipe": RecipeHash::finish(canonical()),
            "key": key,
            "name": name,
            "version": "1.0.0",
            "target-kind": "lib",
            "produced": "build",
            "references": references,
            "inputs": Inputs::default(),
            "files": described.collect::<Vec<_>>(),
            "unit-id": "0123456789abcdef",
            "extra-filename": "-0123456789abcdef",
            "timed": false,
            "seconds": 1.5,
            "jobs": 1,
            "builder": "local",
        });
        serde_json::from_value(manifest).unwrap()
    }

    /// Adds such a library to a store.
    pub(in crate::store) fn add(
        store: &Store,
        name: &str,
        references: &[&Output],
        files: &[&[u8]],
    ) -> Output {
        let output = output(name, references, files);
        let sources: Vec<Source<'_>> = files
            .iter()
            .map(|bytes| Source::Bytes(bytes.to_vec()))
            .collect();
        store.add(&output, &sources).unwrap();
        output
    }
}

#[cfg(test)]
mod tests;
