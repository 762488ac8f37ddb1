//! The command line. Names are a contract: add to them, do not rename them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Compile a Cargo unit once, find it Fresh ever after.
#[derive(Debug, Parser)]
#[command(
    name = "quickbuild",
    version,
    about,
    after_help = "Whatever cannot be proved, Cargo compiles; a failure of quickbuild never fails a build.\n\
        Variables: QUICKBUILD_STORE (the store's folder), QUICKBUILD_CONFIG (the only configuration file to read)."
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Arguments that are Cargo's own.
#[derive(Debug, Args)]
pub(super) struct CargoArguments {
    /// Arguments for Cargo, as they are.
    #[arg(
        value_name = "CARGO ARGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(super) arguments: Vec<String>,
}

/// How many words are for us. What follows is Cargo's, to the letter: a parser
/// would take the `--` between Cargo's arguments and the program's.
pub(super) fn words_before_cargo(words: &[OsString]) -> usize {
    let word = |at: usize| {
        words
            .get(at)
            .and_then(|word| word.to_str())
            .unwrap_or_default()
    };
    let end = match (word(1), word(2)) {
        // Our own option comes before what is Cargo's.
        ("recipe", "export") if word(3) == "--to" => 5,
        ("recipe", "export") if word(3).starts_with("--to=") => 4,
        ("recipe", "export") => 3,
        ("build" | "check" | "clippy" | "test" | "run" | "doc" | "bench" | "plan", _) => 2,
        ("explain", _) | ("bridge", "emit") => 3,
        _ => return words.len(),
    };
    let help = matches!(word(end), "--help" | "-h") || matches!(word(2), "--help" | "-h");
    if help {
        words.len()
    } else {
        end.min(words.len())
    }
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Link what the store has, run `cargo build`, keep what it compiled.
    #[command(after_help = "Example: quickbuild build --release -p my-crate")]
    Build(CargoArguments),
    /// The same for `cargo check`; build outputs serve it as well.
    #[command(after_help = "Example: quickbuild check --workspace")]
    Check(CargoArguments),
    /// The same for `cargo clippy`.
    #[command(after_help = "Example: quickbuild clippy -- -D warnings")]
    Clippy(CargoArguments),
    /// The same for `cargo test`.
    #[command(after_help = "Example: quickbuild test --lib -- --nocapture")]
    Test(CargoArguments),
    /// The same for `cargo run`.
    #[command(after_help = "Example: quickbuild run --bin server -- --port 8080")]
    Run(CargoArguments),
    /// The same for `cargo doc`: dependencies are linked, documentation is made anew.
    #[command(after_help = "Example: quickbuild doc --no-deps")]
    Doc(CargoArguments),
    /// The same for `cargo bench`.
    #[command(after_help = "Example: quickbuild bench --no-run")]
    Bench(CargoArguments),
    /// Say what is ready and why each other unit is not; build nothing.
    ///
    /// The first argument may name the Cargo command; otherwise it is `build`.
    #[command(after_help = "Example: quickbuild plan check --release --format json")]
    Plan(CargoArguments),
    /// Say everything about a package's units: recipes, outputs, reasons.
    #[command(after_help = "Example: quickbuild explain serde --release")]
    Explain {
        /// The package's name, or `name@version`.
        package: String,
        /// Arguments for Cargo, as they are.
        #[command(flatten)]
        cargo: CargoArguments,
    },
    /// Write, read and check recipes as files.
    #[command(subcommand)]
    Recipe(RecipeCommand),
    /// Look after the store.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Give a target directory its own copies of all that it shares with the store.
    #[command(after_help = "Example: quickbuild detach --target-dir target")]
    Detach {
        /// The directory; by default the workspace's.
        #[arg(long, value_name = "DIR")]
        target_dir: Option<PathBuf>,
    },
    /// Look for what keeps quickbuild from working well here.
    #[command(after_help = "Example: quickbuild doctor")]
    Doctor {
        /// How to print it.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Ask for and give artefacts, for other tools; see docs/formats/emissions.md.
    #[command(subcommand)]
    Bridge(BridgeCommand),
    /// Print a completion script for a shell.
    #[command(
        after_help = "Example: quickbuild completions bash > ~/.local/share/bash-completion/completions/quickbuild"
    )]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages into a folder.
    #[command(after_help = "Example: quickbuild man ~/.local/share/man/man1")]
    Man {
        /// The folder.
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum RecipeCommand {
    /// Write the recipes of all packages that a Cargo command would compile.
    ///
    /// The first of Cargo's arguments may name the command; otherwise it is
    /// `build`. Packages in folders have no recipe files.
    #[command(after_help = "Example: quickbuild recipe export --to recipes build --release")]
    Export {
        /// The repository to write to; by default `recipes` beside the project's
        /// `quickbuild.toml`, or here.
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// Arguments for Cargo, as they are.
        #[command(flatten)]
        cargo: CargoArguments,
    },
    /// Print a recipe and all that it needs.
    #[command(after_help = "Example: quickbuild recipe show serde@1.0.228")]
    Show {
        /// A recipe's hash or how it begins, its name, or `name@version`.
        recipe: String,
        /// The repository; by default `recipes` beside the project's `quickbuild.toml`, or here.
        #[arg(long, value_name = "DIR")]
        repository: Option<PathBuf>,
        /// How to print it.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Put recipe files where they belong, in canonical form.
    #[command(after_help = "Example: quickbuild recipe add proposed/*.toml")]
    Add {
        /// The files; what they need must be among them or in the repository.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The repository; by default `recipes` beside the project's `quickbuild.toml`, or here.
        #[arg(long, value_name = "DIR")]
        repository: Option<PathBuf>,
    },
    /// Look for recipes that are not sound: not canonical, not at their place,
    /// not closed, not what the registry has, yanked.
    #[command(after_help = "Example: quickbuild recipe check recipes --offline")]
    Check {
        /// The repository; by default `recipes` beside the project's `quickbuild.toml`, or here.
        #[arg(value_name = "DIR")]
        repository: Option<PathBuf>,
        /// Do not ask registries about checksums and yanked versions.
        #[arg(long)]
        offline: bool,
        /// How to print it.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Print the hash of the recipe in a file.
    #[command(after_help = "Example: quickbuild recipe hash proposed.toml")]
    Hash {
        /// The file; it need not be in a repository, nor canonical.
        file: PathBuf,
    },
    /// Say in which fields two recipes differ.
    #[command(after_help = "Example: quickbuild recipe diff serde@1.0.227 serde@1.0.228")]
    Diff {
        /// A file, or a recipe of the repository.
        a: String,
        /// Another.
        b: String,
        /// The repository; by default `recipes` beside the project's `quickbuild.toml`, or here.
        #[arg(long, value_name = "DIR")]
        repository: Option<PathBuf>,
        /// How to print it.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// List outputs.
    #[command(after_help = "Example: quickbuild store list serde")]
    List {
        /// Only those of this package.
        package: Option<String>,
        /// How to print them.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Print the store's folder, or that of an output.
    #[command(after_help = "Example: quickbuild store path 0f3k")]
    Path {
        /// An output's name, or how it begins.
        output: Option<String>,
    },
    /// Say what the store occupies.
    #[command(after_help = "Example: quickbuild store du")]
    Du {
        /// How to print it.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Look for outputs that were changed or are incomplete.
    #[command(after_help = "Example: quickbuild store verify --quick")]
    Verify {
        /// Compare times and sizes only, not content.
        #[arg(long)]
        quick: bool,
    },
    /// Throw out what `verify` finds; Cargo builds it again when it is needed.
    #[command(after_help = "Example: quickbuild store repair")]
    Repair,
    /// Remove what no target directory links, the least recently used first.
    #[command(after_help = "Example: quickbuild store gc --older-than 30d --dry-run")]
    Gc {
        /// Bytes to keep below, such as `10GB`; by default the configured `max-size`.
        #[arg(long, value_name = "SIZE")]
        max_size: Option<String>,
        /// Remove what was not used for so long, such as `30d`.
        #[arg(long, value_name = "AGE")]
        older_than: Option<String>,
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Write outputs, with all they need, into one archive.
    #[command(after_help = "Example: quickbuild store export bat.tar.zst bat")]
    Export {
        /// The archive to write.
        archive: PathBuf,
        /// Packages whose outputs to take; all, if none is named.
        packages: Vec<String>,
    },
    /// Read an archive, verifying every byte.
    #[command(after_help = "Example: quickbuild store import bat.tar.zst")]
    Import {
        /// The archive to read.
        archive: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BridgeCommand {
    /// Ask which output serves a unit: prints the store path's files as JSON.
    #[command(after_help = "Example: quickbuild bridge request 0f3k… --emit metadata")]
    Request {
        /// The recipe hash, as `quickbuild plan --format json` prints it.
        recipe: String,
        /// What is wanted: `metadata`, `link`, `dep-info`, `build-run` or `diagnostics`.
        #[arg(long, default_value = "link")]
        emit: String,
    },
    /// Do what the rustc wrapper does for one command line of the compiler, in
    /// the session that `QUICKBUILD_SESSION` names.
    #[command(after_help = "Example: quickbuild bridge emit -- rustc --crate-name a …")]
    Emit(CargoArguments),
}
