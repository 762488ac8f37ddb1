//! Manifests of artefacts, by the image specification of OCI (1.1). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::digest::ContentHash;
use crate::fs::{self, Time};
use crate::output::provenance::Timestamp;
use crate::substituter::ArchiveRef;

/// The media type of a manifest.
pub(super) const KIND: &str = "application/vnd.oci.image.manifest.v1+json";
/// The type of the artefacts and of their first layer.
const DOCUMENT: &str = "application/vnd.quickbuild.document.v1+zstd";
/// The type of `quickbuild-cache.json`, as an artefact and as its layer.
const INFO: &str = "application/vnd.quickbuild.cache.v1+json";
/// The type of the layers with archives.
const ARCHIVE: &str = "application/vnd.quickbuild.archive.v1.tar+zstd";
/// The configuration of artefacts that have none.
const EMPTY_KIND: &str = "application/vnd.oci.empty.v1+json";
pub(super) const EMPTY: &[u8] = b"{}";
const CREATED: &str = "org.opencontainers.image.created";
const TITLE: &str = "org.opencontainers.image.title";
/// Bytes of a document that lies in its manifest as well: registries take
/// manifests of 4 MiB.
const MAX_DATA: usize = 1 << 20;

/// What points to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

impl Descriptor {
    fn new(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest(bytes),
            size: bytes.len() as u64,
            data: None,
        }
    }

    /// The blob itself, if it lies here as well.
    pub(super) fn data(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.data.as_ref()?).ok()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// The digest of a blob or a manifest.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", ContentHash::of(bytes))
}

impl Manifest {
    /// The artefact that a document at `path` is.
    pub(super) fn new(path: &str, document: &[u8], archives: &[ArchiveRef]) -> Self {
        let kind = if path.starts_with(crate::substituter::document::INFO) {
            INFO
        } else {
            DOCUMENT
        };
        let mut first = Descriptor::new(kind, document);
        first.data = (document.len() <= MAX_DATA).then(|| STANDARD.encode(document));
        let archives = archives.iter().map(|archive| Descriptor {
            media_type: ARCHIVE.to_owned(),
            digest: format!("sha256:{}", archive.sha256),
            size: archive.size,
            data: None,
        });
        // The path makes manifests of equal documents different: they are removed
        // by their digests.
        let mut annotations = vec![(TITLE.to_owned(), path.to_owned())];
        if let Some(now) = Timestamp::from_seconds(fs::now().seconds()) {
            annotations.push((CREATED.to_owned(), now.to_string()));
        }
        Self {
            schema_version: 2,
            media_type: KIND.to_owned(),
            artifact_type: kind.to_owned(),
            config: Descriptor::new(EMPTY_KIND, EMPTY),
            layers: [first].into_iter().chain(archives).collect(),
            annotations: annotations.into_iter().collect(),
        }
    }

    /// Reads a manifest as a stranger's; `Err` says what is wrong.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let kinds = [DOCUMENT, INFO];
        match manifest.layers.first() {
            Some(first) if kinds.contains(&first.media_type.as_str()) => {}
            _ => return Err("it is an artefact of another kind".to_owned()),
        }
        let digests = manifest.layers.iter().map(|layer| &layer.digest);
        for text in digests {
            let hash = text.strip_prefix("sha256:");
            if hash.is_none_or(|hash| hash.parse::<ContentHash>().is_err()) {
                return Err(format!("{text:?} is no digest that is used here"));
            }
        }
        Ok(manifest)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest serialises")
    }

    /// The layer with the document.
    pub(super) fn document(&self) -> &Descriptor {
        &self.layers[0]
    }

    /// When it was written.
    pub(super) fn created(&self) -> Option<Time> {
        let time: Timestamp = self.annotations.get(CREATED)?.parse().ok()?;
        Some(Time::from_seconds(time.seconds()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let archive = ArchiveRef {
            sha256: ContentHash::of(b"archive"),
            size: 7,
        };
        let manifest = Manifest::new("recipes/a.json.zst", b"document", &[archive]);
        assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
        assert_eq!(manifest.document().data().unwrap(), b"document");
        assert!(manifest.created().unwrap().age().is_some());
        let large = Manifest::new("recipes/a.json.zst", &[0; MAX_DATA + 1], &[]);
        assert_eq!(large.document().data(), None);
        assert_eq!(large.document().size, MAX_DATA as u64 + 1);
    }

    #[test]
    fn other_artefacts_are_refused() {
        let text = String::from_utf8(Manifest::new("a", b"d", &[]).to_bytes()).unwrap();
        for (from, to) in [
            ("quickbuild.document", "example.document"),
            ("\"digest\":\"sha256:", "\"digest\":\"sha512:"),
            ("\"digest\":\"sha256:", "\"digest\":\"../"),
            ("\"layers\"", "\"leaves\""),
        ] {
            assert!(text.contains(from), "{from}");
            assert!(
                Manifest::parse(text.replace(from, to).as_bytes()).is_err(),
                "{to}"
            );
        }
        assert!(Manifest::parse(b"<html>").is_err());
    }
}
