//! Which recipes become builds.
//!
//! The largest closures come first, and take along all that is in them: what a
//! build of axum makes has hyper's outputs and tokio's. Where such a build fails,
//! what it would have made is free to be built by itself.

use std::collections::BTreeMap;

use sqlx::{Any, Transaction};

use super::making::Waiting;
use super::{Builds, DOING, FAILURES, MEMORY, State, Wanted, closure, number, recipe_texts, text};
use crate::cargo::toolchain::builder_name;
use crate::fs;
use crate::recipe::package::PackageRecipe;
use crate::service::counts;
use crate::service::database::{Doing as _, Result, Rows};
use crate::service::intake::Kind;
use crate::service::queue::Try;

/// What there is of demand for something that others follow.
struct Demand {
    /// For people.
    name: String,
    /// Milliseconds that it would save, about.
    priority: i64,
    /// The second when enough wanted it.
    since: i64,
}

/// Recipes that are looked at in one go.
const AT_ONCE: i64 = 256;
/// Milliseconds that a package takes of which nothing is known.
const UNKNOWN: i64 = 1_500;
/// Seconds of waiting that count as much as twice the milliseconds to be saved.
const DOUBLING: f64 = 6.0 * 3_600.0;
/// A second in 2026, from which waiting is counted.
const EPOCH: i64 = 1_767_225_600;
/// A setting that says how Cargo was called, and changes nothing by itself.
const HARMLESS: &str = "cross";

impl Builds {
    /// Looks for what is to be built now, queues it, and takes back what dead
    /// workers had. Gives the number of new builds.
    pub(in crate::service) async fn trigger(&self) -> Result<usize> {
        // What came before is known in time for what follows it.
        let newest = self.newest_recipe().await?;
        let added = self.add().await?;
        self.wake().await?;
        self.push().await?;
        // What they find becomes builds with the next look; nobody waits for it.
        self.look(newest).await?;
        self.retarget().await?;
        for builder in self.builders(State::Leased).await? {
            self.queue.reclaim(&builder, self.rules.lease).await?;
        }
        Ok(added)
    }

    /// Makes builds of recipes that enough want, or that follow such a one.
    pub(super) async fn add(&self) -> Result<usize> {
        let threshold = i64::from(self.rules.threshold);
        let enough = counts::at_least(&self.database, Kind::Recipe, threshold).await?;
        let enough: Rows = enough.iter().map(|want| [want]).collect();
        const FIND: &str = "SELECT asked.want, asked.ancestor FROM (\
            SELECT CAST(each.value ->> 0 AS BIGINT) AS want, 0 AS ancestor FROM {each} \
            UNION ALL SELECT heirs.want, heirs.ancestor FROM heirs) AS asked \
            JOIN wants ON wants.id = asked.want \
            LEFT JOIN builds ON builds.want = asked.want WHERE builds.want IS NULL \
            ORDER BY wants.packages DESC, wants.id, asked.ancestor LIMIT $2";
        let find = sqlx::query(self.database.sql(FIND));
        let find = find.bind(enough.finish()).bind(AT_ONCE);
        // Most of the time there is nothing, and nobody is kept waiting.
        let rows = find.fetch_all(self.database.readers()).await.doing(DOING)?;
        if rows.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.database.begin().await?;
        let mut added = 0;
        for row in &rows {
            let (root, ancestor) = (number(row, 0)?, number(row, 1)?);
            let ancestor = Some(ancestor).filter(|ancestor| *ancestor != 0);
            let add = self.add_one(&mut transaction, root, ancestor);
            added += usize::from(add.await?);
        }
        transaction.commit().await.doing(DOING)?;
        Ok(added)
    }

    /// Makes a build, unless another server was faster, or a larger one has it.
    async fn add_one(
        &self,
        transaction: &mut Transaction<'static, Any>,
        root: i64,
        ancestor: Option<i64>,
    ) -> Result<bool> {
        let known = sqlx::query("SELECT 1 FROM builds WHERE want = $1").bind(root);
        let known = known
            .fetch_optional(&mut **transaction)
            .await
            .doing(DOING)?;
        if known.is_some() {
            return Ok(false);
        }
        let wants = closure(&self.database, transaction, root).await?;
        let texts = recipe_texts(&self.database, transaction, &wants).await?;
        let Some(wanted) = wants.iter().find(|wanted| wanted.id == root) else {
            return Ok(false);
        };
        let (builder, obstacle) = look_at(&wants, &texts);
        let now = fs::now().seconds();
        let mut priority = self.priority(transaction, &wants).await?;
        let (mut reason, mut wanted_since) = (obstacle.clone(), now);
        if let Some(ancestor) = ancestor {
            let demand = self.demand(transaction, ancestor).await?;
            priority = priority.max(demand.priority);
            wanted_since = demand.since;
            if reason.is_empty() {
                reason = format!("it follows {}, which enough wanted", demand.name);
            }
        }
        let id = sqlx::query("SELECT COALESCE(MAX(id), 0) + 1 FROM builds");
        let id = id.fetch_one(&mut **transaction).await.doing(DOING)?;
        let id = number(&id, 0)?;
        let state = if obstacle.is_empty() {
            State::Queued
        } else {
            State::Refused
        };
        let mut rows = Rows::new();
        let mut row = |id: i64, wanted: &Wanted, state: State, reason: &str| {
            let Wanted {
                id: want,
                hash,
                name,
                version,
                ..
            } = wanted;
            rows.push(&(
                (id, want, hash, name, version),
                (&builder, state.name(), reason, priority, now),
            ));
        };
        row(id, wanted, state, &reason);
        if state == State::Queued {
            let others = wants.iter().filter(|other| other.id != root);
            for (next, other) in (id + 1..).zip(others) {
                row(next, other, State::Covered, "");
            }
        }
        const ADD: &str = "INSERT INTO builds (id, want, recipe, name, version, builder, state, \
            reason, root, round, pushed, after, priority, lease, task, since, ended, own, wanted, \
            standing) \
            SELECT CAST(each.value -> 0 ->> 0 AS BIGINT), CAST(each.value -> 0 ->> 1 AS BIGINT), \
            each.value -> 0 ->> 2, each.value -> 0 ->> 3, each.value -> 0 ->> 4, \
            each.value -> 1 ->> 0, each.value -> 1 ->> 1, each.value -> 1 ->> 2, \
            CAST($2 AS BIGINT), 1, 0, 0, CAST(each.value -> 1 ->> 3 AS BIGINT), '', '', \
            CAST(each.value -> 1 ->> 4 AS BIGINT), 0, CAST($3 AS BIGINT), CAST($4 AS BIGINT), \
            CAST($5 AS BIGINT) FROM {each} \
            WHERE NOT EXISTS (SELECT 1 FROM builds \
            WHERE builds.want = CAST(each.value -> 0 ->> 1 AS BIGINT))";
        let add = sqlx::query(self.database.sql(ADD)).bind(rows.finish());
        let add = add.bind(id).bind(i64::from(ancestor.is_none()));
        let add = add.bind(wanted_since).bind(standing(priority, now));
        let add = add.execute(&mut **transaction);
        add.await.doing(DOING)?;
        Ok(state == State::Queued)
    }

    /// What is known of the demand for something that was built or queued.
    async fn demand(
        &self,
        transaction: &mut Transaction<'static, Any>,
        want: i64,
    ) -> Result<Demand> {
        const FIND: &str = "SELECT name, version, priority, wanted FROM builds WHERE want = $1";
        let row = sqlx::query(FIND).bind(want);
        let row = row.fetch_optional(&mut **transaction).await.doing(DOING)?;
        let Some(row) = row else {
            // A tree of lock files that came without recipes.
            let wants = closure(&self.database, transaction, want).await?;
            let tree = wants.last().map_or("another one".to_owned(), |tree| {
                format!("a lock file's `{} {}`", tree.name, tree.version)
            });
            return Ok(Demand {
                name: tree,
                priority: self.priority(transaction, &wants).await?,
                since: fs::now().seconds(),
            });
        };
        // It may have become more since it was queued.
        let wants = closure(&self.database, transaction, want).await?;
        let priority = self.priority(transaction, &wants).await?;
        Ok(Demand {
            name: format!("`{} {}`", text(&row, 0)?, text(&row, 1)?),
            priority: priority.max(number(&row, 2)?),
            since: number(&row, 3)?,
        })
    }

    /// Milliseconds that a build would save, were all its packages needed by all
    /// who want it: as long as each package took last, in whatever version.
    async fn priority(
        &self,
        transaction: &mut Transaction<'static, Any>,
        wants: &[Wanted],
    ) -> Result<i64> {
        const TOOK: &str = "SELECT outputs.name, MAX(outputs.milliseconds) FROM {each} \
            JOIN outputs ON outputs.name = (each.value ->> 0) GROUP BY outputs.name";
        let asked: Rows = wants.iter().map(|wanted| [&wanted.name]).collect();
        let took = sqlx::query(self.database.sql(TOOK)).bind(asked.finish());
        let took = took.fetch_all(&mut **transaction).await.doing(DOING)?;
        let took = took.iter().map(|row| Ok((text(row, 0)?, number(row, 1)?)));
        let took: BTreeMap<String, i64> = took.collect::<Result<_>>()?;
        let ids: Vec<i64> = wants.iter().map(|wanted| wanted.id).collect();
        let counted = counts::of(&self.database, &ids).await?;
        let saved = wants.iter().map(|wanted| {
            let took = took.get(&wanted.name).copied().unwrap_or(UNKNOWN);
            took.saturating_mul(counted.get(&wanted.id).copied().unwrap_or(0))
        });
        Ok(saved.fold(0, i64::saturating_add))
    }

    /// Queues what has rested.
    async fn wake(&self) -> Result<()> {
        let now = fs::now().seconds();
        let due = sqlx::query("SELECT 1 FROM builds WHERE state = $1 AND after <= $2 LIMIT 1");
        let due = due.bind(State::Resting.name()).bind(now);
        let due = due.fetch_optional(self.database.readers()).await;
        if due.doing(DOING)?.is_none() {
            return Ok(());
        }
        let mut transaction = self.database.begin().await?;
        const WAKE: &str = "UPDATE builds SET state = $1, round = round + 1, after = 0 \
            WHERE state = $2 AND after <= $3";
        let wake = sqlx::query(WAKE)
            .bind(State::Queued.name())
            .bind(State::Resting.name())
            .bind(now);
        wake.execute(&mut *transaction).await.doing(DOING)?;
        transaction.commit().await.doing(DOING)
    }

    /// Tells the queue what it does not know yet and may be built beside all else.
    /// Whoever is killed between the two steps does the first one again, which does no
    /// harm.
    pub(super) async fn push(&self) -> Result<()> {
        const FIND: &str = "SELECT id, want, builder, round, priority, after, since FROM builds \
            WHERE state = $1 AND pushed < round \
            ORDER BY standing DESC, priority DESC, id LIMIT 1000";
        let find = sqlx::query(FIND).bind(State::Queued.name());
        let rows = find.fetch_all(self.database.readers()).await.doing(DOING)?;
        if rows.is_empty() {
            return Ok(());
        }
        let waiting = rows.iter().map(|row| {
            Ok(Waiting {
                id: number(row, 0)?,
                want: number(row, 1)?,
                builder: text(row, 2)?,
                round: number(row, 3)?,
                standing: standing(number(row, 4)?, number(row, 6)?),
                after: number(row, 5)?,
            })
        });
        let mut waiting: Vec<Waiting> = waiting.collect::<Result<_>>()?;
        waiting.sort_by_key(|build| (-build.standing, build.id));
        let admitted = self.admit(&waiting).await?;
        for Waiting {
            id,
            builder,
            round,
            standing,
            after,
            ..
        } in waiting.iter().filter(|build| admitted.contains(&build.id))
        {
            let what = Try {
                build: *id,
                round: *round,
            };
            self.queue.push(builder, what, *standing, *after).await?;
            let mut transaction = self.database.begin().await?;
            const PUSHED: &str =
                "UPDATE builds SET pushed = $2, standing = $3 WHERE id = $1 AND pushed < $2";
            let pushed = sqlx::query(PUSHED).bind(id).bind(round).bind(standing);
            pushed.execute(&mut *transaction).await.doing(DOING)?;
            transaction.commit().await.doing(DOING)?;
        }
        Ok(())
    }

    /// Builders of builds in a state.
    async fn builders(&self, state: State) -> Result<Vec<String>> {
        let find = sqlx::query("SELECT DISTINCT builder FROM builds WHERE state = $1");
        let find = find.bind(state.name());
        let rows = find.fetch_all(self.database.readers()).await.doing(DOING)?;
        rows.iter().map(|row| text(row, 0)).collect()
    }
}

/// The state of a build that has failed, and the second when it is tried again.
/// `failures` are the seconds of those that are remembered, the first one first.
pub(super) fn after_failure(failures: &[i64], now: i64, retry: i64) -> (State, i64) {
    let count = i64::try_from(failures.len()).unwrap_or(i64::MAX);
    if count < FAILURES {
        let pause = retry.saturating_mul(1 << (2 * (count - 1).clamp(0, 8)));
        return (State::Queued, now.saturating_add(pause));
    }
    let first = failures.first().copied().unwrap_or(now);
    (State::Resting, first.saturating_add(MEMORY))
}

/// The builder of a closure, and why it is not built here, if it is not. Flags
/// and linkers of a stranger are not tried: nobody else has them anyway.
fn look_at(wants: &[Wanted], texts: &BTreeMap<i64, String>) -> (String, String) {
    let mut builder = String::new();
    for wanted in wants {
        let recipe = texts
            .get(&wanted.id)
            .map(|text| PackageRecipe::from_toml(text));
        let Some(Ok(recipe)) = recipe else {
            return (builder, format!("`{}` cannot be read", wanted.hash));
        };
        for unit in recipe.units() {
            let own = builder_name(&unit.toolchain.rustc).unwrap_or_default();
            if own.is_empty() || (!builder.is_empty() && own != builder) {
                return (builder, "its recipes are of several toolchains".to_owned());
            }
            builder = own;
            if let Some(setting) = unit.settings.keys().find(|name| *name != HARMLESS) {
                return (builder, format!("it has settings of its own: `{setting}`"));
            }
        }
    }
    (builder, String::new())
}

/// Where a build stands in the queue, the highest first: what it would save, and how
/// long it has waited, so that nothing waits for ever. Two builds keep their order
/// while they wait, so it is known when they are queued. It has 31 bits (apalis on
/// PostgreSQL): a thousand for each doubling, which is enough until 2700.
fn standing(priority: i64, since: i64) -> i64 {
    let doublings = (1.0 + priority.max(0) as f64).log2() - (since - EPOCH) as f64 / DOUBLING;
    let standing = f64::from(1 << 30) + 1_000.0 * doublings;
    standing.clamp(0.0, f64::from(i32::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_tried_ever_later_and_rests_after_five_failures_in_a_week() {
        let at = |failures: &[i64]| after_failure(failures, 1_000, 60);
        assert_eq!(at(&[1_000]), (State::Queued, 1_060));
        assert_eq!(at(&[900, 1_000]), (State::Queued, 1_240));
        assert_eq!(at(&[1, 2, 3, 1_000]), (State::Queued, 1_000 + 64 * 60));
        assert_eq!(at(&[10, 20, 30, 40, 1_000]), (State::Resting, 10 + MEMORY));
    }

    #[test]
    fn whoever_waits_moves_up() {
        let (day, now) = (86_400, EPOCH + 30_000_000);
        assert!(standing(2_000, now) > standing(1_000, now));
        // Four doublings a day.
        assert!(standing(15_000, now + day) < standing(1_000, now));
        assert!(standing(17_000, now + day) > standing(1_000, now));
        // Nothing goes before what has waited for this long.
        let most = now + 16 * day;
        assert!(standing(i64::MAX, most) < standing(0, now));
        // Nothing is cut off for a long time.
        let late = now + 10_000_000_000;
        let all = [
            standing(i64::MAX, now),
            standing(0, late),
            standing(0, late + day),
        ];
        assert!(all.is_sorted_by(|a, b| a > b), "{all:?}");
    }
}
