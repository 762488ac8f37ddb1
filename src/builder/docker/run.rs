//! One task in one container.
//!
//! Two volumes hold what the task sees: one with its files, mounted read-only,
//! and one to work in. Both are filled and read through the engine's archive
//! calls, so the engine may run on another machine, and no folder of this one
//! is ever visible inside.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc as blocking;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard::body_try_stream;
use bollard::container::LogOutput;
use bollard::models::{
    ContainerCreateBody, ContainerState, HostConfig, HostConfigLogConfig, Mount, MountType,
    MountVolumeOptions, ResourcesUlimits, VolumeCreateRequest,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder,
    DownloadFromContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    StartContainerOptions, UploadToContainerOptionsBuilder, WaitContainerOptions,
};
use bytes::BytesMut;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::leftovers::labels;
use super::pipe::{Reading, Writing};
use super::{Engine, Image, engine_error, is_absent};
use crate::builder::archive::{self, Part};
use crate::builder::unique_name;
use crate::builder::{
    BUILDER_ID, Builder, BuilderError, ROOT, Result, Said, Stream, Task, Watcher,
};
use crate::fs;
use crate::output::Maker;

/// Files that a process may have open, and processes of the user: the same on
/// every engine, and no more than any engine may give.
const FILES: i64 = 16_384;

/// Bytes of what is brought back that go from thread to thread at once.
const GATHERED: usize = 1 << 20;

/// How often a task's time and its being cancelled are looked at.
const TICK: Duration = Duration::from_millis(100);

/// How long a command may go on after it has closed its streams.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs tasks in containers of one image.
pub struct Container<'a> {
    engine: &'a Engine,
    image: Image,
    maker: Maker,
    /// Tasks whose containers and volumes are still there.
    left: Mutex<Vec<String>>,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.tidy();
    }
}

impl Engine {
    /// A builder of an image that the engine has.
    pub fn builder(&self, image: Image) -> Result<Container<'_>> {
        let maker = Maker::image(&image.id).map_err(|source| BuilderError::Engine {
            operation: "name its image by a digest",
            source: source.into(),
        })?;
        Ok(Container {
            engine: self,
            image,
            maker,
            left: Mutex::default(),
        })
    }
}

impl Builder for Container<'_> {
    fn maker(&self) -> Maker {
        self.maker
    }

    fn root(&self) -> &Path {
        Path::new(ROOT)
    }

    fn run(&self, task: &Task<'_>, watcher: &mut dyn Watcher) -> Result<i64> {
        let run = Run {
            engine: self.engine,
            image: &self.image,
            task,
            name: unique_name(),
        };
        self.left().push(run.name.clone());
        run.whole(watcher)
    }

    fn tidy(&self) {
        let names = std::mem::take(&mut *self.left());
        for name in names {
            self.engine.remove(&name);
        }
    }
}

impl Container<'_> {
    fn left(&self) -> MutexGuard<'_, Vec<String>> {
        // A list of names cannot be left in a bad state.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task on its way.
struct Run<'a> {
    engine: &'a Engine,
    image: &'a Image,
    task: &'a Task<'a>,
    /// Of the container and, with an ending, of its volumes.
    name: String,
}

impl Run<'_> {
    fn whole(&self, watcher: &mut dyn Watcher) -> Result<i64> {
        for folder in ["in", "work"] {
            let request = VolumeCreateRequest {
                name: Some(volume(&self.name, folder)),
                labels: Some(labels(self.task)),
                ..VolumeCreateRequest::default()
            };
            let made = self.engine.client.create_volume(request);
            self.engine.ask("make a volume", made)?;
        }
        self.fill(watcher)?;
        self.create(&self.name, self.sealed(Step::Building))?;
        let code = self.follow(&self.name, watcher)?;
        if code == 0 {
            let folder = self.folder("work");
            match folder.map(|folder| archive::take(&folder.join("out"), self.task.output)) {
                Some(Ok(())) => {}
                // Files may be out of reach one by one, as a rootless engine's are.
                None | Some(Err(BuilderError::File(_))) => {
                    fs::remove_dir_all(self.task.output)?;
                    fs::create_dir_all(self.task.output)?;
                    self.bring_back()?;
                }
                Some(refused) => refused?,
            }
        }
        Ok(code)
    }

    fn mounts(&self, of_files: Access) -> Vec<Mount> {
        let mount = |folder, access| Mount {
            target: Some(format!("{ROOT}/{folder}")),
            source: Some(volume(&self.name, folder)),
            typ: Some(MountType::VOLUME),
            read_only: Some(access == Access::Reading),
            volume_options: Some(MountVolumeOptions {
                no_copy: Some(true),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        };
        vec![mount("in", of_files), mount("work", Access::Writing)]
    }

    fn create(&self, name: &str, body: ContainerCreateBody) -> Result<()> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let created = self.engine.client.create_container(Some(options), body);
        match self.engine.runtime.block_on(created) {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Err(BuilderError::NoImage {
                image: self.image.id.clone(),
            }),
            Err(error) => Err(engine_error("make a container")(error)),
        }
    }

    /// Puts the task's files into the volumes, through a container of its own:
    /// where a volume is mounted read-only the engine puts nothing, and what
    /// prepares the files writes there, too.
    fn fill(&self, watcher: &dyn Watcher) -> Result<()> {
        let loader = loader(&self.name);
        self.create(&loader, self.sealed(Step::Preparing))?;
        let parts = [("in", 0), ("work", BUILDER_ID)];
        for (folder, owner) in parts {
            self.upload(&loader, Part { folder, owner })?;
        }
        if !self.task.prepare.is_empty() {
            let mut said = Said::new(watcher);
            if self.follow(&loader, &mut said)? != 0 {
                return Err(BuilderError::Prepare(said.text));
            }
        }
        let removed = self.engine.client.remove_container(&loader, None);
        self.engine.ask("remove a container", removed)
    }

    /// Fills one volume. By its own path: what is given to a folder above, some
    /// engines put beside the volume.
    fn upload(&self, loader: &str, part: Part) -> Result<()> {
        let path = format!("{ROOT}/{}", part.folder);
        let (sender, receiver) = mpsc::channel(64);
        std::thread::scope(|scope| {
            let writer =
                scope.spawn(move || archive::write(Writing(sender), self.task.files, part));
            let pieces = stream::unfold(receiver, |mut receiver| async {
                receiver.recv().await.map(|piece| (piece, receiver))
            });
            let options = UploadToContainerOptionsBuilder::default()
                .path(&path)
                .build();
            let client = &self.engine.client;
            let upload = client.upload_to_container(loader, Some(options), body_try_stream(pieces));
            let uploaded = self.engine.ask("take the task's files", upload);
            // A file that cannot be read is the cause of an upload that fails.
            writer.join().map_err(|_panic| BuilderError::Panic)??;
            uploaded
        })
    }

    /// The container of a step: no network, no capabilities, nothing to write to
    /// but its volumes and `/tmp`. Nothing of a package runs while files are
    /// prepared, by whom they belong to.
    fn sealed(&self, step: Step) -> ContainerCreateBody {
        let (command, user, access) = match step {
            Step::Preparing => (self.task.prepare, 0, Access::Writing),
            Step::Building => (self.task.command, BUILDER_ID, Access::Reading),
        };
        let limits = self.task.limits;
        let number = |limit: u64| i64::try_from(limit).ok().filter(|&limit| limit > 0);
        let variables = self.task.environment.iter();
        ContainerCreateBody {
            image: Some(self.image.id.clone()),
            cmd: Some(command.to_vec()),
            env: Some(
                variables
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
            ),
            hostname: Some("builder".to_owned()),
            user: Some(format!("{user}:{user}")),
            working_dir: Some(format!("{ROOT}/work")),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            labels: Some(labels(self.task)),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                ipc_mode: Some("private".to_owned()),
                readonly_rootfs: Some(true),
                cap_drop: Some(vec!["ALL".to_owned()]),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                memory: number(limits.memory),
                memory_swap: number(limits.memory),
                pids_limit: number(limits.processes),
                ulimits: Some(vec![
                    rlimit("core", 0),
                    rlimit("nofile", FILES),
                    rlimit("nproc", FILES),
                ]),
                nano_cpus: number(limits.cores).map(|cores| cores * 1_000_000_000),
                mounts: Some(self.mounts(access)),
                tmpfs: Some(HashMap::from([(
                    "/tmp".to_owned(),
                    "rw,exec,nosuid,nodev,size=1g,mode=1777".to_owned(),
                )])),
                // What it says is read from the stream, and kept by the caller.
                log_config: Some(HostConfigLogConfig {
                    typ: Some("none".to_owned()),
                    ..HostConfigLogConfig::default()
                }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// Starts the command, hands on what it says, and waits for its end.
    fn follow(&self, container: &str, watcher: &mut dyn Watcher) -> Result<i64> {
        let Engine { client, .. } = self.engine;
        let options = AttachContainerOptionsBuilder::default()
            .stream(true)
            .stdout(true)
            .stderr(true)
            .build();
        let attached = client.attach_container(container, Some(options));
        let attached = self.engine.ask("attach to the container", attached)?;
        let started = client.start_container(container, None::<StartContainerOptions>);
        self.engine.ask("start the container", started)?;

        let limit = self.task.limits.time;
        let deadline = Instant::now() + limit;
        let mut output = attached.output;
        let mut lines = Lines::default();
        loop {
            let next = async { tokio::time::timeout(TICK, output.next()).await };
            match self.engine.runtime.block_on(next) {
                Err(_nothing_said) => {}
                Ok(None) => break,
                Ok(Some(Ok(said))) => lines.take(said, watcher),
                // Some engines end a stream over TLS without a word.
                Ok(Some(Err(_))) if !self.is_running(container) => break,
                Ok(Some(Err(error))) => return Err(engine_error("follow the container")(error)),
            }
            if watcher.is_cancelled() {
                return Err(BuilderError::Cancelled);
            }
            if Instant::now() > deadline {
                return Err(BuilderError::Time { limit });
            }
        }
        lines.end(watcher);
        self.end(container)
    }

    /// Whether the command goes on, as far as the engine can say.
    fn is_running(&self, container: &str) -> bool {
        let state = self.state(container);
        state.is_none_or(|state| state.running == Some(true))
    }

    /// The exit code of the command, whose output has ended.
    fn end(&self, container: &str) -> Result<i64> {
        let options = None::<WaitContainerOptions>;
        let mut waited = self.engine.client.wait_container(container, options);
        // One that closes its streams and goes on is removed by the caller.
        let next = async { tokio::time::timeout(PATIENCE, waited.next()).await };
        let code = match self.engine.runtime.block_on(next) {
            Ok(Some(Ok(response))) => response.status_code,
            Ok(Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. }))) => code,
            Ok(Some(Err(error))) => {
                return Err(engine_error("wait for the container")(error));
            }
            Ok(None) | Err(_) => -1,
        };
        if code != 0
            && self
                .state(container)
                .is_some_and(|state| state.oom_killed == Some(true))
        {
            let limit = self.task.limits.memory;
            return Err(BuilderError::Memory { limit });
        }
        Ok(code)
    }

    /// What the engine says of the container; Podman has words for it that
    /// Docker has not, which are passed over.
    fn state(&self, container: &str) -> Option<ContainerState> {
        let inspected = self.engine.client.inspect_container(container, None);
        self.engine.runtime.block_on(inspected).ok()?.state
    }

    /// Where a volume's files are, if the engine runs on this machine and this
    /// process may look there. Each volume's name was made up for this task, so
    /// a folder of that name is its.
    fn folder(&self, folder: &str) -> Option<PathBuf> {
        let name = volume(&self.name, folder);
        let inspected = self.engine.client.inspect_volume(&name);
        let mountpoint = self.engine.runtime.block_on(inspected).ok()?.mountpoint;
        let found = PathBuf::from(mountpoint);
        let is_its = found.iter().any(|part| part == name.as_str());
        (is_its && fs::list(&found).is_ok_and(|files| !files.is_empty())).then_some(found)
    }

    /// Unpacks what the command left.
    fn bring_back(&self) -> Result<()> {
        let options = DownloadFromContainerOptionsBuilder::default()
            .path(&format!("{ROOT}/work/out"))
            .build();
        let client = &self.engine.client;
        let mut pieces = client.download_from_container(&self.name, Some(options));
        let (sender, receiver) = blocking::sync_channel(16);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| archive::read(Reading::new(receiver), self.task.output));
            let download = async {
                // Gathered, or the two threads would wake each other for each.
                let mut gathered = BytesMut::with_capacity(GATHERED);
                while let Some(piece) = pieces.next().await {
                    gathered.extend_from_slice(&piece?);
                    if gathered.len() >= GATHERED
                        && sender.send(Ok(gathered.split().freeze())).is_err()
                    {
                        return Ok(()); // the reader has found fault with it
                    }
                }
                let _ = sender.send(Ok(gathered.freeze())); // likewise
                Ok(())
            };
            let downloaded = self.engine.ask("give back what the command left", download);
            if downloaded.is_err() {
                // Not an end that looks like a whole archive's.
                let _ = sender.send(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            drop(sender);
            let read = reader.join().map_err(|_panic| BuilderError::Panic)?;
            downloaded.and(read)
        })
    }
}

impl Engine {
    /// Removes a task's container and volumes, as far as they exist.
    pub(super) fn remove(&self, name: &str) {
        let force = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        for container in [loader(name), name.to_owned()] {
            let removed = self
                .client
                .remove_container(&container, Some(force.clone()));
            let _ = self.runtime.block_on(removed); // most are gone already
        }
        for folder in ["in", "work"] {
            let volume = volume(name, folder);
            let removed = self
                .client
                .remove_volume(&volume, None::<RemoveVolumeOptions>);
            let _ = self.runtime.block_on(removed); // where it fails, the next task sweeps
        }
    }
}

fn volume(name: &str, folder: &str) -> String {
    format!("{name}-{folder}")
}

fn loader(name: &str) -> String {
    format!("{name}-loader")
}

/// A limit that processes inherit (`setrlimit(2)`).
fn rlimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(value),
        hard: Some(value),
    }
}

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Preparing,
    Building,
}

/// What may be done to a mounted volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Reading,
    Writing,
}

/// Pieces of two streams, put together to lines.
#[derive(Default)]
struct Lines {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Lines {
    fn take(&mut self, said: LogOutput, watcher: &mut dyn Watcher) {
        let (stream, rest) = match &said {
            LogOutput::StdErr { .. } => (Stream::Err, &mut self.err),
            _ => (Stream::Out, &mut self.out),
        };
        rest.extend_from_slice(said.as_ref());
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line: Vec<u8> = rest.drain(..=end).collect();
            watcher.line(
                stream,
                String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']),
            );
        }
    }

    fn end(self, watcher: &mut dyn Watcher) {
        for (stream, rest) in [(Stream::Out, self.out), (Stream::Err, self.err)] {
            if !rest.is_empty() {
                watcher.line(stream, &String::from_utf8_lossy(&rest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Said(Vec<(Stream, String)>);

    impl Watcher for Said {
        fn line(&mut self, stream: Stream, line: &str) {
            self.0.push((stream, line.to_owned()));
        }
        fn is_cancelled(&self) -> bool {
            false
        }
    }

    #[test]
    fn pieces_make_lines_by_stream() {
        let out = |text: &'static str| LogOutput::StdOut {
            message: text.into(),
        };
        let err = |text: &'static str| LogOutput::StdErr {
            message: text.into(),
        };
        let mut said = Said(Vec::new());
        let mut lines = Lines::default();
        for piece in [out("a"), err("x\ny"), out("b\r\nc")] {
            lines.take(piece, &mut said);
        }
        lines.end(&mut said);
        let said: Vec<(Stream, &str)> = said.0.iter().map(|(s, l)| (*s, l.as_str())).collect();
        let expected = [
            (Stream::Err, "x"),
            (Stream::Out, "ab"),
            (Stream::Out, "c"),
            (Stream::Err, "y"),
        ];
        assert_eq!(said, expected);
    }
}
