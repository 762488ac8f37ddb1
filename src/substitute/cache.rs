//! What substituters answered, for a while.
//!
//! ```text
//! <store>/cache/substituters/<id>/
//!   place                 whose answers these are
//!   info                  its quickbuild-cache.json
//!   recipes-… closures-…  documents; empty where there is none
//!   outage                why it is left out
//! ```
//!
//! A file's time is that of the answer. Nothing here is believed more than the
//! substituter itself: what comes from here is verified all the same.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::digest::{Canonical, OutputId};
use crate::fs::{self, Stamp};
use crate::store::Store;

/// How long it counts what a substituter says of itself.
pub const INFO_LIFETIME: Duration = Duration::from_secs(3_600);
/// How long a document counts.
pub const DOCUMENT_LIFETIME: Duration = Duration::from_secs(600);
/// How long it counts that there is no document.
pub const ABSENCE_LIFETIME: Duration = Duration::from_secs(300);
/// How long a substituter that failed is left out.
pub const OUTAGE_LIFETIME: Duration = Duration::from_secs(60);

/// Name of the folder in the store's cache.
const FOLDER: &str = "substituters";

/// What is known of a document.
pub(super) enum Known {
    /// There is none.
    Absent,
    /// This is it.
    Bytes(Vec<u8>),
}

/// Answers of one substituter.
pub(super) struct LookupCache {
    folder: PathBuf,
}

impl LookupCache {
    pub(super) fn new(store: &Store, place: &str) -> Self {
        let mut id = Canonical::new("quickbuild-lookups-1");
        id.text(place);
        let folder = store.cache(FOLDER).join(OutputId::finish(id).to_string());
        // Answers that cannot be kept are asked for again.
        let _ = fs::create_dir_all(&folder)
            .and_then(|()| fs::write_atomic(&folder.join("place"), place.as_bytes()));
        Self { folder }
    }

    pub(super) fn info(&self) -> Option<Vec<u8>> {
        fresh(&self.folder.join("info"), INFO_LIFETIME)
    }

    pub(super) fn keep_info(&self, bytes: &[u8]) {
        let _ = fs::write_atomic(&self.folder.join("info"), bytes);
    }

    pub(super) fn document(&self, path: &str) -> Option<Known> {
        let file = self.file(path);
        let bytes = fresh(&file, DOCUMENT_LIFETIME)?;
        if !bytes.is_empty() {
            return Some(Known::Bytes(bytes));
        }
        fresh(&file, ABSENCE_LIFETIME).map(|_| Known::Absent)
    }

    pub(super) fn keep(&self, path: &str, answer: Option<&[u8]>) {
        let _ = fs::write_atomic(&self.file(path), answer.unwrap_or_default());
    }

    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path.replace('/', "-"))
    }

    pub(super) fn outage(&self) -> Option<String> {
        let reason = fresh(&self.folder.join("outage"), OUTAGE_LIFETIME)?;
        Some(String::from_utf8_lossy(&reason).into_owned())
    }

    pub(super) fn note_outage(&self, reason: &str) {
        let _ = fs::write_atomic(&self.folder.join("outage"), reason.as_bytes());
    }
}

fn age(path: &Path) -> Option<Duration> {
    let stamp = Stamp::of(path)?;
    // What is of the future, after a clock was set back, is not fresh.
    let age = fs::now().0.checked_sub(stamp.mtime.0)?;
    Some(Duration::from_nanos(u64::try_from(age).ok()?))
}

fn fresh(path: &Path, lifetime: Duration) -> Option<Vec<u8>> {
    age(path).filter(|age| *age < lifetime)?;
    fs::read(path).ok()
}

/// What is kept of a substituter's answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The substituter.
    pub place: String,
    /// Documents that count.
    pub documents: usize,
    /// Documents that are known not to exist.
    pub absent: usize,
    /// Why it is left out, and for how much longer.
    pub outage: Option<(String, Duration)>,
}

/// What is kept of all substituters, by place.
pub fn kept(store: &Store) -> fs::Result<Vec<Kept>> {
    let mut all = Vec::new();
    for folder in fs::list(&store.cache(FOLDER))? {
        let Ok(place) = fs::read_text(&folder.join("place")) else {
            continue;
        };
        let cache = LookupCache {
            folder: folder.clone(),
        };
        let (mut documents, mut absent) = (0, 0);
        for file in fs::list(&folder)? {
            let name = file.file_name().and_then(|name| name.to_str());
            match name.and_then(|name| cache.document(name)) {
                Some(Known::Bytes(_)) if name.is_some_and(|name| name.ends_with(".zst")) => {
                    documents += 1;
                }
                Some(Known::Absent) => absent += 1,
                Some(Known::Bytes(_)) | None => {}
            }
        }
        let left = age(&folder.join("outage")).and_then(|age| OUTAGE_LIFETIME.checked_sub(age));
        all.push(Kept {
            place,
            documents,
            absent,
            outage: cache.outage().zip(left),
        });
    }
    all.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(all)
}

/// Forgets all answers.
pub fn clear(store: &Store) -> fs::Result<()> {
    fs::remove_dir_all(&store.cache(FOLDER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let cache = LookupCache::new(&store, "https://a.org");
        let (here, gone) = ("recipes/a.json.zst", "closures/a.json.zst");
        cache.keep(here, Some(b"document"));
        cache.keep(gone, None);
        cache.note_outage("silence");
        assert!(matches!(cache.document(here), Some(Known::Bytes(_))));
        assert!(matches!(cache.document(gone), Some(Known::Absent)));
        assert!(cache.document("recipes/b.json.zst").is_none());
        let all = kept(&store).unwrap();
        assert_eq!((all[0].documents, all[0].absent), (1, 1));
        assert_eq!(all[0].place, "https://a.org");
        assert!(all[0].outage.is_some());

        let before = |seconds: i64| fs::Time(fs::now().0 - seconds * 1_000_000_000);
        fs::set_mtime(&cache.file(here), before(400)).unwrap();
        fs::set_mtime(&cache.file(gone), before(400)).unwrap();
        fs::set_mtime(&cache.folder.join("outage"), before(61)).unwrap();
        assert!(matches!(cache.document(here), Some(Known::Bytes(_))));
        assert!(cache.document(gone).is_none());
        assert_eq!(cache.outage(), None);
        fs::set_mtime(&cache.file(here), before(601)).unwrap();
        assert!(cache.document(here).is_none());
        fs::set_mtime(&cache.file(here), before(-60)).unwrap();
        assert!(cache.document(here).is_none(), "an answer of the future");

        clear(&store).unwrap();
        assert_eq!(kept(&store).unwrap(), []);
    }
}
