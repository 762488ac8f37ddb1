//! Lock files, and what is known of the projects they belong to.
//!
//! A folder is searched for files named `Cargo.lock`; `target`, `node_modules`
//! and folders whose name begins with a dot are left out, and so are symbolic
//! links. A table (`index.tsv`) may say more of projects: a heading, then a line
//! for each, fields parted by tabs, `-` for what is not known.
//!
//! | column | meaning |
//! |---|---|
//! | `name` | the folder of the lock file, relative to the table's |
//! | `source` | where it is from; up to an `@` it names the repository |
//! | `date` | when it was last changed, `YYYY-MM-DD` |
//! | `tier` | any word, to choose by |
//!
//! Without a table, each folder below the searched one is a repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cargo::lock_graph::{LockError, LockGraph};
use crate::fs::{self, FsError, Stamp};
use crate::output::provenance::Timestamp;

/// A lock file of more bytes is no work of Cargo's.
pub const MAX_BYTES: u64 = 32 << 20;

/// A lock file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// What it is called in reports.
    pub name: String,
    /// Projects of one repository are not counted against each other.
    pub repository: String,
    /// Days since 1970-01-01 when it was last changed.
    pub day: Option<i64>,
    /// A word to choose by.
    pub tier: Option<String>,
}

/// Why a lock file, or a folder, is left out.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[from] FsError),
    /// It is too large.
    #[error("it has {size} bytes, at most {MAX_BYTES} are read")]
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// It is no lock file.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It is a symbolic link, and could be counted twice.
    #[error("it is a symbolic link")]
    Link,
    /// The table is not as it should be.
    #[error("line {line}: {reason}")]
    Table {
        /// Counted from one.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

/// What was found, and what was left out.
#[derive(Debug, Default)]
pub struct Search {
    /// Sorted by repository and name.
    pub found: Vec<Found>,
    /// What was left out, with the reason.
    pub faults: Vec<(PathBuf, Fault)>,
}

impl Search {
    /// Looks for lock files in folders, and takes files as they are.
    pub fn run(paths: &[PathBuf]) -> Self {
        let mut search = Self::default();
        for path in paths {
            if path.is_dir() {
                search.folder(path);
            } else {
                let name = path.display().to_string();
                search.found.push(Found {
                    path: path.clone(),
                    repository: name.clone(),
                    name,
                    day: None,
                    tier: None,
                });
            }
        }
        search
            .found
            .sort_by(|a, b| (&a.repository, &a.name).cmp(&(&b.repository, &b.name)));
        search.found.dedup_by(|a, b| a.path == b.path);
        search
    }

    fn folder(&mut self, root: &Path) {
        let table = root.join("index.tsv");
        let table = match fs::read_optional(&table) {
            Ok(None) => BTreeMap::new(),
            Ok(Some(bytes)) => match read_table(&bytes) {
                Ok(rows) => rows,
                Err(fault) => {
                    self.faults.push((table, fault));
                    BTreeMap::new()
                }
            },
            Err(error) => {
                self.faults.push((table, error.into()));
                BTreeMap::new()
            }
        };
        let mut open = vec![root.to_owned()];
        while let Some(folder) = open.pop() {
            let entries = match fs::list(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    self.faults.push((folder, error.into()));
                    continue;
                }
            };
            for path in entries {
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if path.is_symlink() {
                    if name == "Cargo.lock" {
                        self.faults.push((path, Fault::Link));
                    }
                } else if path.is_dir() {
                    if !name.starts_with('.') && name != "target" && name != "node_modules" {
                        open.push(path);
                    }
                } else if name == "Cargo.lock" {
                    self.found.push(describe(root, &table, path));
                }
            }
        }
    }
}

/// What is known of a lock file below a searched folder.
fn describe(root: &Path, table: &BTreeMap<String, Row>, path: PathBuf) -> Found {
    let folder = path.parent().unwrap_or(root);
    let name = folder.strip_prefix(root).unwrap_or(folder);
    let first = name.components().next();
    let first = first.map_or_else(
        || root.display().to_string(),
        |first| first.as_os_str().to_string_lossy().into_owned(),
    );
    let name = match name.as_os_str().is_empty() {
        true => root.display().to_string(),
        false => name.display().to_string(),
    };
    let row = table.get(&name).cloned().unwrap_or_default();
    Found {
        path,
        name,
        repository: row.repository.unwrap_or(first),
        day: row.day,
        tier: row.tier,
    }
}

/// Reads one lock file.
pub fn read(path: &Path) -> Result<LockGraph, Fault> {
    let size = Stamp::of(path).map_or(0, |stamp| stamp.size);
    if size > MAX_BYTES {
        return Err(Fault::TooLarge { size });
    }
    Ok(LockGraph::parse(&fs::read(path)?)?)
}

#[derive(Debug, Clone, Default)]
struct Row {
    repository: Option<String>,
    day: Option<i64>,
    tier: Option<String>,
}

fn read_table(bytes: &[u8]) -> Result<BTreeMap<String, Row>, Fault> {
    let fault = |line: usize, reason| Fault::Table { line, reason };
    let text = std::str::from_utf8(bytes).map_err(|_bytes| fault(1, "not UTF-8"))?;
    let mut lines = text.lines();
    let heading: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let column = |name: &str| heading.iter().position(|heading| *heading == name);
    let name = column("name").ok_or_else(|| fault(1, "there is no column `name`"))?;
    let (source, date, tier) = (column("source"), column("date"), column("tier"));
    let mut rows = BTreeMap::new();
    for (position, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let fields: Vec<&str> = line.split('\t').collect();
        let field = |column: Option<usize>| {
            let field = column.and_then(|column| fields.get(column)).copied();
            field.filter(|field| !field.is_empty() && *field != "-")
        };
        let name = field(Some(name)).ok_or_else(|| fault(position + 2, "the name is missing"))?;
        let day = match field(date) {
            None => None,
            Some(date) => {
                let day = parse_day(date);
                Some(day.ok_or_else(|| fault(position + 2, "a date is not `YYYY-MM-DD`"))?)
            }
        };
        let repository = field(source).map(|source| {
            source
                .split_once('@')
                .map_or(source, |(source, _)| source)
                .to_owned()
        });
        let row = Row {
            repository,
            day,
            tier: field(tier).map(str::to_owned),
        };
        rows.insert(name.to_owned(), row);
    }
    Ok(rows)
}

/// Days since 1970-01-01 of a date such as `2026-11-24`.
pub fn parse_day(text: &str) -> Option<i64> {
    let midnight: Timestamp = format!("{text}T00:00:00Z").parse().ok()?;
    Some(midnight.seconds().div_euclid(86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        assert_eq!(parse_day("1970-01-01"), Some(0));
        assert_eq!(parse_day("2000-02-29"), Some(11_016));
        assert_eq!(parse_day("2026-11-24"), Some(20_781));
        for wrong in ["2026-13-01", "2026-1-01", "today", "2026-11", "+026-11-01"] {
            assert_eq!(parse_day(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn folders_are_searched_and_a_table_is_believed() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text.as_bytes()).unwrap();
        };
        put("one/Cargo.lock", "");
        put("one/deep/Cargo.lock", "");
        put("two/Cargo.lock", "");
        put("two/target/package/Cargo.lock", "");
        put(
            "index.tsv",
            "name\ttier\tsource\tdate\none/deep\tlib\tgithub x/y@0123\t2026-11-24\n",
        );
        fs::symlink(
            &root.path().join("two/Cargo.lock"),
            &root.path().join("one/link"),
        )
        .unwrap();
        fs::symlink(&root.path().join("two"), &root.path().join("three")).unwrap();
        let search = Search::run(&[root.path().to_owned()]);
        let seen: Vec<_> = search
            .found
            .iter()
            .map(|found| {
                (
                    found.name.as_str(),
                    found.repository.as_str(),
                    found.day,
                    found.tier.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("one/deep", "github x/y", Some(20_781), Some("lib")),
                ("one", "one", None, None),
                ("two", "two", None, None),
            ]
        );
        assert!(search.faults.is_empty());
    }

    #[test]
    fn a_link_and_a_large_file_are_named() {
        let root = tempfile::tempdir().unwrap();
        fs::write(&root.path().join("real"), b"").unwrap();
        fs::symlink(&root.path().join("real"), &root.path().join("Cargo.lock")).unwrap();
        let search = Search::run(&[root.path().to_owned()]);
        assert!(matches!(search.faults[..], [(_, Fault::Link)]));
        let large = root.path().join("large");
        fs::create(&large).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(matches!(read(&large), Err(Fault::TooLarge { .. })));
    }
}
