//! What many lock files have in common, and so what is worth prebuilding.
//!
//! ```text
//! files ──► projects ──► trees ──► census ──┬─► selection ──► coverage
//!           lock files   one for   counted, ├─► bundles of a package
//!           and dates    each      once for └─► commodity and niche
//!                        package   each project
//! costs: store, timing reports, estimates ──┘
//! ```
//!
//! | module | job |
//! |---|---|
//! | [`projects`] | finds lock files and what is known of them |
//! | [`trees`] | a hash for each package with all below it |
//! | [`census`] | distinct trees, and who has them |
//! | [`costs`] | how long a package compiles |
//! | [`selection`] | what to build under a budget |
//! | [`bundles`] | who can have one package's tree from few builds |
//! | [`alignment`], `upgrade` | what moving to other versions makes of it |
//! | [`downloads`] | how often packages are downloaded, as weights |
//! | [`recipes`] | what workspaces share by recipes |
//! | [`history`] | how long a lock file's trees last |
//! | [`report`] | the answers, as JSON |
//! | [`text`], [`page`] | the same for people |
//!
//! Invariants:
//! * A tree with a package that is not from a registry or Git is no one else's,
//!   and is not counted as shared.
//! * The same files give the same report, byte for byte, in whatever order they
//!   are found.

pub mod alignment;
pub mod bundles;
pub mod census;
pub mod costs;
pub mod downloads;
pub mod history;
pub mod page;
pub mod projects;
pub mod recipes;
pub mod report;
pub mod selection;
pub mod text;
pub mod trees;
mod upgrade;
