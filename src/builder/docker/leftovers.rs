//! What killed processes left on an engine.
//!
//! Containers and volumes say by a label whose they are: the machine, the boot,
//! the process and when it began, so that a number used again deceives nobody.

use std::collections::HashMap;
use std::path::Path;

use bollard::query_parameters::{ListContainersOptionsBuilder, ListVolumesOptionsBuilder};

use super::Engine;
use crate::builder::{Result, Task};
use crate::fs;

/// What a container or volume is about.
const TASK: &str = "quickbuild.task";
/// The store that it works for.
const STORE: &str = "quickbuild.store";
/// Whose it is.
const OWNER: &str = "quickbuild.owner";

/// The labels of all that belongs to a task of this process.
pub(super) fn labels(task: &Task) -> HashMap<String, String> {
    HashMap::from([
        (TASK.to_owned(), task.name.clone()),
        (STORE.to_owned(), task.store.display().to_string()),
        (OWNER.to_owned(), owner().unwrap_or_default()),
    ])
}

impl Engine {
    /// Removes what processes of this machine that are gone have left, and says
    /// how many containers and volumes that were. Those of other machines on the
    /// same engine stay.
    pub fn sweep(&self) -> Result<usize> {
        let filters = HashMap::from([("label".to_owned(), vec![TASK.to_owned()])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let containers = self.client.list_containers(Some(options));
        let containers = self.ask("list containers", containers)?;
        let options = ListVolumesOptionsBuilder::default()
            .filters(&filters)
            .build();
        let volumes = self.ask("list volumes", self.client.list_volumes(Some(options)))?;

        let mut names: Vec<String> = Vec::new();
        for container in containers {
            if is_left(container.labels.as_ref())
                && let Some(name) = container.names.unwrap_or_default().first()
            {
                names.push(name.trim_start_matches('/').to_owned());
            }
        }
        for volume in volumes.volumes.unwrap_or_default() {
            if is_left(Some(&volume.labels)) {
                names.push(volume.name);
            }
        }
        for name in &names {
            // All parts of a task have its name, with an ending or without.
            let task = ["-in", "-work", "-loader"]
                .iter()
                .find_map(|ending| name.strip_suffix(ending));
            self.remove(task.unwrap_or(name));
        }
        Ok(names.len())
    }
}

/// Whether the owner is a process of this machine that is gone.
fn is_left(labels: Option<&HashMap<String, String>>) -> bool {
    let owner = labels.and_then(|labels| labels.get(OWNER));
    let Some((here, their)) = machine().zip(owner.and_then(|owner| Owner::parse(owner))) else {
        return false;
    };
    their.machine == here
        && (Some(their.boot) != boot().as_deref()
            || started(their.process).as_deref() != Some(their.started))
}

struct Owner<'a> {
    machine: &'a str,
    boot: &'a str,
    process: &'a str,
    started: &'a str,
}

impl<'a> Owner<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(' ');
        Some(Self {
            machine: parts.next()?,
            boot: parts.next()?,
            process: parts.next()?,
            started: parts.next()?,
        })
    }
}

fn owner() -> Option<String> {
    let process = std::process::id().to_string();
    let started = started(&process)?;
    Some(format!("{} {} {process} {started}", machine()?, boot()?))
}

/// `machine-id(5)`; where there is none, the machine is known by its boot.
fn machine() -> Option<String> {
    let id = fs::read_text(Path::new("/etc/machine-id")).ok();
    let id = id.map(|id| id.trim().to_owned());
    id.filter(|id| !id.is_empty()).or_else(boot)
}

fn boot() -> Option<String> {
    let id = fs::read_text(Path::new("/proc/sys/kernel/random/boot_id")).ok()?;
    Some(id.trim().to_owned())
}

/// When a process began, in clock ticks after boot: field 22 of
/// `/proc/<pid>/stat` (`proc(5)`), counted behind the name in brackets.
fn started(process: &str) -> Option<String> {
    let stat = fs::read_text(&Path::new("/proc").join(process).join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_owns_is_not_left_over() {
        let mine = HashMap::from([(OWNER.to_owned(), owner().unwrap())]);
        assert!(!is_left(Some(&mine)));
        let process = std::process::id().to_string();
        let gone = mine[OWNER].replace(&format!(" {process} "), " 4194305 ");
        let gone = HashMap::from([(OWNER.to_owned(), gone)]);
        assert!(is_left(Some(&gone)));
        let elsewhere = mine[OWNER].replacen(|c: char| c.is_ascii_alphanumeric(), "-", 1);
        let elsewhere = HashMap::from([(OWNER.to_owned(), elsewhere)]);
        assert!(!is_left(Some(&elsewhere)));
        assert!(!is_left(Some(&HashMap::new())));
    }
}
