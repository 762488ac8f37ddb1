//! Arguments, printing, exit codes. Standard output belongs to reports, and
//! standard error to what is said about the work; Cargo's own output is left
//! as it is.

mod align;
mod analyse;
mod arguments;
mod audit;
mod bridge;
mod builder;
mod cache;
mod cargo;
mod copy;
mod doctor;
mod key;
mod plan;
mod prune;
mod push;
mod realise;
mod recipe;
mod selection;
mod serve;
mod service;
mod store;
mod substitute;
mod terminal;
mod worker;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::bridge::{WRAPPER_NAME, is_replay, run_replay, run_wrapper};
use crate::build::{Request, chain};
use crate::cargo::invocation::Invocation;
use crate::cargo::invocation::Subcommand;
use crate::config::Config;
use crate::environment::Environment;
use crate::fs;
use crate::substituter::Substituter;
use arguments::{Arguments, BridgeCommand, Command};

/// Under which name the program was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalledAs {
    /// `quickbuild`
    Quickbuild,
    /// `cargo quickbuild`
    CargoSubcommand,
}

/// Exit codes of our own commands. `build`, `check` … end with Cargo's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Success = 0,
    /// The command did its work and found something wrong: a damaged output,
    /// an output
    /// without a valid signature, something that `doctor` warns about.
    Found = 1,
    /// The command line is wrong (clap's code).
    Usage = 2,
    /// The command could not do its work.
    Failed = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error on its way to the user, with advice.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hints: Vec<String>,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hints: Vec::new(),
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    fn print(&self) {
        crate::console::line(&format!("error: {}", self.message));
        for hint in &self.hints {
            crate::console::line(&format!("hint: {hint}"));
        }
    }
}

impl Failure {
    /// Says what went wrong where the command goes on without it.
    fn warn(&self) {
        crate::console::line(&format!("warning: {}", self.message));
        for hint in &self.hints {
            crate::console::line(&format!("hint: {hint}"));
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(chain(&error))
    }
}

/// What all commands start from.
pub(crate) struct Surroundings {
    environment: Environment,
    folder: PathBuf,
    program: PathBuf,
}

impl Surroundings {
    /// A command given here.
    fn request(&self, invocation: Invocation) -> Request {
        Request {
            environment: self.environment.clone(),
            folder: self.folder.clone(),
            invocation,
            program: self.program.clone(),
            seal: None,
        }
    }

    /// A substituter by its URL, with its settings if it has any.
    fn substituter(&self, config: &Config, url: &str) -> Result<Substituter, Failure> {
        let settings = config.substituter(url, &self.environment, &self.folder);
        Ok(Substituter::open(&settings, &self.environment)?)
    }

    fn config(&self) -> Result<Config, Failure> {
        Config::load(&self.environment, &self.folder).map_err(|error| {
            Failure::from(error).hint("`quickbuild doctor` says which files are read")
        })
    }
}

/// Runs the program.
pub fn main(called: CalledAs) -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map(PathBuf::from).unwrap_or_default();
    if name.file_name().is_some_and(|name| name == WRAPPER_NAME) {
        return run_wrapper(arguments.split_off(1));
    }
    if is_replay(&name) {
        return run_replay(&name, arguments.split_off(1));
    }
    if called == CalledAs::CargoSubcommand && arguments.get(1).is_some_and(|a| a == "quickbuild") {
        arguments.remove(1);
    }
    let own_words = arguments::words_before_cargo(&arguments);
    let cargo_arguments = arguments.split_off(own_words);
    let parsed = match Arguments::try_parse_from(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    let Ok(cargo_arguments) = utf8(cargo_arguments) else {
        Failure::new("an argument is not UTF-8").print();
        return Exit::Usage.into();
    };
    let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let surroundings = Surroundings {
        environment: Environment::new(std::env::vars_os()),
        program: own_program(&name),
        folder,
    };
    match run(parsed.command, cargo_arguments, &surroundings) {
        Ok(code) => code,
        Err(failure) => {
            failure.print();
            Exit::Failed.into()
        }
    }
}

/// The program to use as the wrapper: `quickbuild`, also when it was started
/// as `cargo quickbuild`.
fn own_program(name: &Path) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_else(|_| name.to_owned());
    let beside = own.with_file_name("quickbuild");
    if beside.is_file() { beside } else { own }
}

fn utf8(arguments: Vec<OsString>) -> Result<Vec<String>, OsString> {
    arguments.into_iter().map(OsString::into_string).collect()
}

fn run(
    command: Command,
    cargo_arguments: Vec<String>,
    surroundings: &Surroundings,
) -> Result<ExitCode, Failure> {
    let build = |subcommand| cargo::run(surroundings, subcommand, cargo_arguments.clone());
    match command {
        Command::Build(_) => build(Subcommand::Build),
        Command::Check(_) => build(Subcommand::Check),
        Command::Clippy(_) => build(Subcommand::Clippy),
        Command::Test(_) => build(Subcommand::Test),
        Command::Run(_) => build(Subcommand::Run),
        Command::Doc(_) => build(Subcommand::Doc),
        Command::Bench(_) => build(Subcommand::Bench),
        Command::Plan(_) => plan::plan(surroundings, cargo_arguments),
        Command::Explain { package, .. } => plan::explain(surroundings, &package, cargo_arguments),
        Command::Substitute(_) => substitute::run(surroundings, cargo_arguments),
        Command::Audit(_) => audit::run(surroundings, cargo_arguments),
        Command::Push(arguments) => push::run(surroundings, &arguments),
        Command::Copy(arguments) => copy::run(surroundings, &arguments),
        Command::Prune(arguments) => prune::run(surroundings, &arguments),
        Command::Serve(arguments) => serve::run(surroundings, *arguments),
        Command::Align(arguments) => align::run(surroundings, &arguments),
        Command::Service(arguments) => service::run(surroundings, *arguments),
        Command::Analyse(arguments) => analyse::run(surroundings, &arguments),
        Command::Cache(command) => cache::run(surroundings, command),
        Command::Worker(arguments) => worker::run(surroundings, &arguments),
        Command::Realise(arguments) => realise::run(surroundings, arguments),
        Command::Log { recipe } => realise::log(surroundings, &recipe),
        Command::Recipe(command) => recipe::run(surroundings, command, cargo_arguments),
        Command::Store(command) => store::run(surroundings, command),
        Command::Builder(command) => builder::run(surroundings, command),
        Command::Key(command) => key::run(surroundings, command),
        Command::Detach { target_dir } => store::detach(surroundings, target_dir),
        Command::Doctor { format } => doctor::run(surroundings, format),
        Command::Bridge(BridgeCommand::Request { recipe, emit }) => {
            bridge::request(surroundings, &recipe, &emit)
        }
        Command::Bridge(BridgeCommand::Emit(_)) => Ok(bridge::emit(cargo_arguments)),
        Command::Completions { shell } => Ok(completions(shell)),
        Command::Man { folder } => manual(&folder),
    }
}

/// The help of one subcommand, for `--help` among Cargo's arguments.
fn print_help_of(subcommand: Subcommand) {
    print_help(subcommand.name());
}

/// The help of a subcommand by its name.
fn print_help(name: &str) {
    let mut command = Arguments::command();
    command.build();
    if let Some(found) = command.find_subcommand_mut(name) {
        let _ = found.print_long_help(); // a closed pipe is no error
    }
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "quickbuild", &mut script);
    terminal::print(&String::from_utf8_lossy(&script));
    Exit::Success.into()
}

fn manual(folder: &Path) -> Result<ExitCode, Failure> {
    fs::create_dir_all(folder)?;
    let mut command = Arguments::command();
    command.build();
    let mut pages = vec![("quickbuild".to_owned(), command.clone())];
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        pages.push((format!("quickbuild-{}", sub.get_name()), sub.clone()));
    }
    for (name, command) in pages {
        let mut page = Vec::new();
        let title = name.clone();
        clap_mangen::Man::new(command.name(title)).render(&mut page)?;
        fs::write_atomic(&folder.join(format!("{name}.1")), &page)?;
    }
    Ok(Exit::Success.into())
}
