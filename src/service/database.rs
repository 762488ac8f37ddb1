//! The database: SQLite in one file, or PostgreSQL.
//!
//! Both get the same SQL. What their dialects differ in stands between braces in
//! the text (`Database::sql`):
//!
//! | text | meaning |
//! |---|---|
//! | `{each}` | the rows of the JSON array in `$1`, as `each.value` |
//! | `{id}` | the type of a key that is a number |
//! | `{array}` | a function that gives all rows' values as one JSON array |
//! | `{half}` | of a table: pages are filled by half, for rows that change |
//!
//! Many rows travel as one JSON text, so that a statement is planned, sent and
//! answered once for all of them.
//!
//! Invariant: one transaction writes at a time, on SQLite because it knows no
//! other way, on PostgreSQL by a lock of its own; so what is counted is exact.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::{Any, AnyPool, AssertSqlSafe, Executor as _, Row as _, Transaction};

use super::schema::{STEPS, VERSION};
use crate::fs::{self, FsError};

/// Connections for reading.
const READERS: u32 = 8;
/// How long a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// The lock of writers in PostgreSQL; any number that nobody else takes.
const WRITERS: i64 = 0x7175_6963_6b62;
/// The file of SQLite, in the folder of the service.
pub const FILE: &str = "service.sqlite";

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// In this process.
    Sqlite,
    /// A server.
    Postgres,
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file.
    File(PathBuf),
    /// `postgres://…`
    Url(String),
}

impl Location {
    /// Reads a URL; without one it is the file in the service's folder.
    pub fn new(url: Option<&str>, data: &Path) -> Result<Self> {
        match url {
            None => Ok(Self::File(data.join(FILE))),
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                Ok(Self::Url(url.to_owned()))
            }
            // It may have a password; it is not shown.
            Some(_url) => Err(DatabaseError::Location),
        }
    }

    /// For sqlx. `?` and `%` of a path are not those of the URL.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Url(url) => url.clone(),
            Self::File(path) => {
                let path = path.to_string_lossy();
                let path = path
                    .replace('%', "%25")
                    .replace('?', "%3F")
                    .replace('#', "%23");
                format!("sqlite://{path}?mode=rwc")
            }
        }
    }

    fn engine(&self) -> Engine {
        match self {
            Self::File(_) => Engine::Sqlite,
            Self::Url(_) => Engine::Postgres,
        }
    }
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL is of another kind.
    #[error("the database's URL does not begin with `postgres://`")]
    Location,
    /// It does not answer, or refuses.
    #[error("the database cannot be reached")]
    Connect(#[source] sqlx::Error),
    /// A statement failed.
    #[error("the database refuses to {doing}")]
    Statement {
        /// What was to be done.
        doing: &'static str,
        /// Why not.
        source: sqlx::Error,
    },
    /// It is of a newer version.
    #[error("the database has schema {found}, this program knows {VERSION}")]
    Newer {
        /// Its version.
        found: i64,
    },
    /// It is of an older version, or empty.
    #[error("the database has schema {found}, this program needs {VERSION}")]
    Older {
        /// Its version; 0 if it is empty.
        found: i64,
    },
    /// A copy is asked of a server.
    #[error("a PostgreSQL is copied by its own `pg_dump`")]
    NotAFile,
    /// There is no file to copy.
    #[error("there is no database `{0}`")]
    Absent(PathBuf),
    /// A file cannot be written.
    #[error("the copy cannot be written")]
    Copy(#[from] FsError),
    /// The queue.
    #[error("the queue of builds cannot be used")]
    Queue(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Result of something that asks the database.
pub type Result<T> = std::result::Result<T, DatabaseError>;

/// What gives a statement's error its words.
pub(super) trait Doing<T> {
    /// Says what was to be done.
    fn doing(self, doing: &'static str) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T> {
        self.map_err(|source| DatabaseError::Statement { doing, source })
    }
}

impl DatabaseError {
    /// Whether the same may succeed a moment later: the server is gone or
    /// restarts, or somebody else writes.
    pub fn is_passing(&self) -> bool {
        let (Self::Connect(source) | Self::Statement { source, .. }) = self else {
            return false;
        };
        match source {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                // SQLite: busy, locked, disk full (https://sqlite.org/rescode.html).
                // PostgreSQL: connection, rolled back, resources, operator
                // (its manual, appendix A).
                matches!(&*code, "5" | "6" | "13" | "261" | "517")
                    || ["08", "40", "53", "57"]
                        .iter()
                        .any(|class| code.len() == 5 && code.starts_with(class))
            }
            _ => false,
        }
    }
}

/// An open database.
#[derive(Debug, Clone)]
pub struct Database {
    engine: Engine,
    readers: AnyPool,
    /// One connection on SQLite.
    writers: AnyPool,
}

impl Database {
    /// Opens it; its tables may be missing or old ([`migrate`](super::migrate)).
    pub async fn open(location: &Location) -> Result<Self> {
        install_default_drivers();
        let engine = location.engine();
        let pool = |connections| {
            AnyPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(PATIENCE)
                .after_connect(move |connection, _| {
                    Box::pin(async move {
                        let settings = match engine {
                            Engine::Sqlite => SQLITE,
                            Engine::Postgres => POSTGRES,
                        };
                        for setting in settings {
                            connection.execute(*setting).await?;
                        }
                        Ok(())
                    })
                })
        };
        let writing = match engine {
            Engine::Sqlite => 1,
            Engine::Postgres => 4,
        };
        let url = location.url();
        let open = async |connections| {
            let pool = pool(connections).connect(&url).await;
            pool.map_err(DatabaseError::Connect)
        };
        Ok(Self {
            engine,
            writers: open(writing).await?,
            readers: open(READERS).await?,
        })
    }

    /// Which one it is.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// For questions.
    pub(super) fn readers(&self) -> &AnyPool {
        &self.readers
    }

    /// A statement in this database's dialect.
    pub(super) fn sql(&self, text: &'static str) -> AssertSqlSafe<String> {
        let (each, id, array, half) = match self.engine {
            Engine::Sqlite => ("json_each($1) AS each", "INTEGER", "json_group_array", ""),
            Engine::Postgres => (
                "jsonb_array_elements(CAST($1 AS jsonb)) AS each(value)",
                "BIGINT",
                "jsonb_agg",
                " WITH (fillfactor = 50)",
            ),
        };
        let text = text.replace("{each}", each).replace("{id}", id);
        let text = text.replace("{array}", array);
        AssertSqlSafe(text.replace("{half}", half))
    }

    /// Begins to write, when nobody else does.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Any>> {
        match self.engine {
            Engine::Sqlite => {
                let (begin, doing) = ("BEGIN IMMEDIATE", "begin to write");
                let begun = self.writers.begin_with(begin).await;
                let Err(sqlx::Error::InvalidSavePointStatement) = begun else {
                    return begun.doing(doing);
                };
                // Where a commit fails, as on a full disk, SQLite ends the
                // transaction, and sqlx believes that it goes on.
                let useless = self.writers.acquire().await.doing(doing)?;
                useless.close().await.doing(doing)?;
                self.writers.begin_with(begin).await.doing(doing)
            }
            Engine::Postgres => {
                let mut begun = self.writers.begin().await.doing("begin to write")?;
                let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(WRITERS);
                lock.execute(&mut *begun).await.doing("begin to write")?;
                Ok(begun)
            }
        }
    }

    /// The version of its tables; 0 if there are none.
    pub async fn version(&self) -> Result<i64> {
        let table = match self.engine {
            Engine::Sqlite => {
                "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = 'quickbuild'"
            }
            Engine::Postgres => {
                "SELECT COUNT(*) FROM pg_class WHERE oid = to_regclass('quickbuild')"
            }
        };
        let doing = "tell its version";
        let count = sqlx::query(table)
            .fetch_one(&self.readers)
            .await
            .doing(doing)?;
        if count.try_get::<i64, _>(0).doing(doing)? == 0 {
            return Ok(0);
        }
        let version = sqlx::query("SELECT version FROM quickbuild");
        let version = version.fetch_one(&self.readers).await.doing(doing)?;
        version.try_get(0).doing(doing)
    }

    /// Sees that it has the tables that this program knows.
    pub async fn check(&self) -> Result<()> {
        let found = self.version().await?;
        match found.cmp(&VERSION) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => Err(DatabaseError::Older { found }),
            std::cmp::Ordering::Greater => Err(DatabaseError::Newer { found }),
        }
    }

    /// Makes the tables, or brings them up to date; gives the version it had.
    /// Nothing is half done: each step is a transaction.
    pub(super) async fn migrate(&self) -> Result<i64> {
        let begin = self.version().await?;
        if begin > VERSION {
            return Err(DatabaseError::Newer { found: begin });
        }
        for number in begin + 1..=VERSION {
            let step = STEPS[usize::try_from(number - 1).unwrap_or_default()];
            let doing = "change its tables";
            let mut transaction = self.begin().await?;
            // Another server may have been faster.
            if self.version().await? >= number {
                continue;
            }
            for statement in step.split(";\n").filter(|text| !text.trim().is_empty()) {
                let statement = sqlx::query(self.sql(statement)).persistent(false);
                statement.execute(&mut *transaction).await.doing(doing)?;
            }
            let version = sqlx::query("UPDATE quickbuild SET version = $1").bind(number);
            version.execute(&mut *transaction).await.doing(doing)?;
            transaction.commit().await.doing(doing)?;
        }
        Ok(begin)
    }

    /// Copies all that was committed to a new file that only its owner can read,
    /// whole or not at all, while others read and write.
    pub async fn back_up(&self, file: &Path) -> Result<()> {
        if self.engine != Engine::Sqlite {
            return Err(DatabaseError::NotAFile);
        }
        let beside = fs::unique_beside(file);
        let copied = self.copy(&beside).await;
        // Unlike a rename, a link replaces nothing.
        let linked = copied.and_then(|()| fs::link(&beside, file).map_err(Into::into));
        fs::remove_file(&beside)?;
        linked
    }

    async fn copy(&self, file: &Path) -> Result<()> {
        fs::write_new_private(file, b"")?;
        let copy = sqlx::query("VACUUM INTO $1").bind(file.to_string_lossy().into_owned());
        let doing = "copy itself";
        copy.execute(&self.readers).await.doing(doing)?;
        fs::sync(file)?;
        Ok(())
    }

    /// Takes what SQLite's log has to the file, beside whoever reads and writes.
    pub(super) async fn checkpoint(&self) {
        if self.engine == Engine::Sqlite {
            // Where it cannot be done, the next one does more.
            let take = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)");
            let _ = take.fetch_optional(&self.readers).await;
        }
    }

    /// Ends all connections, in order.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }
}

/// A commit is on the disk before anybody is told (`synchronous`), readers do
/// not wait for writers (`journal_mode`), and a commit does not take what others
/// wrote from the log to the file, unless that has become 256 MiB
/// ([`Database::checkpoint`] does it beside them).
pub(super) const SQLITE: &[&str] = &[
    "PRAGMA busy_timeout = 10000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -65536",
    "PRAGMA mmap_size = 268435456",
    "PRAGMA wal_autocheckpoint = 65536",
];

/// Every statement finds its rows by a key or in an index's order. Nothing tells
/// PostgreSQL how many rows a JSON text has, nor how large a table is that has
/// just grown, and it would read all of it. A table without an index it reads all
/// the same, believes that to be dear, and would compile the statement (`jit`),
/// 100 ms for one row.
const POSTGRES: &[&str] = &[
    "SET statement_timeout = '30s'",
    "SET lock_timeout = '10s'",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET enable_seqscan = off",
    "SET jit = off",
];

/// Rows for the one parameter that `{each}` reads.
pub(super) struct Rows {
    text: String,
}

impl Rows {
    /// No rows.
    pub(super) fn new() -> Self {
        Self {
            text: String::from("["),
        }
    }

    /// Adds a row: a tuple or an array.
    pub(super) fn push(&mut self, row: &impl Serialize) {
        if !self.is_empty() {
            self.text.push(',');
        }
        self.text += &serde_json::to_string(row).expect("rows have a text");
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.len() == 1
    }

    /// As a parameter.
    pub(super) fn finish(mut self) -> String {
        self.text.push(']');
        self.text
    }
}

impl<R: Serialize> FromIterator<R> for Rows {
    fn from_iter<I: IntoIterator<Item = R>>(rows: I) -> Self {
        let mut all = Self::new();
        for row in rows {
            all.push(&row);
        }
        all
    }
}
