//! What a path means. A path is taken apart into identifiers and put together
//! again, so none leads anywhere else.

use crate::digest::{ContentHash, RecipeHash};
use crate::substituter::{INVENTORY, Question, document};

/// A kind of path, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Route {
    /// `quickbuild-cache.json`
    Info,
    /// A document.
    Document,
    /// An archive.
    Archive,
    /// The call.
    Lookup,
    /// `healthz` and `readyz`
    Health,
    /// `metrics`
    Metrics,
    /// What does not exist.
    Other,
}

impl Route {
    /// Its name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Document => "document",
            Self::Archive => "archive",
            Self::Lookup => "lookup",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Other => "other",
        }
    }
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// What the substituter says of itself.
    Info,
    /// Which packages there are.
    Inventory,
    /// A document about a recipe.
    Document(Question, RecipeHash),
    /// An archive.
    Archive(ContentHash),
    /// The call.
    Lookup,
    /// Whether the server lives.
    Healthy,
    /// Whether it should be asked.
    Ready,
    /// What was counted.
    Metrics,
}

impl Target {
    /// Reads a path, which begins with a slash.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        match path {
            document::INFO => return Some(Self::Info),
            INVENTORY => return Some(Self::Inventory),
            document::CALL => return Some(Self::Lookup),
            "healthz" => return Some(Self::Healthy),
            "readyz" => return Some(Self::Ready),
            "metrics" => return Some(Self::Metrics),
            _ => {}
        }
        let (folder, name) = path.split_once('/')?;
        let question = match folder {
            "recipes" => Question::Recipes,
            "closures" => Question::Closures,
            "archives" => {
                let name = name.strip_suffix(".tar.zst")?;
                let sha256 = name.parse().ok()?;
                // One spelling each.
                let has_capitals = name.bytes().any(|byte| byte.is_ascii_uppercase());
                return (!has_capitals).then_some(Self::Archive(sha256));
            }
            _ => return None,
        };
        let recipe = name.strip_suffix(".json.zst")?.parse().ok()?;
        Some(Self::Document(question, recipe))
    }

    pub(super) fn route(self) -> Route {
        match self {
            Self::Info => Route::Info,
            Self::Inventory | Self::Document(..) => Route::Document,
            Self::Archive(_) => Route::Archive,
            Self::Lookup => Route::Lookup,
            Self::Healthy | Self::Ready => Route::Health,
            Self::Metrics => Route::Metrics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Canonical;
    use proptest::prelude::*;

    #[test]
    fn paths_are_read_strictly() {
        let recipe = RecipeHash::finish(Canonical::new("sample"));
        let sha256 = ContentHash::of(b"sample");
        let parse = |path: String| Target::parse(&path);
        let document = |question| Some(Target::Document(question, recipe));
        assert_eq!(
            parse(format!("/recipes/{recipe}.json.zst")),
            document(Question::Recipes)
        );
        assert_eq!(
            parse(format!("/closures/{recipe}.json.zst")),
            document(Question::Closures)
        );
        assert_eq!(
            parse(format!("/archives/{sha256}.tar.zst")),
            Some(Target::Archive(sha256))
        );
        assert_eq!(parse("/v1/lookup".to_owned()), Some(Target::Lookup));
        for path in [
            String::new(),
            "/".to_owned(),
            "quickbuild-cache.json".to_owned(),
            "/.lock".to_owned(),
            "//quickbuild-cache.json".to_owned(),
            "/../quickbuild-cache.json".to_owned(),
            format!("/recipes/{recipe}.json"),
            format!("/recipes/../recipes/{recipe}.json.zst"),
            format!("/recipes/%2e%2e/{recipe}.json.zst"),
            format!("/archives/{}.tar.zst", sha256.to_string().to_uppercase()),
            "/archives/../../etc/passwd".to_owned(),
            "/archives/.tar.zst".to_owned(),
        ] {
            assert_eq!(Target::parse(&path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_below_the_folder(path in "/(recipes|closures|archives)/[a-z0-9./%]{0,80}") {
            if let Some(Target::Document(question, recipe)) = Target::parse(&path) {
                prop_assert_eq!(format!("/{}", question.path(recipe)), path);
            }
        }
    }
}
