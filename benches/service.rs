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

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quickbuild::console;
use quickbuild::service::intake::Intake;

/// Packages that there are.
const UNIVERSE: u64 = 3_000;
/// Lock files that differ.
const LOCKS: u64 = 2_000;
/// Connections.
const CONNECTIONS: usize = 32;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    // `cargo test --benches` and the like want to know that it starts, no more.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
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
    let (mut service, address) = start(folder.path());
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
            let mut client = Client::new(&address);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return times;
                }
                let due = begin + Duration::from_secs_f64(number as f64 / rate as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let status = client.post(number, &locks[number % locks.len()]);
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
    console::out(&format!("{}\n", usage(&service)));
    if refused == 0 {
        compare(&address, &locks, total);
    }
    let _ = service.kill();
    let _ = service.wait();
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
    let (mut service, address) = start(folder.path());
    let mut client = Client::new(&address);
    let begin = Instant::now();
    let mut number = 0;
    for position in 0..wants.div_ceil(TREES) {
        let lock = large(position);
        for _ in 0..=(40 / (position + 1)) {
            assert_eq!(client.post(number, &lock), 200, "it is counted");
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
    console::out(&format!("{}\n", usage(&service)));
    let _ = service.kill();
    let _ = service.wait();
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

/// Starts the service; gives its address.
fn start(folder: &std::path::Path) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickbuild"));
    command.args(["service", "--listen", "127.0.0.1:0", "--proxy", "127.0.0.1"]);
    command
        .args(["--rate", "0", "--no-access-log", "--data"])
        .arg(folder.join("data"));
    let mut service = command
        .stderr(Stdio::piped())
        .spawn()
        .expect("the service starts");
    let mut said = BufReader::new(service.stderr.take().expect("it is piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says where it is");
    std::thread::spawn(move || {
        for line in said.lines().map_while(Result::ok) {
            console::line(&line);
        }
    });
    let address = line.trim().rsplit('/').next().unwrap_or_default();
    assert!(line.contains("the service is at"), "{line}");
    (service, address.to_owned())
}

/// Processor time and peak memory of the service.
fn usage(service: &Child) -> String {
    let read = |name: &str| {
        let path = format!("/proc/{}/{name}", service.id());
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let stat = read("stat");
    let ticks = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: u64 = ticks.skip(11).take(2).flat_map(str::parse::<u64>).sum();
    let status = read("status");
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or_default();
    format!(
        "service: {:.1} s of processor, {}",
        ticks as f64 / 100.0,
        peak.replace('\t', " ")
    )
}

/// A connection that stays.
struct Client {
    address: String,
    stream: BufReader<TcpStream>,
}

impl Client {
    fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the service answers");
        stream.set_nodelay(true).expect("a socket has options");
        Self {
            address: address.to_owned(),
            stream: BufReader::new(stream),
        }
    }

    fn post(&mut self, number: usize, lock: &str) -> u16 {
        let [a, b, c] = [number >> 16, number >> 8, number].map(|part| part & 255);
        let head = format!(
            "POST /v1/lockfiles HTTP/1.1\r\nHost: {}\r\nX-Forwarded-For: 10.{a}.{b}.{c}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            lock.len()
        );
        let stream = self.stream.get_mut();
        stream
            .write_all(head.as_bytes())
            .expect("the service reads");
        stream
            .write_all(lock.as_bytes())
            .expect("the service reads");
        self.answer().0
    }

    fn get(&mut self, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        self.stream
            .get_mut()
            .write_all(head.as_bytes())
            .expect("the service reads");
        String::from_utf8(self.answer().1).expect("UTF-8")
    }

    fn answer(&mut self) -> (u16, Vec<u8>) {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer");
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .expect("a status");
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line).expect("a header");
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("a body");
        (status, body)
    }
}

/// Numbers that look random and are the same each time (SplitMix64, Steele,
/// Lea and Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
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
