//! Cargo.lock: what exactly a package is, where its id does not say so.
//!
//! A package id of the unit graph has neither the checksum of a registry's
//! archive nor the commit of a Git checkout. The lock file has both (Cargo book,
//! "Cargo.toml vs Cargo.lock").

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::unit_graph::{PackageId, Source, decode};

/// All pins of a lock file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pins(Vec<(Locked, Pin)>);

/// A package as both the lock file and the unit graph name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Locked {
    name: String,
    version: String,
    /// URL without the commit, decoded: lock files before version 4 do not
    /// encode the query.
    source: String,
}

/// What a lock file says beyond name, version and URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pin {
    /// SHA-256 of a registry package's archive.
    Checksum(String),
    /// The commit of a Git package.
    Revision(String),
}

impl Pins {
    /// Reads a lock file; there are no pins where it cannot be read.
    pub fn load(lock: &Path) -> Self {
        let Ok(lock) = cargo_lock::Lockfile::load(lock) else {
            return Self::default();
        };
        let pins = lock.packages.into_iter().filter_map(|package| {
            let url = package.source?.to_string();
            let (url, revision) = match url.split_once('#') {
                Some((url, revision)) => (url.to_owned(), Some(revision.to_owned())),
                None => (url, None),
            };
            let pin = if url.starts_with("git+") {
                Pin::Revision(revision?)
            } else {
                Pin::Checksum(package.checksum?.to_string())
            };
            let locked = Locked {
                name: package.name.to_string(),
                version: package.version.to_string(),
                source: decode(&url),
            };
            Some((locked, pin))
        });
        Self(pins.collect())
    }

    /// The pins by what they belong to.
    pub fn index(self) -> PinIndex {
        PinIndex(self.0.into_iter().collect())
    }
}

/// Pins, to look up.
#[derive(Debug, Clone, Default)]
pub struct PinIndex(HashMap<Locked, Pin>);

impl PinIndex {
    /// The pin of a package; path packages have none.
    pub fn of(&self, package: &PackageId) -> Option<&Pin> {
        let Source::Immutable(url) = &package.source else {
            return None;
        };
        self.0.get(&Locked {
            name: package.name.clone(),
            version: package.version.clone(),
            source: decode(url),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_one_name_and_version_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("Cargo.lock");
        let package = |source: &str, rest: &str| {
            format!(
                "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"{source}\"\n{rest}\n"
            )
        };
        let commit = "06b1224dcc2f8cef2c88ec202074e6cf6dbcd34d";
        let sum = "3f9eec918d3f24069decb9af1554cad7c880e2da24a9afd88aca000531ab82c1";
        let text = format!(
            "version = 4\n\n{}{}{}",
            package(
                "registry+https://github.com/rust-lang/crates.io-index",
                &format!("checksum = \"{sum}\"\n")
            ),
            package(
                &format!("git+https://example.org/a?branch=x%2Fy#{commit}"),
                ""
            ),
            package(
                "sparse+https://example.org/index/",
                &format!("checksum = \"{}\"\n", sum.replace('3', "4"))
            ),
        );
        crate::fs::write(&lock, text.as_bytes()).unwrap();
        let pins = Pins::load(&lock).index();
        let pin = |id: &str| pins.of(&PackageId::parse(id).unwrap()).cloned();
        assert_eq!(
            pin("registry+https://github.com/rust-lang/crates.io-index#a@1.0.0"),
            Some(Pin::Checksum(sum.to_owned()))
        );
        assert_eq!(
            pin("git+https://example.org/a?branch=x%2Fy#1.0.0"),
            Some(Pin::Revision(commit.to_owned()))
        );
        assert_eq!(
            pin("sparse+https://example.org/index/#a@1.0.0"),
            Some(Pin::Checksum(sum.replace('3', "4")))
        );
        assert_eq!(pin("git+https://example.org/a#1.0.0"), None);
    }
}
