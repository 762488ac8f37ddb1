//! The realisation, in a process of its own: what goes wrong there, the worker
//! lives on, and what is cancelled ends as it does for a person.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::{Course, LOOK, Result, Worker, WorkerError, end_of, last_error, wanted};
use crate::fs;
use crate::interrupt::Held;
use crate::publish::Scratch;
use crate::report::work::{Job, end_of_log};
use crate::store::{Store, archive};

/// How long a realisation may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(30);
/// How often the log is read.
const READ: Duration = Duration::from_secs(1);

/// What `realise --format json` prints.
#[derive(Debug, Deserialize)]
#[serde(untagged, rename_all = "kebab-case")]
enum Printed {
    Done { outputs: Vec<String> },
    Undone { error: String, recipe: bool },
}

/// Realises a job's recipes, and gives the store names of all that is valid.
pub(super) fn realise(
    worker: &Worker,
    job: &Job,
    scratch: &Scratch,
    course: &Course,
    held: &Held,
) -> Result<Vec<String>> {
    let (hash, recipes) = wanted(job)?;
    let repository = scratch.path().join("recipes");
    for (recipe, text) in recipes.iter().zip(&job.recipes) {
        let path = repository.join(recipe.path());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text.as_bytes())?;
    }
    let (out, err) = (scratch.path().join("stdout"), scratch.path().join("stderr"));
    let mut command = Command::new(&worker.program);
    command
        .arg("realise")
        .arg(hash.to_string())
        .arg("--repository")
        .arg(&repository)
        .args(["--builder", "docker", "--format", "json"])
        .args(["--toolchain", &job.builder])
        .current_dir(&worker.folder)
        .stdin(Stdio::null())
        .stdout(fs::create(&out)?)
        .stderr(fs::create(&err)?);
    let mut child = command.spawn().map_err(WorkerError::Start)?;
    let logs = Store::open(&worker.store)?.root().join("logs");
    let log = Log {
        stderr: err,
        logs,
        process: child.id(),
    };
    let ended = follow(&mut child, &log, course, held);
    course.with(|state| state.log = log.read());
    ended?;
    let printed = fs::read(&out)?;
    match serde_json::from_slice(&printed) {
        Ok(Printed::Done { outputs }) => Ok(outputs),
        Ok(Printed::Undone { error, recipe }) => Err(WorkerError::Undone {
            recipe,
            reason: error,
        }),
        // It failed before it began; what it said is in the log.
        Err(_nothing) => Err(WorkerError::Undone {
            recipe: false,
            reason: last_error(&end_of(&log.stderr)),
        }),
    }
}

/// Waits for the realisation; ends it if the lease is lost, or the worker is to
/// stop.
fn follow(child: &mut Child, log: &Log, course: &Course, held: &Held) -> Result<()> {
    let mut read = Instant::now();
    let mut told: Option<(Instant, WorkerError)> = None;
    loop {
        if child.try_wait().map_err(WorkerError::Start)?.is_some() {
            return told.map_or(Ok(()), |(_, why)| Err(why));
        }
        if told.is_none() {
            let why = match () {
                () if course.is_lost() => Some(WorkerError::Lost),
                () if held.asked().is_some() => Some(WorkerError::Stopped),
                () => None,
            };
            if let Some(why) = why {
                let _ = kill_process(Pid::from_child(child), Signal::TERM); // it may be gone
                told = Some((Instant::now(), why));
            }
        }
        if told
            .as_ref()
            .is_some_and(|(since, _)| since.elapsed() > GRACE)
        {
            let _ = child.kill();
        }
        if read.elapsed() > READ {
            read = Instant::now();
            course.with(|state| state.log = log.read());
        }
        std::thread::sleep(LOOK);
    }
}

/// Where it says what it does.
struct Log {
    stderr: PathBuf,
    logs: PathBuf,
    process: u32,
}

impl Log {
    /// What it said, and then what the builder said, which is in the store's log
    /// of this process.
    fn read(&self) -> String {
        let mark = format!("-{}.", self.process);
        let files = fs::list(&self.logs).unwrap_or_default();
        let own = files.iter().filter(|file| {
            let name = file.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.ends_with(".log") && name.contains(&mark))
        });
        let logs: String = own.map(|file| end_of(file)).collect();
        let text = format!("{}{logs}", end_of(&self.stderr));
        end_of_log(&text).to_owned()
    }
}

/// Some outputs as a file.
pub(super) fn export(worker: &Worker, outputs: &[String], scratch: &Scratch) -> Result<PathBuf> {
    let store = Store::open(&worker.store)?;
    let path = scratch.path().join("outputs.tar.zst");
    let _ = archive::export(&store, outputs, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_realisation_prints_is_understood() {
        let done: Printed = serde_json::from_str(r#"{"valid":1,"outputs":["a"]}"#).unwrap();
        assert!(matches!(done, Printed::Done { outputs } if outputs == ["a"]));
        let undone: Printed = serde_json::from_str(r#"{"error":"no","recipe":true}"#).unwrap();
        assert!(matches!(undone, Printed::Undone { recipe: true, .. }));
    }
}
