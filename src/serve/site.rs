//! What is answered to whom.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_RANGE, ETAG,
    EXPECT, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::accept::{Accepted, Rules, said, tag};
use super::body::{Answer, Content, Parts};
use super::catalogue::Catalogue;
use super::conditions::{Condition, Part, is_known};
use super::connections::Application;
use super::files::{Files, Open};
use super::log::{AccessLog, Record};
use super::metrics::Metrics;
use super::rate::Rates;
use super::reply::{Handled, Keeping, Reply};
use super::route::Target;
use super::tokens::{Standing, Tokens};
use super::uploads::{ReceiveError, Uploads, next, whole};
use crate::digest::ContentHash;
use crate::fs::{self, Stamp};
use crate::substituter::{INVENTORY, Question, archive_path, document};

/// Bytes of a body that nobody wants, which are received all the same: many
/// clients read an answer only when all is sent.
const UNWANTED: u64 = 1 << 20;
/// Work that needs a thread and memory, at the same time.
const AT_WORK: usize = 16;

/// A folder that is served.
pub(super) struct Site {
    pub(super) folder: PathBuf,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) tokens: Tokens,
    pub(super) rates: Rates,
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: Arc<AccessLog>,
    pub(super) writing: Option<Writing>,
    pub(super) is_stopping: AtomicBool,
    /// Connections that there may be.
    pub(super) connections: usize,
    pub(super) tools: Tools,
}

/// What is needed where somebody may publish.
pub(super) struct Writing {
    pub(super) rules: Rules,
    pub(super) uploads: Uploads,
    /// Bytes that an archive may have.
    pub(super) limit: u64,
}

/// What requests share.
pub(super) struct Tools {
    files: Files,
    tags: Mutex<BTreeMap<PathBuf, (Stamp, String)>>,
    /// Reading in other threads, so many at once.
    reading: Semaphore,
    /// Writing, which may wait for another writer of the folder.
    writing: Semaphore,
}

impl Default for Tools {
    fn default() -> Self {
        Self {
            files: Files::default(),
            tags: Mutex::default(),
            reading: Semaphore::new(AT_WORK),
            writing: Semaphore::new(AT_WORK),
        }
    }
}

impl Tools {
    /// The tag of a document that has not changed since it was computed.
    fn tag(&self, path: &Path, stamp: Stamp) -> Option<String> {
        let tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, tag) = tags.get(path)?;
        (*of == stamp).then(|| tag.clone())
    }

    fn keep_tag(&self, path: PathBuf, stamp: Stamp, tag: String) {
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        tags.insert(path, (stamp, tag));
    }
}

impl Application for Site {
    type Body = Answer;

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        from: IpAddr,
    ) -> Response<Answer> {
        let (log, metrics) = (Arc::clone(&self.log), Arc::clone(&self.metrics));
        let mut record = Record::new(log, metrics, from, &request);
        let is_head = request.method() == Method::HEAD;
        let target = Target::parse(request.uri().path());
        if let Some(target) = target {
            record.route(target.route());
        }
        let version = request.version();
        let reply = self.handle(target, request, from).await;
        let reply = reply.unwrap_or_else(|refused| refused);
        let mut response = reply.send(record, is_head);
        // While others wait to be let in, nobody stays for the next request.
        if version < Version::HTTP_2 && self.metrics.connections() >= self.connections {
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn connected(&self) {
        self.metrics.connected();
    }

    fn disconnected(&self) {
        self.metrics.disconnected();
    }
}

impl Site {
    async fn handle(
        self: &Arc<Self>,
        target: Option<Target>,
        request: Request<Incoming>,
        from: IpAddr,
    ) -> Handled {
        let (head, mut body) = request.into_parts();
        let reply = match self.let_in(target, &head.method, &head.headers, from) {
            Err(refused) => Err(refused),
            Ok(target) if head.method == Method::PUT => {
                self.put(target, &head.headers, &mut body).await
            }
            Ok(Target::Lookup) => self.lookup(&mut body).await,
            Ok(target) => self.get(target, &head.headers).await,
        };
        // Whoever asked whether to send it has not begun.
        if !body.is_end_stream() && !head.headers.contains_key(EXPECT) {
            drain(&mut body).await;
        }
        reply
    }

    /// Sees whether a request may be answered at all.
    fn let_in(
        &self,
        target: Option<Target>,
        method: &Method,
        headers: &HeaderMap,
        from: IpAddr,
    ) -> Result<Target, Reply> {
        // Whoever looks after the server is never sent away.
        if let Some(target @ (Target::Healthy | Target::Ready)) = target {
            self.allowed(target, method)?;
            return Ok(target);
        }
        if let Err(pause) = self.rates.take(from, Instant::now()) {
            self.metrics.limited();
            let text = "too many requests; wait a moment";
            let seconds = pause.as_secs_f64().ceil().max(1.0);
            return Err(Reply::line(StatusCode::TOO_MANY_REQUESTS, text)
                .with(RETRY_AFTER, seconds.to_string()));
        }
        let standing = self.tokens.standing(headers);
        let is_writing = *method == Method::PUT && self.writing.is_some();
        let needed = if is_writing {
            Standing::Writer
        } else if self.tokens.guards_reading() {
            Standing::Reader
        } else {
            Standing::Stranger
        };
        if standing < needed {
            self.metrics.denied();
            return Err(if standing == Standing::Stranger {
                // The same for all paths, whether there is something or not.
                Reply::line(StatusCode::UNAUTHORIZED, "a token is needed here")
                    .with(WWW_AUTHENTICATE, "Bearer realm=\"quickbuild\"")
            } else {
                Reply::line(StatusCode::FORBIDDEN, "this token is for reading only")
            });
        }
        let target = target.ok_or_else(absent)?;
        self.allowed(target, method)?;
        Ok(target)
    }

    /// Sees whether a path takes a method.
    fn allowed(&self, target: Target, method: &Method) -> Result<(), Reply> {
        let can_write = self.writing.is_some();
        let allowed: &[Method] = match target {
            Target::Lookup => &[Method::POST],
            Target::Info | Target::Inventory | Target::Document(..) | Target::Archive(_)
                if can_write =>
            {
                &[Method::GET, Method::HEAD, Method::PUT]
            }
            _ => &[Method::GET, Method::HEAD],
        };
        if allowed.contains(method) {
            return Ok(());
        }
        let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let text = format!("`{method}` is not for this path");
        Err(Reply::line(StatusCode::METHOD_NOT_ALLOWED, text).with(ALLOW, names.join(", ")))
    }

    async fn get(self: &Arc<Self>, target: Target, headers: &HeaderMap) -> Handled {
        match target {
            Target::Info => self.info(headers),
            Target::Archive(sha256) => self.archive(sha256, headers),
            Target::Document(question, recipe) => {
                self.document(&question.path(recipe), headers).await
            }
            Target::Inventory => self.document(INVENTORY, headers).await,
            Target::Healthy => Ok(Reply::line(StatusCode::OK, "ok")),
            Target::Ready => self.ready().await,
            Target::Metrics => Ok(self.counted(headers)),
            Target::Lookup => Err(absent()),
        }
    }

    fn keeping(&self, is_final: bool) -> Keeping {
        Keeping {
            is_private: self.tokens.guards_reading(),
            is_final,
        }
    }

    fn info(&self, headers: &HeaderMap) -> Handled {
        let path = self.folder.join(document::INFO);
        let bytes = fs::read_optional(&path).map_err(|error| Reply::failure(&error))?;
        let info = said(&bytes.ok_or_else(absent)?, document::INFO);
        let bytes = info.map_err(|error| Reply::failure(&error))?.to_bytes();
        let tag = tag(ContentHash::of(&bytes));
        let keeping = self.keeping(false);
        if is_known(headers, &tag) {
            return Ok(unchanged(&tag, keeping));
        }
        let content = Content::Whole(bytes.into());
        let reply = Reply::new(StatusCode::OK, "application/json", content);
        Ok(reply.kept(keeping).with(ETAG, tag))
    }

    fn archive(&self, sha256: ContentHash, headers: &HeaderMap) -> Handled {
        let open = self.open(&archive_path(sha256))?;
        let keeping = self.keeping(true);
        Ok(self.file(open, &format!("\"{sha256}\""), keeping, headers))
    }

    async fn document(self: &Arc<Self>, path: &str, headers: &HeaderMap) -> Handled {
        let open = self.open(path)?;
        let tag = self.document_tag(&open).await?;
        let keeping = self.keeping(false);
        Ok(self.file(open, &tag, keeping, headers))
    }

    /// A file, or the part of it that is wanted.
    fn file(&self, open: Open, tag: &str, keeping: Keeping, headers: &HeaderMap) -> Reply {
        if is_known(headers, tag) {
            return unchanged(tag, keeping);
        }
        let size = open.stamp().size;
        let reply = |status, content| {
            let reply = Reply::new(status, "application/zstd", content);
            reply
                .kept(keeping)
                .with(ACCEPT_RANGES, HeaderValue::from_static("bytes"))
                .with(ETAG, tag)
        };
        match Part::of(headers, size, tag) {
            Part::All => reply(StatusCode::OK, self.tools.files.part(open, 0..size)),
            Part::Some(range) => {
                let said = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                let content = self.tools.files.part(open, range);
                reply(StatusCode::PARTIAL_CONTENT, content).with(CONTENT_RANGE, said)
            }
            Part::Beyond => {
                let text = format!("there are {size} bytes");
                Reply::line(StatusCode::RANGE_NOT_SATISFIABLE, text)
                    .with(CONTENT_RANGE, format!("bytes */{size}"))
            }
        }
    }

    fn open(&self, path: &str) -> Result<Open, Reply> {
        let open = self.tools.files.open(self.folder.join(path));
        open.map_err(|error| match error.is_absent() {
            true => absent(),
            false => Reply::failure(&error),
        })
    }

    /// The tag of a document: it follows from its bytes, so that all servers of
    /// the same files have the same.
    async fn document_tag(&self, open: &Open) -> Result<String, Reply> {
        if let Some(tag) = self.tools.tag(open.path(), open.stamp()) {
            return Ok(tag);
        }
        let (path, stamp) = (open.path().to_owned(), open.stamp());
        let open = open.clone();
        let hashed = done(&self.tools.reading, move || open.hash()).await?;
        let tag = tag(hashed.map_err(|error| Reply::failure(&error))?);
        self.tools.keep_tag(path, stamp, tag.clone());
        Ok(tag)
    }

    async fn ready(self: &Arc<Self>) -> Handled {
        let site = Arc::clone(self);
        let is_readable = done(&self.tools.reading, move || site.catalogue.is_readable()).await?;
        let problem = if self.is_stopping.load(Ordering::Relaxed) {
            "stopping"
        } else if is_readable {
            return Ok(Reply::line(StatusCode::OK, "ready"));
        } else {
            "the folder cannot be read"
        };
        Ok(Reply::line(StatusCode::SERVICE_UNAVAILABLE, problem))
    }

    /// What was counted, compressed for whoever wants that.
    fn counted(&self, headers: &HeaderMap) -> Reply {
        let text = self.metrics.text(&self.catalogue.stock());
        let reply = |bytes: Vec<u8>| {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            Reply::new(StatusCode::OK, kind, Content::Whole(bytes.into()))
                .with(VARY, "Accept-Encoding")
        };
        if !takes_gzip(headers) {
            return reply(text.into_bytes());
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let packed = encoder
            .write_all(text.as_bytes())
            .and_then(|()| encoder.finish());
        match packed {
            Ok(bytes) => reply(bytes).with(CONTENT_ENCODING, "gzip"),
            Err(_never) => reply(text.into_bytes()),
        }
    }

    /// Answers the call for many recipes.
    async fn lookup(self: &Arc<Self>, body: &mut Incoming) -> Handled {
        let body = whole(body, document::MAX_CALL).await?;
        let recipes = document::parse_call(&body);
        let recipes = recipes.map_err(|reason| Reply::line(StatusCode::BAD_REQUEST, reason))?;
        let (site, asked) = (Arc::clone(self), recipes.len());
        let found = done(&self.tools.reading, move || site.catalogue.lookup(&recipes)).await?;
        let found = found.map_err(|error| Reply::failure(&error))?;
        self.metrics.looked_up(asked, found.outputs);
        let content = Content::Parts(Parts::new(found.parts));
        Ok(Reply::new(StatusCode::OK, "application/zstd", content))
    }

    /// Puts a file of the substituter.
    async fn put(
        self: &Arc<Self>,
        target: Target,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Handled {
        let condition = Condition::of(headers);
        if let Target::Archive(sha256) = target {
            return self.put_archive(sha256, &condition, body).await;
        }
        let limit = match target {
            Target::Info => document::MAX_INFO,
            _ => document::MAX_DOCUMENT,
        };
        let body = whole(body, limit).await?;
        let (site, size) = (Arc::clone(self), body.len() as u64);
        let accepted = done(&self.tools.writing, move || {
            let rules = &site.writing.as_ref().ok_or_else(absent)?.rules;
            match target {
                Target::Info => rules.info(&body, &condition),
                Target::Inventory => rules.inventory(&body, &condition),
                Target::Document(Question::Recipes, recipe) => {
                    rules.document(recipe, &body, &condition)
                }
                Target::Document(Question::Closures, recipe) => {
                    rules.closure(recipe, &body, &condition)
                }
                _ => Err(absent()),
            }
        });
        let Accepted { is_new, bytes } = accepted.await??;
        self.metrics.uploaded(size);
        Ok(put(is_new).with(ETAG, tag(ContentHash::of(&bytes))))
    }

    async fn put_archive(
        self: &Arc<Self>,
        sha256: ContentHash,
        condition: &Condition,
        body: &mut Incoming,
    ) -> Handled {
        let writing = self.writing.as_ref().ok_or_else(absent)?;
        let path = self.folder.join(archive_path(sha256));
        let tag = format!("\"{sha256}\"");
        if path.is_file() {
            // It has this SHA-256 or would not be here.
            return if condition.holds(Some(&tag)) {
                Ok(put(false).with(ETAG, tag))
            } else {
                let text = "this archive is here already";
                Err(Reply::line(StatusCode::PRECONDITION_FAILED, text).with(ETAG, tag))
            };
        }
        if body.size_hint().lower() > writing.limit {
            return Err(ReceiveError::TooLarge(writing.limit).into());
        }
        let received = writing.uploads.receive(body, writing.limit).await?;
        let size = received.size();
        if received.sha256() != sha256 {
            let text = "the body has another SHA-256 than its name; nothing of it is kept";
            return Err(Reply::line(StatusCode::UNPROCESSABLE_ENTITY, text));
        }
        let placed = done(&self.tools.writing, move || received.place(&path)).await?;
        placed.map_err(|error| Reply::failure(&error))?;
        self.metrics.uploaded(size);
        Ok(put(true).with(ETAG, tag))
    }
}

/// Does something that takes a while in a thread where it keeps nobody waiting.
async fn done<T: Send + 'static>(
    permits: &Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Reply> {
    let _permit = permits.acquire().await;
    let done = spawn_blocking(work).await;
    done.map_err(|error| Reply::failure(&error))
}

fn absent() -> Reply {
    Reply::line(StatusCode::NOT_FOUND, "there is nothing here")
}

fn unchanged(tag: &str, keeping: Keeping) -> Reply {
    Reply::empty(StatusCode::NOT_MODIFIED)
        .kept(keeping)
        .with(ETAG, tag)
}

fn put(is_new: bool) -> Reply {
    Reply::empty(if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::NO_CONTENT
    })
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT_ENCODING).into_iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    let mut codings = accepted.flat_map(|value| value.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// Receives what is not wanted, within a bound.
async fn drain(body: &mut Incoming) {
    let mut size = 0;
    let receive = async {
        while size < UNWANTED {
            match next(body).await {
                Ok(Some(bytes)) => size += Bytes::len(&bytes) as u64,
                Ok(None) | Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), receive).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_who_takes_it() {
        let takes = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, value.parse().unwrap());
            takes_gzip(&headers)
        };
        assert!(takes("gzip") && takes("br, GZIP;q=0.5"));
        assert!(!takes("") && !takes("br") && !takes("gzip;q=0"));
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
