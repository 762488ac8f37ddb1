//! The back end for buckets: S3 and what speaks like it, Google Cloud Storage,
//! Azure. Nothing else names their client.
//!
//! It works through the HTTP client of `web`, so proxies, redirects and
//! certificates are as everywhere. A document is replaced by a conditional
//! request, an archive is put there whole.

mod download;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{
    ClientOptions, Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, PutPayload, RetryConfig, UpdateVersion, WriteMultipart,
};
use tokio::time::timeout;

use super::backend::{Added, Backend, Change, Content, FRESH, Held, Listed, Version, Writer};
use super::document::INFO;
use super::web::{Url, Web, is_loopback};
use super::{ArchiveRef, Result, SubstituterError};
use crate::config::SubstituterSettings;
use crate::environment::Environment;
use crate::fs::{self, Time};

/// Requests at the same time for documents.
const PARALLEL: usize = 64;
/// Requests for one thing.
const ATTEMPTS: usize = 3;
/// How many silences one thing may take.
const PATIENCE: u32 = 6;
/// Bytes in a second that are worth waiting for.
const SLOWEST: u64 = 32 << 10;
/// Bytes that are sent in one piece.
const PIECE: usize = 16 << 20;

/// A bucket, or a folder in it.
pub(super) struct Objects {
    url: Url,
    prefix: ObjectPath,
    store: Arc<dyn ObjectStore>,
    /// Its client and its runtime.
    web: Web,
    timeout: Duration,
}

/// Lends the one HTTP client.
struct Lent(HttpClient);

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lent")
    }
}

impl HttpConnector for Lent {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

impl Objects {
    pub(super) fn new(
        url: Url,
        settings: &SubstituterSettings,
        environment: &Environment,
    ) -> Result<Self> {
        let refuse = |reason| SubstituterError::Location {
            text: settings.endpoint.clone().unwrap_or_default(),
            reason,
        };
        let endpoint = match &settings.endpoint {
            None => None,
            Some(text) => Some(Url::parse(text).map_err(|_syntax| refuse("it is not a URL"))?),
        };
        // It decides about proxies; the requests themselves go where they go.
        let base = endpoint
            .clone()
            .unwrap_or_else(|| Url::parse("https://storage.invalid").expect("a constant is a URL"));
        if !super::web::is_safe(&base) {
            return Err(refuse("`endpoint` is neither `https` nor on this machine"));
        }
        let web = Web::with(base, None, settings, environment)?;
        let maker = Maker {
            bucket: url.host_str().unwrap_or_default(),
            endpoint: endpoint.as_ref(),
            client: HttpClient::new(web.client()),
            retry: RetryConfig {
                max_retries: ATTEMPTS - 1,
                retry_timeout: settings.timeout * PATIENCE,
                ..RetryConfig::default()
            },
            environment,
        };
        let made = match url.scheme() {
            "s3" => maker.s3(),
            "gs" => maker.google(),
            _ => maker.azure(),
        };
        let store = made.map_err(|source| SubstituterError::Client {
            source: Box::new(source),
        })?;
        Ok(Self {
            prefix: ObjectPath::from(url.path()),
            url,
            store,
            web,
            timeout: settings.timeout,
        })
    }

    fn path(&self, path: &str) -> ObjectPath {
        ObjectPath::from(format!("{}/{path}", self.prefix))
    }

    fn place(&self, path: &str) -> String {
        format!("{}/{path}", self.url.as_str().trim_end_matches('/'))
    }

    /// Waits for what moves so many bytes.
    fn within<T>(
        &self,
        path: &str,
        bytes: u64,
        task: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let longest = self.timeout * PATIENCE + Duration::from_secs(bytes / SLOWEST);
        let done = self.web.block_on(async { timeout(longest, task).await });
        match done {
            Ok(done) => done.map_err(|error| failed(self.place(path), error)),
            Err(_elapsed) => Err(SubstituterError::Slow {
                url: self.place(path),
            }),
        }
    }
}

/// What a client of a bucket is made from.
struct Maker<'a> {
    bucket: &'a str,
    endpoint: Option<&'a Url>,
    client: HttpClient,
    retry: RetryConfig,
    environment: &'a Environment,
}

type Made = object_store::Result<Arc<dyn ObjectStore>>;

/// Applies the variables with a prefix that a builder knows, as its `from_env`
/// does with those of the process.
macro_rules! with_variables {
    ($builder:expr, $environment:expr, $prefix:literal) => {{
        let mut builder = $builder;
        for (name, value) in $environment.matching(|name| name.starts_with($prefix)) {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        builder
    }};
}

impl Maker<'_> {
    fn s3(self) -> Made {
        let mut builder = with_variables!(AmazonS3Builder::new(), self.environment, "AWS_");
        if let Some(endpoint) = self.endpoint {
            builder = builder
                .with_endpoint(endpoint.as_str().trim_end_matches('/'))
                .with_allow_http(is_loopback(endpoint));
        }
        builder = builder.with_bucket_name(self.bucket);
        let builder = builder.with_http_connector(Lent(self.client));
        Ok(Arc::new(builder.with_retry(self.retry).build()?))
    }

    fn google(self) -> Made {
        let builder = GoogleCloudStorageBuilder::new();
        let mut builder = with_variables!(builder, self.environment, "GOOGLE_");
        if let Some(endpoint) = self.endpoint {
            let options = ClientOptions::new().with_allow_http(is_loopback(endpoint));
            builder = builder
                .with_base_url(endpoint.as_str().trim_end_matches('/'))
                .with_client_options(options);
        }
        builder = builder.with_bucket_name(self.bucket);
        let builder = builder.with_http_connector(Lent(self.client));
        Ok(Arc::new(builder.with_retry(self.retry).build()?))
    }

    fn azure(self) -> Made {
        let builder = MicrosoftAzureBuilder::new();
        let mut builder = with_variables!(builder, self.environment, "AZURE_");
        if let Some(endpoint) = self.endpoint {
            builder = builder
                .with_endpoint(endpoint.as_str().trim_end_matches('/').to_owned())
                .with_allow_http(is_loopback(endpoint));
        }
        builder = builder.with_container_name(self.bucket);
        let builder = builder.with_http_connector(Lent(self.client));
        Ok(Arc::new(builder.with_retry(self.retry).build()?))
    }
}

fn failed(url: String, error: Error) -> SubstituterError {
    match error {
        Error::NotFound { .. } => SubstituterError::Status { url, status: 404 },
        Error::PermissionDenied { .. } => SubstituterError::Denied { url, status: 403 },
        Error::Unauthenticated { .. } => SubstituterError::Denied { url, status: 401 },
        error => SubstituterError::Unreachable {
            url,
            source: Box::new(error),
        },
    }
}

fn too_large(url: String, limit: u64) -> SubstituterError {
    SubstituterError::TooLarge { url, limit }
}

fn time(meta: &ObjectMeta) -> Option<Time> {
    meta.last_modified.timestamp_nanos_opt().map(Time)
}

fn version(meta: ObjectMeta) -> Version {
    Version {
        tag: meta.e_tag,
        number: meta.version,
    }
}

/// An object of at most `limit` bytes, unless it is larger.
type Got = Option<std::result::Result<(ObjectMeta, Vec<u8>), u64>>;

async fn get(store: &dyn ObjectStore, path: &ObjectPath, limit: u64) -> object_store::Result<Got> {
    let got = match store.get_opts(path, GetOptions::default()).await {
        Ok(got) => got,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let meta = got.meta.clone();
    if meta.size > limit {
        return Ok(Some(Err(meta.size)));
    }
    let bytes = got.bytes().await?;
    Ok(Some(Ok((meta, bytes.to_vec()))))
}

impl Backend for Objects {
    fn get(&self, paths: &[String], limit: u64) -> Result<Vec<Option<Vec<u8>>>> {
        let store = &*self.store;
        let answers = stream::iter(paths.iter()).map(|path| async move {
            match get(store, &self.path(path), limit).await {
                // Some buckets answer so for what they do not have.
                Err(Error::PermissionDenied { .. }) if path != INFO => Ok(None),
                other => other,
            }
        });
        let answers = answers.buffered(PARALLEL).try_collect::<Vec<_>>();
        let first = paths.first().map_or("", String::as_str);
        let answers = self.within(first, 0, answers)?;
        let answers = answers.into_iter().zip(paths);
        answers
            .map(|(answer, path)| match answer {
                None => Ok(None),
                Some(Ok((_, bytes))) => Ok(Some(bytes)),
                Some(Err(_size)) => Err(too_large(self.place(path), limit)),
            })
            .collect()
    }

    fn open(&self, path: &str, _size: u64, until: Instant) -> Result<Box<dyn Read + Send>> {
        let wanted = download::Wanted {
            store: Arc::clone(&self.store),
            path: self.path(path),
            url: self.place(path),
            until: until.into(),
            timeout: self.timeout,
        };
        Ok(Box::new(download::start(&self.web, wanted)))
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }
}

impl Writer for Objects {
    fn read(&self, path: &str, limit: u64) -> Result<Option<Held>> {
        let object = self.path(path);
        match self.within(path, limit, get(&*self.store, &object, limit))? {
            None => Ok(None),
            Some(Err(_size)) => Err(too_large(self.place(path), limit)),
            Some(Ok((meta, bytes))) => Ok(Some(Held {
                bytes,
                modified: time(&meta),
                version: version(meta),
            })),
        }
    }

    fn add(&self, path: &str, file: &Path, archive: ArchiveRef) -> Result<Added> {
        let object = self.path(path);
        let there = self.within(path, 0, async {
            match self.store.head(&object).await {
                Err(Error::NotFound { .. }) => Ok(None),
                other => other.map(Some),
            }
        })?;
        let is_fresh = |meta: &ObjectMeta| {
            let age = time(meta).and_then(Time::age);
            meta.size == archive.size && age.is_some_and(|age| age < FRESH)
        };
        if there.as_ref().is_some_and(is_fresh) {
            return Ok(Added::Existing);
        }
        if archive.size <= PIECE as u64 {
            let payload = PutPayload::from(fs::read(file)?);
            self.within(path, archive.size, self.store.put(&object, payload))?;
            return Ok(Added::New);
        }
        // It becomes visible when all parts are there.
        let mut content = fs::open(file)?;
        self.within(path, archive.size, async {
            let upload = self.store.put_multipart(&object).await?;
            let mut parts = WriteMultipart::new_with_chunk_size(upload, PIECE);
            let mut piece = vec![0; PIECE];
            loop {
                let count = match content.read(&mut piece) {
                    Ok(count) => count,
                    Err(source) => {
                        parts.abort().await?;
                        return Err(Error::Generic {
                            store: "file",
                            source: Box::new(source),
                        });
                    }
                };
                if count == 0 {
                    return parts.finish().await;
                }
                parts.write(&piece[..count]);
                parts.wait_for_capacity(2).await?;
            }
        })?;
        Ok(Added::New)
    }

    fn replace(
        &self,
        path: &str,
        content: Content<'_>,
        before: Option<&Version>,
    ) -> Result<Change> {
        let options = PutOptions::from(match before {
            None => PutMode::Create,
            Some(version) => PutMode::Update(UpdateVersion {
                e_tag: version.tag.clone(),
                version: version.number.clone(),
            }),
        });
        let payload = PutPayload::from(content.bytes.to_vec());
        let object = self.path(path);
        let size = content.bytes.len() as u64;
        self.within(path, size, async {
            match self.store.put_opts(&object, payload, options).await {
                Ok(_) => Ok(Change::Done),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Change::Lost),
                Err(error) => Err(error),
            }
        })
    }

    fn list(&self) -> Result<Vec<Listed>> {
        let prefix = Some(&self.prefix).filter(|prefix| !prefix.as_ref().is_empty());
        // However many there are, each thousand comes with one answer.
        let all = self.store.list(prefix).try_collect::<Vec<_>>();
        let all = self.within("", 64 << 20, all)?;
        let listed = all.into_iter().filter_map(|meta| {
            let parts = meta.location.prefix_match(&self.prefix)?;
            let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
            Some(Listed {
                path: parts.join("/"),
                size: meta.size,
                modified: time(&meta),
            })
        });
        Ok(listed.collect())
    }

    fn remove(&self, path: &str, before: Option<&Version>) -> Result<Change> {
        let object = self.path(path);
        self.within(path, 0, async {
            if before.is_some() {
                let now = match self.store.head(&object).await {
                    Ok(meta) => Some(version(meta)),
                    Err(Error::NotFound { .. }) => None,
                    Err(error) => return Err(error),
                };
                if now.as_ref() != before {
                    return Ok(Change::Lost);
                }
            }
            match self.store.delete(&object).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(Change::Done),
                Err(error) => Err(error),
            }
        })
    }
}
