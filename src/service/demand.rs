//! What is wanted, asked of the database.

use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

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

fn wanted(row: &AnyRow) -> Result<Wanted> {
    let text = |column: usize| row.try_get::<String, _>(column).doing(DOING);
    let number = |column: usize| row.try_get::<i64, _>(column).doing(DOING);
    Ok(Wanted {
        kind: text(0)?,
        hash: text(1)?,
        name: text(2)?,
        version: text(3)?,
        packages: number(4)?,
        voices: number(5)?,
        since: number(6)?,
    })
}

/// The most wanted of a kind, by at least two.
pub async fn top(database: &Database, kind: Kind, limit: u32) -> Result<Vec<Wanted>> {
    const FIND: &str = "SELECT wants.kind, hash, name, version, packages, voices, since \
        FROM counts JOIN wants ON wants.id = counts.want \
        WHERE counts.kind = $1 AND voices > 1 ORDER BY voices DESC, want LIMIT $2";
    let query = sqlx::query(FIND).bind(kind.number()).bind(i64::from(limit));
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    rows.iter().map(wanted).collect()
}

/// All of a package, the most wanted first.
pub async fn of_package(database: &Database, name: &str, limit: u32) -> Result<Vec<Wanted>> {
    const FIND: &str = "SELECT wants.kind, hash, name, version, packages, voices, since \
        FROM wants JOIN counts ON counts.want = wants.id \
        WHERE name = $1 ORDER BY voices DESC, id LIMIT $2";
    let query = sqlx::query(FIND).bind(name).bind(i64::from(limit));
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    rows.iter().map(wanted).collect()
}

/// One by its hash.
pub async fn detail(database: &Database, hash: &str) -> Result<Option<Detail>> {
    const FIND: &str = "SELECT wants.kind, hash, name, version, packages, voices, since, needs \
        FROM wants JOIN counts ON counts.want = wants.id WHERE hash = $1";
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
    let asked: Rows = needs.iter().map(|id| [id]).collect();
    const NEEDS: &str = "SELECT wants.kind, wants.hash, wants.name, wants.version, \
        wants.packages, counts.voices, wants.since FROM {each} \
        JOIN wants ON wants.id = CAST(each.value ->> 0 AS BIGINT) \
        JOIN counts ON counts.want = wants.id ORDER BY counts.voices DESC, wants.id";
    let query = sqlx::query(database.sql(NEEDS)).bind(asked.finish());
    let needs = query.fetch_all(database.readers()).await.doing(DOING)?;
    Ok(Some(Detail {
        wanted: wanted(&row)?,
        needs: needs.iter().map(wanted).collect::<Result<_>>()?,
    }))
}

/// Those of some trees that somebody wants, the most wanted first.
pub async fn known(database: &Database, hashes: &[&str]) -> Result<Vec<Wanted>> {
    const FIND: &str = "SELECT wants.kind, wants.hash, wants.name, wants.version, \
        wants.packages, counts.voices, wants.since FROM {each} \
        JOIN wants ON wants.hash = each.value ->> 0 \
        JOIN counts ON counts.want = wants.id ORDER BY counts.voices DESC, wants.id";
    let asked: Rows = hashes.iter().map(|hash| [hash]).collect();
    let query = sqlx::query(database.sql(FIND)).bind(asked.finish());
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    rows.iter().map(wanted).collect()
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
