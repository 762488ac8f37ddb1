//! Some outputs with all that they refer to as one file: `store export` and
//! `store import`.
//!
//! The file is a tar (POSIX.1-1988 `ustar`) in Zstandard, in just this order:
//!
//! ```text
//! paths/<store name>/manifest.json   sorted by store name, and behind each …
//! paths/<store name>/signatures      … its signatures, if it has any
//! paths/<store name>/provenance.json … its provenance, if that is known
//! paths/<store name>/files/<n>       … its files, by number
//! units/<unit key>.json              how Cargo names these units, by key
//! ```
//!
//! * The same outputs give the same bytes: no time, no user, no order of a
//!   folder gets in.
//! * [`import`] takes nothing on trust. Any other entry, order, size or
//!   SHA-256, an id that does not follow from its manifest, or a reference to
//!   nowhere refuses the whole archive, before anything of it is in the store.
//! * Signatures and provenance are carried, not judged; only what is malformed,
//!   or said of something else, is refused.

mod folder;
mod pack;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _, Read};
use std::path::{Path, PathBuf};

use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

use super::attached::{PROVENANCE, SIGNATURES, parse_provenance, parse_signatures};
use super::closure::store_names;
use super::{Added, Origin, Result, Store, StoreError, is_store_name, read_manifest};
use crate::digest::{OutputId, UnitKey};
use crate::fs;
use crate::output::provenance::Timestamp;
use crate::output::{Naming, Output};
pub use folder::{Examine, import_folder, move_out, share};
pub use pack::export;

/// Bytes that a manifest may have: far more than any has, yet no danger.
const MAX_MANIFEST: u64 = 64 << 20;
/// Bytes that signatures or provenance may have.
const MAX_ATTACHED: u64 = 16 << 20;
/// Bytes that the description of a naming may have.
const MAX_NAMING: u64 = 1 << 20;
/// How Zstandard's frames begin (RFC 8878, section 3.1.1).
const ZSTANDARD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What [`import`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Store names of what was added, dependencies first.
    pub added: Vec<String>,
    /// Store names of what was in the store before.
    pub existing: Vec<String>,
    /// How many units' names were new.
    pub namings: usize,
}

/// Adds the outputs of an archive to a store.
///
/// Fails with [`StoreError::Archive`], [`StoreError::Manifest`] or
/// [`StoreError::Unpack`] if the archive is not exactly what [`export`] writes;
/// then nothing was added. A naming that is known already stays as it is.
pub fn import(store: &Store, from: &Path) -> Result<ImportReport> {
    let stage = fs::unique_beside(&store.root.join("tmp/import"));
    let mut unpacking = Unpacking::new(from, &stage);
    let result = unpacking.unpack().and_then(|()| unpacking.add(store));
    let _ = fs::remove_dir_all(&stage); // what stays is for the collector
    result
}

/// Adds how Cargo names some units, as somebody else has learned it. What was
/// learned here stays.
///
/// Fails with [`StoreError::Archive`] if a name leads out of the target
/// directory; then nothing was added.
pub fn add_namings(store: &Store, namings: &[Naming]) -> Result<()> {
    if let Some(naming) = namings.iter().find(|naming| !naming.is_harmless()) {
        return Err(refuse(format!(
            "the naming of unit `{}` is invalid",
            naming.key
        )));
    }
    for naming in namings {
        if store.naming(naming.key).is_none() {
            store.add_naming(naming)?;
        }
    }
    Ok(())
}

fn refuse(reason: impl Into<String>) -> StoreError {
    StoreError::Archive {
        reason: reason.into(),
    }
}

/// An entry that may occur.
#[derive(Debug, PartialEq, Eq)]
enum Entry<'a> {
    Manifest(&'a str),
    Signatures(&'a str),
    Provenance(&'a str),
    File(&'a str, usize),
    Naming(UnitKey),
}

impl<'a> Entry<'a> {
    /// Reads the one spelling that each name has.
    fn parse(name: &'a str) -> Option<Self> {
        if name.contains(char::is_control) {
            return None;
        }
        let parts: Vec<&str> = name.split('/').collect();
        match parts[..] {
            ["paths", path, "manifest.json"] if is_store_name(path) => Some(Self::Manifest(path)),
            ["paths", path, SIGNATURES] if is_store_name(path) => Some(Self::Signatures(path)),
            ["paths", path, PROVENANCE] if is_store_name(path) => Some(Self::Provenance(path)),
            ["paths", path, "files", number] if is_store_name(path) => {
                let index: usize = number.parse().ok()?;
                (index.to_string() == number).then_some(Self::File(path, index))
            }
            ["units", file] => Some(Self::Naming(file.strip_suffix(".json")?.parse().ok()?)),
            _ => None,
        }
    }
}

/// An output that is unpacked and verified. The manifest stays on disk, so that
/// an archive of many big ones does not fill the memory.
struct Unpacked {
    store_name: String,
    id: OutputId,
    references: Vec<OutputId>,
}

/// An archive on its way into the store.
struct Unpacking<'a> {
    from: &'a Path,
    stage: &'a Path,
    outputs: Vec<Unpacked>,
    /// The output whose files are coming, and the number of the next.
    current: Option<(Output, usize)>,
    /// What came last of what is said of that output.
    attached: Option<&'static str>,
    /// The units of all outputs so far.
    keys: BTreeSet<UnitKey>,
    namings: Vec<UnitKey>,
}

impl<'a> Unpacking<'a> {
    fn new(from: &'a Path, stage: &'a Path) -> Self {
        Self {
            from,
            stage,
            outputs: Vec::new(),
            current: None,
            attached: None,
            keys: BTreeSet::new(),
            namings: Vec::new(),
        }
    }

    fn unreadable(&self, source: io::Error) -> StoreError {
        StoreError::Unpack {
            path: self.from.to_owned(),
            source,
        }
    }

    /// Unpacks and verifies everything.
    fn unpack(&mut self) -> Result<()> {
        let mut from = io::BufReader::with_capacity(256 << 10, fs::open(self.from)?);
        let start = from.fill_buf().map_err(|e| self.unreadable(e))?;
        let reader: Box<dyn Read> = if start.starts_with(&ZSTANDARD) {
            Box::new(zstd::Decoder::with_buffer(from).map_err(|e| self.unreadable(e))?)
        } else {
            Box::new(from)
        };
        let mut archive = tar::Archive::new(reader);
        // Raw, so that headers which rename or resize the next entry are
        // entries of a kind that is refused.
        for entry in archive.entries().map_err(|e| self.unreadable(e))?.raw(true) {
            let mut entry = entry.map_err(|e| self.unreadable(e))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if !entry.header().entry_type().is_file() {
                return Err(refuse(format!("{name:?} is not a regular file")));
            }
            let size = entry.size();
            match Entry::parse(&name) {
                Some(Entry::Manifest(path)) => self.manifest(path, size, &mut entry)?,
                Some(Entry::Signatures(path)) => self.signatures(path, size, &mut entry)?,
                Some(Entry::Provenance(path)) => self.provenance(path, size, &mut entry)?,
                Some(Entry::File(path, index)) => self.file(path, index, size, &mut entry)?,
                Some(Entry::Naming(key)) => self.naming(key, size, &mut entry)?,
                None => return Err(refuse(format!("{name:?} is not a name that occurs in one"))),
            }
        }
        self.finish_output()?;
        // A tar ends with two blocks of zeros, and the first has been read. Two
        // would be missing from one that was cut off between entries.
        let mut rest = Vec::new();
        let mut decoder = archive.into_inner().take(513);
        decoder
            .read_to_end(&mut rest)
            .map_err(|e| self.unreadable(e))?;
        if rest != [0; 512] {
            return Err(refuse("it does not end where it should"));
        }
        Ok(())
    }

    fn manifest(&mut self, store_name: &str, size: u64, content: &mut impl Read) -> Result<()> {
        self.finish_output()?;
        let bytes = self.read(store_name, size, MAX_MANIFEST, content)?;
        let output: Output =
            serde_json::from_slice(&bytes).map_err(|source| StoreError::Manifest {
                path: Path::new("paths").join(store_name).join("manifest.json"),
                source,
            })?;
        if let Some(objection) = output.objection(store_name) {
            return Err(refuse(format!("`{store_name}` {objection}")));
        }
        // By id alone, so that one id never comes under two names.
        let in_order = self.outputs.last().is_none_or(|last| last.id < output.id);
        if !in_order || !self.namings.is_empty() {
            return Err(refuse(format!(
                "the manifest of `{store_name}` is out of order"
            )));
        }
        let folder = self.stage.join(store_name);
        fs::create_dir_all(&folder.join("files"))?;
        fs::write(&folder.join("manifest.json"), &bytes)?;
        self.current = Some((output, 0));
        self.attached = None;
        Ok(())
    }

    fn signatures(&mut self, store_name: &str, size: u64, content: &mut impl Read) -> Result<()> {
        self.expect_beside(store_name, SIGNATURES)?;
        let bytes = self.read(store_name, size, MAX_ATTACHED, content)?;
        if let Err(error) = parse_signatures(&bytes) {
            let reason = format!("the signatures of `{store_name}` are malformed: {error}");
            return Err(refuse(reason));
        }
        Ok(fs::write(
            &self.stage.join(store_name).join(SIGNATURES),
            &bytes,
        )?)
    }

    fn provenance(&mut self, store_name: &str, size: u64, content: &mut impl Read) -> Result<()> {
        self.expect_beside(store_name, PROVENANCE)?;
        let bytes = self.read(store_name, size, MAX_ATTACHED, content)?;
        let parsed = match &self.current {
            Some((output, _)) => parse_provenance(output, &bytes),
            None => unreachable!("it was expected beside a manifest"),
        };
        if let Err(error) = parsed {
            let reason = format!("the provenance of `{store_name}` is malformed: {error}");
            return Err(refuse(reason));
        }
        Ok(fs::write(
            &self.stage.join(store_name).join(PROVENANCE),
            &bytes,
        )?)
    }

    /// Whether this may come now: behind its manifest, before the first file,
    /// each once, signatures first.
    fn expect_beside(&mut self, store_name: &str, file: &'static str) -> Result<()> {
        let is_next = self
            .current
            .as_ref()
            .is_some_and(|(output, next)| *next == 0 && output.store_name() == store_name);
        let is_in_order = match self.attached {
            None => true,
            Some(last) => last == SIGNATURES && file == PROVENANCE,
        };
        if !is_next || !is_in_order {
            return Err(refuse(format!(
                "`{file}` of `{store_name}` is out of order"
            )));
        }
        self.attached = Some(file);
        Ok(())
    }

    fn file(
        &mut self,
        store_name: &str,
        index: usize,
        size: u64,
        content: &mut impl Read,
    ) -> Result<()> {
        let current = self.current.as_ref();
        let expected = current
            .filter(|(output, next)| *next == index && output.store_name() == store_name)
            .and_then(|(output, _)| output.files.get(index));
        let name = || format!("file {index} of `{store_name}`");
        let Some(expected) = expected else {
            return Err(refuse(format!("{} is out of order", name())));
        };
        if size != expected.size {
            let wanted = expected.size;
            return Err(refuse(format!(
                "{} has {size} bytes instead of {wanted}",
                name()
            )));
        }
        let path = self.stage.join(store_name).join(expected.store_name(index));
        let written = fs::write_hashed(content, &path)?;
        let (written, digest) = written.map_err(|e| self.unreadable(e))?;
        if (written, Some(digest)) != (size, expected.sha256) {
            return Err(refuse(format!(
                "{} has another SHA-256 than its manifest says",
                name()
            )));
        }
        fs::set_mode(&path, expected.mode)?;
        if let Some((_, next)) = &mut self.current {
            *next += 1;
        }
        Ok(())
    }

    fn naming(&mut self, key: UnitKey, size: u64, content: &mut impl Read) -> Result<()> {
        self.finish_output()?;
        if self.namings.last().is_some_and(|&last| last >= key) {
            return Err(refuse(format!(
                "the naming of unit `{key}` is out of order"
            )));
        }
        if !self.keys.contains(&key) {
            return Err(refuse(format!("no output in it is of the unit `{key}`")));
        }
        let bytes = self.read(&key.to_string(), size, MAX_NAMING, content)?;
        let naming: Option<Naming> = serde_json::from_slice(&bytes).ok();
        if naming.is_none_or(|naming| naming.key != key || !naming.is_harmless()) {
            return Err(refuse(format!("the naming of unit `{key}` is invalid")));
        }
        fs::create_dir_all(self.stage)?;
        fs::write(&self.naming_file(key), &bytes)?;
        self.namings.push(key);
        Ok(())
    }

    fn naming_file(&self, key: UnitKey) -> PathBuf {
        self.stage.join(format!("{key}.json"))
    }

    /// Reads all of a small entry.
    fn read(&self, name: &str, size: u64, limit: u64, content: &mut impl Read) -> Result<Vec<u8>> {
        if size > limit {
            return Err(refuse(format!("what it says of `{name}` has {size} bytes")));
        }
        let mut bytes = Vec::new();
        content
            .read_to_end(&mut bytes)
            .map_err(|e| self.unreadable(e))?;
        if bytes.len() as u64 != size {
            return Err(refuse(format!("what it says of `{name}` is cut off")));
        }
        Ok(bytes)
    }

    fn finish_output(&mut self) -> Result<()> {
        let Some((output, next)) = self.current.take() else {
            return Ok(());
        };
        let store_name = output.store_name();
        if next != output.files.len() {
            return Err(refuse(format!(
                "file {next} of `{store_name}` is not in it"
            )));
        }
        self.keys.insert(output.key);
        self.outputs.push(Unpacked {
            store_name,
            id: output.id,
            references: output.references,
        });
        Ok(())
    }

    /// Makes everything visible, dependencies first, so that whoever is killed
    /// leaves whole closures.
    fn add(&self, store: &Store) -> Result<ImportReport> {
        let mut report = ImportReport::default();
        let origin = Origin::archive(self.from.to_string_lossy(), Timestamp::of(fs::now()));
        for index in self.dependencies_first(store)? {
            let store_name = &self.outputs[index].store_name;
            let folder = self.stage.join(store_name);
            let absent = || refuse(format!("`{store_name}` vanished while it was imported"));
            let output = read_manifest(&folder)?.ok_or_else(absent)?;
            let attached = Attached::take(&folder)?;
            match store.adopt_from(&origin, &output, &folder)? {
                Added::New => report.added.push(store_name.clone()),
                Added::Existing => report.existing.push(store_name.clone()),
            }
            attached.attach(store, &output)?;
        }
        for &key in &self.namings {
            // What was learned here was proved here.
            if store.naming(key).is_none() {
                let path = self.naming_file(key);
                let naming = serde_json::from_slice(&fs::read(&path)?)
                    .map_err(|source| StoreError::Manifest { path, source })?;
                store.add_naming(&naming)?;
                report.namings += 1;
            }
        }
        Ok(report)
    }

    /// The numbers of all outputs in an order in which to add them.
    fn dependencies_first(&self, store: &Store) -> Result<Vec<usize>> {
        let outputs = self.outputs.iter().enumerate();
        let numbers: BTreeMap<OutputId, usize> =
            outputs.map(|(n, output)| (output.id, n)).collect();
        let in_store = store_names(store)?;
        let mut graph: DiGraph<(), (), usize> = DiGraph::default();
        for _ in &self.outputs {
            graph.add_node(());
        }
        for (number, output) in self.outputs.iter().enumerate() {
            for id in &output.references {
                if let Some(&reference) = numbers.get(id) {
                    graph.add_edge(NodeIndex::new(reference), NodeIndex::new(number), ());
                } else if in_store
                    .get(id)
                    .and_then(|name| store.output(name))
                    .is_none()
                {
                    let name = &output.store_name;
                    let reason = format!("`{name}` refers to `{id}`, which is missing");
                    return Err(refuse(reason));
                }
            }
        }
        let sorted = toposort(&graph, None);
        let sorted =
            sorted.map_err(|_cycle| refuse("its outputs refer to each other in a circle"))?;
        Ok(sorted.into_iter().map(NodeIndex::index).collect())
    }
}

/// What came with an output beside its files, each as it was read before.
struct Attached {
    signatures: Option<Vec<u8>>,
    provenance: Option<Vec<u8>>,
}

impl Attached {
    /// Takes it out of the folder.
    fn take(folder: &Path) -> Result<Self> {
        let take = |file: &str| -> Result<Option<Vec<u8>>> {
            let path = folder.join(file);
            let bytes = fs::read_optional(&path)?;
            if bytes.is_some() {
                fs::remove_file(&path)?;
            }
            Ok(bytes)
        };
        Ok(Self {
            signatures: take(SIGNATURES)?,
            provenance: take(PROVENANCE)?,
        })
    }

    /// Adds what an archive says of an output, if the store has just that output:
    /// what is said of other bytes is of no use here. What is there already stays.
    fn attach(self, store: &Store, output: &Output) -> Result<()> {
        let store_name = output.store_name();
        let here = store.output(&store_name);
        if here.is_none_or(|here| here.content_hash() != output.content_hash()) {
            return Ok(());
        }
        let vanished =
            |file: &str| refuse(format!("`{file}` of `{store_name}` cannot be read again"));
        if let Some(bytes) = self.signatures {
            let signatures = parse_signatures(&bytes).map_err(|_changed| vanished(SIGNATURES))?;
            store.merge_signatures(&store_name, signatures)?;
        }
        if let Some(bytes) = self.provenance
            && store.provenance(output)?.is_none()
        {
            let statement =
                parse_provenance(output, &bytes).map_err(|_changed| vanished(PROVENANCE))?;
            store.add_provenance(&store_name, &statement)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
