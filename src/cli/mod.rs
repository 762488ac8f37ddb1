//! Arguments, printing, exit codes.
use crate::build;
use crate::cargo::environment::Environment;
use crate::cargo::invocation::{Invocation, Subcommand};
use crate::config::Config;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Under which name the program was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalledAs {
    /// `quickbuild`
    Quickbuild,
    /// `cargo quickbuild`
    CargoSubcommand,
}

struct Obs;
impl build::Observer for Obs {
    fn warn(&mut self, message: &str) {
        crate::console::line(&format!("warning: quickbuild: {message}"));
    }
    fn step(&mut self, message: &str) {
        if std::env::var_os("QB_DEBUG").is_some() {
            crate::console::line(&format!(
                "step {:?} {message}",
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map(|d| d.as_millis() % 100000)
            ));
        }
    }
    fn clear(&mut self) {}
}

/// Runs the program.
pub fn main(_called: CalledAs) -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let name = Path::new(&args[0])
        .file_name()
        .map(|n| n.to_owned())
        .unwrap_or_default();
    args.remove(0);
    if name == crate::bridge::WRAPPER_NAME {
        return crate::bridge::run_wrapper(args);
    }
    let args: Vec<String> = args
        .into_iter()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let sub = match args[0].as_str() {
        "build" => Subcommand::Build,
        "check" => Subcommand::Check,
        "clippy" => Subcommand::Clippy,
        "test" => Subcommand::Test,
        "run" => Subcommand::Run,
        "doc" => Subcommand::Doc,
        _ => Subcommand::Bench,
    };
    let environment = Environment::new(std::env::vars_os());
    let folder = std::env::current_dir().unwrap_or(PathBuf::from("/"));
    let config = Config::load(&environment, &folder).expect("config");
    let request = build::Request {
        environment,
        folder,
        invocation: Invocation {
            subcommand: sub,
            arguments: args[1..].to_vec(),
        },
        program: std::env::current_exe().expect("exe"),
    };
    let (status, report) = build::run(&request, &config, &mut Obs).expect("cargo");
    crate::console::line(&format!(
        "quickbuild: {} units, {} from the store, {} built; about {:.0} s saved",
        report.units, report.from_store, report.built, report.seconds_saved
    ));
    for (n, r) in &report.left {
        crate::console::line(&format!("left {n}: {r}"));
    }
    build::exit_code(status)
}
