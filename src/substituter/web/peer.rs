//! A server that is asked for something else than outputs: a service of ours.

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, Url};
use tokio::time::timeout;

use super::exchange::{Answer, Body, Call};
use super::{Web, is_safe, slow};
use crate::config::{ServiceSettings, SubstituterSettings};
use crate::environment::Environment;
use crate::fs;
use crate::substituter::{Result, SubstituterError};

/// Bytes that an answer may have.
const LIMIT: u64 = 64 << 20;
/// Of packing.
const LEVEL: i32 = 3;

/// A service.
pub struct Peer {
    web: Web,
    base: Url,
}

/// What it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body.
    pub bytes: Vec<u8>,
}

impl Peer {
    /// A service at a URL, which is shown the token if the way there is safe.
    pub fn open(settings: &ServiceSettings, environment: &Environment) -> Result<Self> {
        let location = |reason| SubstituterError::Location {
            text: settings.url.clone(),
            reason,
        };
        let url = format!("{}/", settings.url.trim_end_matches('/'));
        let base = Url::parse(&url).map_err(|_invalid| location("it is not a URL"))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(location("it does not begin with `https://` or `http://`"));
        }
        let token = settings.token.as_ref();
        let authorization = token.map(|token| format!("Bearer {}", token.secret()));
        if authorization.is_some() && !is_safe(&base) {
            return Err(location("a token is shown over `https://` only"));
        }
        let mut client = SubstituterSettings::new(url, &settings.base, Vec::new());
        client.ca.clone_from(&settings.ca);
        let web = Web::with(base.clone(), authorization, &client, environment)?;
        Ok(Self { web, base })
    }

    /// Asks once, for so long at most; an answer of any status is one.
    pub fn post_once(
        &self,
        path: &str,
        body: Vec<u8>,
        kind: &'static str,
        longest: Duration,
    ) -> Result<Reply> {
        let mut call = self.call(Method::POST, path)?;
        call.body = Body::Bytes(body, kind);
        self.once(&call, longest)
    }

    /// The same with a body that is packed on its way (RFC 8878).
    pub fn post_packed_once(
        &self,
        path: &str,
        body: &[u8],
        kind: &'static str,
        longest: Duration,
    ) -> Result<Reply> {
        let mut call = self.call(Method::POST, path)?;
        let packed = zstd::bulk::compress(body, LEVEL).expect("what is in memory can be packed");
        call.body = Body::Bytes(packed, kind);
        call.headers.push(("content-encoding", "zstd".to_owned()));
        self.once(&call, longest)
    }

    fn once(&self, call: &Call<'_>, longest: Duration) -> Result<Reply> {
        let asked = self.web.asker.try_exchange(call, true);
        let answered = self.web.block_on(async { timeout(longest, asked).await });
        match answered.unwrap_or_else(|_elapsed| Err(slow(&call.url)))? {
            super::Attempt::Done(answer) => Ok(answer.into()),
            super::Attempt::Again(error, _) => Err(error),
        }
    }

    /// Asks, and asks again where that may help; an answer of any status is one.
    pub fn post(&self, path: &str, body: Vec<u8>, kind: &'static str) -> Result<Reply> {
        let mut call = self.call(Method::POST, path)?;
        call.body = Body::Bytes(body, kind);
        self.web.exchange(&call).map(Into::into)
    }

    /// Sends a file, and sends it again where that may help; an answer of any
    /// status is one.
    pub fn put_file(&self, path: &str, file: &Path, kind: &'static str) -> Result<Reply> {
        let mut call = self.call(Method::PUT, path)?;
        let size = fs::Stamp::of(file).map_or(0, |stamp| stamp.size);
        call.body = Body::File(file, size, kind);
        self.web.exchange(&call).map(Into::into)
    }

    fn call(&self, method: Method, path: &str) -> Result<Call<'_>> {
        let url = self.base.join(path);
        let url = url.map_err(|_invalid| SubstituterError::Location {
            text: format!("{}{path}", self.base),
            reason: "it is not a URL",
        })?;
        Ok(Call::new(method, url, LIMIT))
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self {
            status: answer.status,
            bytes: answer.bytes,
        }
    }
}
