//! What a registry's index says of dependencies, as far as Cargo has looked it
//! up (`index_files.rs`). Nothing is asked for here.
//!
//! A lock file has the packages of all platforms; the index tells which
//! dependency is for which (Cargo book, "Registry index", `target` and `kind`).

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};

use cargo_platform::{Cfg, Platform};
use serde::Deserialize;

use super::index_files::IndexFiles;
use super::{CargoError, output_of};
use crate::environment::Environment;
use crate::fs;

/// A platform with what its compiler says of it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its triple.
    pub triple: String,
    settings: Vec<Cfg>,
}

impl Target {
    /// Asks rustc (`--print cfg`) about a platform, or the one that it runs on.
    pub fn ask(
        environment: &Environment,
        folder: &Path,
        triple: Option<&str>,
    ) -> Result<Self, CargoError> {
        let rustc = environment.get("RUSTC").unwrap_or("rustc");
        let run =
            |arguments: &[&str]| output_of(Command::new(rustc).args(arguments).current_dir(folder));
        let triple = match triple {
            Some(triple) => triple.to_owned(),
            None => {
                let version = run(&["-vV"])?;
                super::toolchain::field(&version, "host")
                    .unwrap_or_default()
                    .to_owned()
            }
        };
        let printed = run(&["--print", "cfg", "--target", &triple])?;
        // Those that this library does not know, no manifest can mean.
        let settings = printed.lines().filter_map(|line| Cfg::from_str(line).ok());
        Ok(Self {
            settings: settings.collect(),
            triple,
        })
    }

    fn has(&self, platform: Option<&str>) -> bool {
        platform.is_none_or(|platform| {
            // What cannot be read is taken to be meant.
            Platform::from_str(platform).map_or(true, |platform| {
                platform.matches(&self.triple, &self.settings)
            })
        })
    }
}

/// Names of packages that are needed.
type Needed = Arc<BTreeSet<String>>;
/// The same by package and version; nothing for those that do not exist.
type Known = HashMap<(String, String), Option<Needed>>;

/// Dependencies of published packages on one platform.
#[derive(Debug)]
pub struct IndexCache {
    target: Target,
    files: IndexFiles,
    known: Mutex<Known>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// The package's own name, where the manifest gives it another.
    package: Option<String>,
    target: Option<String>,
    kind: Option<String>,
}

impl IndexCache {
    /// Looks at the index of crates.io in some Cargo homes.
    pub fn open(target: Target, cargo_homes: &[PathBuf]) -> fs::Result<Self> {
        Ok(Self {
            target,
            files: IndexFiles::open(cargo_homes)?,
            known: Mutex::default(),
        })
    }

    /// The platform.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Names of the packages that a version of a package needs on the platform,
    /// with all its features; `None` where the index is not at hand.
    pub fn needed(&self, name: &str, version: &str) -> Option<Needed> {
        let key = (name.to_owned(), version.to_owned());
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(needed) = lock().get(&key) {
            return needed.clone();
        }
        let needed = self
            .files
            .of(name)
            .get(version)
            .and_then(|line| self.read(line));
        lock().insert(key, needed.clone());
        needed
    }

    fn read(&self, line: &[u8]) -> Option<Needed> {
        let line: Line = serde_json::from_slice(line).ok()?;
        let needed = line.deps.into_iter().filter(|dependency| {
            dependency.kind.as_deref() != Some("dev")
                && self.target.has(dependency.target.as_deref())
        });
        let needed = needed.map(|dependency| dependency.package.unwrap_or(dependency.name));
        Some(Arc::new(needed.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        let settings = ["unix", "target_os=\"linux\"", "target_arch=\"x86_64\""];
        let settings = settings.map(|text| Cfg::from_str(text).unwrap());
        Target {
            triple: "x86_64-unknown-linux-gnu".to_owned(),
            settings: settings.to_vec(),
        }
    }

    #[test]
    fn what_is_for_other_platforms_or_for_tests_is_not_needed() {
        let home = tempfile::tempdir().unwrap();
        let folder = home
            .path()
            .join("registry/index/index.crates.io-0123/.cache/de/mo");
        fs::create_dir_all(&folder).unwrap();
        let line = r#"{"name":"demo","vers":"1.0.0","cksum":"00","deps":[
            {"name":"all","kind":"normal","target":null},
            {"name":"alias","package":"real","kind":"build","target":null},
            {"name":"tests","kind":"dev","target":null},
            {"name":"both","kind":"dev","target":null},
            {"name":"both","kind":"normal","target":"cfg(unix)"},
            {"name":"windows","kind":"normal","target":"cfg(windows)"},
            {"name":"triple","kind":"normal","target":"x86_64-unknown-linux-gnu"},
            {"name":"other","kind":"normal","target":"aarch64-apple-darwin"},
            {"name":"strange","kind":"normal","target":"cfg(what is this)"}]}"#;
        let bytes = format!(
            "\u{3}\u{2}\0\0\0\0etag: x\01.0.0\0{}\0",
            line.replace('\n', "")
        );
        fs::write(&folder.join("demo"), bytes.as_bytes()).unwrap();
        let index = IndexCache::open(target(), &[home.path().to_owned()]).unwrap();
        let needed = index.needed("demo", "1.0.0").unwrap();
        let needed: Vec<&str> = needed.iter().map(String::as_str).collect();
        assert_eq!(needed, ["all", "both", "real", "strange", "triple"]);
        assert_eq!(index.needed("demo", "2.0.0"), None);
        assert_eq!(index.needed("none", "1.0.0"), None);
    }
}
