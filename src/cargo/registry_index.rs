//! What a registry says now about packages: checksums, and what is yanked.
//!
//! Cargo is asked, so that its proxies, credentials and replaced sources count:
//! a scratch package depends on every name in any version, and resolving it
//! makes Cargo look each name up in the index. What it learned is in its cache,
//! in a Cargo home made for this question, so nothing old can be in it.
//!
//! ```text
//! <scratch>/
//!   Cargo.toml, lib.rs       the question
//!   home/                    CARGO_HOME, with links to the user's configuration
//!     registry/index/*/.cache/se/rd/serde
//! ```
//!
//! A cache file is a header, then a version and a line of the index in turn,
//! each ended by a zero byte (`src/cargo/sources/registry/index/cache.rs`,
//! Cargo 1.95). Only the lines are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::source::PackageSource;
use super::{CargoError, output_of};
use crate::environment::Environment;
use crate::fs;

/// What is known of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// SHA-256 of the archive.
    pub checksum: String,
    /// Whether it was withdrawn.
    pub yanked: bool,
}

/// The answer of a registry.
#[derive(Debug, Clone, Default)]
pub struct RegistryIndex {
    versions: BTreeMap<(String, String), Published>,
}

/// The registry could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The question could not be written, or its answer not be read.
    #[error("cannot ask the registry")]
    Files(#[from] fs::FsError),
    /// Cargo did not get the index.
    #[error("Cargo did not get the registry's index")]
    Cargo(#[from] CargoError),
}

/// A line of an index (Cargo book, "Registry index").
#[derive(Deserialize)]
struct Line {
    name: String,
    vers: String,
    cksum: String,
    #[serde(default)]
    yanked: bool,
}

impl RegistryIndex {
    /// Asks a registry about all versions of the packages of these names.
    /// `folder` is where Cargo's configuration is looked for, and `scratch` an
    /// empty folder.
    pub fn ask(
        environment: &Environment,
        folder: &Path,
        registry: &PackageSource,
        names: &BTreeSet<&str>,
        scratch: &Path,
    ) -> Result<Self, IndexError> {
        let home = scratch.join("home");
        fs::create_dir_all(&home)?;
        for file in ["config.toml", "config", "credentials.toml", "credentials"] {
            let own = environment.cargo_home().join(file);
            if own.is_file() {
                fs::symlink(&own, &home.join(file))?;
            }
        }
        fs::write(&scratch.join("lib.rs"), b"")?;
        fs::write(
            &scratch.join("Cargo.toml"),
            question(registry, names).as_bytes(),
        )?;
        let mut command = Command::new(environment.cargo());
        command
            .current_dir(folder)
            .env("CARGO_HOME", &home)
            .args(["generate-lockfile", "--quiet", "--manifest-path"])
            .arg(scratch.join("Cargo.toml"));
        let asked = output_of(&mut command);
        let index = Self::read(&home)?;
        match asked {
            Ok(_) => Ok(index),
            // All names are looked up before versions are chosen, so the answer
            // is whole although Cargo failed to make the versions agree, or for
            // a name that nobody has published.
            Err(CargoError::Failed { message, .. })
                if names.iter().all(|name| index.knows(name))
                    || (message.contains("no matching package")
                        && !message.contains("offline mode")) =>
            {
                Ok(index)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn read(home: &Path) -> Result<Self, IndexError> {
        let mut index = Self::default();
        let folder = home.join("registry/index");
        for file in fs::walk(&folder)? {
            if file.components().any(|part| part.as_os_str() == ".cache") {
                index.learn(&fs::read(&folder.join(file))?);
            }
        }
        Ok(index)
    }

    fn learn(&mut self, cache: &[u8]) {
        for line in lines(cache) {
            if let Ok(line) = serde_json::from_slice::<Line>(line) {
                let published = Published {
                    checksum: line.cksum,
                    yanked: line.yanked,
                };
                self.versions.insert((line.name, line.vers), published);
            }
        }
    }

    fn knows(&self, name: &str) -> bool {
        let first = (name.to_owned(), String::new());
        let mut from = self.versions.range(first..);
        from.next().is_some_and(|((found, _), _)| found == name)
    }

    /// What is known of a version; `None` if it was never published.
    pub fn of(&self, name: &str, version: &str) -> Option<&Published> {
        self.versions.get(&(name.to_owned(), version.to_owned()))
    }
}

/// The lines of the index in a cache file.
pub(super) fn lines(cache: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = cache.split(|byte| *byte == 0);
    parts.filter(|part| part.starts_with(b"{"))
}

/// A manifest that makes Cargo look up every name.
fn question(registry: &PackageSource, names: &BTreeSet<&str>) -> String {
    let place = match registry {
        PackageSource::Registry { index } => format!(", registry-index = \"{index}\""),
        _ => String::new(),
    };
    let mut manifest = "[package]\nname = \"quickbuild-question\"\nversion = \"0.0.0\"\n\
        edition = \"2021\"\npublish = false\n\n[workspace]\n\n[lib]\npath = \"lib.rs\"\n\n[dependencies]\n"
        .to_owned();
    for name in names {
        manifest.push_str(&format!("{name} = {{ version = \"*\"{place} }}\n"));
    }
    manifest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_cache_file_are_read() {
        let mut index = RegistryIndex::default();
        index.learn(
            b"\x03\x02\0\0\0etag: x\x001.0.0\0{\"name\":\"a\",\"vers\":\"1.0.0\",\"cksum\":\"00\",\"yanked\":true,\"deps\":[]}\x001.1.0\0{\"name\": \"a\", \"vers\": \"1.1.0\", \"cksum\": \"11\"}\0{junk\0",
        );
        let published = |version| index.of("a", version).map(|p| (&*p.checksum, p.yanked));
        assert_eq!(published("1.0.0"), Some(("00", true)));
        assert_eq!(published("1.1.0"), Some(("11", false)));
        assert_eq!(published("1.2.0"), None);
    }

    #[test]
    fn the_question_names_the_registry() {
        let names = BTreeSet::from(["a"]);
        let registry = PackageSource::Registry {
            index: "sparse+https://example.org/i/".to_owned(),
        };
        let text = question(&registry, &names);
        assert!(text.contains("a = { version = \"*\", registry-index = \"sparse+https://"));
        assert!(question(&PackageSource::CratesIo, &names).ends_with("a = { version = \"*\" }\n"));
    }
}
