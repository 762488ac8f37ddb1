//! A substituter that is written to: documents are read, changed and replaced,
//! again and again until nobody else was faster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{PublishError, Result};
use crate::fs;
use crate::substituter::backend::{Added, Change, Content, Held, Version, Writer};
use crate::substituter::document::{INFO, MAX_DOCUMENT, MAX_INFO};
use crate::substituter::{
    ArchiveRef, CacheInfo, Document, INVENTORY, Inventory, Substituter, SubstituterError,
    archive_path,
};
use crate::workers::Workers;

/// How often a document is read and changed before it is given up.
const ATTEMPTS: u32 = 40;
/// How long after a push it is looked at what others have done meanwhile.
const MOMENT: Duration = Duration::from_millis(500);
/// How often it is looked whether others have overwritten what was written.
const LOOKS: u32 = 3;

/// A place that is written to.
pub(super) struct Place<'a> {
    substituter: &'a Substituter,
    writer: &'a dyn Writer,
    workers: Workers,
    /// What was written where others may overwrite it.
    written: Mutex<BTreeMap<String, Document>>,
}

impl<'a> Place<'a> {
    /// Makes ready to write.
    pub(super) fn open(substituter: &'a Substituter) -> Result<Self> {
        Ok(Self {
            writer: substituter.writer()?,
            workers: Workers::new(substituter.is_near()),
            written: Mutex::default(),
            substituter,
        })
    }

    pub(super) fn workers(&self) -> &Workers {
        &self.workers
    }

    pub(super) fn writer(&self) -> &dyn Writer {
        self.writer
    }

    /// Passes the fault injector, then changes something.
    fn change<T>(
        &self,
        path: &str,
        change: impl FnOnce() -> crate::substituter::Result<T>,
    ) -> Result<T> {
        let file = PathBuf::from(self.substituter.file(path));
        fs::at("change", &file, fs::fault::pass())?;
        Ok(change()?)
    }

    /// Makes the place a substituter, or sees that it is one of this format, and
    /// names the keys that its outputs are signed with.
    pub(super) fn introduce(&self, keys: &[String]) -> Result<()> {
        let url = self.substituter.file(INFO);
        self.change(INFO, || self.writer.prepare())?;
        for attempt in 1..=ATTEMPTS {
            let held = self.writer.read(INFO, MAX_INFO)?;
            let before = match &held {
                Some(held) => Some(CacheInfo::parse(&held.bytes, &url)?),
                None => None,
            };
            let mut info = before.clone().unwrap_or_default();
            for key in keys {
                if !info.keys.contains(key) {
                    info.keys.push(key.clone());
                }
            }
            if before.as_ref() == Some(&info) {
                return Ok(());
            }
            let version = held.map(|held| held.version);
            if self.replace(INFO, (&info.to_bytes(), &[]), version.as_ref())? == Change::Done {
                return Ok(());
            }
            pause(attempt);
        }
        Err(PublishError::Contended { path: url })
    }

    /// A file as it is now.
    pub(super) fn read(&self, path: &str) -> Result<Option<Held>> {
        Ok(self.writer.read(path, MAX_DOCUMENT)?)
    }

    /// Reads a document; a missing one is empty. One that has entries which this
    /// program does not understand must not be changed.
    pub(super) fn document(&self, path: &str, held: Option<&Held>) -> Result<Document> {
        let Some(held) = held else {
            return Ok(Document::default());
        };
        let url = self.substituter.file(path);
        let document = Document::parse(&held.bytes, &url)?;
        match document.refused.first() {
            None => Ok(document),
            Some(reason) => Err(PublishError::Newer {
                path: url,
                reason: reason.clone(),
            }),
        }
    }

    /// Puts the archive in a file into its place, unless it is there.
    pub(super) fn add(&self, file: &Path, archive: ArchiveRef) -> Result<Added> {
        let path = archive_path(archive.sha256);
        self.change(&path, || self.writer.add(&path, file, archive))
    }

    /// Changes a document, as often as others change it meanwhile. `first` is
    /// how it was read a moment ago, if it was.
    pub(super) fn update<T>(
        &self,
        path: &str,
        mut first: Option<Option<Held>>,
        mut change: impl FnMut(&mut Document) -> Result<T>,
    ) -> Result<T> {
        for attempt in 1..=ATTEMPTS {
            let held = match first.take() {
                Some(held) => held,
                None => self.read(path)?,
            };
            let before = self.document(path, held.as_ref())?;
            let mut document = before.clone();
            let made = change(&mut document)?;
            if document == before {
                return Ok(made);
            }
            let version = held.map(|held| held.version);
            if self.write(path, &document, version.as_ref())? == Change::Done {
                if self.writer.is_racy() {
                    let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                    written.insert(path.to_owned(), document);
                }
                return Ok(made);
            }
            pause(attempt);
        }
        Err(PublishError::Contended {
            path: self.substituter.file(path),
        })
    }

    /// Changes the inventory, as often as others change it meanwhile. It is advice
    /// only: one of a newer format is left alone, and so is a place that takes
    /// none.
    pub(super) fn take_stock(&self, change: impl Fn(&mut Inventory)) -> Result<()> {
        for attempt in 1..=ATTEMPTS {
            let held = self.read(INVENTORY)?;
            let before = match &held {
                Some(held) => match Inventory::parse(&held.bytes, INVENTORY) {
                    Err(SubstituterError::Format { .. }) => return Ok(()),
                    read => read.ok(),
                },
                None => None,
            };
            let mut inventory = before.clone().unwrap_or_default();
            change(&mut inventory);
            if before.unwrap_or_default() == inventory {
                return Ok(());
            }
            let version = held.map(|held| held.version);
            let changed = match inventory.packages.is_empty() {
                true => self.remove(INVENTORY, version.as_ref()),
                false => {
                    let bytes = inventory.to_bytes();
                    self.replace(INVENTORY, (&bytes, &[]), version.as_ref())
                }
            };
            match changed {
                Ok(Change::Done) => return Ok(()),
                Ok(Change::Lost) => pause(attempt),
                Err(PublishError::Substituter(SubstituterError::ReadOnly { .. })) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(PublishError::Contended {
            path: self.substituter.file(INVENTORY),
        })
    }

    /// Replaces a document that was read as `before`.
    pub(super) fn write(
        &self,
        path: &str,
        document: &Document,
        before: Option<&Version>,
    ) -> Result<Change> {
        let mut archives: Vec<ArchiveRef> = document.outputs.values().map(|e| e.archive).collect();
        archives.sort_by_key(|archive| archive.sha256);
        archives.dedup();
        self.replace(path, (&document.to_bytes(), &archives), before)
    }

    fn replace(
        &self,
        path: &str,
        (bytes, archives): (&[u8], &[ArchiveRef]),
        before: Option<&Version>,
    ) -> Result<Change> {
        let content = Content { bytes, archives };
        self.change(path, || self.writer.replace(path, content, before))
    }

    pub(super) fn remove(&self, path: &str, before: Option<&Version>) -> Result<Change> {
        self.change(path, || self.writer.remove(path, before))
    }

    /// Looks whether others, at the same time, have overwritten what was written
    /// where nothing keeps them from it, and writes it again.
    pub(super) fn settle(&self) -> Result<()> {
        for _ in 0..LOOKS {
            let written =
                std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
            if written.is_empty() {
                return Ok(());
            }
            // Longer than the moment between a writer's look and its replacement.
            std::thread::sleep(MOMENT);
            let written: Vec<_> = written.into_iter().collect();
            self.workers.each(&written, |(path, own)| {
                self.update(path, None, |document| {
                    document.add(own);
                    Ok(())
                })
            })?;
        }
        Ok(())
    }
}

/// A pause that grows, and that not all writers have at once.
fn pause(attempt: u32) {
    let mut random = [0; 1];
    // Without a random number all wait the same.
    let _ = getrandom::fill(&mut random);
    let longest = 10_u64 << attempt.min(5);
    std::thread::sleep(Duration::from_millis(
        1 + longest * u64::from(random[0]) / 256,
    ));
}
