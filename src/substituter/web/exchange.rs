//! One request and its whole answer, for what is more than reading files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::time::{sleep, timeout};

use super::{
    ATTEMPTS, Asker, Attempt, LONGEST_PAUSE, PATIENCE, Pace, Web, back_off, client_error,
    retry_after, slow, unreachable,
};
use crate::fs;
use crate::substituter::{Result, SubstituterError};

/// Bytes of a file that are sent at once.
const PIECE: usize = 128 << 10;

/// What a request sends, with its type.
#[derive(Debug, Clone)]
pub(in crate::substituter) enum Body<'a> {
    None,
    Bytes(Vec<u8>, &'static str),
    File(&'a Path, u64, &'static str),
}

/// A request.
#[derive(Debug, Clone)]
pub(in crate::substituter) struct Call<'a> {
    pub(in crate::substituter) method: Method,
    pub(in crate::substituter) url: Url,
    pub(in crate::substituter) headers: Vec<(&'static str, String)>,
    pub(in crate::substituter) body: Body<'a>,
    /// Bytes that the answer may have.
    pub(in crate::substituter) limit: u64,
}

impl Call<'_> {
    /// A request without a body.
    pub(in crate::substituter) fn new(method: Method, url: Url, limit: u64) -> Self {
        Self {
            method,
            url,
            headers: Vec::new(),
            body: Body::None,
            limit,
        }
    }

    pub(in crate::substituter) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(in crate::substituter) struct Answer {
    pub(in crate::substituter) url: Url,
    pub(in crate::substituter) status: u16,
    headers: HeaderMap,
    pub(in crate::substituter) bytes: Vec<u8>,
}

impl Answer {
    /// A header, if it is text.
    pub(in crate::substituter) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(in crate::substituter) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What the status means, where it is none of those that are in order.
    pub(in crate::substituter) fn error(&self) -> SubstituterError {
        let url = self.url.to_string();
        match self.status {
            status @ (401 | 403) => SubstituterError::Denied { url, status },
            status => SubstituterError::Status { url, status },
        }
    }
}

impl Web {
    /// Makes a request, and makes it again where that may help. An answer of any
    /// status is an answer.
    pub(in crate::substituter) fn exchange(&self, call: &Call<'_>) -> Result<Answer> {
        self.block_on(self.asker.exchange(call))
    }
}

impl Asker {
    async fn exchange(&self, call: &Call<'_>) -> Result<Answer> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (error, pause) = match self.try_exchange(call, attempt == ATTEMPTS).await? {
                Attempt::Done(answer) => return Ok(answer),
                Attempt::Again(error, pause) => (error, pause),
            };
            if attempt == ATTEMPTS {
                return Err(error);
            }
            sleep(pause.unwrap_or_else(|| back_off(attempt))).await;
        }
    }

    pub(super) async fn try_exchange(
        &self,
        call: &Call<'_>,
        is_last: bool,
    ) -> Result<Attempt<Answer>> {
        let url = &call.url;
        let response = match self.begin(call).await? {
            Attempt::Done(response) => response,
            Attempt::Again(error, pause) => return Ok(Attempt::Again(error, pause)),
        };
        let status = response.status();
        let is_busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        let pause = retry_after(&response);
        if is_busy && !is_last && pause.is_none_or(|pause| pause <= LONGEST_PAUSE) {
            let (url, status) = (url.to_string(), status.as_u16());
            return Ok(Attempt::Again(
                SubstituterError::Status { url, status },
                pause,
            ));
        }
        self.rest(call, response).await
    }

    /// Sends a request, for as long as something moves.
    async fn begin(&self, call: &Call<'_>) -> Result<Attempt<Response>> {
        let url = &call.url;
        let mut headers = HeaderMap::new();
        for (name, value) in &call.headers {
            let mut value = HeaderValue::from_str(value).map_err(client_error)?;
            value.set_sensitive(*name == "authorization");
            headers.insert(HeaderName::from_static(name), value);
        }
        let request = self.client.request(call.method.clone(), url.clone());
        let mut request = request.headers(headers);
        let sent = Arc::new(AtomicU64::new(0));
        match &call.body {
            Body::None if call.method == Method::GET || call.method == Method::HEAD => {}
            Body::None => request = request.header(CONTENT_LENGTH, 0),
            Body::Bytes(bytes, kind) => {
                request = request.header(CONTENT_TYPE, *kind).body(bytes.clone());
            }
            Body::File(path, size, kind) => {
                request = request
                    .header(CONTENT_TYPE, *kind)
                    .header(CONTENT_LENGTH, *size)
                    .body(body(fs::open(path)?, Arc::clone(&sent)));
            }
        }
        let mut answer = std::pin::pin!(request.send());
        let (mut before, mut silences) = (0, 0);
        let answer = loop {
            if let Ok(answer) = timeout(self.timeout, answer.as_mut()).await {
                break answer;
            }
            // What was sent may take its time to be stored.
            let now = sent.load(Ordering::Relaxed);
            silences = if now == before { silences + 1 } else { 0 };
            before = now;
            if silences == if now == 0 { 1 } else { PATIENCE } {
                return Err(slow(url));
            }
        };
        match answer {
            Ok(response) => Ok(Attempt::Done(response)),
            Err(error) if error.is_timeout() => Err(slow(url)),
            Err(error) if error.is_redirect() => Err(unreachable(url, error)),
            Err(error) => Ok(Attempt::Again(unreachable(url, error), None)),
        }
    }

    /// Reads the body of an answer.
    async fn rest(&self, call: &Call<'_>, mut response: Response) -> Result<Attempt<Answer>> {
        let mut answer = Answer {
            url: call.url.clone(),
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            bytes: Vec::new(),
        };
        let mut pace = Pace::new(self.timeout);
        loop {
            match pace.chunk(&mut response, &call.url).await {
                Ok(Some(chunk)) => answer.bytes.extend_from_slice(&chunk),
                Ok(None) => return Ok(Attempt::Done(answer)),
                Err(error @ SubstituterError::Slow { .. }) => return Err(error),
                Err(error) => return Ok(Attempt::Again(error, None)),
            }
            if answer.bytes.len() as u64 > call.limit {
                return Err(SubstituterError::TooLarge {
                    url: call.url.to_string(),
                    limit: call.limit,
                });
            }
        }
    }
}

/// A file as a body, counting what was taken of it.
fn body(file: impl std::io::Read + Send + 'static, sent: Arc<AtomicU64>) -> reqwest::Body {
    let pieces = stream::unfold(file, move |mut file| {
        let sent = Arc::clone(&sent);
        async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE];
                let count = file.read(&mut piece);
                (count, piece, file)
            });
            let (count, mut piece, file) = read.await.ok()?;
            match count {
                Ok(0) => None,
                Ok(count) => {
                    piece.truncate(count);
                    sent.fetch_add(count as u64, Ordering::Relaxed);
                    Some((Ok(Bytes::from(piece)), file))
                }
                Err(error) => Some((Err(error), file)),
            }
        }
    });
    reqwest::Body::wrap_stream(pieces)
}
