//! The files by which planner and wrapper talk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::matching::{Entry, ReplayRun};
use super::wrapper::WRAPPER_NAME;
use crate::cargo::layout::{self, LayoutKind};
use crate::cargo::unit_graph::Mode;
use crate::cargo::workspace::Roots;
use crate::fs::{self, FsError, Stamp, Time};
use crate::output::Produced;
use crate::plan::{Context, Plan};
use crate::store::Store;

/// Version of the session's files.
pub(super) const FORMAT: u32 = 1;

/// A session's files cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// File access.
    #[error("the session's files cannot be used")]
    File(#[from] FsError),
    /// Not JSON of the known form.
    #[error("`{}` is not a session file", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Another version.
    #[error("session format {0} is not supported")]
    Format(u32),
}

/// `session.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SessionFile {
    /// Format version.
    pub format: u32,
    /// The store's folder.
    pub store: PathBuf,
    /// Folders that differ between users.
    pub roots: Roots,
    /// Whether units have folders of their own.
    pub per_unit: bool,
    /// The wrapper that the user has set, run in front of rustc.
    pub user_wrapper: Option<String>,
    /// Folders, and by what compiled files are to name them.
    pub remapped: Vec<(PathBuf, String)>,
    /// Unit ids known beforehand, with their units.
    pub ids: HashMap<String, usize>,
}

/// What the wrapper notes about a compilation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Record {
    /// The unit in the plan, if it was found.
    pub index: Option<usize>,
    /// Cargo's unit id, where the command line tells it.
    pub unit_id: Option<String>,
    /// `-C metadata`, by which the record is found without an id.
    pub metadata: String,
    /// `--crate-name`.
    pub crate_name: String,
    /// `-C extra-filename`.
    pub extra_filename: String,
    /// `--out-dir`.
    pub out_dir: PathBuf,
    /// `OUT_DIR` of its package's build script.
    pub build_script_out_dir: Option<PathBuf>,
    /// The compiler's working directory.
    pub folder: PathBuf,
    /// The store name of the output that was served.
    pub served: Option<String>,
}

impl Record {
    /// Name of the executable that it leaves, and of its dep-info before `.d`.
    pub fn stem(&self) -> String {
        format!("{}{}", self.crate_name, self.extra_filename)
    }
}

/// What the wrapper noted in a session.
#[derive(Debug, Default)]
pub struct Records {
    /// Compilations by the index of their unit.
    pub units: BTreeMap<usize, Record>,
    /// Those that fit no unit, or several.
    pub unknown: Vec<Record>,
}

/// A session: one run of Cargo with the wrapper.
#[derive(Debug)]
pub struct Session {
    folder: PathBuf,
    wrapper: PathBuf,
}

impl Session {
    /// Writes a session's files for a plan. `program` becomes the wrapper, which
    /// has the compiler name the given folders otherwise.
    pub fn start(
        context: &Context,
        plan: &Plan,
        store: &Store,
        (program, remapped): (&Path, &[(PathBuf, String)]),
    ) -> Result<Self, SessionError> {
        let own = context.layout.own_dir();
        let folder = own.join("sessions").join(std::process::id().to_string());
        fs::remove_dir_all(&folder)?;
        for name in ["crates", "records"] {
            fs::create_dir_all(&folder.join(name))?;
        }
        let wrapper = own.join(WRAPPER_NAME);
        if fs::read_link(&wrapper).ok().as_deref() != Some(program) {
            fs::symlink(program, &wrapper)?;
        }

        let linkable = plan.linkable();
        let mut crates: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for index in 0..plan.units.len() {
            if let Some((name, entry)) = entry(plan, index, &linkable) {
                crates.entry(name).or_default().push(entry);
            }
        }
        for (name, entries) in crates {
            let bytes = serde_json::to_vec(&entries).expect("entries serialise");
            fs::write(&folder.join("crates").join(format!("{name}.json")), &bytes)?;
        }
        let known = (0..plan.units.len()).filter(|&index| linkable[index]);
        let ids = known.filter_map(|index| {
            Some((
                plan.resolution.namings[index].as_ref()?.unit_id.clone(),
                index,
            ))
        });
        let session = SessionFile {
            format: FORMAT,
            store: store.root().to_owned(),
            roots: context.roots.clone(),
            per_unit: context.layout.kind == LayoutKind::PerUnit,
            user_wrapper: user_wrapper(context),
            remapped: remapped.to_vec(),
            ids: ids.collect(),
        };
        let bytes = serde_json::to_vec(&session).expect("a session serialises");
        fs::write(&folder.join("session.json"), &bytes)?;
        Ok(Self { folder, wrapper })
    }

    /// The folder, which the wrapper finds in its environment.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The program to name as Cargo's `build.rustc-wrapper`.
    pub fn wrapper(&self) -> &Path {
        &self.wrapper
    }

    /// What the wrapper noted.
    pub fn records(&self) -> Result<Records, SessionError> {
        let mut records = Records::default();
        for path in fs::list(&self.folder.join("records"))? {
            // A half-written record belongs to a compilation that was killed.
            let Ok(record) = read_json::<Record>(&path) else {
                continue;
            };
            match record.index {
                Some(index) => drop(records.units.insert(index, record)),
                None => records.unknown.push(record),
            }
        }
        Ok(records)
    }

    /// When the session began, by the clock of its file system.
    pub fn started(&self) -> Time {
        let written = Stamp::of(&self.folder.join("session.json"));
        written.map(|stamp| stamp.mtime).unwrap_or_default()
    }

    /// Store names of the build script runs that were replayed.
    pub fn replayed(&self) -> BTreeSet<String> {
        let files = fs::list(&self.folder).unwrap_or_default();
        let names = files
            .iter()
            .filter_map(|file| file.file_name()?.to_str()?.strip_suffix(".replayed"));
        names.map(str::to_owned).collect()
    }

    /// Whether Cargo asked rustc for anything.
    pub fn is_idle(&self) -> bool {
        fs::list(&self.folder.join("records")).is_ok_and(|records| records.is_empty())
    }

    /// Removes the session's files.
    pub fn end(&self) {
        let _ = fs::remove_dir_all(&self.folder); // the next session of this pid does it otherwise
    }
}

/// Removes what sessions of killed processes left.
pub fn sweep(build_dir: &Path) {
    let sessions = layout::own_dir(build_dir).join("sessions");
    for folder in fs::list(&sessions).unwrap_or_default() {
        let pid = folder
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

/// Reads the session's main file.
pub(super) fn read(folder: &Path) -> Result<SessionFile, SessionError> {
    let session: SessionFile = read_json(&folder.join("session.json"))?;
    if session.format != FORMAT {
        return Err(SessionError::Format(session.format));
    }
    Ok(session)
}

/// Reads the units of a crate; none if the plan has none.
pub(super) fn read_entries(folder: &Path, crate_name: &str) -> Result<Vec<Entry>, SessionError> {
    let path = folder.join("crates").join(format!("{crate_name}.json"));
    if !path.is_file() {
        return Ok(Vec::new());
    }
    read_json(&path)
}

/// The unit behind an id that Cargo asked for earlier in this session.
pub(super) fn recorded_unit(folder: &Path, unit_id: &str) -> Option<usize> {
    let record: Record = read_json(&record_file(folder, unit_id)).ok()?;
    record.index
}

/// Writes a record.
pub(super) fn write_record(folder: &Path, record: &Record) -> Result<(), SessionError> {
    let bytes = serde_json::to_vec(record).expect("a record serialises");
    let name = record.unit_id.as_ref().unwrap_or(&record.metadata);
    fs::write_atomic(&record_file(folder, name), &bytes)?;
    Ok(())
}

fn record_file(folder: &Path, unit_id: &str) -> PathBuf {
    folder.join("records").join(format!("{unit_id}.json"))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, SessionError> {
    let bytes = fs::read(path)?;
    serde_json::from_slice(&bytes).map_err(|source| SessionError::Syntax {
        path: path.to_owned(),
        source,
    })
}

/// The wrapper that Cargo would use by itself.
pub fn user_wrapper(context: &Context) -> Option<String> {
    let variable = context.environment.get("RUSTC_WRAPPER");
    let wrapper = match variable {
        Some(wrapper) => Some(wrapper),
        None => context
            .environment
            .get("CARGO_BUILD_RUSTC_WRAPPER")
            .or_else(|| context.settings.text(&["build", "rustc-wrapper"])),
    };
    wrapper
        .filter(|wrapper| !wrapper.is_empty())
        .map(str::to_owned)
}

/// The runs of a build script, if all are ready and one has no name yet. A
/// script may be run for the host and for the target; what Cargo tells it about
/// the profile and the platform says which run it is.
fn replayed_runs(plan: &Plan, script: usize, linkable: &[bool]) -> Vec<ReplayRun> {
    let is_run = |&index: &usize| {
        plan.units[index].kind == "build-run" && plan.units[index].needs.contains(&script)
    };
    let runs: Vec<usize> = (0..plan.units.len()).filter(is_run).collect();
    if runs.iter().all(|&run| linkable[run]) {
        return Vec::new();
    }
    let run = |&run: &usize| {
        let profile = &plan.units[run].unit.profile;
        let debuginfo = profile.get("debuginfo");
        let off = debuginfo.is_none_or(|value| value.is_null() || *value == 0 || *value == "none");
        Some(ReplayRun {
            output: plan.resolution.output(run)?.store_name(),
            debug: !off,
            opt_level: profile.get("opt_level")?.as_str()?.to_owned(),
            platform: plan.units[run].unit.platform.clone(),
        })
    };
    let runs: Option<Vec<ReplayRun>> = runs.iter().map(run).collect();
    runs.unwrap_or_default()
}

fn entry(plan: &Plan, index: usize, linkable: &[bool]) -> Option<(String, Entry)> {
    let unit = &plan.units[index];
    if unit.refused.is_some() || unit.unit.mode == Mode::RunCustomBuild {
        return None;
    }
    let externs = unit.unit.dependencies.iter();
    let externs =
        externs.map(|dependency| (dependency.extern_crate_name.clone(), dependency.index));
    let field = |name: &str| {
        let value = unit.unit.profile.get(name)?;
        Some(match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => "0".to_owned(),
            other => other.to_string(),
        })
    };
    let codegen = [("opt-level", "opt_level"), ("debuginfo", "debuginfo")];
    let codegen = codegen
        .iter()
        .filter_map(|(option, name)| Some(((*option).to_owned(), field(name)?)));
    let entry = Entry {
        index,
        source: unit.unit.target.src_path.clone(),
        crate_types: unit.unit.target.crate_types.clone(),
        features: unit.unit.features.clone(),
        test: unit.test,
        check: matches!(unit.produced, Produced::Check | Produced::Clippy),
        platform: unit
            .unit
            .platform
            .clone()
            .filter(|_| unit.kind != "build-script"),
        codegen: codegen.collect(),
        externs: externs.collect(),
        serve: plan
            .resolution
            .output(index)
            .map(|output| output.store_name()),
        replay: replayed_runs(plan, index, linkable),
    };
    Some((unit.unit.crate_name(), entry))
}
