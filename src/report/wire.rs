//! A report as it is sent (`docs/formats/service.md`). Pure.

use serde::{Deserialize, Serialize};

/// The version of [`Report`].
pub const FORMAT: u32 = 1;

/// What a client reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Tells projects of one client apart: letters, digits, `-`, `_` and `.`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Cargo.lock, with packages of crates.io only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Recipe files, with all that they need: those that nobody had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipes: Vec<String>,
    /// The builder that would fit, `<rustc's version>-<host triple>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
    /// What a command got and lacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What a command got and lacked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Usage {
    /// Random; a report that comes again counts once.
    pub id: String,
    /// Units that were not compiled.
    pub hits: u64,
    /// Units that were.
    pub misses: u64,
    /// Seconds of compiling that the hits had cost when they were made.
    pub seconds_saved: f64,
    /// Seconds of compiling that the misses cost.
    pub seconds_compiled: f64,
}
