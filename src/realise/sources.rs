//! A Cargo home with the sources of some packages and nothing else.
//!
//! Archives are taken from the user's own Cargo home, where Cargo has put them
//! with the user's mirrors and credentials, and are compared with the checksums
//! of Cargo.lock. They are unpacked anew for each realisation, in the builder
//! ([`unpack`](super::unpack)): the folders that Cargo itself has unpacked may have
//! been edited.
//!
//! ```text
//! in/cargo/registry/
//!   index/<registry>/.cache/…     what Cargo knows of each locked package
//!   cache/<registry>/<name>-<version>.crate
//!   src/<registry>/<name>-<version>/
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use rayon::prelude::*;

use super::unpack::{LIST, Packed, PackedPackage};
use crate::builder::{Content, Entry};
use crate::cargo::home::{CRATES_IO, UNPACKED_MARK, index_path};
use crate::cargo::{self, CargoError};
use crate::digest::ContentHash;
use crate::environment::Environment;
use crate::fs::{self, FsError};

/// Why there are no sources.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The lock file cannot be read.
    #[error("`{}` is not a lock file", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: cargo_lock::Error,
    },
    /// Cargo could not fetch them.
    #[error("Cargo cannot fetch the packages")]
    Fetch(#[from] CargoError),
    /// A file.
    #[error("a package's file cannot be used")]
    File(#[from] FsError),
    /// The archive is not there, even after fetching.
    #[error("the archive of `{package}` is not in Cargo's home")]
    NoArchive {
        /// Name and version.
        package: String,
    },
    /// The archive is not the one in Cargo.lock.
    #[error(
        "the archive of `{package}` has the checksum `{found}`, and Cargo.lock says `{wanted}`"
    )]
    Checksum {
        /// Name and version.
        package: String,
        /// What was found.
        found: ContentHash,
        /// What was wanted.
        wanted: String,
    },
    /// A checkout is not what the commit says.
    #[error("the checkout `{}` is not the commit {commit} as it is", folder.display())]
    Git {
        /// The checkout.
        folder: PathBuf,
        /// What it should be.
        commit: String,
    },
}

/// A registry package of a lock file.
struct Locked {
    name: String,
    version: String,
    checksum: String,
    /// The registry's URL.
    source: String,
    is_crates_io: bool,
}

impl Locked {
    fn id(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    fn stem(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// What is asked for.
pub(super) struct Sources<'a> {
    /// The user's variables.
    pub(super) environment: &'a Environment,
    /// The lock file.
    pub(super) lock: &'a Path,
    /// The folder in Cargo's home that each registry has, by its URL.
    pub(super) registries: &'a BTreeMap<String, String>,
    /// Checkouts of Git packages: repository, folder, commit.
    pub(super) checkouts: &'a BTreeSet<(String, String, String)>,
    /// Names and versions of the packages that Cargo wants to have.
    pub(super) wanted: &'a BTreeSet<(String, String)>,
    /// Bytes that they may have when they are unpacked.
    pub(super) disk: u64,
}

impl Sources<'_> {
    /// All files of the Cargo home.
    pub(super) fn gather(&self) -> Result<Vec<Entry>, SourceError> {
        let locked = self.locked()?;
        let home = Home::new(self.environment.cargo_home(), self.registries);
        let wanted = |package: &&Locked| {
            let id = (package.name.clone(), package.version.clone());
            self.wanted.contains(&id)
        };
        let complete = locked.iter().all(|package| {
            home.index(package).is_some() && (!wanted(&package) || home.archive(package).is_some())
        });
        if !complete {
            let mut command = Command::new(self.environment.cargo());
            command.args(["fetch", "--locked"]);
            command.current_dir(self.lock.parent().unwrap_or(Path::new("/")));
            cargo::output_of(&mut command)?;
        }
        let mut entries = vec![Entry {
            path: "in/cargo".to_owned(),
            content: Content::Folder,
        }];
        let mut registries = BTreeSet::new();
        for package in &locked {
            // A package that this platform does not need may be unknown here.
            let Some((registry, file)) = home.index(package) else {
                continue;
            };
            let to = home.registry_inside(registry, package);
            if home.is_git(registry) {
                // Cargo reads its files by the commit that the repository has.
                if registries.insert(to.clone()) {
                    entries.push(Entry {
                        path: format!("in/cargo/registry/index/{to}"),
                        content: Content::Tree(home.index.join(registry)),
                    });
                }
                continue;
            }
            let below = file.strip_prefix(home.index.join(registry));
            let below = below.unwrap_or(&file).display();
            entries.push(Entry {
                path: format!("in/cargo/registry/index/{to}/{below}"),
                content: Content::File(file.clone()),
            });
            if registries.insert(to.clone()) {
                let config = home.index.join(registry).join("config.json");
                entries.push(Entry {
                    path: format!("in/cargo/registry/index/{to}/config.json"),
                    content: Content::File(config),
                });
            }
        }
        entries.dedup_by(|a, b| a.path == b.path);
        let packages: Vec<&Locked> = locked.iter().filter(wanted).collect();
        let found = packages
            .par_iter()
            .map(|package| self.package(&home, package));
        let found: Vec<(Entry, PackedPackage)> = found.collect::<Result<_, _>>()?;
        let (archives, packed): (Vec<Entry>, Vec<PackedPackage>) = found.into_iter().unzip();
        entries.extend(archives);
        let packed = Packed {
            disk: self.disk,
            packages: packed,
        };
        let list = serde_json::to_vec(&packed).expect("paths and digests serialise");
        entries.push(Entry {
            path: format!("in/{LIST}"),
            content: Content::Bytes {
                bytes: list,
                executable: false,
            },
        });
        for (repository, folder, commit) in self.checkouts {
            entries.extend(self.checkout(repository, folder, commit)?);
        }
        Ok(entries)
    }

    /// A repository with one checkout. Git itself says whether that is the commit
    /// and nothing else: people edit what Cargo has checked out.
    fn checkout(
        &self,
        repository: &str,
        folder: &str,
        commit: &str,
    ) -> Result<[Entry; 2], SourceError> {
        let git = self.environment.cargo_home().join("git");
        let database = format!("db/{repository}");
        let checkout = format!("checkouts/{repository}/{folder}");
        let place = git.join(&checkout);
        let ask = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(&place).args(arguments);
            cargo::output_of(&mut command)
        };
        let head = ask(&["rev-parse", "HEAD"])?;
        let status = ask(&[
            "status",
            "--porcelain",
            "--ignored",
            "--untracked-files=all",
        ])?;
        // Cargo's mark that the checkout is whole.
        let changed = status
            .lines()
            .any(|line| !line.ends_with(&format!(" {UNPACKED_MARK}")));
        if head.trim() != commit || changed {
            return Err(SourceError::Git {
                folder: place,
                commit: commit.to_owned(),
            });
        }
        let entry = |below: String| Entry {
            path: format!("in/cargo/git/{below}"),
            content: Content::Tree(git.join(below)),
        };
        Ok([entry(database), entry(checkout)])
    }

    fn locked(&self) -> Result<Vec<Locked>, SourceError> {
        let lock = cargo_lock::Lockfile::load(self.lock).map_err(|source| SourceError::Lock {
            path: self.lock.to_owned(),
            source,
        })?;
        let mut locked = Vec::new();
        for package in lock.packages {
            let Some(source) = package.source else {
                continue;
            };
            let id = (package.name.to_string(), package.version.to_string());
            if let Some(checksum) = package.checksum {
                locked.push(Locked {
                    name: id.0,
                    version: id.1,
                    checksum: checksum.to_string(),
                    source: source.to_string(),
                    is_crates_io: source.is_default_registry(),
                });
            }
        }
        Ok(locked)
    }

    /// One package's archive, which is the one in the lock file, and where it
    /// is to be unpacked.
    fn package(
        &self,
        home: &Home<'_>,
        package: &Locked,
    ) -> Result<(Entry, PackedPackage), SourceError> {
        let absent = || SourceError::NoArchive {
            package: package.id(),
        };
        let (registry, archive) = home.archive(package).ok_or_else(absent)?;
        let found = fs::hash_file(&archive)?;
        if found.to_string() != package.checksum {
            return Err(SourceError::Checksum {
                package: package.id(),
                found,
                wanted: package.checksum.clone(),
            });
        }
        let to = home.registry_inside(&registry, package);
        let stem = package.stem();
        let below = format!("cargo/registry/cache/{to}/{stem}.crate");
        let entry = Entry {
            path: format!("in/{below}"),
            content: Content::File(archive),
        };
        let packed = PackedPackage {
            archive: below.into(),
            folder: format!("cargo/registry/src/{to}/{stem}").into(),
            sha256: found,
        };
        Ok((entry, packed))
    }
}

/// The user's Cargo home.
struct Home<'a> {
    by_url: &'a BTreeMap<String, String>,
    index: PathBuf,
    cache: PathBuf,
    registries: Vec<String>,
}

impl<'a> Home<'a> {
    fn new(home: PathBuf, by_url: &'a BTreeMap<String, String>) -> Self {
        let index = home.join("registry/index");
        let folders = fs::list(&index).unwrap_or_default();
        let names = folders.iter().filter_map(|path| path.file_name()?.to_str());
        Self {
            by_url,
            registries: names.map(str::to_owned).collect(),
            cache: home.join("registry/cache"),
            index,
        }
    }

    /// What Cargo keeps of a registry's index about a package
    /// (`src/cargo/sources/registry/index/cache.rs`).
    fn index(&self, package: &Locked) -> Option<(&str, PathBuf)> {
        let below = index_path(&package.name);
        let mut found = self.candidates(package).filter_map(|registry| {
            let file = self.index.join(registry).join(".cache").join(&below);
            file.is_file().then_some((registry, file))
        });
        found.next()
    }

    /// The folder of the package's registry; where Cargo has not told it, which
    /// is so for a mirror, all of them.
    fn candidates(&self, package: &Locked) -> impl Iterator<Item = &str> {
        let known = self.by_url.get(&package.source);
        let others = self.registries.iter().filter(move |_| known.is_none());
        known.into_iter().chain(others).map(String::as_str)
    }

    /// Whether a registry's index is a repository, not files by HTTP.
    fn is_git(&self, registry: &str) -> bool {
        self.index.join(registry).join(".git").is_dir()
    }

    fn archive(&self, package: &Locked) -> Option<(String, PathBuf)> {
        let name = format!("{}.crate", package.stem());
        let mut found = self.candidates(package).filter_map(|registry| {
            let file = self.cache.join(registry).join(&name);
            file.is_file().then(|| (registry.to_owned(), file))
        });
        found.next()
    }

    /// The registry's folder in a home without mirrors.
    fn registry_inside(&self, registry: &str, package: &Locked) -> String {
        if package.is_crates_io {
            CRATES_IO.to_owned()
        } else {
            registry.to_owned()
        }
    }
}
