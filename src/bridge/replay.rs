//! Standing in for the run of a build script.
//!
//! Where the store has a run's output but Cargo's name for it is not known,
//! Cargo would run the script again, which for a C library takes longer than
//! all of the rest. So for the length of a session the compiled script is this
//! program, which prints what the script printed and leaves what it left. The
//! real script lies beside it and takes over whenever that session is not the
//! one that is running; linking what was learned puts it into its place.
//!
//! ```text
//! <folder of the compiled build script>/
//!   build_script_build-<unit id>     this program
//!   quickbuild-replay.json           what to replay
//!   quickbuild-replay.script         the real script
//! ```

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};

use super::matching::ReplayRun;
use super::wrapper::SESSION_VARIABLE;
use crate::cargo::workspace::Roots;
use crate::fs::{self, Sharing};
use crate::output::{Output, Role};
use crate::store::{FILE_TIME, Store};

const FILE: &str = "quickbuild-replay.json";
const SCRIPT: &str = "quickbuild-replay.script";

/// What to replay.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Replay {
    /// The session in which this holds.
    pub(super) session: PathBuf,
    /// The store's folder.
    pub(super) store: PathBuf,
    /// The runs that can be replayed.
    pub(super) runs: Vec<ReplayRun>,
    /// Folders that differ between users.
    pub(super) roots: Roots,
}

/// Puts this program in place of a compiled build script. `script` is the real
/// one in the store, `place` where Cargo expects it.
pub(super) fn install(replay: &Replay, script: &Path, place: &Path) -> Option<()> {
    fs::place(script, &place.with_file_name(SCRIPT), Sharing::Private).ok()?;
    stand_in(replay, place)
}

/// Puts this program in place of a build script that was just compiled there.
pub(super) fn cover(replay: &Replay, place: &Path) -> Option<()> {
    fs::rename(place, &place.with_file_name(SCRIPT)).ok()?;
    stand_in(replay, place)
}

/// Undoes [`cover`], if it was done.
pub(crate) fn uncover(place: &Path) -> fs::Result<()> {
    let script = place.with_file_name(SCRIPT);
    if script.is_file() {
        fs::rename(&script, place)?;
    }
    fs::remove_file(&place.with_file_name(FILE))
}

fn stand_in(replay: &Replay, place: &Path) -> Option<()> {
    let folder = place.parent()?;
    let bytes = serde_json::to_vec(replay).expect("a replay serialises");
    fs::write_atomic(&folder.join(FILE), &bytes).ok()?;
    let program = std::env::current_exe().ok()?;
    fs::place(&program, place, Sharing::Private).ok()?;
    fs::set_mode(place, 0o755).ok()
}

/// Removes what [`install`] left beside the script.
pub(crate) fn remove(folder: &Path) -> fs::Result<()> {
    fs::remove_file(&folder.join(FILE))?;
    fs::remove_file(&folder.join(SCRIPT))
}

/// Whether a program called like this is a build script to replay.
pub fn is_replay(program: &Path) -> bool {
    let named = program
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"build"));
    program.is_absolute() && named && program.with_file_name(FILE).is_file()
}

/// Runs as the build script.
pub fn run(program: &Path, arguments: Vec<OsString>) -> ExitCode {
    if replay(program).is_some() {
        return ExitCode::SUCCESS;
    }
    let script = program.with_file_name(SCRIPT);
    let error = Command::new(&script).args(arguments).exec();
    crate::console::line(&format!("cannot run `{}`: {error}", script.display()));
    ExitCode::from(127)
}

fn replay(program: &Path) -> Option<()> {
    let bytes = fs::read(&program.with_file_name(FILE)).ok()?;
    let replay: Replay = serde_json::from_slice(&bytes).ok()?;
    let session = std::env::var_os(SESSION_VARIABLE).map(PathBuf::from);
    if session.as_ref() != Some(&replay.session) || !replay.session.is_dir() {
        return None;
    }
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR")?);
    let store = Store::open(&replay.store).ok()?;
    let output = store
        .output(run_asked_for(&replay.runs)?)
        .filter(|output| store.is_intact(output))?;
    let mut stdout = String::new();
    for (index, file) in output.files.iter().enumerate() {
        let from = store.file(&output, index);
        match file.role {
            Role::Stdout => stdout = local(&fs::read_text(&from).ok()?, &out_dir, &replay.roots),
            Role::OutDir => place_generated(&from, file, &out_dir, &replay.roots)?,
            Role::Stderr => {
                let text = fs::read_text(&from).ok()?;
                crate::console::raw(&local(&text, &out_dir, &replay.roots));
            }
            _ => {}
        }
    }
    crate::console::out(&stdout);
    note_run(&replay.session, &output, &out_dir)
}

/// The run that Cargo asks for; `None` if that is not certain.
fn run_asked_for(runs: &[ReplayRun]) -> Option<&str> {
    let variable = |name| std::env::var(name).ok();
    let debug = variable("DEBUG")? != "false";
    let (opt_level, target, host) = (
        variable("OPT_LEVEL")?,
        variable("TARGET")?,
        variable("HOST")?,
    );
    let asked = |run: &&ReplayRun| {
        run.debug == debug
            && run.opt_level == opt_level
            && *run.platform.as_ref().unwrap_or(&host) == target
    };
    let mut found = runs.iter().filter(asked).map(|run| run.output.as_str());
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

fn local(text: &str, out_dir: &Path, roots: &Roots) -> String {
    roots.local(&text.replace("@out-dir@", &out_dir.to_string_lossy()))
}

fn place_generated(
    from: &Path,
    file: &crate::output::File,
    out_dir: &Path,
    roots: &Roots,
) -> Option<()> {
    let to = out_dir.join(&file.name);
    fs::create_dir_all(to.parent()?).ok()?;
    if file.portable {
        let text = fs::read_text(from).ok()?;
        fs::write(&to, local(&text, out_dir, roots).as_bytes()).ok()?;
        fs::set_mode(&to, file.mode).ok()?;
    } else {
        fs::place(from, &to, Sharing::Private).ok()?;
    }
    fs::set_mtime(&to, FILE_TIME).ok()
}

/// Notes that the run was replayed, so that it does not count as work.
fn note_run(session: &Path, output: &Output, out_dir: &Path) -> Option<()> {
    let name = format!("{}.replayed", output.store_name());
    fs::write(&session.join(name), out_dir.as_os_str().as_encoded_bytes()).ok()
}
