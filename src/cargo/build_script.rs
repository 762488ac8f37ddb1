//! What a build script printed, and what its source says it may read.
//!
//! Cargo trusts a build script's `rerun-if-*` lines. A script that reads more
//! than it declares gives, in a fresh checkout, whatever it reads *there*; an
//! output from elsewhere would be wrong. So the script's source is searched for
//! the usual ways of reading undeclared things.

use std::collections::BTreeSet;

/// The instructions in a build script's output that concern freshness
/// (Cargo book, "Build Scripts").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instructions {
    /// `rerun-if-changed`, in order.
    pub rerun_if_changed: Vec<String>,
    /// `rerun-if-env-changed`, in order.
    pub rerun_if_env_changed: Vec<String>,
    /// Libraries of `rustc-link-lib` that are not linked statically.
    pub shared_libraries: Vec<String>,
    /// Folders of `rustc-link-search`.
    pub search_folders: Vec<String>,
}

impl Instructions {
    /// Reads a build script's standard output.
    pub fn parse(stdout: &str) -> Self {
        let mut parsed = Self::default();
        for line in stdout.lines() {
            let line = line.trim();
            let Some(rest) = line.strip_prefix("cargo::").or(line.strip_prefix("cargo:")) else {
                continue;
            };
            match rest.split_once('=') {
                Some(("rerun-if-changed", path)) => {
                    parsed.rerun_if_changed.push(path.trim_end().to_owned());
                }
                Some(("rerun-if-env-changed", name)) => {
                    parsed.rerun_if_env_changed.push(name.trim_end().to_owned());
                }
                Some(("rustc-link-search", folder)) => {
                    let folder = folder.split_once('=').map_or(folder, |(_, folder)| folder);
                    parsed.search_folders.push(folder.trim_end().to_owned());
                }
                Some(("rustc-link-lib", library)) => parsed.add_library(library.trim_end()),
                _ => {}
            }
        }
        parsed
    }

    /// `[kind[:modifiers]=]name[:rename]` (rustc book, `-l`).
    fn add_library(&mut self, library: &str) {
        let (kind, name) = library.split_once('=').unwrap_or(("dylib", library));
        if kind.split(':').next() == Some("dylib") {
            let name = name.split(':').next().unwrap_or(name);
            self.shared_libraries.push(name.to_owned());
        }
    }

    /// Whether Cargo watches the whole package instead.
    pub fn is_empty(&self) -> bool {
        self.rerun_if_changed.is_empty() && self.rerun_if_env_changed.is_empty()
    }
}

/// What a source may read without declaring it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// Variables whose names stand in calls of `var` and `var_os`.
    pub variables: BTreeSet<String>,
    /// Whether it asks Git for the checked-out commit.
    pub git_head: bool,
    /// Whether it reads something that differs at every run: the clock, the
    /// state of the work tree.
    pub volatile: bool,
    /// Whether it opens files or lists folders.
    pub files: bool,
}

/// Variables that Cargo itself sets for build scripts, from what a recipe
/// already holds (Cargo book, "Environment Variables"); and those that only
/// say where things are.
fn is_set_by_cargo(name: &str) -> bool {
    const PREFIXES: [&str; 5] = [
        "CARGO_PKG_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "DEP_",
        "CARGO_MANIFEST_",
    ];
    const NAMES: [&str; 18] = [
        "OUT_DIR",
        "TARGET",
        "HOST",
        "NUM_JOBS",
        "OPT_LEVEL",
        "DEBUG",
        "PROFILE",
        "RUSTC",
        "RUSTDOC",
        "RUSTC_LINKER",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO",
        "CARGO_MAKEFLAGS",
        "PATH",
        "HOME",
        "CARGO_TARGET_DIR",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}

/// Crates whose purpose is to embed the state of the clock or the work tree.
pub const VOLATILE_CRATES: [&str; 6] = [
    "vergen",
    "vergen-git2",
    "vergen-gitcl",
    "vergen-gix",
    "shadow-rs",
    "built",
];

impl Reads {
    /// Adds what one source file may read.
    pub fn add_source(&mut self, source: &str) {
        let code = source.lines().map(str::trim_start);
        self.files |= code.filter(|line| !line.starts_with("//")).any(|line| {
            let words = ["fs::", "File::open", "read_dir(", "WalkDir", "glob("];
            words.iter().any(|word| has_word(line, word))
        });
        for call in ["var(\"", "var_os(\""] {
            for rest in source.split(call).skip(1) {
                if let Some((name, _)) = rest.split_once('"')
                    && !name.is_empty()
                    && !is_set_by_cargo(name)
                {
                    self.variables.insert(name.to_owned());
                }
            }
        }
        let has = |needles: &[&str]| needles.iter().any(|needle| source.contains(needle));
        if has(&["Command::new(\"git\")", "git2::", "gix::"]) {
            self.git_head = true;
            // `git log` tells of the commit; tags and the work tree are not in it.
            self.volatile |= has(&["dirty", "\"describe\"", "\"status\"", "\"diff\""]);
        }
        self.volatile |= has(&[
            "SystemTime::now",
            "Utc::now",
            "Local::now",
            "now_utc",
            "now_local",
            "Command::new(\"date\")",
        ]);
    }
}

/// Whether a word occurs that is not the end of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && before != '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_read_in_both_forms() {
        let parsed = Instructions::parse(
            "cargo:rerun-if-changed=build.rs\nnoise\ncargo::rerun-if-env-changed=CC\ncargo:rustc-cfg=x\n",
        );
        assert_eq!(parsed.rerun_if_changed, ["build.rs"]);
        assert_eq!(parsed.rerun_if_env_changed, ["CC"]);
        assert!(Instructions::parse("cargo:rustc-link-lib=z").is_empty());
    }

    #[test]
    fn libraries_of_the_system_are_told_from_static_ones() {
        let parsed = Instructions::parse(
            "cargo:rustc-link-lib=ssl\ncargo::rustc-link-lib=dylib=crypto\n\
             cargo:rustc-link-lib=static:+whole-archive=z\ncargo:rustc-link-search=native=/opt/lib\n",
        );
        assert_eq!(parsed.shared_libraries, ["ssl", "crypto"]);
        assert_eq!(parsed.search_folders, ["/opt/lib"]);
    }

    #[test]
    fn files_are_read_by_code_and_not_by_comments() {
        let mut reads = Reads::default();
        reads.add_source("/// let text = std::fs::read(path)?;\nfn offs() {}");
        assert!(!reads.files);
        reads.add_source("use crate::defs::Name;");
        assert!(!reads.files);
        reads.add_source("    let text = std::fs::read(path)?;");
        assert!(reads.files);
    }

    #[test]
    fn undeclared_reads_are_found_in_the_source() {
        let mut reads = Reads::default();
        reads.add_source(r#"let a = env::var("MY_FLAG"); env::var_os("OUT_DIR"); std::env::var("CARGO_CFG_UNIX")"#);
        assert_eq!(reads.variables.iter().collect::<Vec<_>>(), ["MY_FLAG"]);
        assert!(!reads.git_head && !reads.volatile);

        reads.add_source(r#"Command::new("git").args(["rev-parse", "HEAD"])"#);
        assert!(reads.git_head && !reads.volatile);
        reads.add_source(r#"Command::new("git").args(["log", "-1", "--format=%H %cd"])"#);
        assert!(!reads.volatile);
        reads.add_source("std::time::SystemTime::now()");
        assert!(reads.volatile);
    }
}
