//! What realisations said, and what they made valid.
//!
//! ```text
//! <store>/logs/<time>-<id>.log    what a builder said
//! <store>/logs/<time>-<id>.json   what it was about: an Entry
//! <store>/cache/realised/<key>    outputs of an order that is done, a name a line
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::build::chain;
use crate::digest::RecipeHash;
use crate::fs::{self, FsError};
use crate::output::Maker;
use crate::store::Store;

/// Logs that are kept.
const KEPT: usize = 200;

/// What a log is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// What was realised, for people.
    pub name: String,
    /// The builder.
    pub maker: Maker,
    /// Seconds since 1970 at its beginning and its end.
    pub started: i64,
    /// The same, of its end.
    pub finished: i64,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// The recipes that were wanted.
    pub recipes: Vec<RecipeHash>,
}

impl Entry {
    pub(super) fn begin(name: &str, maker: Maker) -> Self {
        Self {
            name: name.to_owned(),
            maker,
            started: fs::now().seconds(),
            finished: 0,
            error: None,
            recipes: Vec::new(),
        }
    }
}

/// A log that is being written.
pub(super) struct Log {
    path: PathBuf,
    file: Box<dyn Write>,
}

impl Log {
    /// Its name, without an ending.
    pub(super) fn name(&self) -> String {
        let stem = self.path.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    }

    /// Adds a line. A log that cannot be written is no reason to fail.
    pub(super) fn line(&mut self, line: &str) {
        let _ = writeln!(self.file, "{line}");
    }
}

/// The store's logs.
pub struct Journal {
    logs: PathBuf,
    realised: PathBuf,
}

impl Journal {
    /// The journal of a store.
    pub fn new(store: &Store) -> Self {
        Self {
            logs: store.root().join("logs"),
            realised: store.cache("realised"),
        }
    }

    pub(super) fn open(&self, entry: &Entry) -> Result<Log, FsError> {
        fs::create_dir_all(&self.logs)?;
        let name = format!("{}-{}", entry.started, std::process::id());
        let path = fs::unique_beside(&self.logs.join(name)).with_extension("log");
        let mut log = Log {
            file: Box::new(std::io::LineWriter::new(fs::create(&path)?)),
            path,
        };
        log.line(&format!("{}, by {}", entry.name, entry.maker));
        Ok(log)
    }

    pub(super) fn close(
        &self,
        mut log: Log,
        mut entry: Entry,
        error: Option<&super::RealiseError>,
    ) -> Result<PathBuf, FsError> {
        entry.finished = fs::now().seconds();
        entry.error = error.map(|error| chain(error));
        if let Some(error) = &entry.error {
            log.line(&format!("error: {error}"));
        }
        let _ = log.file.flush(); // as for each line
        let text = serde_json::to_vec(&entry).expect("an entry serialises");
        fs::write_atomic(&log.path.with_extension("json"), &text)?;
        self.trim()?;
        Ok(log.path)
    }

    /// Removes the oldest logs.
    fn trim(&self) -> Result<(), FsError> {
        let files = fs::list(&self.logs)?;
        for file in files.iter().rev().skip(2 * KEPT) {
            fs::remove_file(file)?;
        }
        Ok(())
    }

    /// The newest log that is about a recipe, or about what has this name, with
    /// its text.
    pub fn find(&self, wanted: &str) -> Option<(Entry, PathBuf)> {
        let files = fs::list(&self.logs).unwrap_or_default();
        let entries = files.iter().rev().filter(|file| is_entry(file));
        let mut found = entries.filter_map(|file| {
            let entry: Entry = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
            let is_about = entry.name.split(' ').next() == Some(wanted)
                || entry.name == wanted
                || wanted.len() >= 4
                    && entry
                        .recipes
                        .iter()
                        .any(|recipe| recipe.to_string().starts_with(wanted));
            is_about.then(|| (entry, file.with_extension("log")))
        });
        found.next()
    }

    /// What an order made valid before.
    pub(super) fn realised(&self, key: RecipeHash) -> Option<Vec<String>> {
        let text = fs::read_text(&self.realised.join(key.to_string())).ok()?;
        Some(text.lines().map(str::to_owned).collect())
    }

    /// Notes that an order is done.
    pub(super) fn remember(&self, key: RecipeHash, outputs: &[String]) -> Result<(), FsError> {
        fs::create_dir_all(&self.realised)?;
        let text = outputs.join("\n");
        fs::write_atomic(&self.realised.join(key.to_string()), text.as_bytes())
    }
}

fn is_entry(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "json")
}
