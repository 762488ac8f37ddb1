//! What workers make at this moment, so that nobody else makes it too.
//!
//! Builds overlap: two programs need the same library, and a build of each takes
//! it along. A lease notes which recipes are made under it, those of its closure of
//! which nothing is published. A build that needs one of them waits until that
//! lease has ended, and then fetches what came of it.
//!
//! So the queue gets few builds ahead of the workers, and only such as share nothing
//! with each other or with a lease. Where two servers fill it at the same time, whoever
//! gives a lease looks once more.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::any::AnyRow;
use sqlx::{Any, Row as _, Transaction};

use super::{Builds, DOING, Wanted, closure, number, text};
use crate::fs;
use crate::service::database::{Doing as _, Result, Rows};
use crate::service::ids;

/// Builds in the queue that are due, for each builder.
const AHEAD: usize = 8;
/// Closures that are remembered.
const REMEMBERED: usize = 20_000;

/// What never changes, remembered: closures, and which recipes are published.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    closures: HashMap<i64, Vec<i64>>,
    made: HashSet<i64>,
}

impl Remembered {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A build that waits to be put into the queue.
pub(super) struct Waiting {
    pub(super) id: i64,
    pub(super) want: i64,
    pub(super) builder: String,
    pub(super) round: i64,
    pub(super) standing: i64,
    /// The second before which no worker gets it.
    pub(super) after: i64,
}

impl Builds {
    /// Which of some builds, the most urgent first, may go into the queue; notes of
    /// others which lease they wait for.
    pub(super) async fn admit(&self, waiting: &[Waiting]) -> Result<HashSet<i64>> {
        let now = fs::now().seconds();
        // What is made and by which build, or 0 where that is in the queue still.
        let mut busy: HashMap<i64, i64> = HashMap::new();
        let mut ahead: HashMap<String, usize> = HashMap::new();
        let mut next = BTreeSet::new();
        const BUSY: &str = "SELECT builds.id, builds.want, builds.builder, \
            tries.making FROM builds LEFT JOIN tries ON tries.lease = builds.lease \
            WHERE builds.state = 'leased' OR (builds.state = 'queued' \
            AND builds.after <= $1 AND builds.pushed >= builds.round)";
        let rows = sqlx::query(BUSY).bind(now);
        let rows = rows.fetch_all(self.database.readers()).await.doing(DOING)?;
        for row in &rows {
            let making: Option<String> = row.try_get(3).doing(DOING)?;
            if let Some(making) = making {
                let id = number(row, 0)?;
                let making = ids::read(&making).unwrap_or_default();
                busy.extend(making.into_iter().map(|want| (want, id)));
            } else {
                *ahead.entry(text(row, 2)?).or_default() += 1;
                next.extend(self.perhaps_unmade(number(row, 1)?).await?);
            }
        }
        let unmade = self.unmade_of(&next).await?;
        busy.extend(unmade.into_iter().map(|want| (want, 0)));
        let mut admitted = HashSet::new();
        let mut behind: BTreeMap<i64, i64> = BTreeMap::new();
        for build in waiting {
            let ahead = ahead.entry(build.builder.clone()).or_default();
            if build.after > now {
                admitted.insert(build.id);
            } else if *ahead < AHEAD {
                let perhaps = self.perhaps_unmade(build.want).await?;
                if let Some(maker) = perhaps.iter().find_map(|want| busy.get(want)) {
                    behind.insert(build.id, *maker);
                    continue;
                }
                *ahead += 1;
                let unmade = self.unmade_of(&perhaps).await?;
                busy.extend(unmade.into_iter().map(|want| (want, 0)));
                admitted.insert(build.id);
            }
        }
        self.note_behind(&behind).await?;
        Ok(admitted)
    }

    /// Notes which builds wait for which, where that is not known yet.
    async fn note_behind(&self, behind: &BTreeMap<i64, i64>) -> Result<()> {
        let leased = behind.iter().filter(|(_, maker)| **maker != 0);
        let leased: Rows = leased.collect();
        if leased.is_empty() {
            return Ok(());
        }
        const FIND: &str = "SELECT builds.id FROM {each} \
            JOIN builds ON builds.id = CAST(each.value ->> 0 AS BIGINT) \
            WHERE builds.behind <> CAST(each.value ->> 1 AS BIGINT)";
        let find = sqlx::query(self.database.sql(FIND)).bind(leased.finish());
        let rows = find.fetch_all(self.database.readers()).await.doing(DOING)?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut transaction = self.database.begin().await?;
        for row in &rows {
            let id = number(row, 0)?;
            let note = sqlx::query("UPDATE builds SET behind = $2 WHERE id = $1");
            let note = note.bind(id).bind(behind.get(&id).copied());
            note.execute(&mut *transaction).await.doing(DOING)?;
        }
        transaction.commit().await.doing(DOING)
    }

    /// The wants of a want's closure, without those that are known to be published.
    async fn perhaps_unmade(&self, want: i64) -> Result<BTreeSet<i64>> {
        let unmade = |known: &Known, closure: &[i64]| {
            let unmade = closure.iter().filter(|want| !known.made.contains(want));
            unmade.copied().collect()
        };
        {
            let known = self.remembered.lock();
            if let Some(closure) = known.closures.get(&want) {
                return Ok(unmade(&known, closure));
            }
        }
        let reader = self.database.readers().acquire().await;
        let found = closure(&self.database, &mut *reader.doing(DOING)?, want).await?;
        let found: Vec<i64> = found.iter().map(|wanted| wanted.id).collect();
        let mut known = self.remembered.lock();
        let perhaps = unmade(&known, &found);
        if known.closures.len() >= REMEMBERED {
            known.closures.clear();
        }
        known.closures.insert(want, found);
        Ok(perhaps)
    }

    /// Those of some wants of which nothing is published, as it was a moment ago.
    async fn unmade_of(&self, wants: &BTreeSet<i64>) -> Result<Vec<i64>> {
        if wants.is_empty() {
            return Ok(Vec::new());
        }
        let find = self.database.sql(MADE);
        let find = sqlx::query(find).bind(asked(wants.iter()));
        let rows = find.fetch_all(self.database.readers()).await.doing(DOING)?;
        self.without_made(wants.iter(), &rows)
    }

    /// The wants of a closure of which nothing is published now, sorted.
    pub(super) async fn unmade(
        &self,
        transaction: &mut Transaction<'static, Any>,
        closure: &[Wanted],
    ) -> Result<Vec<i64>> {
        let wants = || closure.iter().map(|wanted| &wanted.id);
        let find = self.database.sql(MADE);
        let find = sqlx::query(find).bind(asked(wants()));
        let rows = find.fetch_all(&mut **transaction).await.doing(DOING)?;
        self.without_made(wants(), &rows)
    }

    /// Remembers what is published, and leaves it out.
    fn without_made<'a>(
        &self,
        wants: impl Iterator<Item = &'a i64>,
        made: &[AnyRow],
    ) -> Result<Vec<i64>> {
        let made: Vec<i64> = made
            .iter()
            .map(|row| number(row, 0))
            .collect::<Result<_>>()?;
        let mut known = self.remembered.lock();
        known.made.extend(made);
        Ok(wants
            .copied()
            .filter(|want| !known.made.contains(want))
            .collect())
    }

    /// The build of another lease that makes one of these, if there is any.
    pub(super) async fn maker_of(
        &self,
        transaction: &mut Transaction<'static, Any>,
        build: i64,
        unmade: &[i64],
    ) -> Result<Option<i64>> {
        const FIND: &str = "SELECT builds.id, tries.making FROM builds \
            JOIN tries ON tries.lease = builds.lease \
            WHERE builds.state = 'leased' AND builds.id <> $1 ORDER BY builds.id";
        let find = sqlx::query(FIND).bind(build);
        let rows = find.fetch_all(&mut **transaction).await.doing(DOING)?;
        for row in &rows {
            let making = ids::read(&text(row, 1)?).unwrap_or_default();
            if making.iter().any(|want| unmade.binary_search(want).is_ok()) {
                return Ok(Some(number(row, 0)?));
            }
        }
        Ok(None)
    }
}

/// Those of some wants of which something is published.
const MADE: &str = "SELECT wants.id FROM {each} \
    JOIN wants ON wants.id = CAST(each.value ->> 0 AS BIGINT) \
    WHERE EXISTS (SELECT 1 FROM outputs WHERE outputs.recipe = wants.hash) \
    OR EXISTS (SELECT 1 FROM outputs WHERE outputs.host_recipe = wants.hash)";

fn asked<'a>(wants: impl Iterator<Item = &'a i64>) -> String {
    let asked: Rows = wants.map(|want| [want]).collect();
    asked.finish()
}
