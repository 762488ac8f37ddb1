//! A service that is measured, and connections to it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use quickbuild::console;

/// What a benchmark is asked for; none where `cargo test --benches` and the like want
/// to know that it starts, and no more.
pub(crate) fn words() -> Option<Vec<String>> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let all = words.len();
    words.retain(|word| word != "--bench");
    (words.len() < all).then_some(words)
}

/// `quickbuild service` as a process.
pub(crate) struct Service {
    process: Child,
    /// Where it listens.
    pub(crate) address: String,
}

impl Service {
    /// Starts it in a folder, believing whom we ask for.
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quickbuild"));
        command.args(["service", "--listen", "127.0.0.1:0", "--proxy", "127.0.0.1"]);
        command.args(["--rate", "0", "--no-access-log"]);
        command.args(arguments).arg("--data").arg(folder);
        let mut process = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("the service starts");
        let mut said = BufReader::new(process.stderr.take().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("it says where it is");
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                console::line(&line);
            }
        });
        let address = line.trim().rsplit('/').next().unwrap_or_default();
        assert!(line.contains("the service is at"), "{line}");
        Self {
            process,
            address: address.to_owned(),
        }
    }

    /// Processor time, what it has written to the disk, and its peak memory.
    pub(crate) fn usage(&self) -> String {
        let written = self.read("io");
        let written = written.lines().find_map(|line| {
            let bytes = line.strip_prefix("write_bytes: ")?;
            bytes.parse::<u64>().ok()
        });
        let status = self.read("status");
        let peak = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap_or_default();
        format!(
            "service: {:.1} s of processor, {} MB written, {}",
            self.seconds(),
            written.unwrap_or_default() / 1_000_000,
            peak.replace('\t', " ")
        )
    }

    /// Seconds of processor until now.
    pub(crate) fn seconds(&self) -> f64 {
        let stat = self.read("stat");
        let ticks = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let ticks: u64 = ticks.skip(11).take(2).flat_map(str::parse::<u64>).sum();
        ticks as f64 / 100.0
    }

    fn read(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.process.id());
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A connection that stays.
pub(crate) struct Client {
    address: String,
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the service answers");
        stream.set_nodelay(true).expect("a socket has options");
        Self {
            address: address.to_owned(),
            stream: BufReader::new(stream),
        }
    }

    /// Sends a body, with further headers, each ended by `\r\n`; gives the
    /// status and what is answered.
    pub(crate) fn send(&mut self, what: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let head = format!(
            "{what} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        let stream = self.stream.get_mut();
        let sent = stream.write_all(head.as_bytes());
        sent.expect("the service reads");
        stream.write_all(body).expect("the service reads");
        self.answer()
    }

    /// Reports for the client of a number; gives the status.
    pub(crate) fn report(&mut self, number: usize, kind: &str, body: &[u8]) -> u16 {
        let [a, b, c] = [number >> 16, number >> 8, number].map(|part| part & 255);
        let headers = format!("X-Forwarded-For: 10.{a}.{b}.{c}\r\nContent-Type: {kind}\r\n");
        self.send("POST /v1/lockfiles", &headers, body).0
    }

    pub(crate) fn get(&mut self, path: &str) -> String {
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
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
