//! The variables that this process was started with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_have_their_defaults() {
        let environment = |pairs: &[(&str, &str)]| {
            Environment::new(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())))
        };
        let at_home = environment(&[("HOME", "/home/u")]);
        assert_eq!(at_home.cargo_home(), Path::new("/home/u/.cargo"));
        let elsewhere = environment(&[("HOME", "/home/u"), ("CARGO_HOME", "/c")]);
        assert_eq!(elsewhere.cargo_home(), Path::new("/c"));
    }
}
