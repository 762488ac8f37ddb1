//! What workers make at this moment, so that nobody else makes it too.
//!
//! Builds overlap: two programs need the same library, and a build of each takes
//! it along. A lease notes which recipes are made under it, those of its closure of
//! which nothing is published. A build that needs one of them waits until that
//! lease has ended, and then fetches what came of it.

use std::collections::BTreeSet;

use sqlx::{Any, Transaction};

use super::{Builds, DOING, Wanted, number, text};
use crate::service::database::{Doing as _, Result, Rows};
use crate::service::ids;

impl Builds {
    /// The wants of a closure of which nothing is published, sorted.
    pub(super) async fn unmade(
        &self,
        transaction: &mut Transaction<'static, Any>,
        wants: &[Wanted],
    ) -> Result<Vec<i64>> {
        const FIND: &str = "SELECT CAST(each.value ->> 0 AS BIGINT) FROM {each} \
            WHERE NOT EXISTS (SELECT 1 FROM outputs WHERE outputs.recipe = (each.value ->> 1)) \
            AND NOT EXISTS (SELECT 1 FROM outputs WHERE outputs.host_recipe = (each.value ->> 1))";
        let asked: Rows = wants
            .iter()
            .map(|wanted| (wanted.id, &wanted.hash))
            .collect();
        let find = sqlx::query(self.database.sql(FIND)).bind(asked.finish());
        let rows = find.fetch_all(&mut **transaction).await.doing(DOING)?;
        let mut unmade: Vec<i64> = rows
            .iter()
            .map(|row| number(row, 0))
            .collect::<Result<_>>()?;
        unmade.sort_unstable();
        Ok(unmade)
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
        let unmade: BTreeSet<i64> = unmade.iter().copied().collect();
        for row in &rows {
            let making = ids::read(&text(row, 1)?).unwrap_or_default();
            if making.iter().any(|want| unmade.contains(want)) {
                return Ok(Some(number(row, 0)?));
            }
        }
        Ok(None)
    }
}
