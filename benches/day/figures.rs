//! What a day has shown, and what it means for a million clients.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quickbuild::digest::RecipeHash;

use crate::support::{Client, Service};
use crate::worker::Made;
use crate::{Day, SECONDS};

/// Bytes of an output as it is published and fetched: 66.1 MB for the 107 of the
/// axum service (docs/performance.md, "Substituters").
const OUTPUT: f64 = 618_000.0;
/// Clients of the day that is asked about.
const MANY: f64 = 1e6;
/// Dollars for storing a GB for a month, for sending a GB to the world, and for
/// an hour of a processor: round figures of list prices, to be replaced.
const PRICES: [f64; 3] = [0.023, 0.09, 0.04];
/// GB.
const GB: f64 = 1e9;

/// What clients saw within an hour.
#[derive(Default, Clone)]
pub(crate) struct Hour {
    pub(crate) clients: usize,
    pub(crate) hits: usize,
    pub(crate) misses: usize,
    pub(crate) reports: usize,
    /// Bytes of reports.
    pub(crate) bytes: usize,
    /// How long reports took, in real time.
    pub(crate) took: Vec<Duration>,
}

impl Hour {
    pub(crate) fn add(&mut self, other: Self) {
        self.clients += other.clients;
        self.hits += other.hits;
        self.misses += other.misses;
        self.reports += other.reports;
        self.bytes += other.bytes;
        self.took.extend(other.took);
    }

    fn rate(&self) -> f64 {
        self.hits as f64 / (self.hits + self.misses).max(1) as f64
    }
}

/// A look at the queue.
pub(crate) struct Moment {
    pub(crate) hour: usize,
    pub(crate) queued: u64,
    /// Real seconds that the oldest one has waited.
    pub(crate) waited: u64,
    /// Bytes of the database.
    pub(crate) database: f64,
    /// Workers without work.
    pub(crate) idle: usize,
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("it is later").as_secs()
}

/// The load average of the last minute.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn milliseconds(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    let position = (times.len().saturating_sub(1) as f64 * part) as usize;
    times
        .get(position)
        .map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}

/// Everything, as text.
pub(crate) fn report(day: &Day, made: &[Made], service: &Service) -> String {
    let hours = day.hours.lock().expect("no panic");
    let mut text = hourly(day, &hours);
    let mut all = Hour::default();
    for hour in hours.iter() {
        all.add(hour.clone());
    }
    text += &builds(day, made);
    let published = day.published.iter();
    let published = published.filter(|package| package.load(Ordering::Relaxed));
    let published = published.count();
    let saved = all.hits as f64 * SECONDS;
    let busy: f64 = made.iter().map(|made| made.compiled.len() as f64).sum();
    let _ = writeln!(
        text,
        "hit rate of the day {:.1} %; {saved:.0} s saved and {:.0} s compiled by clients, {:.0} s by \
         workers, at {SECONDS} s a package",
        all.rate() * 100.0,
        all.misses as f64 * SECONDS,
        busy * SECONDS
    );
    let database = size(&day.data);
    let grown = grown(day, &hours);
    let _ = writeln!(
        text,
        "{} reports, {:.0} kB each on average; p50 {:.0} ms, p99 {:.0} ms; {:.0} MB of database; {}",
        all.reports,
        all.bytes as f64 / all.reports.max(1) as f64 / 1_000.0,
        milliseconds(&mut all.took, 0.5),
        milliseconds(&mut all.took, 0.99),
        database / 1e6,
        service.usage()
    );
    text + &many(&all, published, grown, service.seconds(), busy * SECONDS)
}

fn hourly(day: &Day, hours: &[Hour]) -> String {
    let mut text = String::from(
        "hour  clients  hit rate  reports  kB each  queued (most)  oldest waits  idle\n",
    );
    let moments = day.moments.lock().expect("no panic");
    for (number, hour) in hours.iter().enumerate() {
        let own = || moments.iter().filter(|moment| moment.hour == number);
        let looks = own().count().max(1) as f64;
        let _ = writeln!(
            text,
            "{number:>4}  {:>7}  {:>6.1} %  {:>7}  {:>7.0}  {:>13}  {:>10} s  {:>4.1}",
            hour.clients,
            hour.rate() * 100.0,
            hour.reports,
            hour.bytes as f64 / hour.reports.max(1) as f64 / 1_000.0,
            own().map(|moment| moment.queued).max().unwrap_or(0),
            own().map(|moment| moment.waited).max().unwrap_or(0),
            own().map(|moment| moment.idle as f64).sum::<f64>() / looks,
        );
    }
    text
}

/// Whether something waited while a worker had nothing to do, and what was made
/// twice.
fn builds(day: &Day, made: &[Made]) -> String {
    let moments = day.moments.lock().expect("no panic");
    let (mut starved, mut longest) = (0, 0);
    for moment in moments.iter() {
        let is_starved = moment.queued > 0 && moment.idle > 0;
        starved = if is_starved { starved + 1 } else { 0 };
        longest = longest.max(starved);
    }
    let twice = |lists: Vec<&RecipeHash>| {
        let mut counts: HashMap<&RecipeHash, usize> = HashMap::new();
        for recipe in lists {
            *counts.entry(recipe).or_default() += 1;
        }
        counts.values().map(|count| count - 1).sum::<usize>()
    };
    let wanted: Vec<&RecipeHash> = made.iter().flat_map(|made| &made.wanted).collect();
    let compiled: Vec<&RecipeHash> = made.iter().flat_map(|made| &made.compiled).collect();
    let fetched: usize = made.iter().map(|made| made.fetched).sum();
    let (count, packages) = (wanted.len(), compiled.len());
    let mut sent: Vec<Duration> = made.iter().flat_map(|made| made.sent.clone()).collect();
    let busy: Vec<String> = made
        .iter()
        .map(|made| format!("{:.0}", made.busy))
        .collect();
    let mut connection = Client::new(&day.address);
    let mut answered = |path: &str| -> serde_json::Value {
        serde_json::from_str(&connection.get(path)).expect("JSON")
    };
    let overview = answered("/v1/builds?state=built&limit=1000");
    let built = overview["builds"].as_array().expect("a list");
    let mut leases = 0;
    for build in built {
        let told = answered(&format!("/v1/builds/{}", build["id"]));
        let tries = told["tries"].as_array().expect("a list").len();
        leases += tries.saturating_sub(1);
    }
    format!(
        "{count} builds of {packages} packages ({fetched} more were fetched); {} builds done twice, \
         {} packages compiled twice; of {} published builds, {leases} tries too many\n\
         a build waited while a worker had nothing to do: {longest} looks of 100 ms at most\n\
         workers compiled for {} s of the day's 86,400; outputs verified, signed and published: p50 \
         {:.0} ms, longest {:.0} ms\nat the end: {}\n",
        twice(wanted),
        twice(compiled),
        built.len(),
        busy.join(" and "),
        milliseconds(&mut sent, 0.5),
        milliseconds(&mut sent, 1.0),
        overview["overview"]
    )
}

/// Bytes that a client added to the database since noon, when most packages were
/// known.
fn grown(day: &Day, hours: &[Hour]) -> f64 {
    let moments = day.moments.lock().expect("no panic");
    let mut later = moments.iter().filter(|moment| moment.hour >= 12);
    let (first, last) = (later.next(), later.next_back());
    let grown = first
        .zip(last)
        .map(|(first, last)| last.database - first.database);
    let clients: usize = hours.iter().skip(12).map(|hour| hour.clients).sum();
    grown.unwrap_or_default() / clients.max(1) as f64
}

/// Bytes of the database's file; 0 if it is a server's.
pub(crate) fn size(data: &Path) -> f64 {
    let length = |name: &str| std::fs::metadata(data.join(name)).map_or(0, |file| file.len());
    length("service.sqlite") as f64
}

/// The same for a million clients, each as those here on average.
fn many(all: &Hour, published: usize, grown: f64, processor: f64, compiled: f64) -> String {
    let [storing, sending, computing] = PRICES;
    let factor = MANY / all.clients as f64;
    let reports = all.reports as f64 * factor;
    let egress = all.hits as f64 * factor * OUTPUT / GB;
    let stored = published as f64 * OUTPUT / GB;
    let (service, workers) = (processor * factor / 3_600.0, compiled / 3_600.0);
    format!(
        "a million clients like these (the middle of the afternoon has twice the average):\n\
         reports: {reports:.0}, {:.1} a second, {:.1} at most; {:.2} GB of them come in\n\
         the service: {:.2} processors on average, {:.2} at most; publishing included\n\
         the database grows by {:.1} GB, as it did after noon: {:.1} kB a client\n\
         fetched, if each client fetches all that it hits: {egress:.0} GB, {:.0} MB a second, {:.0} at \
         most; stored: {stored:.1} GB\n\
         cost of the day: sending {:.0} $ at {sending} $/GB, storing {:.2} $ at {storing} $/GB and month, \
         service {:.2} $ and workers {:.2} $ at {computing} $ an hour and processor\n",
        reports / 86_400.0,
        reports / 43_200.0,
        all.bytes as f64 * factor / GB,
        service / 24.0,
        service / 12.0,
        grown * MANY / GB,
        grown / 1_000.0,
        egress * 1_000.0 / 86_400.0,
        egress * 1_000.0 / 43_200.0,
        egress * sending,
        stored * storing / 30.0,
        service * computing,
        workers * computing
    )
}
