//! What compiling a tree of a lock file comes down to, asked of this machine's Cargo.
//!
//! A package of its own that needs the tree's is written into a folder, with the tree
//! as its Cargo.lock, and its recipes are exported as those of any project. So Cargo
//! downloads packages, reads their manifests and resolves features; nothing of them is
//! compiled or run.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::features::{Described, Features};
use super::{LOOK, Result, Worker, WorkerError, end_of, last_error};
use crate::cargo::lock_graph::{LockGraph, LockedPackage};
use crate::cargo::toolchain::builder_name;
use crate::fs;
use crate::interrupt::Held;
use crate::recipe::package::PackageRecipe;
use crate::recipe::repository::Repository;
use crate::report::work::Tree;

/// How long Cargo may take; it downloads what it has not seen.
const LONGEST: Duration = Duration::from_secs(300);
/// Toolchains that change from day to day are not guessed for.
const CHANGING: &str = "nightly";

/// What is read of `cargo metadata`.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Described>,
}

/// Those of a worker's builders that this machine has the toolchain of.
pub(super) fn builders(worker: &Worker, held: &Held) -> Vec<String> {
    let Ok(scratch) = worker.scratch() else {
        return Vec::new();
    };
    let is_here = |builder: &&String| {
        if builder.starts_with(CHANGING) {
            return false;
        }
        let mut rustc = Command::new(worker.environment.get("RUSTC").unwrap_or("rustc"));
        let said = run(rustc.arg("-vV"), builder, scratch.path(), held);
        said.is_ok_and(|said| builder_name(&said).as_ref() == Some(*builder))
    };
    worker.builders.iter().filter(is_here).cloned().collect()
}

/// The recipes of a tree, each after what it needs.
pub(super) fn plan(worker: &Worker, tree: &Tree, held: &Held) -> Result<Vec<String>> {
    let scratch = worker.scratch()?;
    let folder = scratch.path().join("project");
    fs::create_dir_all(&folder.join("src"))?;
    fs::write(&folder.join("src/lib.rs"), b"")?;
    let write = |features: &Features| -> Result<()> {
        fs::write(
            &folder.join("Cargo.toml"),
            manifest(tree, features).as_bytes(),
        )?;
        Ok(fs::write(&folder.join("Cargo.lock"), tree.lock.as_bytes())?)
    };
    write(&Features {
        default: true,
        others: Vec::new(),
    })?;
    let mut metadata = Command::new(worker.environment.cargo());
    metadata.args(["metadata", "--format-version", "1"]);
    let metadata = run(&mut metadata, &tree.builder, &folder, held)?;
    let metadata: Metadata = serde_json::from_str(&metadata)
        .map_err(|_other| undone("what `cargo metadata` says cannot be read"))?;
    let is_root = |one: &&Described| one.name == tree.name && one.version == tree.version;
    let root = metadata.packages.iter().find(is_root);
    let root = root.ok_or_else(|| undone("Cargo has another version of it"))?;
    write(&root.features_for(&needed(tree)?))?;
    let recipes = scratch.path().join("recipes");
    let mut export = Command::new(&worker.program);
    export.args(["recipe", "export", "--to"]).arg(&recipes);
    let _ = run(&mut export, &tree.builder, &folder, held)?;
    texts(tree, &recipes)
}

/// The names of what the tree's package needs there.
fn needed(tree: &Tree) -> Result<BTreeSet<String>> {
    let lock = LockGraph::parse(tree.lock.as_bytes());
    let lock = lock.map_err(|_none| undone("the service gives a tree that is none"))?;
    let is_root = |one: &&LockedPackage| one.name == tree.name && one.version == tree.version;
    let root = lock.packages.iter().find(is_root);
    let needs = root.into_iter().flat_map(|root| &root.dependencies);
    let names = needs.map(|need| lock.packages[*need].name.clone());
    Ok(names.collect())
}

fn manifest(tree: &Tree, features: &Features) -> String {
    let Tree { name, version, .. } = tree;
    let Features { default, others } = features;
    format!(
        "[package]\nname = \"quickbuild-plan\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[workspace]\n\n\
         [dependencies.planned]\npackage = {name:?}\nversion = \"={version}\"\n\
         default-features = {default}\nfeatures = {others:?}\n"
    )
}

/// What was exported for the tree's package, in its forms for host and target.
fn texts(tree: &Tree, folder: &Path) -> Result<Vec<String>> {
    let repository = Repository::read(folder)?;
    let recipes = repository.entries().iter().map(|entry| &entry.recipe);
    let is_root = |one: &&PackageRecipe| one.name() == tree.name && one.version() == tree.version;
    let roots: Vec<_> = recipes.filter(is_root).map(PackageRecipe::hash).collect();
    if roots.is_empty() {
        return Err(undone("nobody else could use what it is compiled to"));
    }
    let closure = repository.closure(&roots);
    let closure = closure.map_err(|_open| undone("its recipes are not closed"))?;
    Ok(closure.iter().map(|recipe| recipe.to_toml()).collect())
}

/// Runs something with a builder's toolchain, where rustup has that, and gives what it
/// prints.
fn run(command: &mut Command, builder: &str, folder: &Path, held: &Held) -> Result<String> {
    let (out, err) = (folder.join(".stdout"), folder.join(".stderr"));
    let mut child = command
        .env("RUSTUP_TOOLCHAIN", builder)
        .env("RUSTUP_AUTO_INSTALL", "0")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(fs::create(&out)?)
        .stderr(fs::create(&err)?)
        .spawn()
        .map_err(WorkerError::Start)?;
    let until = Instant::now() + LONGEST;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(WorkerError::Start)? {
            break status;
        }
        if held.asked().is_some() || Instant::now() > until {
            let _ = child.kill(); // it may be gone
            let _ = child.wait();
            return Err(WorkerError::Stopped);
        }
        std::thread::sleep(LOOK);
    };
    if !status.success() {
        return Err(undone(&last_error(&end_of(&err))));
    }
    Ok(String::from_utf8_lossy(&fs::read(&out)?).into_owned())
}

fn undone(reason: &str) -> WorkerError {
    WorkerError::Undone {
        recipe: true,
        reason: reason.to_owned(),
    }
}
