//! What a compilation read.
//!
//! [`RustcDepInfo`] is the `.d` file that rustc writes, with its
//! `# env-dep:` comments; [`CargoDepInfo`] is what Cargo makes of it for its
//! fingerprint folder, `dep-<stem>`
//! (`src/cargo/core/compiler/fingerprint/dep_info.rs`, version 1).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// rustc's dep-info.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RustcDepInfo {
    /// Files read, as rustc names them: relative to its working directory or
    /// absolute.
    pub files: Vec<String>,
    /// Variables read by `env!` and `option_env!`, with their values.
    pub env: Vec<(String, Option<String>)>,
}

impl RustcDepInfo {
    /// Parses a `.d` file.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parsed = Self::default();
        let mut found = false;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# env-dep:") {
                let (name, value) = match rest.split_once('=') {
                    Some((name, value)) => (name, Some(unescape(value)?)),
                    None => (rest, None),
                };
                parsed.env.push((unescape(name)?, value));
            } else if let (false, Some(at)) = (found, line.find(": ")) {
                found = true;
                parsed.files = split_files(&line[at + 2..]);
            } else if !found && line.ends_with(':') {
                found = true; // an output without dependencies
            }
        }
        found.then_some(parsed)
    }

    /// Writes a `.d` file for one output.
    pub fn render(&self, output: &str) -> String {
        let escaped: Vec<String> = self.files.iter().map(|f| f.replace(' ', "\\ ")).collect();
        let mut text = format!("{}: {}\n", output.replace(' ', "\\ "), escaped.join(" "));
        for file in &escaped {
            text.push_str(&format!("\n{file}:\n"));
        }
        text.push('\n');
        for (name, value) in &self.env {
            match value {
                Some(value) => {
                    text.push_str(&format!("# env-dep:{}={}\n", escape(name), escape(value)));
                }
                None => text.push_str(&format!("# env-dep:{}\n", escape(name))),
            }
        }
        text
    }
}

/// Splits at spaces that no backslash precedes.
fn split_files(text: &str) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    let mut joined = false;
    for word in text.split_whitespace() {
        let (word, open) = match word.strip_suffix('\\') {
            Some(word) => (word, true),
            None => (word, false),
        };
        match files.last_mut() {
            Some(last) if joined => {
                last.push(' ');
                last.push_str(word);
            }
            _ => files.push(word.to_owned()),
        }
        joined = open;
    }
    files
}

fn unescape(text: &str) -> Option<String> {
    let mut unescaped = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => unescaped.push(match characters.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            }),
            other => unescaped.push(other),
        }
    }
    Some(unescaped)
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r")
}

/// What a path in Cargo's dep-info is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// The package's folder.
    Package,
    /// The build directory; an absolute path stands for itself.
    BuildDir,
}

/// Cargo's dep-info.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CargoDepInfo {
    /// Files whose change makes the unit stale.
    pub files: Vec<(Base, PathBuf)>,
    /// Variables whose change makes the unit stale.
    pub env: Vec<(String, Option<String>)>,
}

/// "One file of an impossible kind": what older Cargos fail at.
const MARKER: [u8; 5] = [1, 0, 0, 0, 0xff];
const VERSION: u8 = 1;

impl CargoDepInfo {
    /// Parses a `dep-<stem>` file. `None` for other versions, for damage, and
    /// for files with checksums (`-Z checksum-freshness`).
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes.strip_prefix(&MARKER)?);
        if reader.byte()? != VERSION {
            return None;
        }
        let mut parsed = Self::default();
        for _ in 0..reader.number()? {
            let base = match reader.byte()? {
                0 => Base::Package,
                1 => Base::BuildDir,
                _ => return None,
            };
            let path = reader.text()?;
            if reader.byte()? != 0 {
                return None;
            }
            parsed.files.push((base, path.into()));
        }
        for _ in 0..reader.number()? {
            let name = reader.text()?;
            let value = match reader.byte()? {
                0 => None,
                1 => Some(reader.text()?),
                _ => return None,
            };
            parsed.env.push((name, value));
        }
        reader.0.is_empty().then_some(parsed)
    }

    /// The bytes of a `dep-<stem>` file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MARKER.to_vec();
        bytes.push(VERSION);
        let text = |bytes: &mut Vec<u8>, text: &[u8]| {
            bytes.extend((text.len() as u32).to_le_bytes());
            bytes.extend(text);
        };
        bytes.extend((self.files.len() as u32).to_le_bytes());
        for (base, path) in &self.files {
            bytes.push(match base {
                Base::Package => 0,
                Base::BuildDir => 1,
            });
            text(&mut bytes, path.as_os_str().as_encoded_bytes());
            bytes.push(0);
        }
        bytes.extend((self.env.len() as u32).to_le_bytes());
        for (name, value) in &self.env {
            text(&mut bytes, name.as_bytes());
            match value {
                None => bytes.push(0),
                Some(value) => {
                    bytes.push(1);
                    text(&mut bytes, value.as_bytes());
                }
            }
        }
        bytes
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<usize> {
        let bytes: [u8; 4] = self.take(4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes) as usize)
    }

    fn text(&mut self) -> Option<String> {
        let count = self.number()?;
        String::from_utf8(self.take(count)?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_by_rustc_is_read() {
        let text = "/t/deps/liba-1.rmeta: src/lib.rs src/a\\ b.rs /t/out/x.rs\n\n\
            src/lib.rs:\nsrc/a\\ b.rs:\n/t/out/x.rs:\n\n# env-dep:OUT_DIR=/t/out\n# env-dep:NONE\n";
        let info = RustcDepInfo::parse(text).unwrap();
        assert_eq!(info.files, ["src/lib.rs", "src/a b.rs", "/t/out/x.rs"]);
        assert_eq!(
            info.env,
            [
                ("OUT_DIR".to_owned(), Some("/t/out".to_owned())),
                ("NONE".to_owned(), None)
            ]
        );
    }

    fn env() -> impl Strategy<Value = Vec<(String, Option<String>)>> {
        proptest::collection::vec(
            ("[A-Z]{1,4}", proptest::option::of("[a-z=\\\\\n]{0,6}")),
            0..4,
        )
    }

    proptest! {
        #[test]
        fn rustc_form_round_trips(files in proptest::collection::vec("[a-z/]{1,6}( [a-z]{1,3})?", 1..5), env in env()) {
            let info = RustcDepInfo { files, env };
            prop_assert_eq!(RustcDepInfo::parse(&info.render("out")), Some(info));
        }

        #[test]
        fn cargo_form_round_trips(files in proptest::collection::vec(("[a-z/]{0,8}", any::<bool>()), 0..5), env in env()) {
            let files = files.into_iter()
                .map(|(path, package)| (if package { Base::Package } else { Base::BuildDir }, path.into()))
                .collect();
            let info = CargoDepInfo { files, env };
            prop_assert_eq!(CargoDepInfo::parse(&info.to_bytes()), Some(info));
        }

        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut marked = MARKER.to_vec();
            marked.push(VERSION);
            marked.extend(&bytes);
            let _ = CargoDepInfo::parse(&marked);
            let _ = CargoDepInfo::parse(&bytes);
            let _ = RustcDepInfo::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
