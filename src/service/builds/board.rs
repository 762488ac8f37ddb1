//! What there is of builds, asked of the database.

use serde::Serialize;
use sqlx::any::AnyRow;

use super::{DOING, number, text};
use crate::fs;
use crate::service::database::{Database, Doing as _, Result};

/// A build as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Build {
    /// Its number.
    pub id: i64,
    /// The recipe.
    pub recipe: String,
    /// The package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The builder.
    pub builder: String,
    /// `queued`, `leased`, `built`, `resting`, `refused` or `covered`.
    pub state: String,
    /// Why it is in this state, if there is something to say.
    pub reason: String,
    /// The build that makes it.
    pub root: i64,
    /// How many tries there were, and one more if it waits.
    pub round: i64,
    /// The second before which it is not tried again.
    pub after: i64,
    /// The build that makes some of it now, and that it waits for; 0 if there is none.
    pub behind: i64,
    /// Milliseconds that it would save, about.
    pub priority: i64,
    /// Seconds since 1970 when it was queued.
    pub since: i64,
    /// And when it was published; 0 before.
    pub ended: i64,
}

/// A try at a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Try {
    /// The worker's name.
    pub worker: String,
    /// Whose it is.
    pub token: String,
    /// Seconds since 1970.
    pub began: i64,
    /// When the worker was last heard of.
    pub seen: i64,
    /// 0 while it goes on.
    pub ended: i64,
    /// `built`, `waits`, `failed`, `returned`, `lost` or `cancelled`; empty while it goes on.
    pub outcome: String,
    /// Why.
    pub reason: String,
    /// The end of its log.
    pub log: String,
}

/// A published output as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Made {
    /// Its store name.
    pub output: String,
    /// The builder.
    pub builder: String,
    /// Its content.
    pub content: String,
    /// Bytes.
    pub bytes: i64,
    /// Milliseconds that it took.
    pub milliseconds: i64,
    /// How many workers have made the same.
    pub agreed: i64,
}

/// What came of planning a tree for a builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The builder.
    pub builder: String,
    /// Whether recipes of it are known.
    pub is_done: bool,
    /// The tree that it is planned with.
    pub root: String,
    /// Why there is none yet; empty if nobody has tried.
    pub reason: String,
}

/// A worker as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub token: String,
    /// Its builders, apart by spaces.
    pub builders: String,
    /// Seconds since 1970 when it asked first.
    pub since: i64,
    /// And last.
    pub seen: i64,
}

/// How many builds are in which state, and what is published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Overview {
    /// Waiting for a worker.
    pub queued: i64,
    /// With a worker.
    pub leased: i64,
    /// Published.
    pub built: i64,
    /// Failed too often.
    pub resting: i64,
    /// Not to be built.
    pub refused: i64,
    /// Made by another build.
    pub covered: i64,
    /// Outputs that are published.
    pub outputs: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Seconds of builders in the last 24 hours.
    pub seconds: i64,
}

const BUILD: &str = "SELECT id, recipe, name, version, builder, state, reason, root, round, \
    after, priority, since, ended, \
    CASE WHEN EXISTS (SELECT 1 FROM builds AS maker WHERE maker.id = builds.behind \
    AND maker.state = 'leased' AND builds.state = 'queued') THEN behind ELSE 0 END FROM builds";

fn build(row: &AnyRow) -> Result<Build> {
    Ok(Build {
        id: number(row, 0)?,
        recipe: text(row, 1)?,
        name: text(row, 2)?,
        version: text(row, 3)?,
        builder: text(row, 4)?,
        state: text(row, 5)?,
        reason: text(row, 6)?,
        root: number(row, 7)?,
        round: number(row, 8)?,
        after: number(row, 9)?,
        priority: number(row, 10)?,
        since: number(row, 11)?,
        ended: number(row, 12)?,
        behind: number(row, 13)?,
    })
}

/// Builds in a state, those first that are to be built first; of those that are
/// published, the last ones first.
pub async fn builds(database: &Database, state: &str, limit: u32) -> Result<Vec<Build>> {
    let order = match state {
        "built" => "ended DESC, id DESC",
        _ => "standing DESC, priority DESC, id",
    };
    let sql = format!("{BUILD} WHERE state = $1 ORDER BY {order} LIMIT $2");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(state);
    let query = query.bind(i64::from(limit));
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    rows.iter().map(build).collect()
}

/// A build by its number.
pub async fn by_id(database: &Database, id: i64) -> Result<Option<Build>> {
    let sql = format!("{BUILD} WHERE id = $1");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id);
    let row = query.fetch_optional(database.readers()).await;
    row.doing(DOING)?.as_ref().map(build).transpose()
}

/// The build of a recipe.
pub async fn of_recipe(database: &Database, recipe: &str) -> Result<Option<Build>> {
    let sql =
        format!("{BUILD} WHERE want = (SELECT id FROM wants WHERE hash = $1 AND kind = 'recipe')");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(recipe);
    let row = query.fetch_optional(database.readers()).await;
    row.doing(DOING)?.as_ref().map(build).transpose()
}

/// Tries at a build, the last one first.
pub async fn tries(database: &Database, id: i64) -> Result<Vec<Try>> {
    const FIND: &str = "SELECT worker, token, began, seen, ended, outcome, reason, log FROM tries \
        WHERE build = $1 ORDER BY began DESC, lease LIMIT 20";
    let query = sqlx::query(FIND).bind(id);
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let tries = rows.iter().map(|row| {
        Ok(Try {
            worker: text(row, 0)?,
            token: text(row, 1)?,
            began: number(row, 2)?,
            seen: number(row, 3)?,
            ended: number(row, 4)?,
            outcome: text(row, 5)?,
            reason: text(row, 6)?,
            log: text(row, 7)?,
        })
    });
    tries.collect()
}

/// What is published of a recipe.
pub async fn made(database: &Database, recipe: &str) -> Result<Vec<Made>> {
    const FIND: &str = "SELECT outputs.output, builds.builder, content, bytes, milliseconds, agreed \
        FROM outputs JOIN builds ON builds.id = outputs.build \
        WHERE outputs.recipe = $1 OR outputs.host_recipe = $1 ORDER BY outputs.output LIMIT 100";
    let query = sqlx::query(FIND).bind(recipe);
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let made = rows.iter().map(|row| {
        Ok(Made {
            output: text(row, 0)?,
            builder: text(row, 1)?,
            content: text(row, 2)?,
            bytes: number(row, 3)?,
            milliseconds: number(row, 4)?,
            agreed: number(row, 5)?,
        })
    });
    made.collect()
}

/// What came of planning a tree.
pub async fn plans(database: &Database, tree: &str) -> Result<Vec<Plan>> {
    const FIND: &str = "SELECT own.builder, whole.state, roots.hash, whole.reason FROM wants \
        JOIN plans AS own ON own.want = wants.id \
        JOIN plans AS whole ON whole.want = own.root AND whole.builder = own.builder \
        JOIN wants AS roots ON roots.id = own.root WHERE wants.hash = $1 ORDER BY own.builder";
    let query = sqlx::query(FIND).bind(tree);
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let plans = rows.iter().map(|row| {
        Ok(Plan {
            builder: text(row, 0)?,
            is_done: text(row, 1)? == "done",
            root: text(row, 2)?,
            reason: text(row, 3)?,
        })
    });
    plans.collect()
}

/// Workers that asked within some seconds, the last one first.
pub async fn workers(database: &Database, within: i64) -> Result<Vec<Worker>> {
    const FIND: &str = "SELECT name, token, builders, since, seen FROM worker_names \
        WHERE seen >= $1 ORDER BY seen DESC, token, name LIMIT 1000";
    let query = sqlx::query(FIND).bind(fs::now().seconds() - within);
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let workers = rows.iter().map(|row| {
        Ok(Worker {
            name: text(row, 0)?,
            token: text(row, 1)?,
            builders: text(row, 2)?,
            since: number(row, 3)?,
            seen: number(row, 4)?,
        })
    });
    workers.collect()
}

/// All of it in numbers.
pub async fn overview(database: &Database) -> Result<Overview> {
    let mut overview = Overview::default();
    let states = sqlx::query("SELECT state, COUNT(*) FROM builds GROUP BY state");
    for row in &states.fetch_all(database.readers()).await.doing(DOING)? {
        let count = number(row, 1)?;
        match &*text(row, 0)? {
            "queued" => overview.queued = count,
            "leased" => overview.leased = count,
            "built" => overview.built = count,
            "resting" => overview.resting = count,
            "refused" => overview.refused = count,
            _ => overview.covered = count,
        }
    }
    let sums = sqlx::query("SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM outputs");
    let sums = sums.fetch_one(database.readers()).await.doing(DOING)?;
    (overview.outputs, overview.bytes) = (number(&sums, 0)?, number(&sums, 1)?);
    let now = fs::now().seconds();
    overview.seconds = seconds_since(database, now - 86_400, now).await?;
    Ok(overview)
}

/// Seconds that workers had builds since a time.
pub(super) async fn seconds_since(database: &Database, since: i64, now: i64) -> Result<i64> {
    const SUM: &str = "SELECT CAST(COALESCE(SUM(CASE WHEN ended = 0 THEN $2 - began \
        ELSE ended - began END), 0) AS BIGINT) FROM tries WHERE began >= $1";
    let query = sqlx::query(SUM).bind(since).bind(now);
    let row = query.fetch_one(database.readers()).await.doing(DOING)?;
    number(&row, 0)
}
