//! A day of demand, from real lock files.
//!
//! `cargo bench --bench day [-- CLIENTS [SECONDS [WORKERS]]]` starts `quickbuild
//! service` and lets so many clients come within a day of which each hour takes
//! so many seconds: 4,000 clients, 8 seconds and 2 workers, if nothing is said.
//! Lock files are those of `../shared/corpus` (or `QUICKBUILD_CORPUS`); without
//! it there is nothing to measure. With `QUICKBUILD_SERVICE_DATABASE` it is
//! measured on that PostgreSQL.
//!
//! Real: the service, reports, triggers, leases, the queue, exports of outputs,
//! their verification, signatures and publication. A client asks the published
//! files for its recipes, and reports as `quickbuild cargo` does, after a miss.
//!
//! Made up: the recipes (each tree is compiled in one way), how popular projects
//! are (Zipf's law), when people work (a sine), what is compiled ([`SECONDS`] a
//! package, slept in the hours' time) and its bytes (random, [`STAND_IN`] each).

#[path = "day/corpus.rs"]
mod corpus;
#[path = "day/figures.rs"]
mod figures;
mod support;
#[path = "day/worker.rs"]
mod worker;

use std::f64::consts::PI;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quickbuild::console;

use corpus::Corpus;
use figures::{Hour, Moment};
use support::{Client, Numbers, Service, words};
use worker::Worker;

/// Seconds of one processor that a package takes: what the service believes of
/// those of which nothing is known.
const SECONDS: f64 = 1.5;
/// Bytes of a stand-in for an output.
const STAND_IN: usize = 16 << 10;
/// Processors of a worker's machine.
const PROCESSORS: f64 = 8.0;
/// The builder that all have.
const BUILDER: &str = "1.95.0-x86_64-unknown-linux-gnu";
/// Connections of clients.
const CONNECTIONS: usize = 16;
/// How often is looked at the queue.
const LOOK: Duration = Duration::from_millis(100);

/// What threads share.
struct Day {
    corpus: Corpus,
    address: String,
    /// The service's folder.
    data: PathBuf,
    /// Of each package, whether a client can fetch it.
    published: Vec<AtomicBool>,
    hours: Mutex<Vec<Hour>>,
    moments: Mutex<Vec<Moment>>,
    idle: AtomicUsize,
    is_over: AtomicBool,
    begin: Instant,
    /// How long an hour takes.
    hour: Duration,
}

impl Day {
    /// How many times faster than real time it passes.
    fn speed(&self) -> f64 {
        3_600.0 / self.hour.as_secs_f64()
    }

    fn hour(&self) -> usize {
        let hour = self.begin.elapsed().as_secs_f64() / self.hour.as_secs_f64();
        (hour as usize).min(23)
    }
}

fn main() {
    let Some(words) = words() else { return };
    let number = |position: usize, default: usize| {
        words
            .get(position)
            .map_or(default, |word| word.parse().expect("a number"))
    };
    let (clients, seconds, workers) = (number(0, 4_000), number(1, 8), number(2, 2));
    let folder = std::env::var("QUICKBUILD_CORPUS");
    let folder = folder.unwrap_or_else(|_| "../shared/corpus".to_owned());
    let Some(corpus) = Corpus::read(Path::new(&folder)) else {
        console::out(&format!("skipped: there is no corpus at `{folder}`\n"));
        return;
    };
    let scratch = tempfile::tempdir().expect("a folder for the service");
    let data = scratch.path().join("data");
    let key = worker::key(scratch.path());
    let token = worker::token(&data);
    let key = key.to_str().expect("UTF-8");
    let service = Service::start(&data, &["--key", key]);
    console::out(&corpus.told());
    console::out(&format!(
        "{clients} clients, {workers} workers, an hour takes {seconds} s, load {}\n",
        figures::load()
    ));
    let day = Day {
        published: corpus.packages.iter().map(|_| false.into()).collect(),
        corpus,
        address: service.address.clone(),
        data,
        hours: Mutex::new(vec![Hour::default(); 24]),
        moments: Mutex::default(),
        idle: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
        begin: Instant::now(),
        hour: Duration::from_secs(seconds as u64),
    };
    let arrivals = arrivals(clients);
    let next = AtomicUsize::new(0);
    let made: Vec<worker::Made> = std::thread::scope(|scope| {
        let builders: Vec<_> = (0..workers)
            .map(|number| {
                let folder = scratch.path().join(format!("worker-{number}"));
                let worker = Worker::new(&day, number, &token, &folder);
                scope.spawn(move || worker.work())
            })
            .collect();
        scope.spawn(|| watch(&day));
        let coming: Vec<_> = (0..CONNECTIONS)
            .map(|_| scope.spawn(|| come(&day, &arrivals, &next)))
            .collect();
        let came: Vec<_> = coming.into_iter().map(|thread| thread.join()).collect();
        let is_whole = came.iter().all(Result::is_ok);
        if is_whole {
            // The rest of the night.
            let end = day.begin + day.hour * 24;
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
        }
        day.is_over.store(true, Ordering::Relaxed);
        assert!(is_whole, "every client is answered");
        let joined = builders.into_iter().map(|thread| thread.join());
        joined.map(|made| made.expect("no panic")).collect()
    });
    console::out(&figures::report(&day, &made, &service));
}

/// When each client comes, in hours: few at three in the night, most at three in
/// the afternoon, twice as many as on average.
fn arrivals(clients: usize) -> Vec<f64> {
    let share = |hour: f64| hour - 0.999 * 12.0 / PI * ((hour - 3.0) / 12.0 * PI).sin();
    let (first, all) = (share(0.0), share(24.0) - share(0.0));
    let at = |client: usize| {
        let wanted = first + all * (client as f64 + 0.5) / clients as f64;
        let (mut low, mut high) = (0.0, 24.0);
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            match share(middle) < wanted {
                true => low = middle,
                false => high = middle,
            }
        }
        low
    };
    (0..clients).map(at).collect()
}

/// Clients, one after the other.
fn come(day: &Day, arrivals: &[f64], next: &AtomicUsize) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(at) = arrivals.get(number) else {
            return;
        };
        let due = day.begin + day.hour.mul_f64(*at);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let project = day.corpus.draw(&mut Numbers(number as u64));
        let is_there = |package: &&usize| day.published[**package].load(Ordering::Relaxed);
        let hits = project.packages.iter().filter(is_there).count();
        let misses = project.packages.len() - hits;
        let mut seen = Hour {
            clients: 1,
            hits,
            misses,
            ..Hour::default()
        };
        if misses > 0 {
            let lacked = project.packages.iter().copied();
            let lacked = lacked.filter(|package| !is_there(&package));
            let body = day
                .corpus
                .report(project, &lacked.collect::<Vec<_>>(), number, hits);
            let begin = Instant::now();
            let mut connection = Client::new(&day.address);
            let status = connection.report(number, "application/json", body.as_bytes());
            assert_eq!(status, 200, "it is counted");
            seen.took.push(begin.elapsed());
            seen.reports = 1;
            seen.bytes = body.len();
        }
        let hour = (*at as usize).min(23);
        day.hours.lock().expect("no panic")[hour].add(seen);
    }
}

/// Looks at the queue, and at who has nothing to do.
fn watch(day: &Day) {
    let mut connection = Client::new(&day.address);
    while !day.is_over.load(Ordering::Relaxed) {
        let told = connection.get("/v1/builds?state=queued&limit=1000");
        let idle = day.idle.load(Ordering::Relaxed);
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        let queued = told["builds"].as_array().expect("a list");
        let oldest = queued.iter().filter_map(|build| build["since"].as_u64());
        day.moments.lock().expect("no panic").push(Moment {
            hour: day.hour(),
            database: figures::size(&day.data),
            queued: told["overview"]["queued"].as_u64().unwrap_or_default(),
            waited: oldest
                .min()
                .map_or(0, |since| figures::now().saturating_sub(since)),
            idle,
        });
        std::thread::sleep(LOOK);
    }
}
