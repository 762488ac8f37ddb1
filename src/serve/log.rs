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
pub(super) struct AccessLog {
    lines: Option<SyncSender<String>>,
    writer: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// A log on standard output.
    pub(super) fn start() -> Self {
        let (lines, waiting) = sync_channel(WAITING);
        Self {
            lines: Some(lines),
            writer: Some(std::thread::spawn(move || write(&waiting))),
        }
    }

    /// No log.
    pub(super) fn none() -> Self {
        Self {
            lines: None,
            writer: None,
        }
    }

    /// Writes a line, if there is a log; false if it is lost.
    fn write(&self, line: impl FnOnce() -> String) -> bool {
        let Some(lines) = &self.lines else {
            return true;
        };
        match lines.try_send(line()) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
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
    from: IpAddr,
    /// Method, path and version.
    request: String,
    agent: String,
    route: Route,
    status: u16,
    bytes: u64,
}

impl Record {
    pub(super) fn new<B>(
        log: Arc<AccessLog>,
        metrics: Arc<Metrics>,
        from: IpAddr,
        request: &Request<B>,
    ) -> Self {
        let version = match request.version() {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        let agent = request.headers().get(USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or("-");
        metrics.begin();
        Self {
            log,
            metrics,
            begin: Instant::now(),
            from,
            request: format!(
                "{} {} {version}",
                request.method(),
                request.uri().path().replace('"', "%22")
            ),
            agent: agent.replace('"', "'"),
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

    fn line(&self, took: Duration) -> String {
        let seconds = fs::now().seconds();
        let time = Timestamp::from_seconds(seconds).map(|time| time.to_string());
        format!(
            "{} {} \"{}\" {} {} {:.1}ms \"{}\"\n",
            time.unwrap_or_default(),
            self.from,
            self.request,
            self.status,
            self.bytes,
            took.as_secs_f64() * 1_000.0,
            self.agent
        )
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.begin.elapsed();
        self.metrics.end(self.route, self.status, self.bytes, took);
        if !self.log.write(|| self.line(took)) {
            self.metrics.lost_line();
        }
    }
}
