//! Writing an archive.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use rayon::prelude::*;

use super::super::attached::{PROVENANCE, SIGNATURES};
use super::super::closure::closure;
use super::super::verify::{self, Depth, Kind};
use super::super::{FILE_TIME, Result, Store, StoreError};
use crate::digest::OutputId;
use crate::fs;
use crate::output::Output;

/// Zstandard's own default; more costs more time than it saves.
const LEVEL: i32 = 3;

/// Writes outputs and their closure into one file, replacing it at once, and
/// returns the store names of all that is in it, sorted.
///
/// Fails with [`StoreError::Export`] if one of them is absent or damaged.
pub fn export(store: &Store, names: &[String], to: &Path) -> Result<Vec<String>> {
    let outputs = verified_closure(store, names)?;
    let beside = fs::unique_beside(to);
    let written = write_packed(store, &outputs, &beside);
    let written = written.and_then(|()| Ok(fs::rename(&beside, to)?));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.map(|()| outputs.into_keys().collect())
}

/// Outputs with all they refer to, every byte compared with the manifests.
fn verified_closure(store: &Store, names: &[String]) -> Result<BTreeMap<String, Output>> {
    let outputs = closure(store, names)?;
    let outputs = outputs.map_err(|(name, kind)| refuse_export(&name, kind))?;
    let outputs = store.settle_all(outputs, refuse_export)?;
    outputs.par_iter().try_for_each(|(name, _)| {
        let found = verify::inspect(store, name, Depth::Content).kinds;
        match found.into_iter().find(|kind| !kind.is_mendable()) {
            Some(kind) => Err(refuse_export(name, kind)),
            None => Ok(()),
        }
    })?;
    Ok(outputs)
}

impl Store {
    /// Outputs with all they refer to, dependencies first, every byte compared
    /// with the manifests.
    ///
    /// Fails with [`StoreError::Export`] if one of them is absent or damaged.
    pub fn whole_closure(&self, names: &[String]) -> Result<Vec<Output>> {
        let outputs = verified_closure(self, names)?;
        let mut open: BTreeMap<OutputId, Output> = outputs
            .into_values()
            .map(|output| (output.id, output))
            .collect();
        let mut sorted = Vec::new();
        while let Some((&first, _)) = open.first_key_value() {
            // Down to one that refers to nothing that is still open.
            let mut id = first;
            while let Some(&below) = open
                .get(&id)
                .and_then(|output| output.references.iter().find(|id| open.contains_key(id)))
            {
                id = below;
            }
            sorted.extend(open.remove(&id));
        }
        Ok(sorted)
    }
}

fn refuse_export(store_name: &str, source: Kind) -> StoreError {
    StoreError::Export {
        store_name: store_name.to_owned(),
        source,
    }
}

fn write_packed(store: &Store, outputs: &BTreeMap<String, Output>, to: &Path) -> Result<()> {
    let mut encoder = fs::at("write", to, zstd::Encoder::new(fs::create(to)?, LEVEL))?;
    // The same code occurs in many outputs, far apart.
    fs::at("write", to, encoder.long_distance_matching(true))?;
    fs::at("write", to, encoder.include_checksum(true))?;
    let encoder = write(store, outputs, to, encoder)?;
    let file = fs::at("write", to, encoder.finish())?;
    fs::at("sync", to, file.sync_all())?;
    Ok(())
}

/// Writes the tar, and gives back what it was written to.
fn write<W: Write>(
    store: &Store,
    outputs: &BTreeMap<String, Output>,
    to: &Path,
    writer: W,
) -> Result<W> {
    let tar = tar::Builder::new(writer);
    let mut packing = Packing { to, tar };
    let mut namings = BTreeMap::new();
    for (name, output) in outputs {
        let manifest = serde_json::to_vec(output).expect("a manifest serialises");
        packing.document(&format!("paths/{name}/manifest.json"), &manifest)?;
        if let Some(signatures) = store.signatures(name)? {
            let signatures = signatures.to_string();
            packing.document(&format!("paths/{name}/{SIGNATURES}"), signatures.as_bytes())?;
        }
        if let Some(provenance) = store.provenance(output)? {
            let provenance = serde_json::to_vec(&provenance).expect("a statement serialises");
            packing.document(&format!("paths/{name}/{PROVENANCE}"), &provenance)?;
        }
        for (index, file) in output.files.iter().enumerate() {
            let content = fs::open(&store.file(output, index))?;
            let entry = format!("paths/{name}/{}", file.store_name(index));
            packing.entry(&entry, file.mode, file.size, content)?;
        }
        if let Some(naming) = store.naming(output.key) {
            namings.insert(naming.key, naming);
        }
    }
    for (key, naming) in namings {
        let naming = serde_json::to_vec(&naming).expect("a naming serialises");
        packing.document(&format!("units/{key}.json"), &naming)?;
    }
    Ok(fs::at("write", to, packing.tar.into_inner())?)
}

/// An archive that is being written.
struct Packing<'a, W: Write> {
    to: &'a Path,
    tar: tar::Builder<W>,
}

impl<W: Write> Packing<'_, W> {
    fn document(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.entry(name, 0o644, bytes.len() as u64, bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, size: u64, content: impl Read) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(FILE_TIME.seconds().unsigned_abs());
        header.set_uid(0);
        header.set_gid(0);
        fs::at("write", self.to, header.set_path(name))?;
        header.set_cksum();
        let appended = self.tar.append(&header, content.take(size));
        Ok(fs::at("write", self.to, appended)?)
    }
}
