//! The store's collector, now and then after a build.

use super::Request;
use crate::config::Config;
use crate::fs;
use crate::store::collect::{Limits, Run, collect};

/// Keeps the store below its configured size: after a build that added to it,
/// once a day, and never in CI, where nobody comes back to what is kept.
pub(super) fn run_if_due(request: &Request, config: &Config) {
    const DAY: i64 = 86_400_000_000_000;
    let note = config.store.join("cache/collected");
    let last = fs::Stamp::of(&note).map_or(0, |stamp| stamp.mtime.0);
    if request.environment.get("CI").is_some() || fs::now().0 - last < DAY {
        return;
    }
    let limits = Limits {
        max_size: config.max_size,
        older_than: None,
        run: Run::Real,
    };
    // Busy or damaged: another day. `quickbuild store gc` says why.
    if fs::write(&note, b"").is_ok() {
        let _ = collect(&config.store, limits);
    }
}
