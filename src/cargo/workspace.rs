//! Where the workspace, its members and its build directory are.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::invocation::Invocation;
use super::{CargoError, output_of};
use crate::environment::Environment;

/// What `cargo metadata --no-deps` tells (Cargo book, "cargo metadata").
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Workspace {
    /// The folder of the workspace's root manifest.
    #[serde(rename = "workspace_root")]
    pub root: PathBuf,
    /// Final artefacts.
    pub target_directory: PathBuf,
    /// Intermediate artefacts; since Cargo 1.91 it may be elsewhere.
    pub build_directory: Option<PathBuf>,
    /// The members.
    pub packages: Vec<Member>,
}

/// A workspace member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its manifest.
    pub manifest_path: PathBuf,
}

impl Workspace {
    /// Asks Cargo.
    pub fn load(
        environment: &Environment,
        folder: &Path,
        invocation: &Invocation,
    ) -> Result<Self, CargoError> {
        let mut command = Command::new(environment.cargo());
        command.current_dir(folder);
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        if let Some(path) = invocation.manifest_path() {
            command.arg("--manifest-path").arg(path);
        }
        for value in invocation.values(&["--config"]) {
            command.args(["--config", value]);
        }
        let text = output_of(&mut command)?;
        let mut workspace: Self =
            serde_json::from_str(&text).map_err(|source| CargoError::Answer {
                program: "cargo metadata".to_owned(),
                source,
            })?;
        if let Some(target_dir) = invocation.target_dir() {
            // `--target-dir` moves both, unless `build.build-dir` was set.
            let target_dir = folder.join(target_dir);
            if workspace.build_directory.as_ref() == Some(&workspace.target_directory) {
                workspace.build_directory = Some(target_dir.clone());
            }
            workspace.target_directory = target_dir;
        }
        Ok(workspace)
    }

    /// Where units are compiled.
    pub fn build_dir(&self) -> &Path {
        self.build_directory
            .as_ref()
            .unwrap_or(&self.target_directory)
    }
}

/// The folders that differ between users and checkouts, and so must not occur
/// in anything that is shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    /// The build directory; first, since it usually lies in the workspace.
    pub build_dir: PathBuf,
    /// The workspace root.
    pub workspace: PathBuf,
    /// Cargo's home.
    pub cargo_home: PathBuf,
}

impl Roots {
    fn pairs(&self) -> [(&'static str, &Path); 3] {
        [
            ("@build-dir@", &self.build_dir),
            ("@workspace@", &self.workspace),
            ("@cargo-home@", &self.cargo_home),
        ]
    }

    /// The folder of a name; `None` for other names.
    pub fn folder(&self, name: &str) -> Option<&Path> {
        let mut pairs = self.pairs().into_iter();
        pairs
            .find(|(known, _)| *known == name)
            .map(|(_, folder)| folder)
    }

    /// The name and folder that a path lies in, the innermost first.
    pub fn around(&self, path: &Path) -> Option<(&'static str, &Path)> {
        self.pairs()
            .into_iter()
            .find(|(_, folder)| path.starts_with(folder))
    }

    /// Replaces the folders by their names.
    pub fn portable(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, folder) in self.pairs() {
            let folder = folder.to_string_lossy();
            if folder.len() > 1 {
                text = replace_folder(&text, &folder, name);
            }
        }
        text
    }

    /// Replaces the names by this user's folders.
    pub fn local(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, folder) in self.pairs() {
            if text.contains(name) {
                text = text.replace(name, &folder.to_string_lossy());
            }
        }
        text
    }

    /// The folders found in some bytes, by name.
    pub fn found_in(&self, bytes: &[u8]) -> Vec<&'static str> {
        let contains = |folder: &Path| {
            let folder = folder.as_os_str().as_encoded_bytes();
            folder.len() > 1 && find(bytes, folder).is_some()
        };
        let found = self
            .pairs()
            .into_iter()
            .filter(|(_, folder)| contains(folder));
        found.map(|(name, _)| name).collect()
    }
}

/// Replaces a folder where it stands as a path prefix: `/a/b` in `/a/b/c` and
/// `/a/b`, but not in `/a/bc`.
fn replace_folder(text: &str, folder: &str, name: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(folder) {
        let (before, after) = (&rest[..at], &rest[at + folder.len()..]);
        replaced.push_str(before);
        let continues = after
            .chars()
            .next()
            .is_some_and(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
        replaced.push_str(if continues { folder } else { name });
        rest = after;
    }
    replaced.push_str(rest);
    replaced
}

/// The first place of `needle` in `bytes`.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut start = 0;
    while let Some(offset) = bytes[start..].iter().position(|&b| b == first) {
        let at = start + offset;
        if bytes[at..].starts_with(needle) {
            return Some(at);
        }
        start = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn roots() -> Roots {
        Roots {
            build_dir: "/w/p/target".into(),
            workspace: "/w/p".into(),
            cargo_home: "/home/u/.cargo".into(),
        }
    }

    #[test]
    fn folders_are_replaced_as_whole_prefixes_only() {
        let text = "a=/w/p/target/debug /w/p/src /w/pp /home/u/.cargo/registry /w/p";
        assert_eq!(
            roots().portable(text),
            "a=@build-dir@/debug @workspace@/src /w/pp @cargo-home@/registry @workspace@"
        );
    }

    proptest! {
        #[test]
        fn local_undoes_portable(parts in proptest::collection::vec(
            prop_oneof![Just("/w/p"), Just("/target"), Just("/home/u/.cargo"), Just("x"), Just(" ")], 0..12
        )) {
            let text = parts.concat();
            prop_assert_eq!(roots().local(&roots().portable(&text)), text);
        }

        #[test]
        fn find_agrees_with_str(text in "[ab]{0,20}", needle in "[ab]{1,3}") {
            prop_assert_eq!(find(text.as_bytes(), needle.as_bytes()), text.find(&needle));
        }
    }
}
