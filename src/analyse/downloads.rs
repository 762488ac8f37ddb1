//! How often packages are downloaded, as weights: the tables of crates.io's dump of
//! its database (`db-dump.tar.gz`, unpacked), or one table of one's own.
//!
//! | file | columns that are read |
//! |---|---|
//! | `crates.csv` | `id`, `name`; `downloads`, which old dumps have here |
//! | `crate_downloads.csv` | `crate_id`, `downloads` |
//! | any other file | `name`, `downloads` |
//!
//! A package's downloads are divided among its trees as the lock files at hand have
//! them. Whoever has a tree has all below it, so nothing counts less than what needs
//! it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::census::Census;
use crate::fs::{self, FsError};

/// Downloads by package.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Downloads(HashMap<String, f64>);

/// A table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DownloadsError {
    /// It cannot be read.
    #[error("a table of downloads cannot be read")]
    File(#[from] FsError),
    /// It is not such a table.
    #[error("`{}` is no table of downloads: {reason}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Downloads {
    /// Reads the folder `data` of a dump, or one table.
    pub fn read(path: &Path) -> Result<Self, DownloadsError> {
        if !path.is_dir() {
            let rows = pairs(path, "name", "downloads")?;
            return Ok(Self(number(rows)));
        }
        let crates = path.join("crates.csv");
        let counts = path.join("crate_downloads.csv");
        if !counts.is_file() {
            return Ok(Self(number(pairs(&crates, "name", "downloads")?)));
        }
        let counts: HashMap<String, f64> = number(pairs(&counts, "crate_id", "downloads")?);
        let names = pairs(&crates, "id", "name")?.into_iter();
        let named = names.filter_map(|(id, name)| Some((name, *counts.get(&id)?)));
        Ok(Self(named.collect()))
    }

    /// What each tree of a census counts, given what it counts by projects.
    pub fn weights(&self, census: &Census, by_projects: &[f64]) -> Vec<f64> {
        let mut sums: HashMap<&str, f64> = HashMap::new();
        for (position, weight) in by_projects.iter().enumerate() {
            let name = census.package(position as u32).name.as_str();
            *sums.entry(name).or_default() += weight;
        }
        let mut weights: Vec<f64> = by_projects
            .iter()
            .enumerate()
            .map(|(position, weight)| {
                let name = census.package(position as u32).name.as_str();
                let downloads = self.0.get(name).copied().unwrap_or(0.0);
                downloads * weight / sums[name].max(f64::MIN_POSITIVE)
            })
            .collect();
        // Dependencies come first, so what needs a tree comes behind it.
        for position in (0..weights.len()).rev() {
            for child in &census.nodes[position].children {
                let child = *child as usize;
                weights[child] = weights[child].max(weights[position]);
            }
        }
        weights
    }
}

fn number(rows: Vec<(String, String)>) -> HashMap<String, f64> {
    let rows = rows.into_iter();
    let rows = rows.filter_map(|(name, count)| Some((name, count.parse().ok()?)));
    rows.filter(|(_, count): &(String, f64)| count.is_finite() && *count >= 0.0)
        .collect()
}

/// Two columns of a table.
fn pairs(path: &Path, first: &str, second: &str) -> Result<Vec<(String, String)>, DownloadsError> {
    let wrong = |reason: String| DownloadsError::Table {
        path: path.to_owned(),
        reason,
    };
    let bytes = fs::read(path)?;
    let text = String::from_utf8(bytes).map_err(|_bytes| wrong("it is not UTF-8".to_owned()))?;
    let mut records = Records(&text);
    let heading = records.next().unwrap_or_default();
    let column = |name: &str| {
        let found = heading.iter().position(|heading| heading == name);
        found.ok_or_else(|| wrong(format!("there is no column `{name}`")))
    };
    let (first, second) = (column(first)?, column(second)?);
    let pairs = records
        .filter_map(|record| Some((record.get(first)?.clone(), record.get(second)?.clone())));
    Ok(pairs.collect())
}

/// Records of comma-separated values (RFC 4180).
struct Records<'a>(&'a str);

impl Iterator for Records<'_> {
    type Item = Vec<String>;

    fn next(&mut self) -> Option<Vec<String>> {
        if self.0.is_empty() {
            return None;
        }
        let mut record = Vec::new();
        loop {
            let (field, end) = field(&mut self.0);
            record.push(field);
            if end != Some(',') {
                return Some(record);
            }
        }
    }
}

/// The next field, and what ended it.
fn field(text: &mut &str) -> (String, Option<char>) {
    let mut field = String::new();
    let mut characters = text.char_indices().peekable();
    let mut is_quoted = false;
    while let Some((at, c)) = characters.next() {
        match c {
            '"' if is_quoted && characters.peek().is_some_and(|(_, next)| *next == '"') => {
                characters.next();
                field.push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' | '\n' if !is_quoted => {
                *text = &text[at + 1..];
                return (field, Some(c));
            }
            '\r' if !is_quoted => {}
            _ => field.push(c),
        }
    }
    *text = "";
    (field, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_dump_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text.as_bytes()).unwrap();
            path
        };
        let own = put("own.csv", "downloads,name\r\n7,serde\r\nmany,tokio\r\n");
        let read = Downloads::read(&own).unwrap();
        assert_eq!(read.0, HashMap::from([("serde".to_owned(), 7.0)]));
        put(
            "crates.csv",
            "created_at,description,id,name\n2015,\"Says \"\"hi\"\",\nin two lines\",1,serde\n2016,,2,tokio\n",
        );
        put(
            "crate_downloads.csv",
            "crate_id,downloads\n1,100\n2,50\n3,9\n",
        );
        let read = Downloads::read(folder.path()).unwrap();
        assert_eq!(read.0.get("serde"), Some(&100.0));
        assert_eq!(read.0.get("tokio"), Some(&50.0));
        let wrong = put("wrong.csv", "a,b\n1,2\n");
        let error = Downloads::read(&wrong).unwrap_err();
        assert!(error.to_string().contains("no column `name`"), "{error}");
        assert!(Downloads::read(&folder.path().join("none.csv")).is_err());
    }
}
