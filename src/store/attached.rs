//! What is said of an output beside its manifest: signatures and provenance.
//!
//! ```text
//! paths/<store name>/
//!   signatures         `name:base64`, one line for each key, sorted
//!   provenance.json    an in-toto statement
//!   origin.json        where it came from; `origin` has that
//! ```
//!
//! All are optional and come later than the output, if at all. Each is
//! replaced at once, and a reader finds the old or the new one. Nothing here
//! says whether to believe them.

use std::path::{Path, PathBuf};

use super::{Result, Store, StoreError};
use crate::fs::{self, Lock};
use crate::output::Output;
use crate::output::provenance::Statement;
use crate::trust::{Signature, Signatures};

/// Name of the file of signatures in a store path.
pub(super) const SIGNATURES: &str = "signatures";
/// Name of the file of provenance in a store path.
pub(super) const PROVENANCE: &str = "provenance.json";
/// Name of the file of the origin in a store path.
pub(super) const ORIGIN: &str = "origin.json";

impl Store {
    /// The signatures of an output, if it has any.
    ///
    /// Fails with [`StoreError::Attached`] if the file is malformed.
    pub fn signatures(&self, store_name: &str) -> Result<Option<Signatures>> {
        read(&self.attached(store_name, SIGNATURES), parse_signatures)
    }

    /// Adds a signature in the place of the same key's. There must be such an
    /// output.
    pub fn add_signature(&self, store_name: &str, signature: Signature) -> Result<()> {
        self.change_signatures(store_name, |known| match known {
            Some(mut known) => {
                known.insert(signature);
                known
            }
            None => Signatures::new(signature),
        })
    }

    /// Adds the signatures of keys that have not signed the output yet.
    pub fn merge_signatures(&self, store_name: &str, new: Signatures) -> Result<()> {
        self.change_signatures(store_name, |known| match known {
            Some(mut known) => {
                known.merge(new);
                known
            }
            None => new,
        })
    }

    fn change_signatures(
        &self,
        store_name: &str,
        change: impl FnOnce(Option<Signatures>) -> Signatures,
    ) -> Result<()> {
        // So that of two that add one each, none is lost.
        let _lock = Lock::exclusive(&self.root.join("locks/signatures"))?;
        let signatures = change(self.signatures(store_name)?);
        self.attach(store_name, SIGNATURES, signatures.to_string().as_bytes())
    }

    /// What is said of how an output came about, if anything.
    ///
    /// Fails with [`StoreError::Attached`] if the file is malformed, or about
    /// something else.
    pub fn provenance(&self, output: &Output) -> Result<Option<Statement>> {
        let path = self.attached(&output.store_name(), PROVENANCE);
        read(&path, |bytes| parse_provenance(output, bytes))
    }

    /// Says how an output came about, in the place of what was said before.
    /// There must be such an output.
    pub fn add_provenance(&self, store_name: &str, statement: &Statement) -> Result<()> {
        let bytes = serde_json::to_vec(statement).expect("a statement serialises");
        self.attach(store_name, PROVENANCE, &bytes)
    }

    fn attach(&self, store_name: &str, file: &str, bytes: &[u8]) -> Result<()> {
        // Staged elsewhere, so that a kill leaves nothing in the path.
        let name = format!("{store_name}-{file}");
        let stage = fs::unique_beside(&self.root.join("tmp").join(name));
        let attached = fs::write(&stage, bytes)
            .and_then(|()| fs::rename(&stage, &self.attached(store_name, file)));
        if attached.is_err() {
            let _ = fs::remove_file(&stage);
        }
        Ok(attached?)
    }

    /// Takes away what is malformed.
    pub(super) fn detach(&self, store_name: &str, file: &str) -> Result<()> {
        Ok(fs::remove_file(&self.attached(store_name, file))?)
    }

    /// What a file beside a manifest says, if there is one.
    pub(super) fn attachment<T>(
        &self,
        store_name: &str,
        file: &str,
        parse: impl FnOnce(&[u8]) -> std::result::Result<T, Malformed>,
    ) -> Result<Option<T>> {
        read(&self.attached(store_name, file), parse)
    }

    fn attached(&self, store_name: &str, file: &str) -> PathBuf {
        self.path(store_name).join(file)
    }
}

/// Why a file beside a manifest is malformed.
pub(super) type Malformed = Box<dyn std::error::Error + Send + Sync>;

fn read<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> std::result::Result<T, Malformed>,
) -> Result<Option<T>> {
    let Some(bytes) = fs::read_optional(path)? else {
        return Ok(None);
    };
    parse(&bytes)
        .map(Some)
        .map_err(|source| StoreError::Attached {
            path: path.to_owned(),
            source,
        })
}

/// Reads the file of signatures.
pub(super) fn parse_signatures(bytes: &[u8]) -> std::result::Result<Signatures, Malformed> {
    Ok(std::str::from_utf8(bytes)?.parse::<Signatures>()?)
}

/// Reads a statement about this very output.
pub(super) fn parse_provenance(
    output: &Output,
    bytes: &[u8],
) -> std::result::Result<Statement, Malformed> {
    let statement: Statement = serde_json::from_slice(bytes)?;
    if statement.is_about(output) {
        Ok(statement)
    } else {
        Err("it is a statement about something else".into())
    }
}

/// What is wrong with the files beside a manifest: their names, and why.
pub(super) fn malformed(store: &Store, output: &Output) -> Vec<(&'static str, String)> {
    let signatures = store.signatures(&output.store_name()).map(drop);
    let provenance = store.provenance(output).map(drop);
    let origin = store.origin(&output.store_name()).map(drop);
    let found = [
        (SIGNATURES, signatures),
        (PROVENANCE, provenance),
        (ORIGIN, origin),
    ];
    let problem = |(file, result): (&'static str, Result<()>)| {
        let error = result.err()?;
        let reason = match &error {
            StoreError::Attached { source, .. } => source.to_string(),
            other => super::verify::reason(other),
        };
        Some((file, reason))
    };
    found.into_iter().filter_map(problem).collect()
}

#[cfg(test)]
pub(in crate::store) mod tests {
    use super::*;
    use crate::digest::ContentHash;
    use crate::output::provenance::{Build, Resource, Timestamp};
    use crate::store::verify::{Depth, Kind, repair, samples, verify};
    use crate::trust::SecretKey;

    fn key(name: &str) -> SecretKey {
        SecretKey::generate(name.parse().unwrap()).unwrap()
    }

    pub(in crate::store) fn statement(output: &Output) -> Statement {
        let build = Build {
            builder_id: "https://example.org/builder".to_owned(),
            invocation_id: "run-1".to_owned(),
            features: Vec::new(),
            sources: vec![Resource::archive(
                "https://example.org/sample.crate",
                ContentHash::of(b"archive"),
            )],
            references: Vec::new(),
            started: Timestamp::from_seconds(0).unwrap(),
            finished: Timestamp::from_seconds(1).unwrap(),
        };
        Statement::new(output, build)
    }

    #[test]
    fn signatures_are_kept_one_for_each_key() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let output = samples::add(&store, "base", &[], &[b"base"]);
        let name = output.store_name();
        assert_eq!(store.signatures(&name).unwrap(), None);
        let (a, b) = (key("a"), key("b"));
        for signature in [b.sign(b"1"), a.sign(b"1"), b.sign(b"2")] {
            store.add_signature(&name, signature).unwrap();
        }
        let signatures = store.signatures(&name).unwrap().unwrap();
        assert!(signatures.are_by(&a.public(), b"1"));
        assert!(signatures.are_by(&b.public(), b"2"));
        assert_eq!(signatures.iter().count(), 2);

        // What comes from elsewhere replaces nothing.
        let mut others = Signatures::new(a.sign(b"3"));
        others.insert(key("c").sign(b"1"));
        store.merge_signatures(&name, others).unwrap();
        let signatures = store.signatures(&name).unwrap().unwrap();
        assert!(signatures.are_by(&a.public(), b"1"));
        assert_eq!(signatures.iter().count(), 3);
        // The output is as it was.
        assert_eq!(store.output(&name), Some(output));
        assert_eq!(verify(folder.path(), Depth::Content).unwrap(), []);
    }

    #[test]
    fn there_is_nothing_beside_what_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let output = samples::output("none", &[], &[]);
        let name = output.store_name();
        assert!(store.add_signature(&name, key("a").sign(b"1")).is_err());
        assert!(store.add_provenance(&name, &statement(&output)).is_err());
        assert_eq!(
            fs::walk(&folder.path().join("tmp")).unwrap(),
            [] as [PathBuf; 0]
        );
    }

    #[test]
    fn what_is_malformed_is_found_and_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let store = Store::open(root).unwrap();
        let output = samples::add(&store, "base", &[], &[b"base"]);
        let other = samples::add(&store, "other", &[], &[b"other"]);
        let name = output.store_name();
        store.add_signature(&name, key("a").sign(b"1")).unwrap();
        store.add_provenance(&name, &statement(&output)).unwrap();
        assert_eq!(store.provenance(&output).unwrap(), Some(statement(&output)));
        assert_eq!(verify(root, Depth::Content).unwrap(), []);

        fs::write(&store.attached(&name, SIGNATURES), b"a:b\n").unwrap();
        store.add_provenance(&name, &statement(&other)).unwrap();
        assert!(store.signatures(&name).is_err());
        assert!(store.provenance(&output).is_err());
        assert!(store.add_signature(&name, key("a").sign(b"1")).is_err());
        let problems = verify(root, Depth::Stamps).unwrap();
        let found = problems.iter().map(|problem| match &problem.kind {
            Kind::Attached { file, .. } => *file,
            kind => panic!("{kind}"),
        });
        let found: Vec<&str> = found.collect();
        assert_eq!(found, [SIGNATURES, PROVENANCE]);

        drop(store);
        let report = repair(root, &problems).unwrap();
        assert_eq!(
            (report.mended, report.discarded),
            (vec![name.clone()], vec![])
        );
        assert_eq!(verify(root, Depth::Content).unwrap(), []);
        let store = Store::open(root).unwrap();
        assert_eq!(store.signatures(&name).unwrap(), None);
        assert_eq!(store.provenance(&output).unwrap(), None);
        assert_eq!(store.output(&name), Some(output));
    }
}
