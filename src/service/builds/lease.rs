//! Who builds what, and what came of it.

use sqlx::{Any, Transaction};

use super::trigger::after_failure;
use super::{Builds, DOING, MEMORY, State, closure, number, recipe_texts, text};
use crate::digest::hex;
use crate::fs;
use crate::report::work::{Ask, Failed, Job, WORK_FORMAT, end_of_log};
use crate::service::access::{Holder, Scope};
use crate::service::database::{Doing as _, Result};
use crate::service::ids;

/// Tasks that are looked at before a worker is told that there is nothing.
const LOOKS: usize = 8;
/// Seconds after which somebody else is asked for a second opinion again.
const ASIDE: i64 = 15;
/// Opinions of workers who are not believed alone, before a build rests for a week.
const OPINIONS: i64 = 4;

/// A lease that counts.
#[derive(Debug, Clone)]
pub(in crate::service) struct Leased {
    /// Its name, which only the worker knows.
    pub(super) lease: String,
    /// The build.
    pub(super) build: i64,
    /// The want that it is for.
    pub(super) want: i64,
    /// The builder.
    pub(super) builder: String,
    /// Its task in the queue.
    pub(super) task: String,
    /// Whose token was shown.
    pub(super) token: String,
    /// Whether what they make is believed.
    pub(super) is_trusted: bool,
}

impl Builds {
    /// Gives a worker something to build, if there is anything.
    pub(in crate::service) async fn lease(
        &self,
        ask: &Ask,
        holder: &Holder,
    ) -> Result<Option<Job>> {
        self.note_worker(ask, holder).await?;
        // What nobody can sign need not be built.
        if self.publishing.key.is_none() || self.is_spent().await? {
            return Ok(None);
        }
        for builder in &ask.builders {
            self.reopen(builder, holder).await?;
            for _ in 0..LOOKS {
                if !self.has_work(builder).await? {
                    // What waited for another build may have nothing to wait for now.
                    self.push().await?;
                    if !self.has_work(builder).await? {
                        break;
                    }
                }
                let lease = random();
                let Some(taken) = self.queue.take(builder, &lease).await? else {
                    break;
                };
                if let Some(what) = taken.what {
                    let give = self.give(what, &taken.task, &lease, ask, holder);
                    if let Some(job) = give.await? {
                        return Ok(Some(job));
                    }
                }
                // It is about what is done, for somebody else, or has to wait.
                self.queue.finish(&lease, &taken.task).await?;
                self.push().await?;
            }
        }
        Ok(None)
    }

    /// Queues what others have made differently, for somebody who has not made it.
    async fn reopen(&self, builder: &str, holder: &Holder) -> Result<()> {
        const FIND: &str = "SELECT id FROM builds WHERE builder = $1 \
            AND state = 'resting' AND disputed = 1 AND ($2 = 1 OR (\
            NOT EXISTS (SELECT 1 FROM tries WHERE tries.build = builds.id \
            AND tries.token = $3 AND tries.outcome = 'waits') \
            AND (SELECT COUNT(*) FROM tries WHERE tries.build = builds.id \
            AND tries.outcome = 'waits') < $4)) LIMIT 16";
        let find = sqlx::query(FIND).bind(builder);
        let find = find.bind(i64::from(holder.may(Scope::WorkTrusted)));
        let find = find.bind(&holder.name).bind(OPINIONS);
        let rows = find.fetch_all(self.database.readers()).await.doing(DOING)?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut transaction = self.database.begin().await?;
        for row in &rows {
            const OPEN: &str = "UPDATE builds SET state = 'queued', round = round + 1, after = 0 \
                WHERE id = $1 AND state = 'resting' AND disputed = 1";
            let open = sqlx::query(OPEN).bind(number(row, 0)?);
            open.execute(&mut *transaction).await.doing(DOING)?;
        }
        transaction.commit().await.doing(DOING)?;
        self.push().await
    }

    /// Whether a worker might get something: a look at the queue leaves a trace
    /// there.
    async fn has_work(&self, builder: &str) -> Result<bool> {
        let now = fs::now().seconds();
        let silent = now.saturating_sub(seconds(self.rules.lease));
        const FIND: &str = "SELECT 1 FROM builds WHERE builder = $1 AND state = 'queued' \
            AND after <= $2 AND pushed >= round \
            UNION ALL SELECT 1 FROM builds JOIN tries ON tries.lease = builds.lease \
            WHERE builds.builder = $1 AND builds.state = 'leased' AND tries.seen <= $3 LIMIT 1";
        let find = sqlx::query(FIND).bind(builder).bind(now).bind(silent);
        let found = find.fetch_optional(self.database.readers()).await;
        let found = found.doing(DOING)?.is_some();
        if found {
            self.queue.reclaim(builder, self.rules.lease).await?;
        }
        Ok(found)
    }

    /// Makes a task a lease; none if it is about nothing that is to be done, not by
    /// this worker, or not while another one makes some of it.
    async fn give(
        &self,
        what: crate::service::queue::Try,
        task: &str,
        lease: &str,
        ask: &Ask,
        holder: &Holder,
    ) -> Result<Option<Job>> {
        let now = fs::now().seconds();
        let mut transaction = self.database.begin().await?;
        const FIND: &str = "SELECT want, name, version, builder, lease, disputed, reason \
            FROM builds WHERE id = $1 AND round = $2 AND state IN ('queued', 'leased')";
        let find = sqlx::query(FIND).bind(what.build).bind(what.round);
        let row = find.fetch_optional(&mut *transaction).await.doing(DOING)?;
        let Some(row) = row else {
            return Ok(None);
        };
        if !holder.may(Scope::WorkTrusted)
            && self.has_voted(&mut transaction, what.build, holder).await?
        {
            // Another one has to do it, whom a dispute waits for.
            let (state, after) = match number(&row, 5)? {
                0 => (State::Queued, now + ASIDE),
                _ => (State::Resting, now + MEMORY),
            };
            let reason = text(&row, 6)?;
            requeue(&mut transaction, what.build, state, after, &reason).await?;
            transaction.commit().await.doing(DOING)?;
            return Ok(None);
        }
        let wants = closure(&self.database, &mut transaction, number(&row, 0)?).await?;
        let unmade = self.unmade(&mut transaction, &wants).await?;
        let before = text(&row, 4)?;
        if before.is_empty() {
            let maker = self.maker_of(&mut transaction, what.build, &unmade);
            if let Some(maker) = maker.await? {
                const WAIT: &str = "UPDATE builds SET round = round + 1, behind = $2 WHERE id = $1";
                let wait = sqlx::query(WAIT).bind(what.build).bind(maker);
                wait.execute(&mut *transaction).await.doing(DOING)?;
                transaction.commit().await.doing(DOING)?;
                return Ok(None);
            }
        } else {
            let lost = "nothing was heard of the worker";
            end(&mut transaction, &before, "lost", lost, "", now).await?;
        }
        const LEASE: &str =
            "UPDATE builds SET state = 'leased', lease = $2, task = $3 WHERE id = $1";
        let update = sqlx::query(LEASE).bind(what.build).bind(lease).bind(task);
        update.execute(&mut *transaction).await.doing(DOING)?;
        const TRY: &str = "INSERT INTO tries \
            (lease, build, token, worker, began, seen, ended, outcome, reason, log, making) \
            VALUES ($1, $2, $3, $4, $5, $5, 0, '', '', '', $6)";
        let add = sqlx::query(TRY).bind(lease).bind(what.build);
        let add = add.bind(&holder.name).bind(&ask.worker).bind(now);
        let add = add.bind(ids::write(&unmade));
        add.execute(&mut *transaction).await.doing(DOING)?;
        let mut texts = recipe_texts(&self.database, &mut transaction, &wants).await?;
        transaction.commit().await.doing(DOING)?;
        Ok(Some(Job {
            format: WORK_FORMAT,
            lease: lease.to_owned(),
            seconds: self.rules.lease.as_secs(),
            name: format!("{} {}", text(&row, 1)?, text(&row, 2)?),
            builder: text(&row, 3)?,
            recipes: wants
                .iter()
                .filter_map(|wanted| texts.remove(&wanted.id))
                .collect(),
        }))
    }

    /// Whether somebody has made a build already that others must confirm.
    async fn has_voted(
        &self,
        transaction: &mut Transaction<'static, Any>,
        build: i64,
        holder: &Holder,
    ) -> Result<bool> {
        const FIND: &str =
            "SELECT 1 FROM tries WHERE build = $1 AND token = $2 AND outcome = 'waits' LIMIT 1";
        let find = sqlx::query(FIND).bind(build).bind(&holder.name);
        let found = find.fetch_optional(&mut **transaction).await;
        Ok(found.doing(DOING)?.is_some())
    }

    /// Whether builders have used up what they may use today.
    pub(super) async fn is_spent(&self) -> Result<bool> {
        let Some(budget) = self.rules.budget else {
            return Ok(false);
        };
        let now = fs::now().seconds();
        let spent = super::board::seconds_since(&self.database, now - now % 86_400, now).await?;
        Ok(spent >= i64::try_from(budget).unwrap_or(i64::MAX))
    }

    async fn note_worker(&self, ask: &Ask, holder: &Holder) -> Result<()> {
        const NOTE: &str = "INSERT INTO worker_names (token, name, builders, since, seen) \
            VALUES ($1, $2, $3, $4, $4) ON CONFLICT (token, name) \
            DO UPDATE SET builders = excluded.builders, seen = excluded.seen";
        let mut transaction = self.database.begin().await?;
        let note = sqlx::query(NOTE).bind(&holder.name).bind(&ask.worker);
        let note = note.bind(ask.builders.join(" ")).bind(fs::now().seconds());
        note.execute(&mut *transaction).await.doing(DOING)?;
        transaction.commit().await.doing(DOING)
    }

    /// The lease of a worker; none if it counts no more.
    pub(in crate::service) async fn leased(
        &self,
        lease: &str,
        holder: &Holder,
    ) -> Result<Option<Leased>> {
        const FIND: &str = "SELECT builds.id, builds.want, builds.builder, builds.task FROM builds \
            JOIN tries ON tries.lease = builds.lease \
            WHERE tries.lease = $1 AND tries.token = $2 AND tries.ended = 0 \
            AND builds.state = 'leased'";
        let find = sqlx::query(FIND).bind(lease).bind(&holder.name);
        let row = find.fetch_optional(self.database.readers()).await;
        row.doing(DOING)?
            .map(|row| {
                Ok(Leased {
                    lease: lease.to_owned(),
                    build: number(&row, 0)?,
                    want: number(&row, 1)?,
                    builder: text(&row, 2)?,
                    task: text(&row, 3)?,
                    token: holder.name.clone(),
                    is_trusted: holder.may(Scope::WorkTrusted),
                })
            })
            .transpose()
    }

    /// Hears that a worker is at it.
    pub(in crate::service) async fn alive(&self, leased: &Leased, log: &str) -> Result<()> {
        self.queue.keep(&leased.builder, &leased.lease).await?;
        let mut transaction = self.database.begin().await?;
        const NOTE: &str = "UPDATE tries SET seen = $2, \
            log = CASE WHEN $3 = '' THEN log ELSE $3 END WHERE lease = $1 AND ended = 0";
        let note = sqlx::query(NOTE)
            .bind(&leased.lease)
            .bind(fs::now().seconds());
        let note = note.bind(end_of_log(log));
        note.execute(&mut *transaction).await.doing(DOING)?;
        transaction.commit().await.doing(DOING)
    }

    /// Hears that a build failed.
    pub(in crate::service) async fn failed(&self, leased: &Leased, failed: &Failed) -> Result<()> {
        let mut transaction = self.database.begin().await?;
        if !holds(&mut transaction, leased).await? {
            return Ok(());
        }
        let now = fs::now().seconds();
        let outcome = if failed.recipe { "failed" } else { "returned" };
        let log = end_of_log(&failed.log);
        end(
            &mut transaction,
            &leased.lease,
            outcome,
            &failed.reason,
            log,
            now,
        )
        .await?;
        if failed.recipe {
            self.back_off(&mut transaction, leased.build, &failed.reason, now)
                .await?;
        } else {
            let after = now + seconds(self.rules.retry).min(ASIDE);
            requeue(
                &mut transaction,
                leased.build,
                State::Queued,
                after,
                &failed.reason,
            )
            .await?;
        }
        transaction.commit().await.doing(DOING)?;
        self.queue.finish(&leased.lease, &leased.task).await?;
        self.push().await
    }

    /// A build failed, which counts; what it would have made is free.
    async fn back_off(
        &self,
        transaction: &mut Transaction<'static, Any>,
        build: i64,
        reason: &str,
        now: i64,
    ) -> Result<()> {
        const FAILURES: &str = "SELECT ended FROM tries \
            WHERE build = $1 AND outcome = 'failed' AND ended > $2 ORDER BY ended";
        let failures = sqlx::query(FAILURES).bind(build).bind(now - MEMORY);
        let failures = failures.fetch_all(&mut **transaction).await.doing(DOING)?;
        let failures: Vec<i64> = failures
            .iter()
            .map(|row| number(row, 0))
            .collect::<Result<_>>()?;
        let (state, after) = after_failure(&failures, now, seconds(self.rules.retry));
        requeue(transaction, build, state, after, reason).await?;
        free(transaction, build).await
    }

    /// Outputs wait for somebody else's opinion.
    pub(super) async fn wait(
        &self,
        transaction: &mut Transaction<'static, Any>,
        leased: &Leased,
        reason: &str,
    ) -> Result<()> {
        let now = fs::now().seconds();
        end(transaction, &leased.lease, "waits", reason, "", now).await?;
        const COUNT: &str =
            "SELECT COUNT(*) FROM tries WHERE build = $1 AND outcome = 'waits' AND ended > $2";
        let count = sqlx::query(COUNT).bind(leased.build).bind(now - MEMORY);
        let count = count.fetch_one(&mut **transaction).await.doing(DOING)?;
        if number(&count, 0)? < OPINIONS {
            return requeue(transaction, leased.build, State::Queued, 0, reason).await;
        }
        let (build, after) = (leased.build, now + MEMORY);
        requeue(transaction, build, State::Resting, after, reason).await?;
        free(transaction, build).await
    }

    /// Workers have made different things: it rests until somebody else asks for
    /// work, or a week is over.
    pub(super) async fn dispute(
        &self,
        transaction: &mut Transaction<'static, Any>,
        leased: &Leased,
        reason: &str,
    ) -> Result<()> {
        let (build, now) = (leased.build, fs::now().seconds());
        end(transaction, &leased.lease, "waits", reason, "", now).await?;
        requeue(transaction, build, State::Resting, now + MEMORY, reason).await?;
        let note = sqlx::query("UPDATE builds SET disputed = 1 WHERE id = $1");
        let note = note.bind(build).execute(&mut **transaction);
        note.await.doing(DOING)?;
        free(transaction, build).await
    }
}

/// Whether a lease counts still, now that nobody else can write.
pub(super) async fn holds(
    transaction: &mut Transaction<'static, Any>,
    leased: &Leased,
) -> Result<bool> {
    const FIND: &str = "SELECT 1 FROM builds WHERE id = $1 AND lease = $2 AND state = 'leased'";
    let find = sqlx::query(FIND).bind(leased.build).bind(&leased.lease);
    let found = find.fetch_optional(&mut **transaction).await;
    Ok(found.doing(DOING)?.is_some())
}

/// Notes what came of a lease.
pub(super) async fn end(
    transaction: &mut Transaction<'static, Any>,
    lease: &str,
    outcome: &str,
    reason: &str,
    log: &str,
    now: i64,
) -> Result<()> {
    const END: &str = "UPDATE tries SET ended = $2, outcome = $3, reason = $4, making = '', \
        log = CASE WHEN $5 = '' THEN log ELSE $5 END WHERE lease = $1 AND ended = 0";
    let query = sqlx::query(END).bind(lease).bind(now).bind(outcome);
    let query = query.bind(reason).bind(log);
    query.execute(&mut **transaction).await.doing(DOING)?;
    Ok(())
}

/// Another round for a build.
pub(super) async fn requeue(
    transaction: &mut Transaction<'static, Any>,
    build: i64,
    state: State,
    after: i64,
    reason: &str,
) -> Result<()> {
    const AGAIN: &str = "UPDATE builds SET state = $2, round = round + 1, after = $3, \
        reason = $4, lease = '', task = '' WHERE id = $1";
    let query = sqlx::query(AGAIN).bind(build).bind(state.name());
    let query = query.bind(after).bind(reason);
    query.execute(&mut **transaction).await.doing(DOING)?;
    Ok(())
}

/// What a build would have made as well may be built by itself.
pub(super) async fn free(transaction: &mut Transaction<'static, Any>, build: i64) -> Result<()> {
    let query = sqlx::query("DELETE FROM builds WHERE root = $1 AND state = 'covered'");
    let query = query.bind(build);
    query.execute(&mut **transaction).await.doing(DOING)?;
    Ok(())
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// 128 random bits.
fn random() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    hex(&bytes)
}
