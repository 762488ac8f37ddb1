//! Cargo's configuration after merging, and what a compilation sees of it.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CargoError, output_of};
use crate::environment::Environment;

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
}
