//! A scratch folder of this machine and a cleared environment, where no engine
//! answers.
//!
//! Only the time is limited, and nothing keeps a build script from reading
//! other files or the network: what comes of it is for this machine.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{
    Begun, Builder, BuilderError, Content, Entry, IsCancelled, Load, REMAPPED, Result, Said,
    Stream, Task, Watcher, archive,
};
use crate::environment::Environment;
use crate::fs;
use crate::output::Maker;

/// How often a task's time and its being cancelled are looked at.
const TICK: Duration = Duration::from_millis(100);

/// C and C++ compilers, as build scripts and rustc look for them.
const COMPILERS: [&str; 4] = ["cc", "gcc", "c++", "g++"];

/// Runs tasks in a folder of its own, which is removed when it is dropped.
pub struct Scratch {
    root: PathBuf,
    compilers: Vec<Entry>,
}

impl Scratch {
    /// Makes the folder beside `beside`. C compilers found in `PATH` are made to
    /// name no folder of this machine.
    pub fn new(beside: &Path, environment: &Environment) -> Result<Self> {
        let root = fs::unique_beside(beside);
        fs::create_dir_all(&root)?;
        let options: Vec<String> = REMAPPED
            .iter()
            .map(|(below, name)| format!("-ffile-prefix-map={}={name}", root.join(below).display()))
            .collect();
        let wrapper = |name: &str| {
            let real = environment.find_program(name)?;
            let script = format!(
                "#!/bin/sh\nexec {} {} \"$@\"\n",
                real.display(),
                options.join(" ")
            );
            Some(Entry {
                path: format!("in/bin/{name}"),
                content: Content::Bytes {
                    bytes: script.into_bytes(),
                    executable: true,
                },
            })
        };
        let compilers = COMPILERS.into_iter().filter_map(wrapper).collect();
        Ok(Self { root, compilers })
    }

    /// The folder of the compilers, for the front of `PATH`.
    pub fn programs(&self) -> PathBuf {
        self.root.join("in/bin")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root); // it lies in a folder that is emptied
    }
}

impl Builder for Scratch {
    fn maker(&self) -> Maker {
        Maker::Local
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn begin<'a>(
        &'a self,
        task: &'a Task,
        is_cancelled: IsCancelled<'_>,
    ) -> Result<Box<dyn Begun + 'a>> {
        for folder in ["in", "work"] {
            fs::remove_dir_all(&self.root.join(folder))?;
        }
        archive::place(&self.root, &task.first)?;
        archive::place(&self.root, &self.compilers)?;
        let mut said = Said::new(is_cancelled);
        if !self.finish(task, &task.prepare, &[], &mut said)?.success() {
            return Err(BuilderError::Prepare(said.text));
        }
        let scratch = self;
        Ok(Box::new(Prepared { scratch, task }))
    }
}

/// A task whose first files are in the folder.
struct Prepared<'a> {
    scratch: &'a Scratch,
    task: &'a Task,
}

impl Begun for Prepared<'_> {
    fn run(self: Box<Self>, load: &Load<'_>, watcher: &mut dyn Watcher) -> Result<i64> {
        let Self { scratch, task } = *self;
        archive::place(&scratch.root, load.files)?;
        let status = scratch.finish(task, &task.command, load.input, watcher)?;
        if status.success() {
            archive::take(&scratch.root.join("work/out"), load.output)?;
        }
        Ok(i64::from(status.code().unwrap_or(-1)))
    }
}

impl Scratch {
    /// Runs one command to its end.
    fn finish(
        &self,
        task: &Task,
        command: &[String],
        input: &[u8],
        watcher: &mut dyn Watcher,
    ) -> Result<ExitStatus> {
        let program = command.first().map(String::as_str).unwrap_or_default();
        let mut child = Command::new(program)
            .args(command.get(1..).unwrap_or_default())
            .env_clear()
            .envs(task.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.root.join("work"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| BuilderError::Spawn {
                program: program.to_owned(),
                source,
            })?;
        let (stdin, input) = (child.stdin.take(), input.to_vec());
        // Whoever has ended without it does not need it.
        std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
        let followed = follow(&mut child, task.limits.time, watcher);
        // Whatever it has started goes with it.
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let _ = group.map(|group| kill_process_group(group, Signal::KILL)); // as a rule nobody is left
        let status = child.wait();
        followed?;
        status.map_err(BuilderError::Output)
    }
}

fn follow(child: &mut Child, limit: Duration, watcher: &mut dyn Watcher) -> Result<()> {
    let (sender, lines) = channel();
    let out = child
        .stdout
        .take()
        .map(|out| read(out, Stream::Out, sender.clone()));
    let err = child
        .stderr
        .take()
        .map(|err| read(err, Stream::Err, sender));
    drop((out, err)); // they end with their streams
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(TICK) {
            Ok((stream, line)) => watcher.line(stream, &line),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                // A process in the background may hold the streams.
                if child.try_wait().is_ok_and(|status| status.is_some()) {
                    return Ok(());
                }
            }
        }
        if watcher.is_cancelled() {
            return Err(BuilderError::Cancelled);
        }
        if Instant::now() > deadline {
            return Err(BuilderError::Time { limit });
        }
    }
}

fn read(
    from: impl Read + Send + 'static,
    stream: Stream,
    to: Sender<(Stream, String)>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from)
            .split(b'\n')
            .map_while(std::result::Result::ok)
        {
            let line = String::from_utf8_lossy(&line).into_owned();
            if to.send((stream, line)).is_err() {
                return;
            }
        }
    })
}
