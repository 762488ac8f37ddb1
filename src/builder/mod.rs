//! What runs a realisation: a container of a Docker engine, or a scratch folder
//! of this machine.
//!
//! A builder gets a [`Task`]: commands and limits; and then its [`Load`]: files
//! to put before them, and a folder for what they leave. It sees neither the
//! store nor a recipe, and no key ever comes near it.
//!
//! ```text
//! <root>/            `/quickbuild` in a container
//!   in/              the task's files; only read, once they are prepared
//!   work/            the command's own
//!     out/           what is brought back
//! ```
//!
//! | module | job |
//! |---|---|
//! | `archive` | a task's files as a tar |
//! | [`docker`] | containers; the only user of bollard |
//! | [`local`] | a scratch folder and a cleared environment, where no engine answers |
//! | [`definition`] | what an image is made of |
//! | [`image`] | making an image |
//! | [`check`] | whether an image is what its definition says |
//! | [`pin`] | which image a builder is pinned to |

mod archive;
pub mod check;
pub mod definition;
pub mod docker;
pub mod image;
pub mod local;
pub mod pin;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::digest::ContentHash;
use crate::fs::{self, FsError};
use crate::output::Maker;

/// The root of a task's paths in a container.
pub const ROOT: &str = "/quickbuild";

/// What outputs say instead of the folders in which a builder compiles: the
/// folder below the root, and what is written. The C compilers of images and of
/// the local builder replace them, and so does the wrapper of rustc. A debugger
/// finds the sources with a map from the second to the user's own folders.
pub const REMAPPED: [(&str, &str); 3] = [
    ("in/cargo", "/cargo-home"),
    ("in/workspace", "/workspace"),
    ("work/target", "/cargo-target"),
];

/// The last line of a command in a container that has done all it had to, where
/// nothing else runs there any more: what it made is as it will be.
pub const ENDED: &str = "quickbuild has ended here";

/// Numeric id of the user and the group `builder`, as whom everything runs.
pub const BUILDER_ID: u64 = 1000;

/// A command with what is known of it first.
#[derive(Debug)]
pub struct Task {
    /// What it is about, for labels.
    pub name: String,
    /// The store that it works for, for labels.
    pub store: PathBuf,
    /// What is prepared, with the programs that are to run.
    pub first: Vec<Entry>,
    /// A program, below the root, and its arguments: prepares what came first,
    /// and may write to `in/`.
    pub prepare: Vec<String>,
    /// The program, below the root, and its arguments.
    pub command: Vec<String>,
    /// All variables that the command sees.
    pub environment: Vec<(String, String)>,
    /// What it may use.
    pub limits: Limits,
}

impl Task {
    /// Bytes of what comes first, as it is.
    fn size(&self) -> u64 {
        let sizes = self.first.iter().map(|entry| match &entry.content {
            Content::Folder => 0,
            Content::File(path) => fs::Stamp::of(path).map_or(0, |stamp| stamp.size),
            Content::Tree(root) => fs::tree_size(root),
            Content::Bytes { bytes, .. } => bytes.len() as u64,
        });
        sizes.sum()
    }
}

/// What a task works with beside what came first, and where to.
#[derive(Debug)]
pub struct Load<'a> {
    /// What is put before the command, below `in/` and `work/`.
    pub files: &'a [Entry],
    /// What the command reads on its standard input, which need not end there.
    pub input: &'a [u8],
    /// The folder on this machine that gets what the command leaves in
    /// `work/out`; it exists and is empty.
    pub output: &'a Path,
}

/// Whether what was begun is to be given up.
pub type IsCancelled<'a> = &'a (dyn Fn() -> bool + Sync);

/// A file or folder for a task.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its path below the root: `in/…` for what is only read, `work/…`.
    pub path: String,
    /// What it is.
    pub content: Content,
}

/// What an entry holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// An empty folder.
    Folder,
    /// A file of this machine, with its mode.
    File(PathBuf),
    /// All files below a folder of this machine, with their modes.
    Tree(PathBuf),
    /// Bytes, and whether they are to be executed.
    Bytes {
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether the file is a program.
        executable: bool,
    },
}

/// What a task may use; zero is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Processor cores.
    pub cores: u64,
    /// How long it may take.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 0,
            processes: 4096,
            cores: 0,
            time: Duration::from_secs(3 * 3600),
        }
    }
}

/// A stream of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Who follows a task.
pub trait Watcher {
    /// A line of the command, without its end.
    fn line(&mut self, stream: Stream, line: &str);
    /// Whether the task is to be given up.
    fn is_cancelled(&self) -> bool;
}

/// Keeps what a first step says, in case that it fails.
struct Said<'a> {
    text: String,
    is_cancelled: IsCancelled<'a>,
}

impl<'a> Said<'a> {
    fn new(is_cancelled: IsCancelled<'a>) -> Self {
        let text = String::new();
        Self { text, is_cancelled }
    }
}

impl Watcher for Said<'_> {
    fn line(&mut self, _stream: Stream, line: &str) {
        let between = if self.text.is_empty() { "" } else { "; " };
        self.text.push_str(&format!("{between}{line}"));
    }

    fn is_cancelled(&self) -> bool {
        (self.is_cancelled)()
    }
}

/// Something that runs tasks.
pub trait Builder: Sync {
    /// Who makes what it makes.
    fn maker(&self) -> Maker;
    /// The folder that the task's paths are below.
    fn root(&self) -> &Path;
    /// Puts before a task what comes first, and prepares it: as long as that
    /// takes, the caller can find out what else is needed.
    fn begin<'a>(
        &'a self,
        task: &'a Task,
        is_cancelled: IsCancelled<'_>,
    ) -> Result<Box<dyn Begun + 'a>>;
    /// Removes all that is left of its tasks, whatever happened to them; also
    /// done when it is dropped. It takes a while, and can be done beside what the
    /// caller does with the result.
    fn tidy(&self) {}
}

/// A task that is prepared.
pub trait Begun: Send {
    /// Runs its command and brings back what it left. The exit code is the command's.
    fn run(self: Box<Self>, load: &Load<'_>, watcher: &mut dyn Watcher) -> Result<i64>;
}

/// Why a task could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum BuilderError {
    /// No engine answers.
    #[error("no container engine answers at `{address}`")]
    NoEngine {
        /// Where one was looked for.
        address: String,
        /// What happened there.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine refused or failed at something.
    #[error("the container engine cannot {operation}")]
    Engine {
        /// What was asked of it.
        operation: &'static str,
        /// Its answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine's disk has no room.
    #[error("the container engine cannot {operation}: its disk is full, so make room there")]
    Full {
        /// What was asked of it.
        operation: &'static str,
        /// Its answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The image is not there.
    #[error("the engine has no image `{image}`")]
    NoImage {
        /// Its name.
        image: String,
    },
    /// The image is another one than was pinned.
    #[error("the image `{image}` has the digest `{found}`, not the pinned `{pinned}`")]
    Digest {
        /// Its name.
        image: String,
        /// What the configuration says.
        pinned: String,
        /// What the engine has.
        found: String,
    },
    /// The image is for machines of another kind.
    #[error("the image `{image}` is for `{found}`, and the engine runs `{engine}`")]
    Architecture {
        /// Its name.
        image: String,
        /// What it is for.
        found: String,
        /// What the engine runs.
        engine: String,
    },
    /// The configuration pins no image for the builder.
    #[error("no image is pinned for the builder `{name}`")]
    NotPinned {
        /// The builder.
        name: String,
    },
    /// The command used up its time.
    #[error("it was stopped after {} s", limit.as_secs())]
    Time {
        /// The limit.
        limit: Duration,
    },
    /// The command used up its memory.
    #[error("it was stopped because it wanted more than {limit} bytes of memory")]
    Memory {
        /// The limit.
        limit: u64,
    },
    /// It was given up.
    #[error("it was cancelled")]
    Cancelled,
    /// What came back is no archive, or holds what it must not.
    #[error("what the builder left cannot be read")]
    Output(#[source] io::Error),
    /// A file of this machine.
    #[error("a file of the task cannot be used")]
    File(#[from] FsError),
    /// A thread of this process panicked.
    #[error("a thread that moves the task's files has panicked")]
    Panic,
    /// What runs first has failed.
    #[error("the builder cannot be prepared: {0}")]
    Prepare(String),
    /// The command could not be started.
    #[error("cannot run `{program}`")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
}

impl BuilderError {
    /// Whether the task is to blame: it used up what it may use.
    pub fn is_of_task(&self) -> bool {
        matches!(self, Self::Time { .. } | Self::Memory { .. })
    }
}

/// Result of a builder's operation.
pub type Result<T> = std::result::Result<T, BuilderError>;

/// A name that no other task has, on this machine or another.
fn unique_name() -> String {
    let seed = format!("{} {:?}", std::process::id(), fs::now());
    let digest = ContentHash::of(seed.as_bytes()).to_string();
    format!("quickbuild-{}", &digest[..16])
}
