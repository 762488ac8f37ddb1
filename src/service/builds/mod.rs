//! What is wanted often enough, built by workers, and published.
//!
//! ```text
//! counts ─► trigger ─► builds ─► queue ─► lease ─► a worker's builder
//!                        ▲                              │ outputs
//!                        └──────── accept ◄─────────────┘
//!                                    │ verified, audited, believed or agreed upon
//!                                    └─► signed ─► substituter
//! ```
//!
//! | module | job |
//! |---|---|
//! | `trigger` | which recipes become builds, and which build makes them |
//! | `heirs` | new recipes that follow a wanted one, and its demand |
//! | `toolchains` | wanted recipes, rewritten for the next toolchain |
//! | `plans` | wanted trees that came without recipes |
//! | `lease` | who builds what, and what came of it |
//! | `making` | what workers make at this moment |
//! | `administer` | what an administrator does with a build |
//! | `accept` | outputs that a worker sends |
//! | `verify` | what an output must be before anybody believes it |
//! | [`board`] | what there is, asked |
//!
//! Invariants:
//! * A recipe has one build, and a build has one lease that counts; a result is
//!   taken once, from whoever holds that lease.
//! * A recipe is made under one lease at a time, as part of whatever build.
//! * What stands in `builds` decides. The queue may forget or repeat a task, and
//!   a server or worker may be killed between any two steps: the build is then
//!   queued again, or was finished.
//! * What a stranger reported is only ever compiled in a worker's container.

pub(super) mod accept;
pub(super) mod administer;
pub mod board;
mod heirs;
pub(super) mod lease;
mod making;
pub(super) mod plans;
pub(super) mod toolchains;
pub(super) mod trigger;
mod verify;

pub(super) use verify::VerifyError;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use making::Remembered;

use super::database::{Database, Doing as _, Result, Rows};
use super::ids;
use super::queue::Queue;
use crate::builder::definition::Definitions;
use crate::digest::ContentHash;
use crate::serve::uploads::Uploads;
use crate::substituter::Substituter;
use crate::trust::SecretKey;

/// What is being done, for errors.
const DOING: &str = "look after builds";
/// Failures within [`MEMORY`] after which a build rests.
const FAILURES: i64 = 5;
/// Seconds that a failure is remembered: seven days.
const MEMORY: i64 = 7 * 86_400;
/// How long a task that was done stays in the queue's table, for whoever looks.
const KEPT: Duration = Duration::from_secs(86_400);

/// When something is built, and by whom.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How many must want a recipe.
    pub threshold: u32,
    /// Seconds of builders a day; `None` for no limit.
    pub budget: Option<u64>,
    /// How long a lease lasts of which nothing is heard.
    pub lease: Duration,
    /// How long after its first failure a build is tried again.
    pub retry: Duration,
    /// How often is looked for something to build.
    pub pause: Duration,
    /// Bytes that a worker may send for a build.
    pub upload: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            threshold: 3,
            budget: None,
            lease: Duration::from_secs(120),
            retry: Duration::from_secs(60),
            pause: Duration::from_secs(5),
            upload: 4 << 30,
        }
    }
}

/// Where outputs go, and what they must be.
pub struct Publishing {
    /// The substituter.
    pub to: Substituter,
    /// Who signs; without a key nothing is accepted.
    pub key: Option<SecretKey>,
    /// Digests of the images that builders are pinned to.
    pub images: BTreeMap<String, ContentHash>,
    /// What is known of builders.
    pub definitions: Definitions,
}

impl std::fmt::Debug for Publishing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publishing").finish_non_exhaustive()
    }
}

/// All that builds need.
#[derive(Clone)]
pub(super) struct Builds {
    database: Database,
    queue: Queue,
    rules: Rules,
    publishing: Arc<Publishing>,
    uploads: Arc<Uploads>,
    remembered: Arc<Remembered>,
}

impl Builds {
    pub(super) fn new(
        database: Database,
        queue: Queue,
        rules: Rules,
        publishing: Arc<Publishing>,
        data: &Path,
    ) -> crate::fs::Result<Self> {
        Ok(Self {
            uploads: Arc::new(Uploads::begin(data)?),
            remembered: Arc::default(),
            database,
            queue,
            rules,
            publishing,
        })
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Removes tasks that were done long ago.
    pub(super) async fn clean(&self) -> Result<()> {
        let _ = self.queue.clean(KEPT).await?;
        Ok(())
    }

    /// Ends the queue's connections.
    pub(super) async fn close(&self) {
        self.queue.close().await;
    }
}

/// What a build is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Another build makes it as well.
    Covered,
    /// It waits for a worker.
    Queued,
    /// A worker has it.
    Leased,
    /// It is published.
    Built,
    /// It failed too often, and is tried again later.
    Resting,
    /// It may not be built.
    Refused,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Covered => "covered",
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Built => "built",
            Self::Resting => "resting",
            Self::Refused => "refused",
        }
    }
}

fn text(row: &AnyRow, column: usize) -> Result<String> {
    row.try_get(column).doing(DOING)
}

fn number(row: &AnyRow, column: usize) -> Result<i64> {
    row.try_get(column).doing(DOING)
}

/// A want, as far as builds need it.
struct Wanted {
    id: i64,
    hash: String,
    name: String,
    version: String,
    /// What it needs directly.
    needs: Vec<i64>,
}

/// A want with all that it needs, each after what it needs.
async fn closure(
    database: &Database,
    connection: &mut AnyConnection,
    root: i64,
) -> Result<Vec<Wanted>> {
    const FIND: &str = "SELECT wants.id, wants.hash, wants.name, wants.version, wants.needs \
        FROM {each} JOIN wants ON wants.id = CAST(each.value ->> 0 AS BIGINT)";
    let mut found: BTreeMap<i64, Wanted> = BTreeMap::new();
    let mut open = vec![root];
    while !open.is_empty() {
        let asked: Rows = open.drain(..).map(|id| [id]).collect();
        let query = sqlx::query(database.sql(FIND)).bind(asked.finish());
        let rows = query.fetch_all(&mut *connection).await.doing(DOING)?;
        for row in &rows {
            let wanted = Wanted {
                id: number(row, 0)?,
                hash: text(row, 1)?,
                name: text(row, 2)?,
                version: text(row, 3)?,
                needs: ids::read(&text(row, 4)?).unwrap_or_default(),
            };
            found.insert(wanted.id, wanted);
        }
        let needed = found.values().flat_map(|wanted| &wanted.needs);
        open = needed
            .copied()
            .filter(|id| !found.contains_key(id))
            .collect();
        open.sort_unstable();
        open.dedup();
        if rows.is_empty() {
            break; // one is not there, which cannot be
        }
    }
    // What a want needs was there before it, so ids are an order; the root has
    // the highest.
    Ok(found.into_values().collect())
}

/// The texts of recipes, by their want.
async fn recipe_texts(
    database: &Database,
    connection: &mut AnyConnection,
    wants: &[Wanted],
) -> Result<BTreeMap<i64, String>> {
    const FIND: &str = "SELECT recipe_files.want, recipe_files.text FROM {each} \
        JOIN recipe_files ON recipe_files.want = CAST(each.value ->> 0 AS BIGINT)";
    let asked: Rows = wants.iter().map(|wanted| [wanted.id]).collect();
    let query = sqlx::query(database.sql(FIND)).bind(asked.finish());
    let rows = query.fetch_all(&mut *connection).await.doing(DOING)?;
    rows.iter()
        .map(|row| Ok((number(row, 0)?, text(row, 1)?)))
        .collect()
}
