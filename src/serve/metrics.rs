//! What is counted, in the text format of Prometheus (version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::route::Route;
use super::times::Times;

/// Counters and gauges of a server.
#[derive(Default)]
pub(super) struct Metrics {
    counts: Mutex<Counts>,
    under_way: AtomicUsize,
    connections: AtomicUsize,
}

#[derive(Default)]
struct Counts {
    requests: BTreeMap<(Route, u16), u64>,
    times: BTreeMap<Route, Times>,
    bytes: BTreeMap<Route, u64>,
    accepted: u64,
    asked: u64,
    answered: u64,
    limited: u64,
    denied: u64,
    uploaded: u64,
    lost_lines: u64,
}

/// What is looked up when somebody asks.
pub(super) struct Stock {
    pub(super) recipes: usize,
    pub(super) outputs: usize,
    pub(super) archived: u64,
}

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// Its answer is gone.
    pub(super) fn end(&self, route: Route, status: u16, bytes: u64, took: Duration) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        let mut counts = self.counts();
        *counts.requests.entry((route, status)).or_default() += 1;
        *counts.bytes.entry(route).or_default() += bytes;
        counts.times.entry(route).or_default().note(took);
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.counts().accepted += 1;
    }

    /// Connections that are open.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A call asked for recipes and got outputs.
    pub(super) fn looked_up(&self, asked: usize, answered: usize) {
        let mut counts = self.counts();
        counts.asked += asked as u64;
        counts.answered += answered as u64;
    }

    pub(super) fn limited(&self) {
        self.counts().limited += 1;
    }

    pub(super) fn denied(&self) {
        self.counts().denied += 1;
    }

    pub(super) fn uploaded(&self, bytes: u64) {
        self.counts().uploaded += bytes;
    }

    pub(super) fn lost_line(&self) {
        self.counts().lost_lines += 1;
    }

    /// All of it as text.
    pub(super) fn text(&self, stock: &Stock) -> String {
        let counts = self.counts();
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, String)]| {
            let _ = writeln!(text, "# HELP quickbuild_serve_{name} {help}");
            let _ = writeln!(text, "# TYPE quickbuild_serve_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "quickbuild_serve_{name}{labels} {value}");
            }
        };
        let requests = counts.requests.iter().map(|((route, status), count)| {
            let labels = format!("{{route=\"{}\",status=\"{status}\"}}", route.name());
            (labels, count.to_string())
        });
        let requests: Vec<_> = requests.collect();
        family(
            "requests_total",
            "counter",
            "Requests that were answered.",
            &requests,
        );
        let bytes = counts.bytes.iter().map(|(route, bytes)| {
            let labels = format!("{{route=\"{}\"}}", route.name());
            (labels, bytes.to_string())
        });
        let bytes: Vec<_> = bytes.collect();
        family(
            "sent_bytes_total",
            "counter",
            "Bytes of bodies that were sent.",
            &bytes,
        );
        let one = |value: &dyn ToString| [(String::new(), value.to_string())];
        for (name, help, value) in [
            (
                "connections_total",
                "Connections that were accepted.",
                counts.accepted,
            ),
            (
                "lookup_recipes_total",
                "Recipes that calls asked for.",
                counts.asked,
            ),
            (
                "lookup_outputs_total",
                "Outputs that calls were answered with.",
                counts.answered,
            ),
            (
                "limited_total",
                "Requests that came too fast.",
                counts.limited,
            ),
            (
                "denied_total",
                "Requests without a token that is known, or with one that may not do that.",
                counts.denied,
            ),
            (
                "uploaded_bytes_total",
                "Bytes of bodies that were accepted.",
                counts.uploaded,
            ),
            (
                "lost_log_lines_total",
                "Lines of the access log that nobody read in time.",
                counts.lost_lines,
            ),
        ] {
            family(name, "counter", help, &one(&value));
        }
        for (name, help, value) in [
            (
                "connections",
                "Connections that are open.",
                self.connections().to_string(),
            ),
            (
                "requests_under_way",
                "Requests whose answers are not gone.",
                self.under_way.load(Ordering::Relaxed).to_string(),
            ),
            (
                "recipes",
                "Recipes of which something is published.",
                stock.recipes.to_string(),
            ),
            (
                "outputs",
                "Outputs that are published.",
                stock.outputs.to_string(),
            ),
            (
                "archived_bytes",
                "Bytes of the archives of all outputs.",
                stock.archived.to_string(),
            ),
        ] {
            family(name, "gauge", help, &one(&value));
        }
        text.push_str(&times(&counts.times));
        text
    }
}

/// The histogram of the times that requests take.
fn times(times: &BTreeMap<Route, Times>) -> String {
    let name = "quickbuild_serve_request_seconds";
    let mut text = format!(
        "# HELP {name} From a request to the end of its answer.\n# TYPE {name} histogram\n"
    );
    for (route, times) in times {
        for (what, labels, value) in times.samples(&format!("route=\"{}\"", route.name())) {
            let _ = writeln!(text, "{name}{what}{labels} {value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let metrics = Metrics::default();
        metrics.begin();
        metrics.begin();
        metrics.end(Route::Archive, 200, 7, Duration::from_millis(20));
        metrics.looked_up(3, 2);
        let stock = Stock {
            recipes: 1,
            outputs: 2,
            archived: 3,
        };
        let text = metrics.text(&stock);
        for line in [
            "quickbuild_serve_requests_total{route=\"archive\",status=\"200\"} 1",
            "quickbuild_serve_sent_bytes_total{route=\"archive\"} 7",
            "quickbuild_serve_requests_under_way 1",
            "quickbuild_serve_lookup_recipes_total 3",
            "quickbuild_serve_outputs 2",
            "quickbuild_serve_request_seconds_bucket{route=\"archive\",le=\"0.01\"} 0",
            "quickbuild_serve_request_seconds_bucket{route=\"archive\",le=\"0.05\"} 1",
            "quickbuild_serve_request_seconds_count{route=\"archive\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with('\n'));
    }
}
