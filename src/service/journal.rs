//! What is told of requests: one line of JSON each, and metrics in the text
//! format of Prometheus (version 0.0.4).
//!
//! ```text
//! {"time":"2026-11-24T12:00:00Z","id":"6f…","from":"192.0.2.7","method":"POST",
//!  "path":"/v1/lockfiles","status":200,"milliseconds":4.2}
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::fs;
use crate::output::provenance::Timestamp;
use crate::serve::log::AccessLog;
use crate::serve::times::Times;

/// One request that was answered.
pub(super) struct Request {
    pub(super) id: String,
    pub(super) from: IpAddr,
    pub(super) method: String,
    /// As it was asked for.
    pub(super) path: String,
    /// As it is known: one of few.
    pub(super) route: String,
    pub(super) status: u16,
    pub(super) took: Duration,
}

/// Where requests are told.
pub(super) struct Journal {
    log: Option<AccessLog>,
    connections: AtomicI64,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: BTreeMap<(String, u16), u64>,
    times: BTreeMap<String, Times>,
    events: BTreeMap<&'static str, u64>,
    lost_lines: u64,
}

impl Journal {
    pub(super) fn new(is_logging: bool) -> Self {
        Self {
            log: is_logging.then(AccessLog::start),
            connections: AtomicI64::new(0),
            counts: Mutex::default(),
        }
    }

    /// A connection begins or ends.
    pub(super) fn connection(&self, by: i64) {
        self.connections.fetch_add(by, Ordering::Relaxed);
    }

    /// Something of a kind happened.
    pub(super) fn count(&self, event: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.events.entry(event).or_default() += 1;
    }

    /// A request was answered.
    pub(super) fn note(&self, request: Request) {
        let line = self.log.as_ref().map(|log| log.write(line(&request)));
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.lost_lines += u64::from(line == Some(false));
        let times = counts.times.entry(request.route.clone());
        times.or_default().note(request.took);
        let key = (request.route, request.status);
        *counts.requests.entry(key).or_default() += 1;
    }

    /// All that was counted here, as text.
    pub(super) fn text(&self) -> String {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        family(
            &mut text,
            "requests_total",
            "counter",
            "Requests that were answered.",
        );
        for ((route, status), count) in &counts.requests {
            let labels = format!("{{route=\"{route}\",status=\"{status}\"}}");
            sample(&mut text, "requests_total", &labels, count);
        }
        family(
            &mut text,
            "events_total",
            "counter",
            "What happened to reports.",
        );
        for (event, count) in &counts.events {
            sample(
                &mut text,
                "events_total",
                &format!("{{event=\"{event}\"}}"),
                count,
            );
        }
        let help = "Lines of the log that nobody read in time.";
        family(&mut text, "lost_log_lines_total", "counter", help);
        sample(&mut text, "lost_log_lines_total", "", &counts.lost_lines);
        family(
            &mut text,
            "connections",
            "gauge",
            "Connections that are open.",
        );
        sample(
            &mut text,
            "connections",
            "",
            &self.connections.load(Ordering::Relaxed),
        );
        family(
            &mut text,
            "request_seconds",
            "histogram",
            "From a request to its answer.",
        );
        for (route, times) in &counts.times {
            for (what, labels, value) in times.samples(&format!("route=\"{route}\"")) {
                sample(
                    &mut text,
                    &format!("request_seconds{what}"),
                    &labels,
                    &value,
                );
            }
        }
        text
    }
}

/// The head of a family of metrics.
pub(super) fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP quickbuild_service_{name} {help}");
    let _ = writeln!(text, "# TYPE quickbuild_service_{name} {kind}");
}

/// One value of a family.
pub(super) fn sample(text: &mut String, name: &str, labels: &str, value: &dyn std::fmt::Display) {
    let _ = writeln!(text, "quickbuild_service_{name}{labels} {value}");
}

fn line(request: &Request) -> String {
    let time = Timestamp::from_seconds(fs::now().seconds());
    let line = json!({
        "time": time.map(|time| time.to_string()),
        "id": request.id,
        "from": request.from.to_string(),
        "method": request.method,
        "path": request.path,
        "status": request.status,
        "milliseconds": (request.took.as_secs_f64() * 10_000.0).round() / 10.0,
    });
    format!("{line}\n")
}
