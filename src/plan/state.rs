//! What is in a target directory: which units are ours, and after which
//! commands there was nothing left to do.
//!
//! `<build dir>/.quickbuild/state.json`. Losing it costs one linking.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::context::{Context, configuration_files, is_relevant_variable, nearest_manifest};
use crate::cargo::invocation::Invocation;
use crate::cargo::layout;
use crate::digest::{Canonical, OutputId, RecipeHash};
use crate::environment::Environment;
use crate::fs::{self, Lock, Stamp, Time};

const FORMAT: u32 = 1;

/// The state of a build directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    format: u32,
    /// Units by the path of their fingerprint, relative to the build directory.
    pub units: BTreeMap<String, UnitState>,
    /// Commands after which everything was Fresh.
    pub settled: BTreeMap<String, Settled>,
    /// The newest time given to a file here, so that a clock that jumps back
    /// does not make what is replaced look older than what depends on it.
    pub high_water: Time,
}

/// One unit in the target directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// The output it is.
    pub output: OutputId,
    /// Its files, relative to the build directory, as they were left.
    pub files: Vec<(String, Stamp)>,
}

/// A command that left nothing to do, and all that it depended on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settled {
    /// Files and folders, with their stamps; `None` is absent.
    pub watched: Vec<(PathBuf, Option<Stamp>)>,
    /// Variables with their values.
    pub variables: Vec<(String, Option<String>)>,
    /// Number of units.
    pub units: usize,
    /// How many of them are from the store.
    pub ready: usize,
    /// Seconds that they once took.
    pub seconds: f64,
}

impl UnitState {
    /// Whether its files are as they were left.
    fn holds(&self, build_dir: &Path) -> bool {
        let untouched =
            |(file, stamp): &(String, Stamp)| Stamp::of(&build_dir.join(file)) == Some(*stamp);
        self.files.iter().all(untouched)
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            format: FORMAT,
            units: BTreeMap::new(),
            settled: BTreeMap::new(),
            high_water: Time::default(),
        }
    }
}

impl State {
    /// Reads a build directory's state; a missing or foreign one is empty.
    pub fn load(build_dir: &Path) -> Self {
        let file = layout::own_dir(build_dir).join("state.json");
        let state = fs::read(&file)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        state
            .filter(|state| state.format == FORMAT)
            .unwrap_or_default()
    }

    /// Outputs of all its units, for the store's roots.
    pub fn outputs(&self) -> Vec<OutputId> {
        let mut ids: Vec<OutputId> = self.units.values().map(|unit| unit.output).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// Writes it, together with what another quickbuild wrote in the meantime.
    pub fn save(&mut self, build_dir: &Path) -> fs::Result<()> {
        let folder = layout::own_dir(build_dir);
        fs::create_dir_all(&folder)?;
        let _lock = Lock::exclusive(&folder.join("state.lock"))?;
        self.merge(Self::load(build_dir), build_dir);
        let bytes = serde_json::to_vec(self).expect("a state serialises");
        fs::write_atomic(&folder.join("state.json"), &bytes)
    }

    /// Forgets all of it.
    pub fn remove(build_dir: &Path) -> fs::Result<()> {
        fs::remove_file(&layout::own_dir(build_dir).join("state.json"))
    }

    /// Takes over what is written: units that are as it says and not as we say,
    /// and commands that we know nothing of.
    pub fn merge(&mut self, written: Self, build_dir: &Path) {
        for (name, unit) in written.units {
            let ours = self.units.get(&name);
            let is_news = ours.is_none_or(|ours| *ours != unit && !ours.holds(build_dir));
            if is_news && unit.holds(build_dir) {
                self.units.insert(name, unit);
            }
        }
        for (key, settled) in written.settled {
            self.settled.entry(key).or_insert(settled);
        }
        self.high_water = self.high_water.max(written.high_water);
    }

    /// Whether a unit is this output, untouched since it was put there.
    pub fn is_in_place(&self, build_dir: &Path, fingerprint: &str, output: OutputId) -> bool {
        self.units
            .get(fingerprint)
            .is_some_and(|unit| unit.output == output && unit.holds(build_dir))
    }

    /// Notes a unit with the stamps that its files have now.
    pub fn note(
        &mut self,
        build_dir: &Path,
        fingerprint: &str,
        output: OutputId,
        files: &[PathBuf],
    ) {
        let relative = |file: &PathBuf| {
            file.strip_prefix(build_dir)
                .unwrap_or(file)
                .to_string_lossy()
                .into_owned()
        };
        let stamped = files
            .iter()
            .filter_map(|file| Some((relative(file), Stamp::of(file)?)));
        let unit = UnitState {
            output,
            files: stamped.collect(),
        };
        for (_, stamp) in &unit.files {
            self.high_water = self.high_water.max(stamp.mtime);
        }
        self.units.insert(fingerprint.to_owned(), unit);
    }

    /// Whether nothing changed since a command left everything Fresh.
    pub fn is_settled(&self, key: &str, environment: &Environment) -> Option<&Settled> {
        let settled = self.settled.get(key)?;
        let variables = settled
            .variables
            .iter()
            .all(|(name, value)| environment.get(name) == value.as_deref());
        let watched = || {
            settled
                .watched
                .iter()
                .all(|(path, stamp)| Stamp::of(path) == *stamp)
        };
        (variables && watched()).then_some(settled)
    }
}

/// What a command is known by in the state: arguments, folder, variables.
pub fn command_key(environment: &Environment, invocation: &Invocation, folder: &Path) -> String {
    let mut key = Canonical::new("quickbuild-command-1");
    key.text(env!("CARGO_PKG_VERSION"));
    key.list(&invocation.significant_arguments());
    key.list(invocation.passed_arguments());
    key.text(&folder.to_string_lossy());
    for (name, value) in environment
        .matching(|name| is_relevant_variable(name) || name == "CARGO_HOME" || name == "PATH")
    {
        key.text(name).text(value);
    }
    RecipeHash::finish(key).to_string()
}

/// The build directory that a command will most likely use, found without
/// asking Cargo. A wrong guess finds no state there, and Cargo is asked.
pub fn likely_build_dirs(
    environment: &Environment,
    invocation: &Invocation,
    folder: &Path,
) -> Vec<PathBuf> {
    let given = invocation
        .target_dir()
        .or_else(|| environment.get("CARGO_TARGET_DIR").map(PathBuf::from))
        .or_else(|| environment.get("CARGO_BUILD_TARGET_DIR").map(PathBuf::from));
    if let Some(given) = given {
        return vec![folder.join(given)];
    }
    let Ok(manifest) = nearest_manifest(folder, invocation) else {
        return Vec::new();
    };
    let ancestors = manifest.ancestors().skip(1);
    ancestors
        .map(|a| a.join("target"))
        .filter(|t| layout::own_dir(t).is_dir())
        .collect()
}

/// All that a plan depended on and that `stat` can tell, for [`Settled`].
pub fn watch(context: &Context) -> Vec<(PathBuf, Option<Stamp>)> {
    let mut paths = context.watched.clone();
    paths.extend(configuration_files(&context.environment, &context.folder));
    let rustup = context.environment.rustup_home();
    paths.push(context.toolchain.sysroot.join("bin/rustc"));
    paths.push(rustup.join("settings.toml"));
    for ancestor in context.folder.ancestors() {
        paths.push(ancestor.join("rust-toolchain"));
        paths.push(ancestor.join("rust-toolchain.toml"));
    }
    stamp_all(paths)
}

/// Stamps paths as they are now.
pub fn stamp_all(paths: impl IntoIterator<Item = PathBuf>) -> Vec<(PathBuf, Option<Stamp>)> {
    let stamped = paths.into_iter().map(|path| {
        let stamp = Stamp::of(&path);
        (path, stamp)
    });
    stamped.collect()
}
