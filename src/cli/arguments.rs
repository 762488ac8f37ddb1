//! The command line. Names are a contract: add to them, do not rename them.

mod analysis;
mod places;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::serve::ServeArguments;
use super::service::ServiceArguments;
use super::worker::WorkerArguments;
pub(super) use analysis::{AlignArguments, AnalyseArguments, AnalysisFormat};
pub(super) use places::{CopyArguments, PruneArguments, PublishingArguments, PushArguments};

/// Compile a Cargo unit once, find it Fresh ever after.
#[derive(Debug, Parser)]
#[command(
    name = "quickbuild",
    version,
    about,
    after_help = "Whatever cannot be proved, Cargo compiles; a failure of quickbuild never fails a build.\n\
        Variables: QUICKBUILD_STORE (the store's folder), QUICKBUILD_CONFIG (the only configuration file to read), \
        QUICKBUILD_SUBSTITUTERS and QUICKBUILD_PUBLIC_KEYS (where to fetch from and whom to believe)."
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
        (
            "build" | "check" | "clippy" | "test" | "run" | "doc" | "bench" | "plan" | "substitute"
            | "audit",
            _,
        ) => 2,
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
    /// `--show-report` prints what a service would be told, and tells it nothing.
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
    /// Fetch what a Cargo command needs and link it; compile nothing.
    ///
    /// The first argument may name the Cargo command; otherwise it is `build`.
    /// `--substituter URL`, as often as needed, names substituters to use instead
    /// of the configured ones.
    #[command(
        after_help = "Example: quickbuild substitute check --release --substituter https://cache.example.org"
    )]
    Substitute(CargoArguments),
    /// Say where each output of a build came from, and who vouches for it.
    ///
    /// The first argument may name the Cargo command; otherwise it is `build`.
    /// `--format` takes `text`, `json`, or `cyclonedx` for a bill of materials
    /// (CycloneDX 1.6). `--key NAME:BASE64`, as often as needed, names the keys to
    /// trust instead of those of the substituters and your own. The exit code is 1
    /// if something came from elsewhere and no trusted key has signed it; a bill
    /// judges nothing.
    #[command(after_help = "Example: quickbuild audit --release --format cyclonedx > bom.json")]
    Audit(CargoArguments),
    /// Publish outputs, with all they need, in a substituter.
    #[command(
        after_help = "Examples:\n  quickbuild push /srv/cache --workspace\n  quickbuild push s3://bucket/cache --recipe serde_json\n\
            What is published already stays as it is. Sign first: `quickbuild key sign`."
    )]
    Push(PushArguments),
    /// Copy outputs from one substituter to another, or to or from the store.
    ///
    /// What is read is verified by the policy of where it comes from: keys are
    /// those in `quickbuild.toml`, or in QUICKBUILD_PUBLIC_KEYS.
    #[command(
        after_help = "Examples:\n  quickbuild copy https://cache.example.org s3://bucket/cache\n  \
            quickbuild copy s3://bucket/cache oci://registry.example.org/cache\n  quickbuild copy /srv/cache store"
    )]
    Copy(CopyArguments),
    /// Remove what is not wanted any more from a substituter of your own.
    ///
    /// What stays keeps all that it refers to. Without limits, only archives go
    /// that no document has named for a day.
    #[command(
        after_help = "Example: quickbuild prune s3://bucket/cache --older-than 90d --max-size 50GB --keep tokio --dry-run"
    )]
    Prune(PruneArguments),
    /// Be a substituter over HTTP: of the store, or of a published folder.
    #[command(
        after_help = "Examples:\n  quickbuild serve --listen 0.0.0.0:8080\n  quickbuild serve /srv/cache --tls-cert cert.pem --tls-key key.pem --write-tokens tokens --public-key cache.example.org-1:…\n\
            The server signs nothing: `quickbuild key sign`. SIGINT and SIGTERM end it when requests under way are answered."
    )]
    Serve(Box<ServeArguments>),
    /// Count what is wanted, and have it built: reports come in over HTTP, workers build.
    #[command(
        after_help = "Examples:\n  quickbuild service --listen 127.0.0.1:8090 --data /var/lib/quickbuild\n  curl --data-binary @Cargo.lock http://127.0.0.1:8090/v1/lockfiles"
    )]
    Service(Box<ServiceArguments>),
    /// Build what a service wants built.
    ///
    /// Recipes are realised in containers of the builders that this machine has,
    /// and their outputs sent to the service, which signs and publishes them. With
    /// nothing to build, this machine's Cargo is asked what lock files want that came
    /// without recipes; nothing of them is compiled or run for it. The token is in
    /// QUICKBUILD_WORKER_TOKEN.
    #[command(
        after_help = "Example: QUICKBUILD_WORKER_TOKEN=qbs_… quickbuild worker --server https://quickbuild.example.org\n\
            Exit code 0: it was asked to stop, or with `--once` there is nothing to do."
    )]
    Worker(WorkerArguments),
    /// Show or forget what substituters answered.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Find out what many lock files have in common, and what is worth prebuilding.
    ///
    /// Nothing is sent anywhere without `--lookup`. Compile seconds are those of the store and of
    /// the reports given with `--timings`; the rest is estimated.
    #[command(
        after_help = "Examples:\n  quickbuild analyse ~/src\n  quickbuild analyse ~/src --package tokio --budget-seconds 3600 --format html > report.html\n\
            Exit code 1: some files were left out, which the report names."
    )]
    Analyse(AnalyseArguments),
    /// Say which packages to move to other versions so that more is prebuilt.
    ///
    /// Nothing is changed without `--apply`. Cargo moves the packages in a copy of
    /// the manifests first, and has the last word. Versions that are yanked,
    /// vulnerable, or for a newer Rust than the workspace says to support are never
    /// proposed.
    #[command(
        after_help = "Examples:\n  quickbuild align --substituter https://cache.example.org\n  quickbuild align --check -- --release\n  quickbuild align --apply --keep openssl\n\
            Exit code 1 with `--check`: a change would help."
    )]
    Align(AlignArguments),
    /// Build recipes, or what a workspace depends on, in a pinned builder.
    #[command(
        after_help = "Examples:\n  quickbuild realise serde_json axum\n  quickbuild realise --workspace . -- --release\n\
            What is valid already is not built again. Ctrl-C removes the builder."
    )]
    Realise(RealiseArguments),
    /// Show what a builder said about a recipe or package.
    #[command(after_help = "Example: quickbuild log serde_json")]
    Log {
        /// The recipe hash, or how it begins, or the package's name.
        recipe: String,
    },
    /// Write, read and check recipes as files.
    #[command(subcommand)]
    Recipe(RecipeCommand),
    /// Look after the store.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Make, pin and check the images in which recipes are built.
    #[command(subcommand)]
    Builder(BuilderCommand),
    /// Make keys, sign outputs, find out who has signed them.
    #[command(subcommand)]
    Key(KeyCommand),
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
pub(super) enum CacheCommand {
    /// Say what is kept of substituters' answers, and for how long it counts.
    #[command(after_help = "Example: quickbuild cache show")]
    Show {
        /// How to print it.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Forget all answers.
    #[command(after_help = "Example: quickbuild cache clear")]
    Clear,
}

/// Arguments of `realise`.
#[derive(Debug, Args)]
pub(super) struct RealiseArguments {
    /// Recipes with all they need: a hash, how it begins, a package's name, or
    /// `name@version`.
    #[arg(value_name = "RECIPE", conflicts_with = "workspace")]
    pub(super) recipes: Vec<String>,
    /// All recipes of the repository.
    #[arg(long, conflicts_with_all = ["recipes", "workspace"])]
    pub(super) all: bool,
    /// The folder of recipe files; by default the project's `recipes/`.
    #[arg(long, value_name = "DIR")]
    pub(super) repository: Option<PathBuf>,
    /// A folder of the workspace whose dependencies are built; here by default.
    #[arg(long, value_name = "DIR")]
    pub(super) workspace: Option<PathBuf>,
    /// Where it is built: in a container, or in a scratch folder of this
    /// machine. By default in a container if an engine answers.
    #[arg(long, value_enum, value_name = "KIND")]
    pub(super) builder: Option<BuilderKind>,
    /// The builder, as `quickbuild builder list` names it; by default the one
    /// of the toolchain that Cargo uses here.
    #[arg(long, value_name = "NAME")]
    pub(super) toolchain: Option<String>,
    /// How many batches of recipes are built at the same time; they share the
    /// machine's cores.
    #[arg(long, short, value_name = "N", default_value = "1")]
    pub(super) jobs: std::num::NonZeroU32,
    /// Build once more, in a fresh builder, and compare byte by byte.
    #[arg(long)]
    pub(super) check: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "text")]
    pub(super) format: Format,
    /// Do the job on standard input: the half that runs in a builder.
    #[arg(long, hide = true)]
    pub(super) inside: bool,
    /// Unpack the archives in this list: the builder's first step.
    #[arg(long, hide = true, value_name = "FILE")]
    pub(super) unpack: Option<PathBuf>,
    /// Arguments for `cargo build` and `cargo check`.
    #[arg(last = true, value_name = "CARGO ARGS")]
    pub(super) arguments: Vec<String>,
}

/// Where something is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum BuilderKind {
    /// A container of a Docker or Podman engine.
    Docker,
    /// A scratch folder of this machine.
    Local,
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
pub(super) enum BuilderCommand {
    /// List builders, the image that the engine has of each, and what is pinned.
    #[command(after_help = "Example: quickbuild builder list --format json")]
    List {
        /// How to print them.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Make images without a registry, load them into the engine, and print
    /// their digests.
    #[command(
        after_help = "Example: quickbuild builder build 1.95.0-x86_64-unknown-linux-gnu --pin"
    )]
    Build {
        /// Names of builders.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Ask Debian again, also where it was asked within the day.
        #[arg(long)]
        fresh: bool,
        /// Write the digests into quickbuild.toml.
        #[arg(long)]
        pin: bool,
    },
    /// Write the digest of an image into quickbuild.toml.
    #[command(
        after_help = "Example: quickbuild builder pin 1.95.0-x86_64-unknown-linux-gnu rust:1.95.0-bookworm"
    )]
    Pin {
        /// The builder's name.
        name: String,
        /// The image, which is pulled if the engine lacks it; by default the one made here.
        image: Option<String>,
    },
    /// See whether images are the pinned ones and are what their definitions say.
    #[command(after_help = "Example: quickbuild builder check 1.95.0-x86_64-unknown-linux-gnu")]
    Check {
        /// Names of builders; by default all that are pinned or have an image.
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// How to print the answers.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key pair; prints the public key.
    ///
    /// The secret key goes into a file that only its owner can read. An existing
    /// file is never replaced.
    #[command(after_help = "Example: quickbuild key generate cache.example.org-1")]
    Generate {
        /// The name that signatures will bear: letters, digits, `-`, `.` and `_`.
        name: String,
        /// Where to write the secret key; by default
        /// `$XDG_CONFIG_HOME/quickbuild/keys/NAME.secret`.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Print the public key of a secret key, as `name:base64`.
    #[command(after_help = "Example: quickbuild key show cache.example.org-1")]
    Show {
        /// The key's name, or the path of its file.
        name: String,
    },
    /// Sign outputs and all that they need, after comparing every byte with the manifests.
    #[command(
        override_usage = "quickbuild key sign [OPTIONS] <NAME> <OUTPUT…|--all>",
        after_help = "Examples:\n  quickbuild key sign cache.example.org-1 bat\n  quickbuild key sign ./ci.secret --all"
    )]
    Sign {
        /// The key's name, or the path of its file.
        name: String,
        #[command(flatten)]
        outputs: Selection,
        /// How to print what was signed.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Say by which keys outputs are signed; fails if one has no valid signature.
    ///
    /// It reads manifests; `quickbuild store verify` compares the files with them.
    #[command(
        override_usage = "quickbuild key verify [OPTIONS] <OUTPUT…|--all>",
        after_help = "Example: quickbuild key verify --key cache.example.org-1:… --all --format json"
    )]
    Verify {
        /// A public key to trust; by default those of your own key files.
        #[arg(long = "key", value_name = "NAME:BASE64")]
        keys: Vec<String>,
        #[command(flatten)]
        outputs: Selection,
        /// How to print it.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
}

/// Which outputs are meant.
#[derive(Debug, Args)]
#[group(id = "selection", required = true, multiple = false)]
pub(super) struct Selection {
    /// Outputs: a package's name, a store name, or how an id begins.
    #[arg(value_name = "OUTPUT")]
    pub(super) outputs: Vec<String>,
    /// All outputs of the store.
    #[arg(long)]
    pub(super) all: bool,
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
