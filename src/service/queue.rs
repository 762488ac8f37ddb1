//! The queue of builds: apalis, on the service's own database.
//!
//! apalis knows tasks and workers; here a task is one try at a build, and a
//! worker of apalis is one lease, so that what a dead worker had goes back to the
//! queue by itself. Its queries are used as they are, each in a transaction of
//! its own: what a build *is* stands in the table `builds`, and whoever takes a
//! task looks there. So a task that comes twice does no harm.

use std::time::Duration;

use apalis_core::backend::{TaskResult, WorkerFilter};
use apalis_core::task::builder::TaskBuilder;
use apalis_core::task::status::Status;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::context::WorkerContext;
use apalis_postgres::{PostgresStorage, queries as postgres};
use apalis_sqlite::{SqliteStorage, queries as sqlite};
use sqlx::pool::PoolOptions;
use sqlx::{Executor as _, PgPool, SqliteConnection, SqlitePool};

use super::database::{DatabaseError, Doing as _, Location, Result, SQLITE};

/// Connections; one is held for the time of one query.
const CONNECTIONS: u32 = 2;
/// How long one is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nothing gives up here: what fails too often is known to `builds`.
const ATTEMPTS: usize = 1_000_000;
/// What is being done, for errors.
const DOING: &str = "queue builds";

/// The queue.
#[derive(Debug, Clone)]
pub(super) enum Queue {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// One try at a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Try {
    /// The build.
    pub(super) build: i64,
    /// Which try it is; a task of an earlier one counts no more.
    pub(super) round: i64,
}

/// A task that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    /// What it is about; none if it is no task of ours.
    pub(super) what: Option<Try>,
    /// Its id in the queue.
    pub(super) task: String,
}

impl Queue {
    /// Opens it; its tables may be missing.
    pub(super) async fn open(location: &Location) -> Result<Self> {
        let url = location.url();
        match location {
            Location::File(_) => {
                let options = PoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(PATIENCE)
                    .after_connect(|connection: &mut SqliteConnection, _| {
                        Box::pin(async move {
                            for setting in SQLITE {
                                connection.execute(*setting).await?;
                            }
                            Ok(())
                        })
                    });
                let pool = options.connect(&url).await;
                Ok(Self::Sqlite(pool.map_err(DatabaseError::Connect)?))
            }
            Location::Url(_) => {
                let options = PoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(PATIENCE);
                let pool = options.connect(&url).await;
                Ok(Self::Postgres(pool.map_err(DatabaseError::Connect)?))
            }
        }
    }

    /// Makes its tables, or brings them up to date. The settings that apalis
    /// would make beside it are not: a commit must be on the disk.
    pub(super) async fn migrate(&self) -> Result<()> {
        let done = match self {
            Self::Sqlite(pool) => SqliteStorage::<()>::migrations().run(pool).await,
            Self::Postgres(pool) => PostgresStorage::<()>::migrations().run(pool).await,
        };
        done.map_err(|error| DatabaseError::Queue(Box::new(error)))
    }

    /// Adds a try; one that is there already stays as it is. `after` is the
    /// second before which nobody takes it.
    pub(super) async fn push(
        &self,
        queue: &str,
        what: Try,
        priority: i64,
        after: i64,
    ) -> Result<()> {
        let Try { build, round } = what;
        let name = format!("{build} {round}");
        let task = TaskBuilder::new(name.clone().into_bytes())
            .idempotency_key(&name)
            .priority(usize::try_from(priority).unwrap_or(0))
            .max_attempts(ATTEMPTS)
            .run_at_timestamp(u64::try_from(after).unwrap_or(0))
            .build();
        match self {
            Self::Sqlite(pool) => {
                let mut connection = pool.acquire().await.doing(DOING)?;
                let pushed = sqlite::push_tasks(&mut *connection, queue, &[task]).await;
                pushed.map_err(Into::into)
            }
            Self::Postgres(pool) => {
                let mut connection = pool.acquire().await.doing(DOING)?;
                match postgres::push_tasks(&mut *connection, queue, vec![task]).await {
                    // Another server was faster.
                    Err(apalis_postgres::Error::Database(error)) if is_duplicate(&error) => Ok(()),
                    pushed => pushed.map_err(Into::into),
                }
            }
        }
    }

    /// Takes the next task, for a lease.
    pub(super) async fn take(&self, queue: &str, lease: &str) -> Result<Option<Taken>> {
        let worker = WorkerContext::new(lease);
        let tasks = match self {
            Self::Sqlite(pool) => {
                let config = apalis_sqlite::Config::default().queue(queue).batch_size(1);
                sqlite::register_worker(pool, &config, &worker, "quickbuild")
                    .await
                    .doing(DOING)?;
                let taken = sqlite::fetch_next(pool, &config, &worker).await;
                taken?
            }
            Self::Postgres(pool) => {
                let config = apalis_postgres::Config::default()
                    .queue(queue)
                    .batch_size(1);
                let mut connection = pool.acquire().await.doing(DOING)?;
                // apalis can do it, but nobody else can make the time that its
                // query wants.
                const REGISTER: &str = "INSERT INTO apalis.workers \
                    (id, worker_type, storage_name, last_seen) VALUES ($1, $2, 'quickbuild', now())";
                let register = sqlx::query(REGISTER).bind(lease).bind(queue);
                register.execute(&mut *connection).await.doing(DOING)?;
                let taken = postgres::fetch_next(&mut *connection, &config, &worker).await;
                taken?
            }
        };
        Ok(tasks.into_iter().next().and_then(|task| {
            let id = task.task_id()?.to_string();
            let text = String::from_utf8(task.args.clone()).ok();
            Some(Taken {
                what: text.as_deref().and_then(Try::read),
                task: id,
            })
        }))
    }

    /// Tells that a lease is alive.
    pub(super) async fn keep(&self, queue: &str, lease: &str) -> Result<()> {
        let worker = WorkerContext::new(lease);
        match self {
            Self::Sqlite(pool) => {
                let config = apalis_sqlite::Config::default().queue(queue);
                let kept = sqlite::keep_alive(pool, &config, &worker).await;
                kept.doing(DOING)
            }
            Self::Postgres(pool) => {
                let mut connection = pool.acquire().await.doing(DOING)?;
                let kept = postgres::keep_alive(&mut *connection, queue, &worker).await;
                kept.map_err(Into::into)
            }
        }
    }

    /// Takes a task out of the queue, whatever came of it.
    pub(super) async fn finish(&self, lease: &str, task: &str) -> Result<()> {
        let result = TaskResult {
            task_id: task_id(task)?,
            attempt: 1,
            status: Status::Done,
            result: Ok(serde_json::Value::Null),
        };
        match self {
            Self::Sqlite(pool) => {
                let done = sqlite::ack_tasks(pool, &[&result], lease).await;
                done.doing(DOING)?;
            }
            Self::Postgres(pool) => {
                let mut connection = pool.acquire().await.doing(DOING)?;
                let done = postgres::handle_results(&mut *connection, &[&result], lease).await;
                done?;
            }
        }
        Ok(())
    }

    /// Gives back what leases had of which nothing was heard for so long.
    pub(super) async fn reclaim(&self, queue: &str, silence: Duration) -> Result<u64> {
        let seconds = silence.as_secs();
        match self {
            Self::Sqlite(pool) => {
                let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
                let all = WorkerFilter::None;
                sqlite::reenqueue_orphaned(pool, seconds, queue, &all)
                    .await
                    .doing(DOING)
            }
            Self::Postgres(pool) => {
                let mut connection = pool.acquire().await.doing(DOING)?;
                let given = postgres::reenqueue_orphaned(&mut *connection, queue, seconds).await;
                given.map_err(Into::into)
            }
        }
    }

    /// Removes tasks that were done so many seconds ago, and what is left of the
    /// leases that had them; gives the number of tasks. apalis's own way does that
    /// on SQLite alone, whatever their age, and then rewrites the whole database.
    pub(super) async fn clean(&self, age: Duration) -> Result<u64> {
        let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        match self {
            Self::Sqlite(pool) => {
                const TASKS: &str = "DELETE FROM Jobs WHERE status = 'Done' \
                    AND done_at <= strftime('%s', 'now') - $1";
                const LEASES: &str = "DELETE FROM Workers \
                    WHERE last_seen <= strftime('%s', 'now') - $1 \
                    AND NOT EXISTS (SELECT 1 FROM Jobs WHERE Jobs.lock_by = Workers.id)";
                let tasks = sqlx::query(TASKS).bind(seconds).execute(pool);
                let tasks = tasks.await.doing(DOING)?.rows_affected();
                let leases = sqlx::query(LEASES).bind(seconds).execute(pool);
                leases.await.doing(DOING)?;
                Ok(tasks)
            }
            Self::Postgres(pool) => {
                const TASKS: &str = "DELETE FROM apalis.jobs WHERE status = 'Done' \
                    AND done_at <= now() - make_interval(secs => $1)";
                const LEASES: &str = "DELETE FROM apalis.workers \
                    WHERE last_seen <= now() - make_interval(secs => $1) \
                    AND NOT EXISTS (SELECT 1 FROM apalis.jobs \
                    WHERE apalis.jobs.lock_by = apalis.workers.id)";
                let seconds = seconds as f64;
                let tasks = sqlx::query(TASKS).bind(seconds).execute(pool);
                let tasks = tasks.await.doing(DOING)?.rows_affected();
                let leases = sqlx::query(LEASES).bind(seconds).execute(pool);
                leases.await.doing(DOING)?;
                Ok(tasks)
            }
        }
    }

    /// Ends all connections, in order.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

fn task_id(text: &str) -> Result<TaskId> {
    let id = text.parse::<TaskId>();
    id.map_err(|error| DatabaseError::Queue(Box::new(error)))
}

impl Try {
    fn read(text: &str) -> Option<Self> {
        let (build, round) = text.split_once(' ')?;
        Some(Self {
            build: build.parse().ok()?,
            round: round.parse().ok()?,
        })
    }
}

impl From<apalis_sqlite::Error> for DatabaseError {
    fn from(error: apalis_sqlite::Error) -> Self {
        match error {
            apalis_sqlite::Error::Database(source) => statement(source),
            other => Self::Queue(Box::new(other)),
        }
    }
}

impl From<apalis_postgres::Error> for DatabaseError {
    fn from(error: apalis_postgres::Error) -> Self {
        match error {
            apalis_postgres::Error::Database(source) => statement(source),
            other => Self::Queue(Box::new(other)),
        }
    }
}

fn statement(source: sqlx::Error) -> DatabaseError {
    let doing = DOING;
    DatabaseError::Statement { doing, source }
}

fn is_duplicate(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
