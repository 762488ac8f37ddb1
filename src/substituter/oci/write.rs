//! Writing to a registry.
//!
//! The protocol has no conditional requests: a document is looked at once more
//! right before it is replaced, and whoever publishes looks again at the end.
//! Archives are removed by the registry when no manifest refers to them.

use std::path::Path;

use super::manifest::{self, EMPTY, Manifest};
use super::{Registry, archive_digest};
use crate::substituter::backend::{Added, Change, Content, Held, Listed, Version, Writer, unflat};
use crate::substituter::web::{Answer, Body, Call, Method, Url, is_safe};
use crate::substituter::{ArchiveRef, Result, SubstituterError};

/// Bytes that an answer without content may have.
const SMALL: u64 = 64 << 10;
/// Bytes that a page of tags may have.
const MAX_PAGE: u64 = 16 << 20;
const BLOB: &str = "application/octet-stream";

impl Registry {
    /// Whether a blob is there.
    fn has_blob(&self, digest: &str) -> Result<bool> {
        let answer = self.send(Call::new(Method::HEAD, self.blob_url(digest)?, SMALL))?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(answer.error()),
        }
    }

    /// Uploads a blob, unless it is there.
    fn put_blob(&self, digest: &str, body: Body<'_>) -> Result<Added> {
        if self.has_blob(digest)? {
            return Ok(Added::Existing);
        }
        let begin = Call::new(Method::POST, self.url("blobs/uploads/")?, SMALL);
        let begun = self.send(begin)?;
        if begun.status != 202 {
            return Err(failed(&begun));
        }
        let mut url = self.upload_url(&begun)?;
        url.query_pairs_mut().append_pair("digest", digest);
        let mut upload = Call::new(Method::PUT, url, SMALL);
        upload.body = body;
        let done = self.send(upload)?;
        match done.status {
            201 | 204 => Ok(Added::New),
            _ => Err(failed(&done)),
        }
    }

    /// Where a blob is to be sent.
    fn upload_url(&self, begun: &Answer) -> Result<Url> {
        let location = begun.header("location").unwrap_or_default();
        let url = begun.url.join(location).ok().filter(is_safe);
        url.ok_or_else(|| SubstituterError::Malformed {
            url: begun.url.to_string(),
            reason: "it does not say where to upload to".to_owned(),
        })
    }

    /// The digest of the manifest of a document, as it is now.
    fn digest_of(&self, path: &str) -> Result<Option<String>> {
        let call = Call::new(Method::HEAD, self.manifest_url(path)?, SMALL);
        let answer = self.send(call.header("accept", manifest::KIND.to_owned()))?;
        match answer.status {
            404 => Ok(None),
            200 => match answer.header("docker-content-digest") {
                Some(digest) => Ok(Some(digest.to_owned())),
                None => {
                    let held = self.get_one(path, super::MAX_MANIFEST)?;
                    Ok(held.and_then(|held| held.version.tag))
                }
            },
            _ => Err(answer.error()),
        }
    }
}

impl Writer for Registry {
    fn read(&self, path: &str, limit: u64) -> Result<Option<Held>> {
        self.get_one(path, limit)
    }

    fn add(&self, path: &str, file: &Path, archive: ArchiveRef) -> Result<Added> {
        self.put_blob(&archive_digest(path)?, Body::File(file, archive.size, BLOB))
    }

    fn replace(
        &self,
        path: &str,
        content: Content<'_>,
        before: Option<&Version>,
    ) -> Result<Change> {
        let manifest = Manifest::new(path, content.bytes, content.archives);
        for bytes in [EMPTY, content.bytes] {
            let body = Body::Bytes(bytes.to_vec(), BLOB);
            self.put_blob(&manifest::digest(bytes), body)?;
        }
        if self.digest_of(path)? != before.and_then(|version| version.tag.clone()) {
            return Ok(Change::Lost);
        }
        let mut call = Call::new(Method::PUT, self.manifest_url(path)?, SMALL);
        call.body = Body::Bytes(manifest.to_bytes(), manifest::KIND);
        let answer = self.send(call)?;
        match answer.status {
            200 | 201 => Ok(Change::Done),
            _ => Err(failed(&answer)),
        }
    }

    fn is_racy(&self) -> bool {
        true
    }

    /// The documents; archives are listed nowhere.
    fn list(&self) -> Result<Vec<Listed>> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut listed = Vec::new();
        let mut next = Some(self.url("tags/list?n=1000")?);
        while let Some(url) = next {
            let answer = self.send(Call::new(Method::GET, url, MAX_PAGE))?;
            match answer.status {
                200 => {}
                404 => break,
                _ => return Err(answer.error()),
            }
            let page: Page = serde_json::from_slice(&answer.bytes)
                .map_err(|error| malformed(&answer, &error))?;
            let paths = page.tags.unwrap_or_default();
            let paths = paths.iter().filter_map(|tag| unflat(tag));
            listed.extend(paths.map(|path| Listed {
                path,
                size: 0,
                modified: None,
            }));
            next = answer
                .header("link")
                .and_then(next_page)
                .and_then(|link| answer.url.join(link).ok())
                .filter(|url| url.origin() == answer.url.origin() && *url != answer.url);
        }
        Ok(listed)
    }

    fn remove(&self, path: &str, before: Option<&Version>) -> Result<Change> {
        let Some(now) = self.digest_of(path)? else {
            return Ok(Change::Done);
        };
        if before.is_some_and(|before| before.tag.as_ref() != Some(&now)) {
            return Ok(Change::Lost);
        }
        // Not by `join`, which would take the digest's scheme for one of a URL.
        let url = self.url(&format!("./manifests/{now}"))?;
        let answer = self.send(Call::new(Method::DELETE, url, SMALL))?;
        match answer.status {
            200 | 202 | 204 | 404 => Ok(Change::Done),
            405 => Err(SubstituterError::ReadOnly {
                place: answer.url.to_string(),
                reason: "the registry does not let anybody remove something",
            }),
            _ => Err(failed(&answer)),
        }
    }
}

/// The target of `<…>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    let (target, relation) = link.strip_prefix('<')?.split_once('>')?;
    relation.contains("next").then_some(target)
}

fn malformed(answer: &Answer, reason: &impl ToString) -> SubstituterError {
    SubstituterError::Malformed {
        url: answer.url.to_string(),
        reason: reason.to_string(),
    }
}

/// Registries say in the body what they do not like.
fn failed(answer: &Answer) -> SubstituterError {
    let value: serde_json::Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    let message = value.pointer("/errors/0/message").and_then(|m| m.as_str());
    match message {
        Some(message) if !matches!(answer.status, 401 | 403) => {
            let message: String = message
                .chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect();
            SubstituterError::Refused {
                url: answer.url.to_string(),
                reason: format!("{message} ({})", answer.status),
            }
        }
        _ => answer.error(),
    }
}
