//! One line for each request, when its answer is gone.
//!
//! ```text
//! 2026-11-24T12:00:00Z 127.0.0.1 "GET /archives/….tar.zst HTTP/2" 200 52311 0.8ms "quickbuild/0.1.0"
//! ```
//!
//! Lines are written by a thread of their own, many at once where many come. If
//! nobody reads them in time, lines are lost and counted, and requests go on.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::header::USER_AGENT;
use hyper::{Request, Version};

use super::metrics::Metrics;
use super::route::Route;
use crate::console;
use crate::fs;
use crate::output::provenance::Timestamp;

/// Lines that wait to be written.
const WAITING: usize = 16_384;
/// Bytes that are written at once.
const AT_ONCE: usize = 64 << 10;

/// Where lines go.
pub struct AccessLog {
    lines: Option<SyncSender<String>>,
    writer: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// A log on standard output.
    pub fn start() -> Self {
        let (lines, waiting) = sync_channel(WAITING);
        Self {
            lines: Some(lines),
            writer: Some(std::thread::spawn(move || write(&waiting))),
        }
    }

    /// No log.
    pub fn none() -> Self {
        Self {
            lines: None,
            writer: None,
        }
    }

    /// Writes a line; false if it is lost.
    pub fn write(&self, line: String) -> bool {
        let sent = self.lines.as_ref().map(|lines| lines.try_send(line));
        !matches!(
            sent,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_)))
        )
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write(waiting: &Receiver<String>) {
    let mut text = String::new();
    while let Ok(line) = waiting.recv() {
        text.push_str(&line);
        while text.len() < AT_ONCE
            && let Ok(line) = waiting.try_recv()
        {
            text.push_str(&line);
        }
        if let Err(error) = console::lines_out(&text) {
            console::line(&format!("warning: the access log ends: {error}"));
            return;
        }
        text.clear();
    }
}

/// What is kept of a request until its answer is gone.
pub(super) struct Record {
    log: Arc<AccessLog>,
    metrics: Arc<Metrics>,
    begin: Instant,
    /// What the line says of it, if there is a log.
    asked: Option<Asked>,
    route: Route,
    status: u16,
    bytes: u64,
}

/// Who asked for what.
struct Asked {
    from: IpAddr,
    /// Method, path and version.
    request: String,
    agent: String,
}

impl Asked {
    fn new<B>(from: IpAddr, request: &Request<B>) -> Self {
        let version = match request.version() {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        let agent = request.headers().get(USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or("-");
        let path = request.uri().path().replace('"', "%22");
        Self {
            from,
            request: format!("{} {path} {version}", request.method()),
            agent: agent.replace('"', "'"),
        }
    }
}

impl Record {
    pub(super) fn new<B>(
        log: Arc<AccessLog>,
        metrics: Arc<Metrics>,
        from: IpAddr,
        request: &Request<B>,
    ) -> Self {
        metrics.begin();
        Self {
            begin: Instant::now(),
            asked: log.lines.is_some().then(|| Asked::new(from, request)),
            log,
            metrics,
            route: Route::Other,
            status: 500,
            bytes: 0,
        }
    }

    /// What was asked for.
    pub(super) fn route(&mut self, route: Route) {
        self.route = route;
    }

    /// How it is answered.
    pub(super) fn status(&mut self, status: u16) {
        self.status = status;
    }

    /// Bytes that were handed to the connection.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    fn line(&self, asked: &Asked, took: Duration) -> String {
        let Asked {
            from,
            request,
            agent,
        } = asked;
        let (status, bytes) = (self.status, self.bytes);
        let time = Timestamp::from_seconds(fs::now().seconds());
        let time = time.map(|time| time.to_string()).unwrap_or_default();
        let took = took.as_secs_f64() * 1_000.0;
        format!("{time} {from} \"{request}\" {status} {bytes} {took:.1}ms \"{agent}\"\n")
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.begin.elapsed();
        self.metrics.end(self.route, self.status, self.bytes, took);
        if let Some(asked) = &self.asked
            && !self.log.write(self.line(asked, took))
        {
            self.metrics.lost_line();
        }
    }
}
