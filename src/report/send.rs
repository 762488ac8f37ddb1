//! Sending, within a bound.

use std::time::Duration;

use super::Report;
use crate::config::ServiceSettings;
use crate::environment::Environment;
use crate::fs;
use crate::store::Store;
use crate::substituter::{Peer, SubstituterError};

/// How long a report may take.
const LONGEST: Duration = Duration::from_millis(1_500);
/// How long nothing is sent to a service that did not take a report.
const PAUSE: Duration = Duration::from_secs(600);

/// What came of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The service has it.
    Taken,
    /// The service did not answer a short while ago, so it is not asked.
    Paused,
}

/// Why a report is not there.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The service is out of reach, or takes too long.
    #[error("the service cannot be told what was lacking")]
    Peer(#[from] SubstituterError),
    /// The service does not want it.
    #[error("the service refuses the report with status {status}: {said}")]
    Refused {
        /// The status.
        status: u16,
        /// How its answer begins.
        said: String,
    },
}

/// Sends a report. A service that does not take it is left alone for a while, so
/// that one that is away does not cost every build its bound.
pub fn send(
    report: &Report,
    settings: &ServiceSettings,
    store: &Store,
    environment: &Environment,
) -> Result<Sent, SendError> {
    let note = store.cache("report-paused");
    let age = fs::Stamp::of(&note).and_then(|stamp| stamp.mtime.age());
    if age.is_some_and(|age| age < PAUSE) {
        return Ok(Sent::Paused);
    }
    let done = attempt(report, settings, environment);
    let _ = match &done {
        // Where it cannot be noted, the next build waits for the bound again.
        Err(_) => fs::write(&note, b""),
        Ok(_) => Ok(()),
    };
    done
}

fn attempt(
    report: &Report,
    settings: &ServiceSettings,
    environment: &Environment,
) -> Result<Sent, SendError> {
    let body = serde_json::to_vec(report).expect("reports have a text");
    let peer = Peer::open(settings, environment)?;
    let reply = peer.post_packed_once("v1/lockfiles", &body, "application/json", LONGEST)?;
    if reply.status == 200 {
        return Ok(Sent::Taken);
    }
    let said = String::from_utf8_lossy(&reply.bytes[..reply.bytes.len().min(200)]).into_owned();
    let status = reply.status;
    Err(SendError::Refused { status, said })
}
