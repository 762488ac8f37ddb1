//! The back end for registries of containers, by the distribution specification
//! of OCI (1.1), through the HTTP client of `web`.
//!
//! ```text
//! manifests/<tag>      a document: an artefact that has the document as its first
//!                      layer and the archives it names as the others
//! blobs/sha256:<…>     a document, or an archive under the digest it has anyway
//! ```
//!
//! The tag is the document's path with `-` for `/`. A document of moderate size
//! lies in its manifest as well, so that one request gets it.

mod access;
mod manifest;
mod write;

use std::io::Read;
use std::time::Instant;

use super::backend::{Backend, Held, Version, Writer, flat};
use super::document::INFO;
use super::location::Repository;
use super::web::{Answer, Call, Method, Url, Web};
use super::{Result, SubstituterError};
use crate::config::SubstituterSettings;
use crate::digest::ContentHash;
use crate::environment::Environment;
use crate::workers::Workers;
use access::Access;
use manifest::Manifest;

/// Bytes that a manifest may have.
const MAX_MANIFEST: u64 = 4 << 20;

/// A repository of a registry.
pub(super) struct Registry {
    /// `…/v2/<repository>/`
    base: Url,
    web: Web,
    access: Access,
    workers: Workers,
}

impl Registry {
    pub(super) fn new(
        repository: Repository,
        settings: &SubstituterSettings,
        environment: &Environment,
    ) -> Result<Self> {
        let Repository { host, name } = repository;
        let url = |scheme: &str| Url::parse(&format!("{scheme}://{host}/v2/{name}/"));
        let base = url("https").map_err(|_invalid| SubstituterError::Location {
            text: host.clone(),
            reason: "it is no host",
        })?;
        // Nobody but this machine itself is asked without TLS.
        let base = if super::web::is_loopback(&base) {
            url("http").unwrap_or(base)
        } else {
            base
        };
        Ok(Self {
            web: Web::with(base.clone(), None, settings, environment)?,
            access: Access::new(super::credentials::registry(&host, settings, environment)),
            workers: Workers::new(false),
            base,
        })
    }

    fn url(&self, path: &str) -> Result<Url> {
        self.base
            .join(path)
            .map_err(|_invalid| SubstituterError::Location {
                text: format!("{}{path}", self.base),
                reason: "it is not a URL",
            })
    }

    fn manifest_url(&self, path: &str) -> Result<Url> {
        self.url(&format!("manifests/{}", flat(path)))
    }

    fn blob_url(&self, digest: &str) -> Result<Url> {
        // `join` would take the digest's scheme for one of a URL.
        self.url(&format!("./blobs/{digest}"))
    }

    /// Makes a request, asking to be let in where that is needed.
    fn send(&self, call: Call<'_>) -> Result<Answer> {
        self.access.send(&self.web, call)
    }

    /// A document as it is now, unless there is none.
    fn get_one(&self, path: &str, limit: u64) -> Result<Option<Held>> {
        let call = Call::new(Method::GET, self.manifest_url(path)?, MAX_MANIFEST);
        let answer = self.send(call.header("accept", manifest::KIND.to_owned()))?;
        match answer.status {
            404 => return Ok(None),
            403 if path != INFO => return Ok(None),
            200 => {}
            _ => return Err(answer.error()),
        }
        let malformed = |reason: &str| SubstituterError::Malformed {
            url: answer.url.to_string(),
            reason: reason.to_owned(),
        };
        let manifest = Manifest::parse(&answer.bytes).map_err(|reason| malformed(&reason))?;
        let document = manifest.document();
        if document.size > limit {
            let url = answer.url.to_string();
            return Err(SubstituterError::TooLarge { url, limit });
        }
        let bytes = match document.data() {
            Some(data) => data,
            None => {
                let call = Call::new(Method::GET, self.blob_url(&document.digest)?, limit);
                let answer = self.send(call)?;
                if answer.status != 200 {
                    return Err(answer.error());
                }
                answer.bytes
            }
        };
        if manifest::digest(&bytes) != document.digest {
            return Err(malformed("its document has another digest"));
        }
        Ok(Some(Held {
            bytes,
            version: Version::of(manifest::digest(&answer.bytes)),
            modified: manifest.created(),
        }))
    }
}

impl Backend for Registry {
    fn get(&self, paths: &[String], limit: u64) -> Result<Vec<Option<Vec<u8>>>> {
        self.workers.each(paths, |path| {
            let held = self.get_one(path, limit)?;
            Ok(held.map(|held| held.bytes))
        })
    }

    fn open(&self, path: &str, size: u64, until: Instant) -> Result<Box<dyn Read + Send>> {
        let url = self.blob_url(&archive_digest(path)?)?;
        // What is asked for in the background cannot ask to be let in.
        if !self.access.is_known() {
            let call = Call::new(Method::HEAD, self.manifest_url(INFO)?, 0);
            self.send(call.header("accept", manifest::KIND.to_owned()))?;
        }
        let shown = self.access.shown();
        self.web.download(url, shown.as_deref(), (size, until))
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }
}

/// The digest of the archive at a path: its name has it.
fn archive_digest(path: &str) -> Result<String> {
    let name = path.strip_prefix("archives/");
    let hash = name.and_then(|name| name.strip_suffix(".tar.zst"));
    let hash: Option<ContentHash> = hash.and_then(|hash| hash.parse().ok());
    match hash {
        Some(hash) => Ok(format!("sha256:{hash}")),
        None => Err(SubstituterError::Location {
            text: path.to_owned(),
            reason: "it is no archive",
        }),
    }
}
