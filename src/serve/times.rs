//! How long requests took, as a histogram of Prometheus.

use std::time::Duration;

/// Upper bounds in seconds.
const BOUNDS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Times of one kind of request.
#[derive(Default)]
pub struct Times {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Times {
    /// One request took so long.
    pub fn note(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.count += 1;
        self.sum += seconds;
        for (count, bound) in self.counts.iter_mut().zip(BOUNDS) {
            *count += u64::from(seconds <= bound);
        }
    }

    /// The samples of the histogram: what follows its name, labels in braces, and
    /// the value. `labels` are those of this kind of request.
    pub fn samples(&self, labels: &str) -> impl Iterator<Item = (&'static str, String, String)> {
        let bucket = |bound: &str, count: u64| {
            let labels = format!("{{{labels},le=\"{bound}\"}}");
            ("_bucket", labels, count.to_string())
        };
        let counts = self.counts.iter().zip(BOUNDS);
        let mut samples: Vec<_> = counts
            .map(|(count, bound)| bucket(&bound.to_string(), *count))
            .collect();
        samples.push(bucket("+Inf", self.count));
        samples.push(("_sum", format!("{{{labels}}}"), self.sum.to_string()));
        samples.push(("_count", format!("{{{labels}}}"), self.count.to_string()));
        samples.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_counts_what_is_not_longer() {
        let mut times = Times::default();
        for milliseconds in [1, 30, 40_000] {
            times.note(Duration::from_millis(milliseconds));
        }
        let samples: Vec<_> = times.samples("route=\"a\"").collect();
        let of = |bound: &str| {
            let labels = format!("{{route=\"a\",le=\"{bound}\"}}");
            let found = samples.iter().find(|(_, known, _)| *known == labels);
            found.unwrap().2.clone()
        };
        let counts = ["0.001", "0.025", "0.05", "30", "+Inf"].map(of);
        assert_eq!(counts, ["1", "1", "2", "2", "3"]);
        let ("_sum", _, sum) = &samples[samples.len() - 2] else {
            panic!("{samples:?}");
        };
        assert_eq!(sum, "40.031");
    }
}
