//! Where a substituter is.

use std::fmt;
use std::path::{Path, PathBuf};

use super::web::Url;
use super::{Result, SubstituterError};

/// A folder, or the URL of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// What a web server has; the path ends with a slash.
    Web(Url),
}

impl Location {
    /// Reads `https://…`, `http://…`, `file://…` or a path, which may be
    /// relative to `base`. Credentials in a URL are refused: URLs are printed.
    pub fn parse(text: &str, base: &Path) -> Result<Self> {
        let refuse = |reason| SubstituterError::Location {
            text: without_credentials(text),
            reason,
        };
        let Some((scheme, _)) = text.split_once("://") else {
            if text.is_empty() {
                return Err(refuse("it is empty"));
            }
            return Ok(Self::Folder(base.join(text)));
        };
        let mut url = Url::parse(text).map_err(|_syntax| refuse("it is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse(
                "credentials do not belong into a URL; use `token-variable` or netrc",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("it has a query or a fragment"));
        }
        match scheme {
            "file" => match url.to_file_path() {
                Ok(path) => Ok(Self::Folder(path)),
                Err(()) => Err(refuse("it is not a path of this machine")),
            },
            "http" | "https" => {
                if !url.path().ends_with('/') {
                    let path = format!("{}/", url.path());
                    url.set_path(&path);
                }
                Ok(Self::Web(url))
            }
            _ => Err(refuse("it is neither `https`, `http`, `file` nor a path")),
        }
    }

    /// The place of one of its files, as text.
    pub fn join(&self, path: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(path).display().to_string(),
            Self::Web(url) => format!("{url}{path}"),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Web(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

/// The text without what stands before an `@` behind the scheme.
fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let host = rest.split('/').next().unwrap_or_default();
    match host.rsplit_once('@') {
        Some((credentials, _)) => format!("{scheme}://…{}", &rest[credentials.len()..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location> {
        Location::parse(text, Path::new("/base"))
    }

    #[test]
    fn places_are_read_and_printed() {
        for (text, printed, file) in [
            ("https://a.org", "https://a.org", "https://a.org/x/y"),
            ("http://a.org:80/b/", "http://a.org/b", "http://a.org/b/x/y"),
            ("file:///srv/a%20b", "/srv/a b", "/srv/a b/x/y"),
            ("near/here", "/base/near/here", "/base/near/here/x/y"),
            ("/abs", "/abs", "/abs/x/y"),
        ] {
            let location = parse(text).unwrap();
            assert_eq!(location.to_string(), printed);
            assert_eq!(location.join("x/y"), file);
        }
    }

    #[test]
    fn other_texts_are_refused_without_repeating_a_secret() {
        for text in [
            "",
            "ftp://a.org",
            "https://",
            "https://a.org/?q",
            "https://a.org/#f",
            "file://host/a",
            "https://user:secret@a.org/b",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
