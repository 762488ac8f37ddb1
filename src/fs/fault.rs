//! Faults on demand, for tests.
//!
//! `QUICKBUILD_FAULT=fail@17` makes the 17th change to the file system fail as
//! if the device were full; `kill@17` ends the process there without any
//! clean-up, as `kill -9` does. Without the variable it costs one atomic load.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

enum Kind {
    Fail,
    Kill,
}

struct Fault {
    kind: Kind,
    at: u64,
}

static CHANGES: AtomicU64 = AtomicU64::new(0);

fn configured() -> Option<&'static Fault> {
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    FAULT
        .get_or_init(|| parse(&std::env::var("QUICKBUILD_FAULT").ok()?))
        .as_ref()
}

fn parse(text: &str) -> Option<Fault> {
    let (kind, at) = text.split_once('@')?;
    let kind = match kind {
        "fail" => Kind::Fail,
        "kill" => Kind::Kill,
        _ => return None,
    };
    Some(Fault {
        kind,
        at: at.parse().ok()?,
    })
}

/// Called before every change; fails or ends the process when its turn comes.
/// After a failure every later change fails too, as on a full device.
pub fn pass() -> io::Result<()> {
    let Some(fault) = configured() else {
        return Ok(());
    };
    let count = CHANGES.fetch_add(1, Ordering::Relaxed) + 1;
    match fault.kind {
        Kind::Fail if count >= fault.at => Err(io::ErrorKind::StorageFull.into()),
        Kind::Kill if count == fault.at => std::process::abort(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_forms_are_faults() {
        assert!(matches!(
            parse("fail@3"),
            Some(Fault {
                kind: Kind::Fail,
                at: 3
            })
        ));
        assert!(matches!(
            parse("kill@1"),
            Some(Fault {
                kind: Kind::Kill,
                at: 1
            })
        ));
        for junk in ["", "fail", "fail@", "fail@x", "panic@1"] {
            assert!(parse(junk).is_none(), "{junk}");
        }
    }
}
