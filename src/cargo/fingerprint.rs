//! Cargo's fingerprints: the hash that decides what is Fresh, recomputed.
//!
//! A unit is Fresh if the file `<stem>` in its fingerprint folder holds the
//! hash that Cargo computes, and the times of its files are in order. The file
//! `<stem>.json` beside it has all that goes into the hash. Field order and
//! encoding are those of `impl Hash for Fingerprint` in
//! `src/cargo/core/compiler/fingerprint/mod.rs`, with the hasher of
//! `rustc-stable-hash` (Cargo 1.85 and later).
//!
//! Newer Cargos may add fields. So nobody takes this module's word for it: a
//! fingerprint counts only after [`Fingerprint::hash`] has been seen to give
//! the hash that Cargo wrote (see `harvest`), and an unknown field is an error.

use std::hash::{Hash, Hasher as _};
use std::path::{Path, PathBuf};

use rustc_stable_hash::StableSipHasher128;
use serde::{Deserialize, Serialize};

use crate::digest::hex;

/// The content of `<stem>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Hash of `rustc -vV`.
    pub rustc: u64,
    /// Enabled features, as a debug-printed list.
    pub features: String,
    /// Declared features, likewise.
    pub declared_features: String,
    /// Hash of the target: name, kind, relative source path, edition …
    pub target: u64,
    /// Hash of profile, mode, extra arguments, LTO and lints.
    pub profile: u64,
    /// Hash of the root source file's path: absolute for packages from
    /// elsewhere, relative to the workspace for those inside it.
    pub path: u64,
    /// Dependencies.
    pub deps: Vec<DepFingerprint>,
    /// What else decides freshness.
    pub local: Vec<LocalFingerprint>,
    /// RUSTFLAGS.
    pub rustflags: Vec<String>,
    /// Hash of settings such as the linker.
    pub config: u64,
    /// Hash of the target specification file, if there is one.
    pub compile_kind: u64,
}

/// An edge: the package id's hash, the extern name, whether it is public, and
/// the fingerprint hash of the dependency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepFingerprint(pub u64, pub String, pub bool, pub u64);

/// What is checked against the file system and the environment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LocalFingerprint {
    /// An opaque string: a package's version, or its newest file.
    Precalculated(String),
    /// The dep-info file whose listed files must not be newer than itself.
    CheckDepInfo(CheckDepInfo),
    /// Paths of `rerun-if-changed`, which must not be newer than the output.
    RerunIfChanged {
        /// What the build script printed, relative to the build directory.
        output: PathBuf,
        /// Relative to the package, or absolute.
        paths: Vec<PathBuf>,
    },
    /// A variable of `rerun-if-env-changed`.
    RerunIfEnvChanged {
        /// Its name.
        var: String,
        /// Its value when the script ran.
        val: Option<String>,
    },
}

/// Up to Cargo 1.99 `checksum` is a flag; later `fingerprint` names a method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckDepInfo {
    /// Relative to the build directory.
    pub dep_info: PathBuf,
    /// Whether file checksums decide instead of times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<bool>,
    /// `mtime` or `content`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<FingerprintMethod>,
}

/// Cargo's `build.fingerprint` setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FingerprintMethod {
    /// Times decide.
    #[serde(alias = "Mtime")]
    Mtime,
    /// Checksums decide.
    #[serde(alias = "Content")]
    Content,
}

impl Hash for CheckDepInfo {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.dep_info.hash(state);
        if let Some(checksum) = self.checksum {
            checksum.hash(state);
        }
        if let Some(method) = self.fingerprint {
            method.hash(state);
        }
    }
}

impl Fingerprint {
    /// Parses `<stem>.json`; `None` if it has another form than is known here.
    pub fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The hash that Cargo writes into `<stem>`.
    pub fn hash(&self) -> u64 {
        let mut hasher = StableSipHasher128::new();
        (
            self.rustc,
            &self.features,
            &self.declared_features,
            self.target,
            self.path,
            self.profile,
            &*self.local,
            self.config,
            self.compile_kind,
            &self.rustflags,
        )
            .hash(&mut hasher);
        hasher.write_usize(self.deps.len());
        for DepFingerprint(package, name, public, fingerprint) in &self.deps {
            package.hash(&mut hasher);
            name.hash(&mut hasher);
            public.hash(&mut hasher);
            hasher.write_u64(*fingerprint);
        }
        std::hash::Hasher::finish(&hasher)
    }

    /// The content of `<stem>.json`.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a fingerprint serialises")
    }
}

/// The content of `<stem>`: the hash's little-endian bytes in hexadecimal.
pub fn to_hex(hash: u64) -> String {
    hex(&hash.to_le_bytes())
}

/// Reads the content of `<stem>`; an empty file is a withdrawn fingerprint.
pub fn from_hex(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.len() != 16 {
        return None;
    }
    let mut bytes = [0; 8];
    for (byte, at) in bytes.iter_mut().zip((0..16).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(u64::from_le_bytes(bytes))
}

/// Cargo's hash of a source path (`util::hash_u64` of a `Path`).
pub fn path_hash(path: &Path) -> u64 {
    let mut hasher = StableSipHasher128::new();
    path.hash(&mut hasher);
    std::hash::Hasher::finish(&hasher)
}

/// Cargo's hash of a text (`util::hash_u64`), such as [`Fingerprint::rustc`] of
/// `rustc -vV`.
pub fn text_hash(text: &str) -> u64 {
    let mut hasher = StableSipHasher128::new();
    text.hash(&mut hasher);
    std::hash::Hasher::finish(&hasher)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hex_is_reversible(hash in any::<u64>()) {
            prop_assert_eq!(from_hex(to_hex(hash).as_bytes()), Some(hash));
        }
    }

    #[test]
    fn a_withdrawn_fingerprint_is_none() {
        assert_eq!(from_hex(b""), None);
        assert_eq!(from_hex("é234567890123456".as_bytes()), None);
    }

    #[test]
    fn unknown_fields_are_refused() {
        let json = br#"{"rustc":1,"features":"","declared_features":"","target":1,"profile":1,
            "path":1,"deps":[],"local":[],"rustflags":[],"config":1,"compile_kind":0}"#;
        assert!(Fingerprint::parse(json).is_some());
        let newer = String::from_utf8_lossy(json).replace("\"rustc\":1", "\"rustc\":1,\"new\":2");
        assert!(Fingerprint::parse(newer.as_bytes()).is_none());
    }
}
