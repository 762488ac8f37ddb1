//! Skips: counted, printed, and failures where they are forbidden.

use std::sync::atomic::{AtomicUsize, Ordering};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Notes that `what` cannot be tested here and returns `true`, for
/// `if skipped(…) { return; }` after the reason was found.
///
/// `QUICKBUILD_REQUIRE=nightly,mount` (or `all`) turns skips of these kinds
/// into failures.
pub(crate) fn skipped(what: &str, reason: &str) -> bool {
    let required = std::env::var("QUICKBUILD_REQUIRE").unwrap_or_default();
    let is_required = required
        .split(',')
        .any(|word| word == what || word == "all");
    assert!(!is_required, "`{what}` is required, but {reason}");
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    note(&format!("skip {count}: {what}: {reason}"));
    true
}

/// Says something past the capture of libtest, so that a passing run shows it.
pub(crate) fn note(text: &str) {
    let line = format!("{text}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
