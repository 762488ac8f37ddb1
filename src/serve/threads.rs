//! Threads of which each serves its own connections.
//!
//! A connection stays where it is, so no thread wakes another for a request: where
//! answers lie ready, that costs as much as to give them.

use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, available_parallelism};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// How long something that hangs is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// As many threads as the machine has processors for us.
pub struct Threads {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    next: AtomicUsize,
    stop: watch::Sender<bool>,
}

impl Threads {
    /// Starts them; without work they sleep.
    pub fn start() -> io::Result<Self> {
        let mut started = Self {
            handles: Vec::new(),
            threads: Vec::new(),
            next: AtomicUsize::new(0),
            stop: watch::Sender::new(false),
        };
        for number in 0..available_parallelism().map_or(1, NonZero::get) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            started.handles.push(runtime.handle().clone());
            let mut stop = started.stop.subscribe();
            let thread = std::thread::Builder::new().name(format!("serve-{number}"));
            started.threads.push(thread.spawn(move || {
                // An error means that whoever could tell is gone.
                let _ = runtime.block_on(stop.wait_for(|stop| *stop));
                runtime.shutdown_timeout(PATIENCE);
            })?);
        }
        Ok(started)
    }

    /// One after the other.
    pub(super) fn next(&self) -> &Handle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        &self.handles[number % self.handles.len()]
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // it has said why it panicked
        }
    }
}
