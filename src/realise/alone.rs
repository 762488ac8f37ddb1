//! The last word of a program that ran alone in a container.
//!
//! An engine says that a container has ended only when it has put away what the
//! container was made of, and on the way there it may write all of a disk's
//! unwritten files. What the program made is whole long before: once nothing
//! else runs beside it.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, kill_process, set_dumpable_behavior, wait,
};

use crate::builder::ENDED;
use crate::console;
use crate::fs;

/// How often those that were killed are looked at, and how many times.
const PAUSE: Duration = Duration::from_millis(5);
const PATIENCE: u32 = 400;

/// The right to say [`ENDED`].
pub struct LastWord {
    is_ours: bool,
}

impl LastWord {
    /// Takes the right for this process, if it is the first of a container: what
    /// it starts, though it has the same user, can from then on neither write to its
    /// standard output by `/proc/<pid>/fd` nor trace it (`PR_SET_DUMPABLE` in
    /// `proc(5)`, `ptrace(2)`).
    pub fn reserve() -> Self {
        let is_ours =
            std::process::id() == 1 && set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok();
        Self { is_ours }
    }

    /// Ends what else runs in the container, and says so. Without the right, or
    /// where something does not end, nothing is said, and who listens waits for the
    /// container's end.
    pub fn say(self) {
        if self.is_ours && is_alone_at_last() {
            console::out(&format!("{ENDED}\n"));
        }
    }
}

/// The first process of a container is the parent of all that lost theirs: where
/// it has no child, no process is left (`pid_namespaces(7)`).
fn is_alone_at_last() -> bool {
    for _ in 0..PATIENCE {
        match wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return true,
            Ok(Some(_gone)) => continue,
            _ => {}
        }
        kill_others();
        std::thread::sleep(PAUSE);
    }
    false
}

fn kill_others() {
    let others = fs::list(std::path::Path::new("/proc")).unwrap_or_default();
    let numbers = others
        .iter()
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok());
    for other in numbers
        .filter(|&number| number != 1)
        .filter_map(Pid::from_raw)
    {
        let _ = kill_process(other, Signal::KILL); // it may have ended already
    }
}
