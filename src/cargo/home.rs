//! Names in Cargo's home (`src/cargo/sources/registry/mod.rs`, Cargo 1.95).

use std::path::{Path, PathBuf};

/// The folders of crates.io since version 1.85, where no mirror stands for it.
pub const CRATES_IO: &str = "index.crates.io-1949cf8c6b5b557f";

/// The file that marks an unpacked package, or a Git checkout, as whole
/// (`PACKAGE_SOURCE_LOCK`).
pub const UNPACKED_MARK: &str = ".cargo-ok";

/// What is in that file (`LockMetadata`).
pub const UNPACKED: &str = "{\"v\":1}";

/// Where an index has a package (Cargo book, "Registry index", index files).
pub fn index_path(name: &str) -> PathBuf {
    let name = name.to_lowercase();
    let part = |range: std::ops::Range<usize>| name.get(range).unwrap_or_default();
    match name.len() {
        1 => Path::new("1").join(&name),
        2 => Path::new("2").join(&name),
        // Names of lock files may be anything.
        3 => Path::new("3").join(part(0..1)).join(&name),
        _ => Path::new(part(0..2)).join(part(2..4)).join(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_has_folders_by_the_name_s_beginning() {
        for (name, path) in [
            ("a", "1/a"),
            ("cc", "2/cc"),
            ("log", "3/l/log"),
            ("Serde", "se/rd/serde"),
            ("€", "3/€"),
            ("a€b", "a€b"),
        ] {
            assert_eq!(index_path(name), Path::new(path));
        }
    }
}
