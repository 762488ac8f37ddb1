//! The unit graph: Cargo's compile steps and their edges.
//!
//! Format: `cargo build --unit-graph`, version 1 (Cargo book, "Unstable
//! features"; `src/cargo/core/compiler/unit_graph.rs`). It is behind
//! `-Z unstable-options`, which `RUSTC_BOOTSTRAP=1` opens on stable.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A whole graph.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnitGraph {
    /// Format version; 1 is understood.
    pub version: u32,
    /// All units; edges are indices into this list.
    pub units: Vec<Unit>,
    /// The units that were asked for.
    pub roots: Vec<usize>,
}

/// One compile step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unit {
    /// The package, as a package id specification (Cargo book).
    pub pkg_id: String,
    /// What is compiled.
    pub target: Target,
    /// The resolved profile: every field, known here or not.
    pub profile: BTreeMap<String, serde_json::Value>,
    /// Target triple; `None` for the host.
    pub platform: Option<String>,
    /// How it is compiled.
    pub mode: Mode,
    /// Enabled features, sorted.
    pub features: Vec<String>,
    /// Whether it belongs to the standard library (`-Z build-std`).
    #[serde(default)]
    pub is_std: bool,
    /// What it needs.
    pub dependencies: Vec<Dependency>,
}

/// A library, binary, test … of a package.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// `lib`, `proc-macro`, `bin`, `custom-build`, `test`, …
    pub kind: Vec<String>,
    /// `lib`, `rlib`, `cdylib`, `bin`, …
    pub crate_types: Vec<String>,
    /// The target's name; crate names replace `-` by `_`.
    pub name: String,
    /// The root source file.
    pub src_path: PathBuf,
    /// The edition of the language.
    pub edition: String,
}

/// Cargo's `CompileMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Compiled and linked.
    Build,
    /// Checked: metadata only.
    Check,
    /// Compiled with `--test`.
    Test,
    /// Documented.
    Doc,
    /// Documentation tests: nothing is compiled by Cargo.
    Doctest,
    /// Examples scraped for documentation.
    Docscrape,
    /// A build script's run.
    RunCustomBuild,
    /// Something newer than this program.
    #[serde(other)]
    Unknown,
}

/// An edge of the graph.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dependency {
    /// Index of the unit needed.
    pub index: usize,
    /// The name under which the compiler sees it.
    pub extern_crate_name: String,
    /// Whether it is a public dependency (RFC 3516).
    #[serde(default)]
    pub public: bool,
    /// Whether it stays out of the extern prelude.
    #[serde(default)]
    pub noprelude: bool,
}

/// Where a package comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder; members and path dependencies.
    Path(PathBuf),
    /// A registry or a Git repository: its content never changes.
    Immutable(String),
}

/// A package as its id specification names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageId {
    /// Package name.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Origin.
    pub source: Source,
}

impl PackageId {
    /// Parses `kind+url#name@version`, or `kind+url#version` where the URL's
    /// last segment is the name.
    pub fn parse(spec: &str) -> Option<Self> {
        let (url, fragment) = spec.rsplit_once('#')?;
        let (name, version) = match fragment.split_once('@') {
            Some((name, version)) => (name.to_owned(), version),
            None => {
                let path = url.split('?').next().unwrap_or(url);
                let last = path.trim_end_matches('/').rsplit('/').next()?;
                (decode(last.strip_suffix(".git").unwrap_or(last)), fragment)
            }
        };
        let source = match url.strip_prefix("path+file://") {
            Some(path) => Source::Path(PathBuf::from(decode(path))),
            None => Source::Immutable(url.to_owned()),
        };
        Some(Self {
            name,
            version: version.to_owned(),
            source,
        })
    }

    /// Whether the source is a folder whose content may change.
    pub fn is_path(&self) -> bool {
        matches!(self.source, Source::Path(_))
    }
}

/// Undoes percent-encoding; a URL of a path encodes spaces and the like.
pub(super) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = |at: usize| (*bytes.get(at)? as char).to_digit(16);
        if bytes[index] == b'%'
            && let (Some(high), Some(low)) = (hex(index + 1), hex(index + 2))
        {
            decoded.push((high * 16 + low) as u8);
            index += 3;
        } else {
            decoded.push(bytes[index]);
            index += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

impl Unit {
    /// Whether the target is of this kind.
    pub fn is_kind(&self, kind: &str) -> bool {
        self.target.kind.iter().any(|k| k == kind)
    }

    /// Whether it is a library that others may depend on.
    pub fn is_library(&self) -> bool {
        !["bin", "test", "bench", "example", "custom-build"]
            .iter()
            .any(|kind| self.is_kind(kind))
    }

    /// The crate name given to the compiler.
    pub fn crate_name(&self) -> String {
        self.target.name.replace('-', "_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_ids_are_read_in_all_their_forms() {
        let id = |spec| PackageId::parse(spec).unwrap();
        let serde = id("registry+https://github.com/rust-lang/crates.io-index#serde@1.0.228");
        assert_eq!(
            (serde.name.as_str(), serde.version.as_str()),
            ("serde", "1.0.228")
        );
        assert!(!serde.is_path());

        let member = id("path+file:///home/a%20b/bat#0.26.1");
        assert_eq!(member.name, "bat");
        assert_eq!(member.source, Source::Path("/home/a b/bat".into()));

        let git = id("git+https://example.org/x/toml.git?tag=v1#0.9.0");
        assert_eq!(git.name, "toml");
        assert!(PackageId::parse("nonsense").is_none());
    }

    #[test]
    fn an_unknown_mode_is_not_an_error() {
        let mode: Mode = serde_json::from_str("\"teleport\"").unwrap();
        assert_eq!(mode, Mode::Unknown);
    }
}
