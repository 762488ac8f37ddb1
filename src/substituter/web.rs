//! The back end for web servers. Nothing else names the HTTP client.
//!
//! Every wait has a bound: for a connection, for an answer, and without bytes.
//! A server that drips counts as silent. What breaks off is asked for again
//! from where it broke off, a few times.

mod download;
mod exchange;
pub(super) mod peer;
mod upload;

use std::io::Read;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::select;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, NoProxy, Proxy, Response, StatusCode, redirect};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

pub(super) use exchange::{Answer, Body, Call};
pub(super) use reqwest::{Method, Url};

use super::backend::{Backend, Writer};
use super::document::INFO;
use super::{Result, SubstituterError, credentials};
use crate::config::SubstituterSettings;
use crate::environment::Environment;
use crate::fs;

/// Documents that are asked for at the same time.
const PARALLEL: usize = 64;
/// How often something is tried.
const ATTEMPTS: u32 = 3;
/// The longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const MAX_REDIRECTS: usize = 5;
/// How many silences all documents together may take.
const PATIENCE: u32 = 6;

/// A web server with static files, or one of ours.
pub(super) struct Web {
    base: Url,
    asker: Arc<Asker>,
    /// Taken when dropped: what still hangs then is left behind.
    runtime: Option<Runtime>,
}

/// What a request needs.
struct Asker {
    client: Client,
    timeout: Duration,
    /// Closed when downloads are to end.
    running: Semaphore,
}

impl Web {
    pub(super) fn new(
        base: Url,
        settings: &SubstituterSettings,
        environment: &Environment,
    ) -> Result<Self> {
        let host = base.host_str().unwrap_or_default();
        let authorization = credentials::authorization(host, settings, environment);
        Self::with(base, authorization, settings, environment)
    }

    /// One that shows this to be let in, if the way there is safe.
    pub(super) fn with(
        base: Url,
        authorization: Option<String>,
        settings: &SubstituterSettings,
        environment: &Environment,
    ) -> Result<Self> {
        // Whoever was first has installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authorization = authorization.filter(|_| is_safe(&base));
        let client = client(&base, authorization, settings, environment).map_err(client_error)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("substituter")
            .enable_all()
            .build()
            .map_err(client_error)?;
        let asker = Asker {
            client,
            timeout: settings.timeout,
            running: Semaphore::new(0),
        };
        Ok(Self {
            base,
            asker: Arc::new(asker),
            runtime: Some(runtime),
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

    /// The client, for who makes requests of its own.
    pub(super) fn client(&self) -> Client {
        self.asker.client.clone()
    }

    /// Waits for something to be done.
    pub(super) fn block_on<T>(&self, task: impl Future<Output = T>) -> T {
        self.runtime().block_on(task)
    }

    /// Runs something beside the caller, until downloads are told to end.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let asker = Arc::clone(&self.asker);
        drop(self.runtime().spawn(async move {
            // There never is a permit, so this waits until it is closed.
            select(pin!(task), pin!(asker.running.acquire())).await;
        }));
    }

    /// Starts to receive a file, showing `authorization` if there is one.
    pub(super) fn download(
        &self,
        url: Url,
        authorization: Option<&str>,
        (size, until): (u64, Instant),
    ) -> Result<Box<dyn Read + Send>> {
        let until = tokio::time::Instant::from_std(until);
        let asker = Arc::clone(&self.asker);
        let authorization = match authorization {
            Some(text) => Some(HeaderValue::from_str(text).map_err(client_error)?),
            None => None,
        };
        let wanted = download::Wanted {
            url,
            authorization,
            size,
            until,
        };
        Ok(Box::new(download::start(self.runtime(), asker, wanted)))
    }

    /// Waits for documents, however many: not longer than for a few silences.
    fn within<T>(&self, answers: impl Future<Output = Result<T>>) -> Result<T> {
        let longest = self.asker.timeout * PATIENCE;
        let answers = async { timeout(longest, answers).await };
        self.runtime()
            .block_on(answers)
            .unwrap_or_else(|_elapsed| Err(slow(&self.base)))
    }

    fn runtime(&self) -> &Runtime {
        let runtime = self.runtime.as_ref();
        runtime.expect("it is taken only when this is dropped")
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn client_error(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SubstituterError {
    SubstituterError::Client {
        source: source.into(),
    }
}

/// Whether nobody in between can read what is sent there.
pub(super) fn is_safe(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url)
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

fn client(
    base: &Url,
    authorization: Option<String>,
    settings: &SubstituterSettings,
    environment: &Environment,
) -> std::result::Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let mut headers = HeaderMap::new();
    if let Some(value) = authorization {
        let mut value = HeaderValue::from_str(&value)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let mut builder = Client::builder()
        .user_agent(concat!("quickbuild/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .connect_timeout(settings.timeout)
        .tcp_nodelay(true)
        .redirect(redirect::Policy::custom(follow))
        // Variables are those that this program was started with.
        .no_proxy();
    if let Some(path) = &settings.ca {
        let certificates = Certificate::from_pem_bundle(&fs::read(path)?)?;
        if certificates.is_empty() {
            return Err(format!("`{}` has no certificate in PEM", path.display()).into());
        }
        builder = builder.tls_certs_merge(certificates);
    }
    if !is_loopback(base) {
        for proxy in proxies(environment)? {
            builder = builder.proxy(proxy);
        }
    }
    Ok(builder.build()?)
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let was_safe = attempt.previous().iter().any(|url| url.scheme() == "https");
    if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("too many redirects")
    } else if was_safe && attempt.url().scheme() != "https" {
        attempt.error("a redirect from https to http")
    } else {
        attempt.follow()
    }
}

/// Proxies as curl has them: `http_proxy` in small letters only, since a CGI
/// program gets `HTTP_PROXY` from whoever asks.
fn proxies(environment: &Environment) -> reqwest::Result<Vec<Proxy>> {
    let get = |names: &[&str]| {
        let mut values = names.iter().filter_map(|name| environment.get(name));
        values.find(|value| !value.is_empty())
    };
    let without = get(&["no_proxy", "NO_PROXY"]).and_then(NoProxy::from_string);
    let mut proxies = Vec::new();
    if let Some(url) = get(&["http_proxy"]) {
        proxies.push(Proxy::http(url)?);
    }
    if let Some(url) = get(&["https_proxy", "HTTPS_PROXY"]) {
        proxies.push(Proxy::https(url)?);
    }
    if let Some(url) = get(&["all_proxy", "ALL_PROXY"]) {
        proxies.push(Proxy::all(url)?);
    }
    let proxies = proxies.into_iter();
    Ok(proxies
        .map(|proxy| proxy.no_proxy(without.clone()))
        .collect())
}

impl Backend for Web {
    fn get(&self, paths: &[String], limit: u64) -> Result<Vec<Option<Vec<u8>>>> {
        let urls = paths.iter().map(|path| self.url(path));
        let urls: Vec<Url> = urls.collect::<Result<_>>()?;
        let asker = &self.asker;
        self.within(async {
            let answers = stream::iter(urls).map(|url| async move {
                let request = || asker.client.get(url.clone());
                asker.whole(&url, &request, limit).await
            });
            answers.buffered(PARALLEL).try_collect().await
        })
    }

    fn open(&self, path: &str, size: u64, until: Instant) -> Result<Box<dyn Read + Send>> {
        self.download(self.url(path)?, None, (size, until))
    }

    fn post(&self, path: &str, body: Vec<u8>, limit: u64) -> Result<Option<Vec<u8>>> {
        let url = self.url(path)?;
        let request = || {
            let request = self.asker.client.post(url.clone());
            let request = request.header("content-type", "application/json");
            request.body(body.clone())
        };
        self.within(self.asker.whole(&url, &request, limit))
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }

    fn stop(&self) {
        self.asker.running.close();
    }
}

/// A request that can be made again.
type MakeRequest<'a> = &'a (dyn Fn() -> reqwest::RequestBuilder + Sync);

/// What came of an attempt.
enum Attempt<T> {
    Done(T),
    /// It may go better next time, after a pause if the server wants one.
    Again(SubstituterError, Option<Duration>),
}

impl Asker {
    /// All that a request gives, of at most `limit` bytes.
    async fn whole(&self, url: &Url, make: MakeRequest<'_>, limit: u64) -> Result<Option<Vec<u8>>> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (error, pause) = match self.try_whole(url, make, limit).await? {
                Attempt::Done(answer) => return Ok(answer),
                Attempt::Again(error, pause) => (error, pause),
            };
            if attempt == ATTEMPTS {
                return Err(error);
            }
            sleep(pause.unwrap_or_else(|| back_off(attempt))).await;
        }
    }

    async fn try_whole(
        &self,
        url: &Url,
        make: MakeRequest<'_>,
        limit: u64,
    ) -> Result<Attempt<Option<Vec<u8>>>> {
        let mut response = match self.send(url, make()).await? {
            Attempt::Done(Some(response)) => response,
            Attempt::Done(None) => return Ok(Attempt::Done(None)),
            Attempt::Again(error, pause) => return Ok(Attempt::Again(error, pause)),
        };
        let too_large = || SubstituterError::TooLarge {
            url: url.to_string(),
            limit,
        };
        if response.content_length().is_some_and(|size| size > limit) {
            return Err(too_large());
        }
        let mut pace = Pace::new(self.timeout);
        let mut bytes = Vec::new();
        loop {
            match pace.chunk(&mut response, url).await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Ok(Attempt::Done(Some(bytes))),
                Err(error @ SubstituterError::Slow { .. }) => return Err(error),
                Err(error) => return Ok(Attempt::Again(error, None)),
            }
            if bytes.len() as u64 > limit {
                return Err(too_large());
            }
        }
    }

    /// Sends a request and looks at the status. `None` stands for what is not
    /// there.
    async fn send(
        &self,
        url: &Url,
        request: reqwest::RequestBuilder,
    ) -> Result<Attempt<Option<Response>>> {
        let response = match timeout(self.timeout, request.send()).await {
            // A host that does not answer now will not do so in a second.
            Err(_elapsed) => return Err(slow(url)),
            Ok(Err(error)) if error.is_timeout() => return Err(slow(url)),
            Ok(Err(error)) if error.is_redirect() => return Err(unreachable(url, error)),
            Ok(Err(error)) => return Ok(Attempt::Again(unreachable(url, error), None)),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        let code = status.as_u16();
        let is_info = url.path().ends_with(INFO);
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(Attempt::Done(Some(response))),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(Attempt::Done(None)),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Ok(Attempt::Done(None)),
            StatusCode::FORBIDDEN if !is_info => Ok(Attempt::Done(None)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(SubstituterError::Denied {
                url: url.to_string(),
                status: code,
            }),
            _ => {
                let error = SubstituterError::Status {
                    url: url.to_string(),
                    status: code,
                };
                let is_busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
                let pause = retry_after(&response);
                if is_busy && pause.is_none_or(|pause| pause <= LONGEST_PAUSE) {
                    Ok(Attempt::Again(error, pause))
                } else {
                    Err(error)
                }
            }
        }
    }
}

/// The pause that a server asks for; a date counts as long.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let seconds = value.trim().parse().map(Duration::from_secs);
    Some(seconds.unwrap_or(Duration::MAX))
}

/// A pause that grows, and that not all clients have at once.
fn back_off(attempt: u32) -> Duration {
    let mut random = [0; 1];
    // Without a random number all wait the same.
    let _ = getrandom::fill(&mut random);
    Duration::from_millis(100 * 3_u64.pow(attempt) + u64::from(random[0]))
}

fn slow(url: &Url) -> SubstituterError {
    SubstituterError::Slow {
        url: url.to_string(),
    }
}

fn unreachable(url: &Url, error: reqwest::Error) -> SubstituterError {
    SubstituterError::Unreachable {
        url: url.to_string(),
        // The URL is said already.
        source: Box::new(error.without_url()),
    }
}

/// Looks whether a server sends at a pace that is worth waiting for.
struct Pace {
    timeout: Duration,
    waited: Duration,
    bytes: u64,
}

/// Bytes that must come while as long is waited as for anything.
const SLOWEST: u64 = 16 << 10;

impl Pace {
    fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// The next bytes of a body.
    async fn chunk(&mut self, response: &mut Response, url: &Url) -> Result<Option<bytes::Bytes>> {
        let begin = tokio::time::Instant::now();
        let chunk = match timeout(self.timeout, response.chunk()).await {
            Err(_elapsed) => return Err(slow(url)),
            Ok(Err(error)) => return Err(unreachable(url, error)),
            Ok(Ok(chunk)) => chunk,
        };
        self.waited += begin.elapsed();
        self.bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.waited > self.timeout {
            if chunk.is_some() && self.bytes < SLOWEST {
                return Err(slow(url));
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Ok(chunk)
    }
}
