//! `[builders."<name>"]`: which image a builder is pinned to, and its limits.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use toml_edit::{DocumentMut, Item, Table as EditedTable, value};

use super::{ConfigError, parse_age, parse_size};
use crate::digest::ContentHash;
use crate::fs;

/// Settings of one builder; what is absent has its built-in value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuilderSettings {
    /// The image.
    pub image: Option<ImagePin>,
    /// Bytes of memory that a task may use.
    pub memory: Option<u64>,
    /// Bytes that a task may write.
    pub disk: Option<u64>,
    /// Processes and threads that a task may have.
    pub processes: Option<u64>,
    /// How long a task may take.
    pub time: Option<Duration>,
}

/// An image by name and digest: `quickbuild-builder:1.95.0@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePin {
    /// Name and tag.
    pub name: String,
    /// `sha256:` and 64 hexadecimal digits: the image's id, or the digest that
    /// a registry has it under.
    pub digest: String,
}

/// Text that pins no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an image is pinned as `name:tag@sha256:…`")]
pub struct NotPin;

impl FromStr for ImagePin {
    type Err = NotPin;

    fn from_str(text: &str) -> Result<Self, NotPin> {
        let (name, digest) = text.split_once('@').ok_or(NotPin)?;
        let hash = digest.strip_prefix("sha256:").ok_or(NotPin)?;
        let is_hash = hash.parse::<ContentHash>().is_ok() && hash == hash.to_ascii_lowercase();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
        let is_pin = is_hash
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(is_name);
        is_pin
            .then(|| Self {
                name: name.to_owned(),
                digest: digest.to_owned(),
            })
            .ok_or(NotPin)
    }
}

impl fmt::Display for ImagePin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.digest)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Table {
    image: Option<String>,
    memory: Option<String>,
    disk: Option<String>,
    processes: Option<u64>,
    time: Option<String>,
}

impl BuilderSettings {
    /// Takes what a more specific file says.
    pub(super) fn merge(&mut self, table: Table, path: &Path) -> Result<(), ConfigError> {
        let refuse = |key: &'static str, value: &str| ConfigError::Builder {
            path: path.to_owned(),
            key,
            value: value.to_owned(),
        };
        if let Some(image) = table.image {
            let pin = image.parse().map_err(|NotPin| refuse("image", &image))?;
            self.image = Some(pin);
        }
        if let Some(memory) = table.memory {
            let bytes = parse_size(&memory).ok_or_else(|| refuse("memory", &memory))?;
            self.memory = Some(bytes);
        }
        if let Some(disk) = table.disk {
            let bytes = parse_size(&disk).ok_or_else(|| refuse("disk", &disk))?;
            self.disk = Some(bytes);
        }
        if let Some(processes) = table.processes {
            self.processes = Some(processes);
        }
        if let Some(time) = table.time {
            let seconds = parse_age(&time).ok_or_else(|| refuse("time", &time))?;
            self.time = Some(Duration::from_secs(seconds));
        }
        Ok(())
    }
}

/// Writes `builders."<name>".image` into a configuration file; all else in it,
/// comments included, stays as it is. The file is created when absent.
pub fn write_pin(file: &Path, name: &str, pin: &ImagePin) -> Result<(), ConfigError> {
    let bytes = fs::read_optional(file).map_err(ConfigError::Read)?;
    let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
    let edited = edit(&text, name, pin).map_err(|source| ConfigError::Edit {
        path: file.to_owned(),
        source: Box::new(source),
    })?;
    fs::write_atomic(file, edited.as_bytes()).map_err(ConfigError::Write)
}

fn edit(text: &str, name: &str, pin: &ImagePin) -> Result<String, toml_edit::TomlError> {
    let mut document: DocumentMut = text.parse()?;
    let implicit = || {
        let mut table = EditedTable::new();
        table.set_implicit(true);
        Item::Table(table)
    };
    let builders = document.entry("builders").or_insert_with(implicit);
    // Whoever edits has read the file before, so it is a table.
    if let Some(builders) = builders.as_table_like_mut() {
        let builder = builders.entry(name).or_insert_with(toml_edit::table);
        match builder.get_mut("image").and_then(Item::as_value_mut) {
            Some(image) => {
                // A comment behind the old value stays.
                let decor = image.decor().clone();
                *image = pin.to_string().into();
                *image.decor_mut() = decor;
            }
            None => builder["image"] = value(pin.to_string()),
        }
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn pin(name: &str) -> ImagePin {
        format!("{name}@sha256:{HASH}").parse().unwrap()
    }

    #[test]
    fn pins_are_read_and_printed() {
        let text = format!("registry:5000/a/b:1.95.0@sha256:{HASH}");
        assert_eq!(text.parse::<ImagePin>().unwrap().to_string(), text);
        for wrong in [
            "rust:1.95.0",
            "rust@sha256:12",
            &format!("@sha256:{HASH}"),
            &format!("rust@{HASH}"),
            &format!("-rust@sha256:{HASH}"),
            &format!("rust@sha256:{}", HASH.to_uppercase()),
        ] {
            assert_eq!(wrong.parse::<ImagePin>(), Err(NotPin), "{wrong}");
        }
    }

    #[test]
    fn a_pin_is_written_and_all_else_stays() {
        let text = "# ours\n[store] # here\nmax-size = \"5GB\"\n";
        let once = edit(text, "1.95.0-x", &pin("a:b")).unwrap();
        insta::assert_snapshot!(once, @r#"
        # ours
        [store] # here
        max-size = "5GB"

        [builders."1.95.0-x"]
        image = "a:b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        "#);
        let limited = once.replace("image = ", "memory = \"4GB\" # enough\nimage = ");
        let twice = edit(&limited, "1.95.0-x", &pin("c:d")).unwrap();
        assert_eq!(twice, limited.replace("a:b@", "c:d@"));
        let more = edit(&twice, "1.96.0-x", &pin("e:f")).unwrap();
        assert!(more.starts_with(&twice) && more.contains("[builders.\"1.96.0-x\"]"));
        assert!(edit("[store", "x", &pin("a:b")).is_err());
    }

    #[test]
    fn a_file_is_made_where_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("quickbuild.toml");
        write_pin(&file, "x", &pin("a:b")).unwrap();
        let text = fs::read_text(&file).unwrap();
        assert!(text.starts_with("[builders.x]\nimage = \"a:b@"), "{text}");
    }
}
