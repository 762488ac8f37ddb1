//! The arguments of `analyse` and `align`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of `analyse`.
#[derive(Debug, Args)]
pub(in crate::cli) struct AnalyseArguments {
    /// Folders to search for `Cargo.lock` files, or such files.
    #[arg(value_name = "DIR|FILE", required = true)]
    pub(in crate::cli) paths: Vec<PathBuf>,
    /// A package whose dependents are looked at; may be repeated.
    #[arg(long, value_name = "NAME", default_values = ["tokio", "hyper", "actix-web", "serde", "clap"])]
    pub(in crate::cli) package: Vec<String>,
    /// Choose what to build in so many seconds of one processor.
    #[arg(long, value_name = "SECONDS", conflicts_with = "budget_bytes")]
    pub(in crate::cli) budget_seconds: Option<f64>,
    /// Choose what to build in so much storage, such as `10GB`.
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) budget_bytes: Option<String>,
    /// Weigh the selection by downloads: the folder `data` of crates.io's dump, or a
    /// table with the columns `name` and `downloads`.
    #[arg(long, value_name = "DIR|FILE")]
    pub(in crate::cli) downloads: Option<PathBuf>,
    /// A page that `cargo build --timings` wrote; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) timings: Vec<PathBuf>,
    /// The platform whose packages are counted: a triple, `host`, or `all`. What
    /// Cargo has not looked up in the registry counts everywhere.
    #[arg(long, value_name = "TRIPLE", default_value = "host")]
    pub(in crate::cli) platform: String,
    /// Let Cargo look up in the registry what packages need on which platform;
    /// the names of all packages are sent there.
    #[arg(long)]
    pub(in crate::cli) lookup: bool,
    /// Also find out what moving to prebuilt versions makes of it, by the registry's
    /// index, on projects that were not looked at; takes about a second for each.
    #[arg(long)]
    pub(in crate::cli) align: bool,
    /// Also plan `cargo build` where a manifest and the sources are at hand, and say
    /// what is shared by recipes: features, profile, host and target included.
    #[arg(long)]
    pub(in crate::cli) plan: bool,
    /// Also read the history of each lock file in the Git repository around it: what
    /// is left of its trees after days and months.
    #[arg(long)]
    pub(in crate::cli) history: bool,
    /// Only projects that `index.tsv` says to be of this tier; may be repeated.
    #[arg(long, value_name = "WORD")]
    pub(in crate::cli) tier: Vec<String>,
    /// Leave out projects that changed last before this day, by `index.tsv`.
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub(in crate::cli) since: Option<String>,
    /// Count a project half for each so many days since it changed.
    #[arg(long, value_name = "DAYS")]
    pub(in crate::cli) half_life: Option<f64>,
    /// Write the recipes of what is chosen under the budget into this folder.
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) recipes: Option<PathBuf>,
    /// Write them into a new branch of the Git repository around that folder, and
    /// leave what is checked out there alone.
    #[arg(long, value_name = "NAME", requires = "recipes")]
    pub(in crate::cli) branch: Option<String>,
    /// Where recipes are known; by default the project's `recipes/`.
    #[arg(long, value_name = "DIR", requires = "recipes")]
    pub(in crate::cli) known: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    pub(in crate::cli) format: AnalysisFormat,
}

/// Forms of an analysis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum AnalysisFormat {
    /// For people.
    Text,
    /// For programs; see docs/formats/analysis.md.
    Json,
    /// One page with plots.
    Html,
}

/// Arguments of `align`.
#[derive(Debug, Args)]
pub(in crate::cli) struct AlignArguments {
    /// Change Cargo.lock, once Cargo has proved that it resolves.
    #[arg(long, conflicts_with = "check")]
    pub(in crate::cli) apply: bool,
    /// End with exit code 1 if a change would help.
    #[arg(long)]
    pub(in crate::cli) check: bool,
    /// A substituter to use instead of the configured ones, or `store` for the
    /// local store; may be repeated.
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) substituter: Vec<String>,
    /// A report of `quickbuild analyse --format json` with a budget: take its
    /// selection for what is prebuilt.
    #[arg(long, value_name = "FILE", conflicts_with = "substituter")]
    pub(in crate::cli) analysis: Option<PathBuf>,
    /// A package that keeps its version; may be repeated, and adds to `keep` in
    /// `quickbuild.toml`.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) keep: Vec<String>,
    /// A checkout of RustSec's advisory database; by default the configured one,
    /// or the one that `cargo audit` keeps.
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) advisory_db: Option<PathBuf>,
    /// Let Cargo look up in the registry what it has not looked up before; names
    /// of packages are sent there.
    #[arg(long, conflicts_with = "offline")]
    pub(in crate::cli) lookup: bool,
    /// Ask nobody: neither substituters that are not folders, nor registries.
    #[arg(long)]
    pub(in crate::cli) offline: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    pub(in crate::cli) format: super::Format,
    /// Arguments for Cargo; the first may name the command, otherwise it is
    /// `build`.
    #[arg(last = true, value_name = "CARGO ARGS")]
    pub(in crate::cli) arguments: Vec<String>,
}
