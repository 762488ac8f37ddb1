//! `quickbuild.toml`: the project's, then the user's, then built-in values.

mod builders;
mod service;
mod substituters;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::environment::Environment;
use crate::fs;

pub use builders::{BuilderSettings, ImagePin, NotPin, write_pin};
pub use service::ServiceSettings;
pub use substituters::{PUBLIC_KEYS, SUBSTITUTERS, SubstituterSettings, Token};

/// Name of the file in a project.
pub const FILE: &str = "quickbuild.toml";

/// Settings after merging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Folder of the local store.
    pub store: PathBuf,
    /// Bytes above which the collector takes the least recently used outputs.
    pub max_size: u64,
    /// Builders by name.
    pub builders: BTreeMap<String, BuilderSettings>,
    /// Where outputs are fetched from, in the files' order.
    pub substituters: Vec<SubstituterSettings>,
    /// Packages that `align` leaves as they are.
    pub keep: Vec<String>,
    /// A checkout of RustSec's advisory database.
    pub advisory_db: Option<PathBuf>,
    /// The service that is told what was lacking, if the user wants that.
    pub service: Option<ServiceSettings>,
    /// Files that were read, the most specific first.
    pub files: Vec<PathBuf>,
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration")]
    Read(#[source] fs::FsError),
    /// It is not TOML, or has fields that do not exist.
    #[error("`{}` is not a valid configuration", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// A setting of a builder cannot be read.
    #[error("`{value}` in `{}` is not valid for `{key}` of a builder", path.display())]
    Builder {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// A setting of a substituter cannot be used.
    #[error("`{value}` in `{}` is not valid for `{key}` of a substituter", path.display())]
    Substituter {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// Reports are wanted, but nothing says where to.
    #[error("`{}` wants reports of `[service]`, but has no `url` for them", path.display())]
    Service {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be edited, because it is not TOML.
    #[error("`{}` cannot be edited", path.display())]
    Edit {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<toml_edit::TomlError>,
    },
    /// It cannot be written.
    #[error("cannot write the configuration")]
    Write(#[source] fs::FsError),
    /// `max-size` is not a size.
    #[error("`{value}` in `{}` is not a size; write `20GB` or `512MiB`", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    store: StoreTable,
    #[serde(default)]
    builders: BTreeMap<String, builders::Table>,
    #[serde(default)]
    substituters: Vec<substituters::Table>,
    #[serde(default)]
    align: AlignTable,
    #[serde(default)]
    service: service::Table,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct AlignTable {
    #[serde(default)]
    keep: Vec<String>,
    advisory_db: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct StoreTable {
    path: Option<PathBuf>,
    max_size: Option<String>,
}

const DEFAULT_MAX_SIZE: u64 = 20_000_000_000;

impl Config {
    /// Reads the configuration that counts in `folder`.
    ///
    /// `QUICKBUILD_CONFIG` names the only file to read; `QUICKBUILD_STORE`
    /// overrides the store's folder, and [`SUBSTITUTERS`] all substituters.
    pub fn load(environment: &Environment, folder: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::built_in(environment);
        let user = xdg(environment, "XDG_CONFIG_HOME", ".config").join(FILE);
        let mut files = match environment.get("QUICKBUILD_CONFIG") {
            Some(path) => vec![folder.join(path)],
            None => {
                let project = project_file(folder);
                project.into_iter().chain([user.clone()]).collect()
            }
        };
        files.reverse();
        for path in files {
            let required = environment.get("QUICKBUILD_CONFIG").is_some();
            let is_users = required || path == user;
            config.merge(path, required, is_users, environment)?;
        }
        if let Some(store) = environment
            .get("QUICKBUILD_STORE")
            .filter(|s| !s.is_empty())
        {
            config.store = folder.join(store);
        }
        if let Some(urls) = environment.get(SUBSTITUTERS) {
            let urls: Vec<&str> = urls.split_whitespace().collect();
            config.substitute_from(&urls, environment, folder);
        }
        Ok(config)
    }

    /// The settings that count without any file.
    pub fn built_in(environment: &Environment) -> Self {
        Self {
            store: default_store(environment),
            max_size: DEFAULT_MAX_SIZE,
            builders: BTreeMap::new(),
            substituters: Vec::new(),
            keep: Vec::new(),
            advisory_db: None,
            service: None,
            files: Vec::new(),
        }
    }

    /// Uses these substituters and no others: each with its settings, if it has
    /// any, and otherwise with the keys in [`PUBLIC_KEYS`].
    pub fn substitute_from(&mut self, urls: &[&str], environment: &Environment, folder: &Path) {
        self.substituters = substituters::given(urls, &self.substituters, environment, folder);
    }

    /// The settings of one substituter, as for [`Self::substitute_from`].
    pub fn substituter(
        &self,
        url: &str,
        environment: &Environment,
        folder: &Path,
    ) -> SubstituterSettings {
        let mut found = substituters::given(&[url], &self.substituters, environment, folder);
        found.remove(0)
    }

    fn merge(
        &mut self,
        path: PathBuf,
        required: bool,
        is_users: bool,
        environment: &Environment,
    ) -> Result<(), ConfigError> {
        let bytes = match fs::read_optional(&path).map_err(ConfigError::Read)? {
            Some(bytes) => bytes,
            None if required => {
                fs::read(&path).map_err(ConfigError::Read)?;
                return Ok(());
            }
            None => return Ok(()),
        };
        let text = String::from_utf8_lossy(&bytes);
        let file: File = toml::from_str(&text).map_err(|source| ConfigError::Syntax {
            path: path.clone(),
            source: Box::new(source),
        })?;
        if let Some(store) = file.store.path {
            self.store = path.parent().unwrap_or(Path::new("/")).join(store);
        }
        if let Some(value) = file.store.max_size {
            self.max_size = parse_size(&value).ok_or_else(|| ConfigError::Size {
                path: path.clone(),
                value,
            })?;
        }
        self.keep.extend(file.align.keep);
        if let Some(folder) = file.align.advisory_db {
            self.advisory_db = Some(path.parent().unwrap_or(Path::new("/")).join(folder));
        }
        for (name, table) in file.builders {
            let settings = self.builders.entry(name).or_default();
            settings.merge(table, &path)?;
        }
        let mut substituters = Vec::new();
        for table in file.substituters {
            substituters.push(SubstituterSettings::read(table, &path, environment)?);
        }
        // Of one URL, the most specific file says all.
        let is_new = |known: &SubstituterSettings| {
            let mut new = substituters.iter();
            new.all(|settings| settings.url != known.url)
        };
        let others: Vec<_> = self.substituters.drain(..).filter(is_new).collect();
        substituters.extend(others);
        if let Some(settings) = substituters::unreachable(&substituters) {
            return Err(ConfigError::Substituter {
                path,
                key: "signatures",
                value: settings.signatures.to_string(),
            });
        }
        self.substituters = substituters;
        let before = self.service.take();
        self.service = file.service.merge(before, &path, is_users, environment)?;
        self.files.insert(0, path);
        Ok(())
    }
}

/// The project's file: that of the folder or the nearest one above it.
pub fn project_file(folder: &Path) -> Option<PathBuf> {
    let mut files = folder.ancestors().map(|folder| folder.join(FILE));
    files.find(|file| file.is_file())
}

/// The folder of the user's own key files.
pub fn keys_folder(environment: &Environment) -> PathBuf {
    xdg(environment, "XDG_CONFIG_HOME", ".config").join("keys")
}

/// `quickbuild` below one of the XDG base folders.
fn xdg(environment: &Environment, variable: &str, fallback: &str) -> PathBuf {
    let base = match environment.get(variable) {
        Some(path) if path.starts_with('/') => PathBuf::from(path),
        _ => Path::new(environment.get("HOME").unwrap_or("/")).join(fallback),
    };
    base.join("quickbuild")
}

/// All of the store can be made again, so it is a cache in XDG's terms.
fn default_store(environment: &Environment) -> PathBuf {
    xdg(environment, "XDG_CACHE_HOME", ".cache").join("store")
}

/// Reads `20GB`, `512MiB`, `1000` as bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..end].parse().ok()?;
    let unit: u64 = match text[end..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Reads `30d`, `12h`, `90m`, `2w` as seconds.
pub fn parse_age(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..end].parse().ok()?;
    let unit = match text[end..].trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())))
    }

    #[test]
    fn the_project_wins_over_the_user_and_the_variable_over_both() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        let project = folder.path().join("project/sub");
        fs::create_dir_all(&home.join(".config/quickbuild")).unwrap();
        fs::create_dir_all(&project).unwrap();
        let user = "[store]\npath = \"/user\"\nmax-size = \"5GB\"\n";
        fs::write(
            &home.join(".config/quickbuild/quickbuild.toml"),
            user.as_bytes(),
        )
        .unwrap();
        fs::write(
            &folder.path().join("project/quickbuild.toml"),
            b"[store]\npath = \"store\"\n",
        )
        .unwrap();

        let home = home.to_string_lossy().into_owned();
        let config = Config::load(&environment(&[("HOME", &home)]), &project).unwrap();
        assert_eq!(config.store, folder.path().join("project/store"));
        assert_eq!(config.max_size, 5_000_000_000);
        assert_eq!(config.files.len(), 2);

        let with = environment(&[("HOME", &home), ("QUICKBUILD_STORE", "/s")]);
        assert_eq!(
            Config::load(&with, &project).unwrap().store,
            Path::new("/s")
        );
    }

    #[test]
    fn mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        fs::write(&path, b"[store]\nmax-size = \"big\"\n").unwrap();
        let given = path.to_string_lossy().into_owned();
        let error = Config::load(
            &environment(&[("QUICKBUILD_CONFIG", &given)]),
            folder.path(),
        );
        assert!(matches!(error, Err(ConfigError::Size { .. })));
        fs::write(&path, b"[stoer]\n").unwrap();
        let error = Config::load(
            &environment(&[("QUICKBUILD_CONFIG", &given)]),
            folder.path(),
        );
        assert!(matches!(error, Err(ConfigError::Syntax { .. })));
    }

    #[test]
    fn sizes_and_ages_are_read() {
        assert_eq!(parse_size("20GB"), Some(20_000_000_000));
        assert_eq!(parse_size("1 MiB"), Some(1 << 20));
        assert_eq!(parse_size("x"), None);
        assert_eq!(parse_age("30d"), Some(30 * 86_400));
        assert_eq!(parse_age("30"), None);
    }
}
