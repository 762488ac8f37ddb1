//! Outputs that a worker sends.
//!
//! Of a worker that is believed, all is published that is not there with another
//! content. Of others, an output is published once two of them have made the
//! same; until then only its hash is kept, since whoever confirms it brings the
//! bytes. Where two have made different things, the build rests until somebody
//! else asks for work. Nothing of this needs what one server alone has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use axum::body::Body;
use sqlx::{Any, Transaction};

use super::lease::{Leased, end, free, holds};
use super::verify::{Verified, VerifyError, Wanted};
use super::{Builds, DOING, State, closure, number, recipe_texts, text};
use crate::console::{self, Unseen, chain};
use crate::digest::OutputId;
use crate::fs;
use crate::output::Output;
use crate::publish::{Existing, Local, Publication, PublishError, Published, Scratch, StoreSource};
use crate::recipe::package::PackageRecipe;
use crate::report::work::Verdict;
use crate::serve::uploads::ReceiveError;
use crate::service::database::{Database, DatabaseError, Doing as _, Result, Rows};
use crate::store::signing;

/// Why outputs are not accepted.
#[derive(Debug, thiserror::Error)]
pub(in crate::service) enum AcceptError {
    /// The body.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// They do not verify.
    #[error("the outputs are refused")]
    Verify(#[from] VerifyError),
    /// Nobody can sign.
    #[error("this service has no key, so it publishes nothing")]
    NoKey,
    /// The substituter.
    #[error("the outputs cannot be published")]
    Publish(#[from] PublishError),
    /// The store of what was sent.
    #[error("the outputs cannot be signed")]
    Store(#[from] crate::store::StoreError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The lease was lost meanwhile.
    #[error("the lease counts no more")]
    Lost,
    /// A thread.
    #[error("the outputs cannot be looked at")]
    Task(#[from] tokio::task::JoinError),
}

impl Builds {
    /// Takes the outputs of a lease.
    pub(in crate::service) async fn accept(
        &self,
        leased: &Leased,
        mut body: Body,
    ) -> std::result::Result<Verdict, AcceptError> {
        let received = self.uploads.receive(&mut body, self.rules.upload).await?;
        let wanted = self.wanted(leased).await?;
        let scratch = Scratch::at(self.uploads.scratch()).map_err(VerifyError::File)?;
        let folder = scratch.path().join("store");
        let publishing = self.publishing.clone();
        let verified = tokio::task::spawn_blocking(move || {
            Verified::read(received.path(), &folder, &wanted, &publishing)
        });
        let verified = match verified.await? {
            Ok(verified) => verified,
            Err(error) => {
                if let VerifyError::Refused(why) = &error {
                    self.refuse(leased, why).await?;
                }
                return Err(error.into());
            }
        };
        let judged = self.judge(leased, &verified.outputs).await?;
        let published = self
            .publish(verified, &judged.accepted, scratch.path())
            .await?;
        self.enter(leased, judged, published).await
    }

    /// What was asked for.
    async fn wanted(&self, leased: &Leased) -> Result<Wanted> {
        let mut transaction = self.database.begin().await?;
        let wants = closure(&self.database, &mut transaction, leased.want).await?;
        let texts = recipe_texts(&self.database, &mut transaction, &wants).await?;
        transaction.rollback().await.doing(DOING)?;
        let recipes = texts
            .values()
            .flat_map(|text| PackageRecipe::from_toml(text));
        Ok(Wanted {
            builder: leased.builder.clone(),
            recipes: recipes.collect(),
        })
    }

    /// Decides which outputs are accepted.
    async fn judge(&self, leased: &Leased, outputs: &[Output]) -> Result<Judged> {
        let contents: BTreeMap<String, String> = outputs
            .iter()
            .map(|output| (output.store_name(), output.content_hash().to_string()))
            .collect();
        let there = published(&self.database, &contents).await?;
        let mut judged = Judged {
            all: outputs.to_vec(),
            ..Judged::default()
        };
        if !leased.is_trusted {
            (judged.agreed, judged.disputes) = self.vote(leased, &contents).await?;
            judged.disputes.retain(|name| !there.contains_key(name));
        }
        let mut accepted: BTreeSet<OutputId> = BTreeSet::new();
        for output in outputs {
            let name = output.store_name();
            let is_same = |content: &String| contents.get(&name) == Some(content);
            let is_believed = match there.get(&name) {
                Some(content) if is_same(content) => true,
                Some(_) => {
                    judged.conflicts.push(name.clone());
                    continue;
                }
                None => leased.is_trusted || judged.agreed.contains(&name),
            };
            let is_closed = output.references.iter().all(|id| accepted.contains(id));
            if is_believed && is_closed {
                accepted.insert(output.id);
                judged.accepted.push(name);
            } else {
                judged.waiting += 1;
            }
        }
        Ok(judged)
    }

    /// Notes what a worker has made, and tells of what another one has made the
    /// same, and of what others have only made differently.
    async fn vote(
        &self,
        leased: &Leased,
        contents: &BTreeMap<String, String>,
    ) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
        let mut transaction = self.database.begin().await?;
        let rows: Rows = contents.iter().collect();
        let rows = rows.finish();
        const VOTE: &str = "INSERT INTO votes (output, token, content) \
            SELECT each.value ->> 0, $2, each.value ->> 1 FROM {each} WHERE TRUE \
            ON CONFLICT (output, token) DO UPDATE SET content = excluded.content";
        let vote = sqlx::query(self.database.sql(VOTE)).bind(&rows);
        let vote = vote.bind(&leased.token);
        vote.execute(&mut *transaction).await.doing(DOING)?;
        const OTHERS: &str = "SELECT votes.output, \
            CAST(MAX(CASE WHEN votes.content = (each.value ->> 1) THEN 1 ELSE 0 END) AS BIGINT) \
            FROM {each} JOIN votes ON votes.output = (each.value ->> 0) AND votes.token <> $2 \
            GROUP BY votes.output";
        let others = sqlx::query(self.database.sql(OTHERS)).bind(rows);
        let others = others.bind(&leased.token);
        let others = others.fetch_all(&mut *transaction).await.doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        let (mut agreed, mut disputed) = (BTreeSet::new(), BTreeSet::new());
        for row in &others {
            let set = if number(row, 1)? == 1 {
                &mut agreed
            } else {
                &mut disputed
            };
            set.insert(text(row, 0)?);
        }
        Ok((agreed, disputed))
    }

    /// Signs and publishes.
    async fn publish(
        &self,
        verified: Verified,
        names: &[String],
        scratch: &Path,
    ) -> std::result::Result<Published, AcceptError> {
        if names.is_empty() {
            return Ok(Published::default());
        }
        let (names, publishing) = (names.to_vec(), self.publishing.clone());
        let scratch = scratch.join("archives");
        let work = move || -> std::result::Result<Published, AcceptError> {
            let key = publishing.key.as_ref().ok_or(AcceptError::NoKey)?;
            signing::sign(&verified.store, &names, key)?;
            fs::create_private_dir_all(&scratch).map_err(PublishError::File)?;
            let source = StoreSource {
                store: &verified.store,
                names,
                keys: vec![key.public()],
            };
            let publication = Publication {
                source: &source,
                to: &publishing.to,
                scratch: &scratch,
                local: Local::Leave,
                existing: Existing::Add,
                progress: &Unseen,
            };
            Ok(publication.run()?)
        };
        tokio::task::spawn_blocking(work).await?
    }

    /// Notes what is published, once.
    async fn enter(
        &self,
        leased: &Leased,
        judged: Judged,
        published: Published,
    ) -> std::result::Result<Verdict, AcceptError> {
        let mut transaction = self.database.begin().await?;
        if !holds(&mut transaction, leased).await? {
            return Err(AcceptError::Lost);
        }
        let conflicts: BTreeSet<&String> = judged
            .conflicts
            .iter()
            .chain(&published.conflicts)
            .collect();
        let is_accepted = |output: &&Output| {
            let name = output.store_name();
            judged.accepted.contains(&name) && !conflicts.contains(&name)
        };
        let accepted: Vec<&Output> = judged.all.iter().filter(is_accepted).collect();
        self.note_outputs(&mut transaction, leased, &judged, &accepted)
            .await?;
        let is_built = self.settle(&mut transaction, leased).await?;
        let mut conflicts: Vec<String> = conflicts.into_iter().cloned().collect();
        let conflict = conflicts
            .first()
            .map(|name| format!("`{name}` is published with another content, which stays"));
        let dispute = judged.disputes.first().map(|name| {
            format!("others have made something else of `{name}`; another worker has to settle it")
        });
        let now = fs::now().seconds();
        if is_built {
            let reason = conflict.as_deref().unwrap_or_default();
            end(&mut transaction, &leased.lease, "built", reason, "", now).await?;
            self.prove(&mut transaction, leased.want).await?;
        } else if let Some(reason) = &conflict {
            self.wait(&mut transaction, leased, reason).await?;
        } else if let Some(reason) = &dispute {
            self.dispute(&mut transaction, leased, reason).await?;
        } else {
            let reason = format!("{} outputs need a second opinion", judged.waiting);
            self.wait(&mut transaction, leased, &reason).await?;
        }
        transaction.commit().await.doing(DOING)?;
        let (build, token) = (leased.build, &leased.token);
        for said in conflict.iter().chain(&dispute) {
            console::line(&format!(
                "warning: CONFLICT: build {build}, made by `{token}`: {said}"
            ));
        }
        self.queue.finish(&leased.lease, &leased.task).await?;
        self.push().await?;
        conflicts.extend(judged.disputes);
        Ok(Verdict {
            accepted: accepted.len(),
            waiting: judged.waiting,
            conflicts,
        })
    }

    async fn note_outputs(
        &self,
        transaction: &mut Transaction<'static, Any>,
        leased: &Leased,
        judged: &Judged,
        accepted: &[&Output],
    ) -> Result<()> {
        let now = fs::now().seconds();
        let row = |output: &Output| {
            let name = output.store_name();
            let agreed = i64::from(judged.agreed.contains(&name)) + 1;
            let milliseconds = (output.seconds.clamp(0.0, 1e6) * 1_000.0) as i64;
            let content = output.content_hash().to_string();
            (
                (
                    name,
                    output.recipe.to_string(),
                    output.host_recipe.to_string(),
                ),
                (output.name.clone(), content),
                (output.size(), milliseconds, agreed),
            )
        };
        let rows: Rows = accepted.iter().map(|output| row(output)).collect();
        const ADD: &str = "INSERT INTO outputs (output, build, recipe, host_recipe, name, \
            content, bytes, milliseconds, agreed, since) \
            SELECT each.value -> 0 ->> 0, CAST($2 AS BIGINT), each.value -> 0 ->> 1, \
            each.value -> 0 ->> 2, each.value -> 1 ->> 0, each.value -> 1 ->> 1, \
            CAST(each.value -> 2 ->> 0 AS BIGINT), CAST(each.value -> 2 ->> 1 AS BIGINT), \
            CAST(each.value -> 2 ->> 2 AS BIGINT), CAST($3 AS BIGINT) FROM {each} WHERE TRUE \
            ON CONFLICT (output) DO NOTHING";
        let add = sqlx::query(self.database.sql(ADD)).bind(rows.finish());
        let add = add.bind(leased.build).bind(now);
        add.execute(&mut **transaction).await.doing(DOING)?;
        Ok(())
    }

    /// Ends a build, with those that it covers, if what it is for is there.
    async fn settle(
        &self,
        transaction: &mut Transaction<'static, Any>,
        leased: &Leased,
    ) -> Result<bool> {
        const BUILT: &str = "UPDATE builds SET state = 'built', ended = $2, reason = '', \
            lease = '' WHERE root = $1 AND state IN ('leased', 'covered') AND EXISTS \
            (SELECT 1 FROM outputs WHERE outputs.recipe = builds.recipe \
            UNION ALL SELECT 1 FROM outputs WHERE outputs.host_recipe = builds.recipe)";
        let built = sqlx::query(BUILT)
            .bind(leased.build)
            .bind(fs::now().seconds());
        built.execute(&mut **transaction).await.doing(DOING)?;
        const STATE: &str = "SELECT state FROM builds WHERE id = $1";
        let state = sqlx::query(STATE).bind(leased.build);
        let state = state.fetch_one(&mut **transaction).await.doing(DOING)?;
        let is_built = text(&state, 0)? == State::Built.name();
        if is_built {
            free(transaction, leased.build).await?;
        }
        Ok(is_built)
    }

    /// What a worker has sent is not what it says.
    async fn refuse(&self, leased: &Leased, why: &str) -> Result<()> {
        let failed = crate::report::work::Failed {
            recipe: false,
            reason: format!("what the worker sent is refused: {why}"),
            log: String::new(),
        };
        self.failed(leased, &failed).await
    }
}

/// What is decided.
#[derive(Default)]
struct Judged {
    all: Vec<Output>,
    /// Store names, dependencies first.
    accepted: Vec<String>,
    /// Store names of what two have made.
    agreed: BTreeSet<String>,
    /// Store names of what others have made differently.
    disputes: BTreeSet<String>,
    waiting: usize,
    /// Store names of what is published with another content.
    conflicts: Vec<String>,
}

/// The contents of those outputs that are published.
async fn published(
    database: &Database,
    contents: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    const FIND: &str = "SELECT outputs.output, outputs.content FROM {each} \
        JOIN outputs ON outputs.output = (each.value ->> 0)";
    let asked: Rows = contents.keys().map(|name| [name]).collect();
    let query = sqlx::query(database.sql(FIND)).bind(asked.finish());
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let pairs = rows.iter().map(|row| Ok((text(row, 0)?, text(row, 1)?)));
    pairs.collect()
}

impl AcceptError {
    /// Said where it is not the worker's fault.
    pub(in crate::service) fn said(&self) -> String {
        chain(self)
    }
}
