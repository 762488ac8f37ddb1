//! What a command means here: toolchain, configuration, workspace, unit graph.
//!
//! Asking Cargo for all of it costs as much as a whole build with nothing to
//! do. So the answers are kept under a key of all that is known beforehand.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::answers::{Answers, Slot, digest_of, listing};
use super::graph::Common;
use crate::cargo::invocation::{Invocation, Subcommand};
use crate::cargo::layout::{self, Layout, LayoutKind};
use crate::cargo::lock_file::Pins;
use crate::cargo::settings::Settings;
use crate::cargo::toolchain::Toolchain;
use crate::cargo::unit_graph::{PackageId, Source, UnitGraph};
use crate::cargo::workspace::{Roots, Workspace};
use crate::cargo::{self, CargoError};
use crate::digest::{Canonical, RecipeHash};
use crate::environment::Environment;
use crate::fs;
use crate::recipe::Tools;

/// All that planning starts from.
#[derive(Debug)]
pub struct Context {
    /// The variables of this process.
    pub environment: Environment,
    /// The command.
    pub invocation: Invocation,
    /// The folder in which it was given.
    pub folder: PathBuf,
    /// The toolchain.
    pub toolchain: Toolchain,
    /// Cargo's configuration.
    pub settings: Settings,
    /// Folders that differ between users.
    pub roots: Roots,
    /// The build directory.
    pub layout: Layout,
    /// The final artefacts' directory.
    pub target_dir: PathBuf,
    /// The unit graph.
    pub graph: UnitGraph,
    /// What all recipes have in common.
    pub common: Common,
    /// Files and folders whose change may change the graph.
    pub watched: Vec<PathBuf>,
}

/// Why no plan can be made; Cargo then runs alone.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// There is no manifest above this folder; Cargo will say so.
    #[error("there is no `Cargo.toml` in `{}` or above it", folder.display())]
    NoManifest {
        /// Where the command was given.
        folder: PathBuf,
    },
    /// Cargo could not say what it would do; it will say why when it runs.
    #[error("Cargo gives no unit graph")]
    Cargo(#[from] CargoError),
    /// Which compiler is meant depends on the configuration file that says so.
    #[error("`build.rustc` is the relative path `{0}`, which only Cargo can resolve")]
    RelativeCompiler(String),
    /// The unit graph has another version.
    #[error("the unit graph has version {0}, only 1 is known")]
    GraphVersion(u32),
}

impl Context {
    /// Finds out, from the cache where it holds.
    pub fn gather(
        environment: &Environment,
        folder: &Path,
        invocation: &Invocation,
        cache: &Path,
    ) -> Result<Self, ContextError> {
        let toolchains = cache.join("toolchains");
        let toolchain = Toolchain::detect(environment, folder, &toolchains)?;
        let manifest = nearest_manifest(folder, invocation)?;
        let key = key(environment, invocation, &toolchain, folder, &manifest);
        let slot = Slot::new(cache, &key, environment, folder, invocation, &manifest);
        let answers = match slot.load() {
            Some(answers) => answers,
            None => {
                let question = Question {
                    environment,
                    folder,
                    invocation,
                    cache,
                };
                let answers = question.ask(&manifest)?;
                slot.keep(&answers);
                answers
            }
        };
        if answers.graph.version != 1 {
            return Err(ContextError::GraphVersion(answers.graph.version));
        }
        let toolchain = match configured_compiler(environment, &answers.settings)? {
            Some(rustc) => {
                let mut environment = environment.clone();
                environment.set("RUSTC", rustc);
                Toolchain::detect(&environment, folder, &toolchains)?
            }
            None => toolchain,
        };
        Ok(Self::assemble(
            environment,
            folder,
            invocation,
            toolchain,
            answers,
        ))
    }

    fn assemble(
        environment: &Environment,
        folder: &Path,
        invocation: &Invocation,
        toolchain: Toolchain,
        answers: Answers,
    ) -> Self {
        let Answers {
            settings,
            workspace,
            graph,
            pins,
            files,
            listings,
        } = answers;
        let roots = Roots {
            build_dir: workspace.build_dir().to_owned(),
            workspace: workspace.root.clone(),
            cargo_home: environment.cargo_home(),
        };
        let layout = Layout {
            build_dir: workspace.build_dir().to_owned(),
            profile_dir: layout::profile_dir(invocation.profile()).to_owned(),
            kind: layout_kind(environment, invocation, &settings, &toolchain),
        };
        let workspace_wrapper = match invocation.subcommand {
            Subcommand::Clippy => Some(
                toolchain
                    .sysroot
                    .join("bin/clippy-driver")
                    .to_string_lossy()
                    .into_owned(),
            ),
            _ => environment
                .get("RUSTC_WORKSPACE_WRAPPER")
                .or_else(|| settings.text(&["build", "rustc-workspace-wrapper"]))
                .map(str::to_owned),
        };
        let common = Common {
            tools: Tools {
                rustc: toolchain.rustc.clone(),
                cargo: toolchain.cargo.clone(),
                layout: match layout.kind {
                    LayoutKind::Legacy => "legacy".to_owned(),
                    LayoutKind::PerUnit => "per-unit".to_owned(),
                },
            },
            host: toolchain.host().to_owned(),
            settings: recipe_settings(environment, invocation, &settings, &roots),
            pins: pins.index(),
            roots: roots.clone(),
            workspace_wrapper,
            members: workspace
                .packages
                .iter()
                .map(|member| member.name.clone())
                .collect(),
            checks_tests_only: invocation.checks_tests_only(),
        };
        let watched = files
            .into_iter()
            .map(|(path, _)| path)
            .chain(listings.into_iter().map(|(path, _)| path))
            .collect();
        Self {
            environment: with_clippy_arguments(environment, invocation),
            invocation: invocation.clone(),
            folder: folder.to_owned(),
            toolchain,
            settings,
            roots,
            layout,
            target_dir: workspace.target_directory,
            graph,
            common,
            watched,
        }
    }
}

/// The compiler that the configuration names; the variable `RUSTC`, which is
/// known before, goes first (Cargo book, "build.rustc").
fn configured_compiler(
    environment: &Environment,
    settings: &Settings,
) -> Result<Option<String>, ContextError> {
    if environment.get("RUSTC").is_some() {
        return Ok(None);
    }
    let named = environment
        .get("CARGO_BUILD_RUSTC")
        .or_else(|| settings.text(&["build", "rustc"]));
    match named {
        Some(path) if path.contains('/') && !Path::new(path).is_absolute() => {
            Err(ContextError::RelativeCompiler(path.to_owned()))
        }
        named => Ok(named.map(str::to_owned)),
    }
}

/// Clippy hands its arguments to its driver in a variable, which the driver
/// lists among what it read (`src/main.rs` and `src/driver.rs` of clippy).
fn with_clippy_arguments(environment: &Environment, invocation: &Invocation) -> Environment {
    let mut environment = environment.clone();
    if invocation.subcommand == Subcommand::Clippy {
        let own = invocation.own_arguments().iter();
        let no_deps = own.filter(|argument| *argument == "--no-deps");
        let arguments = no_deps.chain(invocation.passed_arguments());
        let joined: String = arguments
            .map(|a| format!("{a}__CLIPPY_HACKERY__"))
            .collect();
        environment.set("CLIPPY_ARGS", joined);
    }
    environment
}

/// The manifest that Cargo starts from.
pub fn nearest_manifest(folder: &Path, invocation: &Invocation) -> Result<PathBuf, ContextError> {
    let given = invocation.manifest_path().map(|path| folder.join(path));
    given
        .or_else(|| {
            folder
                .ancestors()
                .map(|a| a.join("Cargo.toml"))
                .find(|m| m.is_file())
        })
        .filter(|manifest| manifest.is_file())
        .ok_or_else(|| ContextError::NoManifest {
            folder: folder.to_owned(),
        })
}

/// Cargo's configuration files that count in a folder, whether present or not
/// (Cargo book, "Configuration": hierarchical structure).
pub fn configuration_files(environment: &Environment, folder: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = folder.ancestors().map(|a| a.join(".cargo")).collect();
    let home = environment.cargo_home();
    if !folders.contains(&home) {
        folders.push(home);
    }
    let names = ["config.toml", "config"];
    folders
        .iter()
        .flat_map(|f| names.iter().map(|name| f.join(name)))
        .collect()
}

/// Variables that may change the graph or the recipes. Places are left out:
/// they are looked at by themselves.
pub fn is_relevant_variable(name: &str) -> bool {
    const PLACES: [&str; 12] = [
        "CARGO_HOME",
        "RUSTUP_HOME",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET_DIR",
        "CARGO",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "RUST_LOG",
        "RUST_BACKTRACE",
        "CARGO_TERM_COLOR",
        "CARGO_TERM_VERBOSE",
        "RUST_RECURSION_COUNT",
    ];
    (name.starts_with("CARGO_") || name.starts_with("RUST")) && !PLACES.contains(&name)
}

fn key(
    environment: &Environment,
    invocation: &Invocation,
    toolchain: &Toolchain,
    folder: &Path,
    manifest: &Path,
) -> RecipeHash {
    let mut key = Canonical::new("quickbuild-context-2");
    key.list(&invocation.significant_arguments());
    key.text(&toolchain.rustc).text(&toolchain.cargo);
    let manifest_folder = manifest.parent().unwrap_or(folder);
    let below = folder
        .strip_prefix(manifest_folder)
        .unwrap_or(Path::new("-"));
    key.text(&below.to_string_lossy());
    key.option(fs::read_text(manifest).ok().as_deref());
    for (name, value) in environment.matching(is_relevant_variable) {
        key.text(name).text(value);
    }
    for file in configuration_files(environment, folder) {
        key.option(fs::read_text(&file).ok().as_deref());
    }
    RecipeHash::finish(key)
}

/// What Cargo is asked about.
struct Question<'a> {
    environment: &'a Environment,
    folder: &'a Path,
    invocation: &'a Invocation,
    cache: &'a Path,
}

/// A target directory in the cache in which nothing is compiled, for questions
/// to Cargo.
pub fn unit_graphs(cache: &Path) -> PathBuf {
    cache.join("unit-graph")
}

impl Question<'_> {
    fn ask(&self, manifest: &Path) -> Result<Answers, ContextError> {
        let Self {
            environment,
            folder,
            invocation,
            ..
        } = *self;
        // At once: Cargo takes longer to start than to answer.
        let (graph, (settings, workspace)) = rayon::join(
            || self.graph(),
            || {
                rayon::join(
                    || Settings::load(environment, folder, &self.config_arguments()),
                    || Workspace::load(environment, folder, invocation),
                )
            },
        );
        Ok(gathered(manifest, settings?, workspace?, graph?))
    }

    fn config_arguments(&self) -> Vec<String> {
        let values = self.invocation.values(&["--config"]).into_iter();
        values
            .flat_map(|value| ["--config".to_owned(), value.to_owned()])
            .collect()
    }

    /// With `RUSTC_BOOTSTRAP` the compiler tells more `cfg`s than it should, and
    /// Cargo must not find those in its own cache. So its target directory is
    /// one that nothing is compiled in, and that all projects share: what the
    /// compiler says is the same for all.
    fn graph(&self) -> Result<UnitGraph, CargoError> {
        let elsewhere = unit_graphs(self.cache);
        let mut command = Command::new(self.environment.cargo());
        command
            .current_dir(self.folder)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", &elsewhere)
            .env("CARGO_BUILD_BUILD_DIR", &elsewhere)
            .args(self.invocation.graph_arguments());
        let (text, status) = cargo::printed_by(&mut command)?;
        let graph = serde_json::from_str(&text);
        // `cargo run` prints it, and then panics, because there is no program
        // that it could run (`src/cargo/ops/cargo_run.rs`).
        if graph.is_err() || self.invocation.subcommand != Subcommand::Run {
            status?;
        }
        graph.map_err(|source| CargoError::Answer {
            program: "cargo --unit-graph".to_owned(),
            source,
        })
    }
}

/// The answers, with all files and folders that they depend on.
fn gathered(
    manifest: &Path,
    settings: Settings,
    workspace: Workspace,
    graph: UnitGraph,
) -> Answers {
    let lock = workspace.root.join("Cargo.lock");
    let mut files: BTreeSet<PathBuf> = [
        manifest.to_owned(),
        workspace.root.join("Cargo.toml"),
        lock.clone(),
    ]
    .into();
    files.extend(
        workspace
            .packages
            .iter()
            .map(|member| member.manifest_path.clone()),
    );
    let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
    for unit in &graph.units {
        if let Some(PackageId {
            source: Source::Path(path),
            ..
        }) = PackageId::parse(&unit.pkg_id)
        {
            files.insert(path.join("Cargo.toml"));
        }
    }
    for manifest in files.iter().filter(|f| f.ends_with("Cargo.toml")) {
        let package = manifest.parent().unwrap_or(Path::new("/"));
        for name in ["src/bin", "examples", "tests", "benches", "src"] {
            folders.insert(package.join(name));
        }
    }
    Answers {
        settings,
        pins: Pins::load(&lock),
        files: files
            .into_iter()
            .map(|path| (path.clone(), digest_of(&path)))
            .collect(),
        listings: folders
            .into_iter()
            .map(|path| (path.clone(), listing(&path)))
            .collect(),
        workspace,
        graph,
    }
}

/// What changes compiled code and is not in the unit graph. Tables are taken
/// whole rather than resolved: a setting too many costs a build, one too few
/// would cost a wrong artefact.
fn recipe_settings(
    environment: &Environment,
    invocation: &Invocation,
    settings: &Settings,
    roots: &Roots,
) -> std::collections::BTreeMap<String, String> {
    let mut found = std::collections::BTreeMap::new();
    let flags = ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS"]
        .iter()
        .find_map(|name| Some(environment.get(name)?.replace('\x1f', " ")))
        .or_else(|| Some(settings.get(&["build", "rustflags"])?.to_string()));
    if let Some(flags) = flags.filter(|flags| !flags.is_empty()) {
        found.insert("rustflags".to_owned(), flags);
    }
    if let Some(target) = settings.get(&["target"]) {
        found.insert("target".to_owned(), roots.portable(&target.to_string()));
    }
    let target_variables = environment.matching(|name| {
        name.starts_with("CARGO_TARGET_")
            && name != "CARGO_TARGET_DIR"
            && !name.ends_with("_RUNNER")
    });
    for (name, value) in target_variables {
        found.insert(name.to_owned(), value.to_owned());
    }
    let unstable: Vec<&str> = invocation.values(&["-Z"]);
    if !unstable.is_empty() {
        found.insert("unstable".to_owned(), unstable.join(" "));
    }
    found
}

/// Cargo 1.100 and nightlies with the switch have a folder for each unit.
fn layout_kind(
    environment: &Environment,
    invocation: &Invocation,
    settings: &Settings,
    toolchain: &Toolchain,
) -> LayoutKind {
    const SWITCH: &str = "build-dir-new-layout";
    let flag = |value: &str| value == SWITCH || value == "build-dir-new-layout=yes";
    let joined = format!("-Z{SWITCH}");
    let asked = invocation.values(&["-Z"]).into_iter().any(flag)
        || invocation.has_flag(&[&joined])
        || environment.get("CARGO_UNSTABLE_BUILD_DIR_NEW_LAYOUT") == Some("true")
        || settings
            .get(&["unstable", SWITCH])
            .and_then(|v| v.as_bool())
            == Some(true);
    let minor = || -> Option<u32> {
        let version = toolchain.cargo.split(' ').nth(1)?;
        version.split('.').nth(1)?.parse().ok()
    };
    if asked || minor().is_some_and(|minor| minor >= 100) {
        LayoutKind::PerUnit
    } else {
        LayoutKind::Legacy
    }
}
