//! Workspaces without their code: what Cargo resolves and plans by, and a file
//! with next to nothing in it for each target.

use std::path::Path;

/// Whether a target of these kinds (Cargo book, "cargo metadata") is a library's.
pub fn is_library(kinds: &[String]) -> bool {
    let mut kinds = kinds.iter();
    kinds.any(|kind| kind.ends_with("lib") || kind == "proc-macro")
}

/// A source that compiles to nothing.
pub fn source(is_library: bool) -> &'static [u8] {
    if is_library { b"" } else { b"fn main() {}\n" }
}

/// The folder that all of them are in.
pub fn common_ancestor<'a>(first: &'a Path, others: impl Iterator<Item = &'a Path>) -> &'a Path {
    others.fold(first, |common, other| {
        let mut ancestors = common.ancestors();
        ancestors
            .find(|ancestor| other.starts_with(ancestor))
            .unwrap_or(Path::new("/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_beside_the_workspace_widen_it() {
        fn common(others: &[&'static str]) -> &'static Path {
            common_ancestor(
                Path::new("/a/b/c"),
                others.iter().map(|folder| Path::new(*folder)),
            )
        }
        assert_eq!(common(&[]), Path::new("/a/b/c"));
        assert_eq!(common(&["/a/b/c/d", "/a/b/x"]), Path::new("/a/b"));
        assert_eq!(common(&["/x"]), Path::new("/"));
    }
}
