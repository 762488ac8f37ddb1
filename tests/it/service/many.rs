//! Three servers, four workers, one PostgreSQL and one bucket, and somebody who
//! kills one of them every few seconds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Bed;
use crate::realise::with_builder;
use crate::support::postgres::Postgres;
use crate::support::{Serving, TestEnv, kill_group, programs, walk};

/// Packages of the recipe repository that need no others.
const PACKAGES: [&str; 8] = [
    "fnv",
    "itoa",
    "cfg-if",
    "bitflags",
    "either",
    "lazy_static",
    "ryu",
    "memchr",
];
/// How long it may take.
const LONG: Duration = Duration::from_secs(300);
/// How often somebody is killed.
const PAUSE: Duration = Duration::from_millis(2_500);
/// How many must have been killed: each server is, every other time.
const FAULTS: usize = 6;

/// The texts of recipes without dependencies, by their hashes.
fn recipes() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let mut found = BTreeMap::new();
    for package in PACKAGES {
        let files = walk(&root.join(&package[..2]).join(package));
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            if text.contains("dependencies = [") {
                continue;
            }
            let stem = file.file_stem().unwrap().to_str().unwrap();
            let hash = stem.rsplit_once('-').unwrap().1.to_owned();
            found.insert(hash, text);
        }
    }
    assert!(found.len() >= PACKAGES.len(), "{found:?}");
    found
}

/// The surroundings of all processes: an engine, PostgreSQL, a bucket, a key.
fn surroundings(env: &TestEnv, postgres: &Postgres, bucket: &str) -> Bed {
    let env = env
        .with("QUICKBUILD_SERVICE_DATABASE", postgres.url())
        .with("AWS_ACCESS_KEY_ID", "key")
        .with("AWS_SECRET_ACCESS_KEY", "secret")
        .with("AWS_REGION", "us-east-1");
    let bed = Bed {
        project: env.project("tiny"),
        env,
        postgres: None,
    };
    let _ = bed.run(&["service", "migrate"]).success();
    let key = bed.run(&["key", "generate", "service-1"]).success();
    let config = bed.env.root().join("quickbuild.toml");
    let text = fs::read_to_string(&config).unwrap();
    let key = key.stdout.trim();
    let table = format!(
        "{text}\n[[substituters]]\nurl = \"s3://cache/public\"\nendpoint = \"{bucket}\"\npublic-keys = [\"{key}\"]\n"
    );
    fs::write(&config, table).unwrap();
    bed
}

fn server(bed: &Bed, number: usize) -> Serving {
    let data = format!("service-{number}");
    bed.start(&[
        "--data",
        &data,
        "--key",
        "service-1",
        "--publish",
        "s3://cache/public",
        "--threshold",
        "2",
        "--lease",
        "6s",
        "--retry",
        "1s",
    ])
}

fn worker(bed: &Bed, server: &Serving, number: usize, token: &str) -> Child {
    let store = bed.env.root().join(format!("worker-{number}"));
    let env = bed.env.with_store(&store);
    let env = env.with("QUICKBUILD_WORKER_TOKEN", token);
    let name = format!("worker-{number}");
    let words = ["worker", "--server", &server.url(), "--name", &name];
    env.spawn_group(&bed.project, &words)
}

/// All builds that are in a state.
fn builds(server: &Serving, state: &str) -> Vec<Value> {
    let found = server.get(&format!("/v1/builds?state={state}"), &[]);
    assert_eq!(found.status, 200, "{found:?}");
    found.json()["builds"].as_array().unwrap().clone()
}

#[test]
#[expect(clippy::print_stdout, reason = "how many faults there were")]
fn whoever_is_killed_no_build_is_lost_and_none_done_twice() {
    let Some(env) = with_builder() else { return };
    let (Some(postgres), Some(bucket)) = (Postgres::start(), programs::s3()) else {
        return;
    };
    let bed = surroundings(&env, &postgres, &bucket.url());
    let recipes = recipes();
    let mut servers: Vec<Serving> = (0..3).map(|number| server(&bed, number)).collect();
    let token = bed.token("farm", "work-trusted");
    let report = json!({"format": 1, "recipes": recipes.values().collect::<Vec<_>>()});
    for from in ["192.0.2.1", "192.0.2.2"] {
        let from = format!("X-Forwarded-For: {from}");
        let kind = "Content-Type: application/json";
        let counted = servers[0].post(
            "/v1/lockfiles",
            &[&from, kind],
            report.to_string().as_bytes(),
        );
        assert_eq!(counted.status, 200, "{counted:?}");
    }
    let mut workers: Vec<Child> = (0..4)
        .map(|number| worker(&bed, &servers[number % 3], number, &token))
        .collect();
    let (begin, mut killed) = (Instant::now(), Instant::now());
    let mut faults = 0;
    loop {
        // Each is asked, and each has just begun at some time.
        let built = builds(&servers[faults % 3], "built").len();
        if built == recipes.len() && faults >= FAULTS {
            break;
        }
        assert!(
            begin.elapsed() < LONG,
            "{built} of {} after {faults} faults",
            recipes.len()
        );
        std::thread::sleep(Duration::from_millis(200));
        if killed.elapsed() < PAUSE {
            continue;
        }
        killed = Instant::now();
        // Servers and workers in turn; the workers of a server that is gone start
        // anew, since it comes back at another address.
        if faults % 2 == 0 {
            let number = faults / 2 % 3;
            servers[number].kill();
            servers[number] = server(&bed, number);
            let of_it = |at: &usize| at % 3 == number;
            for at in (0..workers.len()).filter(of_it) {
                kill_group(&mut workers[at]);
                workers[at] = worker(&bed, &servers[number], at, &token);
            }
        } else {
            let at = faults / 2 % workers.len();
            kill_group(&mut workers[at]);
            workers[at] = worker(&bed, &servers[at % 3], at, &token);
        }
        faults += 1;
    }
    for child in &mut workers {
        kill_group(child);
    }
    let mut lost = 0;
    for build in builds(&servers[2], "built") {
        let told = servers[2]
            .get(&format!("/v1/builds/{}", build["id"]), &[])
            .json();
        let tries = told["tries"].as_array().unwrap().iter();
        let outcomes: Vec<&str> = tries.map(|t| t["outcome"].as_str().unwrap()).collect();
        let built = outcomes
            .iter()
            .filter(|outcome| **outcome == "built")
            .count();
        assert_eq!(built, 1, "{told}");
        lost += outcomes
            .iter()
            .filter(|outcome| **outcome == "lost")
            .count();
        assert_ne!(told["outputs"], json!([]), "{told}");
    }
    println!(
        "{faults} faults, {lost} leases lost, {} builds, none lost",
        recipes.len()
    );
    // What is published verifies: a copy takes nothing else.
    let folder = bed.env.root().join("copy");
    let copy = ["copy", "s3://cache/public", folder.to_str().unwrap()];
    let copied = bed.run(&copy).success();
    assert!(!copied.stdout.contains(" 0 outputs published"), "{copied}");
    // The engine is left as it was found.
    let sweep = ["realise", "--builder", "docker"];
    let _ = bed.run(&sweep).success();
    crate::realise::assert_nothing_left(&bed.env);
}
