//! The statements of one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::{Any, Row as _, Transaction};

use super::projects::{Project, Projects};
use super::{DOING, EXPIRED, Submission};
use crate::service::counts::{self, Block};
use crate::service::database::{Database, Doing as _, Result, Rows};
use crate::service::ids;
use crate::service::intake::{Kind, Want};

/// Reports of usage of one voice that count, a day.
const REPORTS: i64 = 500;
/// Seconds after which a project that says nothing is forgotten: 90 days.
const SILENT: i64 = 90 * 86_400;

/// One transaction.
pub(super) struct Batch<'a> {
    pub(super) database: &'a Database,
    pub(super) transaction: &'a mut Transaction<'static, Any>,
    pub(super) known: &'a HashMap<String, i64>,
    /// Ids that are known since this transaction began.
    pub(super) new: HashMap<String, i64>,
    /// Kinds of those that were never wanted before.
    pub(super) kinds: BTreeMap<i64, Kind>,
    pub(super) now: i64,
}

impl Batch<'_> {
    pub(super) async fn execute(&mut self, text: &'static str, values: Rows) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let query = sqlx::query(self.database.sql(text)).bind(values.finish());
        query.execute(&mut **self.transaction).await.doing(DOING)?;
        Ok(())
    }

    pub(super) async fn fetch(
        &mut self,
        text: &'static str,
        values: Rows,
    ) -> Result<Vec<sqlx::any::AnyRow>> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let query = sqlx::query(self.database.sql(text)).bind(values.finish());
        query.fetch_all(&mut **self.transaction).await.doing(DOING)
    }

    /// The first id that nobody has.
    pub(super) async fn next(&mut self, text: &'static str) -> Result<i64> {
        let query = sqlx::query(text).fetch_one(&mut **self.transaction);
        Ok(query
            .await
            .doing(DOING)?
            .try_get::<i64, _>(0)
            .doing(DOING)?
            + 1)
    }

    /// Ids of voices; those that speak for the first time get one.
    pub(super) async fn voices(
        &mut self,
        submissions: &[Submission],
    ) -> Result<HashMap<String, i64>> {
        let mut voices = HashMap::new();
        let mut names: Vec<&str> = submissions.iter().map(|s| s.voice.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let asked: Rows = names.iter().map(|name| (name,)).collect();
        const FIND: &str = "SELECT voices.name, voices.id FROM {each} \
            JOIN voices ON voices.name = (each.value ->> 0)";
        for row in self.fetch(FIND, asked).await? {
            voices.insert(
                row.try_get::<String, _>(0).doing(DOING)?,
                row.try_get::<i64, _>(1).doing(DOING)?,
            );
        }
        names.retain(|name| !voices.contains_key(*name));
        if names.is_empty() {
            return Ok(voices);
        }
        let next = self.next("SELECT COALESCE(MAX(id), 0) FROM voices").await?;
        let mut added = Rows::new();
        for (id, name) in (next..).zip(names) {
            added.push(&(id, name, self.now));
            voices.insert(name.to_owned(), id);
        }
        const ADD: &str = "INSERT INTO voices (id, name, since) \
            SELECT CAST(each.value ->> 0 AS BIGINT), each.value ->> 1, \
            CAST(each.value ->> 2 AS BIGINT) FROM {each}";
        self.execute(ADD, added).await?;
        Ok(voices)
    }

    /// Projects of which nothing was heard for long.
    pub(super) async fn expired(&mut self) -> Result<Vec<(i64, String)>> {
        const FIND: &str = "SELECT voice, project FROM projects WHERE seen < $1 LIMIT $2";
        let query = sqlx::query(FIND)
            .bind(self.now - SILENT)
            .bind(EXPIRED as i64);
        let rows = query
            .fetch_all(&mut **self.transaction)
            .await
            .doing(DOING)?;
        let read = |row: sqlx::any::AnyRow| {
            let (voice, project) = (row.try_get(0), row.try_get(1));
            Ok((voice.doing(DOING)?, project.doing(DOING)?))
        };
        rows.into_iter().map(read).collect()
    }

    /// All projects of voices.
    pub(super) async fn projects(&mut self, voices: BTreeSet<i64>) -> Result<Projects> {
        let asked: Rows = voices.iter().map(|id| (id,)).collect();
        const FIND: &str = "SELECT projects.voice, projects.project, projects.content, \
            projects.wants, projects.seen FROM {each} \
            JOIN projects ON projects.voice = CAST(each.value ->> 0 AS BIGINT)";
        let mut projects = Projects::default();
        for row in self.fetch(FIND, asked).await? {
            let text: String = row.try_get(3).doing(DOING)?;
            let project = Project {
                content: row.try_get(2).doing(DOING)?,
                wants: ids::read(&text).unwrap_or_default(),
                seen: row.try_get(4).doing(DOING)?,
            };
            let name: String = row.try_get(1).doing(DOING)?;
            projects.add(row.try_get(0).doing(DOING)?, name, project);
        }
        Ok(projects)
    }

    /// Finds the ids of all that is wanted; what is wanted for the first time
    /// gets one.
    pub(super) async fn learn(&mut self, reports: &[&[Want]]) -> Result<()> {
        let wants = reports.iter().copied().flatten();
        let mut asked = HashMap::new();
        for want in wants.filter(|want| !self.known.contains_key(&want.hash)) {
            asked.entry(&want.hash).or_insert(want);
        }
        let hashes: Rows = asked.keys().map(|hash| (hash,)).collect();
        const FIND: &str = "SELECT wants.hash, wants.id FROM {each} \
            JOIN wants ON wants.hash = (each.value ->> 0)";
        for row in self.fetch(FIND, hashes).await? {
            let hash: String = row.try_get(0).doing(DOING)?;
            self.new.insert(hash, row.try_get(1).doing(DOING)?);
        }
        let mut next = self.next("SELECT COALESCE(MAX(id), 0) FROM wants").await?;
        let (mut added, mut files) = (Rows::new(), Rows::new());
        for report in reports {
            for want in *report {
                if self.id(&want.hash).is_some() {
                    continue;
                }
                // What it needs came before it.
                let needs = want.needs.iter().map(|need| &report[*need]);
                let mut needs: Vec<i64> = needs.filter_map(|need| self.id(&need.hash)).collect();
                needs.sort_unstable();
                needs.dedup();
                added.push(&(
                    next,
                    want.kind.name(),
                    &want.hash,
                    &want.name,
                    &want.version,
                    ids::write(&needs),
                    want.packages,
                    self.now,
                ));
                self.kinds.insert(next, want.kind);
                if let Some(text) = want.text.as_ref().filter(|_| want.kind == Kind::Recipe) {
                    files.push(&(next, text));
                }
                self.new.insert(want.hash.clone(), next);
                next += 1;
            }
        }
        const ADD: &str = "INSERT INTO wants \
            (id, kind, hash, name, version, needs, packages, since) \
            SELECT CAST(each.value ->> 0 AS BIGINT), each.value ->> 1, each.value ->> 2, \
            each.value ->> 3, each.value ->> 4, each.value ->> 5, \
            CAST(each.value ->> 6 AS BIGINT), CAST(each.value ->> 7 AS BIGINT) FROM {each}";
        self.execute(ADD, added).await?;
        const ADD_FILES: &str = "INSERT INTO recipe_files (want, text) \
            SELECT CAST(each.value ->> 0 AS BIGINT), each.value ->> 1 FROM {each}";
        self.execute(ADD_FILES, files).await
    }

    pub(super) fn id(&self, hash: &str) -> Option<i64> {
        self.known.get(hash).or_else(|| self.new.get(hash)).copied()
    }

    /// Sorted ids of wants that were learnt.
    pub(super) fn ids(&self, wants: &[Want]) -> Vec<i64> {
        let ids = wants.iter().filter_map(|want| self.id(&want.hash));
        let mut ids: Vec<i64> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Writes projects and counts that have changed.
    pub(super) async fn write(&mut self, projects: &Projects) -> Result<()> {
        let (mut gone, mut changed) = (Rows::new(), Rows::new());
        for (voice, name) in &projects.touched {
            match projects.voices.get(voice).and_then(|all| all.get(name)) {
                None => gone.push(&(voice, name)),
                Some(project) => changed.push(&(
                    voice,
                    name,
                    &project.content,
                    ids::write(&project.wants),
                    project.seen,
                )),
            }
        }
        const REMOVE: &str = "DELETE FROM projects WHERE (voice, project) IN \
            (SELECT CAST(each.value ->> 0 AS BIGINT), each.value ->> 1 FROM {each})";
        self.execute(REMOVE, gone).await?;
        const PUT: &str = "INSERT INTO projects (voice, project, content, wants, seen) \
            SELECT CAST(each.value ->> 0 AS BIGINT), each.value ->> 1, each.value ->> 2, \
            each.value ->> 3, CAST(each.value ->> 4 AS BIGINT) FROM {each} WHERE true \
            ON CONFLICT (voice, project) DO UPDATE SET \
            content = excluded.content, wants = excluded.wants, seen = excluded.seen";
        self.execute(PUT, changed).await?;
        self.count(&projects.counts).await
    }

    /// Changes counts. Nobody else does at the same time, so what is read here
    /// still holds when it is written.
    pub(super) async fn count(&mut self, changes: &BTreeMap<i64, i64>) -> Result<()> {
        let changes = changes.iter().filter(|(_, change)| **change != 0);
        let changes: Vec<(i64, i64)> = changes.map(|(want, change)| (*want, *change)).collect();
        let wants = changes.iter().map(|(want, _)| want);
        let touched = wants.chain(self.kinds.keys());
        let mut blocks: BTreeMap<i64, Block> = touched
            .map(|want| (counts::place(*want).0, Block::default()))
            .collect();
        let asked: Rows = blocks.keys().map(|block| [block]).collect();
        const FIND: &str = "SELECT counts.block, counts.voices FROM {each} \
            JOIN counts ON counts.block = CAST(each.value ->> 0 AS BIGINT)";
        for row in self.fetch(FIND, asked).await? {
            let text: String = row.try_get(1).doing(DOING)?;
            blocks.insert(row.try_get(0).doing(DOING)?, Block::read(&text));
        }
        for (want, kind) in &self.kinds {
            let (block, place) = counts::place(*want);
            blocks.entry(block).or_default().at(place).kind = kind.number();
        }
        for (want, change) in changes {
            let (block, place) = counts::place(want);
            blocks.entry(block).or_default().at(place).voices += change;
        }
        let digits = |block: &Block| {
            [Kind::Tree, Kind::Recipe, Kind::Builder].map(|kind| block.digits(kind))
        };
        let rows = blocks.iter().map(|(id, block)| {
            let [trees, recipes, builders] = digits(block);
            (id, block.text(), trees, recipes, builders)
        });
        const PUT: &str = "INSERT INTO counts (block, voices, trees, recipes, builders) \
            SELECT CAST(each.value ->> 0 AS BIGINT), each.value ->> 1, \
            CAST(each.value ->> 2 AS BIGINT), CAST(each.value ->> 3 AS BIGINT), \
            CAST(each.value ->> 4 AS BIGINT) FROM {each} WHERE true \
            ON CONFLICT (block) DO UPDATE SET voices = excluded.voices, \
            trees = excluded.trees, recipes = excluded.recipes, builders = excluded.builders";
        let rows: Rows = rows.collect();
        self.execute(PUT, rows).await
    }

    /// Counts usage that was not counted; tells which was.
    pub(super) async fn usage(
        &mut self,
        submissions: &[Submission],
        voices: &HashMap<String, i64>,
    ) -> Result<Vec<bool>> {
        let day = self.now / 86_400;
        let mut used = vec![false; submissions.len()];
        let mut fresh: HashMap<(i64, String), usize> = HashMap::new();
        let mut asked = Rows::new();
        for (position, submission) in submissions.iter().enumerate() {
            if let Some(usage) = &submission.intake.usage {
                let voice = voices[&submission.voice];
                asked.push(&(voice, &usage.id, day));
                fresh.entry((voice, usage.id.clone())).or_insert(position);
            }
        }
        const ADD: &str = "INSERT INTO reports (voice, report, day) \
            SELECT CAST(each.value ->> 0 AS BIGINT), each.value ->> 1, \
            CAST(each.value ->> 2 AS BIGINT) FROM {each} WHERE true \
            ON CONFLICT (voice, report) DO NOTHING RETURNING voice, report";
        let mut said: HashMap<i64, i64> = HashMap::new();
        let rows = self.fetch(ADD, asked).await?;
        if rows.is_empty() {
            return Ok(used);
        }
        let asked: Rows = voices.values().map(|voice| (voice, day)).collect();
        const SAID: &str = "SELECT usage.voice, usage.reports FROM {each} JOIN usage \
            ON usage.day = CAST(each.value ->> 1 AS BIGINT) \
            AND usage.voice = CAST(each.value ->> 0 AS BIGINT)";
        for row in self.fetch(SAID, asked).await? {
            said.insert(row.try_get(0).doing(DOING)?, row.try_get(1).doing(DOING)?);
        }
        let mut sums: BTreeMap<i64, [i64; 5]> = BTreeMap::new();
        for row in rows {
            let voice: i64 = row.try_get(0).doing(DOING)?;
            let report: String = row.try_get(1).doing(DOING)?;
            let said = said.entry(voice).or_default();
            let Some(position) = fresh.get(&(voice, report)).filter(|_| *said < REPORTS) else {
                continue;
            };
            *said += 1;
            used[*position] = true;
            let sum = sums.entry(voice).or_default();
            for (sum, more) in sum.iter_mut().zip(numbers(&submissions[*position])) {
                *sum += more;
            }
        }
        let sums = sums
            .iter()
            .map(|(voice, [a, b, c, d, e])| (day, voice, a, b, c, d, e));
        let sums: Rows = sums.collect();
        const SUM: &str = "INSERT INTO usage (day, voice, reports, hits, misses, \
            milliseconds_saved, milliseconds_compiled) \
            SELECT CAST(each.value ->> 0 AS BIGINT), CAST(each.value ->> 1 AS BIGINT), \
            CAST(each.value ->> 2 AS BIGINT), CAST(each.value ->> 3 AS BIGINT), \
            CAST(each.value ->> 4 AS BIGINT), CAST(each.value ->> 5 AS BIGINT), \
            CAST(each.value ->> 6 AS BIGINT) FROM {each} WHERE true \
            ON CONFLICT (day, voice) DO UPDATE SET \
            reports = usage.reports + excluded.reports, hits = usage.hits + excluded.hits, \
            misses = usage.misses + excluded.misses, \
            milliseconds_saved = usage.milliseconds_saved + excluded.milliseconds_saved, \
            milliseconds_compiled = usage.milliseconds_compiled + excluded.milliseconds_compiled";
        self.execute(SUM, sums).await?;
        Ok(used)
    }

    /// Adds to the sums of this day.
    pub(super) async fn day(
        &mut self,
        submissions: &[Submission],
        changed: &[bool],
        used: &[bool],
    ) -> Result<()> {
        let mut sum = [0; 5];
        for (submission, _) in submissions.iter().zip(used).filter(|(_, used)| **used) {
            for (sum, more) in sum.iter_mut().zip(numbers(submission)) {
                *sum += more;
            }
        }
        let locks = submissions.iter().filter(|s| !s.intake.wants.is_empty());
        let changed = changed.iter().filter(|changed| **changed);
        let [reports, hits, misses, saved, compiled] = sum;
        let day = self.now / 86_400;
        const SUM: &str = "INSERT INTO days (day, locks, changed, reports, hits, misses, \
            milliseconds_saved, milliseconds_compiled) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
            ON CONFLICT (day) DO UPDATE SET \
            locks = days.locks + excluded.locks, changed = days.changed + excluded.changed, \
            reports = days.reports + excluded.reports, hits = days.hits + excluded.hits, \
            misses = days.misses + excluded.misses, \
            milliseconds_saved = days.milliseconds_saved + excluded.milliseconds_saved, \
            milliseconds_compiled = days.milliseconds_compiled + excluded.milliseconds_compiled";
        let mut query = sqlx::query(SUM).bind(day);
        for number in [locks.count() as i64, changed.count() as i64] {
            query = query.bind(number);
        }
        for number in [reports, hits, misses, saved, compiled] {
            query = query.bind(number);
        }
        query.execute(&mut **self.transaction).await.doing(DOING)?;
        Ok(())
    }
}

/// What a report adds: itself, hits, misses, and two times in milliseconds.
fn numbers(submission: &Submission) -> [i64; 5] {
    let Some(usage) = &submission.intake.usage else {
        return [0; 5];
    };
    let units = |units: u64| i64::try_from(units).unwrap_or(i64::MAX);
    let milliseconds = |seconds: f64| (seconds * 1_000.0).round() as i64;
    [
        1,
        units(usage.hits),
        units(usage.misses),
        milliseconds(usage.seconds_saved),
        milliseconds(usage.seconds_compiled),
    ]
}
