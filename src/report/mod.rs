//! What a client tells a service, if its user wants that.
//!
//! | module | job |
//! |---|---|
//! | `wire` | a report as it is sent; pure |
//! | `lock` | what may be said of a lock file; pure |
//! | `send` | sent within a bound, after a miss |
//! | [`work`] | what workers and a service say to each other; pure |
//!
//! Invariants:
//! * Nothing is sent that the user has not switched on, in a file of their own.
//! * Only names and versions of crates.io's packages leave the machine, how they
//!   are compiled, and numbers; `quickbuild plan --show-report` prints all of it.
//! * Whatever goes wrong costs a bounded time, and nothing else.

mod lock;
mod send;
mod wire;
pub mod work;

use std::path::Path;

use crate::build::Lack;
use crate::digest::{Canonical, hex};
use crate::fs;
use crate::store::Store;

pub use lock::{lock_text, public_lock};
pub use send::{SendError, Sent, send};
pub use wire::{FORMAT, Report, Usage};

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file.
    #[error("the report's own files cannot be used")]
    File(#[from] fs::FsError),
    /// The lock file.
    #[error("Cargo.lock cannot be read")]
    Lock(#[from] crate::cargo::lock_graph::LockError),
    /// No random bytes.
    #[error("the system has no random bytes")]
    Random(#[source] getrandom::Error),
}

/// The report of a command.
pub fn make(lack: &Lack, store: &Store) -> Result<Report, ReportError> {
    let lock = fs::read_optional(&lack.workspace.join("Cargo.lock"))?;
    let lock = lock.map(|text| public_lock(&text)).transpose()?.flatten();
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(ReportError::Random)?;
    Ok(Report {
        format: FORMAT,
        project: Some(project(&lack.workspace, store)?),
        lock,
        recipes: lack.recipes.iter().map(|recipe| recipe.to_toml()).collect(),
        builder: Some(lack.builder.clone()).filter(|name| !name.is_empty()),
        usage: Some(Usage {
            id: hex(&id),
            hits: lack.hits,
            misses: lack.misses,
            seconds_saved: rounded(lack.seconds_saved),
            seconds_compiled: rounded(lack.seconds_compiled),
        }),
    })
}

/// To milliseconds.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

/// Tells projects of this machine apart, and tells others nothing: a hash of the
/// folder with a key that never leaves the machine.
fn project(workspace: &Path, store: &Store) -> Result<String, ReportError> {
    let path = store.cache("report-key");
    let key = match fs::read_optional(&path)?.filter(|key| key.len() == 32) {
        Some(key) => key,
        None => {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(ReportError::Random)?;
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write_atomic(&path, &key)?;
            key.to_vec()
        }
    };
    let mut canonical = Canonical::new("quickbuild-project-1");
    canonical.bytes(&key).text(&workspace.to_string_lossy());
    Ok(crate::digest::TreeHash::finish(canonical).to_string())
}
