//! `quickbuild worker`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{Exit, Failure, Surroundings};
use crate::builder::docker::Engine;
use crate::builder::image::definitions;
use crate::config::{Config, ServiceSettings, Token, project_file};
use crate::fs;
use crate::worker::{Worker, WorkerError};

/// The token; no command line should have it.
const TOKEN: &str = "QUICKBUILD_WORKER_TOKEN";

/// Arguments of `worker`.
#[derive(Debug, Args)]
pub(super) struct WorkerArguments {
    /// The service.
    #[arg(long, value_name = "URL")]
    server: String,
    /// What this worker is called; by default as this machine.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A builder to use; may be repeated. By default all that have an image here.
    #[arg(long = "builder", value_name = "NAME")]
    builders: Vec<String>,
    /// A file of certificates by which the service's may be signed.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// End when there is nothing to build, and no lock file's tree to plan.
    #[arg(long)]
    once: bool,
}

pub(super) fn run(
    surroundings: &Surroundings,
    arguments: &WorkerArguments,
) -> Result<ExitCode, Failure> {
    let config = surroundings.config()?;
    let token = surroundings.environment.get(TOKEN);
    let token = token.filter(|token| !token.is_empty()).ok_or_else(|| {
        Failure::new(format!("`{TOKEN}` has no token")).hint(
            "`quickbuild service token add NAME --scope work` makes one, where the service is",
        )
    })?;
    let worker = Worker {
        service: ServiceSettings {
            url: arguments.server.clone(),
            token: Some(Token::new(token)),
            ca: arguments.ca.as_ref().map(|ca| surroundings.folder.join(ca)),
            base: surroundings.folder.clone(),
            report: false,
        },
        name: arguments.name.clone().unwrap_or_else(machine),
        builders: builders(surroundings, &config, &arguments.builders)?,
        program: surroundings.program.clone(),
        environment: surroundings.environment.clone(),
        folder: surroundings.folder.clone(),
        store: config.store.clone(),
        once: arguments.once,
    };
    worker.run().map_err(|error| {
        let is_refused = matches!(
            error,
            WorkerError::Refused {
                status: 401 | 403,
                ..
            }
        );
        let failure = Failure::from(error);
        match is_refused {
            true => failure.hint(format!(
                "`{TOKEN}` is to have a token with the scope `work`"
            )),
            false => failure,
        }
    })?;
    Ok(Exit::Success.into())
}

/// The builders that are asked for, or have an image here.
fn builders(
    surroundings: &Surroundings,
    config: &Config,
    asked: &[String],
) -> Result<Vec<String>, Failure> {
    let engine = Engine::connect(&surroundings.environment)
        .map_err(|error| Failure::from(error).hint("start Docker or Podman, or set DOCKER_HOST"))?;
    if !asked.is_empty() {
        for name in asked {
            let _image = super::realise::image(&engine, config, name)?;
        }
        return Ok(asked.to_vec());
    }
    let project = project_file(&surroundings.folder);
    let known = definitions(project.as_deref().and_then(Path::parent))?;
    let names = known.iter().map(|definition| definition.name.clone());
    let found: Vec<String> = names
        .filter(|name| super::realise::image(&engine, config, name).is_ok())
        .collect();
    if found.is_empty() {
        return Err(Failure::new("this machine has no builder")
            .hint("`quickbuild builder build NAME` makes one, and `builder list` knows them"));
    }
    Ok(found)
}

/// This machine's name, as far as a service takes it.
fn machine() -> String {
    let name = fs::read_text(Path::new("/etc/hostname")).unwrap_or_default();
    let is_allowed = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
    let name: String = name.trim().chars().filter(is_allowed).take(64).collect();
    if name.is_empty() {
        return "worker".to_owned();
    }
    name
}
