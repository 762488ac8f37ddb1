//! How a command ended and what it said.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};

use serde_json::Value;

/// Numbers of the summary line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) units: usize,
    pub(crate) from_store: usize,
    pub(crate) built: usize,
}

/// The end of a command.
#[derive(Debug, Clone)]
#[must_use]
pub(crate) struct Outcome {
    pub(crate) command: String,
    /// As a shell sees it: 128 and the number for a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn new(command: &Command, output: &Output) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        let folder = command
            .get_current_dir()
            .map(|folder| folder.display().to_string());
        Self {
            command: format!("{} (in {})", words.join(" "), folder.unwrap_or_default()),
            code: output
                .status
                .code()
                .or(output.status.signal().map(|signal| 128 + signal)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails unless the command succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// Fails if the command succeeded.
    #[track_caller]
    pub(crate) fn failure(self) -> Self {
        assert_ne!(self.code, Some(0), "{self}");
        self
    }

    /// The numbers in the last line, if there is a summary.
    pub(crate) fn summary_line(&self) -> Option<Summary> {
        let line = self.stderr.lines().last()?;
        let text = line.strip_prefix("quickbuild: ")?;
        let text = text.split(';').next()?;
        let mut numbers = text.split(", ").map(|part| part.split(' ').next());
        let mut number = || numbers.next()??.parse().ok();
        Some(Summary {
            units: number()?,
            from_store: number()?,
            built: number()?,
        })
    }

    #[track_caller]
    pub(crate) fn summary(&self) -> Summary {
        self.summary_line()
            .unwrap_or_else(|| panic!("no summary: {self}"))
    }

    /// Fails unless everything came from the store. "0 built" alone would not
    /// do: what is compiled and not kept is in neither number.
    #[track_caller]
    pub(crate) fn nothing_built(self) -> Self {
        let summary = self.clone().success().summary();
        assert_eq!(summary.built, 0, "{self}");
        assert_eq!(summary.from_store, summary.units, "{self}");
        self
    }

    /// Names of the packages whose units Cargo did not find Fresh, of a command
    /// with `--message-format=json`.
    #[track_caller]
    pub(crate) fn stale(&self) -> BTreeSet<String> {
        let artifacts = self.artifacts();
        assert!(!artifacts.is_empty(), "no artifacts: {self}");
        let stale = artifacts
            .iter()
            .filter(|artifact| artifact["fresh"] == false);
        stale.map(package_name).collect()
    }

    /// Like [`Self::stale`], by the names of targets.
    #[track_caller]
    pub(crate) fn stale_targets(&self) -> BTreeSet<String> {
        let stale = self.artifacts().into_iter();
        let stale = stale.filter(|artifact| artifact["fresh"] == false);
        let name = |artifact: Value| artifact["target"]["name"].as_str().unwrap().to_owned();
        stale.map(name).collect()
    }

    /// Cargo's messages about artifacts.
    pub(crate) fn artifacts(&self) -> Vec<Value> {
        let messages = self.stdout.lines().filter_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            (message["reason"] == "compiler-artifact").then_some(message)
        });
        messages.collect()
    }

    /// Warnings and errors that people see, without what differs from run to
    /// run: progress, times and our own lines.
    pub(crate) fn diagnostics(&self) -> Vec<String> {
        const PROGRESS: &[&str] = &[
            "Blocking",
            "Checking",
            "Compiling",
            "Dirty",
            "Doc-tests",
            "Finished",
            "Fresh",
            "Locking",
            "Running",
            "Updating",
        ];
        let lines = self.stderr.lines().map(str::trim_end);
        let lines = lines.filter(|line| {
            let word = line.trim_start().split(' ').next().unwrap_or_default();
            // Whether other jobs are under way when one fails is chance.
            let waits = line.contains("build failed, waiting for other jobs");
            !PROGRESS.contains(&word) && !line.contains("quickbuild:") && !waits
        });
        lines.map(str::to_owned).collect()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            command,
            code,
            stdout,
            stderr,
        } = self;
        let stdout: Vec<&str> = stdout
            .lines()
            .map(|line| &line[..line.len().min(200)])
            .collect();
        let stdout = stdout.join("\n");
        write!(
            f,
            "`{command}` ended with {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        )
    }
}

/// `path+file:///a/b#name@1.0.0`, `…/name#1.0.0` (Cargo book, "Package ID
/// Specifications").
fn package_name(artifact: &Value) -> String {
    let id = artifact["package_id"].as_str().unwrap();
    let (url, fragment) = id.rsplit_once('#').unwrap();
    match fragment.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => url.rsplit('/').next().unwrap().to_owned(),
    }
}

/// A set of names, to compare with [`Outcome::stale`].
pub(crate) fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}
