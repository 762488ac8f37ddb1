//! What GitHub's API says of releases and their assets. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::NEW;
use crate::fs::Time;
use crate::output::provenance::Timestamp;
use crate::substituter::web::{Answer, Url, is_safe};
use crate::substituter::{Result, SubstituterError};

/// A release, as far as it is of use.
#[derive(Debug, Deserialize)]
pub(super) struct ReleaseAnswer {
    pub(super) id: u64,
    upload_url: String,
}

impl ReleaseAnswer {
    /// Where assets are uploaded to: a template of RFC 6570.
    pub(super) fn upload_url(&self, answer: &Answer) -> Result<Url> {
        let text = self.upload_url.split('{').next().unwrap_or_default();
        let url = Url::parse(text).ok().filter(is_safe);
        url.ok_or_else(|| malformed(answer, "it does not say where to upload to"))
    }
}

/// An asset.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Asset {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) size: u64,
    state: String,
    created_at: Option<String>,
}

impl Asset {
    /// Whether all of it was uploaded.
    pub(super) fn is_whole(&self) -> bool {
        self.state == "uploaded"
    }

    pub(super) fn created(&self) -> Option<Time> {
        let time: Timestamp = self.created_at.as_ref()?.parse().ok()?;
        Some(Time::from_seconds(time.seconds()))
    }
}

/// A document that is not in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) id: u64,
    /// Its place.
    pub(super) name: String,
    /// The asset that it was to replace.
    pub(super) replaces: u64,
    pub(super) is_whole: bool,
    pub(super) age: Option<Duration>,
}

/// The assets of a release by their names.
#[derive(Debug, Clone, Default)]
pub(super) struct Assets(BTreeMap<String, Asset>);

impl Assets {
    pub(super) fn add(&mut self, asset: Asset) {
        self.0.insert(asset.name.clone(), asset);
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.0.retain(|_, asset| asset.id != id);
    }

    pub(super) fn find(&self, name: &str) -> Option<&Asset> {
        self.0.get(name)
    }

    pub(super) fn has_id(&self, id: u64) -> bool {
        self.0.values().any(|asset| asset.id == id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Asset> {
        self.0.values().filter(|asset| asset.is_whole())
    }

    /// Documents that a writer has not brought to their place.
    pub(super) fn left_behind(&self) -> Vec<Left> {
        let left = self.0.values().filter_map(|asset| {
            let rest = asset.name.strip_suffix(NEW)?;
            let (rest, _random) = rest.rsplit_once('.')?;
            let (name, replaces) = rest.rsplit_once('.')?;
            Some(Left {
                id: asset.id,
                name: name.to_owned(),
                replaces: replaces.parse().ok()?,
                is_whole: asset.is_whole(),
                age: asset.created().and_then(Time::age),
            })
        });
        left.collect()
    }

    /// Ids of other assets whose upload has broken off.
    pub(super) fn broken_off(&self, age: Duration) -> Vec<u64> {
        let broken = self.0.values().filter(|asset| {
            let since = asset.created().and_then(Time::age);
            !asset.is_whole() && !asset.name.ends_with(NEW) && since.is_some_and(|s| s > age)
        });
        broken.map(|asset| asset.id).collect()
    }
}

/// Reads an answer's JSON.
pub(super) fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T> {
    serde_json::from_slice(&answer.bytes).map_err(|error| malformed(answer, error))
}

/// Whether the API says that there is an asset of this name.
pub(super) fn already_exists(answer: &Answer) -> bool {
    let value: serde_json::Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    let errors = value.get("errors").and_then(|errors| errors.as_array());
    errors.is_some_and(|errors| {
        let mut codes = errors.iter().filter_map(|error| error.get("code"));
        codes.any(|code| code == "already_exists")
    })
}

/// What the API says about a failure.
pub(super) fn failed(answer: &Answer) -> SubstituterError {
    let value: serde_json::Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    match value.get("message").and_then(|message| message.as_str()) {
        Some(message) if !matches!(answer.status, 401 | 403) => {
            let message = message.chars().filter(|c| !c.is_control()).take(200);
            let message: String = message.collect();
            SubstituterError::Refused {
                url: answer.url.to_string(),
                reason: format!("{message} ({})", answer.status),
            }
        }
        _ => answer.error(),
    }
}

fn malformed(answer: &Answer, reason: impl ToString) -> SubstituterError {
    SubstituterError::Malformed {
        url: answer.url.to_string(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asset(id: u64, name: &str, state: &str) -> Asset {
        let json = serde_json::json!({
            "id": id, "name": name, "size": 3, "state": state, "content_type": "x",
            "created_at": "2012-11-20T13:38:50Z",
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_was_left_behind_is_found() {
        let mut assets = Assets::default();
        assets.add(asset(1, "recipes-a.json.zst", "uploaded"));
        assets.add(asset(2, "recipes-b.json.zst.7.00ff.new", "uploaded"));
        assets.add(asset(3, "archives-c.tar.zst", "starter"));
        assets.add(asset(4, "notes.new", "uploaded"));
        let left = assets.left_behind();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].id, left[0].replaces), (2, 7));
        assert_eq!(left[0].name, "recipes-b.json.zst");
        assert_eq!(assets.broken_off(Duration::from_secs(60)), [3]);
        assert_eq!(assets.all().count(), 3);
        assert!(assets.has_id(3) && !assets.has_id(7));
    }
}
