//! What is wanted, asked of the database.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::counts;
use super::database::{Database, Doing as _, Result, Rows};
use super::ids;
use super::intake::Kind;

/// What is being done, for errors.
const DOING: &str = "tell what is wanted";
/// Days of which sums are told.
const DAYS: i64 = 30;

/// Something that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Wanted {
    /// `tree`, `recipe` or `builder`.
    pub kind: String,
    /// A tree hash, a recipe hash or a builder's name.
    pub hash: String,
    /// The package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// With all below it.
    pub packages: i64,
    /// How many want it.
    pub voices: i64,
    /// Seconds since 1970 when it was first wanted.
    pub since: i64,
}

/// The same with what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Detail {
    /// It.
    #[serde(flatten)]
    pub wanted: Wanted,
    /// What it needs directly, the most wanted first.
    pub needs: Vec<Wanted>,
}

/// Sums of some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sums {
    /// Days since 1970.
    pub day: i64,
    /// Reports with something that is wanted.
    pub locks: i64,
    /// Those that said something new.
    pub changed: i64,
    /// Reports of usage.
    pub reports: i64,
    /// Units that were not compiled.
    pub hits: i64,
    /// Units that were.
    pub misses: i64,
    /// Milliseconds of compiling that hits saved.
    pub milliseconds_saved: i64,
    /// Milliseconds of compiling that misses cost.
    pub milliseconds_compiled: i64,
}

/// What there is, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Totals {
    /// Trees, recipes and builders that somebody ever wanted.
    pub wants: i64,
    /// Clients and projects that are counted.
    pub voices: i64,
    /// The days that something was reported on, the last one first.
    pub days: Vec<Sums>,
}

/// A want of a row: id, kind, hash, name, version, packages, since.
fn wanted(row: &AnyRow, voices: &HashMap<i64, i64>) -> Result<Wanted> {
    let text = |column: usize| row.try_get::<String, _>(column).doing(DOING);
    let number = |column: usize| row.try_get::<i64, _>(column).doing(DOING);
    Ok(Wanted {
        kind: text(1)?,
        hash: text(2)?,
        name: text(3)?,
        version: text(4)?,
        packages: number(5)?,
        voices: voices.get(&number(0)?).copied().unwrap_or(0),
        since: number(6)?,
    })
}

/// Wants by their ids, the most wanted first.
async fn by_ids(database: &Database, voices: &HashMap<i64, i64>) -> Result<Vec<Wanted>> {
    const FIND: &str = "SELECT wants.id, wants.kind, wants.hash, wants.name, wants.version, \
        wants.packages, wants.since FROM {each} \
        JOIN wants ON wants.id = CAST(each.value ->> 0 AS BIGINT)";
    let asked: BTreeSet<&i64> = voices.keys().collect();
    let asked: Rows = asked.into_iter().map(|id| [id]).collect();
    let query = sqlx::query(database.sql(FIND)).bind(asked.finish());
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    ordered(&rows, voices)
}

/// Rows as wants, the most wanted first; those of the same count by id.
fn ordered(rows: &[AnyRow], voices: &HashMap<i64, i64>) -> Result<Vec<Wanted>> {
    let found = rows.iter().map(|row| {
        let id = row.try_get::<i64, _>(0).doing(DOING)?;
        Ok((id, wanted(row, voices)?))
    });
    let mut found: Vec<(i64, Wanted)> = found.collect::<Result<_>>()?;
    found.sort_by_key(|(id, wanted)| (-wanted.voices, *id));
    Ok(found.into_iter().map(|(_, wanted)| wanted).collect())
}

/// The most wanted of a kind, by at least two.
pub async fn top(database: &Database, kind: Kind, limit: u32) -> Result<Vec<Wanted>> {
    let top = counts::top(database, kind, limit as usize).await?;
    by_ids(database, &top.into_iter().collect()).await
}

/// All of a package, the most wanted first.
pub async fn of_package(database: &Database, name: &str, limit: u32) -> Result<Vec<Wanted>> {
    // A popular one has thousands, which come as one text.
    const FIND: &str = "SELECT COALESCE(CAST({array}(id) AS TEXT), '[]') FROM wants \
        WHERE name = $1";
    let query = sqlx::query(database.sql(FIND)).bind(name);
    let row = query.fetch_one(database.readers()).await.doing(DOING)?;
    let ids: String = row.try_get(0).doing(DOING)?;
    let ids: Vec<i64> = serde_json::from_str(&ids).unwrap_or_default();
    let voices = counts::of(database, &ids).await?;
    let mut most: Vec<(i64, i64)> = voices.into_iter().collect();
    most.sort_unstable_by_key(|(id, voices)| (-voices, *id));
    most.truncate(limit as usize);
    by_ids(database, &most.into_iter().collect()).await
}

/// One by its hash.
pub async fn detail(database: &Database, hash: &str) -> Result<Option<Detail>> {
    const FIND: &str = "SELECT id, kind, hash, name, version, packages, since, needs \
        FROM wants WHERE hash = $1";
    let query = sqlx::query(FIND).bind(hash);
    let row = query
        .fetch_optional(database.readers())
        .await
        .doing(DOING)?;
    let Some(row) = row else {
        return Ok(None);
    };
    let needs: String = row.try_get(7).doing(DOING)?;
    let needs = ids::read(&needs).unwrap_or_default();
    let own = row.try_get(0).doing(DOING)?;
    let all: Vec<i64> = needs.iter().copied().chain([own]).collect();
    let mut voices = counts::of(database, &all).await?;
    let wanted = wanted(&row, &voices)?;
    voices.remove(&own);
    Ok(Some(Detail {
        wanted,
        needs: by_ids(database, &voices).await?,
    }))
}

/// Those of some trees that somebody wants, the most wanted first.
pub async fn known(database: &Database, hashes: &[&str]) -> Result<Vec<Wanted>> {
    const FIND: &str = "SELECT wants.id, wants.kind, wants.hash, wants.name, wants.version, \
        wants.packages, wants.since FROM {each} JOIN wants ON wants.hash = each.value ->> 0";
    let asked: Rows = hashes.iter().map(|hash| [hash]).collect();
    let query = sqlx::query(database.sql(FIND)).bind(asked.finish());
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let ids = rows.iter().map(|row| row.try_get(0).doing(DOING));
    let ids: Vec<i64> = ids.collect::<Result<_>>()?;
    let voices = counts::of(database, &ids).await?;
    ordered(&rows, &voices)
}

/// What there is, counted, without looking at it all: ids have no gaps.
pub async fn totals(database: &Database) -> Result<Totals> {
    const COUNT: &str = "SELECT COALESCE((SELECT MAX(id) FROM wants), 0), \
        COALESCE((SELECT MAX(id) FROM voices), 0)";
    let counts = sqlx::query(COUNT).fetch_one(database.readers());
    let counts = counts.await.doing(DOING)?;
    const SUMS: &str = "SELECT day, locks, changed, reports, hits, misses, milliseconds_saved, \
        milliseconds_compiled FROM days ORDER BY day DESC LIMIT $1";
    let query = sqlx::query(SUMS).bind(DAYS);
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let days = rows.iter().map(|row| {
        let number = |column: usize| row.try_get::<i64, _>(column).doing(DOING);
        Ok(Sums {
            day: number(0)?,
            locks: number(1)?,
            changed: number(2)?,
            reports: number(3)?,
            hits: number(4)?,
            misses: number(5)?,
            milliseconds_saved: number(6)?,
            milliseconds_compiled: number(7)?,
        })
    });
    Ok(Totals {
        wants: counts.try_get(0).doing(DOING)?,
        voices: counts.try_get(1).doing(DOING)?,
        days: days.collect::<Result<_>>()?,
    })
}
