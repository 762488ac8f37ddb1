//! What is asked of the half that runs in the builder, and what it answers.
//!
//! ```text
//! in/quickbuild        this program
//! in/unpack.json       archives of packages, and where they belong
//! in/cargo/            a Cargo home with the sources, read-only
//! in/workspace/        the workspace to build
//! work/store/          a store, with the outputs that need not be made
//! work/out/report.json what was made, and what was not
//! work/out/paths/      what was made, as in a store
//! ```
//!
//! Its standard input has the [`Job`], a line. While it runs, standard output has
//! one JSON object a line: Cargo's own messages, and [`Event`]s.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::RecipeHash;
use crate::output::{Maker, Naming};

/// Version of the job and of the report.
pub(super) const FORMAT: u32 = 1;

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Job {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// Who makes the outputs.
    pub(super) maker: Maker,
    /// The builder's root.
    pub(super) root: PathBuf,
    /// The workspace's folder below `in/workspace`.
    pub(super) folder: PathBuf,
    /// Arguments of Cargo's `build`, and of `check`.
    pub(super) arguments: Vec<String>,
    /// Recipes that the unit graph must have, or nothing is compiled.
    pub(super) wanted: Vec<RecipeHash>,
    /// Bytes that may be written.
    pub(super) disk: u64,
    /// Store names of the outputs that need not be made.
    pub(super) valid: BTreeSet<String>,
}

/// `work/out/report.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Report {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// All outputs of packages that never change, made now or valid before.
    pub(super) outputs: Vec<Realised>,
    /// How Cargo names their units in `build` and in `check`.
    pub(super) namings: Vec<Naming>,
    /// What is not in it, with reasons.
    pub(super) missing: Vec<Missing>,
}

/// An output, and what it is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Realised {
    /// The recipe.
    pub(super) recipe: RecipeHash,
    /// The output's store name.
    pub(super) output: String,
    /// The package's source, as in the recipe.
    pub(super) source: String,
    /// The package's enabled features.
    pub(super) features: Vec<String>,
    /// SHA-256 of the package's archive, if it has one.
    pub(super) checksum: Option<String>,
}

/// A unit without an output.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Missing {
    /// Name and version of the package.
    pub(super) package: String,
    /// Kind of target.
    pub(super) kind: String,
    /// Why.
    pub(super) reason: String,
}

/// What the half in the builder says while it works.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "quickbuild")]
pub(super) enum Event {
    /// So many units are to be compiled.
    Planned {
        /// Their number.
        units: usize,
    },
    /// A step begins.
    Step {
        /// What it is.
        message: String,
    },
    /// Something went wrong; the rest goes on.
    Warning {
        /// What.
        message: String,
    },
    /// It has failed.
    Failed {
        /// Why.
        message: String,
    },
}

/// A message of Cargo, as far as it matters here (Cargo book, "External tools",
/// JSON messages).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub(super) enum CargoMessage {
    /// A unit is done.
    CompilerArtifact {},
    /// A build script has run.
    BuildScriptExecuted {},
    /// Anything else.
    #[serde(other)]
    Other,
}
