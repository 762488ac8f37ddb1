//! The service: counts what is wanted, and has it built.
//!
//! ```text
//! connections (serve) ─► web ─► access      who is it
//!                         │
//!                         ├─► intake        what was sent, taken apart (pure)
//!                         ├─► counter       one transaction for all that waits
//!                         ├─► demand        what is wanted, asked
//!                         └─► builds        what is wanted enough, by workers
//!                                │
//!                            database       SQLite or PostgreSQL, one SQL
//! ```
//!
//! | module | job |
//! |---|---|
//! | [`intake`] | what clients send; pure |
//! | [`counter`] | who wants what, counted exactly |
//! | `counts` | how many want each thing, many in a row |
//! | [`demand`] | what is wanted, and what was saved |
//! | [`coverage`] | how much was prebuilt, a day at a time |
//! | [`builds`], `queue` | what is wanted enough, built by workers, and published |
//! | [`access`] | tokens, and who is counted |
//! | [`database`], `schema`, `ids` | where it lies |
//! | `prebuilt` | what of a project is published, and what alignment would give |
//! | `vouched` | who has signed what is published, and how it was made |
//! | `dashboard`, `pages`, `build_pages`, `lock_pages`, `badge`, `live` | pages and pictures for people |
//! | `work`, `admin` | what workers ask, and administrators |
//! | `web`, `body`, `answer`, `journal` | requests, answers, logs and metrics |
//!
//! Invariants:
//! * A server holds nothing that counts: any number of them may share one
//!   PostgreSQL, and each may be killed at any time.
//! * What a stranger sends is data: it is bounded, taken apart by strict readers,
//!   bound to statements as a parameter, and escaped where it is shown.
//! * Nothing is kept that says who a stranger is.

pub mod access;
mod admin;
mod answer;
mod badge;
mod body;
mod build_pages;
pub mod builds;
pub mod counter;
mod counts;
pub mod coverage;
mod dashboard;
pub mod database;
pub mod demand;
mod ids;
pub mod intake;
mod journal;
mod live;
mod lock_pages;
mod pages;
mod prebuilt;
mod queue;
mod schema;
mod vouched;
mod web;
mod work;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::console;
use crate::fs::{self, FsError};
use crate::serve::connections::Door;
use crate::serve::{TlsError, TlsFiles, stopped_by_signals};
use builds::Builds;
use counter::Counter;
use database::{Database, DatabaseError, Location};
use queue::Queue;

pub use builds::{Publishing, Rules};
pub use schema::VERSION;

/// How often SQLite's log is taken to the file.
const CHECKPOINT: Duration = Duration::from_secs(1);
/// How often is removed what nobody needs any more.
const CLEANING: Duration = Duration::from_secs(3_600);

/// What the service is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The certificate; without it, HTTP without TLS.
    pub tls: Option<TlsFiles>,
    /// The service's own folder.
    pub data: PathBuf,
    /// The database.
    pub database: Location,
    /// Addresses of proxies, which say for whom they ask.
    pub proxies: Vec<IpAddr>,
    /// When something is built.
    pub rules: Rules,
    /// Where what was built goes.
    pub publishing: Arc<Publishing>,
    /// Bounds.
    pub limits: Limits,
    /// Whether each request is told on standard output.
    pub access_log: bool,
}

/// Bounds of what clients may do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// Requests a second of one address; 0 for no limit.
    pub rate: u32,
    /// Bytes of a report.
    pub body: usize,
    /// How long a body may take to come.
    pub patience: Duration,
    /// How long requests may still take when the service is told to stop.
    pub grace: Duration,
}

/// Why there is no service.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
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
    /// The folder.
    #[error("the service's folder cannot be used")]
    Folder(#[from] FsError),
    /// The database.
    #[error("the database cannot be used")]
    Database(#[from] DatabaseError),
    /// Threads or signals cannot be had.
    #[error("the service cannot be started")]
    Start(#[source] io::Error),
}

/// A runtime for what asks the database.
pub fn runtime() -> Result<tokio::runtime::Runtime, ServiceError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("service")
        .build()
        .map_err(ServiceError::Start)
}

/// Opens the database, in a folder that is made if need be. A file of one's own
/// is brought up to date by whoever opens it; a server's tables are changed only
/// when that is asked for.
pub async fn open(data: &std::path::Path, location: &Location) -> Result<Database, ServiceError> {
    fs::create_private_dir_all(data)?;
    if matches!(location, Location::File(_)) {
        migrate(location).await?;
    }
    let database = Database::open(location).await?;
    database.check().await?;
    Ok(database)
}

/// Copies a database of SQLite to a new file, while a service goes on with it.
/// Nothing is changed, not even the version of its tables.
pub async fn back_up(
    location: &Location,
    file: &std::path::Path,
) -> Result<(), database::DatabaseError> {
    match location {
        Location::Url(_) => return Err(DatabaseError::NotAFile),
        // Opening would make one.
        Location::File(path) if !path.is_file() => {
            return Err(DatabaseError::Absent(path.clone()));
        }
        Location::File(_) => {}
    }
    let database = Database::open(location).await?;
    let copied = database.back_up(file).await;
    database.close().await;
    copied
}

/// Makes the tables, or brings them up to date; gives the version that they had.
pub async fn migrate(location: &Location) -> Result<i64, DatabaseError> {
    let database = Database::open(location).await?;
    let before = database.migrate().await?;
    database.close().await;
    let queue = Queue::open(location).await?;
    queue.migrate().await?;
    queue.close().await;
    Ok(before)
}

/// Serves until the process is told to stop. `started` gets the address.
pub fn run(options: Options, started: impl FnOnce(SocketAddr)) -> Result<(), ServiceError> {
    let runtime = runtime()?;
    let done = runtime.block_on(serve(&options, started));
    // What still hangs is left behind.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

async fn serve(options: &Options, started: impl FnOnce(SocketAddr)) -> Result<(), ServiceError> {
    let database = open(&options.data, &options.database).await?;
    let secret = access::secret(&database).await?;
    let builds = Builds::new(
        database.clone(),
        Queue::open(&options.database).await?,
        options.rules.clone(),
        Arc::clone(&options.publishing),
        &options.data,
    )?;
    let (counter, counting) = Counter::start(database.clone());
    let beside = database.clone();
    let checkpoints = tokio::spawn(async move {
        loop {
            tokio::time::sleep(CHECKPOINT).await;
            beside.checkpoint().await;
        }
    });
    let triggers = tokio::spawn(trigger(builds.clone()));
    let app = web::App::new(options, builds.clone(), counter, secret);
    let Limits {
        connections, grace, ..
    } = options.limits;
    let address = options.listen;
    let door = Door::open(address, connections, grace).await;
    let door = door.map_err(|source| ServiceError::Listen { address, source })?;
    let door = door.with_tls(options.tls.as_ref())?;
    let weak = Arc::downgrade(&app);
    let told = move || {
        if let Some(app) = weak.upgrade() {
            app.is_stopping.store(true, Ordering::Relaxed);
        }
    };
    let stop = stopped_by_signals(told).map_err(ServiceError::Start)?;
    started(door.address().map_err(ServiceError::Start)?);
    let cut = door.serve(Arc::clone(&app), stop).await;
    if cut > 0 {
        console::line(&format!(
            "warning: {cut} connections did not end in time and were cut"
        ));
    }
    // All that was accepted is counted before the end.
    drop(app);
    let _ = tokio::time::timeout(grace, counting).await;
    checkpoints.abort();
    triggers.abort();
    builds.close().await;
    database.close().await;
    Ok(())
}

/// Looks for what is to be built, for ever. Where the database is away, the next
/// look finds the same.
async fn trigger(builds: Builds) {
    let mut is_failing = false;
    let mut cleaned: Option<Instant> = None;
    loop {
        let done = async {
            if cleaned.is_none_or(|at| at.elapsed() >= CLEANING) {
                builds.clean().await?;
                cleaned = Some(Instant::now());
            }
            builds.trigger().await
        };
        let done = done.await;
        if let Err(error) = &done
            && !is_failing
        {
            let said = console::chain(error);
            console::line(&format!("warning: builds cannot be queued: {said}"));
        }
        is_failing = done.is_err();
        tokio::time::sleep(builds.rules().pause).await;
    }
}
