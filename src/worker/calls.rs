//! What is asked of the service.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::{Result, Worker, WorkerError};
use crate::console;
use crate::report::work::{
    Alive, Ask, Failed, Job, Planned, Tree, Verdict, WORK_FORMAT, end_of_log,
};
use crate::substituter::{Peer, Reply};

/// How long an answer may take.
const LONGEST: Duration = Duration::from_secs(30);
const JSON: &str = "application/json";

pub(super) struct Service {
    peer: Peer,
    ask: Ask,
}

impl Service {
    pub(super) fn open(worker: &Worker) -> Result<Self> {
        let ask = Ask {
            format: WORK_FORMAT,
            worker: worker.name.clone(),
            builders: worker.builders.clone(),
        };
        Ok(Self {
            peer: Peer::open(&worker.service, &worker.environment)?,
            ask,
        })
    }

    /// Something to build.
    pub(super) fn lease(&self) -> Result<Option<Job>> {
        let reply = self
            .peer
            .post_once("v1/work", bytes(&self.ask), JSON, LONGEST)?;
        match reply.status {
            204 => Ok(None),
            200 => parse(&reply).map(Some),
            // It is there, and has much to do.
            429 | 500.. => Ok(None),
            _ => Err(refused(&reply)),
        }
    }

    /// A tree to plan for one of these builders; none of a service that gives none.
    pub(super) fn tree(&self, builders: &[String]) -> Result<Option<Tree>> {
        let ask = Ask {
            builders: builders.to_vec(),
            ..self.ask.clone()
        };
        let reply = self
            .peer
            .post_once("v1/trees", bytes(&ask), JSON, LONGEST)?;
        match reply.status {
            200 => parse(&reply).map(Some),
            _ => Ok(None),
        }
    }

    /// Tells what a tree comes down to, or why nobody knows.
    pub(super) fn planned(&self, tree: &Tree, recipes: Vec<String>, reason: String) -> Result<()> {
        let planned = Planned {
            builder: tree.builder.clone(),
            recipes,
            reason,
        };
        let path = format!("v1/trees/{}", tree.tree);
        let reply = self.peer.post(&path, bytes(&planned), JSON)?;
        match reply.status {
            200..300 => Ok(()),
            _ => Err(refused(&reply)),
        }
    }

    pub(super) fn alive(&self, job: &Job, log: String) -> Result<()> {
        self.post(job, "alive", bytes(&Alive { log }))
    }

    /// Tells why nothing came of it, unless the service knows.
    pub(super) fn failed(&self, job: &Job, error: &WorkerError, log: String) -> Result<()> {
        let recipe = match error {
            WorkerError::Lost | WorkerError::Refused { .. } => return Ok(()),
            WorkerError::Undone { recipe, .. } => *recipe,
            _ => false,
        };
        let failed = Failed {
            recipe,
            reason: console::chain(error),
            log: end_of_log(&log).to_owned(),
        };
        match self.post(job, "failed", bytes(&failed)) {
            Err(WorkerError::Lost) => Ok(()),
            told => told,
        }
    }

    /// Sends an export.
    pub(super) fn outputs(&self, job: &Job, export: &Path) -> Result<Verdict> {
        let path = format!("v1/work/{}/outputs", job.lease);
        let reply = self.peer.put_file(&path, export, "application/zstd")?;
        match reply.status {
            200 => parse(&reply),
            409 => Err(WorkerError::Lost),
            _ => Err(refused(&reply)),
        }
    }

    fn post(&self, job: &Job, what: &str, body: Vec<u8>) -> Result<()> {
        let path = format!("v1/work/{}/{what}", job.lease);
        let reply = self.peer.post(&path, body, JSON)?;
        match reply.status {
            200..300 => Ok(()),
            409 => Err(WorkerError::Lost),
            _ => Err(refused(&reply)),
        }
    }
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("what is asked has a text")
}

fn parse<T: serde::de::DeserializeOwned>(reply: &Reply) -> Result<T> {
    serde_json::from_slice(&reply.bytes).map_err(WorkerError::Answer)
}

fn refused(reply: &Reply) -> WorkerError {
    let said = String::from_utf8_lossy(&reply.bytes);
    let said = said.chars().filter(|c| !c.is_control()).take(500);
    WorkerError::Refused {
        status: reply.status,
        said: said.collect(),
    }
}
