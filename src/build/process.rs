//! Running Cargo itself: its output, its terminal, its exit code.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};

use super::Request;
use crate::bridge::{SESSION_VARIABLE, Session, user_wrapper};
use crate::interrupt::{Held, SIGINT};
use crate::plan::Context;

/// Cargo could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot run `{program}`")]
pub struct CargoFailure {
    program: String,
    source: std::io::Error,
}

/// Runs Cargo as the user would have.
pub(super) fn plain(request: &Request) -> Result<ExitStatus, CargoFailure> {
    let mut command = Command::new(request.environment.cargo());
    command.arg(request.invocation.subcommand.name());
    run(request, command)
}

/// Runs Cargo with the wrapper. It is named on the command line, not in a
/// variable: build scripts that watch `RUSTC_WRAPPER` would see a change.
pub(super) fn wrapped(
    request: &Request,
    context: &Context,
    session: &Session,
) -> Result<ExitStatus, CargoFailure> {
    super::rustc_info::use_wrapped(context);
    let mut command = Command::new(request.environment.cargo());
    // Behind the subcommand: clippy is a program of its own, which hands its
    // arguments on to `cargo check`, but not those before its name.
    command.arg(request.invocation.subcommand.name());
    let wrapper = session.wrapper().to_string_lossy();
    if request.environment.get("RUSTC_WRAPPER").is_some() && user_wrapper(context).is_some() {
        // The variable goes before any configuration.
        command.env("RUSTC_WRAPPER", &*wrapper);
    } else {
        let value = toml::Value::String(wrapper.into_owned());
        command
            .arg("--config")
            .arg(format!("build.rustc-wrapper={value}"));
    }
    command.env(SESSION_VARIABLE, session.folder());
    let status = run(request, command);
    super::rustc_info::put_back(context);
    status
}

fn run(request: &Request, mut command: Command) -> Result<ExitStatus, CargoFailure> {
    command
        .args(&request.invocation.arguments)
        .current_dir(&request.folder);
    let program = command.get_program().to_string_lossy().into_owned();
    // Ctrl-C goes to Cargo, too, which ends; what it has compiled until then is
    // still to be taken.
    let _held = Held::begin(&[SIGINT]);
    command
        .status()
        .map_err(|source| CargoFailure { program, source })
}

/// Cargo's exit code as ours; a signal as shells report it.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(101))
}
