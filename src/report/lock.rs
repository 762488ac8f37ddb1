//! What may be said of a lock file. Pure.

use std::fmt::Write as _;

use crate::analyse::trees::trees;
use crate::cargo::lock_graph::{LockError, LockGraph};
use crate::cargo::source::{CRATES_IO, is_crates_io};

/// The packages of a lock file that are from crates.io and need nothing from
/// anywhere else, as a lock file; none if there is no such package. Members of
/// the workspace, folders, Git repositories and other registries are left out,
/// and so is all that needs them.
pub fn public_lock(text: &[u8]) -> Result<Option<String>, LockError> {
    let mut lock = LockGraph::parse(text)?;
    for package in &mut lock.packages {
        // Without a source it is as good as a folder.
        let is_public = package.source.as_deref().is_some_and(is_crates_io);
        package.source = is_public.then(|| CRATES_IO.to_owned());
    }
    let mut public: Vec<usize> = trees(&lock).iter().map(|tree| tree.package).collect();
    if public.is_empty() {
        return Ok(None);
    }
    public.sort_unstable();
    Ok(Some(text_of(&lock, public.into_iter())))
}

/// A lock file of packages that are all from crates.io, without checksums.
pub fn lock_text(lock: &LockGraph) -> String {
    text_of(lock, 0..lock.packages.len())
}

fn text_of(lock: &LockGraph, positions: impl Iterator<Item = usize>) -> String {
    let mut text = String::from("version = 4\n");
    for package in positions.map(|position| &lock.packages[position]) {
        let (name, version) = (&package.name, &package.version);
        let _ = write!(
            text,
            "\n[[package]]\nname = {name:?}\nversion = {version:?}\nsource = {CRATES_IO:?}\n"
        );
        if package.dependencies.is_empty() {
            continue;
        }
        text.push_str("dependencies = [\n");
        for needed in &package.dependencies {
            let needed = &lock.packages[*needed];
            let _ = writeln!(text, " \"{} {}\",", needed.name, needed.version);
        }
        text.push_str("]\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_is_not_even_named() {
        let text = format!(
            "version = 4\n\
             [[package]]\nname = \"mine\"\nversion = \"0.1.0\"\ndependencies = [\"a 1.0.0\", \"b\"]\n\
             [[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"{CRATES_IO}\"\ndependencies = [\"c\"]\n\
             [[package]]\nname = \"a\"\nversion = \"2.0.0\"\nsource = \"{CRATES_IO}\"\ndependencies = [\"a 1.0.0\"]\n\
             [[package]]\nname = \"b\"\nversion = \"1.0.0\"\nsource = \"{CRATES_IO}\"\ndependencies = [\"hidden\"]\n\
             [[package]]\nname = \"c\"\nversion = \"1.0.0\"\nsource = \"{CRATES_IO}\"\n\
             [[package]]\nname = \"hidden\"\nversion = \"1.0.0\"\nsource = \"registry+https://inner.example.org/index\"\n"
        );
        let public = public_lock(text.as_bytes()).unwrap().unwrap();
        for word in ["mine", "hidden", "inner", "\"b\""] {
            assert!(!public.contains(word), "{word} in {public}");
        }
        let lock = LockGraph::parse(public.as_bytes()).unwrap();
        let all = LockGraph::parse(text.as_bytes()).unwrap();
        let hashes = |lock| -> Vec<_> { trees(lock).iter().map(|tree| tree.hash).collect() };
        assert_eq!(lock.packages.len(), 3);
        assert!(hashes(&lock).iter().all(|hash| hashes(&all).contains(hash)));
        assert_eq!(public_lock(b"version = 4\n").unwrap(), None);
    }
}
