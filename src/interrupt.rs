//! Ctrl-C and SIGTERM, kept from ending this process while work is under way
//! that has to end cleanly.
//!
//! ```text
//! Held::begin ── the signal comes ── asked() says so ── the work cleans up ── deliver: the process ends by it
//! ```
//!
//! * While nobody holds it, a signal does what it does by default, also after
//!   somebody held it once.
//! * Several threads may hold the same signal; the last one that lets go gives
//!   it back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{SigId, flag, low_level};

/// One signal of this process.
struct Watched {
    signal: i32,
    /// Whether it does what it does by default.
    free: Arc<AtomicBool>,
    holders: Mutex<usize>,
}

/// The signals that can be held, watched from the first use on.
fn watched() -> &'static [Watched; 2] {
    static WATCHED: OnceLock<[Watched; 2]> = OnceLock::new();
    WATCHED.get_or_init(|| {
        [SIGINT, SIGTERM].map(|signal| {
            let free = Arc::new(AtomicBool::new(true));
            // Where that fails the signal ends the process, as by default.
            let _ = flag::register_conditional_default(signal, Arc::clone(&free));
            Watched {
                signal,
                free,
                holders: Mutex::new(0),
            }
        })
    })
}

impl Watched {
    fn change(&self, change: impl FnOnce(&mut usize)) {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut holders);
        self.free.store(*holders == 0, Ordering::SeqCst);
    }
}

/// Signals that only leave a note, as long as this lives.
pub struct Held {
    signals: Vec<&'static Watched>,
    handlers: Vec<SigId>,
    /// The signal that came last; 0 for none.
    came: Arc<AtomicUsize>,
}

impl Held {
    /// Holds some of [`SIGINT`] and [`SIGTERM`].
    pub fn begin(signals: &[i32]) -> Self {
        let came = Arc::new(AtomicUsize::new(0));
        let mut held = Self {
            signals: Vec::new(),
            handlers: Vec::new(),
            came,
        };
        let is_meant = |watched: &&Watched| signals.contains(&watched.signal);
        for watched in watched().iter().filter(is_meant) {
            let number = usize::try_from(watched.signal).unwrap_or_default();
            let note = flag::register_usize(watched.signal, Arc::clone(&held.came), number);
            // Held only where the note is left.
            let Ok(handler) = note else { continue };
            held.handlers.push(handler);
            watched.change(|holders| *holders += 1);
            held.signals.push(watched);
        }
        held
    }

    /// The signal that came, if one did.
    pub fn asked(&self) -> Option<i32> {
        match self.came.load(Ordering::SeqCst) {
            0 => None,
            number => i32::try_from(number).ok(),
        }
    }

    /// Lets go, and ends the process as the signal that came would have. Where
    /// somebody else holds the signal as well, it is theirs to end.
    pub fn deliver(self) {
        let came = self.asked();
        drop(self);
        if let Some(signal) = came {
            let is_held = |watched: &Watched| {
                watched.signal == signal && !watched.free.load(Ordering::SeqCst)
            };
            if watched().iter().any(is_held) {
                return;
            }
            // It does not come back; where it cannot be done, the work goes on.
            let _ = low_level::emulate_default_handler(signal);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            low_level::unregister(handler);
        }
        for watched in self.signals.drain(..) {
            watched.change(|holders| *holders -= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_held_leaves_a_note_and_ends_nothing() {
        let first = Held::begin(&[SIGTERM]);
        let second = Held::begin(&[SIGINT, SIGTERM]);
        assert_eq!((first.asked(), second.asked()), (None, None));
        low_level::raise(SIGTERM).unwrap();
        assert_eq!(first.asked(), Some(SIGTERM));
        assert_eq!(second.asked(), Some(SIGTERM));
        drop(second);
        // The first one still holds it.
        low_level::raise(SIGTERM).unwrap();
        drop(first);
        let third = Held::begin(&[SIGTERM]);
        assert_eq!(third.asked(), None);
        third.deliver();
    }
}
