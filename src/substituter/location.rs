//! Where a substituter is.

use std::fmt;
use std::path::{Path, PathBuf};

use super::web::Url;
use super::{Result, SubstituterError};

/// A folder, or the URL of one, or what is used like one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// What a web server has; the path ends with a slash.
    Web(Url),
    /// A bucket or a folder in one: `s3`, `gs` or `az`.
    Bucket(Url),
    /// A repository of a registry.
    Registry(Repository),
    /// A release of a GitHub repository.
    Release(ReleaseName),
}

/// `oci://host/repository`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The registry, with its port if it has one.
    pub host: String,
    /// The repository in it.
    pub name: String,
}

/// `github:owner/repository@tag`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseName {
    /// `owner/repository`.
    pub repository: String,
    /// The release's tag.
    pub tag: String,
}

impl Location {
    /// Reads a URL of one of the schemes, or a path, which may be relative to
    /// `base`. Credentials in a URL are refused: URLs are printed.
    pub fn parse(text: &str, base: &Path) -> Result<Self> {
        let refuse = |reason| SubstituterError::Location {
            text: without_credentials(text),
            reason,
        };
        if let Some(rest) = text.strip_prefix("github:") {
            return ReleaseName::parse(rest.trim_start_matches('/'))
                .map(Self::Release)
                .ok_or_else(|| refuse("write `github:owner/repository@tag`"));
        }
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
            "s3" | "gs" | "az" if url.host_str().is_some_and(|bucket| !bucket.is_empty()) => {
                Ok(Self::Bucket(url))
            }
            "oci" => Repository::parse(&url)
                .map(Self::Registry)
                .ok_or_else(|| refuse("write `oci://host/repository`, in small letters")),
            _ => Err(refuse(
                "it is neither `https`, `http`, `file`, `s3`, `gs`, `az`, `oci`, `github` nor a path",
            )),
        }
    }

    /// The place of one of its files, as text.
    pub fn join(&self, path: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(path).display().to_string(),
            Self::Web(url) => format!("{url}{path}"),
            other => format!("{other}/{path}"),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Web(url) | Self::Bucket(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::Registry(repository) => {
                write!(f, "oci://{}/{}", repository.host, repository.name)
            }
            Self::Release(release) => write!(f, "github:{}@{}", release.repository, release.tag),
        }
    }
}

impl Repository {
    /// The names that the distribution specification of OCI allows.
    fn parse(url: &Url) -> Option<Self> {
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let name = url.path().trim_matches('/');
        let is_part = |part: &str| {
            let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            part.starts_with(is_letter)
                && part.ends_with(is_letter)
                && part.chars().all(|c| is_letter(c) || "._-".contains(c))
        };
        let is_name = name.split('/').all(is_part);
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        is_name.then(|| Self {
            host,
            name: name.to_owned(),
        })
    }
}

impl ReleaseName {
    fn parse(text: &str) -> Option<Self> {
        let (repository, tag) = text.split_once('@')?;
        let is_part = |part: &str| {
            let is_letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !part.is_empty() && part != "." && part != ".." && part.chars().all(is_letter)
        };
        let (owner, name) = repository.split_once('/')?;
        (is_part(owner) && is_part(name) && is_part(tag)).then(|| Self {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        })
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
            ("s3://bucket", "s3://bucket", "s3://bucket/x/y"),
            ("az://box/a/", "az://box/a", "az://box/a/x/y"),
            (
                "oci://a.org:5000/b/c",
                "oci://a.org:5000/b/c",
                "oci://a.org:5000/b/c/x/y",
            ),
            ("github:o/r@v1", "github:o/r@v1", "github:o/r@v1/x/y"),
            ("github://o/r@v1", "github:o/r@v1", "github:o/r@v1/x/y"),
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
            "s3://",
            "s3://key:secret@bucket",
            "oci://a.org",
            "oci://a.org/Upper",
            "github:o/r",
            "github:o@v1",
            "github:o/r@v/1",
            "github:../r@v1",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
