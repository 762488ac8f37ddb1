//! The wrapper process: Cargo runs `rustc-wrapper <rustc> <arguments>`.
//!
//! Whatever goes wrong here, the compiler runs as if the wrapper were not
//! there. It replaces this process (`exec`), so that signals, exit codes, the
//! job server and the terminal are Cargo's and rustc's business alone.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::matching::Question;
use super::replay::{self, Replay};
use super::serve::serve;
use super::session::{self, Record, SessionError, SessionFile};
use crate::cargo::layout::{Layout, LayoutKind};
use crate::cargo::rustc_args::RustcArgs;
use crate::fs;

/// The file name by which the program knows that it is the wrapper.
pub const WRAPPER_NAME: &str = "rustc-wrapper";

/// The variable that names the session's folder.
pub const SESSION_VARIABLE: &str = "QUICKBUILD_SESSION";

/// Runs as the wrapper. `arguments` are those after the program's own name.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let session = std::env::var_os(SESSION_VARIABLE).map(PathBuf::from);
    let file = session
        .as_deref()
        .and_then(|folder| session::read(folder).ok());
    let answer = match (&session, &file) {
        (Some(folder), Some(file)) => answer(folder, file, &arguments),
        _ => Ok(Answer::Compile),
    };
    let (user_wrapper, remapped) = match file {
        Some(file) => (file.user_wrapper, file.remapped),
        None => (None, Vec::new()),
    };
    let arguments = arguments.into_iter().chain(remapping(&remapped)).collect();
    match answer {
        Ok(Answer::Served) => ExitCode::SUCCESS,
        Ok(Answer::CompileAndReplay(replay, script)) => {
            compile_script(user_wrapper, arguments, &replay, &script)
        }
        Ok(Answer::Compile) | Err(_) => compile(user_wrapper, arguments),
    }
}

/// Options by which the compiler names folders otherwise (rustc book,
/// "Remap source paths"). Given here, they are in no fingerprint.
fn remapping(folders: &[(PathBuf, String)]) -> impl Iterator<Item = OsString> {
    folders.iter().map(|(folder, name)| {
        let mut option = OsString::from("--remap-path-prefix=");
        option.push(folder);
        option.push("=");
        option.push(name);
        option
    })
}

/// What is to be done about a command line.
enum Answer {
    /// Nothing: the store had it.
    Served,
    /// The compiler does it.
    Compile,
    /// The compiler does it, but what the build script at this path will do is
    /// in the store.
    CompileAndReplay(Replay, PathBuf),
}

/// Serves the unit if the store has it, and notes what was asked for.
fn answer(
    folder: &Path,
    file: &SessionFile,
    arguments: &[OsString],
) -> Result<Answer, SessionError> {
    let Some(arguments) = utf8(arguments) else {
        return Ok(Answer::Compile);
    };
    let Some(parsed) = RustcArgs::parse(&arguments[compiler_words(&arguments)..]) else {
        return Ok(Answer::Compile);
    };
    let Ok(cwd) = std::env::current_dir() else {
        return Ok(Answer::Compile);
    };
    let layout = Layout {
        build_dir: file.roots.build_dir.clone(),
        profile_dir: String::new(),
        kind: if file.per_unit {
            LayoutKind::PerUnit
        } else {
            LayoutKind::Legacy
        },
    };
    let out_dir = cwd.join(&parsed.out_dir);
    let unit_id = layout.compile_id(&out_dir, &parsed.extra_filename);

    let entries = session::read_entries(folder, &parsed.crate_name)?;
    let mut ids: HashMap<String, usize> = HashMap::new();
    let mut externs = Vec::new();
    for (name, path) in &parsed.externs {
        let id = extern_id(&layout, path);
        if let Some(id) = &id {
            let unit = file
                .ids
                .get(id)
                .copied()
                .or_else(|| session::recorded_unit(folder, id));
            ids.extend(unit.map(|unit| (id.clone(), unit)));
        }
        externs.push((name.clone(), id));
    }
    let question = Question {
        arguments: &parsed,
        source: parsed.absolute_source(&cwd),
        externs,
    };
    let entry = question.answer(&entries, &ids);
    let mut record = Record {
        index: entry.map(|entry| entry.index),
        unit_id,
        metadata: parsed.metadata.clone(),
        crate_name: parsed.crate_name.clone(),
        extra_filename: parsed.extra_filename.clone(),
        out_dir: out_dir.clone(),
        build_script_out_dir: std::env::var_os("OUT_DIR").map(PathBuf::from),
        folder: cwd,
        served: None,
    };
    let replay = entry
        .filter(|entry| !entry.replay.is_empty())
        .map(|entry| Replay {
            session: folder.to_owned(),
            store: file.store.clone(),
            runs: entry.replay.clone(),
            roots: file.roots.clone(),
        });
    let serves = entry.and_then(|entry| entry.serve.clone());
    if let Some(store_name) = &serves {
        let served = serve(file, store_name, &parsed, &record, replay.as_ref());
        record.served = served.map(|_| store_name.clone());
    }
    session::write_record(folder, &record)?;
    // Metadata stands in no linker's way.
    if record.served.is_none() && parsed.emit.iter().any(|kind| kind == "link") {
        make_way(&record);
    }
    Ok(match replay {
        _ if record.served.is_some() => Answer::Served,
        Some(replay) if serves.is_none() => {
            Answer::CompileAndReplay(replay, record.out_dir.join(record.stem()))
        }
        _ => Answer::Compile,
    })
}

/// Some linkers write into the file that stands where theirs is to be, and the
/// store may be holding on to it (`store::lend`).
fn make_way(record: &Record) {
    let stem = record.stem();
    for name in [stem.clone(), format!("lib{stem}.so")] {
        // Where it stays, a written file's time tells the store.
        let _ = fs::remove_file(&record.out_dir.join(name));
    }
}

/// How many leading words are programs: rustc, and clippy's driver before it.
fn compiler_words(arguments: &[String]) -> usize {
    let is_program =
        |word: &&String| !word.starts_with('-') && Path::new(word.as_str()).is_absolute();
    let second = arguments.get(1).filter(is_program);
    let ends_in_rustc = second.is_some_and(|word| word.ends_with("rustc"));
    if ends_in_rustc {
        2
    } else {
        1.min(arguments.len())
    }
}

/// The unit id in the name of a file given as `--extern`.
fn extern_id(layout: &Layout, path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    let extra = stem.rfind('-').map_or("", |at| &stem[at..]);
    layout.compile_id(path.parent()?, extra)
}

fn utf8(arguments: &[OsString]) -> Option<Vec<String>> {
    arguments
        .iter()
        .map(|argument| argument.to_str().map(str::to_owned))
        .collect()
}

/// Becomes the compiler.
fn compile(user_wrapper: Option<String>, arguments: Vec<OsString>) -> ExitCode {
    let Some(mut command) = compiler(user_wrapper, arguments) else {
        return ExitCode::from(2);
    };
    let error = command.exec();
    not_started(&command, &error)
}

/// Compiles a build script whose run is in the store although it is not, since
/// it names a folder that is elsewhere here. The one case in which this process
/// outlives the compiler: its result has to be moved aside.
fn compile_script(
    user_wrapper: Option<String>,
    arguments: Vec<OsString>,
    replay: &Replay,
    script: &Path,
) -> ExitCode {
    let Some(mut command) = compiler(user_wrapper, arguments) else {
        return ExitCode::from(2);
    };
    let status = match command.status() {
        Ok(status) => status,
        Err(error) => return not_started(&command, &error),
    };
    if status.success() && replay::cover(replay, script).is_none() {
        let _ = replay::uncover(script); // then it runs, as it would without us
    }
    ExitCode::from(u8::try_from(status.code().unwrap_or(101)).unwrap_or(101))
}

fn compiler(user_wrapper: Option<String>, arguments: Vec<OsString>) -> Option<Command> {
    let mut words = user_wrapper
        .into_iter()
        .map(OsString::from)
        .chain(arguments);
    let mut command = Command::new(words.next()?);
    command.args(words);
    Some(command)
}

/// Only reached if the compiler could not be started; Cargo shows this.
fn not_started(command: &Command, error: &std::io::Error) -> ExitCode {
    let program = command.get_program().to_string_lossy();
    crate::console::line(&format!("error: cannot run `{program}`: {error}"));
    ExitCode::from(127)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clippy_puts_its_driver_first() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            compiler_words(&words("/t/bin/clippy-driver /t/bin/rustc --crate-name a")),
            2
        );
        assert_eq!(
            compiler_words(&words("/t/bin/rustc --crate-name a src/lib.rs")),
            1
        );
        assert_eq!(compiler_words(&words("rustc - --crate-name ___")), 1);
    }

    #[test]
    fn extern_files_tell_their_unit() {
        let layout = |kind| Layout {
            build_dir: "/t".into(),
            profile_dir: String::new(),
            kind,
        };
        let legacy = extern_id(
            &layout(LayoutKind::Legacy),
            Path::new("/t/debug/deps/libserde-ab12.rmeta"),
        );
        assert_eq!(legacy.as_deref(), Some("ab12"));
        let per_unit = Path::new("/t/debug/build/serde/cd34/out/libserde-ab12.rmeta");
        assert_eq!(
            extern_id(&layout(LayoutKind::PerUnit), per_unit).as_deref(),
            Some("cd34")
        );
    }
}
