//! Where a package comes from, as Cargo.lock spells it, and how a manifest
//! asks for the same (Cargo book, "Package ID Specifications" and "Specifying
//! Dependencies").

use super::unit_graph::decode;

/// The registry that needs no name.
pub const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Whether a source, as Cargo.lock spells it, is crates.io.
pub fn is_crates_io(source: &str) -> bool {
    PackageSource::parse(source) == Some(PackageSource::CratesIo)
}

/// A source that is not a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackageSource {
    /// crates.io, in whatever way it is reached.
    CratesIo,
    /// Another registry, by the URL of its index as `registry-index` takes it.
    Registry {
        /// The URL.
        index: String,
    },
    /// A commit of a Git repository.
    Git {
        /// The repository.
        url: String,
        /// `branch`, `tag` or `rev` with its value, where the manifest had one.
        reference: Option<(&'static str, String)>,
        /// The commit.
        commit: String,
    },
}

impl PackageSource {
    /// Reads a source as recipes and lock files have it; `None` for folders and
    /// forms that are not known.
    pub fn parse(source: &str) -> Option<Self> {
        if source == CRATES_IO || source == "sparse+https://index.crates.io/" {
            return Some(Self::CratesIo);
        }
        if source.starts_with("sparse+") {
            let index = source.to_owned();
            return Some(Self::Registry { index });
        }
        if let Some(index) = source.strip_prefix("registry+") {
            let index = index.to_owned();
            return Some(Self::Registry { index });
        }
        let (url, commit) = source.strip_prefix("git+")?.split_once('#')?;
        let (url, query) = match url.split_once('?') {
            Some((url, query)) => (url, Some(query)),
            None => (url, None),
        };
        let reference = match query {
            None => None,
            Some(query) => {
                let (kind, value) = query.split_once('=')?;
                let kind = ["branch", "tag", "rev"].into_iter().find(|k| *k == kind)?;
                Some((kind, decode(value)))
            }
        };
        Some(Self::Git {
            url: url.to_owned(),
            reference,
            commit: commit.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_in_all_their_forms() {
        let parse = |text| PackageSource::parse(text);
        assert_eq!(parse(CRATES_IO), Some(PackageSource::CratesIo));
        let registry = |index: &str| {
            Some(PackageSource::Registry {
                index: index.to_owned(),
            })
        };
        assert_eq!(
            parse("sparse+https://example.org/i/"),
            registry("sparse+https://example.org/i/")
        );
        assert_eq!(
            parse("registry+https://example.org/i"),
            registry("https://example.org/i")
        );
        assert_eq!(
            parse("git+https://example.org/a?branch=x%2Fy#06b1"),
            Some(PackageSource::Git {
                url: "https://example.org/a".to_owned(),
                reference: Some(("branch", "x/y".to_owned())),
                commit: "06b1".to_owned(),
            })
        );
        assert_eq!(parse("git+https://example.org/a"), None);
        assert_eq!(parse("path+../a"), None);
    }
}
