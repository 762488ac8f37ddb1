//! Where an output came from, if it was not made here.
//!
//! `paths/<store name>/origin.json`, which becomes visible with the output: what
//! comes from elsewhere never looks as if it had been made here. It proves
//! nothing, and it is this store's own: it is neither exported nor published.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::attached::{Malformed, ORIGIN, SIGNATURES};
use super::{Added, FILE_TIME, Result, Source, Store, write_manifest};
use crate::fs;
use crate::output::Output;
use crate::output::provenance::Timestamp;
use crate::trust::Signatures;

/// Where an output came from, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Origin {
    /// What kind of place it is.
    pub kind: Kind,
    /// The URL or the folder of the substituter, or the file of the archive.
    pub place: String,
    /// When it came.
    pub time: Timestamp,
}

/// Kinds of places that outputs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A substituter.
    Substituter,
    /// An archive that `store export` wrote.
    Archive,
}

impl Origin {
    /// A substituter.
    pub fn substituter(place: impl Into<String>, time: Timestamp) -> Self {
        Self {
            kind: Kind::Substituter,
            place: place.into(),
            time,
        }
    }

    /// An archive of another store.
    pub fn archive(place: impl Into<String>, time: Timestamp) -> Self {
        Self {
            kind: Kind::Archive,
            place: place.into(),
            time,
        }
    }
}

impl Origin {
    /// The file that says it.
    fn file(&self) -> (&'static str, Vec<u8>) {
        let bytes = serde_json::to_vec(self).expect("an origin serialises");
        (ORIGIN, bytes)
    }
}

impl Store {
    /// Where an output came from; `None` for what was made here.
    ///
    /// Fails with [`StoreError::Attached`](super::StoreError::Attached) if the
    /// file is malformed.
    pub fn origin(&self, store_name: &str) -> Result<Option<Origin>> {
        self.attachment(store_name, ORIGIN, parse)
    }

    /// Adds an output that comes from elsewhere, as [`add`](Self::add) does, with
    /// those who vouch for it. What was there before keeps what is said of it.
    pub fn add_from(
        &self,
        origin: &Origin,
        output: &Output,
        sources: &[Source<'_>],
        signatures: Option<&Signatures>,
    ) -> Result<Added> {
        let mut beside = vec![origin.file()];
        if let Some(signatures) = signatures {
            beside.push((SIGNATURES, signatures.to_string().into_bytes()));
        }
        self.add_beside(output, sources, &beside)
    }

    /// The same for an output whose folder is as it will be in the store, with
    /// nothing but the manifest and the files: the folder becomes the store's, or
    /// is removed.
    pub(super) fn adopt_from(
        &self,
        origin: &Origin,
        output: &Output,
        folder: &Path,
    ) -> Result<Added> {
        self.add_prepared(output, folder, &[origin.file()], || {
            fs::create_dir_all(&folder.join("files"))?;
            for (index, file) in output.files.iter().enumerate() {
                fs::set_mtime(&folder.join(file.store_name(index)), FILE_TIME)?;
            }
            write_manifest(folder, output)
        })
    }
}

fn parse(bytes: &[u8]) -> std::result::Result<Origin, Malformed> {
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::verify::{Depth, repair, samples, verify};
    use crate::trust::SecretKey;

    #[test]
    fn an_origin_is_kept_beside_the_output_and_taken_away_where_it_is_malformed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let made = samples::add(&store, "made", &[], &[b"made"]);
        assert_eq!(store.origin(&made.store_name()).unwrap(), None);
        let time = Timestamp::from_seconds(0).unwrap();
        let origin = Origin::substituter("https://cache.example.org/", time);
        let output = samples::output("base", &[], &[b"base"]);
        let name = output.store_name();
        let sources = || [Source::Bytes(b"base".to_vec())];
        let key = SecretKey::generate("a-1".parse().unwrap()).unwrap();
        let signatures = Signatures::new(key.sign(b"message"));
        let add =
            |origin: &Origin, signatures| store.add_from(origin, &output, &sources(), signatures);
        assert_eq!(add(&origin, Some(&signatures)).unwrap(), Added::New);
        assert_eq!(store.origin(&name).unwrap(), Some(origin.clone()));
        assert_eq!(store.signatures(&name).unwrap(), Some(signatures.clone()));
        // What comes a second time changes nothing.
        let other = Origin::archive("/tmp/a.tar.zst", time);
        assert_eq!(add(&other, None).unwrap(), Added::Existing);
        assert_eq!(store.origin(&name).unwrap(), Some(origin));
        assert_eq!(verify(folder.path(), Depth::Content).unwrap(), []);
        fs::write(&store.path(&name).join(ORIGIN), b"{}").unwrap();
        assert!(store.origin(&name).is_err());
        let problems = verify(folder.path(), Depth::Stamps).unwrap();
        assert_eq!(problems.len(), 1, "{problems:?}");
        drop(store);
        repair(folder.path(), &problems).unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.origin(&name).unwrap(), None);
        assert_eq!(store.output(&name), Some(output));
    }
}
