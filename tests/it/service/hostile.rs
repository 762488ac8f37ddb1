//! What strangers send.

use std::io::{Read as _, Write as _};

use super::{Bed, hashes, lock, on_both, report, voices};
use crate::support::{Serving, head, note};

#[test]
fn whatever_is_sent_the_service_goes_on() {
    on_both(|bed| {
        let server = bed.start(&["--max-report", "1MiB", "--patience", "1s"]);
        let registry = super::REGISTRY;
        let package = |name: &str, version: &str| {
            format!(
                "version = 4\n[[package]]\nname = {name:?}\nversion = {version:?}\nsource = \"{registry}\"\n"
            )
        };
        let many: String = (0..5_001)
            .map(|n| format!("[[package]]\nname=\"a{n}\"\nversion=\"1.0.0\"\n"))
            .collect();
        let chain: String = (0..5_000)
            .map(|n| {
                let next = if n < 4_999 { format!("\"a{}\"", n + 1) } else { String::new() };
                format!("[[package]]\nname=\"a{n}\"\nversion=\"1.0.0\"\nsource=\"{registry}\"\ndependencies=[{next}]\n")
            })
            .collect();
        let nested = format!("a = {}{}", "[".repeat(50_000), "]".repeat(50_000));
        let cases: Vec<(&str, Vec<u8>, u16)> = vec![
            ("", Vec::new(), 200), // a lock file without packages
            ("", b"\xff\xfe\x00junk".to_vec(), 400),
            ("", b"<html><script>alert(1)</script>".to_vec(), 400),
            ("", b"version = 99\n".to_vec(), 400),
            ("", nested.into_bytes(), 400),
            (
                "",
                package("'; DROP TABLE wants; --", "1.0.0").into_bytes(),
                422,
            ),
            (
                "",
                package("<img src=x onerror=alert(1)>", "1.0.0").into_bytes(),
                422,
            ),
            ("", package("a", "1.0.0' OR '1'='1").into_bytes(), 422),
            ("", package("a\u{0}b", "1.0.0").into_bytes(), 400),
            ("", package(&"a".repeat(65), "1.0.0").into_bytes(), 422),
            ("", many.into_bytes(), 413),
            ("", vec![b'#'; (1 << 20) + 1], 413),
            ("", chain.into_bytes(), 200),
            ("application/json", b"{}".to_vec(), 400),
            ("application/json", b"[[[[[".to_vec(), 400),
            ("application/json", "[".repeat(100_000).into_bytes(), 400),
            (
                "application/json",
                br#"{"format":2,"lock":""}"#.to_vec(),
                422,
            ),
            ("application/json", br#"{"format":1}"#.to_vec(), 422),
            (
                "application/json",
                br#"{"format":1,"lock":"","project":"../../etc"}"#.to_vec(),
                422,
            ),
            (
                "application/json",
                br#"{"format":1,"lock":"","builder":"<b>"}"#.to_vec(),
                422,
            ),
            (
                "application/json",
                br#"{"format":1,"recipes":["rm -rf"]}"#.to_vec(),
                422,
            ),
            (
                "application/json",
                br#"{"format":1,"lock":"","surprise":1}"#.to_vec(),
                400,
            ),
        ];
        let faults = cases.len();
        for (kind, body, status) in cases {
            let kind = format!("Content-Type: {kind}");
            let answer = server.post("/v1/lockfiles", &[&kind], &body);
            let begin = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            assert_eq!(answer.status, status, "{begin}: {}", answer.text());
            if status != 200 {
                assert_eq!(
                    answer.header("content-type"),
                    Some("application/problem+json")
                );
                assert_eq!(answer.json()["status"], status);
            }
        }
        let bomb = zstd::bulk::compress(&vec![b'#'; 64 << 20], 3).unwrap();
        for (body, status) in [(bomb, 413), (b"version = 4".to_vec(), 400)] {
            let answer = server.post("/v1/lockfiles", &["Content-Encoding: zstd"], &body);
            assert_eq!(answer.status, status, "{}", answer.text());
        }
        for path in [
            "/v1/wants/'%20OR%201=1",
            "/v1/wants/%00",
            "/v1/wants/..%2f..%2fetc%2fpasswd",
            "/../../etc/passwd",
        ] {
            assert_eq!(server.get(path, &[]).status, 404, "{path}");
        }
        let found = server.get("/v1/wants?package=%27;DROP%20TABLE%20wants", &[]);
        assert_eq!(found.json()["wants"].as_array().unwrap().len(), 0);
        assert_eq!(server.get("/v1/wants?limit=-1", &[]).status, 400);
        assert_eq!(server.get("/v1/lockfiles", &[]).status, 405);

        // A body that does not come, one that breaks off, one that lies.
        let mut slow = server.connect();
        slow.write_all(head("POST", "/v1/lockfiles", &[], 1_000).as_bytes())
            .unwrap();
        let mut answer = String::new();
        slow.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        let mut broken = server.connect();
        broken
            .write_all(head("POST", "/v1/lockfiles", &[], 1_000).as_bytes())
            .unwrap();
        broken.write_all(b"version = 4\n").unwrap();
        drop(broken);
        let chunked = ["Transfer-Encoding: chunked"];
        let endless = server.post(
            "/v1/lockfiles",
            &chunked,
            b"5\r\naaaaa\r\nfffffffffffffffff\r\n",
        );
        assert_eq!(endless.status, 400, "{endless:?}");

        // Nothing of it was counted, and all goes on.
        let wanted = lock(&[("fine", "1.0.0", "")]);
        assert_eq!(report(&server, "192.0.2.1", "p", &wanted).status, 200);
        assert_eq!(voices(&server, &hashes(&wanted)["fine@1.0.0"]), 1);
        let all = server.get("/v1/totals", &[]).json()["wants"]
            .as_u64()
            .unwrap();
        assert_eq!(all, 5_000 + 1, "the chain, and the last one");
        note(&format!(
            "service: {} faults were injected, nothing was lost",
            faults + 10
        ));
    });
}

#[test]
fn what_is_private_is_left_out() {
    on_both(|bed| {
        let server = bed.start(&[]);
        let wanted = format!(
            "version = 4\n\
             [[package]]\nname = \"mine\"\nversion = \"0.1.0\"\ndependencies = [\"a\", \"confidential\"]\n\
             [[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"{0}\"\n\
             [[package]]\nname = \"confidential\"\nversion = \"1.0.0\"\nsource = \"registry+https://hidden.example.org/index\"\n\
             [[package]]\nname = \"forked\"\nversion = \"1.0.0\"\nsource = \"git+https://hidden.example.org/forked#0123\"\n\
             [[package]]\nname = \"b\"\nversion = \"1.0.0\"\nsource = \"{0}\"\ndependencies = [\"forked\"]\n",
            super::REGISTRY
        );
        let answer = report(&server, "192.0.2.1", "p", &wanted).json();
        assert_eq!(
            (&answer["wants"], &answer["left-out"]),
            (&1.into(), &4.into())
        );
        for name in ["mine", "confidential", "forked", "b"] {
            let found = server.get(&format!("/v1/wants?package={name}"), &[]).json();
            assert_eq!(found["wants"].as_array().unwrap().len(), 0, "{name}");
        }
        drop(server);
        if bed.postgres.is_none() {
            let all = super::operating::all_bytes(&bed.project.path("service"));
            for word in ["hidden.example.org", "confidential", "forked", "192.0.2.1"] {
                let found = all
                    .windows(word.len())
                    .any(|bytes| bytes == word.as_bytes());
                assert!(!found, "`{word}` is in the database");
            }
        }
    });
}

#[test]
fn whoever_asks_too_often_waits() {
    let bed = Bed::sqlite();
    let proxy = ["--proxy", "127.0.0.1", "--rate", "2"];
    let server = Serving::service(&bed.env, &bed.project, &proxy);
    let from = |from: &str| {
        let header = format!("X-Forwarded-For: {from}");
        server.get("/v1/totals", &[&header])
    };
    let answers: Vec<u16> = (0..8).map(|_| from("192.0.2.1").status).collect();
    assert!(answers.contains(&429), "{answers:?}");
    assert_eq!(answers[..2], [200, 200]);
    assert_eq!(from("192.0.2.2").status, 200);
    let limited = (0..8)
        .map(|_| from("192.0.2.1"))
        .find(|answer| answer.status == 429);
    assert!(limited.unwrap().header("retry-after").is_some());
    assert_eq!(server.get("/healthz", &[]).status, 200);
}
