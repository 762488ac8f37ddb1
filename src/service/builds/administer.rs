//! What an administrator does with a build.

use super::lease::{end, free, requeue};
use super::{Builds, DOING, State, text};
use crate::fs;
use crate::service::access;
use crate::service::builds::toolchains::Toolchain;
use crate::service::database::{Doing as _, Result};

/// The second until which a build rests that was cancelled: the end of 9999.
const FOR_GOOD: i64 = 253_402_300_799;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::service) enum Changed {
    /// It is done.
    Done,
    /// There is no such build.
    Absent,
    /// It is in a state in which that cannot be done.
    Not(String),
}

impl Builds {
    /// Queues a build again that rests, or that waits after it failed.
    pub(in crate::service) async fn retry(&self, build: i64, actor: &str) -> Result<Changed> {
        let mut transaction = self.database.begin().await?;
        let find = sqlx::query("SELECT state FROM builds WHERE id = $1").bind(build);
        let row = find.fetch_optional(&mut *transaction).await.doing(DOING)?;
        let Some(row) = row else {
            return Ok(Changed::Absent);
        };
        let state = text(&row, 0)?;
        if ![State::Resting.name(), State::Queued.name()].contains(&&*state) {
            return Ok(Changed::Not(state));
        }
        let reason = "an administrator has it tried again";
        requeue(&mut transaction, build, State::Queued, 0, reason).await?;
        access::note(&mut transaction, actor, "retry build", &build.to_string()).await?;
        transaction.commit().await.doing(DOING)?;
        self.push().await?;
        Ok(Changed::Done)
    }

    /// Lets a build rest until it is queued again by hand; a worker that has it is
    /// told when it is next heard of.
    pub(in crate::service) async fn cancel(&self, build: i64, actor: &str) -> Result<Changed> {
        let now = fs::now().seconds();
        let mut transaction = self.database.begin().await?;
        let find = sqlx::query("SELECT state, lease, task FROM builds WHERE id = $1").bind(build);
        let row = find.fetch_optional(&mut *transaction).await.doing(DOING)?;
        let Some(row) = row else {
            return Ok(Changed::Absent);
        };
        let (state, lease, task) = (text(&row, 0)?, text(&row, 1)?, text(&row, 2)?);
        let can_rest = [State::Queued, State::Leased, State::Resting];
        if !can_rest.iter().any(|can| can.name() == state) {
            return Ok(Changed::Not(state));
        }
        let reason = "an administrator has cancelled it";
        end(&mut transaction, &lease, "cancelled", reason, "", now).await?;
        requeue(&mut transaction, build, State::Resting, FOR_GOOD, reason).await?;
        let settle = sqlx::query("UPDATE builds SET disputed = 0 WHERE id = $1");
        let settle = settle.bind(build).execute(&mut *transaction);
        settle.await.doing(DOING)?;
        free(&mut transaction, build).await?;
        access::note(&mut transaction, actor, "cancel build", &build.to_string()).await?;
        transaction.commit().await.doing(DOING)?;
        if !task.is_empty() {
            self.queue.finish(&lease, &task).await?;
        }
        Ok(Changed::Done)
    }

    /// Makes a toolchain count without waiting until something is built with it;
    /// gives it with its predecessor.
    pub(in crate::service) async fn name_toolchain(
        &self,
        toolchain: Toolchain,
        actor: &str,
    ) -> Result<Toolchain> {
        let mut transaction = self.database.begin().await?;
        let named = self.note_toolchain(&mut transaction, toolchain).await?;
        access::note(&mut transaction, actor, "name toolchain", &named.builder).await?;
        transaction.commit().await.doing(DOING)?;
        Ok(named)
    }
}
