//! The arguments of commands that write to substituters.

use clap::Args;

use super::Format;

/// Arguments of `push`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PushArguments {
    /// A substituter: a folder, `https://…` of `quickbuild serve`, `s3://…`,
    /// `gs://…`, `az://…`, `oci://…` or `github:owner/repository@tag`.
    #[arg(value_name = "SUBSTITUTER")]
    pub(in crate::cli) to: String,
    /// What this workspace uses; this is the default. Arguments for Cargo may
    /// follow `--`.
    #[arg(long, conflicts_with_all = ["recipes", "all"])]
    pub(in crate::cli) workspace: bool,
    /// Outputs of a package, of a recipe hash or how it begins; may be repeated.
    #[arg(long = "recipe", value_name = "R", conflicts_with = "all")]
    pub(in crate::cli) recipes: Vec<String>,
    /// All outputs of the store.
    #[arg(long)]
    pub(in crate::cli) all: bool,
    /// What all that publish have.
    #[command(flatten)]
    pub(in crate::cli) publishing: PublishingArguments,
    /// Arguments for Cargo, with `--workspace`.
    #[arg(last = true, value_name = "CARGO ARGS")]
    pub(in crate::cli) arguments: Vec<String>,
}

/// Arguments of all that publish.
#[derive(Debug, Args)]
pub(in crate::cli) struct PublishingArguments {
    /// Leave what is there already as it is, signatures included.
    #[arg(long)]
    pub(in crate::cli) only_missing: bool,
    /// Also what was compiled on somebody's own machine, which names its folders.
    #[arg(long)]
    pub(in crate::cli) include_local: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "text")]
    pub(in crate::cli) format: Format,
}

/// Arguments of `copy`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CopyArguments {
    /// Where outputs come from: a substituter, or `store`.
    pub(in crate::cli) from: String,
    /// Where they go: a substituter, or `store`.
    pub(in crate::cli) to: String,
    /// Outputs of a package, of a recipe hash or how it begins, with all they
    /// need; may be repeated. A web server says what it has in its inventory;
    /// where that is missing, it needs whole host recipe hashes.
    #[arg(long = "recipe", value_name = "R")]
    pub(in crate::cli) recipes: Vec<String>,
    /// What all that publish have.
    #[command(flatten)]
    pub(in crate::cli) publishing: PublishingArguments,
}

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PruneArguments {
    /// The substituter: a folder, a bucket, a registry or a release.
    pub(in crate::cli) substituter: String,
    /// Remove what was published so long ago, such as `90d`, and is needed by
    /// nothing younger.
    #[arg(long, value_name = "AGE")]
    pub(in crate::cli) older_than: Option<String>,
    /// Remove the oldest until archives have no more bytes, such as `50GB`.
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) max_size: Option<String>,
    /// Keep outputs of a package, of a recipe hash or how it begins, with all
    /// they need; may be repeated.
    #[arg(long, value_name = "R")]
    pub(in crate::cli) keep: Vec<String>,
    /// Only say what would be removed.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "text")]
    pub(in crate::cli) format: Format,
}
