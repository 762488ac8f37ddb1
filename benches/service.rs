//! How many lock files a second the service counts, and how long each takes.
//!
//! `cargo bench --bench service [-- RATE SECONDS [PACKAGES]]` starts
//! `quickbuild service` and sends it lock files of so many packages at a fixed
//! rate: 500 a second for 20 seconds with 300 packages, if nothing is said. Each
//! is a client of its own. The times are from when a request was due to its
//! answer, so that a server that falls behind cannot hide it. The client runs on
//! the same machine. With `QUICKBUILD_SERVICE_DATABASE` it is measured on that
//! PostgreSQL, otherwise on SQLite. At the end, counts are compared with what
//! was sent.
//!
//! `cargo bench --bench service -- pages [WANTS]` tells it of so many trees, a
//! million if nothing is said, and times the dashboard's pages.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quickbuild::console;
use quickbuild::service::intake::Intake;

use support::{Client, Numbers, Service, words};

/// Packages that there are.
const UNIVERSE: u64 = 3_000;
/// Lock files that differ.
const LOCKS: u64 = 2_000;
/// What a Cargo.lock is sent as.
const LOCK: &str = "text/plain";
/// Connections.
const CONNECTIONS: usize = 32;

fn main() {
    let Some(words) = words() else { return };
    if words.first().is_some_and(|word| word == "pages") {
        let wants = words.get(1).map(|word| word.parse().expect("a number"));
        return pages(wants.unwrap_or(1_000_000));
    }
    let number = |position: usize, default: u64| {
        words
            .get(position)
            .map_or(default, |word| word.parse().expect("a number"))
    };
    let (rate, seconds, packages) = (number(0, 500), number(1, 20), number(2, 300));
    let locks: Vec<String> = (0..LOCKS).map(|seed| lock(seed, packages)).collect();
    let bytes: usize = locks.iter().map(String::len).sum();
    let begin = Instant::now();
    for lock in locks.iter().take(200) {
        let _ = Intake::of_lock(lock.as_bytes(), None).expect("a lock file");
    }
    let apart = begin.elapsed().as_secs_f64() / 200.0 * 1_000.0;
    console::out(&format!("one lock file is taken apart in {apart:.2} ms\n"));
    let folder = tempfile::tempdir().expect("a folder for the service");
    let service = Service::start(&folder.path().join("data"), &[]);
    console::out(&format!(
        "{rate} lock files a second of {packages} packages and {} kB, for {seconds} s\n",
        bytes / locks.len() / 1_000
    ));
    let total = (rate * seconds) as usize;
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    let mut times: Vec<(Duration, bool)> = std::thread::scope(|scope| {
        let work = || {
            let mut times = Vec::new();
            let mut client = Client::new(&service.address);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return times;
                }
                let due = begin + Duration::from_secs_f64(number as f64 / rate as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let status = client.report(number, LOCK, locks[number % locks.len()].as_bytes());
                times.push((due.elapsed(), status == 200));
            }
        };
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        joined.flatten().collect()
    });
    let took = begin.elapsed().as_secs_f64();
    let refused = times.iter().filter(|(_, counted)| !counted).count();
    times.sort_unstable();
    let at = |part: f64| {
        let position = ((times.len() - 1) as f64 * part) as usize;
        times[position].0.as_secs_f64() * 1_000.0
    };
    console::out(&format!(
        "{:.0} a second, {refused} refused; p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, longest {:.1} ms\n",
        total as f64 / took,
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    ));
    console::out(&format!("{}\n", service.usage()));
    if refused == 0 {
        compare(&service.address, &locks, total);
    }
}

/// Trees of one lock file.
const TREES: u64 = 4_000;
/// Times of each page.
const VIEWS: usize = 200;

/// Times pages of a service that was told of so many trees. Few lock files are
/// those of many clients; each has twenty versions of one package, and a half of
/// the others need one.
fn pages(wants: u64) {
    let folder = tempfile::tempdir().expect("a folder for the service");
    let service = Service::start(&folder.path().join("data"), &[]);
    let mut client = Client::new(&service.address);
    let begin = Instant::now();
    let mut number = 0;
    for position in 0..wants.div_ceil(TREES) {
        let lock = large(position);
        for _ in 0..=(40 / (position + 1)) {
            assert_eq!(
                client.report(number, LOCK, lock.as_bytes()),
                200,
                "it is counted"
            );
            number += 1;
        }
    }
    let totals: serde_json::Value = serde_json::from_str(&client.get("/v1/totals")).expect("JSON");
    console::out(&format!(
        "{number} lock files told of {} trees in {:.0} s\n",
        totals["wants"],
        begin.elapsed().as_secs_f64()
    ));
    let top = client.get("/v1/wants?limit=1000");
    let top: serde_json::Value = serde_json::from_str(&top).expect("JSON");
    let needing = top["wants"].as_array().expect("a list").iter();
    let needing = needing.max_by_key(|want| want["packages"].as_u64());
    let hash = needing
        .and_then(|want| want["hash"].as_str())
        .expect("a hash");
    for path in [
        "/",
        "/wants?kind=tree",
        "/wants?kind=recipe",
        &format!("/wants/{hash}"),
        "/wants?package=serde",
        "/v1/wants?limit=1000",
        "/metrics",
    ] {
        let view = |_| {
            let begin = Instant::now();
            let _ = client.get(path);
            begin.elapsed()
        };
        let mut times: Vec<Duration> = (0..VIEWS).map(view).collect();
        times.sort_unstable();
        let at = |part: usize| times[(VIEWS - 1) * part / 100].as_secs_f64() * 1_000.0;
        console::out(&format!(
            "{:<24} p50 {:6.1} ms, p99 {:6.1} ms, longest {:6.1} ms\n",
            path.get(..24).unwrap_or(path),
            at(50),
            at(99),
            at(100)
        ));
    }
    console::out(&format!("{}\n", service.usage()));
}

/// A lock file of trees that no other has.
fn large(position: u64) -> String {
    let mut text = String::from("version = 4\n\n");
    let mut package = |name: &str, version: &str, needs: &str| {
        let _ = write!(
            text,
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\
             source = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
             dependencies = [{needs}]\n\n"
        );
    };
    for one in 0..TREES - 20 {
        let needs = match one % 2 {
            0 => String::new(),
            _ => format!("\"package-{}\"", one / 2),
        };
        package(
            &format!("package-{one}"),
            &format!("1.0.{position}"),
            &needs,
        );
    }
    for one in 0..20 {
        package("serde", &format!("1.{position}.{one}"), "");
    }
    text
}

/// Compares counts with what was sent.
fn compare(address: &str, locks: &[String], total: usize) {
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for (position, lock) in locks.iter().enumerate().take(total) {
        let clients = (total - position).div_ceil(locks.len());
        let intake = Intake::of_lock(lock.as_bytes(), None).expect("a lock file");
        for want in intake.wants {
            *expected.entry(want.hash).or_default() += clients;
        }
    }
    let mut client = Client::new(address);
    let top = client.get("/v1/wants?limit=1000");
    let top: serde_json::Value = serde_json::from_str(&top).expect("JSON");
    let top = top["wants"].as_array().expect("a list");
    for want in top {
        let hash = want["hash"].as_str().expect("a hash");
        assert_eq!(want["voices"], expected[hash], "a count is wrong");
    }
    console::out(&format!(
        "{} trees are wanted; the counts of the {} most wanted are right\n",
        expected.len(),
        top.len()
    ));
}

/// A lock file with checksums. A package needs up to four with smaller numbers;
/// small numbers are popular. One in five has not the newest version.
fn lock(seed: u64, packages: u64) -> String {
    let mut numbers = Numbers(seed);
    let mut chosen: BTreeMap<u64, u64> = BTreeMap::new();
    while (chosen.len() as u64) < packages {
        let one = numbers.below(UNIVERSE).min(numbers.below(UNIVERSE));
        let version = if numbers.below(5) == 0 {
            1 + numbers.below(3)
        } else {
            0
        };
        chosen.entry(one).or_insert(version);
    }
    let mut text = String::from("version = 4\n\n");
    for (package, version) in &chosen {
        let mut wanted = Numbers(*package);
        let count = wanted.below(5);
        let needs: Vec<u64> = (0..count).map(|_| wanted.below(package + 1)).collect();
        let mut needs: Vec<u64> = needs
            .into_iter()
            .filter(|need| need < package && chosen.contains_key(need))
            .collect();
        needs.sort_unstable();
        needs.dedup();
        let checksum = format!("{:016x}", wanted.below(u64::MAX)).repeat(4);
        let _ = write!(
            text,
            "[[package]]\nname = \"package-{package}\"\nversion = \"1.{version}.0\"\n\
             source = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
             checksum = \"{checksum}\"\ndependencies = [\n"
        );
        for need in needs {
            let _ = writeln!(text, " \"package-{need}\",");
        }
        text.push_str("]\n\n");
    }
    text
}
