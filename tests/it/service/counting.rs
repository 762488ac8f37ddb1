//! Counting: exact, whoever asks how often and at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use quickbuild::report::{Report, Usage};

use super::{Bed, hashes, lock, on_both, report, voices};
use crate::support::{Serving, note, skipped};

#[test]
fn a_want_has_as_many_voices_as_there_are_clients() {
    on_both(|bed| {
        let server = bed.start(&[]);
        let both = lock(&[("a", "1.0.0", "b"), ("b", "1.0.0", "")]);
        let only = lock(&[("b", "1.0.0", "")]);
        let [a, b] = ["a@1.0.0", "b@1.0.0"].map(|name| hashes(&both)[name].clone());
        let counts = |server: &Serving| (voices(server, &a), voices(server, &b));

        let first = report(&server, "192.0.2.1", "p", &both);
        assert_eq!(first.status, 200, "{first:?}");
        assert_eq!(first.json()["counted"], true);
        assert_eq!(first.json()["wants"], 2);
        assert_eq!(counts(&server), (1, 1));
        // The same again is no news.
        let again = report(&server, "192.0.2.1", "p", &both);
        assert_eq!(again.json()["counted"], false);
        assert_eq!(counts(&server), (1, 1));
        // Another project of the same client adds nothing to what it wants already.
        report(&server, "192.0.2.1", "q", &only);
        assert_eq!(counts(&server), (1, 1));
        report(&server, "192.0.2.2", "p", &only);
        assert_eq!(counts(&server), (1, 2));
        // What a project wants no more is not counted any more, unless another
        // one of the client wants it.
        report(&server, "192.0.2.1", "p", &only);
        assert_eq!(counts(&server), (0, 2));
        report(&server, "192.0.2.1", "q", &lock(&[("c", "1.0.0", "")]));
        assert_eq!(counts(&server), (0, 2));
        report(&server, "192.0.2.1", "p", &lock(&[("c", "1.0.0", "")]));
        assert_eq!(counts(&server), (0, 1));

        let detail = server.get(&format!("/v1/wants/{a}"), &[]).json();
        assert_eq!(detail["packages"], 2);
        assert_eq!(detail["needs"][0]["name"], "b");
        report(&server, "192.0.2.3", "p", &both);
        let top = server.get("/v1/wants?kind=tree&limit=10", &[]).json();
        assert_eq!(top["wants"][0]["hash"], *b);
        assert_eq!(top["wants"].as_array().unwrap().len(), 1);
        let found = server.get("/v1/wants?package=a", &[]).json();
        assert_eq!(found["wants"][0]["hash"], *a);
    });
}

#[test]
fn nobody_adds_more_than_one() {
    on_both(|bed| {
        let token = bed.token("ci", "report");
        let server = bed.start(&[]);
        let wanted = lock(&[("a", "1.0.0", "")]);
        let a = &hashes(&wanted)["a@1.0.0"];
        // One client with many projects, versions and addresses of one network.
        for number in 0..100 {
            let padded = format!("{wanted}# {number}\n");
            let from = format!("2001:db8::{number:x}");
            assert_eq!(
                report(&server, &from, &format!("p{number}"), &padded).status,
                200
            );
        }
        assert_eq!(voices(&server, a), 1);
        // Of each client, a bounded number of projects is held.
        let other = lock(&[("z", "1.0.0", "")]);
        for number in 0..32 {
            report(&server, "2001:db8::1", &format!("z{number}"), &other);
        }
        assert_eq!(voices(&server, a), 0);
        // Whoever says whom it asks for without being a proxy asks for itself.
        let strict = bed.start(&["--proxy", "192.0.2.99"]);
        report(&strict, "198.51.100.1, 198.51.100.2", "p", &wanted);
        report(&strict, "198.51.100.3, 192.0.2.99", "p", &wanted);
        assert_eq!(voices(&server, a), 2);
        // Each project of a token counts for itself.
        let bearer = format!("Authorization: Bearer {token}");
        for number in 0..5 {
            let path = format!("/v1/lockfiles?project=p{number}");
            let counted = server.post(&path, &[&bearer], wanted.as_bytes());
            assert_eq!(counted.status, 200);
        }
        assert_eq!(voices(&server, a), 7);
    });
}

#[test]
fn usage_counts_once() {
    on_both(|bed| {
        let server = bed.start(&[]);
        let usage = |id: &str, hits| {
            let report = Report {
                format: 1,
                usage: Some(Usage {
                    id: id.to_owned(),
                    hits,
                    misses: 1,
                    seconds_saved: 1.5,
                    seconds_compiled: 0.25,
                }),
                ..Report::default()
            };
            let body = serde_json::to_vec(&report).unwrap();
            server.post("/v1/lockfiles", &["Content-Type: application/json"], &body)
        };
        assert_eq!(usage("one", 10).json()["usage-counted"], true);
        assert_eq!(usage("one", 10).json()["usage-counted"], false);
        assert_eq!(usage("two", 5).json()["usage-counted"], true);
        let today = server.get("/v1/totals", &[]).json()["days"][0].clone();
        assert_eq!(today["hits"], 15);
        assert_eq!(today["misses"], 2);
        assert_eq!(today["milliseconds-saved"], 3_000);
        assert_eq!(today["milliseconds-compiled"], 500);
        // Nobody claims more than a day in one report.
        let mut forged = serde_json::json!({"format": 1, "usage": {
            "id": "x", "hits": 1, "misses": 0, "seconds-saved": 86_401.0, "seconds-compiled": 0.0}});
        let send = |value: &serde_json::Value| {
            let kind = "Content-Type: application/json";
            server
                .post("/v1/lockfiles", &[kind], value.to_string().as_bytes())
                .status
        };
        assert_eq!(send(&forged), 422);
        forged["usage"]["seconds-saved"] = serde_json::json!(-1.0);
        assert_eq!(send(&forged), 422);
        forged["usage"]["seconds-saved"] = serde_json::json!(1.0);
        forged["usage"]["hits"] = serde_json::json!(-1);
        assert_eq!(send(&forged), 400);
        // Nor more than some hundred reports a day.
        let counted =
            (0..600).filter(|n| usage(&format!("u{n}"), 1).json()["usage-counted"] == true);
        assert_eq!(counted.count(), 500 - 2);
    });
}

/// What clients say, each one thing after the other.
struct Client {
    from: String,
    project: String,
    says: Vec<String>,
}

/// Clients that want overlapping things, and change their minds.
fn clients(count: usize, each: usize) -> Vec<Client> {
    let client = |number: usize| {
        let says = (0..each).map(|turn| {
            let wanted = (0..12)
                .filter(|package| !(package * 7 + number * 3 + turn * 5_usize).is_multiple_of(4));
            let names: Vec<String> = wanted.map(|package| format!("p{package}")).collect();
            let packages: Vec<(&str, &str, &str)> = names
                .iter()
                .enumerate()
                .map(|(at, name)| (name.as_str(), "1.0.0", names.get(at + 1).map_or("", |n| n)))
                .collect();
            lock(&packages)
        });
        Client {
            from: format!("198.51.{}.{}", number / 200, number % 200),
            project: "p".to_owned(),
            says: says.collect(),
        }
    };
    (0..count).map(client).collect()
}

/// How many want each tree when everybody has said their last word.
fn expected(clients: &[Client]) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for client in clients {
        let ever: BTreeSet<String> = client
            .says
            .iter()
            .flat_map(|l| hashes(l).into_values())
            .collect();
        for hash in ever {
            counts.entry(hash).or_insert(0);
        }
        for hash in hashes(client.says.last().unwrap()).into_values() {
            *counts.get_mut(&hash).unwrap() += 1;
        }
    }
    counts
}

#[track_caller]
fn assert_counts(server: &Serving, clients: &[Client]) {
    for (hash, count) in expected(clients) {
        assert_eq!(voices(server, &hash), count, "{hash}");
    }
}

#[test]
fn counting_is_exact_whatever_happens_at_the_same_time() {
    on_both(|bed| {
        // Several servers where the database allows that.
        let count = if bed.postgres.is_some() { 3 } else { 1 };
        let servers: Vec<Serving> = (0..count)
            .map(|_| bed.start(&["--no-access-log"]))
            .collect();
        let clients = clients(48, 4);
        std::thread::scope(|scope| {
            for (number, some) in clients.chunks(6).enumerate() {
                let servers = &servers;
                scope.spawn(move || {
                    for turn in 0..4 {
                        for client in some {
                            let server = &servers[(number + turn) % servers.len()];
                            let lock = &client.says[turn];
                            let answer = report(server, &client.from, &client.project, lock);
                            assert_eq!(answer.status, 200, "{answer:?}");
                        }
                    }
                });
            }
        });
        assert_counts(&servers[0], &clients);
    });
}

#[test]
fn what_was_acknowledged_survives_kills() {
    on_both(|bed| {
        let clients = clients(60, 2);
        let acknowledged = AtomicUsize::new(0);
        let mut kills = 0;
        let mut left: Vec<(usize, usize)> =
            (0..2).flat_map(|t| (0..60).map(move |c| (c, t))).collect();
        // Each round ends by a kill, while requests are under way.
        while kills < 4 {
            let mut server = bed.start(&["--no-access-log"]);
            let begin = acknowledged.load(Ordering::SeqCst);
            let wanted = begin + 20;
            let done: Vec<(usize, usize)> = std::thread::scope(|scope| {
                let server_ref = &server;
                let threads: Vec<_> = (0..4)
                    .map(|thread| {
                        let mine: Vec<_> = left
                            .iter()
                            .filter(|(c, _)| c % 4 == thread)
                            .copied()
                            .collect();
                        let (clients, acknowledged) = (&clients, &acknowledged);
                        scope.spawn(move || {
                            let mut done = Vec::new();
                            for (client, turn) in mine {
                                let Client {
                                    from,
                                    project,
                                    says,
                                } = &clients[client];
                                let Some(status) =
                                    try_report(server_ref, from, project, &says[turn])
                                else {
                                    break;
                                };
                                assert_eq!(status, 200);
                                acknowledged.fetch_add(1, Ordering::SeqCst);
                                done.push((client, turn));
                            }
                            done
                        })
                    })
                    .collect();
                let all = left.len() + begin;
                while acknowledged.load(Ordering::SeqCst) < wanted.min(all) {
                    std::thread::yield_now();
                }
                server_ref.signal("KILL");
                threads
                    .into_iter()
                    .flat_map(|thread| thread.join().unwrap())
                    .collect()
            });
            server.kill();
            kills += 1;
            left.retain(|one| !done.contains(one));
            // All that was acknowledged is there: each client's last word that
            // counted is at least as late as the last one acknowledged.
            let server = bed.start(&[]);
            for (number, client) in clients.iter().enumerate() {
                let mut turns = (0..2).filter(|turn| !left.contains(&(number, *turn)));
                if let Some(last) = turns.next_back() {
                    let answer = report(&server, &client.from, &client.project, &client.says[last]);
                    // It may be news only if a later one was written without a word.
                    assert_eq!(answer.status, 200);
                    let counted = answer.json()["counted"] == true;
                    assert!(!counted || last == 0, "a report was lost");
                }
            }
        }
        let server = bed.start(&[]);
        for client in &clients {
            for lock in &client.says {
                report(&server, &client.from, &client.project, lock);
            }
        }
        assert_counts(&server, &clients);
        let said = acknowledged.load(Ordering::SeqCst);
        note(&format!(
            "service: {kills} kills, {said} reports acknowledged before them, none lost"
        ));
    });
}

/// Reports to a server that may be killed.
fn try_report(server: &Serving, from: &str, project: &str, lock: &str) -> Option<u16> {
    use std::io::{Read as _, Write as _};
    let address = server.url();
    let address = address.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    let from = format!("X-Forwarded-For: {from}");
    let path = format!("/v1/lockfiles?project={project}");
    let head = crate::support::head("POST", &path, &[&from], lock.len());
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(lock.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_database_that_goes_and_comes_back_loses_nothing() {
    let Some(mut bed) = Bed::postgres() else {
        return;
    };
    let server = bed.start(&[]);
    let wanted = lock(&[("a", "1.0.0", "")]);
    assert_eq!(report(&server, "192.0.2.1", "p", &wanted).status, 200);
    for round in 2..5 {
        bed.postgres.as_mut().unwrap().stop();
        let refused = report(&server, "192.0.2.9", "p", &wanted);
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.header("retry-after").is_some());
        assert_eq!(server.get("/readyz", &[]).status, 503);
        assert_eq!(server.get("/healthz", &[]).status, 200);
        bed.postgres.as_mut().unwrap().resume();
        let answer = report(&server, &format!("192.0.2.{round}"), "p", &wanted);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(voices(&server, &hashes(&wanted)["a@1.0.0"]), round);
    }
    assert_eq!(server.get("/readyz", &[]).status, 200);
}

#[test]
fn real_lock_files_are_counted() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    if !folder.is_dir() {
        skipped("corpus", "there are no lock files in ../shared/corpus");
        return;
    }
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().collect();
    files.sort_by_key(|file| file.path());
    let locks = files
        .iter()
        .flat_map(|file| std::fs::read_to_string(file.path().join("Cargo.lock")));
    let locks: Vec<String> = locks.take(60).collect();
    on_both(|bed| {
        let server = bed.start(&["--no-access-log"]);
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for (number, lock) in locks.iter().enumerate() {
            let answer = report(&server, &format!("192.0.2.{number}"), "p", lock);
            assert_eq!(answer.status, 200, "{answer:?}");
            let all: BTreeSet<String> = hashes_all(lock);
            for hash in all {
                *counts.entry(hash).or_default() += 1;
            }
        }
        let top = server.get("/v1/wants?limit=200", &[]).json();
        for want in top["wants"].as_array().unwrap() {
            assert_eq!(counts[want["hash"].as_str().unwrap()], want["voices"]);
        }
        assert_eq!(top["wants"][0]["voices"], *counts.values().max().unwrap());
        let all = server.get("/v1/totals", &[]).json()["wants"]
            .as_u64()
            .unwrap();
        assert_eq!(all, counts.len() as u64);
    });
}

fn hashes_all(lock: &str) -> BTreeSet<String> {
    let intake = quickbuild::service::intake::Intake::of_lock(lock.as_bytes(), None).unwrap();
    intake.wants.into_iter().map(|want| want.hash).collect()
}
