//! `quickbuild service`, each test on SQLite and on PostgreSQL.

mod administering;
mod api;
mod building;
mod counting;
mod dashboard;
mod deployment;
mod disputes;
mod following;
mod hostile;
mod keeping;
mod keeping_builds;
mod many;
mod operating;
mod overlapping;
mod planning;
mod prebuilt;
mod reporting;

use std::collections::BTreeMap;

use quickbuild::service::intake::Intake;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use crate::support::postgres::Postgres;
use crate::support::{Outcome, Project, Response, Serving, TestEnv};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A service's surroundings: a database, and commands that use it.
struct Bed {
    env: TestEnv,
    project: Project,
    postgres: Option<Postgres>,
}

impl Bed {
    fn sqlite() -> Self {
        let env = TestEnv::new();
        Self {
            project: env.project("tiny"),
            env,
            postgres: None,
        }
    }

    /// With tables.
    fn postgres() -> Option<Self> {
        let bed = Self::empty_postgres()?;
        let _ = bed.run(&["service", "migrate"]).success();
        Some(bed)
    }

    fn empty_postgres() -> Option<Self> {
        let postgres = Postgres::start()?;
        let env = TestEnv::new().with("QUICKBUILD_SERVICE_DATABASE", postgres.url());
        Some(Self {
            project: env.project("tiny"),
            env,
            postgres: Some(postgres),
        })
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.env.quickbuild(&self.project, arguments)
    }

    /// A server that believes whom we ask for, and lets them ask often.
    fn start(&self, arguments: &[&str]) -> Serving {
        let all = [&["--proxy", "127.0.0.1", "--rate", "0"], arguments].concat();
        Serving::service(&self.env, &self.project, &all)
    }

    /// What a statement answers, each row as texts, beside a service.
    #[track_caller]
    fn sql(&self, statement: &str) -> Vec<Vec<String>> {
        let file = self.project.path("service/service.sqlite");
        let url = match &self.postgres {
            Some(postgres) => postgres.url(),
            None => format!("sqlite://{}", file.display()),
        };
        sqlx::any::install_default_drivers();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let rows = runtime.block_on(async {
            let mut connection = sqlx::AnyConnection::connect(&url).await?;
            let query = sqlx::query(AssertSqlSafe(statement.to_owned()));
            let rows = query.fetch_all(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(rows)
        });
        let rows = rows.unwrap_or_else(|error| panic!("{statement}: {error}"));
        let texts =
            |row: &sqlx::any::AnyRow| (0..row.len()).map(|column| row.get(column)).collect();
        rows.iter().map(texts).collect()
    }

    fn token(&self, name: &str, scope: &str) -> String {
        let made = self.run(&["service", "token", "add", name, "--scope", scope]);
        made.success().stdout.trim().to_owned()
    }
}

/// Does the same on both databases.
fn on_both(test: impl Fn(Bed)) {
    test(Bed::sqlite());
    if let Some(bed) = Bed::postgres() {
        test(bed);
    }
}

/// A lock file: names with versions, and what they need.
fn lock(packages: &[(&str, &str, &str)]) -> String {
    let package = |(name, version, needs): &(&str, &str, &str)| {
        let needs = needs.split_whitespace().map(|n| format!("\"{n}\""));
        let needs: Vec<String> = needs.collect();
        format!(
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{REGISTRY}\"\ndependencies = [{}]\n\n",
            needs.join(", ")
        )
    };
    let packages: Vec<String> = packages.iter().map(package).collect();
    format!("version = 4\n\n{}", packages.concat())
}

/// Reports a lock file for somebody.
#[track_caller]
fn report(server: &Serving, from: &str, project: &str, lock: &str) -> Response {
    let from = format!("X-Forwarded-For: {from}");
    let path = format!("/v1/lockfiles?project={project}");
    server.post(&path, &[&from], lock.as_bytes())
}

/// The hashes of a lock file's trees by name and version.
fn hashes(lock: &str) -> BTreeMap<String, String> {
    let wants = Intake::of_lock(lock.as_bytes(), None)
        .unwrap()
        .wants
        .into_iter();
    wants
        .map(|w| (format!("{}@{}", w.name, w.version), w.hash))
        .collect()
}

/// How many want something; 0 if nobody ever did.
#[track_caller]
fn voices(server: &Serving, hash: &str) -> i64 {
    let found = server.get(&format!("/v1/wants/{hash}"), &[]);
    match found.status {
        404 => 0,
        200 => found.json()["voices"].as_i64().unwrap(),
        _ => panic!("{found:?}"),
    }
}
