//! The command line that is meant for Cargo.
//!
//! It is handed on untouched; only what changes *where* and *how* units are
//! built is read here.

use std::path::PathBuf;

/// A Cargo subcommand that builds units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subcommand {
    /// `cargo build`
    Build,
    /// `cargo check`
    Check,
    /// `cargo clippy`
    Clippy,
    /// `cargo test`
    Test,
    /// `cargo run`
    Run,
    /// `cargo doc`
    Doc,
    /// `cargo bench`
    Bench,
}

impl Subcommand {
    /// The subcommand's name as Cargo spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Check => "check",
            Self::Clippy => "clippy",
            Self::Test => "test",
            Self::Run => "run",
            Self::Doc => "doc",
            Self::Bench => "bench",
        }
    }

    /// The subcommand whose unit graph this one has: clippy is `cargo check`
    /// with a workspace wrapper (`src/tools/clippy/src/main.rs`).
    fn graph_name(self) -> &'static str {
        match self {
            Self::Clippy => "check",
            other => other.name(),
        }
    }
}

/// A whole command line for Cargo.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The subcommand.
    pub subcommand: Subcommand,
    /// Its arguments, verbatim.
    pub arguments: Vec<String>,
}

/// Flags that take no part in what is built.
const SILENT_FLAGS: &[&str] = &[
    "-q",
    "--quiet",
    "-v",
    "-vv",
    "--verbose",
    "--keep-going",
    "--no-fail-fast",
    "--offline",
    "--locked",
    "--frozen",
];

/// Options with a value that take no part in what is built.
const SILENT_OPTIONS: &[&str] = &[
    "--color",
    "--message-format",
    "-j",
    "--jobs",
    "--target-dir",
];

impl Invocation {
    /// Arguments before `--`, which are Cargo's own; what follows is for the
    /// program, the tests or clippy.
    pub fn own_arguments(&self) -> &[String] {
        let end = self.arguments.iter().position(|a| a == "--");
        &self.arguments[..end.unwrap_or(self.arguments.len())]
    }

    /// Arguments after `--`.
    pub fn passed_arguments(&self) -> &[String] {
        let end = self.arguments.iter().position(|a| a == "--");
        end.map_or(&[], |end| &self.arguments[end + 1..])
    }

    /// All values of an option, in `--name value` and `--name=value` form.
    pub fn values<'a>(&'a self, names: &'a [&str]) -> Vec<&'a str> {
        let mut values = Vec::new();
        let mut arguments = self.own_arguments().iter();
        while let Some(argument) = arguments.next() {
            if names.contains(&argument.as_str()) {
                values.extend(arguments.next().map(String::as_str));
            } else if let Some((name, value)) = argument.split_once('=')
                && names.contains(&name)
            {
                values.push(value);
            }
        }
        values
    }

    /// Whether one of these flags is given.
    pub fn has_flag(&self, names: &[&str]) -> bool {
        self.own_arguments()
            .iter()
            .any(|a| names.contains(&a.as_str()))
    }

    /// `--manifest-path`.
    pub fn manifest_path(&self) -> Option<PathBuf> {
        self.values(&["--manifest-path"]).last().map(PathBuf::from)
    }

    /// `--target-dir`.
    pub fn target_dir(&self) -> Option<PathBuf> {
        self.values(&["--target-dir"]).last().map(PathBuf::from)
    }

    /// The profile asked for; Cargo's default for the subcommand otherwise
    /// (Cargo book, "Profiles").
    pub fn profile(&self) -> &str {
        if let Some(profile) = self.values(&["--profile"]).last() {
            profile
        } else if self.has_flag(&["--release", "-r"]) || self.subcommand == Subcommand::Bench {
            "release"
        } else {
            "dev"
        }
    }

    /// Why this command cannot be planned and goes to Cargo as it is.
    pub fn unsupported(&self) -> Option<&'static str> {
        let unstable = self.values(&["-Z"]);
        let joined = self
            .own_arguments()
            .iter()
            .filter_map(|a| a.strip_prefix("-Z"));
        if unstable
            .iter()
            .copied()
            .chain(joined)
            .any(|z| z.starts_with("build-std"))
        {
            return Some("`-Z build-std` compiles the standard library, which no recipe describes");
        }
        if self.has_flag(&["--fix"]) {
            return Some("`--fix` changes the sources while it compiles");
        }
        if self.has_flag(&["--unit-graph", "--build-plan", "--help", "-h"]) {
            return Some("it builds nothing");
        }
        if self.has_flag(&["--artifact-dir"]) || !self.values(&["--artifact-dir"]).is_empty() {
            return Some("`--artifact-dir` is not supported");
        }
        None
    }

    /// The arguments for asking for this command's unit graph.
    pub fn graph_arguments(&self) -> Vec<String> {
        let mut arguments = vec![self.subcommand.graph_name().to_owned()];
        let mut own = self.own_arguments().iter();
        while let Some(argument) = own.next() {
            let name = argument.split('=').next().unwrap_or_default();
            if matches!(name, "--target-dir" | "--message-format") {
                if !argument.contains('=') {
                    own.next();
                }
            } else if !matches!(name, "--no-deps" | "--timings" | "--open") {
                arguments.push(argument.clone());
            }
        }
        arguments.extend(["--unit-graph".to_owned(), "-Zunstable-options".to_owned()]);
        arguments
    }

    /// The arguments that decide what is built, for keys of caches.
    pub fn significant_arguments(&self) -> Vec<&str> {
        let mut significant = vec![self.subcommand.name()];
        let mut own = self.own_arguments().iter();
        while let Some(argument) = own.next() {
            let name = argument.split('=').next().unwrap_or_default();
            if SILENT_OPTIONS.contains(&name) {
                if !argument.contains('=') {
                    own.next();
                }
            } else if !SILENT_FLAGS.contains(&argument.as_str()) && name != "--manifest-path" {
                significant.push(argument);
            }
        }
        significant
    }

    /// Whether test targets are checked in test mode only, which the unit
    /// graph does not tell (`CompileMode::Check { test }` prints as `check`).
    pub fn checks_tests_only(&self) -> bool {
        let tests = self.has_flag(&["--tests", "--benches"]) || self.profile() == "test";
        tests && !self.has_flag(&["--all-targets", "--lib", "--bins"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(line: &str) -> Invocation {
        Invocation {
            subcommand: Subcommand::Build,
            arguments: line.split_whitespace().map(str::to_owned).collect(),
        }
    }

    #[test]
    fn options_are_found_in_both_forms_and_only_before_the_separator() {
        let given = invocation("--profile=fast --target-dir t -- --release");
        assert_eq!(given.profile(), "fast");
        assert_eq!(given.target_dir(), Some("t".into()));
        assert!(!given.has_flag(&["--release"]));
        assert_eq!(given.passed_arguments(), ["--release"]);
    }

    #[test]
    fn the_key_leaves_out_what_only_changes_the_output() {
        let given = invocation("-v --color always -p a --message-format=json -j 2");
        assert_eq!(given.significant_arguments(), ["build", "-p", "a"]);
    }

    #[test]
    fn the_graph_is_asked_for_without_target_dir() {
        let given = invocation("--target-dir t --release -- x");
        assert_eq!(
            given.graph_arguments(),
            ["build", "--release", "--unit-graph", "-Zunstable-options"]
        );
    }

    #[test]
    fn build_std_is_refused_in_both_spellings() {
        assert!(invocation("-Z build-std=core").unsupported().is_some());
        assert!(invocation("-Zbuild-std").unsupported().is_some());
        assert!(invocation("--release").unsupported().is_none());
    }
}
