//! What a registry's index says of each version of a package: what it requires,
//! which features it has, whether it is yanked. As [`index_cache`](super::index_cache),
//! only what Cargo has looked up before is known, and nothing is asked for.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use semver::{Version, VersionReq};
use serde::Deserialize;

use super::index_files::IndexFiles;
use crate::fs;

/// A published version of a package.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Release {
    /// Whether it was withdrawn.
    pub yanked: bool,
    /// The oldest Rust that it says to need.
    pub rust_version: Option<Version>,
    /// What it needs, without what only its tests do.
    pub requirements: Vec<Requirement>,
    /// Its features, those of optional dependencies included.
    pub features: BTreeSet<String>,
}

/// A dependency as a manifest names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirement {
    /// The package.
    pub package: String,
    /// Which versions will do.
    pub versions: VersionReq,
    /// Whether it is there only where a feature asks for it.
    pub optional: bool,
    /// Whether it is there with the default features.
    pub by_default: bool,
    /// Whether it is needed on all platforms.
    pub everywhere: bool,
    /// Features that it must have.
    pub features: Vec<String>,
}

/// Releases, as far as Cargo has looked them up.
#[derive(Debug, Default)]
pub struct Releases {
    files: IndexFiles,
    known: Mutex<Known>,
}

/// Releases by name and version; nothing for those that do not exist.
type Known = HashMap<(String, String), Option<Arc<Release>>>;

/// A line of an index (Cargo book, "Registry index").
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    yanked: bool,
    #[serde(default)]
    deps: Vec<Dependency>,
    #[serde(default)]
    features: HashMap<String, Vec<String>>,
    features2: Option<HashMap<String, Vec<String>>>,
    rust_version: Option<String>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    package: Option<String>,
    req: String,
    #[serde(default)]
    optional: bool,
    target: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    features: Vec<String>,
}

impl Releases {
    /// Looks at the index of crates.io in some Cargo homes; what a later one says
    /// goes before what an earlier one does.
    pub fn open(cargo_homes: &[PathBuf]) -> fs::Result<Self> {
        Ok(Self {
            files: IndexFiles::open(cargo_homes)?,
            ..Self::default()
        })
    }

    /// A version of a package; `None` if it does not exist, or if the index is not
    /// at hand.
    pub fn of(&self, name: &str, version: &str) -> Option<Arc<Release>> {
        let key = (name.to_owned(), version.to_owned());
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(release) = lock().get(&key) {
            return release.clone();
        }
        let release = self.files.of(name).get(version).and_then(|line| read(line));
        let release = release.map(Arc::new);
        lock().insert(key, release.clone());
        release
    }

    /// The versions of a package that were published; none if the index is not at
    /// hand.
    pub fn published(&self, name: &str) -> Vec<Version> {
        let lines = self.files.of(name);
        let versions = lines.keys().filter_map(|version| version.parse().ok());
        versions.collect()
    }

    /// Whether the index of a package is at hand.
    pub fn has(&self, name: &str) -> bool {
        !self.files.of(name).is_empty()
    }
}

fn read(line: &[u8]) -> Option<Release> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let mut given = line.features;
    given.extend(line.features2.unwrap_or_default());
    let by_default = reached(&given, "default");
    let mut features: BTreeSet<String> = given.keys().cloned().collect();
    let optional = line.deps.iter().filter(|dependency| dependency.optional);
    features.extend(optional.map(|dependency| dependency.name.clone()));
    let needed = line.deps.into_iter();
    let needed = needed.filter(|dependency| dependency.kind.as_deref() != Some("dev"));
    let requirements = needed.map(|dependency| {
        Some(Requirement {
            versions: VersionReq::parse(&dependency.req).ok()?,
            by_default: !dependency.optional || by_default.contains(dependency.name.as_str()),
            package: dependency.package.unwrap_or(dependency.name),
            optional: dependency.optional,
            everywhere: dependency.target.is_none(),
            features: dependency.features,
        })
    });
    Some(Release {
        yanked: line.yanked,
        rust_version: line.rust_version.as_deref().and_then(rust_version),
        requirements: requirements.collect::<Option<_>>()?,
        features,
    })
}

/// What a feature turns on, itself included: features, and dependencies by the name
/// that the manifest gives them (Cargo book, "Features").
fn reached<'f>(features: &'f HashMap<String, Vec<String>>, feature: &'f str) -> BTreeSet<&'f str> {
    let mut found = BTreeSet::new();
    let mut open = vec![feature];
    while let Some(name) = open.pop() {
        if found.insert(name) {
            let values = features.get(name).into_iter().flatten();
            // `feature`, `dep:name`, or `name/feature`, which turns `name` on; `name?/feature` does not.
            let values = values.filter(|value| !value.contains("?/"));
            open.extend(
                values.filter_map(|value| value.trim_start_matches("dep:").split('/').next()),
            );
        }
    }
    found
}

/// A version of Rust as manifests give it, such as `1.70`.
pub fn rust_version(text: &str) -> Option<Version> {
    let text = text.split(['-', '+']).next()?;
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    let mut next = || numbers.next().unwrap_or(Some(0));
    Some(Version::new(next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::super::home::index_path;
    use super::*;

    fn home(name: &str, lines: &[(&str, &str)]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("registry/index/index.crates.io-0/.cache");
        let file = root.join(index_path(name));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let mut bytes = b"\x03\x02\0\0\0etag: x\0".to_vec();
        for (version, line) in lines {
            bytes.extend(version.bytes().chain([0]).chain(line.bytes()).chain([0]));
        }
        fs::write(&file, &bytes).unwrap();
        home
    }

    #[test]
    fn a_release_says_what_it_needs_and_has() {
        let old = home(
            "demo",
            &[(
                "1.0.0",
                r#"{"name":"demo","vers":"1.0.0","cksum":"","deps":[]}"#,
            )],
        );
        let new = home(
            "demo",
            &[
                (
                    "1.0.0",
                    r#"{"name":"demo","vers":"1.0.0","cksum":"","yanked":true,"rust_version":"1.70",
                "features":{"std":[],"default":["x"]},"features2":{"x":["dep:alias","weak?/y"]},"deps":[
                {"name":"alias","package":"real","req":"^1.2","optional":true,"features":["f"]},
                {"name":"weak","req":"^1","optional":true},
                {"name":"tests","req":"*","kind":"dev"},
                {"name":"win","req":">=0.5, <0.7","target":"cfg(windows)","kind":"build"}]}"#,
                ),
                ("2.0.0", "{broken"),
            ],
        );
        let homes = [old.path().to_owned(), new.path().to_owned()];
        let releases = Releases::open(&homes).unwrap();
        let release = releases.of("demo", "1.0.0").unwrap();
        assert!(release.yanked);
        assert_eq!(release.rust_version, Some(Version::new(1, 70, 0)));
        let features: Vec<&str> = release.features.iter().map(String::as_str).collect();
        assert_eq!(features, ["alias", "default", "std", "weak", "x"]);
        let [real, weak, win] = &release.requirements[..] else {
            panic!("{release:?}")
        };
        assert_eq!((real.package.as_str(), real.optional), ("real", true));
        assert!(real.by_default && !weak.by_default && win.by_default);
        assert!(real.everywhere && !win.everywhere);
        assert!(win.versions.matches(&Version::new(0, 6, 9)));
        assert_eq!(releases.of("demo", "2.0.0"), None);
        assert_eq!(releases.of("other", "1.0.0"), None);
        assert!(releases.has("demo") && !releases.has("other"));
        let mut published = releases.published("demo");
        published.sort();
        assert_eq!(published, [Version::new(1, 0, 0), Version::new(2, 0, 0)]);
        assert!(releases.published("other").is_empty());
    }

    #[test]
    fn versions_of_rust_may_be_short() {
        for (text, version) in [
            ("1.70", (1, 70, 0)),
            ("1", (1, 0, 0)),
            ("1.85.1", (1, 85, 1)),
        ] {
            let (major, minor, patch) = version;
            assert_eq!(rust_version(text), Some(Version::new(major, minor, patch)));
        }
        assert_eq!(rust_version("stable"), None);
    }
}
