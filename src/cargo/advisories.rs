//! Which versions are known to be vulnerable, as a checkout of RustSec's
//! advisory database says: the folder that `cargo audit` keeps at
//! `<Cargo home>/advisory-db`. Nothing is fetched here.
//!
//! ```text
//! crates/<package>/RUSTSEC-….md     a block of TOML between fences, then text
//! ```
//!
//! A version is affected if no requirement of `versions.patched` and none of
//! `versions.unaffected` has it (the database's README, "Advisory format").
//! Withdrawn advisories, and those that only inform (`unmaintained`, `notice`),
//! count for nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::fs;

/// A checkout of the database.
#[derive(Debug)]
pub struct Advisories {
    crates: PathBuf,
    known: Mutex<HashMap<String, Arc<Vec<Advisory>>>>,
}

#[derive(Debug)]
struct Advisory {
    id: String,
    safe: Vec<VersionReq>,
}

#[derive(Deserialize)]
struct File {
    advisory: Head,
    #[serde(default)]
    versions: Versions,
}

#[derive(Deserialize)]
struct Head {
    id: String,
    withdrawn: Option<toml::Value>,
    informational: Option<String>,
}

#[derive(Default, Deserialize)]
struct Versions {
    #[serde(default)]
    patched: Vec<String>,
    #[serde(default)]
    unaffected: Vec<String>,
}

impl Advisories {
    /// Uses a checkout; `None` if the folder is not one.
    pub fn open(folder: &Path) -> Option<Self> {
        let crates = folder.join("crates");
        crates.is_dir().then(|| Self {
            crates,
            known: Mutex::default(),
        })
    }

    /// The advisory that affects a version, if one does. What cannot be read
    /// counts as affecting all versions.
    pub fn affecting(&self, name: &str, version: &Version) -> Option<String> {
        let advisories = self.about(name);
        let is_safe = |advisory: &&Advisory| {
            let mut safe = advisory.safe.iter();
            safe.any(|versions| versions.matches(version))
        };
        let found = advisories.iter().find(|advisory| !is_safe(advisory));
        found.map(|advisory| advisory.id.clone())
    }

    fn about(&self, name: &str) -> Arc<Vec<Advisory>> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(name) {
            return Arc::clone(known);
        }
        let files = fs::list(&self.crates.join(name)).unwrap_or_default();
        let read = files.iter().filter_map(|file| read(file)).collect();
        let read = Arc::new(read);
        lock().insert(name.to_owned(), Arc::clone(&read));
        read
    }
}

/// `None` for what counts for nothing.
fn read(path: &Path) -> Option<Advisory> {
    if path.extension()? != "md" {
        return None;
    }
    let parsed = fs::read_text(path).ok().and_then(|text| {
        let (_, rest) = text.split_once("```toml")?;
        let (block, _) = rest.split_once("\n```")?;
        toml::from_str::<File>(block).ok()
    });
    let Some(file) = parsed else {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        return Some(Advisory {
            id: name.into_owned(),
            safe: Vec::new(),
        });
    };
    let informs = matches!(
        file.advisory.informational.as_deref(),
        Some("unmaintained" | "notice")
    );
    if informs || file.advisory.withdrawn.is_some() {
        return None;
    }
    let versions = file
        .versions
        .patched
        .iter()
        .chain(&file.versions.unaffected);
    Some(Advisory {
        id: file.advisory.id,
        safe: versions
            .filter_map(|text| VersionReq::parse(text).ok())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_are_affected_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let file = folder.path().join("crates/demo").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text.as_bytes()).unwrap();
        };
        let head = "[advisory]\nid = \"RUSTSEC-2024-0001\"\npackage = \"demo\"\n";
        let versions =
            "[versions]\npatched = [\">= 1.2.3, < 2\", \">= 2.1\"]\nunaffected = [\"< 1\"]\n";
        put(
            "RUSTSEC-2024-0001.md",
            &format!("```toml\n{head}{versions}```\n\n# It leaks\n"),
        );
        put(
            "RUSTSEC-2024-0002.md",
            &format!("```toml\n{head}informational = \"unmaintained\"\n```\n\n# Old\n"),
        );
        put(
            "RUSTSEC-2024-0003.md",
            &format!("```toml\n{head}withdrawn = \"2024-02-01\"\n```\n\n# A mistake\n"),
        );
        assert!(Advisories::open(&folder.path().join("none")).is_none());
        let advisories = Advisories::open(folder.path()).unwrap();
        let affected = |version: &str| {
            let version = Version::parse(version).unwrap();
            advisories.affecting("demo", &version).is_some()
        };
        assert!(affected("1.0.0") && affected("1.2.2") && affected("2.0.5"));
        assert!(!affected("0.9.0") && !affected("1.2.3") && !affected("2.1.0"));
        let version = Version::new(1, 0, 0);
        assert_eq!(advisories.affecting("other", &version), None);
    }

    #[test]
    fn what_cannot_be_read_affects_all_versions() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("crates/demo/RUSTSEC-2024-0009.md");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, b"```toml\n[advisory\n```\n").unwrap();
        let advisories = Advisories::open(folder.path()).unwrap();
        let found = advisories.affecting("demo", &Version::new(1, 0, 0));
        assert_eq!(found.as_deref(), Some("RUSTSEC-2024-0009"));
    }
}
