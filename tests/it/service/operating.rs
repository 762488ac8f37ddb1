//! Migrations, tokens, logs, metrics, and the end.

use std::path::Path;

use super::{Bed, lock, on_both, report};
use crate::support::walk;

/// All bytes of all files of a folder.
pub(super) fn all_bytes(folder: &Path) -> Vec<u8> {
    let files = walk(folder).into_iter();
    files
        .flat_map(|file| std::fs::read(file).unwrap_or_default())
        .collect()
}

#[test]
fn tables_are_made_when_that_is_asked_for() {
    let Some(bed) = Bed::empty_postgres() else {
        return;
    };
    let refused = bed.run(&["service", "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(
        refused.stderr.contains("quickbuild service migrate"),
        "{refused}"
    );
    let made = bed.run(&["service", "migrate"]).success();
    assert!(made.stdout.contains("the tables are made"), "{made}");
    let again = bed.run(&["service", "migrate"]).success();
    assert!(again.stdout.contains("already"), "{again}");
    let postgres = bed.postgres.as_ref().unwrap();
    postgres.query("UPDATE quickbuild SET version = version + 1");
    let newer = bed.run(&["service", "--listen", "127.0.0.1:0"]);
    assert_eq!(newer.code, Some(3), "{newer}");
    assert!(newer.stderr.contains("this program knows"), "{newer}");
    // The password of a URL is never shown.
    let secret = bed
        .env
        .with("QUICKBUILD_SERVICE_DATABASE", "mysql://u:s3cret@db/x");
    let other = secret.quickbuild(&bed.project, &["service", "migrate"]);
    assert!(
        other.code == Some(3) && !other.stderr.contains("s3cret"),
        "{other}"
    );
}

#[test]
fn tokens_are_for_something_and_end() {
    on_both(|bed| {
        let [reporter, worker] = [("ci", "report"), ("w", "work")].map(|(n, s)| bed.token(n, s));
        let short = bed.run(&[
            "service",
            "token",
            "add",
            "old",
            "--scope",
            "report",
            "--expires",
            "0s",
        ]);
        let old = short.success().stdout.trim().to_owned();
        let server = bed.start(&[]);
        let wanted = lock(&[("a", "1.0.0", "")]);
        let with = |token: &str| {
            let bearer = format!("Authorization: Bearer {token}");
            server
                .post("/v1/lockfiles", &[&bearer], wanted.as_bytes())
                .status
        };
        assert_eq!(with(&reporter), 200);
        assert_eq!(with(&worker), 403);
        assert_eq!(with(&old), 401);
        assert_eq!(with(&format!("{reporter}x")), 401);
        assert_eq!(with("qbs_"), 401);
        let listed = bed.run(&["service", "token", "list"]).success();
        assert!(listed.stdout.contains("ci\treport") && !listed.stdout.contains(&reporter));
        let _ = bed.run(&["service", "token", "revoke", "ci"]).success();
        assert_eq!(with(&reporter), 401);
        assert_eq!(bed.run(&["service", "token", "revoke", "ci"]).code, Some(3));
        match &bed.postgres {
            Some(postgres) => {
                assert!(!postgres.query("SELECT * FROM tokens").contains("qbs_"));
                assert!(
                    postgres
                        .query("SELECT action FROM actions")
                        .contains("revoke token")
                );
            }
            None => {
                let all = all_bytes(&bed.project.path("service"));
                let found = all
                    .windows(worker.len())
                    .any(|bytes| bytes == worker.as_bytes());
                assert!(!found, "a token is in the database");
            }
        }
    });
}

#[test]
fn requests_have_ids_lines_and_metrics_and_the_end_waits_for_them() {
    on_both(|bed| {
        let mut server = bed.start(&[]);
        report(&server, "192.0.2.1", "p", &lock(&[("a", "1.0.0", "")]));
        let given = server.get("/v1/totals", &["X-Request-Id: 0123-abcd-given"]);
        assert_eq!(given.header("x-request-id"), Some("0123-abcd-given"));
        let own = server.get("/v1/totals", &["X-Request-Id: <script>"]);
        let id = own.header("x-request-id").unwrap().to_owned();
        assert!(id.len() == 16 && id != "<script>", "{id}");
        let lines = server.logged("the request", |lines| lines.iter().any(|l| l.contains(&id)));
        for line in lines {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert!(
                line["time"].is_string() && line["status"].is_number(),
                "{line}"
            );
        }
        let metrics = server.get("/metrics", &[]).text();
        for line in [
            "quickbuild_service_requests_total{route=\"/v1/lockfiles\",status=\"200\"} 1",
            "quickbuild_service_events_total{event=\"counted\"} 1",
            "quickbuild_service_wants 1",
            "quickbuild_service_voices 1",
        ] {
            assert!(
                metrics.lines().any(|found| found == line),
                "{line}\n{metrics}"
            );
        }
        // A request that is under way is answered.
        use std::io::{Read as _, Write as _};
        let wanted = lock(&[("b", "1.0.0", "")]);
        let mut late = server.connect();
        let head = crate::support::head("POST", "/v1/lockfiles", &[], wanted.len());
        late.write_all(head.as_bytes()).unwrap();
        let (first, rest) = wanted.split_at(10);
        late.write_all(first.as_bytes()).unwrap();
        let _keeping = server.keeping();
        server.signal("TERM");
        server.says("stopping");
        late.write_all(rest.as_bytes()).unwrap();
        let mut answer = String::new();
        late.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(server.ended().success());
        let server = bed.start(&[]);
        let found = server.get("/v1/wants?package=b", &[]).json();
        assert_eq!(found["wants"][0]["voices"], 1);
    });
}
