//! A lock file changed by Cargo itself.
//!
//! It happens in a workspace that nobody else uses. First many packages are moved at
//! once: the lock file gets their new versions, as from a hand that merges two of
//! them, and Cargo puts it in order (`cargo update --workspace`). What is left is
//! moved with `cargo update --precise`, one package after the other (Cargo book,
//! "cargo update"); packages that must move together refuse to move alone, so those
//! that did not are tried again after others have. So what Cargo wrote last, it has
//! resolved; whether it would leave it so is another question (`--locked`).

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use semver::Version;
use toml_edit::{Array, DocumentMut, Table};

use super::lock_graph::{LockError, LockGraph};
use super::{CargoError, output_of};
use crate::environment::Environment;
use crate::fs;

/// A package that is to have another version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// Its name.
    pub name: String,
    /// Its version now.
    pub from: Version,
    /// The version it is to have.
    pub to: Version,
}

/// Whether Cargo may ask registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// It may, where what it has looked up before is not enough.
    Allowed,
    /// It may not.
    Forbidden,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Relocked {
    /// What Cargo refused, and what it said.
    pub refused: Vec<(Move, String)>,
    /// The lock file.
    pub lock: Vec<u8>,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum RelockError {
    /// The lock file.
    #[error("the lock file of the copy cannot be used")]
    File(#[from] fs::FsError),
    /// What Cargo made of it.
    #[error("the lock file of the copy is none")]
    Lock(#[from] LockError),
    /// Cargo would change what it has written.
    #[error("Cargo does not take the lock file as it wrote it")]
    Unproven(#[source] CargoError),
}

/// A workspace in which a lock file is changed.
#[derive(Debug, Clone, Copy)]
pub struct Workshop<'a> {
    /// The variables of this process.
    pub environment: &'a Environment,
    /// Where Cargo's configuration is looked for.
    pub folder: &'a Path,
    /// The root of a copy of the workspace.
    pub root: &'a Path,
    /// Whether Cargo may ask registries.
    pub network: Network,
}

impl Workshop<'_> {
    /// Moves packages, and then those of `added` that came in with them.
    pub fn relock(&self, moves: &[Move], added: &[Move]) -> Result<Relocked, RelockError> {
        self.together(moves, added)?;
        let mut refused = self.rounds(moves)?;
        refused.extend(self.rounds(added)?);
        Ok(Relocked {
            refused,
            lock: fs::read(&self.root.join("Cargo.lock"))?,
        })
    }

    /// Moves packages at once, or half of them and then the other half, and so on:
    /// one that Cargo refuses keeps the others only from one question.
    fn together(&self, moves: &[Move], added: &[Move]) -> Result<(), RelockError> {
        if moves.len() + added.len() < 2 || self.at_once(moves, added)? || moves.len() < 2 {
            return Ok(());
        }
        let (first, second) = moves.split_at(moves.len() / 2);
        self.together(first, added)?;
        self.together(second, added)
    }

    /// Whether Cargo takes a lock file with all of these moves; it is left as it was
    /// otherwise.
    fn at_once(&self, moves: &[Move], added: &[Move]) -> Result<bool, RelockError> {
        let path = self.root.join("Cargo.lock");
        let before = fs::read(&path)?;
        let Some(after) = rewritten(&before, moves, added) else {
            return Ok(false);
        };
        fs::write(&path, after.as_bytes())?;
        let arguments = ["update", "--workspace"];
        let mut updated = self.cargo(&arguments, Network::Forbidden);
        if updated.is_err() && self.network == Network::Allowed {
            updated = self.cargo(&arguments, Network::Allowed);
        }
        if updated.is_err() {
            fs::write(&path, &before)?;
        }
        Ok(updated.is_ok())
    }

    /// Moves packages until no more move.
    fn rounds(&self, moves: &[Move]) -> Result<Vec<(Move, String)>, RelockError> {
        let mut open: Vec<(Move, String)> = moves
            .iter()
            .map(|wanted| (wanted.clone(), String::new()))
            .collect();
        let mut versions = self.versions()?;
        loop {
            let before = open.len();
            let mut left = Vec::new();
            for (wanted, _) in open {
                let Some(now) = misplaced(&versions, &wanted) else {
                    continue;
                };
                match self.step(&wanted, &now) {
                    Ok(()) => versions = self.versions()?,
                    Err(said) => left.push((wanted, said)),
                }
            }
            if left.is_empty() || left.len() == before {
                return Ok(left);
            }
            open = left;
        }
    }

    /// The versions of each package in the lock file.
    fn versions(&self) -> Result<HashMap<String, Vec<Version>>, RelockError> {
        let lock = LockGraph::parse(&fs::read(&self.root.join("Cargo.lock"))?)?;
        let mut versions: HashMap<String, Vec<Version>> = HashMap::new();
        for package in lock.packages {
            if let Ok(version) = Version::parse(&package.version) {
                versions.entry(package.name).or_default().push(version);
            }
        }
        Ok(versions)
    }

    /// Moves one package from the version that it has; else says what Cargo said.
    fn step(&self, wanted: &Move, now: &Version) -> Result<(), String> {
        let package = format!("{}@{now}", wanted.name);
        let precise = wanted.to.to_string();
        let arguments = ["update", "--package", &package, "--precise", &precise];
        let said = match self.cargo(&arguments, Network::Forbidden) {
            Ok(_) => return Ok(()),
            Err(error) if self.network == Network::Forbidden => error,
            // It may lack the index of something that nobody has asked for.
            Err(_) => match self.cargo(&arguments, Network::Allowed) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            },
        };
        Err(match said {
            CargoError::Failed { message, .. } => message,
            other => other.to_string(),
        })
    }

    /// Sees that Cargo would leave the lock file as it is.
    pub fn prove(&self) -> Result<(), RelockError> {
        let arguments = ["update", "--workspace", "--locked"];
        let proven = self.cargo(&arguments, Network::Forbidden);
        let proven = match (proven, self.network) {
            (Err(_), Network::Allowed) => self.cargo(&arguments, Network::Allowed),
            (proven, _) => proven,
        };
        proven.map(drop).map_err(RelockError::Unproven)
    }

    /// Sees that all packages of the lock file resolve with their sources at hand
    /// (`cargo metadata --locked`); they are downloaded where that is allowed.
    pub fn resolve(&self) -> Result<(), CargoError> {
        let arguments = ["metadata", "--locked", "--format-version", "1"];
        self.cargo(&arguments, self.network).map(drop)
    }

    fn cargo(&self, arguments: &[&str], network: Network) -> Result<String, CargoError> {
        let mut command = Command::new(self.environment.cargo());
        command.current_dir(self.folder).args(arguments);
        command
            .arg("--manifest-path")
            .arg(self.root.join("Cargo.toml"));
        if network == Network::Forbidden {
            command.arg("--offline");
        }
        output_of(&mut command)
    }
}

/// A lock file in which packages have other versions, and nothing that follows from
/// a version: Cargo adds the checksum, and passes over what a package no longer
/// needs (`EncodableResolve::into_resolve` in Cargo's
/// `src/cargo/core/resolver/encode.rs`). What comes in stands there as well, as
/// Cargo prefers what it finds. None of what cannot be read.
fn rewritten(lock: &[u8], moves: &[Move], added: &[Move]) -> Option<String> {
    let mut document: DocumentMut = std::str::from_utf8(lock).ok()?.parse().ok()?;
    let packages = document.get_mut("package")?.as_array_of_tables_mut()?;
    let mut targets: HashMap<&str, HashMap<String, String>> = HashMap::new();
    for Move { name, from, to } in moves {
        let of_name = targets.entry(name).or_default();
        of_name.insert(from.to_string(), to.to_string());
    }
    let target = |name: &str, version: &str| targets.get(name)?.get(version);
    let key = |package: &Table| {
        let text = |field: &str| package.get(field)?.as_str().map(str::to_owned);
        let is_of_registry = !text("source")?.starts_with("git+");
        is_of_registry.then_some((text("name")?, text("version")?))
    };
    let here: HashSet<(String, String)> = packages.iter().filter_map(key).collect();
    // All that moves or comes in is of one registry.
    let is_moved = |package: &&Table| {
        key(package).is_some_and(|(name, version)| target(&name, &version).is_some())
    };
    let source = packages
        .iter()
        .find(is_moved)
        .and_then(|package| package.get("source").cloned());
    // Two become one where the version is there already.
    packages.retain(|package| {
        let moved = key(package).and_then(|(name, version)| Some((target(&name, &version)?, name)));
        moved.is_none_or(|(to, name)| !here.contains(&(name, to.clone())))
    });
    for package in packages.iter_mut() {
        let moved = key(package).and_then(|(name, version)| target(&name, &version));
        if let Some(to) = moved {
            package["version"] = toml_edit::value(to);
            package.remove("checksum");
        }
        let dependencies = package.get_mut("dependencies");
        let dependencies = dependencies.and_then(|item| item.as_array_mut());
        for dependency in dependencies.into_iter().flat_map(Array::iter_mut) {
            // `name`, `name version` or `name version (source)`.
            let written = dependency.as_str().unwrap_or_default();
            let mut words: Vec<&str> = written.split(' ').collect();
            if let [name, version, ..] = &mut words[..]
                && let Some(to) = target(name, version)
            {
                *version = to;
                *dependency = words.join(" ").into();
            }
        }
    }
    for Move { name, to, .. } in added {
        if !here.contains(&(name.clone(), to.to_string())) {
            let mut package = Table::new();
            package["name"] = toml_edit::value(name);
            package["version"] = toml_edit::value(to.to_string());
            package["source"] = source.clone()?;
            packages.push(package);
        }
    }
    Some(document.to_string())
}

/// The version of a package that is not where it should be.
fn misplaced(versions: &HashMap<String, Vec<Version>>, wanted: &Move) -> Option<Version> {
    let versions = versions.get(&wanted.name)?;
    if versions.contains(&wanted.to) {
        return None;
    }
    // It may have moved with another one, or what it was needed for has, and does not
    // need it any more.
    let is_same = |version: &&Version| line(version) == line(&wanted.from);
    versions.iter().find(is_same).cloned()
}

/// A package's compatible versions (Cargo book, "Version requirement syntax"):
/// the leftmost number that is not zero decides.
pub fn line(version: &Version) -> (u64, u64, u64) {
    match (version.major, version.minor, version.patch) {
        (0, 0, patch) => (0, 0, patch),
        (0, minor, _) => (0, minor, 0),
        (major, _, _) => (major, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn a_version_moves_wherever_it_is_written() {
        let registry = "source = \"registry+https://example.org\"\n";
        let package = |name: &str, version: &str, rest: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{rest}\n")
        };
        let lock = |a: &str, checksum: &str| {
            let needs = format!("dependencies = [\"a {a}\", \"b\", \"a 2.0.0\"]\n");
            let packages = [
                package("a", a, &format!("{registry}{checksum}")),
                package("a", "2.0.0", registry),
                package("b", "1.0.0", registry),
                package("c", "1.0.0", &needs),
            ];
            format!("version = 4\n\n{}", packages.concat())
        };
        let wanted = |to: &str| Move {
            name: "a".to_owned(),
            from: version("1.0.0"),
            to: version(to),
        };
        let before = lock("1.0.0", "checksum = \"aa\"\n");
        let after = rewritten(before.as_bytes(), &[wanted("1.0.5")], &[]).unwrap();
        assert_eq!(after, lock("1.0.5", ""));
        // Two become one.
        let after = rewritten(before.as_bytes(), &[wanted("2.0.0")], &[]).unwrap();
        assert_eq!(after.matches("name = \"a\"").count(), 1, "{after}");
        // What is there already does not come in.
        let new = |name: &str| Move {
            name: name.to_owned(),
            ..wanted("2.0.0")
        };
        let moves = [wanted("1.0.5")];
        let after = rewritten(before.as_bytes(), &moves, &[new("a"), new("d")]).unwrap();
        let moved = format!("{}{}", lock("1.0.5", ""), package("d", "2.0.0", registry));
        assert_eq!(after.trim_end(), moved.trim_end());
        assert!(rewritten(b"[[package", &[], &[]).is_none());
    }
}
