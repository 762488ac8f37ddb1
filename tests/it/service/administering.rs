//! What an administrator does with builds, and that it is known who did it; and
//! what is cleaned up without anybody.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::building::{Wanted, Worker, beds, until, want, wanted, worker};
use super::{Bed, on_both};
use crate::support::{Response, Serving};

/// Somebody with a token.
struct Asking<'a> {
    server: &'a Serving,
    token: String,
}

impl Asking<'_> {
    fn header(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    fn post(&self, path: &str) -> Response {
        self.server.post(path, &[&self.header()], b"")
    }

    fn actions(&self) -> Vec<Value> {
        let told = self.server.get("/v1/actions", &[&self.header()]);
        assert_eq!(told.status, 200, "{told:?}");
        told.json()["actions"].as_array().unwrap().clone()
    }
}

fn asking<'a>(bed: &Bed, server: &'a Serving, name: &str, scope: &str) -> Asking<'a> {
    Asking {
        server,
        token: bed.token(name, scope),
    }
}

#[test]
fn only_administrators_administer() {
    on_both(|bed| {
        let server = bed.start(&[]);
        let other = asking(&bed, &server, "box", "work-trusted");
        let admin = asking(&bed, &server, "boss", "admin");
        for path in [
            "/v1/builds/1/retry",
            "/v1/builds/1/cancel",
            "/v1/toolchains",
        ] {
            assert_eq!(server.post(path, &[], b"").status, 401, "{path}");
            assert_eq!(other.post(path).status, 403, "{path}");
        }
        assert_eq!(server.get("/v1/actions", &[]).status, 401);
        assert_eq!(server.get("/v1/actions", &[&other.header()]).status, 403);
        assert_eq!(admin.post("/v1/builds/1/retry").status, 404);
        assert_eq!(admin.post("/v1/builds/x/cancel").status, 404);
        // What was not done is not in the list; what was done by others is.
        let did: Vec<Value> = admin.actions();
        assert_eq!(did[0]["action"], "add token");
        assert_eq!(did[0]["actor"], "command line");
        assert_eq!(did.len(), 2, "{did:?}");
    });
}

#[test]
fn a_build_is_cancelled_and_tried_again_and_it_is_known_by_whom() {
    for bed in beds() {
        let server = bed.builds(&["--retry", "1h"]);
        let wanted: &Wanted = wanted(&bed.env);
        want(&server, wanted, "192.0.2.1");
        want(&server, wanted, "192.0.2.2");
        let admin = asking(&bed, &server, "boss", "admin");
        let trusted = worker(&bed, &server, "box", "work-trusted");
        let lease = trusted.lease();
        let id = until(&server, wanted, "leased")["id"].clone();
        let [retry, cancel] = ["retry", "cancel"].map(|what| format!("/v1/builds/{id}/{what}"));
        let busy = admin.post(&retry);
        assert_eq!(busy.status, 409, "a worker has it: {busy:?}");
        let done = admin.post(&cancel);
        assert_eq!(done.status, 204, "{done:?}");
        let rests = until(&server, wanted, "resting");
        assert!(
            rests["reason"].as_str().unwrap().contains("cancelled"),
            "{rests}"
        );
        // The worker is told, nothing of it is taken, and nobody gets it.
        assert_eq!(trusted.alive(&lease, ""), 409);
        assert_eq!(trusted.send(&lease, &wanted.export).status, 409);
        assert_eq!(trusted.ask().status, 204);
        assert_eq!(admin.post(&retry).status, 204);
        // It fails, and would wait for an hour.
        assert_eq!(trusted.failed(&trusted.lease(), true), 204);
        assert_eq!(trusted.ask().status, 204);
        assert_eq!(admin.post(&retry).status, 204);
        let lease = trusted.lease();
        assert_eq!(trusted.send(&lease, &wanted.export).status, 200);
        until(&server, wanted, "built");
        for path in [&retry, &cancel] {
            let late = admin.post(path);
            assert_eq!(late.status, 409, "{late:?}");
            assert!(late.text().contains("`built`"), "{late:?}");
        }
        let told = server.get(&format!("/v1/builds/{id}"), &[]).json();
        let tries = told["tries"].as_array().unwrap().iter();
        let mut outcomes: Vec<&str> = tries.map(|t| t["outcome"].as_str().unwrap()).collect();
        outcomes.sort_unstable();
        assert_eq!(outcomes, ["built", "cancelled", "failed"]);
        let did = admin.actions();
        let mut did: Vec<&Value> = did.iter().filter(|a| a["actor"] == "token boss").collect();
        did.reverse();
        let what: Vec<&str> = did.iter().map(|a| a["action"].as_str().unwrap()).collect();
        assert_eq!(what, ["cancel build", "retry build", "retry build"]);
        for action in did {
            assert_eq!(action["subject"], json!(id.to_string()));
            assert!(action["at"].as_i64().unwrap() > 1_700_000_000, "{action}");
        }
    }
}

/// A number that the database has.
fn number(bed: &Bed, select: &str) -> i64 {
    match &bed.postgres {
        Some(server) => server.query(select).trim().parse().unwrap(),
        None => on_file(bed, async |pool| {
            let query = sqlx::query_scalar(sqlx::AssertSqlSafe(select.to_owned()));
            query.fetch_one(&pool).await.unwrap()
        }),
    }
}

/// Changes the database behind the service's back.
pub(super) fn change(bed: &Bed, statement: &str) {
    match &bed.postgres {
        Some(server) => drop(server.query(statement)),
        None => on_file(bed, async |pool| {
            let query = sqlx::query(sqlx::AssertSqlSafe(statement.to_owned()));
            let _ = query.execute(&pool).await.unwrap();
        }),
    }
}

/// Asks the file of SQLite.
fn on_file<T>(bed: &Bed, ask: impl AsyncFnOnce(sqlx::SqlitePool) -> T) -> T {
    let file = bed.project.path("service/service.sqlite");
    let url = format!("sqlite://{}", file.display());
    let runtime = quickbuild::service::runtime().unwrap();
    runtime.block_on(async {
        let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
        let told = ask(pool.clone()).await;
        pool.close().await;
        told
    })
}

fn boxed<'a>(server: &'a Serving, token: &str) -> Worker<'a> {
    Worker {
        server,
        name: "box",
        token: token.to_owned(),
    }
}

#[test]
fn tasks_that_were_done_are_forgotten_after_a_day() {
    for bed in beds() {
        let server = bed.builds(&["--retry", "0s"]);
        let wanted = wanted(&bed.env);
        want(&server, wanted, "192.0.2.1");
        want(&server, wanted, "192.0.2.2");
        let token = bed.token("box", "work-trusted");
        for _ in 0..3 {
            let trusted = boxed(&server, &token);
            assert_eq!(trusted.failed(&trusted.lease(), false), 204);
        }
        until(&server, wanted, "queued");
        let (jobs, workers, old) = match &bed.postgres {
            Some(_) => ("apalis.jobs", "apalis.workers", "interval '25 hours'"),
            None => ("Jobs", "Workers", "90000"),
        };
        let done = || {
            let select = format!("SELECT COUNT(*) FROM {jobs} WHERE status = 'Done'");
            number(&bed, &select)
        };
        let leases = || number(&bed, &format!("SELECT COUNT(*) FROM {workers}"));
        drop(server);
        // It is cleaned up when a server starts.
        drop(bed.builds(&["--retry", "0s"]));
        assert_eq!((done(), leases()), (3, 3), "what is new stays");
        let two = format!("SELECT id FROM {jobs} WHERE status = 'Done' ORDER BY id LIMIT 2");
        let age = format!("UPDATE {jobs} SET done_at = done_at - {old} WHERE id IN ({two})");
        change(&bed, &age);
        change(
            &bed,
            &format!("UPDATE {workers} SET last_seen = last_seen - {old}"),
        );
        let server = bed.builds(&["--retry", "0s"]);
        let begin = Instant::now();
        while (done(), leases()) != (1, 1) {
            assert!(begin.elapsed() < Duration::from_secs(60), "{}", done());
            std::thread::sleep(Duration::from_millis(100));
        }
        // And it goes on.
        let trusted = boxed(&server, &token);
        let sent = trusted.send(&trusted.lease(), &wanted.export);
        assert_eq!(sent.status, 200, "{sent:?}");
        until(&server, wanted, "built");
    }
}

/// What was built before heirs were known was wanted when it was queued.
#[test]
fn tables_of_before_heirs_are_brought_up_to_date() {
    on_both(|bed| {
        let _ = bed.token("boss", "admin");
        for statement in [
            "DROP TABLE lines",
            "DROP TABLE heirs",
            "DROP TABLE toolchains",
            "ALTER TABLE builds DROP COLUMN own",
            "ALTER TABLE builds DROP COLUMN wanted",
            "ALTER TABLE builds DROP COLUMN disputed",
            "ALTER TABLE builds DROP COLUMN standing",
            "ALTER TABLE builds DROP COLUMN behind",
            "ALTER TABLE tries DROP COLUMN making",
            "DROP TABLE plans",
            "DROP INDEX builds_by_name",
            "INSERT INTO builds (id, want, recipe, name, version, builder, state, reason, root, \
             round, pushed, after, priority, lease, task, since, ended) \
             VALUES (1, 1, '', 'a', '1.0.0', 'b', 'built', '', 1, 1, 1, 0, 0, '', '', 77, 78)",
            "UPDATE quickbuild SET version = 2",
        ] {
            change(&bed, statement);
        }
        let migrated = bed.run(&["service", "migrate"]).success();
        assert!(migrated.stdout.contains("from version 2 to"), "{migrated}");
        let select = "SELECT wanted FROM builds WHERE own = 1 AND disputed = 0";
        assert_eq!(number(&bed, select), 77);
        drop(bed.start(&[]));
    });
}
