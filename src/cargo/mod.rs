//! All that is known of Cargo. Nothing else in the crate reads Cargo's formats
//! or names a folder below `target/`.
//!
//! | module | knows |
//! |---|---|
//! | [`invocation`] | the command line that is meant for Cargo |
//! | [`settings`] | Cargo's merged configuration |
//! | [`toolchain`] | `rustc -vV`, `cargo -V`, the sysroot |
//! | [`workspace`] | where the workspace, its members and `target/` are |
//! | [`unit_graph`] | `cargo build --unit-graph` |
//! | [`layout`] | both layouts of the build directory |
//! | [`lock_graph`] | a lock file without manifests, as a graph |
//! | [`index_cache`], [`releases`] | what a registry's index says, as far as Cargo has looked it up |
//! | [`members`] | the manifests that a lock file is for |
//! | [`stand_in`] | workspaces without their code |
//! | [`advisories`] | which versions are known to be vulnerable |
//! | [`relock`] | a lock file changed by Cargo itself, in a copy |
//! | [`lock_file`] | which archive or commit a package is |
//! | [`source`] | registries, Git repositories: where packages come from |
//! | [`registry_index`] | what a registry says now: checksums, yanked versions |
//! | [`home`] | names in Cargo's home |
//! | [`fingerprint`] | freshness hashes, recomputed exactly |
//! | [`dep_info`] | what a compilation read: rustc's and Cargo's form |
//! | [`build_script`] | what a build script printed and may have read |
//! | [`rustc_args`] | the compiler's command line as Cargo writes it |
//! | [`package_files`] | the files of a path package, as Cargo lists them |
//! | [`licences`] | under which licences packages are |
//! | [`glibc`] | the C library that programs find here |

pub mod advisories;
pub mod build_script;
pub mod dep_info;
pub mod fingerprint;
pub mod glibc;
pub mod home;
pub mod index_cache;
mod index_files;
pub mod invocation;
pub mod layout;
pub mod licences;
pub mod lock_file;
pub mod lock_graph;
pub mod members;
pub mod package_files;
pub mod registry_index;
pub mod releases;
pub mod relock;
pub mod rustc_args;
pub mod settings;
pub mod source;
pub mod stand_in;
pub mod toolchain;
pub mod unit_graph;
pub mod workspace;

use std::process::{Command, Stdio};

/// Cargo or rustc could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CargoError {
    /// The program could not be started.
    #[error("cannot run `{program}`")]
    Spawn {
        /// What was to be run.
        program: String,
        /// Why it was not.
        source: std::io::Error,
    },
    /// The program ran and failed; it has said why on standard error.
    #[error("`{program}` failed: {message}")]
    Failed {
        /// What was run.
        program: String,
        /// The last lines of its standard error.
        message: String,
    },
    /// The program's answer is not in the form that is documented for it.
    #[error("cannot understand the answer of `{program}`")]
    Answer {
        /// What was run.
        program: String,
        /// Where its answer departs from the form.
        source: serde_json::Error,
    },
}

/// Runs a program and returns its standard output as text.
pub fn output_of(command: &mut Command) -> Result<String, CargoError> {
    let (text, status) = printed_by(command)?;
    status.map(|()| text)
}

/// What a program printed, and whether it succeeded.
pub fn printed_by(command: &mut Command) -> Result<(String, Result<(), CargoError>), CargoError> {
    let program = || {
        let mut words = vec![command.get_program().to_string_lossy().into_owned()];
        words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
        words.join(" ")
    };
    let program = program();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| CargoError::Spawn {
            program: program.clone(),
            source,
        })?;
    let status = if output.status.success() {
        Ok(())
    } else {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(5)..];
        Err(CargoError::Failed {
            program,
            message: tail.join("; "),
        })
    };
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), status))
}
