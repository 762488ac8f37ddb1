//! Who somebody is, and what they may do.
//!
//! A token is 32 random bytes, shown once; the database has its SHA-256, which
//! needs no slower hash, since nobody guesses 256 bits.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::Row as _;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::database::{Database, Doing as _, Result};
use crate::digest::{Canonical, ContentHash};
use crate::fs;
use crate::serve::rate::client;

/// What tokens begin with, so that one that leaked is found.
const PREFIX: &str = "qbs_";

/// Whoever has a command line on the machine of the database.
const OPERATOR: &str = "command line";

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// To report; each project counts for itself.
    Report,
    /// To lease builds, whose outputs count when another worker has made the same.
    Work,
    /// To lease builds, whose outputs are believed.
    WorkTrusted,
    /// To try builds again or cancel them, to name toolchains, and to read what was done.
    Admin,
}

impl Scope {
    const ALL: [Self; 4] = [Self::Report, Self::Work, Self::WorkTrusted, Self::Admin];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Work => "work",
            Self::WorkTrusted => "work-trusted",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not a scope.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no scope; there are `report`, `work`, `work-trusted` and `admin`")]
pub struct NotScope(String);

impl FromStr for Scope {
    type Err = NotScope;

    fn from_str(text: &str) -> std::result::Result<Self, NotScope> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|scope| scope.name() == text);
        found.ok_or_else(|| NotScope(text.to_owned()))
    }
}

/// Whoever showed a token that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The token's name.
    pub name: String,
    /// What it is for.
    pub scopes: Vec<Scope>,
}

impl Holder {
    /// Whether the token is for something.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// A token as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub scopes: String,
    /// Seconds since 1970 when it was made.
    pub since: i64,
    /// Seconds since 1970 after which it counts no more.
    pub until: i64,
}

fn hash(token: &str) -> String {
    ContentHash::of(token.as_bytes()).to_string()
}

/// Makes a token that counts for so many seconds; gives it for the only time.
pub async fn add_token(
    database: &Database,
    name: &str,
    scopes: &[Scope],
    seconds: u64,
) -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let names: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
    let now = fs::now().seconds();
    let until = now.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX));
    let doing = "keep a token";
    let mut transaction = database.begin().await?;
    const ADD: &str =
        "INSERT INTO tokens (name, hash, scopes, since, until) VALUES ($1, $2, $3, $4, $5)";
    let query = sqlx::query(ADD).bind(name).bind(hash(&token));
    let query = query.bind(names.join(" ")).bind(now).bind(until);
    query.execute(&mut *transaction).await.doing(doing)?;
    note(&mut transaction, OPERATOR, "add token", name).await?;
    transaction.commit().await.doing(doing)?;
    Ok(token)
}

/// Makes a token count no more; tells whether there was one.
pub async fn revoke_token(database: &Database, name: &str) -> Result<bool> {
    let doing = "revoke a token";
    let mut transaction = database.begin().await?;
    let query = sqlx::query("DELETE FROM tokens WHERE name = $1").bind(name);
    let done = query.execute(&mut *transaction).await.doing(doing)?;
    note(&mut transaction, OPERATOR, "revoke token", name).await?;
    transaction.commit().await.doing(doing)?;
    Ok(done.rows_affected() > 0)
}

/// Notes who does what, in the transaction that does it.
pub(super) async fn note(
    transaction: &mut sqlx::Transaction<'static, sqlx::Any>,
    actor: &str,
    action: &str,
    subject: &str,
) -> Result<()> {
    const ADD: &str = "INSERT INTO actions (id, at, actor, action, subject) \
        SELECT COALESCE(MAX(id), 0) + 1, $1, $2, $3, $4 FROM actions";
    let query = sqlx::query(ADD).bind(fs::now().seconds()).bind(actor);
    let query = query.bind(action).bind(subject);
    query
        .execute(&mut **transaction)
        .await
        .doing("note an action")?;
    Ok(())
}

/// Something that somebody changed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Action {
    /// Seconds since 1970.
    at: i64,
    /// `command line`, or `token` and its name.
    actor: String,
    /// What they did.
    action: String,
    /// To what.
    subject: String,
}

/// What was changed, the last first.
pub(super) async fn actions(database: &Database, limit: u32) -> Result<Vec<Action>> {
    let doing = "list actions";
    const FIND: &str = "SELECT at, actor, action, subject FROM actions ORDER BY id DESC LIMIT $1";
    let query = sqlx::query(FIND).bind(i64::from(limit));
    let rows = query.fetch_all(database.readers()).await.doing(doing)?;
    let actions = rows.iter().map(|row| {
        Ok(Action {
            at: row.try_get(0).doing(doing)?,
            actor: row.try_get(1).doing(doing)?,
            action: row.try_get(2).doing(doing)?,
            subject: row.try_get(3).doing(doing)?,
        })
    });
    actions.collect()
}

/// All tokens, by name.
pub async fn list_tokens(database: &Database) -> Result<Vec<Listed>> {
    let doing = "list tokens";
    let query = sqlx::query("SELECT name, scopes, since, until FROM tokens ORDER BY name");
    let rows = query.fetch_all(database.readers()).await.doing(doing)?;
    let listed = rows.iter().map(|row| {
        Ok(Listed {
            name: row.try_get(0).doing(doing)?,
            scopes: row.try_get(1).doing(doing)?,
            since: row.try_get(2).doing(doing)?,
            until: row.try_get(3).doing(doing)?,
        })
    });
    listed.collect()
}

/// Whose token it is; none if it does not count.
pub(super) async fn holder(database: &Database, token: &str) -> Result<Option<Holder>> {
    if !token.starts_with(PREFIX) {
        return Ok(None);
    }
    let doing = "look for a token";
    let query = sqlx::query("SELECT name, scopes FROM tokens WHERE hash = $1 AND until > $2");
    let query = query.bind(hash(token)).bind(fs::now().seconds());
    let row = query
        .fetch_optional(database.readers())
        .await
        .doing(doing)?;
    let Some(row) = row else {
        return Ok(None);
    };
    let scopes: String = row.try_get(1).doing(doing)?;
    Ok(Some(Holder {
        name: row.try_get(0).doing(doing)?,
        scopes: scopes.split(' ').flat_map(str::parse).collect(),
    }))
}

/// The key of voices without a token: made once for a database.
pub(super) async fn secret(database: &Database) -> Result<String> {
    let doing = "keep the key of voices";
    let read = async || {
        let query = sqlx::query("SELECT secret FROM quickbuild");
        let row = query.fetch_one(database.readers()).await.doing(doing)?;
        row.try_get::<String, _>(0).doing(doing)
    };
    let secret = read().await?;
    if !secret.is_empty() {
        return Ok(secret);
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    let mut transaction = database.begin().await?;
    let query = sqlx::query("UPDATE quickbuild SET secret = $1 WHERE secret = ''");
    let query = query.bind(URL_SAFE_NO_PAD.encode(bytes));
    query.execute(&mut *transaction).await.doing(doing)?;
    transaction.commit().await.doing(doing)?;
    read().await
}

/// The voice of a project of a token; no name of either has a space.
pub(super) fn token_voice(token: &str, project: &str) -> String {
    format!("token {token} {project}")
}

/// Who is counted: each project of a client with a token; all projects of an
/// address together, which is not kept, only a hash with a key.
pub(super) fn voice(secret: &str, holder: Option<&Holder>, from: IpAddr, project: &str) -> String {
    match holder {
        Some(holder) => token_voice(&holder.name, project),
        None => {
            let mut canonical = Canonical::new("quickbuild-voice-1");
            canonical.text(secret).text(&client(from).to_string());
            format!("address {}", crate::digest::TreeHash::finish(canonical))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_voice_and_a_token_one_for_each_project() {
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let other: IpAddr = "192.0.2.8".parse().unwrap();
        let holder = Holder {
            name: "ci".to_owned(),
            scopes: vec![Scope::Report],
        };
        let voice = |holder, from, project| voice("key", holder, from, project);
        assert_eq!(voice(None, address, "a"), voice(None, address, "b"));
        assert_ne!(voice(None, address, "a"), voice(None, other, "a"));
        assert!(!voice(None, address, "a").contains("192.0.2.7"));
        assert_eq!(
            voice(Some(&holder), address, "a"),
            voice(Some(&holder), other, "a")
        );
        assert_ne!(
            voice(Some(&holder), address, "a"),
            voice(Some(&holder), address, "b")
        );
    }
}
