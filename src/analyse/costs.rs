//! How long a package compiles and how large its output is: measured where
//! somebody compiled it, and estimated elsewhere.
//!
//! Measured: outputs of a store, and the reports of `cargo build --timings`
//! (Cargo book, "Reporting build timings"), whose page has its figures as JSON in
//! `UNIT_DATA`. Another version of a measured package counts as measured for
//! this one, since most versions differ little.
//!
//! Estimated: a least-squares fit of the logarithm of the seconds to a few
//! properties that are known without compiling. How wrong it is, is measured on
//! packages that the fit has not seen and stands in the report.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::census::{Census, fold};
use crate::fs::{self, FsError, Stamp};
use crate::output::Produced;
use crate::store::{Store, StoreError};

/// Parts that packages are divided into, by name, to measure the error.
const FOLDS: usize = 5;
/// Packages that a fit needs at least.
const FEWEST: usize = 30;
/// Added to the diagonal, so that properties that say the same do no harm.
const RIDGE: f64 = 1.0;
const PROPERTIES: usize = 6;
/// Which of them is the logarithm of the archive's size; 0 where that is not known.
const ARCHIVE: usize = 5;

/// How a figure came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// This version was compiled.
    Measured,
    /// Another version of it was.
    OtherVersion,
    /// It is estimated.
    Estimated,
}

/// What a package costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Seconds of one processor to compile its library, with its build script.
    pub seconds: f64,
    /// Bytes of its output.
    pub bytes: f64,
    /// How the seconds are known.
    pub origin: Origin,
}

/// How far estimates are off, on packages that were held out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FitError {
    /// Packages that were measured.
    pub packages: usize,
    /// How far off they are.
    #[serde(flatten)]
    pub off: Off,
    /// The same where archives are not at hand.
    pub without_archives: Off,
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (off, without) = (&self.off, &self.without_archives);
        write!(
            f,
            "On {} packages that were held out, half of the estimates are off by less than a factor of {:.1}, nine of ten by less than {:.1}; all together are {:.2} of what was measured. \
             Without their archives it would be {:.1}, {:.1} and {:.2}.",
            self.packages,
            off.median_factor,
            off.ninth_factor,
            off.total_ratio,
            without.median_factor,
            without.ninth_factor,
            without.total_ratio
        )
    }
}

/// How far estimates are off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Off {
    /// Half of the estimates are off by less than this factor.
    pub median_factor: f64,
    /// Nine of ten are off by less than this factor.
    pub ninth_factor: f64,
    /// All estimated seconds together, divided by the measured ones.
    pub total_ratio: f64,
}

/// Why measurements cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CostError {
    /// A store.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// A file.
    #[error("a report cannot be read")]
    File(#[from] FsError),
    /// A report is none.
    #[error("`{path}` has no `UNIT_DATA`, so it is no report of `cargo build --timings`")]
    Report {
        /// The file.
        path: PathBuf,
    },
}

type Key = (String, String);

/// Measured seconds and bytes.
#[derive(Debug, Default)]
pub struct Measurements {
    /// By package, then by what was compiled: one figure for each compilation.
    seconds: BTreeMap<Key, BTreeMap<String, Vec<f64>>>,
    bytes: BTreeMap<Key, BTreeMap<String, Vec<f64>>>,
    /// Bytes of archives of packages.
    archives: HashMap<String, f64>,
}

#[derive(Deserialize)]
struct TimedUnit {
    name: String,
    version: String,
    #[serde(default)]
    mode: String,
    #[serde(default)]
    target: String,
    duration: f64,
}

impl Measurements {
    /// Takes what the outputs of a store say.
    pub fn add_store(&mut self, store: &Store) -> Result<(), CostError> {
        for name in store.names()? {
            let Some(output) = store.output(&name) else {
                continue;
            };
            let library = matches!(
                output.target_kind.as_str(),
                "lib" | "proc-macro" | "build-script" | "build-run"
            );
            if !library || !matches!(output.produced, Produced::Build | Produced::Run) {
                continue;
            }
            let bytes: u64 = output.files.iter().map(|file| file.size).sum();
            let key = (output.name, output.version);
            let part = output.target_kind;
            record(&mut self.seconds, &key, &part, output.seconds);
            record(&mut self.bytes, &key, &part, bytes as f64);
        }
        Ok(())
    }

    /// Takes a page that `cargo build --timings` wrote.
    pub fn add_report(&mut self, path: &Path) -> Result<(), CostError> {
        let text = fs::read_text(path)?;
        let units = text.split_once("UNIT_DATA = ").and_then(|(_, rest)| {
            let mut values = serde_json::Deserializer::from_str(rest).into_iter();
            values.next()?.ok()
        });
        let units: Vec<TimedUnit> = units.ok_or_else(|| CostError::Report {
            path: path.to_owned(),
        })?;
        for unit in units {
            // A target that is no library is named: ` bin "x"`, ` test "y"`.
            let part = match (unit.mode.as_str(), unit.target.trim()) {
                ("run-custom-build", _) => "build-run",
                (_, "build-script" | "build script") => "build-script",
                (_, "" | "lib") => "lib",
                _ => continue,
            };
            let key = (unit.name, unit.version);
            record(&mut self.seconds, &key, part, unit.duration);
        }
        Ok(())
    }

    /// Looks at the sizes of the archives in a Cargo home.
    pub fn add_archives(&mut self, cargo_home: &Path) -> Result<(), CostError> {
        for registry in fs::list(&cargo_home.join("registry/cache"))? {
            for path in fs::list_unsorted(&registry)? {
                let Some(stamp) = Stamp::of(&path) else {
                    continue;
                };
                if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
                    self.archives.insert(name.to_owned(), stamp.size as f64);
                }
            }
        }
        Ok(())
    }

    /// Seconds of a package as they were measured, of this version or else of
    /// others; where nothing was, one second.
    pub fn seconds(&self, name: &str, version: &str) -> f64 {
        let sum = |parts: &BTreeMap<String, Vec<f64>>| -> f64 {
            parts.values().map(|part| median(part)).sum()
        };
        let key = (name.to_owned(), version.to_owned());
        if let Some(parts) = self.seconds.get(&key) {
            return sum(parts);
        }
        let first = (name.to_owned(), String::new());
        let same = self.seconds.range(first..);
        let same = same.take_while(|((other, _), _)| other == name);
        let all: Vec<f64> = same.map(|(_, parts)| sum(parts)).collect();
        if all.is_empty() { 1.0 } else { median(&all) }
    }

    /// How many packages were measured.
    pub fn len(&self) -> usize {
        self.seconds.len()
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.seconds.is_empty()
    }

    /// What each package of a census costs, and how wrong estimates are; `None`
    /// where too little was measured for a fit. Without any, a package costs
    /// one second and one megabyte, and everything counts packages.
    pub fn costs(&self, census: &Census) -> (Vec<Cost>, Option<FitError>) {
        let properties = self.properties(census);
        let seconds = figures(&self.seconds);
        let bytes = figures(&self.bytes);
        let sample = |figures: &BTreeMap<Key, f64>| -> Vec<Point> {
            let packages = census.packages.iter().enumerate();
            let points = packages.filter_map(|(position, package)| {
                let key = (package.name.clone(), package.version.clone());
                Some(Point {
                    name: package.name.clone(),
                    properties: properties[position],
                    // Timers are not finer.
                    value: figures.get(&key)?.max(0.01),
                })
            });
            points.collect()
        };
        let points = sample(&seconds);
        let error = (points.len() >= FEWEST).then(|| held_out(&points));
        let time = Estimator::of(&points, 1.0);
        let size = Estimator::of(&sample(&bytes), 1e6);
        let (near_seconds, near_bytes) = (by_name(&seconds), by_name(&bytes));
        let costs = census
            .packages
            .iter()
            .enumerate()
            .map(|(position, package)| {
                let key = (package.name.clone(), package.version.clone());
                let (seconds, origin) = match (seconds.get(&key), near_seconds.get(&key.0)) {
                    (Some(seconds), _) => (*seconds, Origin::Measured),
                    (None, Some(seconds)) => (*seconds, Origin::OtherVersion),
                    (None, None) => (time.estimate(&properties[position]), Origin::Estimated),
                };
                let known = bytes.get(&key).or_else(|| near_bytes.get(&key.0)).copied();
                Cost {
                    seconds: seconds.max(0.01),
                    bytes: known.unwrap_or_else(|| size.estimate(&properties[position])),
                    origin,
                }
            });
        (costs.collect(), error)
    }

    /// What is known of packages without compiling them.
    fn properties(&self, census: &Census) -> Vec<[f64; PROPERTIES]> {
        // The tree that most projects have stands for the package.
        let mut children = vec![(0u32, 0usize); census.packages.len()];
        let mut dependants = vec![0usize; census.packages.len()];
        for node in &census.nodes {
            let entry = &mut children[node.package as usize];
            *entry = (*entry).max((node.projects, node.children.len()));
            for child in &node.children {
                dependants[census.nodes[*child as usize].package as usize] += 1;
            }
        }
        let packages = census.packages.iter().enumerate();
        let properties = packages.map(|(position, package)| {
            let archive = format!("{}-{}", package.name, package.version);
            let archive = self.archives.get(&archive);
            let name = package.name.as_str();
            let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
            [
                1.0,
                (children[position].1 as f64).ln_1p(),
                (dependants[position] as f64).ln_1p(),
                f64::from(ends(&["derive", "macros", "macro", "impl"])),
                f64::from(ends(&["-sys"])),
                archive.map_or(0.0, |bytes| bytes.ln()),
            ]
        });
        properties.collect()
    }
}

fn record(to: &mut BTreeMap<Key, BTreeMap<String, Vec<f64>>>, key: &Key, part: &str, value: f64) {
    let parts = to.entry(key.clone()).or_default();
    parts.entry(part.to_owned()).or_default().push(value);
}

/// The median of each part, added up.
fn figures(measured: &BTreeMap<Key, BTreeMap<String, Vec<f64>>>) -> BTreeMap<Key, f64> {
    let figure = |parts: &BTreeMap<String, Vec<f64>>| parts.values().map(|part| median(part)).sum();
    let figures = measured
        .iter()
        .map(|(key, parts)| (key.clone(), figure(parts)));
    figures.collect()
}

/// The median of all versions.
fn by_name(figures: &BTreeMap<Key, f64>) -> BTreeMap<String, f64> {
    let mut names: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for ((name, _), figure) in figures {
        names.entry(name.clone()).or_default().push(*figure);
    }
    names
        .into_iter()
        .map(|(name, figures)| (name, median(&figures)))
        .collect()
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * share).round() as usize)
        .copied()
        .unwrap_or(0.0)
}

/// A package that was measured.
#[derive(Clone)]
struct Point {
    name: String,
    properties: [f64; PROPERTIES],
    value: f64,
}

impl Point {
    fn without_archive(&self) -> Self {
        let mut point = self.clone();
        point.properties[ARCHIVE] = 0.0;
        point
    }
}

/// What estimates packages whose archive is at hand, and those whose is not: what was
/// compiled has one, so one fit cannot tell what it means to have none.
struct Estimator {
    known: Fit,
    hidden: Fit,
}

impl Estimator {
    fn of(points: &[Point], otherwise: f64) -> Self {
        let hidden: Vec<Point> = points.iter().map(Point::without_archive).collect();
        let hidden = Fit::of(&hidden, otherwise);
        let known = points
            .iter()
            .filter(|point| point.properties[ARCHIVE] > 0.0);
        let known: Vec<Point> = known.cloned().collect();
        Self {
            known: match known.len() < FEWEST {
                true => hidden.clone(),
                false => Fit::of(&known, otherwise),
            },
            hidden,
        }
    }

    fn estimate(&self, properties: &[f64; PROPERTIES]) -> f64 {
        let fit = match properties[ARCHIVE] > 0.0 {
            true => &self.known,
            false => &self.hidden,
        };
        fit.estimate(properties)
    }
}

/// A straight line through logarithms.
#[derive(Clone)]
struct Fit {
    weights: [f64; PROPERTIES],
    /// What an average of logarithms falls short of an average.
    scale: f64,
}

impl Fit {
    fn of(points: &[Point], otherwise: f64) -> Self {
        if points.len() < FEWEST {
            let mut weights = [0.0; PROPERTIES];
            let known: Vec<f64> = points.iter().map(|point| point.value).collect();
            let typical = if known.is_empty() {
                otherwise
            } else {
                median(&known)
            };
            weights[0] = typical.ln();
            return Self {
                weights,
                scale: 1.0,
            };
        }
        let mut system = [[0.0; PROPERTIES + 1]; PROPERTIES];
        for point in points {
            let wanted = point.value.ln();
            for (row, one) in system.iter_mut().zip(point.properties) {
                for (cell, other) in row.iter_mut().zip(point.properties) {
                    *cell += one * other;
                }
                row[PROPERTIES] += one * wanted;
            }
        }
        for (position, row) in system.iter_mut().enumerate() {
            row[position] += RIDGE;
        }
        let mut fit = Self {
            weights: solve(system),
            scale: 1.0,
        };
        let estimated: f64 = points
            .iter()
            .map(|point| fit.estimate(&point.properties))
            .sum();
        let measured: f64 = points.iter().map(|point| point.value).sum();
        fit.scale = measured / estimated;
        fit
    }

    fn estimate(&self, properties: &[f64; PROPERTIES]) -> f64 {
        let terms = self.weights.iter().zip(properties);
        terms
            .map(|(weight, property)| weight * property)
            .sum::<f64>()
            .exp()
            * self.scale
    }
}

/// Gauss's elimination; the ridge keeps every pivot away from zero.
fn solve(mut system: [[f64; PROPERTIES + 1]; PROPERTIES]) -> [f64; PROPERTIES] {
    for column in 0..PROPERTIES {
        let pivot = (column..PROPERTIES)
            .max_by(|a, b| {
                system[*a][column]
                    .abs()
                    .total_cmp(&system[*b][column].abs())
            })
            .unwrap_or(column);
        system.swap(column, pivot);
        let base = system[column];
        for row in &mut system[column + 1..] {
            let factor = row[column] / base[column];
            for (cell, other) in row.iter_mut().zip(base).skip(column) {
                *cell -= factor * other;
            }
        }
    }
    let mut solution = [0.0; PROPERTIES];
    for row in (0..PROPERTIES).rev() {
        let known: f64 = (row + 1..PROPERTIES)
            .map(|c| system[row][c] * solution[c])
            .sum();
        solution[row] = (system[row][PROPERTIES] - known) / system[row][row];
    }
    solution
}

/// Fits on four parts and looks at the fifth, five times.
fn held_out(points: &[Point]) -> FitError {
    let (mut known, mut hidden) = (Vec::new(), Vec::new());
    for held in 0..FOLDS {
        let is_held = |point: &&Point| fold(&point.name, FOLDS) == held;
        let training = points.iter().filter(|point| !is_held(point));
        let estimator = Estimator::of(&training.cloned().collect::<Vec<_>>(), 1.0);
        for point in points.iter().filter(is_held) {
            let estimate = |point: &Point| (estimator.estimate(&point.properties), point.value);
            known.push(estimate(point));
            hidden.push(estimate(&point.without_archive()));
        }
    }
    FitError {
        packages: points.len(),
        off: off(&known),
        without_archives: off(&hidden),
    }
}

/// Of estimates, each with what was measured.
fn off(pairs: &[(f64, f64)]) -> Off {
    let factors = pairs
        .iter()
        .map(|(estimate, value)| (estimate / value).ln().abs());
    let factors: Vec<f64> = factors.collect();
    let sum = |part: fn(&(f64, f64)) -> f64| pairs.iter().map(part).sum::<f64>();
    Off {
        median_factor: quantile(&factors, 0.5).exp(),
        ninth_factor: quantile(&factors, 0.9).exp(),
        total_ratio: sum(|pair| pair.0) / sum(|pair| pair.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that was compiled has an archive; a package without one is an average one.
    #[test]
    fn an_archive_that_is_not_at_hand_is_not_an_empty_one() {
        let points = (1..=100).map(|number| {
            let bytes = f64::from(number) * 1e4;
            Point {
                name: format!("package-{number}"),
                properties: [1.0, 0.0, 0.0, 0.0, 0.0, bytes.ln()],
                value: bytes / 1e5,
            }
        });
        let points: Vec<Point> = points.collect();
        let estimator = Estimator::of(&points, 1.0);
        let large = estimator.estimate(&points[99].properties);
        assert!((6.0..12.0).contains(&large), "{large}");
        let average = estimator.estimate(&points[99].without_archive().properties);
        assert!((4.0..6.0).contains(&average), "{average}");
        let error = held_out(&points);
        assert!(error.off.median_factor < error.without_archives.median_factor);
        assert!(
            (0.9..1.1).contains(&error.without_archives.total_ratio),
            "{error}"
        );
    }
}
