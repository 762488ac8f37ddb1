//! A workspace without its code: manifests, lock file and configuration as they
//! are, and a file with next to nothing in it for each target.
//!
//! Cargo makes the same units for the packages it depends on as for the real
//! workspace, because nothing else enters them: what is built this way is what
//! the workspace needs, exactly. None of the workspace's own code is compiled,
//! or leaves this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::builder::{Content, Entry};
use crate::cargo::{self, CargoError, stand_in};
use crate::environment::Environment;
use crate::fs::{self, FsError};
use crate::plan::context::unit_graphs;

/// Why a workspace has no skeleton.
#[derive(Debug, thiserror::Error)]
pub enum SkeletonError {
    /// Cargo could not tell about it.
    #[error("Cargo cannot describe the workspace")]
    Cargo(#[from] CargoError),
    /// A manifest, or the lock file.
    #[error("a file of the workspace cannot be read")]
    File(#[from] FsError),
    /// There is no lock file.
    #[error("`{}` does not exist; `cargo generate-lockfile` writes it", path.display())]
    NoLock {
        /// Where it was expected.
        path: PathBuf,
    },
}

/// A skeleton.
#[derive(Debug)]
pub(super) struct Skeleton {
    /// Its files, below `in/workspace`.
    pub(super) files: Vec<Entry>,
    /// The workspace's folder, below `in/workspace`.
    pub(super) folder: PathBuf,
    /// The lock file.
    pub(super) lock: PathBuf,
    /// Names and versions of all packages of others that Cargo wants to have
    /// here, compiled or not.
    pub(super) packages: BTreeSet<(String, String)>,
    /// The folder in Cargo's home that each registry has, by its URL as in the
    /// lock file.
    pub(super) registries: BTreeMap<String, String>,
    /// Checkouts of Git packages in Cargo's home: the repository's folder, the
    /// checkout's folder in it, and the commit.
    pub(super) checkouts: BTreeSet<(String, String, String)>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

impl Skeleton {
    /// Makes the skeleton of the workspace around `folder`, to be built for
    /// these platforms.
    pub(super) fn make(
        environment: &Environment,
        folder: &Path,
        platforms: &[&str],
        cache: &Path,
    ) -> Result<Self, SkeletonError> {
        let mut command = Command::new(environment.cargo());
        command.current_dir(folder);
        // As for the unit graph, which then needs not ask rustc once more.
        command.env("RUSTC_BOOTSTRAP", "1");
        command.env("CARGO_TARGET_DIR", unit_graphs(cache));
        command.args(["metadata", "--locked", "--format-version", "1"]);
        for platform in platforms {
            command.args(["--filter-platform", platform]);
        }
        let text = cargo::output_of(&mut command)?;
        let metadata: Metadata =
            serde_json::from_str(&text).map_err(|source| CargoError::Answer {
                program: "cargo metadata".to_owned(),
                source,
            })?;
        let root = &metadata.workspace_root;
        let lock = root.join("Cargo.lock");
        if !lock.is_file() {
            return Err(SkeletonError::NoLock { path: lock });
        }
        let own = || metadata.packages.iter().filter(|p| p.source.is_none());
        let folders = own().filter_map(|package| package.manifest_path.parent());
        let base = stand_in::common_ancestor(root, folders);

        let mut files = Files {
            base,
            seen: BTreeSet::new(),
            entries: Vec::new(),
        };
        files.keep(&root.join("Cargo.toml"))?;
        files.keep(&lock)?;
        for name in [".cargo/config.toml", ".cargo/config"] {
            files.keep_configuration(&root.join(name))?;
        }
        for package in own() {
            files.keep(&package.manifest_path)?;
            for target in &package.targets {
                files.stand_in(target);
            }
        }
        let others = metadata.packages.iter().filter(|p| p.source.is_some());
        Ok(Self {
            packages: others
                .map(|p| (p.name.clone(), p.version.clone()))
                .collect(),
            checkouts: metadata.packages.iter().filter_map(checkout).collect(),
            registries: metadata.packages.iter().filter_map(registry).collect(),
            folder: root.strip_prefix(base).unwrap_or(root).to_owned(),
            files: files.entries,
            lock,
        })
    }
}

/// The registry of a package, and its folder: `…/registry/src/<folder>/<package>/`.
fn registry(package: &Package) -> Option<(String, String)> {
    let url = package.source.clone()?;
    let folder = package.manifest_path.parent()?.parent()?;
    let is_unpacked = folder.parent()?.ends_with("registry/src");
    let name = folder.file_name()?.to_str()?;
    is_unpacked.then(|| (url, name.to_owned()))
}

/// The checkout of a Git package: `…/git/checkouts/<repository>/<commit>/…`.
fn checkout(package: &Package) -> Option<(String, String, String)> {
    let source = package.source.as_ref()?.strip_prefix("git+")?;
    let (_, commit) = source.rsplit_once('#')?;
    let path = package.manifest_path.to_str()?;
    let (_, below) = path.split_once("/git/checkouts/")?;
    let mut folders = below.split('/').map(str::to_owned);
    Some((folders.next()?, folders.next()?, commit.to_owned()))
}

struct Files<'a> {
    base: &'a Path,
    seen: BTreeSet<PathBuf>,
    entries: Vec<Entry>,
}

impl Files<'_> {
    fn keep(&mut self, path: &Path) -> Result<(), SkeletonError> {
        if let Some(bytes) = fs::read_optional(path)? {
            self.add(path, bytes);
        }
        Ok(())
    }

    /// A configuration file without what only holds on this machine: where
    /// sources come from, where results go, what runs in front of the compiler.
    fn keep_configuration(&mut self, path: &Path) -> Result<(), SkeletonError> {
        let Some(bytes) = fs::read_optional(path)? else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(&bytes);
        let Ok(mut table) = toml::from_str::<toml::Table>(&text) else {
            return Ok(()); // Cargo has said so already
        };
        for name in ["source", "paths", "net", "http", "install", "alias", "term"] {
            table.remove(name);
        }
        if let Some(build) = table.get_mut("build").and_then(toml::Value::as_table_mut) {
            for name in ["target-dir", "build-dir", "rustc-wrapper", "jobs"] {
                build.remove(name);
            }
        }
        self.add(path, table.to_string().into_bytes());
        Ok(())
    }

    /// A source that compiles to nothing.
    fn stand_in(&mut self, target: &Target) {
        let text = stand_in::source(stand_in::is_library(&target.kind));
        self.add(&target.src_path, text.into());
    }

    fn add(&mut self, path: &Path, bytes: Vec<u8>) {
        let Ok(below) = path.strip_prefix(self.base) else {
            return; // a target outside of its package; Cargo will say so
        };
        if self.seen.insert(below.to_owned()) {
            self.entries.push(Entry {
                path: format!("in/workspace/{}", below.display()),
                content: Content::Bytes {
                    bytes,
                    executable: false,
                },
            });
        }
    }
}
