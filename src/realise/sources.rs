//! A Cargo home with the sources of some packages and nothing else.
//!
//! Archives are taken from the user's own Cargo home, where Cargo has put them
//! with the user's mirrors and credentials, and are compared with the checksums
//! of Cargo.lock. They are unpacked anew for each realisation: the folders that
//! Cargo itself has unpacked may have been edited.
//!
//! ```text
//! in/cargo/registry/
//!   index/<registry>/.cache/…     what Cargo knows of each locked package
//!   cache/<registry>/<name>-<version>.crate
//!   src/<registry>/<name>-<version>/
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use rayon::prelude::*;

use crate::builder::{Content, Entry};
use crate::cargo::home::{CRATES_IO, UNPACKED, UNPACKED_MARK, index_path};
use crate::cargo::{self, CargoError};
use crate::digest::ContentHash;
use crate::environment::Environment;
use crate::fs::{self, FsError};

/// Bytes that an unpacked package may have, as on crates.io's servers ten times
/// over: more is an attack.
const MAX_UNPACKED: u64 = 5 << 30;

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
    /// The archive cannot be unpacked.
    #[error("the archive of `{package}` cannot be unpacked")]
    Unpack {
        /// Name and version.
        package: String,
        /// Why.
        source: std::io::Error,
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
    /// The folder in which packages are unpacked.
    pub(super) unpacked: &'a Path,
    /// The folder in Cargo's home that each registry has, by its URL.
    pub(super) registries: &'a BTreeMap<String, String>,
    /// Checkouts of Git packages: repository, folder, commit.
    pub(super) checkouts: &'a BTreeSet<(String, String, String)>,
    /// Names and versions of the packages that Cargo wants to have.
    pub(super) wanted: &'a BTreeSet<(String, String)>,
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
        let unpacked = packages
            .par_iter()
            .map(|package| self.package(&home, package));
        let unpacked: Vec<[Entry; 3]> = unpacked.collect::<Result<_, _>>()?;
        entries.extend(unpacked.into_iter().flatten());
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

    /// One package: its archive, its folder, and Cargo's mark that the folder
    /// is whole.
    fn package(&self, home: &Home<'_>, package: &Locked) -> Result<[Entry; 3], SourceError> {
        let absent = || SourceError::NoArchive {
            package: package.id(),
        };
        let (registry, archive) = home.archive(package).ok_or_else(absent)?;
        let folder = self.unpack(package, &archive)?;
        let to = home.registry_inside(&registry, package);
        let stem = package.stem();
        Ok([
            Entry {
                path: format!("in/cargo/registry/cache/{to}/{stem}.crate"),
                content: Content::File(archive),
            },
            Entry {
                path: format!("in/cargo/registry/src/{to}/{stem}"),
                content: Content::Tree(folder),
            },
            Entry {
                path: format!("in/cargo/registry/src/{to}/{stem}/{UNPACKED_MARK}"),
                content: Content::Bytes {
                    bytes: UNPACKED.as_bytes().to_vec(),
                    executable: false,
                },
            },
        ])
    }

    /// Unpacks an archive that is the one in the lock file.
    fn unpack(&self, package: &Locked, archive: &Path) -> Result<PathBuf, SourceError> {
        let bytes = fs::read(archive)?;
        let found = ContentHash::of(&bytes);
        if found.to_string() != package.checksum {
            return Err(SourceError::Checksum {
                package: package.id(),
                found,
                wanted: package.checksum.clone(),
            });
        }
        // One name and version may come from two registries.
        let folder = self.unpacked.join(&package.checksum);
        unpack(&bytes, &package.stem(), &folder).map_err(|source| SourceError::Unpack {
            package: package.id(),
            source,
        })?;
        Ok(folder)
    }
}

/// Unpacks a `.crate`, whose entries are all below `<name>-<version>/`.
fn unpack(bytes: &[u8], stem: &str, to: &Path) -> std::io::Result<()> {
    let invalid = |reason: String| std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
    let decoder = flate2::read::GzDecoder::new(bytes).take(MAX_UNPACKED);
    let mut archive = tar::Archive::new(decoder);
    let other = |error: FsError| std::io::Error::other(error);
    fs::create_dir_all(to).map_err(other)?;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind == tar::EntryType::XGlobalHeader {
            continue;
        }
        let path = entry.path()?.into_owned();
        let below = path.strip_prefix(stem).ok().filter(|below| {
            let mut parts = below.components();
            parts.all(|part| matches!(part, Component::Normal(_)))
        });
        let Some(below) = below.filter(|_| kind.is_file()) else {
            return Err(invalid(format!("`{}` has no place in it", path.display())));
        };
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        let file = to.join(below);
        fs::create_dir_all(file.parent().unwrap_or(to)).map_err(other)?;
        fs::write(&file, &content).map_err(other)?;
        let mode = (entry.header().mode()? & 0o111) | 0o644;
        fs::set_mode(&file, mode).map_err(other)?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(name: &str, kind: tar::EntryType) -> Vec<u8> {
        let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(encoder);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn an_archive_stays_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("to");
        let file = tar::EntryType::Regular;
        assert!(unpack(&packed("a-1.0.0/src/lib.rs", file), "a-1.0.0", &to).is_ok());
        assert!(to.join("src/lib.rs").is_file());
        for (name, kind) in [
            ("b-1.0.0/src/lib.rs", file),
            ("a-1.0.0/../x", file),
            ("a-1.0.0/link", tar::EntryType::Symlink),
        ] {
            assert!(
                unpack(&packed(name, kind), "a-1.0.0", &to).is_err(),
                "{name}"
            );
        }
    }
}
