//! Recipes made valid by building them where nothing but the recipe can matter.
//!
//! ```text
//! workspace ─► skeleton ─┐                                   ┌─► audit ─► store
//!              sources ──┼─► builder: plan, link, Cargo, ────┤
//!              valid ────┘            harvest, check         └─► log
//! ```
//!
//! | module | job |
//! |---|---|
//! | [`generate`] | from recipes to a workspace that Cargo compiles to just them |
//! | [`recipes`] | from recipes to orders |
//! | `order` | what to build, and what is valid already |
//! | `begin` | a builder started beside the planning |
//! | `attempt` | one run of a builder |
//! | `alone` | when the halves in the builder have ended |
//! | `compare` | whether two builds made the same |
//! | `skeleton` | a workspace without its code |
//! | `sources` | a Cargo home with the packages needed |
//! | `unpack` | their archives, unpacked in the builder |
//! | `job` | what the two halves say to each other |
//! | [`inside`] | the half that runs in the builder |
//! | `audit` | what an output must not show |
//! | `provenance` | where an output came from |
//! | `scratch` | folders for a while |
//! | [`journal`] | logs, and what was realised before |
//!
//! Invariants:
//! * An output gets into the store only after the audit, and only whole.
//! * Nothing is compiled whose recipe is not one that was asked for.
//! * What is valid, made by the same builder, is not made again.

mod alone;
mod attempt;
mod audit;
mod begin;
mod compare;
pub mod generate;
pub mod inside;
mod job;
pub mod journal;
mod order;
mod provenance;
pub mod recipes;
mod scratch;
mod skeleton;
mod sources;
mod unpack;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use alone::LastWord;
pub use audit::Audit;
pub use compare::Comparison;
pub use inside::InsideError;
pub use scratch::scratch;
pub use skeleton::SkeletonError;
pub use sources::SourceError;
pub use unpack::{UnpackError, run as unpack};

use crate::build::Observer;
use crate::builder::{self, Builder, BuilderError, Limits};
use crate::cargo::glibc::GlibcVersion;
use crate::digest::RecipeHash;
use crate::environment::Environment;
use crate::fs::FsError;
use crate::plan::ContextError;
use crate::store::{Store, StoreError};
use crate::substitute::{Fetched, Substituters};

/// The exit code of the half in the builder when it writes too much.
pub(crate) const ABOVE: u8 = 4;

/// What is to be realised, and by whom.
pub struct Order<'a> {
    /// The user's variables.
    pub environment: &'a Environment,
    /// A folder of the workspace.
    pub folder: &'a Path,
    /// Arguments of Cargo's `build` and `check`.
    pub arguments: &'a [String],
    /// What people call it; by default the package that is asked for.
    pub name: Option<String>,
    /// Recipes that must come of it; by default what is planned here.
    pub wanted: Option<Vec<RecipeHash>>,
    /// This program.
    pub program: &'a Path,
    /// Where outputs go.
    pub store: &'a Store,
    /// Who builds.
    pub builder: &'a dyn Builder,
    /// What it promises.
    pub terms: Terms,
    /// Who is asked for outputs of this builder before it starts.
    pub substituters: &'a Substituters,
}

/// What a builder promises and may use.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Its name, for people.
    pub name: String,
    /// Whether its toolchain is this machine's, so that recipes can be compared.
    pub same_toolchain: bool,
    /// The triple of the platform that it compiles on.
    pub host: String,
    /// The highest GLIBC version that its programs need.
    pub glibc: Option<GlibcVersion>,
    /// Whether it declares libraries of the system.
    pub libraries: bool,
    /// Folders of programs, for `PATH`.
    pub path: String,
    /// What a realisation may use.
    pub limits: Limits,
    /// Bytes that it may write.
    pub disk: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Realisation {
    /// Store names of the outputs that are valid now.
    pub valid: Vec<String>,
    /// Store names of those that are new.
    pub added: Vec<String>,
    /// Units of packages that have no output, with reasons.
    pub missing: Vec<(String, String)>,
    /// Store names of outputs that the builder was given.
    pub given: BTreeSet<String>,
    /// What was fetched instead of being built.
    pub fetched: Fetched,
    /// Whether nothing was to be done.
    pub settled: bool,
    /// Seconds in the builder.
    pub seconds: f64,
    /// Where the log is.
    pub log: Option<PathBuf>,
}

/// Why nothing was realised.
#[derive(Debug, thiserror::Error)]
pub enum RealiseError {
    /// The workspace.
    #[error("the workspace cannot be taken to a builder")]
    Skeleton(#[from] SkeletonError),
    /// The sources.
    #[error("the sources cannot be taken to a builder")]
    Sources(#[from] SourceError),
    /// Cargo has no plan.
    #[error("Cargo gives no plan")]
    Plan(#[from] ContextError),
    /// The builder.
    #[error("`{name}` could not be realised")]
    Builder {
        /// What was to be realised.
        name: String,
        /// Why.
        source: BuilderError,
    },
    /// The build failed.
    #[error("`{name}` could not be realised: {reason}")]
    Failed {
        /// What was to be realised.
        name: String,
        /// What the builder said.
        reason: String,
        /// The last lines of its log.
        tail: Vec<String>,
    },
    /// An output has something that it must not have, or is damaged.
    #[error("what the builder made is refused")]
    Refused(#[source] StoreError),
    /// What came back is not what this version writes.
    #[error("the builder's report cannot be read")]
    Report(#[source] serde_json::Error),
    /// The store.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// A file.
    #[error("a file cannot be used")]
    File(#[from] FsError),
}

impl RealiseError {
    /// Whether what was to be built is to blame, so that it fails elsewhere, too:
    /// the build failed, it used up what it may use, or its outputs show what
    /// they must not. Otherwise it is this machine, its engine or its network.
    pub fn is_of_recipe(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::Refused(_) | Self::Plan(_) => true,
            Self::Builder { source, .. } => source.is_of_task(),
            _ => false,
        }
    }
}

/// Result of a realisation.
pub type Result<T> = std::result::Result<T, RealiseError>;

/// Removes what killed realisations left on an engine; a warning is all that
/// comes of a failure.
pub fn sweep(engine: &builder::docker::Engine, observer: &mut dyn Observer) {
    match engine.sweep() {
        Ok(0) => {}
        Ok(count) => observer.warn(&format!(
            "{count} containers and volumes of realisations that were killed are removed"
        )),
        Err(error) => observer.warn(&crate::build::chain(&error)),
    }
}
