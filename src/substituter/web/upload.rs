//! Writing to a server of ours by `PUT`, as `docs/formats/substituter.md` has it.

use std::path::Path;

use reqwest::Method;

use super::{Answer, Body, Call, Web};
use crate::substituter::backend::{Added, Change, Content, Held, Listed, Version, Writer};
use crate::substituter::document::{INFO, MAX_INFO};
use crate::substituter::{ArchiveRef, Result, SubstituterError};

const ARCHIVE: &str = "application/zstd";

impl Web {
    fn put(&self, path: &str, body: Body<'_>, before: Option<&Version>) -> Result<Answer> {
        let call = Call::new(Method::PUT, self.url(path)?, MAX_INFO);
        let mut call = match before {
            None => call.header("if-none-match", "*".to_owned()),
            Some(version) => {
                let tag = version.tag.clone().unwrap_or_default();
                call.header("if-match", tag)
            }
        };
        call.body = body;
        self.exchange(&call)
    }
}

impl Writer for Web {
    fn read(&self, path: &str, limit: u64) -> Result<Option<Held>> {
        let call = Call::new(Method::GET, self.url(path)?, limit);
        let call = call.header("cache-control", "no-cache".to_owned());
        let answer = self.exchange(&call)?;
        match answer.status {
            404 | 410 => Ok(None),
            200 => {
                let Some(tag) = answer.header("etag").map(str::to_owned) else {
                    return Err(SubstituterError::ReadOnly {
                        place: self.base.to_string(),
                        reason: "it sends no `ETag`, so nobody can tell whether others write there",
                    });
                };
                Ok(Some(Held {
                    version: Version::of(tag),
                    modified: None,
                    bytes: answer.bytes,
                }))
            }
            _ => Err(answer.error()),
        }
    }

    fn add(&self, path: &str, file: &Path, archive: ArchiveRef) -> Result<Added> {
        let there = self.exchange(&Call::new(Method::HEAD, self.url(path)?, 0))?;
        if there.is_success() {
            return Ok(Added::Existing);
        }
        let answer = self.put(path, Body::File(file, archive.size, ARCHIVE), None)?;
        match answer.status {
            200 | 201 | 204 => Ok(Added::New),
            // The same bytes have the same name.
            412 => Ok(Added::Existing),
            _ => Err(failed(&answer)),
        }
    }

    fn replace(
        &self,
        path: &str,
        content: Content<'_>,
        before: Option<&Version>,
    ) -> Result<Change> {
        let kind = if path == INFO {
            "application/json"
        } else {
            "application/zstd"
        };
        let body = Body::Bytes(content.bytes.to_vec(), kind);
        let answer = self.put(path, body, before)?;
        match answer.status {
            200 | 201 | 204 => Ok(Change::Done),
            412 => Ok(Change::Lost),
            _ => Err(failed(&answer)),
        }
    }

    fn list(&self) -> Result<Vec<Listed>> {
        Err(self.no_such_call())
    }

    fn remove(&self, _path: &str, _before: Option<&Version>) -> Result<Change> {
        Err(self.no_such_call())
    }
}

impl Web {
    fn no_such_call(&self) -> SubstituterError {
        SubstituterError::ReadOnly {
            place: self.base.to_string(),
            reason: "over HTTP, files can be neither listed nor removed; do that where they lie",
        }
    }
}

fn failed(answer: &Answer) -> SubstituterError {
    let url = answer.url.to_string();
    match answer.status {
        409 => SubstituterError::Conflict { url },
        404 | 405 | 501 => SubstituterError::ReadOnly {
            place: url,
            reason: "the server takes no uploads; `quickbuild serve` with a write token does",
        },
        // Whoever refuses what was sent says why.
        400 | 413 | 422 => {
            let text = String::from_utf8_lossy(&answer.bytes);
            let text = text.chars().filter(|c| !c.is_control());
            SubstituterError::Refused {
                url,
                reason: text.take(300).collect(),
            }
        }
        _ => answer.error(),
    }
}
