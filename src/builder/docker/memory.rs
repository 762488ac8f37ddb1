//! Whether the files of a task fit into the memory of the engine's machine.
//!
//! Thousands of small files are unpacked for a task and removed after it. In
//! memory that takes no time; on a disk it may take seconds.

use std::collections::HashMap;

use super::Engine;
use crate::builder::{Result, Task};

/// The part of a machine's memory that a task's files may take.
const SHARE: u64 = 8;

/// How many times its size Cargo lets an archive have when it is unpacked, and
/// what it lets each have (`src/cargo/sources/registry/mod.rs`).
const RATIO: u64 = 20;
const ALWAYS: u64 = 512 << 20;

impl Engine {
    /// Bytes that the files of a task may take in memory, if all that Cargo would
    /// unpack fits. Podman makes no such volumes for users without privileges.
    pub(super) fn room_in_memory(&self, task: &Task) -> Result<Option<u64>> {
        let version = self.ask("say its version", self.client.version())?;
        let components = version.components.unwrap_or_default();
        if !components
            .iter()
            .any(|component| component.name == "Engine")
        {
            return Ok(None);
        }
        let info = self.ask("describe its machine", self.client.info())?;
        let memory = info.mem_total.and_then(|total| u64::try_from(total).ok());
        Ok(room(memory.unwrap_or(0), task.limits.memory, task.size()))
    }
}

/// The room that there is for files of this size, if it is enough. A limit of
/// the task holds for what is unpacked, too.
fn room(memory: u64, limit: u64, size: u64) -> Option<u64> {
    let memory = if limit > 0 { memory.min(limit) } else { memory };
    let room = memory / SHARE;
    let needed = size.saturating_mul(RATIO).saturating_add(ALWAYS);
    (needed <= room).then_some(room)
}

/// Options of Docker's own volumes (`tmpfs(5)`).
pub(super) fn in_memory_of(room: u64) -> HashMap<String, String> {
    let options = [
        ("type", "tmpfs".to_owned()),
        ("device", "tmpfs".to_owned()),
        ("o", format!("size={room},mode=0755,nosuid,nodev")),
    ];
    HashMap::from(options.map(|(name, value)| (name.to_owned(), value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_in_memory_only_where_all_of_them_fit() {
        const MB: u64 = 1 << 20;
        assert_eq!(room(8192 * MB, 0, 20 * MB), Some(1024 * MB));
        assert_eq!(room(8192 * MB, 0, 30 * MB), None);
        assert_eq!(room(4096 * MB, 0, 0), Some(512 * MB));
        assert_eq!(room(8192 * MB, 2048 * MB, 0), None);
        assert_eq!(room(8192 * MB, 0, u64::MAX), None);
        assert_eq!(room(0, 0, 0), None);
    }
}
