//! One task in one container, after another one has prepared its files.
//!
//! Two volumes hold what the task sees: one with its files, mounted read-only,
//! and one to work in. Both are filled and read through the engine's archive
//! calls, so the engine may run on another machine, and no folder of this one
//! is ever visible inside.
//!
//! Starting a container takes a while, so neither waits for the other; each then
//! waits for the word [`GO`], and the second gets it when the first has ended.
//! All but that is done beside what this machine does to find out what is to be
//! built:
//!
//! ```text
//! engine  containers │ first files │ go: prepare ┤ the rest │ go: command │ end
//! here    ────────────── what is to be built? ───►
//! ```

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bollard::container::AttachContainerResults;
use bollard::models::{
    ContainerCreateBody, ContainerState, HostConfig, HostConfigLogConfig, Mount, MountType,
    MountVolumeOptions, ResourcesUlimits, VolumeCreateRequest,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptions, StartContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt as _;
use futures_util::future::{join, join_all};
use tokio::io::AsyncWriteExt as _;

use super::files::of;
use super::leftovers::labels;
use super::lines::Lines;
use super::memory::in_memory_of;
use super::{Engine, Image, engine_error, is_absent};
use crate::builder::archive::{self, Part};
use crate::builder::unique_name;
use crate::builder::{
    BUILDER_ID, Begun, Builder, BuilderError, IsCancelled, Load, ROOT, Result, Said, Task, Watcher,
};
use crate::output::Maker;

/// The volumes, and to whom what is in them belongs.
pub(super) const PARTS: [Part; 2] = [IN, WORK];
const IN: Part = Part {
    folder: "in",
    owner: 0,
};
const WORK: Part = Part {
    folder: "work",
    owner: BUILDER_ID,
};

/// Files that a process may have open, and processes of the user: the same on
/// every engine, and no more than any engine may give.
const FILES: i64 = 16_384;

/// The word that a container waits for, a line on its standard input.
const GO: &str = "go\n";

/// How it waits: what it runs may not be there before. Where the input ends
/// without the word, whoever has started it is gone.
const WAIT: &str = r#"read -r word && [ "$word" = go ] && exec "$@""#;

/// How often a task's time and its being cancelled are looked at.
const TICK: Duration = Duration::from_millis(100);

/// How long a command may go on after it has closed its streams.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs tasks in containers of one image.
pub struct Container<'a> {
    engine: &'a Engine,
    image: Image,
    maker: Maker,
    left: Mutex<Vec<Left>>,
}

/// A task whose containers and volumes are still there.
#[derive(Debug)]
pub(super) struct Left {
    name: String,
    /// A folder of this machine that its outputs were moved from: nobody writes
    /// there any more.
    folder: Option<PathBuf>,
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

    fn begin<'a>(
        &'a self,
        task: &'a Task,
        is_cancelled: IsCancelled<'_>,
    ) -> Result<Box<dyn Begun + 'a>> {
        let run = Run {
            engine: self.engine,
            image: &self.image,
            task,
            name: unique_name(),
            left: &self.left,
        };
        of(&self.left).push(Left {
            name: run.name.clone(),
            folder: None,
        });
        Ok(Box::new(run.begin(is_cancelled)?))
    }

    fn tidy(&self) {
        let left = std::mem::take(&mut *of(&self.left));
        for Left { name, folder } in left {
            std::thread::scope(|scope| {
                // The engine would remove one file after the other.
                scope.spawn(|| folder.as_deref().map(archive::empty));
                self.engine.remove(&name);
            });
        }
    }
}

/// A task on its way.
pub(super) struct Run<'a> {
    pub(super) engine: &'a Engine,
    image: &'a Image,
    task: &'a Task,
    /// Of the container and, with an ending, of its volumes.
    pub(super) name: String,
    left: &'a Mutex<Vec<Left>>,
}

/// A task whose container waits for its word.
struct Waiting<'a> {
    run: Run<'a>,
    building: Attached,
}

/// A container that was started.
#[derive(Debug)]
struct Attached {
    container: String,
    streams: AttachContainerResults,
}

impl Begun for Waiting<'_> {
    fn run(self: Box<Self>, load: &Load<'_>, watcher: &mut dyn Watcher) -> Result<i64> {
        let Self { run, building } = *self;
        run.upload(load.files)?;
        let code = run.follow(building, load.input, watcher)?;
        if code == 0
            && let Some(folder) = run.bring(load.output)?
        {
            let mut left = of(run.left);
            let ours = left.iter_mut().find(|left| left.name == run.name);
            if let Some(left) = ours {
                left.folder = Some(folder);
            }
        }
        Ok(code)
    }
}

impl<'a> Run<'a> {
    fn begin(self, is_cancelled: IsCancelled<'_>) -> Result<Waiting<'a>> {
        self.make_volumes()?;
        let steps = [Step::Preparing, Step::Building];
        self.engine.all(steps.map(|step| self.create(step)))?;
        let [preparing, building] = self.fill()?;
        let mut said = Said::new(is_cancelled);
        if self.follow(preparing, &[], &mut said)? != 0 {
            return Err(BuilderError::Prepare(said.text));
        }
        Ok(Waiting {
            run: self,
            building,
        })
    }

    /// Starts the containers and brings in what comes first, each beside the other.
    ///
    /// A volume in memory is there while a container that mounts it runs: what is
    /// for `in/` waits for the first container, and the second has it before the
    /// first ends. For one container an engine takes files one call after the other,
    /// so what is for `work/` goes through the second.
    fn fill(&self) -> Result<[Attached; 2]> {
        let first = &self.task.first;
        std::thread::scope(|scope| {
            let preparing = async {
                let started = self.start(Step::Preparing).await?;
                self.upload_part(scope, first, Step::Preparing).await?;
                Result::Ok(started)
            };
            let building = async {
                self.upload_part(scope, first, Step::Building).await?;
                self.start(Step::Building).await
            };
            // Of both even if one is an error, as in `all`.
            let (preparing, building) = self.engine.runtime.block_on(join(preparing, building));
            Ok([preparing?, building?])
        })
    }

    fn make_volumes(&self) -> Result<()> {
        let in_memory = self.engine.room_in_memory(self.task)?;
        let volumes = PARTS.map(|part| {
            let options = in_memory.filter(|_| part.folder == "in").map(in_memory_of);
            let request = VolumeCreateRequest {
                name: Some(volume(&self.name, part.folder)),
                labels: Some(labels(self.task)),
                driver_opts: options,
                ..VolumeCreateRequest::default()
            };
            async {
                let made = self.engine.client.create_volume(request).await;
                made.map(drop).map_err(engine_error("make a volume"))
            }
        });
        self.engine.all(volumes).map(drop)
    }

    /// The container of a step.
    pub(super) fn container(&self, step: Step) -> String {
        match step {
            Step::Preparing => loader(&self.name),
            Step::Building => self.name.clone(),
        }
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

    async fn create(&self, step: Step) -> Result<()> {
        let options = CreateContainerOptionsBuilder::default()
            .name(&self.container(step))
            .build();
        let body = self.sealed(step);
        let created = self.engine.client.create_container(Some(options), body);
        match created.await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Err(BuilderError::NoImage {
                image: self.image.id.clone(),
            }),
            Err(error) => Err(engine_error("make a container")(error)),
        }
    }

    /// The container of a step: no network, no capabilities, nothing to write to
    /// but its volumes and `/tmp`. Nothing of a package runs while files are
    /// prepared, by whom they belong to.
    fn sealed(&self, step: Step) -> ContainerCreateBody {
        let (command, user, access) = match step {
            Step::Preparing => (&self.task.prepare, 0, Access::Writing),
            Step::Building => (&self.task.command, BUILDER_ID, Access::Reading),
        };
        let words = ["sh", "-c", WAIT, "sh"].map(str::to_owned);
        let words = words.iter();
        let limits = self.task.limits;
        let number = |limit: u64| i64::try_from(limit).ok().filter(|&limit| limit > 0);
        let variables = self.task.environment.iter();
        ContainerCreateBody {
            image: Some(self.image.id.clone()),
            entrypoint: Some(Vec::new()),
            cmd: Some(words.chain(command).cloned().collect()),
            env: Some(
                variables
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
            ),
            hostname: Some("builder".to_owned()),
            user: Some(format!("{user}:{user}")),
            working_dir: Some(format!("{ROOT}/work")),
            open_stdin: Some(true),
            stdin_once: Some(true), // ends when this process does
            attach_stdin: Some(true),
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

    /// Starts a container, whose command waits.
    async fn start(&self, step: Step) -> Result<Attached> {
        let Engine { client, .. } = self.engine;
        let container = self.container(step);
        let options = AttachContainerOptionsBuilder::default()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .build();
        let attached = client.attach_container(&container, Some(options)).await;
        let streams = attached.map_err(engine_error("attach to the container"))?;
        let options = None::<StartContainerOptions>;
        let started = client.start_container(&container, options).await;
        started.map_err(engine_error("start the container"))?;
        Ok(Attached { container, streams })
    }

    /// Gives a command its word and its input, hands on what it says, and waits
    /// for its end.
    fn follow(&self, attached: Attached, given: &[u8], watcher: &mut dyn Watcher) -> Result<i64> {
        let Attached { container, streams } = attached;
        let AttachContainerResults {
            mut output,
            mut input,
        } = streams;
        let container = container.as_str();
        let given = [GO.as_bytes(), given].concat();
        // Beside what it says, so that nobody waits for one that does not read. One
        // that has ended already has said why.
        let giving = self.engine.runtime.spawn(async move {
            let _ = input.write_all(&given).await;
            let _ = input.flush().await;
            input // open as long as the command goes on
        });

        let limit = self.task.limits.time;
        let deadline = Instant::now() + limit;
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
        let has_ended = lines.end(watcher);
        giving.abort();
        if has_ended {
            Ok(0)
        } else {
            self.end(container)
        }
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
}

impl Engine {
    /// Removes a task's container and volumes, as far as they exist.
    pub(super) fn remove(&self, name: &str) {
        let force = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        // What fails is gone already, or the next task sweeps it.
        let containers = [loader(name), name.to_owned()].map(|container| {
            let force = Some(force.clone());
            async move { self.client.remove_container(&container, force).await }
        });
        let _ = self.runtime.block_on(join_all(containers));
        let volumes = PARTS.map(|part| {
            let (name, options) = (volume(name, part.folder), None::<RemoveVolumeOptions>);
            async move { self.client.remove_volume(&name, options).await }
        });
        let _ = self.runtime.block_on(join_all(volumes));
    }

    /// Waits for answers that are asked for at once, of all even if one is an
    /// error: what it was about may exist all the same.
    pub(super) fn all<T: Debug, const N: usize>(
        &self,
        answers: [impl Future<Output = Result<T>>; N],
    ) -> Result<[T; N]> {
        let answers = self.runtime.block_on(join_all(answers));
        let answers: Vec<T> = answers.into_iter().collect::<Result<_>>()?;
        Ok(answers.try_into().expect("each gives one answer"))
    }
}

pub(super) fn volume(name: &str, folder: &str) -> String {
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
pub(super) enum Step {
    Preparing,
    Building,
}

impl Step {
    /// The volume that files get into through the step's container: where one is
    /// mounted read-only, as the first in the second, an engine puts nothing.
    pub(super) fn part(self) -> Part {
        match self {
            Self::Preparing => IN,
            Self::Building => WORK,
        }
    }
}

/// What may be done to a mounted volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Reading,
    Writing,
}
