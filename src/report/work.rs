//! What workers and a service say to each other (`docs/formats/service.md`). Pure.

use serde::{Deserialize, Serialize};

/// The version of all of it.
pub const WORK_FORMAT: u32 = 1;
/// Bytes of a log that are sent; its end.
pub const LOG: usize = 256 << 10;

/// A worker asks for something to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ask {
    /// [`WORK_FORMAT`].
    pub format: u32,
    /// The worker's name: letters, digits and `-_.`.
    pub worker: String,
    /// Builders that it has, the best first.
    pub builders: Vec<String>,
}

/// Something to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Job {
    /// The version.
    pub format: u32,
    /// What the worker has to show from now on.
    pub lease: String,
    /// Seconds after which the lease ends if nothing is heard.
    pub seconds: u64,
    /// What is wanted, for people.
    pub name: String,
    /// The builder to use.
    pub builder: String,
    /// Recipe files, each after what it needs; the last one is wanted.
    pub recipes: Vec<String>,
}

/// A tree of a lock file that came without recipes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tree {
    /// The version.
    pub format: u32,
    /// Its hash.
    pub tree: String,
    /// The package on top.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The builder that recipes are wanted for.
    pub builder: String,
    /// All its packages as a lock file, without checksums.
    pub lock: String,
}

/// What compiling a tree comes down to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Planned {
    /// The builder.
    pub builder: String,
    /// Recipe files, each after what it needs; none if there is no plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipes: Vec<String>,
    /// Why there is none, in a line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Alive {
    /// The end of the log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
}

/// It could not be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Failed {
    /// Whether the recipe is to blame; otherwise it is the worker, and another
    /// one may try at once.
    pub recipe: bool,
    /// Why, in a line.
    pub reason: String,
    /// The end of the log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
}

/// What became of outputs that were sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// Outputs that are published now, or were before.
    pub accepted: usize,
    /// Outputs that another worker has to make as well.
    pub waiting: usize,
    /// Outputs that are published, or were made by others, with another content.
    pub conflicts: Vec<String>,
}

/// The end of a text, in whole lines, within [`LOG`] bytes.
pub fn end_of_log(text: &str) -> &str {
    let Some(cut) = text.len().checked_sub(LOG) else {
        return text;
    };
    let rest = text.as_bytes().get(cut..).unwrap_or_default();
    let line = rest.iter().position(|&byte| byte == b'\n');
    let begin = cut + line.map_or(rest.len(), |at| at + 1);
    text.get(begin..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_whole_lines() {
        assert_eq!(end_of_log("a\nb\n"), "a\nb\n");
        let long = "é".repeat(LOG) + "\nlast\n";
        assert_eq!(end_of_log(&long), "last\n");
        assert_eq!(end_of_log(&"x".repeat(LOG + 1)), "");
        let lines = "line\n".repeat(LOG);
        assert!(end_of_log(&lines).len() > LOG - 6 && end_of_log(&lines).starts_with("line\n"));
    }
}
