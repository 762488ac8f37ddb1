//! Where outputs come from that are published: the store.

use std::path::{Path, PathBuf};

use super::Result;
use crate::output::provenance::Statement;
use crate::output::{Naming, Output};
use crate::store::Store;
use crate::substituter::{ArchiveRef, archive};
use crate::trust::{PublicKey, Signatures};

/// What is said of an output.
#[derive(Debug, Clone, Default)]
pub struct Attached {
    /// Who vouches for it, if anybody does.
    pub signatures: Option<Signatures>,
    /// How it came about, if that is known.
    pub provenance: Option<Statement>,
}

/// Outputs that are to be published.
pub trait Source: Sync {
    /// The outputs with all they refer to, dependencies first.
    fn outputs(&self) -> Result<Vec<Output>>;

    /// How Cargo names units of them; others do no harm.
    fn namings(&self) -> Result<Vec<Naming>>;

    /// Keys that may have signed, to be named as the substituter's.
    fn keys(&self) -> &[PublicKey];

    /// What is said of an output.
    fn attached(&self, output: &Output) -> Result<Attached>;

    /// Writes the archive of an output to a new file.
    fn archive(&self, output: &Output, to: &Path) -> Result<ArchiveRef>;
}

/// Outputs of the store, with all they refer to.
pub struct StoreSource<'a> {
    /// The store.
    pub store: &'a Store,
    /// Store names of the outputs.
    pub names: Vec<String>,
    /// Keys that may have signed.
    pub keys: Vec<PublicKey>,
}

impl Source for StoreSource<'_> {
    fn outputs(&self) -> Result<Vec<Output>> {
        Ok(self.store.whole_closure(&self.names)?)
    }

    fn namings(&self) -> Result<Vec<Naming>> {
        Ok(self.store.namings()?)
    }

    fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    fn attached(&self, output: &Output) -> Result<Attached> {
        Ok(Attached {
            signatures: self.store.signatures(&output.store_name())?,
            provenance: self.store.provenance(output)?,
        })
    }

    fn archive(&self, output: &Output, to: &Path) -> Result<ArchiveRef> {
        let files = (0..output.files.len()).map(|index| self.store.file(output, index));
        let files: Vec<PathBuf> = files.collect();
        Ok(archive::pack(output, &files, to)?)
    }
}
