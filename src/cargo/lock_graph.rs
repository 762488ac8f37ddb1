//! A Cargo.lock as a graph, for whoever has many of them and no manifests.
//!
//! All four versions are read; how a dependency is found follows
//! `EncodableResolve::into_resolve` (`src/cargo/core/resolver/encode.rs`, Cargo
//! 1.95), with one difference: what Cargo would pass over or guess, a
//! dependency that is missing or could be several packages, is an error here.
//!
//! Time and memory are linear in the size of the text.

mod plain;

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;

/// The last version of the format that is known.
const NEWEST: u32 = 4;

/// All packages of a lock file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockGraph {
    /// In the order of the file.
    pub packages: Vec<LockedPackage>,
}

/// A package with what it depends on: normal, build and, for the workspace's
/// own packages, development dependencies of all platforms. A lock file does
/// not tell them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its version, as it is written.
    pub version: String,
    /// Its source, as it is written; none for a folder.
    pub source: Option<String>,
    /// Positions in [`LockGraph::packages`], sorted, each once.
    pub dependencies: Vec<usize>,
}

/// Why a lock file is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Some byte.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// Somebody has not finished merging.
    #[error("line {line} is the mark of a merge conflict")]
    Conflict {
        /// Counted from one.
        line: usize,
    },
    /// It is not TOML, or a field is missing or of another type.
    #[error("it cannot be read: {reason}")]
    Syntax {
        /// One line.
        reason: String,
    },
    /// A newer Cargo wrote it.
    #[error("it has version {version}, the last one known is {NEWEST}")]
    Newer {
        /// Its version.
        version: u32,
    },
    /// One package is there twice.
    #[error("`{package}` is there twice")]
    Twice {
        /// Name and version.
        package: String,
    },
    /// A dependency is not there.
    #[error("`{package}` needs `{dependency}`, which is not there")]
    Missing {
        /// Name and version.
        package: String,
        /// As it is written.
        dependency: String,
    },
    /// A dependency could be one of several packages.
    #[error("`{package}` needs `{dependency}`, which could be one of several packages")]
    Ambiguous {
        /// Name and version.
        package: String,
        /// As it is written.
        dependency: String,
    },
}

#[derive(Debug, Deserialize)]
struct Raw<'a> {
    version: Option<u32>,
    #[serde(borrow, default)]
    package: Vec<RawPackage<'a>>,
    /// Version 1 had the workspace's package apart from the others.
    #[serde(borrow)]
    root: Option<RawPackage<'a>>,
}

#[derive(Debug, Deserialize)]
struct RawPackage<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    dependencies: Vec<Cow<'a, str>>,
    /// What stands in for it (`[replace]` of a manifest).
    #[serde(borrow)]
    replace: Option<Cow<'a, str>>,
}

impl LockGraph {
    /// Reads the text of a lock file.
    pub fn parse(bytes: &[u8]) -> Result<Self, LockError> {
        let text = std::str::from_utf8(bytes).map_err(|_bytes| LockError::NotUtf8)?;
        let plain = plain::read(text).map(Ok);
        let raw: Raw = match plain.unwrap_or_else(|| toml::from_str(text)) {
            Ok(raw) => raw,
            Err(error) => {
                return Err(match conflict(text) {
                    Some(line) => LockError::Conflict { line },
                    None => LockError::Syntax {
                        reason: error.message().to_owned(),
                    },
                });
            }
        };
        if let Some(version) = raw.version.filter(|version| *version > NEWEST) {
            return Err(LockError::Newer { version });
        }
        let packages: Vec<RawPackage> = raw.package.into_iter().chain(raw.root).collect();
        let names = Names::of(&packages)?;
        let packages = packages.iter().map(|package| {
            // What is replaced is never compiled; its stand-in is.
            let needed = match &package.replace {
                Some(stand_in) => std::slice::from_ref(stand_in),
                None => &package.dependencies,
            };
            let found = needed.iter().map(|needed| names.find(package, needed));
            let mut dependencies = found.collect::<Result<Vec<usize>, _>>()?;
            dependencies.sort_unstable();
            dependencies.dedup();
            Ok(LockedPackage {
                name: package.name.clone().into_owned(),
                version: package.version.clone().into_owned(),
                source: package.source.clone().map(Cow::into_owned),
                dependencies,
            })
        });
        Ok(Self {
            packages: packages.collect::<Result<_, LockError>>()?,
        })
    }
}

/// The first line that Git writes where two versions meet.
fn conflict(text: &str) -> Option<usize> {
    let mark = |line: &str| {
        ["<<<<<<<", "=======", ">>>>>>>"]
            .iter()
            .any(|mark| line.starts_with(mark))
    };
    text.lines().position(mark).map(|position| position + 1)
}

/// Packages by name.
struct Names<'a> {
    packages: &'a [RawPackage<'a>],
    by_name: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Names<'a> {
    fn of(packages: &'a [RawPackage<'a>]) -> Result<Self, LockError> {
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (position, package) in packages.iter().enumerate() {
            let same = by_name.entry(&package.name).or_default();
            let twin = same.iter().map(|other| &packages[*other]).any(|other| {
                other.version == package.version && bare(&other.source) == bare(&package.source)
            });
            if twin {
                return Err(LockError::Twice {
                    package: title(package),
                });
            }
            same.push(position);
        }
        Ok(Self { packages, by_name })
    }

    /// The package that `text` stands for: a name, and where that is not enough
    /// a version, and then a source in brackets.
    fn find(&self, package: &RawPackage, text: &str) -> Result<usize, LockError> {
        let mut parts = text.splitn(3, ' ');
        let name = parts.next().unwrap_or_default();
        let version = parts.next();
        let source = parts.next().map(|source| {
            let source = source.strip_prefix('(').unwrap_or(source);
            source.strip_suffix(')').unwrap_or(source)
        });
        let same = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        let fitting = same.iter().copied().filter(|position| {
            let other = &self.packages[*position];
            version.is_none_or(|version| other.version == version)
                && source.is_none_or(|source| bare(&other.source) == Some(commitless(source)))
        });
        let fitting: Vec<usize> = fitting.collect();
        let folder = |position: &&usize| self.packages[**position].source.is_none();
        let dependency = || text.to_owned();
        match fitting[..] {
            [one] => Ok(one),
            [] => Err(LockError::Missing {
                package: title(package),
                dependency: dependency(),
            }),
            // A folder has no source that could be written down.
            _ if version.is_some() && fitting.iter().filter(folder).count() == 1 => {
                Ok(*fitting.iter().find(folder).expect("there is one"))
            }
            _ => Err(LockError::Ambiguous {
                package: title(package),
                dependency: dependency(),
            }),
        }
    }
}

fn title(package: &RawPackage) -> String {
    format!("{} {}", package.name, package.version)
}

/// A source without the commit, as dependencies name it.
fn bare<'a>(source: &'a Option<Cow<'_, str>>) -> Option<&'a str> {
    source.as_deref().map(commitless)
}

fn commitless(source: &str) -> &str {
    source.split_once('#').map_or(source, |(source, _)| source)
}

#[cfg(test)]
mod tests;
