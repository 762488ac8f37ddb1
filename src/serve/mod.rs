//! A substituter over HTTP: what a folder has published, the call for many
//! recipes at once, and a place to publish to.
//!
//! ```text
//! connections ─► site ─► tokens, rate          who is let in
//!                 │
//!                 ├─► files, body, conditions  files: in memory, parts, tags, pieces
//!                 ├─► catalogue                calls: all documents in memory
//!                 └─► uploads, accept          what others publish, verified first
//!                              ▲
//! mirror: store ─► folder ─────┘               a store is served as a folder that follows it
//! ```
//!
//! Invariants:
//! * What is served is what lies in the folder. The server signs nothing and
//!   believes nobody: clients verify as they always do.
//! * Nothing that was not verified is ever visible at its path, and nothing that
//!   is published is lost or replaced by something else.
//! * All that a client can make the server hold is bounded: connections,
//!   requests, bodies, time.
//!
//! hyper alone carries it: there are eight paths, and what a framework adds,
//! routing, is the smallest part. Whatever is a `hyper::service::Service` could
//! stand on the same connections.

mod accept;
mod body;
mod catalogue;
mod conditions;
pub mod connections;
mod files;
pub mod log;
mod metrics;
mod mirror;
pub mod rate;
mod reply;
mod route;
mod site;
mod threads;
pub mod times;
mod tls;
mod tokens;
pub(crate) mod uploads;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::console;
use crate::fs::{self, FsError, Lock};
use crate::publish::{Local, Published};
use crate::substituter::{CacheInfo, SubstituterError, document};
use crate::trust::PublicKey;
use accept::Rules;
use catalogue::Catalogue;
use connections::Door;
use log::AccessLog;
use metrics::Metrics;
use mirror::{Mirror, MirrorError, State};
use rate::Rates;
use site::{Site, Tools, Writing};
use threads::Threads;
use uploads::Uploads;

pub use tls::{TlsError, TlsFiles};
pub use tokens::{TokenError, Tokens, parse_tokens, read_tokens};

/// How often a store is looked at.
const LOOK: Duration = Duration::from_secs(3);

/// What is served, to whom, and how much of it.
pub struct Options {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What is served.
    pub source: Source,
    /// The certificate; without it, HTTP without TLS.
    pub tls: Option<TlsFiles>,
    /// Who may read and write.
    pub tokens: Tokens,
    /// Bounds.
    pub limits: Limits,
    /// Whether each request is told on standard output.
    pub access_log: bool,
}

/// What is served.
pub enum Source {
    /// A store.
    Store {
        /// Its folder.
        store: PathBuf,
        /// Whether what was compiled on this machine is served, too.
        local: Local,
        /// Keys that may have signed, to be named as the substituter's.
        keys: Vec<PublicKey>,
    },
    /// A published folder.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Keys, one of which must have signed what is published over HTTP;
        /// without any, everything is accepted.
        keys: Vec<PublicKey>,
    },
}

/// Bounds of what clients may do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// Requests a second of one address; 0 for no limit.
    pub rate: u32,
    /// Bytes of an archive that is published over HTTP.
    pub upload: u64,
    /// How long requests may still take when the server is told to stop.
    pub grace: Duration,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate.
    #[error("TLS cannot be offered")]
    Tls(#[from] TlsError),
    /// The folder is no substituter, and nobody may make it one.
    #[error("`{}` is no substituter: it has no `{}`", folder.display(), document::INFO)]
    NoSubstituter {
        /// The folder.
        folder: PathBuf,
    },
    /// A file of the folder.
    #[error("the folder cannot be used")]
    File(#[from] FsError),
    /// What is in the folder.
    #[error("the folder cannot be served")]
    Folder(#[from] SubstituterError),
    /// The store cannot be followed.
    #[error("the store cannot be served")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Threads or signals cannot be had.
    #[error("the server cannot be started")]
    Start(#[source] io::Error),
}

impl From<MirrorError> for ServeError {
    fn from(error: MirrorError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// Serves until the process is told to stop. `started` gets the address.
pub fn run(options: Options, started: impl FnOnce(SocketAddr)) -> Result<(), ServeError> {
    let (folder, keys, mirror) = match options.source {
        Source::Folder { folder, keys } => (folder, keys, None),
        Source::Store { store, local, keys } => {
            let mirror = Mirror { store, local, keys };
            let folder = mirror.folder()?;
            make(&folder)?;
            (folder, Vec::new(), Some(mirror))
        }
    };
    let can_write = options.tokens.allows_writing() && mirror.is_none();
    if can_write {
        make(&folder)?;
    }
    see(&folder)?;
    let catalogue = Arc::new(Catalogue::open(&folder)?);
    let writing = if can_write {
        Some(Writing {
            rules: Rules::new(&folder, keys, Arc::clone(&catalogue))?,
            uploads: Uploads::begin(&folder)?,
            limit: options.limits.upload,
        })
    } else {
        None
    };
    let log = if options.access_log {
        AccessLog::start()
    } else {
        AccessLog::none()
    };
    let site = Arc::new(Site {
        folder,
        catalogue,
        tokens: options.tokens,
        rates: Rates::new(options.limits.rate),
        metrics: Arc::new(Metrics::default()),
        log: Arc::new(log),
        writing,
        is_stopping: AtomicBool::new(false),
        connections: options.limits.connections,
        tools: Tools::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServeError::Start)?;
    let address = options.listen;
    let door = Door::open(address, options.limits.connections, options.limits.grace);
    let door = runtime
        .block_on(door)
        .map_err(|source| ServeError::Listen { address, source })?
        .with_tls(options.tls.as_ref())?
        .with_threads(Threads::start().map_err(ServeError::Start)?);
    let own = door.address().map_err(ServeError::Start)?;
    let weak = Arc::downgrade(&site);
    let told = move || {
        if let Some(site) = weak.upgrade() {
            site.is_stopping.store(true, Ordering::Relaxed);
        }
    };
    let stop = stopped_by_signals(told).map_err(ServeError::Start)?;
    let following = mirror.map(Following::start);
    started(own);
    let cut = runtime.block_on(door.serve(Arc::clone(&site), stop));
    if cut > 0 {
        console::line(&format!(
            "warning: {cut} connections did not end in time and were cut"
        ));
    }
    // What still hangs is left behind; the log is written to its end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(following);
    Ok(())
}

/// Makes a folder a substituter.
fn make(folder: &Path) -> Result<(), FsError> {
    for name in ["", "recipes", "closures", "archives"] {
        fs::create_dir_all(&folder.join(name))?;
    }
    let _lock = Lock::exclusive(&folder.join(".lock"))?;
    let path = folder.join(document::INFO);
    if fs::read_optional(&path)?.is_none() {
        fs::write_atomic(&path, &CacheInfo::default().to_bytes())?;
    }
    Ok(())
}

/// Sees that a folder is a substituter of this format.
fn see(folder: &Path) -> Result<(), ServeError> {
    let path = folder.join(document::INFO);
    let Some(bytes) = fs::read_optional(&path)? else {
        return Err(ServeError::NoSubstituter {
            folder: folder.to_owned(),
        });
    };
    CacheInfo::parse(&bytes, &path.display().to_string())?;
    Ok(())
}

/// Becomes true at the first signal, after `told`; the second one ends the
/// process.
pub fn stopped_by_signals(told: impl Fn() + Send + 'static) -> io::Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if *stop.borrow() {
                std::process::exit(128 + signal);
            }
            told();
            console::line("quickbuild: stopping; requests under way are answered first");
            stop.send_replace(true);
        }
    });
    Ok(stopped)
}

/// A thread that makes a folder follow a store, until it is dropped.
struct Following(Option<(Sender<()>, std::thread::JoinHandle<()>)>);

impl Following {
    fn start(mirror: Mirror) -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || follow(&mirror, &stopped));
        Self(Some((stop, thread)))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // The thread ends at its next look. While it packs, nobody waits for it:
        // the end of the process leaves the folder in order.
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn follow(mirror: &Mirror, stopped: &Receiver<()>) {
    let mut seen: Option<State> = None;
    let mut said = None;
    loop {
        let result = mirror.state().and_then(|state| {
            if seen.as_ref() == Some(&state) {
                return Ok(None);
            }
            let published = mirror.follow()?;
            // What came meanwhile is found the next time.
            seen = Some(state);
            Ok(Some(published))
        });
        match result {
            Ok(None) => {}
            Ok(Some(published)) => {
                said = None;
                tell(&published);
            }
            Err(error) => {
                let text = console::chain(&error);
                // Once, not every few seconds.
                if said.as_ref() != Some(&text) {
                    console::line(&format!("warning: the store is not followed: {text}"));
                    said = Some(text);
                }
            }
        }
        if stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

fn tell(published: &Published) {
    let Published {
        added,
        existing,
        local,
        ..
    } = published;
    console::line(&format!(
        "quickbuild: {} outputs are served, {} of them new",
        added.len() + existing,
        added.len()
    ));
    if *local > 0 {
        console::line(&format!(
            "quickbuild: {local} outputs were compiled on this machine, or against such, and are \
             not served; `--include-local` serves them as they are"
        ));
    }
}
