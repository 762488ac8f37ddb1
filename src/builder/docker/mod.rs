//! Containers of a Docker engine, or of Podman behind the same API.
//!
//! | module | job |
//! |---|---|
//! | `images` | which images there are, and loading one |
//! | `run` | one task in one container |
//! | `lines` | what a container says |
//! | `files` | files into a task's volumes, and out of them |
//! | `memory` | whether a task's files fit into memory |
//! | `pipe` | between threads and streams |
//! | `leftovers` | what killed processes left |
//! | `probe` | asking an image what is in it |
//!
//! The API is asynchronous; here is its one runtime, and everything above is
//! not.

mod files;
mod images;
mod leftovers;
mod lines;
mod memory;
mod pipe;
mod probe;
mod run;

use std::future::Future;
use std::path::Path;

use bollard::Docker;
use tokio::runtime::Runtime;

pub use images::Image;
pub use run::Container;

use super::{BuilderError, Result};
use crate::environment::Environment;

/// Where an engine listens if nothing says otherwise; Podman's second.
const SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

/// A connection to an engine that has answered.
pub struct Engine {
    runtime: Runtime,
    client: Docker,
}

impl Engine {
    /// Connects to `DOCKER_HOST`, with `DOCKER_TLS_VERIFY` and
    /// `DOCKER_CERT_PATH` as Docker's own client has them, or to a socket.
    pub fn connect(environment: &Environment) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| no_engine("this process", source))?;
        let address = address(environment);
        let client = {
            let _entered = runtime.enter();
            Docker::connect_with_host(&address).map_err(|source| no_engine(&address, source))?
        };
        // Also agrees on a version of the API.
        let client = runtime
            .block_on(client.negotiate_version())
            .map_err(|source| no_engine(&address, source))?;
        Ok(Self { runtime, client })
    }

    /// Waits for one answer of the engine.
    fn ask<T>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = std::result::Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        self.runtime
            .block_on(answer)
            .map_err(engine_error(operation))
    }
}

/// The engine's address.
fn address(environment: &Environment) -> String {
    if let Some(host) = environment
        .get("DOCKER_HOST")
        .filter(|host| !host.is_empty())
    {
        return host.to_owned();
    }
    let mut sockets: Vec<String> = SOCKETS.map(str::to_owned).into();
    if let Some(folder) = environment.get("XDG_RUNTIME_DIR") {
        sockets.push(format!("{folder}/podman/podman.sock"));
    }
    let found = sockets.iter().find(|socket| Path::new(socket).exists());
    format!("unix://{}", found.unwrap_or(&sockets[0]))
}

fn no_engine(
    address: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> BuilderError {
    BuilderError::NoEngine {
        address: address.to_owned(),
        source: source.into(),
    }
}

fn engine_error(operation: &'static str) -> impl FnOnce(bollard::errors::Error) -> BuilderError {
    move |source| match is_full(&source) {
        true => BuilderError::Full {
            operation,
            source: source.into(),
        },
        false => BuilderError::Engine {
            operation,
            source: source.into(),
        },
    }
}

/// Whether the engine says that its disk has no room: only in words, those of
/// `ENOSPC` and `EDQUOT` in Go.
fn is_full(error: &bollard::errors::Error) -> bool {
    let bollard::errors::Error::DockerResponseServerError { message, .. } = error else {
        return false;
    };
    let is_in = |words| message.to_ascii_lowercase().contains(words);
    is_in("no space left on device") || is_in("disk quota exceeded")
}

/// Whether the engine says that it has no such thing.
fn is_absent(error: &bollard::errors::Error) -> bool {
    matches!(
        error,
        bollard::errors::Error::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_s_words_for_a_full_disk_are_known() {
        let error = |message: &str| bollard::errors::Error::DockerResponseServerError {
            status_code: 500,
            message: message.to_owned(),
        };
        for (message, full) in [
            (
                "Error processing tar file(exit status 1): write /in/x: no space left on device",
                true,
            ),
            ("mkdir /var/lib/docker/x: disk quota exceeded", true),
            ("No such container: x", false),
        ] {
            let error = engine_error("make a container")(error(message));
            assert_eq!(
                matches!(error, BuilderError::Full { .. }),
                full,
                "{message}"
            );
            assert!(error.to_string().contains("cannot make a container"));
        }
    }
}
