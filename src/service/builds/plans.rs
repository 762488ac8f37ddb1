//! Trees of lock files that came without recipes, and what workers plan for them.
//!
//! ```text
//! counts ─► trees that enough want ─► a worker's Cargo ─► recipes ─► heirs ─► builds
//! ```
//!
//! A lock file says nothing of features and profiles. So a worker that has nothing to
//! build asks its Cargo what compiling a tree comes down to where a new package needs
//! it, with the features that the tree shows and the profile `dev`; what comes out is
//! a guess, and has the demand of the tree. Where enough have sent recipes of the same
//! version of the package, they have said better what they want, and nobody guesses.
//!
//! The largest tree takes the smaller ones along. Nothing of a tree is compiled or run
//! to plan it, and a recipe of something that is not in the tree is refused.

use std::collections::BTreeSet;

use super::{Builds, DOING, FAILURES, MEMORY, Wanted, closure, number, text};
use crate::cargo::lock_graph::{LockGraph, LockedPackage};
use crate::cargo::source::CRATES_IO;
use crate::cargo::toolchain::builder_name;
use crate::console::chain;
use crate::fs;
use crate::recipe::package::PackageRecipe;
use crate::report::lock_text;
use crate::report::work::{Ask, Planned, Tree, WORK_FORMAT};
use crate::service::database::{DatabaseError, Doing as _, Result, Rows};
use crate::service::intake::{Kind, Want, wanted_recipes};
use crate::service::{counter, counts};

/// Trees that are noted in one go.
const AT_ONCE: i64 = 64;
/// Seconds after which a tree is given to another worker.
const HANDED: i64 = 600;

/// Why a plan is not taken.
#[derive(Debug, thiserror::Error)]
pub(in crate::service) enum PlanError {
    /// Nobody was asked for it, or it is there already.
    #[error("no plan of this tree is wanted for this builder")]
    Unwanted,
    /// It is no plan of this tree.
    #[error("the plan is refused: {0}")]
    Refused(String),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A thread.
    #[error("the plan cannot be looked at")]
    Task(#[from] tokio::task::JoinError),
}

impl Builds {
    /// Gives a worker a tree to plan, if there is any.
    pub(in crate::service) async fn tree(&self, ask: &Ask) -> Result<Option<Tree>> {
        if self.publishing.key.is_none() || self.is_spent().await? {
            return Ok(None);
        }
        let wanted = self.wanted_builders().await?;
        for builder in &ask.builders {
            if !wanted.is_empty() && !wanted.contains(builder) {
                continue;
            }
            self.note_trees(builder).await?;
            if let Some(tree) = self.next_tree(builder).await? {
                return Ok(Some(tree));
            }
        }
        Ok(None)
    }

    /// Builders that enough have named in their reports.
    async fn wanted_builders(&self) -> Result<BTreeSet<String>> {
        let threshold = i64::from(self.rules.threshold);
        let ids = counts::at_least(&self.database, Kind::Builder, threshold).await?;
        const FIND: &str = "SELECT wants.name FROM {each} \
            JOIN wants ON wants.id = CAST(each.value ->> 0 AS BIGINT)";
        let asked: Rows = ids.iter().map(|id| [id]).collect();
        let find = sqlx::query(self.database.sql(FIND)).bind(asked.finish());
        let rows = find.fetch_all(self.database.readers()).await.doing(DOING)?;
        rows.iter().map(|row| text(row, 0)).collect()
    }

    /// Notes the largest trees that enough want and nobody has planned.
    async fn note_trees(&self, builder: &str) -> Result<()> {
        let threshold = i64::from(self.rules.threshold);
        let enough = counts::at_least(&self.database, Kind::Tree, threshold).await?;
        let enough: Rows = enough.iter().map(|want| [want]).collect();
        const FIND: &str = "SELECT wants.id FROM {each} \
            JOIN wants ON wants.id = CAST(each.value ->> 0 AS BIGINT) \
            WHERE NOT EXISTS (SELECT 1 FROM plans \
            WHERE plans.want = wants.id AND plans.builder = $2) \
            AND NOT EXISTS (SELECT 1 FROM builds WHERE builds.name = wants.name \
            AND builds.version = wants.version AND builds.builder = $2 AND builds.own = 1) \
            ORDER BY wants.packages DESC, wants.id LIMIT $3";
        let find = sqlx::query(self.database.sql(FIND)).bind(enough.finish());
        let find = find.bind(builder).bind(AT_ONCE);
        let rows = find.fetch_all(self.database.readers()).await.doing(DOING)?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut transaction = self.database.begin().await?;
        for row in &rows {
            let root = number(row, 0)?;
            const KNOWN: &str = "SELECT 1 FROM plans WHERE want = $1 AND builder = $2";
            let known = sqlx::query(KNOWN).bind(root).bind(builder);
            let known = known.fetch_optional(&mut *transaction).await;
            if known.doing(DOING)?.is_some() {
                continue; // a larger one has it, or another server was faster
            }
            let wants = closure(&self.database, &mut transaction, root).await?;
            let state = |wanted: &Wanted| if wanted.id == root { "open" } else { "covered" };
            let rows: Rows = wants
                .iter()
                .map(|wanted| (wanted.id, state(wanted)))
                .collect();
            const ADD: &str = "INSERT INTO plans (want, builder, state, root, after, tries, reason) \
                SELECT CAST(each.value ->> 0 AS BIGINT), $2, each.value ->> 1, \
                CAST($3 AS BIGINT), 0, 0, '' FROM {each} WHERE TRUE \
                ON CONFLICT (want, builder) DO NOTHING";
            let add = sqlx::query(self.database.sql(ADD)).bind(rows.finish());
            let add = add.bind(builder).bind(root);
            add.execute(&mut *transaction).await.doing(DOING)?;
        }
        transaction.commit().await.doing(DOING)
    }

    /// The next tree that is due. Who does not answer is not asked again soon.
    async fn next_tree(&self, builder: &str) -> Result<Option<Tree>> {
        let now = fs::now().seconds();
        const DUE: &str = "SELECT plans.want, plans.tries FROM plans \
            JOIN wants ON wants.id = plans.want \
            WHERE plans.builder = $1 AND plans.state = 'open' AND plans.after <= $2 \
            ORDER BY plans.after, wants.packages DESC, wants.id LIMIT 1";
        let due = sqlx::query(DUE).bind(builder).bind(now);
        let due = due.fetch_optional(self.database.readers()).await;
        if due.doing(DOING)?.is_none() {
            return Ok(None);
        }
        let mut transaction = self.database.begin().await?;
        let due = sqlx::query(DUE).bind(builder).bind(now);
        let due = due.fetch_optional(&mut *transaction).await.doing(DOING)?;
        let Some(row) = due else { return Ok(None) };
        let (want, tries) = (number(&row, 0)?, number(&row, 1)? + 1);
        let pause = if tries < FAILURES { HANDED } else { MEMORY };
        const HAND: &str = "UPDATE plans SET after = $3, tries = $4 \
            WHERE want = $1 AND builder = $2";
        let hand = sqlx::query(HAND).bind(want).bind(builder);
        let hand = hand.bind(now + pause).bind(tries % FAILURES);
        hand.execute(&mut *transaction).await.doing(DOING)?;
        let wants = closure(&self.database, &mut transaction, want).await?;
        transaction.commit().await.doing(DOING)?;
        let Some(root) = wants.last() else {
            return Ok(None);
        };
        Ok(Some(Tree {
            format: WORK_FORMAT,
            tree: root.hash.clone(),
            name: root.name.clone(),
            version: root.version.clone(),
            builder: builder.to_owned(),
            lock: lock_text(&lock(&wants)),
        }))
    }

    /// Takes a plan, or hears that there is none.
    pub(in crate::service) async fn planned(
        &self,
        tree: &str,
        planned: Planned,
    ) -> std::result::Result<(), PlanError> {
        const FIND: &str = "SELECT plans.want, plans.tries FROM plans \
            JOIN wants ON wants.id = plans.want \
            WHERE wants.hash = $1 AND plans.builder = $2 AND plans.state = 'open' \
            AND plans.after > 0";
        let find = sqlx::query(FIND).bind(tree).bind(&planned.builder);
        let row = find.fetch_optional(self.database.readers()).await;
        let row = row.doing(DOING)?.ok_or(PlanError::Unwanted)?;
        let (want, tries) = (number(&row, 0)?, number(&row, 1)?);
        let builder = planned.builder.clone();
        if planned.recipes.is_empty() {
            self.unplanned(want, &builder, tries, &planned.reason)
                .await?;
            return Ok(());
        }
        let reader = self.database.readers().acquire().await;
        let packages = closure(&self.database, &mut *reader.doing(DOING)?, want).await?;
        let checked = tokio::task::spawn_blocking(move || {
            check(&planned.recipes, &planned.builder, &packages)
        });
        match checked.await? {
            Ok((wants, roots)) => {
                self.note_plan(want, &builder, &wants, &roots).await?;
                Ok(())
            }
            Err(reason) => {
                self.unplanned(want, &builder, tries, &reason).await?;
                Err(PlanError::Refused(reason))
            }
        }
    }

    /// Gives what was planned the demand of the tree.
    async fn note_plan(
        &self,
        tree: i64,
        builder: &str,
        wants: &[Want],
        roots: &[usize],
    ) -> Result<()> {
        let mut transaction = self.database.begin().await?;
        let ids = counter::learn(&self.database, &mut transaction, wants).await?;
        let now = fs::now().seconds();
        let roots = roots.iter().filter_map(|root| ids.get(&wants[*root].hash));
        let rows: Rows = roots.map(|root| (root, tree, builder, now)).collect();
        self.add_heirs(&mut transaction, rows).await?;
        const DONE: &str = "UPDATE plans SET state = 'done', reason = '' \
            WHERE want = $1 AND builder = $2";
        let done = sqlx::query(DONE).bind(tree).bind(builder);
        done.execute(&mut *transaction).await.doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        // The worker that planned it has nothing else to do.
        let _ = self.add().await?;
        self.push().await
    }

    /// Notes that there is no plan; what is below the tree is planned by itself.
    async fn unplanned(&self, want: i64, builder: &str, tries: i64, reason: &str) -> Result<()> {
        let now = fs::now().seconds();
        let retry = i64::try_from(self.rules.retry.as_secs()).unwrap_or(i64::MAX);
        let pause = match tries {
            0 => MEMORY, // the last one for now
            tries => retry.saturating_mul(1 << (2 * (tries - 1).clamp(0, 8))),
        };
        let mut transaction = self.database.begin().await?;
        const NOTE: &str = "UPDATE plans SET after = $3, reason = $4 \
            WHERE want = $1 AND builder = $2 AND state = 'open'";
        let note = sqlx::query(NOTE).bind(want).bind(builder);
        let note = note.bind(now.saturating_add(pause)).bind(reason);
        let noted = note.execute(&mut *transaction).await.doing(DOING)?;
        if noted.rows_affected() == 0 {
            return Ok(()); // another worker had a plan meanwhile
        }
        const FREE: &str = "DELETE FROM plans WHERE root = $1 AND builder = $2 \
            AND state = 'covered'";
        let free = sqlx::query(FREE).bind(want).bind(builder);
        free.execute(&mut *transaction).await.doing(DOING)?;
        transaction.commit().await.doing(DOING)
    }
}

/// A tree as a lock file has it.
fn lock(wants: &[Wanted]) -> LockGraph {
    let place = |id: &i64| wants.binary_search_by_key(id, |wanted| wanted.id).ok();
    let packages = wants.iter().map(|wanted| LockedPackage {
        name: wanted.name.clone(),
        version: wanted.version.clone(),
        source: Some(CRATES_IO.to_owned()),
        dependencies: wanted.needs.iter().filter_map(place).collect(),
    });
    LockGraph {
        packages: packages.collect(),
    }
}

/// What is wanted of a plan, with the positions of the tree's own package; or why it
/// is none of this tree.
fn check(
    texts: &[String],
    builder: &str,
    tree: &[Wanted],
) -> std::result::Result<(Vec<Want>, Vec<usize>), String> {
    let wants = wanted_recipes(texts).map_err(|error| chain(&error))?;
    let named = |wanted: &Wanted| (wanted.name.clone(), wanted.version.clone());
    let packages: BTreeSet<(String, String)> = tree.iter().map(named).collect();
    for (want, text) in wants.iter().zip(texts) {
        let package = (want.name.clone(), want.version.clone());
        if !packages.contains(&package) {
            let (name, version) = package;
            return Err(format!("`{name} {version}` is not in the tree"));
        }
        let recipe = PackageRecipe::from_toml(text).map_err(|error| chain(&error))?;
        let units = recipe.units().iter();
        let mut builders = units.map(|unit| builder_name(&unit.toolchain.rustc));
        if !builders.all(|own| own.as_deref() == Some(builder)) {
            return Err(format!("`{}` is of another toolchain", want.name));
        }
    }
    let root = tree.last().map(named).unwrap_or_default();
    let is_root = |want: &Want| want.name == root.0 && want.version == root.1;
    let roots = (0..wants.len()).filter(|at| is_root(&wants[*at]));
    let roots: Vec<usize> = roots.collect();
    if roots.is_empty() {
        return Err(format!("it has no recipe of `{} {}`", root.0, root.1));
    }
    Ok((wants, roots))
}
