//! How long what was prebuilt for a lock file lasts: a Git repository's own history
//! of its `Cargo.lock`, by the times of its commits.
//!
//! Whoever has built a lock file of some day finds, so many days later, that part of
//! its trees in the lock file of that day. Each version of the file is a beginning
//! once; what lies beyond the last commit is not judged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use super::costs::Measurements;
use super::trees;
use crate::cargo::index_cache::IndexCache;
use crate::cargo::lock_graph::LockGraph;
use crate::cargo::{CargoError, output_of};
use crate::digest::TreeHash;

/// Days that are looked at.
pub const DAYS: [i64; 8] = [1, 3, 7, 14, 30, 60, 90, 180];
/// Versions that are read at most, the latest ones.
const MOST: usize = 2_000;
const DAY: i64 = 86_400;

/// How one lock file moved.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct History {
    /// The lock file.
    pub path: String,
    /// Versions of it that could be read.
    pub versions: usize,
    /// Versions that could not, such as those with the marks of a merge.
    pub broken: usize,
    /// Days from the first to the last.
    pub days: i64,
    /// What was left after so many days.
    pub points: Vec<Survival>,
}

/// What is left after some days.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Survival {
    /// So many days later.
    pub days: i64,
    /// Versions with which it was measured.
    pub samples: usize,
    /// Share of their trees that the later one has.
    pub trees: f64,
    /// Share of the seconds of these trees.
    pub seconds: f64,
}

/// A version of a lock file.
struct Version {
    time: i64,
    /// Trees with their seconds.
    trees: Vec<(TreeHash, f64)>,
    hashes: BTreeSet<TreeHash>,
}

/// Reads the history of a lock file in the Git repository around it; the lock file
/// of a folder, if that is what `path` is.
pub fn history(
    path: &Path,
    index: Option<&IndexCache>,
    measurements: &Measurements,
) -> Result<History, CargoError> {
    let file: PathBuf = match path.is_dir() {
        true => path.join("Cargo.lock"),
        false => path.to_owned(),
    };
    let folder = file.parent().unwrap_or(Path::new("."));
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        output_of(command.arg("-C").arg(folder).args(arguments))
    };
    let limit = format!("--max-count={MOST}");
    let commits = git(&["log", &limit, "--format=%H %ct", "--", "Cargo.lock"])?;
    let mut versions = Vec::new();
    let mut broken = 0;
    for line in commits.lines() {
        let Some((commit, time)) = line.split_once(' ') else {
            continue;
        };
        let Ok(time) = time.parse() else { continue };
        let read = git(&["show", &format!("{commit}:./Cargo.lock")]);
        // It may have been removed by this commit.
        match read.map(|text| LockGraph::parse(text.as_bytes())) {
            Ok(Ok(lock)) => versions.push(version(time, lock, index, measurements)),
            _ => broken += 1,
        }
    }
    // Commits may have any time.
    versions.sort_by_key(|version| version.time);
    let last = git(&["log", "--max-count=1", "--format=%ct"])?;
    let first = versions.first().map_or(0, |version| version.time);
    let end = versions.last().map_or(0, |version| version.time);
    let end: i64 = last.trim().parse().unwrap_or(end).max(end);
    let points = DAYS.iter().map(|days| survival(&versions, *days, end));
    Ok(History {
        path: file.display().to_string(),
        versions: versions.len(),
        broken,
        days: (end - first) / DAY,
        points: points.flatten().collect(),
    })
}

fn version(
    time: i64,
    mut lock: LockGraph,
    index: Option<&IndexCache>,
    measurements: &Measurements,
) -> Version {
    if let Some(index) = index {
        trees::cut(&mut lock, index);
    }
    let trees = trees::trees(&lock).into_iter().map(|tree| {
        let package = &lock.packages[tree.package];
        let seconds = measurements.seconds(&package.name, &package.version);
        (tree.hash, seconds)
    });
    let trees: Vec<(TreeHash, f64)> = trees.collect();
    Version {
        time,
        hashes: trees.iter().map(|(hash, _)| *hash).collect(),
        trees,
    }
}

/// `None` where nothing is so old.
fn survival(versions: &[Version], days: i64, end: i64) -> Option<Survival> {
    let mut samples = 0;
    let (mut trees, mut seconds) = (0.0, 0.0);
    for (position, first) in versions.iter().enumerate() {
        let later = first.time + days * DAY;
        if later > end || first.trees.is_empty() {
            continue;
        }
        let followers = versions[position..].iter();
        let Some(then) = followers.take_while(|version| version.time <= later).last() else {
            continue;
        };
        let left = first
            .trees
            .iter()
            .filter(|(hash, _)| then.hashes.contains(hash));
        let left: Vec<f64> = left.map(|(_, seconds)| *seconds).collect();
        let all: f64 = first.trees.iter().map(|(_, seconds)| seconds).sum();
        samples += 1;
        trees += left.len() as f64 / first.trees.len() as f64;
        seconds += left.iter().sum::<f64>() / all.max(f64::MIN_POSITIVE);
    }
    (samples > 0).then(|| Survival {
        days,
        samples,
        trees: trees / samples as f64,
        seconds: seconds / samples as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo::lock_graph::LockedPackage;
    use crate::cargo::source::CRATES_IO;

    #[test]
    fn what_is_left_is_judged_by_the_lock_file_of_the_day() {
        let at = |day: i64, names: &[&str]| {
            let package = |name: &&str| LockedPackage {
                name: (*name).to_owned(),
                version: "1.0.0".to_owned(),
                source: Some(CRATES_IO.to_owned()),
                dependencies: Vec::new(),
            };
            let lock = LockGraph {
                packages: names.iter().map(package).collect(),
            };
            version(day * DAY, lock, None, &Measurements::default())
        };
        let versions = [at(0, &["a", "b"]), at(2, &["a", "c"]), at(9, &["d"])];
        let end = 10 * DAY;
        let one = survival(&versions, 1, end).unwrap();
        // All three are whole a day later.
        assert_eq!((one.samples, one.trees), (3, 1.0));
        let week = survival(&versions, 7, end).unwrap();
        // Of the first, one of two is left; of the second, nothing.
        assert_eq!((week.samples, week.trees), (2, 0.25));
        assert_eq!(survival(&versions, 30, end), None);
    }
}
