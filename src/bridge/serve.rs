//! Standing in for a compilation with an output from the store.

use std::path::{Path, PathBuf};

use super::replay::{self, Replay};
use super::session::{Record, SessionFile};
use crate::cargo::rustc_args::RustcArgs;
use crate::fs::{self, Sharing};
use crate::link::{file_name, local_rustc_dep_info, without_clippy};
use crate::output::{Output, Produced, Role};
use crate::store::{FILE_TIME, Store};

/// Files that were put where rustc would have written them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// The files with their `--emit` kinds.
    pub(super) files: Vec<(PathBuf, &'static str)>,
}

/// Puts an output's files in place of a compilation and tells Cargo about them
/// as rustc does. `None` if anything is missing; then rustc runs and writes
/// over whatever was placed.
pub(super) fn serve(
    session: &SessionFile,
    store_name: &str,
    arguments: &RustcArgs,
    record: &Record,
    replay: Option<&Replay>,
) -> Option<Served> {
    let store = Store::open(&session.store).ok()?;
    let output = store
        .output(store_name)
        .filter(|output| store.is_intact(output))?;
    let mut served = Served { files: Vec::new() };
    let wanted: &[Role] = if arguments.emits_link() {
        &[
            Role::Metadata,
            Role::Library,
            Role::Native,
            Role::Executable,
        ]
    } else {
        &[Role::Metadata]
    };
    for (index, file) in output.files.iter().enumerate() {
        if !wanted.contains(&file.role) {
            continue;
        }
        let from = store.file(&output, index);
        for extra in [&record.extra_filename, &output.extra_filename] {
            let to = record.out_dir.join(file_name(&file.name, extra));
            if extra != &record.extra_filename && to.exists() {
                continue; // the unit as which it was compiled is here itself
            }
            // Libraries are never written to in place. But Cargo sets the time
            // of a check unit's metadata after the compiler has run (since
            // 1.90), which a shared inode would carry into the store; so that
            // is a copy until names are learned and everything is linked again.
            let shared = match file.role {
                Role::Metadata => arguments.emits_link(),
                role => role == Role::Library,
            };
            let sharing = if shared {
                Sharing::Shared
            } else {
                Sharing::Private
            };
            match replay {
                Some(replay) if file.role == Role::Executable => {
                    replay::install(replay, &from, &to)?;
                }
                _ => drop(fs::place(&from, &to, sharing).ok()?),
            }
            if !shared {
                fs::set_mtime(&to, FILE_TIME).ok()?;
            }
            if extra == &record.extra_filename {
                let kind = if file.role == Role::Metadata {
                    "metadata"
                } else {
                    "link"
                };
                served.files.push((to, kind));
            }
            if record.extra_filename == output.extra_filename || file.role == Role::Executable {
                break;
            }
        }
    }
    if served.files.is_empty() {
        // A checked executable: its metadata is an empty file.
        let name = format!("lib{}{}.rmeta", record.crate_name, record.extra_filename);
        let to = record.out_dir.join(name);
        fs::write(&to, b"").ok()?;
        served.files.push((to, "metadata"));
    }
    write_dep_info(session, &output, record, &served.files.first()?.0)?;
    crate::console::raw(&messages(&store, &output, record, arguments, &served)?);
    Some(served)
}

fn write_dep_info(
    session: &SessionFile,
    output: &Output,
    record: &Record,
    first: &Path,
) -> Option<()> {
    let out_dir = record
        .build_script_out_dir
        .as_ref()
        .map(|dir| dir.to_string_lossy());
    let mut info = local_rustc_dep_info(&session.roots, output, out_dir.as_deref())?;
    if !is_clippy_run() {
        info.env.retain(|(name, _)| !name.starts_with("CLIPPY_"));
    }
    let name = format!("{}.d", record.stem());
    let text = info.render(&first.to_string_lossy());
    fs::write(&record.out_dir.join(name), text.as_bytes()).ok()
}

/// The lines that rustc would print: its diagnostics, and a notification for
/// each artefact (rustc book, "JSON output").
fn messages(
    store: &Store,
    output: &Output,
    record: &Record,
    arguments: &RustcArgs,
    served: &Served,
) -> Option<String> {
    let mut text = String::new();
    if let Some((index, _)) = output.files_of(Role::Diagnostics).next() {
        let stored = fs::read_text(&store.file(output, index)).ok()?;
        let clippy_for_check = output.produced == Produced::Clippy && !arguments.emits_link();
        text = if clippy_for_check && record.index.is_some() && !is_clippy_run() {
            without_clippy(&stored)
        } else {
            stored
        };
    }
    for (path, kind) in &served.files {
        let message = serde_json::json!({
            "$message_type": "artifact", "artifact": path, "emit": kind,
        });
        text.push_str(&format!("{message}\n"));
    }
    Some(text)
}

/// Whether clippy's driver was asked for.
fn is_clippy_run() -> bool {
    std::env::args_os().nth(1).is_some_and(|program| {
        Path::new(&program)
            .file_name()
            .is_some_and(|name| name == "clippy-driver")
    })
}
