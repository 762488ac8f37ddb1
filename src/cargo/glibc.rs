//! The GNU C library: which version this system has.
//!
//! A program asks for symbol versions (`GLIBC_2.34`), and the dynamic linker
//! refuses to start it where the library is older. So what was compiled on
//! another system may be of no use here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::output_of;

/// A version of the GNU C library, such as 2.36.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GlibcVersion {
    major: u32,
    minor: u32,
}

/// Text that is no version of the GNU C library.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a version of the GNU C library")]
pub struct ParseGlibcError {
    text: String,
}

impl GlibcVersion {
    /// The version that a symbol version (`GLIBC_2.34`, `GLIBC_2.2.5`) belongs
    /// to, its third number left out.
    pub fn of_symbol(symbol: &str) -> Option<Self> {
        let mut numbers = symbol.strip_prefix("GLIBC_")?.split('.');
        let mut number = || numbers.next()?.parse().ok();
        Some(Self {
            major: number()?,
            minor: number()?,
        })
    }

    /// Asks this system, with two processes at most; `None` where another C
    /// library is, or none that can be asked.
    pub fn of_host() -> Option<Self> {
        let ask = |program: &str, argument: &str| {
            let answer = output_of(Command::new(program).arg(argument)).ok()?;
            Self::of_answer(&answer)
        };
        ask("getconf", "GNU_LIBC_VERSION").or_else(|| ask("ldd", "--version"))
    }

    /// Reads `glibc 2.36` (`getconf`), or `ldd (Debian GLIBC 2.36-9) 2.36`.
    fn of_answer(answer: &str) -> Option<Self> {
        let line = answer.lines().next()?;
        let is_gnu = ["glibc", "GLIBC", "GNU libc"]
            .iter()
            .any(|name| line.contains(name));
        line.rsplit(' ').next().filter(|_| is_gnu)?.parse().ok()
    }

    /// Files that change when the library does, for whoever keeps the answer.
    pub fn witnesses() -> Vec<PathBuf> {
        let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
        let folders = [
            format!("/lib/{triple}"),
            format!("/usr/lib/{triple}"),
            "/lib64".to_owned(),
            "/usr/lib64".to_owned(),
            "/lib".to_owned(),
            "/usr/lib".to_owned(),
        ];
        let libraries = folders
            .iter()
            .map(|folder| Path::new(folder).join("libc.so.6"));
        libraries.chain(["/etc/os-release".into()]).collect()
    }
}

impl fmt::Display for GlibcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for GlibcVersion {
    type Err = ParseGlibcError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (major, minor) = text.split_once('.')?;
            let version = Self {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
            };
            // One spelling only: a manifest is compared with what is printed.
            (version.to_string() == text).then_some(version)
        };
        parse().ok_or_else(|| ParseGlibcError {
            text: text.to_owned(),
        })
    }
}

impl Serialize for GlibcVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GlibcVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> GlibcVersion {
        text.parse().unwrap()
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("2.34") > version("2.4"));
        assert!(version("3.0") > version("2.99"));
        assert_eq!(GlibcVersion::of_symbol("GLIBC_2.2.5"), Some(version("2.2")));
        assert_eq!(GlibcVersion::of_symbol("GLIBC_PRIVATE"), None);
        assert_eq!(GlibcVersion::of_symbol("GCC_3.0"), None);
        for junk in ["", "2", "2.", "2.2.5", "02.3", "2.+3", " 2.3"] {
            assert!(junk.parse::<GlibcVersion>().is_err(), "{junk}");
        }
    }

    #[test]
    fn answers_of_both_programs_are_read() {
        let read = GlibcVersion::of_answer;
        assert_eq!(read("glibc 2.36\n"), Some(version("2.36")));
        let debian = "ldd (Debian GLIBC 2.36-9+deb12u10) 2.36\nCopyright (C) 2022\n";
        assert_eq!(read(debian), Some(version("2.36")));
        let fedora = "ldd (GNU libc) 2.40\n";
        assert_eq!(read(fedora), Some(version("2.40")));
        assert_eq!(read("musl libc (x86_64)\nVersion 1.2.5\n"), None);
        assert_eq!(read(""), None);
    }
}
