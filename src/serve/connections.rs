//! Connections: accepted within a bound, watched, and ended in order.
//!
//! * No more than so many at once; others wait in the system's queue.
//! * A connection on which nothing moves is ended, unless the server is at work
//!   for it.
//! * When the server stops, requests under way are answered within a bound.
//!
//! What is answered is for an [`Application`] to say.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{Either, select};
use hyper::body::Body;
pub use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::threads::Threads;
use super::tls::{self, TlsError, TlsFiles};

/// How long nothing may move on a connection.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes of an answer that wait for a client, beyond what the system holds: a
/// thousand that do not read must fit into memory.
const WAITING: usize = 128 << 10;
/// How long the head of a request may take, and a TLS handshake.
const HEAD: Duration = Duration::from_secs(20);
/// Requests at once on a connection of HTTP/2.
const STREAMS: u32 = 128;
/// Bytes that wait to be sent on one stream of HTTP/2.
const STREAM_BUFFER: usize = 128 << 10;

/// What answers requests.
pub trait Application: Send + Sync + 'static {
    /// What it answers with.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + 'static;

    /// Answers a request of an address.
    fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        from: IpAddr,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// A connection was accepted.
    fn connected(&self);

    /// It has ended.
    fn disconnected(&self);
}

/// What a server listens with.
pub struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    connections: usize,
    grace: Duration,
    threads: Option<Threads>,
}

impl Door {
    /// Binds an address. `grace` is how long requests may still take when the
    /// server stops.
    pub async fn open(
        address: SocketAddr,
        connections: usize,
        grace: Duration,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            tls: None,
            connections,
            grace,
            threads: None,
        })
    }

    /// The same where each connection stays in one thread of these, for answers that
    /// wait for nothing that lives in another.
    pub fn with_threads(mut self, threads: Threads) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The same with a certificate, if there is one.
    pub fn with_tls(mut self, files: Option<&TlsFiles>) -> Result<Self, TlsError> {
        self.tls = files.map(tls::acceptor).transpose()?;
        Ok(self)
    }

    /// The address, with the port that was taken.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` becomes true; gives how many connections had to be
    /// cut then.
    pub async fn serve<A: Application>(self, site: Arc<A>, stop: watch::Receiver<bool>) -> usize {
        let limit = u32::try_from(self.connections).unwrap_or(u32::MAX);
        let permits = Arc::new(Semaphore::new(self.connections));
        while let Some((stream, from, permit)) = self.next(&permits, &stop).await {
            let (site, stop, tls) = (Arc::clone(&site), stop.clone(), self.tls.clone());
            let serve = async move {
                site.connected();
                // Gone again, or no descriptor is left.
                if let Ok(stream) = TcpStream::from_std(stream) {
                    greet(stream, from, &site, tls, stop).await;
                }
                site.disconnected();
                drop(permit);
            };
            match &self.threads {
                Some(threads) => threads.next().spawn(serve),
                None => tokio::spawn(serve),
            };
        }
        drop(self.listener);
        let all = timeout(self.grace, permits.acquire_many(limit)).await;
        match all {
            Ok(_) => 0,
            Err(_elapsed) => self.connections - permits.available_permits(),
        }
    }

    /// The next connection; none when the server stops.
    async fn next(
        &self,
        permits: &Arc<Semaphore>,
        stop: &watch::Receiver<bool>,
    ) -> Option<(std::net::TcpStream, IpAddr, OwnedSemaphorePermit)> {
        let accept = async {
            let permit = Arc::clone(permits).acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            loop {
                // It may be another thread's from here on.
                let accepted = self.listener.accept().await;
                match accepted.and_then(|(stream, from)| Ok((stream.into_std()?, from))) {
                    Ok((stream, from)) => return (stream, from.ip().to_canonical(), permit),
                    // Gone again, or no file descriptor is left.
                    Err(_error) => sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let mut stop = stop.clone();
        let stopped = stop.wait_for(|stop| *stop);
        match select(pin!(accept), pin!(stopped)).await {
            Either::Left((accepted, _)) => Some(accepted),
            Either::Right(_) => None,
        }
    }
}

/// Serves one connection, behind TLS if there is a certificate.
async fn greet<A: Application>(
    stream: TcpStream,
    from: IpAddr,
    site: &Arc<A>,
    tls: Option<TlsAcceptor>,
    stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => talk(stream, from, site, stop).await,
        Some(tls) => {
            // Whoever does not speak TLS has nothing to say here.
            if let Ok(Ok(stream)) = timeout(HEAD, tls.accept(stream)).await {
                talk(stream, from, site, stop).await;
            }
        }
    }
}

/// Serves one connection.
async fn talk<I, A>(stream: I, from: IpAddr, site: &Arc<A>, mut stop: watch::Receiver<bool>)
where
    A: Application,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let service = service_fn(|request| {
        let (site, activity) = (Arc::clone(site), Arc::clone(&activity));
        async move {
            let _busy = activity.work();
            Ok::<_, io::Error>(site.respond(request, from).await)
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(WAITING)
        .header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(STREAM_BUFFER)
        .max_header_list_size(16 << 10);
    let stream = Watched {
        stream,
        activity: Arc::clone(&activity),
    };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut is_ending = *stop.borrow();
    if is_ending {
        connection.as_mut().graceful_shutdown();
    }
    loop {
        let pause = activity.until_idle(IDLE);
        let disturbed = async {
            if is_ending {
                sleep(pause).await;
                return;
            }
            let stopped = stop.wait_for(|stop| *stop);
            let _ = select(pin!(sleep(pause)), pin!(stopped)).await;
        };
        match select(connection.as_mut(), pin!(disturbed)).await {
            // A client that hangs up is no news.
            Either::Left(_) => return,
            Either::Right(_) => {}
        }
        let is_idle = activity.until_idle(IDLE).is_zero();
        if is_idle && is_ending {
            return;
        }
        if is_idle || *stop.borrow() {
            is_ending = true;
            connection.as_mut().graceful_shutdown();
        }
        if is_idle {
            // An HTTP/2 client is told first.
            let _ = timeout(Duration::from_secs(1), connection.as_mut()).await;
            return;
        }
    }
}

/// When something last moved on a connection.
struct Activity {
    begin: Instant,
    /// Milliseconds after the beginning.
    last: AtomicU64,
    /// Requests that the server is at work for.
    busy: AtomicUsize,
}

impl Activity {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            last: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
        }
    }

    fn note(&self) {
        let now = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn work(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// How much longer it may stay as it is.
    fn until_idle(&self, limit: Duration) -> Duration {
        if self.busy.load(Ordering::Relaxed) > 0 {
            return limit;
        }
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        limit.saturating_sub(self.begin.elapsed().saturating_sub(last))
    }
}

struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.note();
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that notes when bytes move.
struct Watched<I> {
    stream: I,
    activity: Arc<Activity>,
}

impl<I> Watched<I> {
    fn noted<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(result, Poll::Ready(Ok(_))) {
            self.activity.note();
        }
        result
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.noted(read)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
