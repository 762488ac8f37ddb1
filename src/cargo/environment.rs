//! Environment variables, and Cargo's configuration after merging.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CargoError, output_of};

/// The variables this process was started with. Read once, at the top; nothing
/// below asks the process again.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Takes variables from anywhere; those that are not UTF-8 do not occur in
    /// Cargo's formats and are left out.
    pub fn new(
        variables: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Self {
        let utf8 = variables.into_iter().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self {
            variables: utf8.collect(),
        }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Sets a variable for what is asked here; no process sees it.
    pub fn set(&mut self, name: &str, value: String) {
        self.variables.insert(name.to_owned(), value);
    }

    /// All variables whose name passes the test, in order.
    pub fn matching<'a>(
        &'a self,
        test: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.variables.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        pairs.filter(move |(name, _)| test(name))
    }

    /// `$CARGO_HOME`, or `~/.cargo` (Cargo book, "Cargo Home").
    pub fn cargo_home(&self) -> PathBuf {
        self.home_folder("CARGO_HOME", ".cargo")
    }

    /// `$RUSTUP_HOME`, or `~/.rustup`.
    pub fn rustup_home(&self) -> PathBuf {
        self.home_folder("RUSTUP_HOME", ".rustup")
    }

    fn home_folder(&self, variable: &str, folder: &str) -> PathBuf {
        match self.get(variable) {
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ => Path::new(self.get("HOME").unwrap_or("/")).join(folder),
        }
    }

    /// The first program of this name in `PATH`.
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(PathBuf::from(name));
        }
        let path = self.get("PATH")?;
        path.split(':')
            .map(|folder| Path::new(folder).join(name))
            .find(|candidate| candidate.is_file())
    }

    /// The Cargo to run: the one that runs us as its subcommand, or `cargo`.
    pub fn cargo(&self) -> &str {
        self.get("CARGO").unwrap_or("cargo")
    }
}

/// Cargo's configuration: all files, `--config` and defaults merged.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(Value);

impl Settings {
    /// Asks Cargo for the merged configuration (`cargo config get`, unstable,
    /// opened by `RUSTC_BOOTSTRAP=1`).
    pub fn load(
        environment: &Environment,
        folder: &Path,
        extra: &[String],
    ) -> Result<Self, CargoError> {
        let mut command = Command::new(environment.cargo());
        command
            .current_dir(folder)
            .env("RUSTC_BOOTSTRAP", "1")
            .args(extra)
            .args(["-Zunstable-options", "config", "get", "--format", "json"]);
        let text = output_of(&mut command)?;
        let value = serde_json::from_str(&text).map_err(|source| CargoError::Answer {
            program: "cargo config get".to_owned(),
            source,
        })?;
        Ok(Self(value))
    }

    /// The value at a path of keys.
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.0, |value, key| value.get(key))
    }

    /// The string at a path of keys.
    pub fn text(&self, path: &[&str]) -> Option<&str> {
        self.get(path)?.as_str()
    }

    /// What `[env]` sets for a variable, given whether the process has it:
    /// the outer `None` says that the table has no say.
    ///
    /// A `relative` entry depends on where its file lies, which the merged
    /// form does not tell; its value counts as unknown (the inner `None`).
    fn env(&self, name: &str, present: bool) -> Option<Option<&str>> {
        match self.get(&["env", name])? {
            Value::String(value) => (!present).then_some(Some(value)),
            table => {
                let flag = |key| table.get(key).and_then(Value::as_bool) == Some(true);
                if present && !flag("force") {
                    None
                } else if flag("relative") {
                    Some(None)
                } else {
                    Some(table.get("value").and_then(Value::as_str))
                }
            }
        }
    }
}

/// The value a compilation or build script sees for a variable.
pub fn effective_variable<'a>(
    environment: &'a Environment,
    settings: &'a Settings,
    name: &str,
) -> Option<&'a str> {
    let process = environment.get(name);
    settings.env(name, process.is_some()).unwrap_or(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())))
    }

    #[test]
    fn the_env_table_yields_to_the_process_unless_forced() {
        let settings = Settings(serde_json::json!({"env": {
            "A": "table", "B": {"value": "table", "force": true}, "C": {"value": "x", "relative": true}
        }}));
        let process = environment(&[("A", "process"), ("B", "process")]);
        assert_eq!(
            effective_variable(&process, &settings, "A"),
            Some("process")
        );
        assert_eq!(effective_variable(&process, &settings, "B"), Some("table"));
        let empty = environment(&[]);
        assert_eq!(effective_variable(&empty, &settings, "A"), Some("table"));
        assert_eq!(effective_variable(&empty, &settings, "C"), None);
        assert_eq!(effective_variable(&empty, &settings, "D"), None);
    }

    #[test]
    fn homes_have_their_defaults() {
        let at_home = environment(&[("HOME", "/home/u")]);
        assert_eq!(at_home.cargo_home(), Path::new("/home/u/.cargo"));
        let elsewhere = environment(&[("HOME", "/home/u"), ("CARGO_HOME", "/c")]);
        assert_eq!(elsewhere.cargo_home(), Path::new("/c"));
    }
}
