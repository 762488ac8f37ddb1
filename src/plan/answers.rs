//! Cargo's answers, kept between runs with their folders replaced by names.
//!
//! They count if every manifest, the lock file and every folder in which Cargo
//! looks for targets are as they were. A second checkout therefore asks nothing.
//! A wrong answer could not do harm: it would describe units that Cargo does
//! not have, and those it ignores.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cargo::invocation::Invocation;
use crate::cargo::lock_file::Pins;
use crate::cargo::settings::Settings;
use crate::cargo::unit_graph::UnitGraph;
use crate::cargo::workspace::{Roots, Workspace};
use crate::digest::{ContentHash, RecipeHash};
use crate::environment::Environment;
use crate::fs;

/// Answers that are kept between runs; folders stand as names.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answers {
    pub(super) settings: Settings,
    pub(super) workspace: Workspace,
    pub(super) graph: UnitGraph,
    pub(super) pins: Pins,
    /// Manifests and lock file with their digests; `None` is absent.
    pub(super) files: Vec<(PathBuf, Option<ContentHash>)>,
    /// Folders of targets with the digests of their listings.
    pub(super) listings: Vec<(PathBuf, ContentHash)>,
}

/// A place in the cache, and what is needed to read it here.
pub(super) struct Slot {
    file: Option<PathBuf>,
    manifest_folder: PathBuf,
    cargo_home: PathBuf,
    /// `--target-dir` and its variables; then the answer's own is not used.
    target_dir: Option<PathBuf>,
}

/// The answers as kept: how far the workspace root is above the manifest, where
/// the build directory is, and the rest as portable text.
#[derive(Serialize, Deserialize)]
struct Kept {
    levels: usize,
    target_dir: Option<String>,
    answers: String,
}

impl Slot {
    pub(super) fn new(
        cache: &Path,
        key: &RecipeHash,
        environment: &Environment,
        folder: &Path,
        invocation: &Invocation,
        manifest: &Path,
    ) -> Self {
        let variable = ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"]
            .iter()
            .find_map(|name| environment.get(name))
            .map(PathBuf::from);
        let target_dir = invocation
            .target_dir()
            .or(variable)
            .map(|dir| folder.join(dir));
        // A build directory of its own, or a manifest above the workspace that
        // might be a workspace itself, is looked at anew each time.
        let plain = environment.get("CARGO_BUILD_BUILD_DIR").is_none();
        Self {
            file: plain.then(|| cache.join("graphs").join(format!("{key}.json"))),
            manifest_folder: manifest.parent().unwrap_or(folder).to_owned(),
            cargo_home: environment.cargo_home(),
            target_dir,
        }
    }

    fn roots(&self, workspace: PathBuf, target_dir: Option<&str>) -> Option<Roots> {
        let build_dir = match (&self.target_dir, target_dir) {
            (Some(given), _) => given.clone(),
            (None, Some(kept)) => PathBuf::from(
                kept.replace("@workspace@", &workspace.to_string_lossy())
                    .replace("@cargo-home@", &self.cargo_home.to_string_lossy()),
            ),
            (None, None) => return None,
        };
        Some(Roots {
            build_dir,
            workspace,
            cargo_home: self.cargo_home.clone(),
        })
    }

    pub(super) fn load(&self) -> Option<Answers> {
        let text = fs::read_text(self.file.as_ref()?).ok()?;
        let kept: Kept = serde_json::from_str(&text).ok()?;
        let workspace = self
            .manifest_folder
            .ancestors()
            .nth(kept.levels)?
            .to_owned();
        if has_manifest_above(&workspace) {
            return None;
        }
        let roots = self.roots(workspace, kept.target_dir.as_deref())?;
        let answers: Answers = serde_json::from_str(&roots.local(&kept.answers)).ok()?;
        let files = answers
            .files
            .iter()
            .all(|(path, digest)| digest_of(path) == *digest);
        let listings = || {
            answers
                .listings
                .iter()
                .all(|(path, digest)| listing(path) == *digest)
        };
        (files && listings()).then_some(answers)
    }

    pub(super) fn keep(&self, answers: &Answers) {
        let Some(file) = &self.file else { return };
        let root = &answers.workspace.root;
        let Some(levels) = self.manifest_folder.ancestors().position(|a| a == root) else {
            return;
        };
        if has_manifest_above(root)
            || answers.workspace.build_dir() != answers.workspace.target_directory
        {
            return;
        }
        let roots = Roots {
            build_dir: answers.workspace.target_directory.clone(),
            workspace: root.clone(),
            cargo_home: self.cargo_home.clone(),
        };
        let own = Roots {
            build_dir: "/".into(),
            ..roots.clone()
        };
        let target_dir = answers.workspace.target_directory.to_string_lossy();
        let kept = Kept {
            levels,
            target_dir: self.target_dir.is_none().then(|| own.portable(&target_dir)),
            answers: roots.portable(&serde_json::to_string(answers).expect("answers serialise")),
        };
        let bytes = serde_json::to_vec(&kept).expect("kept answers serialise");
        // Only a shortcut: where it cannot be kept, the next run asks again.
        let folder = file.parent().unwrap_or(Path::new("/"));
        let _ = fs::create_dir_all(folder).and_then(|()| fs::write_atomic(file, &bytes));
    }
}

fn has_manifest_above(workspace: &Path) -> bool {
    workspace
        .ancestors()
        .skip(1)
        .any(|a| a.join("Cargo.toml").is_file())
}

pub(super) fn digest_of(path: &Path) -> Option<ContentHash> {
    fs::read(path).ok().map(|bytes| ContentHash::of(&bytes))
}

/// The digest of a folder's entries by name; of a missing folder, of nothing.
pub(super) fn listing(folder: &Path) -> ContentHash {
    let mut names = String::new();
    for path in fs::list(folder).unwrap_or_default() {
        names.push_str(&path.file_name().unwrap_or_default().to_string_lossy());
        // `src/bin/<name>/main.rs` is a target, too.
        names.push_str(if path.join("main.rs").is_file() {
            "/main\n"
        } else {
            "\n"
        });
    }
    ContentHash::of(names.as_bytes())
}
