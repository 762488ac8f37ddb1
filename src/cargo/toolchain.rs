//! Which compiler and which Cargo: `rustc -vV`, `cargo -V`, the sysroot; and
//! the C library that what they compile will find here.
//!
//! Asking takes several processes, so the answer is kept in a file with the stamps
//! of all that decides it: the programs found in `PATH`, the folders and
//! settings of rustup, every `rust-toolchain` file from here to the root, the
//! C library, and the compiler that was meant in the end.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::glibc::GlibcVersion;
use super::{CargoError, output_of};
use crate::digest::{Canonical, RecipeHash};
use crate::environment::Environment;
use crate::fs::{self, Stamp};

/// What identifies a toolchain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// `rustc -vV`, whole.
    pub rustc: String,
    /// `cargo -V`.
    pub cargo: String,
    /// `rustc --print sysroot`.
    pub sysroot: PathBuf,
    /// The GNU C library of this system, if it has that.
    pub glibc: Option<GlibcVersion>,
}

#[derive(Serialize, Deserialize)]
struct Cached {
    toolchain: Toolchain,
    compiler: Stamp,
}

impl Toolchain {
    /// Finds the toolchain that Cargo will use in `folder`.
    pub fn detect(
        environment: &Environment,
        folder: &Path,
        cache: &Path,
    ) -> Result<Self, CargoError> {
        let file = cache.join(format!("{}.json", key(environment, folder)));
        let cached = fs::read(&file)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Cached>(&bytes).ok());
        if let Some(cached) = cached
            && Stamp::of(&cached.toolchain.compiler()) == Some(cached.compiler)
        {
            return Ok(cached.toolchain);
        }
        let toolchain = Self::ask(environment, folder)?;
        if let Some(compiler) = Stamp::of(&toolchain.compiler()) {
            let cached = Cached {
                toolchain: toolchain.clone(),
                compiler,
            };
            let bytes = serde_json::to_vec(&cached).expect("strings and numbers serialise");
            // Only a shortcut: where it cannot be kept, the next run asks again.
            let _ = fs::create_dir_all(cache).and_then(|()| fs::write_atomic(&file, &bytes));
        }
        Ok(toolchain)
    }

    fn ask(environment: &Environment, folder: &Path) -> Result<Self, CargoError> {
        let rustc = environment.get("RUSTC").unwrap_or("rustc");
        let run = |program: &str, arguments: &[&str]| {
            output_of(Command::new(program).args(arguments).current_dir(folder))
        };
        // At once: each process takes longer to start than to answer.
        let ((version, sysroot), (cargo, glibc)) = rayon::join(
            || {
                rayon::join(
                    || run(rustc, &["-vV"]),
                    || run(rustc, &["--print", "sysroot"]),
                )
            },
            || (run(environment.cargo(), &["-V"]), GlibcVersion::of_host()),
        );
        Ok(Self {
            rustc: version?,
            cargo: cargo?.trim().to_owned(),
            sysroot: sysroot?.trim().into(),
            glibc,
        })
    }

    /// The real compiler, behind any rustup proxy.
    fn compiler(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    /// One line of `rustc -vV` by its name, such as `host` or `release`.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.rustc, name)
    }

    /// The host triple.
    pub fn host(&self) -> &str {
        self.field("host").unwrap_or("unknown")
    }
}

/// One line of what `rustc -vV` printed by its name.
pub fn field<'a>(version: &'a str, name: &str) -> Option<&'a str> {
    version.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        (key == name).then_some(value)
    })
}

/// The builder of a toolchain, by what `rustc -vV` printed: its release, or
/// `nightly`, and its host.
pub fn builder_name(rustc: &str) -> Option<String> {
    let release = field(rustc, "release")?;
    let release = if release.contains("nightly") {
        "nightly"
    } else {
        release
    };
    Some(format!("{release}-{}", field(rustc, "host")?))
}

fn key(environment: &Environment, folder: &Path) -> RecipeHash {
    let mut key = Canonical::new("quickbuild-toolchain-4");
    // Cargo's home has no part in it: its settings are asked for apart.
    for name in ["RUSTC", "CARGO", "RUSTUP_TOOLCHAIN", "RUSTUP_HOME"] {
        key.option(environment.get(name));
    }
    let rustup = environment.rustup_home();
    let mut files = vec![
        rustup.join("settings.toml"),
        rustup.join("toolchains"),
        rustup.join("update-hashes"),
    ];
    let programs = [
        environment.get("RUSTC").unwrap_or("rustc"),
        environment.cargo(),
    ];
    files.extend(
        programs
            .iter()
            .filter_map(|name| environment.find_program(name)),
    );
    files.extend(GlibcVersion::witnesses());
    for ancestor in folder.ancestors() {
        files.push(ancestor.join("rust-toolchain"));
        files.push(ancestor.join("rust-toolchain.toml"));
    }
    for file in files {
        if let Some(stamp) = Stamp::of(&file) {
            key.text(&file.to_string_lossy());
            key.number(stamp.mtime.0 as u64)
                .number(stamp.size)
                .number(stamp.inode);
        }
    }
    RecipeHash::finish(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let toolchain = Toolchain {
            rustc: "rustc 1.95.0 (x)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n".to_owned(),
            cargo: String::new(),
            sysroot: PathBuf::new(),
            glibc: None,
        };
        assert_eq!(toolchain.host(), "x86_64-unknown-linux-gnu");
        assert_eq!(toolchain.field("release"), None);
    }
}
