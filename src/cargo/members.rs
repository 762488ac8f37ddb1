//! The manifests that a lock file is for, as Cargo reads them: those of the
//! workspace, and of folders outside of it that it depends on.
//!
//! A copy of them has all that Cargo resolves by, and none of the code: a file
//! with next to nothing in it stands for each target.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use semver::{Version, VersionReq};
use serde::Deserialize;

use super::releases::{Requirement, rust_version};
use super::{CargoError, output_of, stand_in};
use crate::environment::Environment;
use crate::fs;

/// All manifests.
#[derive(Debug)]
pub struct Members {
    /// The folder of the workspace's root manifest.
    pub root: PathBuf,
    /// The packages, by their manifests.
    pub packages: BTreeMap<PathBuf, Member>,
    /// Root manifests of all workspaces that these are of.
    roots: BTreeSet<PathBuf>,
}

/// One package.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// What it needs, its tests included.
    pub requirements: Vec<Requirement>,
    /// The oldest Rust that it says to need.
    pub rust_version: Option<Version>,
    /// Root source files, and whether each is a library's.
    targets: Vec<(PathBuf, bool)>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    rust_version: Option<String>,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    req: String,
    #[serde(default)]
    optional: bool,
    target: Option<String>,
    #[serde(default)]
    features: Vec<String>,
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

impl Members {
    /// Asks Cargo (`cargo metadata --no-deps`, Cargo book) about the workspace
    /// around `folder`, or that of a manifest.
    pub fn load(
        environment: &Environment,
        folder: &Path,
        manifest: Option<&Path>,
    ) -> Result<Self, CargoError> {
        let metadata = ask(environment, folder, manifest)?;
        let mut members = Self {
            root: metadata.workspace_root.clone(),
            packages: BTreeMap::new(),
            roots: BTreeSet::new(),
        };
        let mut open = members.enter(metadata);
        open.extend(patched(&members.root.join("Cargo.toml")));
        while let Some(folder) = open.pop() {
            let manifest = folder.join("Cargo.toml");
            if members.packages.contains_key(&manifest) || !manifest.is_file() {
                continue;
            }
            match ask(environment, &folder, Some(&manifest)) {
                Ok(metadata) => open.extend(members.enter(metadata)),
                // What is patched in need not be a package that Cargo describes by
                // itself: it may lie in a workspace that it is not of.
                Err(_) => {
                    let member = Member::read(&folder);
                    members.packages.insert(manifest.clone(), member);
                }
            }
            // It may be called otherwise by Cargo.
            let known = members.packages.entry(manifest);
            known.or_insert_with(Member::empty);
        }
        members.packages.retain(|_, member| !member.name.is_empty());
        Ok(members)
    }

    /// Takes packages in, and says in which folders others are.
    fn enter(&mut self, metadata: Metadata) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        self.roots
            .insert(metadata.workspace_root.join("Cargo.toml"));
        for package in metadata.packages {
            let paths = package.dependencies.iter();
            folders.extend(paths.filter_map(|dependency| dependency.path.clone()));
            let requirements = package.dependencies.into_iter().filter_map(|dependency| {
                Some(Requirement {
                    versions: VersionReq::parse(&dependency.req).ok()?,
                    package: dependency.name,
                    optional: dependency.optional,
                    by_default: !dependency.optional,
                    everywhere: dependency.target.is_none(),
                    features: dependency.features,
                })
            });
            let targets = package.targets.iter();
            let member = Member {
                name: package.name,
                requirements: requirements.collect(),
                rust_version: package.rust_version.as_deref().and_then(rust_version),
                targets: targets
                    .map(|target| {
                        let is_library = stand_in::is_library(&target.kind);
                        (target.src_path.clone(), is_library)
                    })
                    .collect(),
            };
            self.packages.insert(package.manifest_path, member);
        }
        folders
    }

    /// The oldest Rust that a package of the workspace says to need.
    pub fn rust_version(&self) -> Option<Version> {
        let packages = self.packages.values();
        packages
            .filter_map(|member| member.rust_version.clone())
            .min()
    }

    /// Writes the manifests and the lock file into a new folder, with stand-ins
    /// for the code. Gives the workspace's root there.
    pub fn copy(&self, lock: &[u8], to: &Path) -> fs::Result<PathBuf> {
        let folders = self
            .packages
            .keys()
            .filter_map(|manifest| manifest.parent());
        let roots = self.roots.iter().filter_map(|root| root.parent());
        let base = stand_in::common_ancestor(&self.root, folders.chain(roots));
        let place = |path: &Path| Some(to.join(path.strip_prefix(base).ok()?));
        let put = |path: &Path, bytes: &[u8]| {
            let Some(place) = place(path) else {
                return Ok(()); // a target outside of its package
            };
            if let Some(folder) = place.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&place, bytes)
        };
        for manifest in self.packages.keys().chain(&self.roots) {
            put(manifest, &fs::read(manifest)?)?;
        }
        for (source, is_library) in self.packages.values().flat_map(|member| &member.targets) {
            put(source, stand_in::source(*is_library))?;
        }
        put(&self.root.join("Cargo.lock"), lock)?;
        Ok(place(&self.root).unwrap_or_else(|| to.to_owned()))
    }
}

impl Member {
    /// What can be told of a package without Cargo: where it has code.
    fn read(folder: &Path) -> Self {
        let text = fs::read_text(&folder.join("Cargo.toml")).unwrap_or_default();
        let table: toml::Table = toml::from_str(&text).unwrap_or_default();
        let value = |part: &str, key: &str| table.get(part)?.get(key)?.as_str();
        let usual = ["src/lib.rs", "src/main.rs", "build.rs"];
        let named = [value("lib", "path"), value("package", "build")];
        let files = usual.into_iter().chain(named.into_iter().flatten());
        let files = files.map(|path| folder.join(path));
        let files = files.filter(|path| path.is_file());
        Self {
            name: value("package", "name").unwrap_or_default().to_owned(),
            targets: files.map(|path| (path, false)).collect(),
            ..Self::empty()
        }
    }

    fn empty() -> Self {
        Self {
            name: String::new(),
            requirements: Vec::new(),
            rust_version: None,
            targets: Vec::new(),
        }
    }
}

fn ask(
    environment: &Environment,
    folder: &Path,
    manifest: Option<&Path>,
) -> Result<Metadata, CargoError> {
    let mut command = Command::new(environment.cargo());
    command.current_dir(folder);
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    if let Some(manifest) = manifest {
        command.arg("--manifest-path").arg(manifest);
    }
    let text = output_of(&mut command)?;
    serde_json::from_str(&text).map_err(|source| CargoError::Answer {
        program: "cargo metadata".to_owned(),
        source,
    })
}

/// Folders that the `[patch]` of a manifest puts in the place of packages.
fn patched(manifest: &Path) -> Vec<PathBuf> {
    let text = fs::read_text(manifest).unwrap_or_default();
    // Cargo has read it already.
    let table: toml::Table = toml::from_str(&text).unwrap_or_default();
    let registries = table.get("patch").and_then(toml::Value::as_table);
    let registries = registries.into_iter().flat_map(toml::Table::values);
    let packages = registries.filter_map(toml::Value::as_table);
    let packages = packages.flat_map(toml::Table::values);
    let paths = packages.filter_map(|package| package.get("path")?.as_str());
    let folder = manifest.parent().unwrap_or(Path::new("/"));
    paths.map(|path| clean(&folder.join(path))).collect()
}

/// A path without `..` where that is possible.
fn clean(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_absent| path.to_owned())
}
