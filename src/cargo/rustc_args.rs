//! The compiler's command line, as Cargo writes it
//! (`src/cargo/core/compiler/mod.rs`, `build_base_args` and `build_deps_args`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What identifies a compilation among the units of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RustcArgs {
    /// `--crate-name`.
    pub crate_name: String,
    /// `--crate-type`, all of them.
    pub crate_types: Vec<String>,
    /// The root source file as given.
    pub source: PathBuf,
    /// `--out-dir`.
    pub out_dir: PathBuf,
    /// `-C extra-filename`, with its dash; empty if there is none.
    pub extra_filename: String,
    /// `-C metadata`.
    pub metadata: String,
    /// `--emit` kinds, sorted.
    pub emit: Vec<String>,
    /// `--cfg feature="…"`, sorted.
    pub features: Vec<String>,
    /// `--test`.
    pub test: bool,
    /// `--target`.
    pub target: Option<String>,
    /// `--extern name=path`.
    pub externs: Vec<(String, PathBuf)>,
    /// Other `-C` options by name: `opt-level`, `debuginfo`, `panic`, …
    pub codegen: BTreeMap<String, String>,
}

impl RustcArgs {
    /// Reads the arguments after the compiler's own path. `None` if this is
    /// not a compilation by Cargo, such as a build script's probe.
    pub fn parse(arguments: &[String]) -> Option<Self> {
        let mut parsed = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            let mut value = || value.clone().or_else(|| arguments.next().cloned());
            match name {
                "--crate-name" => parsed.crate_name = value()?,
                "--crate-type" => parsed.crate_types.push(value()?),
                "--out-dir" => parsed.out_dir = value()?.into(),
                "--target" => parsed.target = Some(value()?),
                "--test" => parsed.test = true,
                "--emit" => parsed.emit = value()?.split(',').map(str::to_owned).collect(),
                "--extern" => parsed.add_extern(&value()?),
                "--cfg" => parsed.add_cfg(&value()?),
                "-C" => parsed.add_codegen(&value()?),
                "--edition"
                | "--error-format"
                | "--json"
                | "--cap-lints"
                | "--check-cfg"
                | "--diagnostic-width"
                | "-L"
                | "-l"
                | "-Z"
                | "-A"
                | "-W"
                | "-D"
                | "-F"
                | "--allow"
                | "--warn"
                | "--deny"
                | "--forbid"
                | "--remap-path-prefix"
                | "--sysroot"
                | "--force-warn"
                | "--color"
                | "-o"
                | "--print" => {
                    value()?;
                }
                _ if argument.starts_with("-C") => parsed.add_codegen(&argument[2..]),
                _ if argument.starts_with('-') => {}
                _ => parsed.source = argument.into(),
            }
        }
        parsed.emit.sort();
        parsed.features.sort();
        let by_cargo = !parsed.crate_name.is_empty()
            && parsed.crate_name != "___"
            && !parsed.metadata.is_empty()
            && !parsed.out_dir.as_os_str().is_empty();
        by_cargo.then_some(parsed)
    }

    fn add_extern(&mut self, value: &str) {
        if let Some((name, path)) = value.split_once('=') {
            let name = name.rsplit(':').next().unwrap_or(name);
            self.externs.push((name.to_owned(), path.into()));
        }
    }

    fn add_cfg(&mut self, value: &str) {
        let feature = value
            .strip_prefix("feature=\"")
            .and_then(|rest| rest.strip_suffix('"'));
        self.features.extend(feature.map(str::to_owned));
    }

    fn add_codegen(&mut self, value: &str) {
        let (name, value) = value.split_once('=').unwrap_or((value, ""));
        match name {
            "extra-filename" => self.extra_filename = value.to_owned(),
            "metadata" => self.metadata = value.to_owned(),
            _ => {
                self.codegen.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Whether the compiler is asked for something to run or link.
    pub fn emits_link(&self) -> bool {
        self.emit.iter().any(|e| e == "link")
    }

    /// Whether the compiler is asked for metadata.
    pub fn emits_metadata(&self) -> bool {
        self.emit.iter().any(|e| e == "metadata")
    }

    /// The source file's absolute path.
    pub fn absolute_source(&self, cwd: &Path) -> PathBuf {
        cwd.join(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_by_cargo_is_read() {
        let line = "--crate-name serde --edition=2021 /r/serde/src/lib.rs --error-format=json \
            --json=diagnostic-rendered-ansi,artifacts --crate-type lib --emit=dep-info,metadata,link \
            -C embed-bitcode=no -C debuginfo=2 --cfg feature=\"std\" --cfg feature=\"default\" \
            --check-cfg cfg(docsrs,test) -C metadata=ab -C extra-filename=-cd --out-dir /t/deps \
            -L dependency=/t/deps --extern serde_core=/t/deps/libserde_core-1.rmeta --cap-lints allow";
        let line: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let args = RustcArgs::parse(&line).unwrap();
        assert_eq!(args.crate_name, "serde");
        assert_eq!(args.source, Path::new("/r/serde/src/lib.rs"));
        assert_eq!(args.features, ["default", "std"]);
        assert_eq!(args.extra_filename, "-cd");
        assert_eq!(args.codegen["debuginfo"], "2");
        assert_eq!(args.externs.len(), 1);
        assert!(args.emits_link() && args.emits_metadata() && !args.test);
    }

    #[test]
    fn probes_are_not_compilations() {
        let probe = ["-vV".to_owned()];
        assert_eq!(RustcArgs::parse(&probe), None);
        let line = "- --crate-name ___ --print=file-names -C metadata=x --out-dir y";
        let line: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        assert_eq!(RustcArgs::parse(&line), None);
    }
}
