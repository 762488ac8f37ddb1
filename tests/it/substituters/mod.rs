//! Outputs published, fetched, and refused.
//!
//! * `audit`: where outputs came from, and the bill of materials.
//! * `fetching`: a fresh store and a warm substituter, over all back ends.
//! * `hostile`: files that are not what they should be.
//! * `servers`: web servers that are ill.
//! * `publishing`: pushes, killed and together.
//! * `places`: the same over buckets, registries, releases and uploads.
//! * `copying`: from one place to another, and what is removed.
//! * `stopping`: Ctrl-C, kills and full disks while archives come.
//! * `tls`: certificates, good and bad, and HTTP/2.
//! * `trust`: who is believed, across substituters, too.

mod audit;
mod copying;
mod fetching;
mod hostile;
mod places;
mod publishing;
mod servers;
mod stopping;
mod tls;
mod trust;

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Outcome, Project, TestEnv};

/// The name under which outputs are signed.
pub(crate) const KEY: &str = "test.example.org-1";

/// `tiny`, built, signed and published in a folder.
pub(crate) struct Published {
    pub(crate) env: TestEnv,
    pub(crate) project: Project,
    pub(crate) cache: PathBuf,
    /// The public key.
    pub(crate) key: String,
}

impl Published {
    pub(crate) fn new() -> Self {
        let env = TestEnv::new();
        let project = env.project("tiny");
        let _ = env.quickbuild(&project, &["build"]).success();
        let generated = env.quickbuild(&project, &["key", "generate", KEY]);
        let key = generated.success().stdout.trim_end().to_owned();
        let cache = env.root().join("cache");
        let published = Self {
            env,
            project,
            cache,
            key,
        };
        let _ = published.run(&["key", "sign", KEY, "--all"]).success();
        let _ = published.push().success();
        published
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.env.quickbuild(&self.project, arguments)
    }

    pub(crate) fn push(&self) -> Outcome {
        let to = self.cache.to_str().unwrap();
        self.run(&["push", to, "--all", "--include-local"])
    }

    /// Somebody else, with an empty store, who trusts the key.
    pub(crate) fn client(&self, url: &str) -> Client {
        self.client_with(url, &format!("public-keys = [\"{}\"]", self.key))
    }

    pub(crate) fn client_with(&self, url: &str, settings: &str) -> Client {
        let timeout = if settings.contains("timeout = ") {
            ""
        } else {
            "timeout = \"1s\""
        };
        self.configured(&format!(
            "[[substituters]]\nurl = \"{url}\"\nmembers = true\n{timeout}\n{settings}\n"
        ))
    }

    /// Somebody with just this configuration.
    fn configured(&self, text: &str) -> Client {
        let folder = tempfile::tempdir_in(self.env.root()).unwrap();
        let config = folder.path().join("client.toml");
        fs::write(&config, text).unwrap();
        let env = self.env.with_store(&folder.path().join("store"));
        let env = env.with("QUICKBUILD_CONFIG", config.to_str().unwrap());
        Client {
            project: env.checkout(&self.project),
            env,
            _folder: folder,
        }
    }

    pub(crate) fn folder_client(&self) -> Client {
        self.client(self.cache.to_str().unwrap())
    }
}

/// Somebody who fetches.
pub(crate) struct Client {
    pub(crate) env: TestEnv,
    pub(crate) project: Project,
    _folder: tempfile::TempDir,
}

impl Client {
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.env.quickbuild(&self.project, arguments)
    }

    /// Everything came from the substituter, and Cargo agrees.
    #[track_caller]
    pub(crate) fn assert_all_fetched(&self) {
        let built = self.run(&["build"]).nothing_built();
        assert!(built.stderr.contains("outputs fetched"), "{built}");
        self.env.assert_fresh(&self.project, &["build"]);
        self.assert_sound();
    }

    /// The build goes on, and Cargo compiles; gives what was said.
    #[track_caller]
    pub(crate) fn assert_all_built(&self) -> String {
        let built = self.run(&["build"]).success();
        let summary = built.summary();
        assert_eq!(
            (summary.from_store, summary.built),
            (0, summary.units),
            "{built}"
        );
        self.env.assert_fresh(&self.project, &["build"]);
        self.assert_sound();
        built.stderr
    }

    #[track_caller]
    fn assert_sound(&self) {
        let _ = self.run(&["store", "verify"]).success();
        let left = fs::read_dir(self.env.store().join("tmp")).unwrap().count();
        assert_eq!(left, 0, "something is left in the store's `tmp`");
    }
}

/// The files of a folder of a substituter.
pub(crate) fn files(cache: &Path, folder: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(cache.join(folder)).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Changes a document as text.
pub(crate) fn edit_document(path: &Path, change: impl Fn(serde_json::Value) -> serde_json::Value) {
    let text = zstd::decode_all(fs::File::open(path).unwrap()).unwrap();
    let changed = change(serde_json::from_slice(&text).unwrap());
    let bytes = zstd::encode_all(changed.to_string().as_bytes(), 3).unwrap();
    fs::write(path, bytes).unwrap();
}
