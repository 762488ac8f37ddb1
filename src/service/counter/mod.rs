//! Counts who wants what.
//!
//! ```text
//! requests ─► queue ─► one batch: all that waits ─► one transaction ─► answers
//! ```
//!
//! While one transaction is written, the next batch gathers, and it begins ten
//! milliseconds after the last one at the earliest; so a server with much to do
//! writes few large transactions, and one with little to do writes at once.
//!
//! Invariants:
//! * Nobody is told that a report is counted before it is on the disk.
//! * The count of a want is the number of voices that have it in the last report
//!   of one of their projects, whatever else happens at the same time, and
//!   however often a report comes again.
//! * One voice adds at most one to a count, and holds at most so many projects.

mod batch;
mod projects;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Any, Transaction};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::database::{Database, DatabaseError, Doing as _, Result};
use super::intake::{Intake, Want};
use crate::fs;
use batch::Batch;
use projects::Change;

/// Reports that wait to be counted; whoever comes then is told to come again.
const WAITING: usize = 512;
/// Reports of one transaction.
const BATCH: usize = 256;
/// How long after one transaction the next one begins at the earliest. Whatever
/// is popular is changed once in each, so fewer of them are less work.
const PACE: Duration = Duration::from_millis(10);
/// Ids that are remembered, some 100 bytes each.
const REMEMBERED: usize = 500_000;
/// Days that a report is remembered, so that it does not count twice.
const KEPT: i64 = 35;
/// Projects that are forgotten in one transaction.
const EXPIRED: usize = 256;
/// How often a transaction is tried while the database does not answer.
const TRIES: u32 = 3;
/// What is being done, for errors.
const DOING: &str = "count what is wanted";

/// A report, and whose it is.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Who is counted.
    pub voice: String,
    /// What was reported.
    pub intake: Intake,
}

/// What came of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Whether it says anything else than the last one of this project.
    pub is_new: bool,
    /// Whether its usage was counted: it was not before, and the voice has not
    /// said too much today.
    pub usage: bool,
}

/// Why a report is not counted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CountError {
    /// Too many wait.
    #[error("too many reports wait to be counted")]
    Busy,
    /// The database.
    #[error("reports cannot be counted")]
    Database(#[source] Arc<DatabaseError>),
}

/// Makes wants known of which nobody has heard yet, without counting anybody; gives
/// the ids of them all by their hashes.
pub(super) async fn learn(
    database: &Database,
    transaction: &mut Transaction<'static, Any>,
    wants: &[Want],
) -> Result<HashMap<String, i64>> {
    let known = HashMap::new();
    let mut batch = Batch {
        database,
        transaction,
        known: &known,
        new: HashMap::new(),
        kinds: BTreeMap::new(),
        now: fs::now().seconds(),
    };
    batch.learn(&[wants]).await?;
    batch.count(&BTreeMap::new()).await?;
    Ok(batch.new)
}

type Answer = std::result::Result<Counted, CountError>;
type Pending = (Submission, oneshot::Sender<Answer>);

/// The way to the one who counts.
#[derive(Debug, Clone)]
pub struct Counter {
    queue: mpsc::Sender<Pending>,
}

impl Counter {
    /// Starts to count; it ends when all clones are gone and all is written.
    pub fn start(database: Database) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(WAITING);
        let writer = Writer {
            database,
            known: HashMap::new(),
            cleaned: 0,
        };
        (Self { queue }, tokio::spawn(writer.run(waiting)))
    }

    /// Counts a report; when this is answered, it is on the disk.
    pub async fn count(&self, submission: Submission) -> Answer {
        let (answer, answered) = oneshot::channel();
        let sent = self.queue.try_send((submission, answer));
        sent.map_err(|_full| CountError::Busy)?;
        answered.await.map_err(|_gone| CountError::Busy)?
    }
}

/// The one who counts.
struct Writer {
    database: Database,
    /// Ids of wants, which never change.
    known: HashMap<String, i64>,
    /// The day on which old reports were last forgotten.
    cleaned: i64,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Pending>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut next = Instant::now();
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            sleep_until(next).await;
            next = Instant::now() + PACE;
            while batch.len() < BATCH
                && let Ok(more) = waiting.try_recv()
            {
                batch.push(more);
            }
            let (submissions, answers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
            let counted = self.count(&submissions).await;
            for (answer, counted) in answers.into_iter().zip(counted) {
                let _ = answer.send(counted); // nobody may wait any more
            }
        }
    }

    /// Counts reports together, and one by one if something is wrong with one.
    async fn count(&mut self, submissions: &[Submission]) -> Vec<Answer> {
        match self.persist(submissions).await {
            Ok(counted) => counted.into_iter().map(Ok).collect(),
            Err(error) if error.is_passing() || submissions.len() == 1 => {
                let error = Arc::new(error);
                let answer = |_: &Submission| Err(CountError::Database(Arc::clone(&error)));
                submissions.iter().map(answer).collect()
            }
            Err(_one_of_them) => {
                let mut answers = Vec::new();
                for submission in submissions {
                    let counted = self.persist(std::slice::from_ref(submission)).await;
                    let one = counted.map(|counted| counted[0]);
                    answers.push(one.map_err(|error| CountError::Database(Arc::new(error))));
                }
                answers
            }
        }
    }

    /// Counts in one transaction, and again if the database was away.
    async fn persist(&mut self, submissions: &[Submission]) -> Result<Vec<Counted>> {
        let mut pause = Duration::from_millis(20);
        for _ in 1..TRIES {
            match self.attempt(submissions).await {
                Err(error) if error.is_passing() => sleep(pause).await,
                done => return done,
            }
            pause *= 4;
        }
        self.attempt(submissions).await
    }

    async fn attempt(&mut self, submissions: &[Submission]) -> Result<Vec<Counted>> {
        let now = fs::now().seconds();
        let mut transaction = self.database.begin().await?;
        let mut batch = Batch {
            database: &self.database,
            transaction: &mut transaction,
            known: &self.known,
            new: HashMap::new(),
            kinds: BTreeMap::new(),
            now,
        };
        let voices = batch.voices(submissions).await?;
        let today = now / 86_400;
        let expired = if self.cleaned == today {
            Vec::new()
        } else {
            batch.expired().await?
        };
        let heard = voices
            .values()
            .chain(expired.iter().map(|(voice, _)| voice));
        let mut projects = batch.projects(heard.copied().collect()).await?;
        for (voice, name) in &expired {
            projects.take(*voice, name);
        }
        let changed = projects.changed(&voices, submissions, now);
        let wanted = submissions.iter().zip(&changed);
        let wanted = wanted.filter(|(_, change)| **change != Change::None);
        let wanted: Vec<&Submission> = wanted.map(|(submission, _)| submission).collect();
        let reports: Vec<&[Want]> = wanted.iter().map(|s| &s.intake.wants[..]).collect();
        batch.learn(&reports).await?;
        for submission in wanted {
            let ids = batch.ids(&submission.intake.wants);
            projects.put(voices[&submission.voice], &submission.intake, ids, now);
        }
        let changed: Vec<bool> = changed.iter().map(|c| *c == Change::Content).collect();
        batch.write(&projects).await?;
        let used = batch.usage(submissions, &voices).await?;
        batch.day(submissions, &changed, &used).await?;
        if self.cleaned != today {
            let old = sqlx::query("DELETE FROM reports WHERE day < $1").bind(today - KEPT);
            old.execute(&mut **batch.transaction).await.doing(DOING)?;
        }
        let new = batch.new;
        transaction.commit().await.doing(DOING)?;
        // What was rolled back was never there.
        if self.known.len() + new.len() > REMEMBERED {
            self.known.clear();
        }
        self.known.extend(new);
        if expired.len() < EXPIRED {
            self.cleaned = today;
        }
        let counted = changed.into_iter().zip(used);
        Ok(counted
            .map(|(is_new, usage)| Counted { is_new, usage })
            .collect())
    }
}
