//! Which unit of the plan a compiler's command line is. Pure.
//!
//! Name, version and features are not enough: a host variant of `serde_core`
//! that stands in for the target's breaks the build with E0277. So the
//! dependencies count, too: each `--extern` names a file by a unit id, and the
//! units behind the ids seen so far are known.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cargo::rustc_args::RustcArgs;

/// A unit of the plan, as far as a command line can tell it from others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its index in the plan.
    pub index: usize,
    /// The root source file, absolute.
    pub source: PathBuf,
    /// Crate types.
    pub crate_types: Vec<String>,
    /// Features, sorted.
    pub features: Vec<String>,
    /// Compiled with `--test`.
    pub test: bool,
    /// Metadata only.
    pub check: bool,
    /// Target triple; `None` for the host.
    pub platform: Option<String>,
    /// Profile fields that appear as `-C` options.
    pub codegen: BTreeMap<String, String>,
    /// Extern names and the units behind them.
    pub externs: Vec<(String, usize)>,
    /// The store name of the output that serves it, if one does.
    pub serve: Option<String>,
    /// For a build script: its runs, if Cargo is going to run it without need.
    pub replay: Vec<ReplayRun>,
}

/// A run of a build script that can be replayed, and how Cargo will call it
/// (Cargo book, "Environment variables Cargo sets for build scripts").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRun {
    /// The store name of its output.
    pub output: String,
    /// `DEBUG`.
    pub debug: bool,
    /// `OPT_LEVEL`.
    pub opt_level: String,
    /// `TARGET`, if it is not the host.
    pub platform: Option<String>,
}

/// A compilation that Cargo asks for.
#[derive(Debug)]
pub struct Question<'a> {
    /// The command line.
    pub arguments: &'a RustcArgs,
    /// The root source file, absolute.
    pub source: PathBuf,
    /// The unit ids of its externs, by extern name.
    pub externs: Vec<(String, Option<String>)>,
}

/// Values that rustc assumes where Cargo gives no option
/// (`build_base_args` in `src/cargo/core/compiler/mod.rs`).
fn default_value(option: &str) -> &'static str {
    match option {
        "opt-level" | "debuginfo" => "0",
        "panic" => "unwind",
        _ => "",
    }
}

impl Question<'_> {
    /// Finds the one unit that fits, given the units behind unit ids. `None`
    /// if none fits, or several that are not served by one and the same output.
    pub fn answer<'e>(
        &self,
        entries: &'e [Entry],
        ids: &HashMap<String, usize>,
    ) -> Option<&'e Entry> {
        let mut fitting: Vec<&Entry> = entries
            .iter()
            .filter(|entry| self.fits(entry, ids))
            .collect();
        // A build script may set features, too (`cargo::rustc-cfg`), so of
        // several units the one with the most of the given features is meant.
        let most = fitting.iter().map(|entry| entry.features.len()).max();
        fitting.retain(|entry| Some(entry.features.len()) == most);
        match fitting.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    fn fits(&self, entry: &Entry, ids: &HashMap<String, usize>) -> bool {
        let arguments = self.arguments;
        entry.source == self.source
            && entry.test == arguments.test
            && entry.check != arguments.emits_link()
            && entry
                .features
                .iter()
                .all(|feature| arguments.features.contains(feature))
            && entry.platform == arguments.target
            && (arguments.test || entry.crate_types == arguments.crate_types)
            && entry.codegen.iter().all(|(option, value)| {
                let given = arguments.codegen.get(option);
                given.map_or(default_value(option), String::as_str) == value
            })
            && self.externs.iter().all(|(name, id)| {
                let Some(&unit) = id.as_ref().and_then(|id| ids.get(id)) else {
                    return true; // compiled before this session; says nothing
                };
                entry
                    .externs
                    .iter()
                    .any(|(n, index)| n == name && *index == unit)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: usize, dependency: usize) -> Entry {
        Entry {
            index,
            source: "/r/serde/src/lib.rs".into(),
            crate_types: vec!["lib".to_owned()],
            features: vec!["std".to_owned()],
            test: false,
            check: true,
            platform: None,
            codegen: [("debuginfo".to_owned(), "0".to_owned())].into(),
            externs: vec![("serde_core".to_owned(), dependency)],
            serve: None,
            replay: Vec::new(),
        }
    }

    fn arguments() -> RustcArgs {
        RustcArgs {
            crate_types: vec!["lib".to_owned()],
            features: vec!["std".to_owned()],
            emit: vec!["dep-info".to_owned(), "metadata".to_owned()],
            ..RustcArgs::default()
        }
    }

    #[test]
    fn the_dependency_decides_between_host_and_target() {
        let arguments = arguments();
        let question = Question {
            arguments: &arguments,
            source: "/r/serde/src/lib.rs".into(),
            externs: vec![("serde_core".to_owned(), Some("aa".to_owned()))],
        };
        let entries = [entry(0, 10), entry(1, 11)];
        let ids = HashMap::from([("aa".to_owned(), 11)]);
        assert_eq!(question.answer(&entries, &ids).map(|e| e.index), Some(1));
        assert_eq!(
            question.answer(&entries, &HashMap::new()),
            None,
            "ambiguous"
        );
    }

    #[test]
    fn a_build_is_not_a_check() {
        let mut arguments = arguments();
        arguments.emit.push("link".to_owned());
        let question = Question {
            arguments: &arguments,
            source: "/r/serde/src/lib.rs".into(),
            externs: Vec::new(),
        };
        assert_eq!(question.answer(&[entry(0, 1)], &HashMap::new()), None);
    }
}
