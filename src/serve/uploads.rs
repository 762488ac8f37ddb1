//! Archives that somebody sends.
//!
//! A body is written under a name that nobody asks for, hashed on its way, and
//! renamed only when its SHA-256 is the one in its path. What a kill leaves
//! behind is thrown away by the next server that begins to write here.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::reply::Reply;
use crate::digest::{ContentHash, ContentHasher};
use crate::fs::{self, FsError, Lock};

/// How long a client may send nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// Bodies that are received at the same time; others wait.
const AT_ONCE: usize = 16;
/// Pieces that wait to be written.
const AHEAD: usize = 8;
/// Where they are before they are whole.
const FOLDER: &str = ".uploads";

/// The place of archives that are not whole.
pub(crate) struct Uploads {
    folder: PathBuf,
    permits: Semaphore,
    /// Tells others that the folder is in use.
    _lock: Lock,
}

/// A body that was received.
pub(crate) struct Received {
    path: PathBuf,
    size: u64,
    sha256: ContentHash,
}

/// Why a body is not received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("the body does not come")]
    Silent,
    #[error("the body broke off")]
    Broken,
    #[error("the body has more than {0} bytes")]
    TooLarge(u64),
    #[error("the server's disk is full")]
    Full,
    #[error("the body cannot be written")]
    File(#[from] FsError),
    #[error("the body cannot be written")]
    Task(#[from] tokio::task::JoinError),
}

impl ReceiveError {
    /// What a client is told.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Silent => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Full => StatusCode::INSUFFICIENT_STORAGE,
            Self::File(_) | Self::Task(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<ReceiveError> for Reply {
    fn from(error: ReceiveError) -> Self {
        match error.status() {
            StatusCode::INTERNAL_SERVER_ERROR => Self::failure(&error),
            status => Self::line(status, error),
        }
    }
}

enum Piece {
    Bytes(Bytes),
    End,
}

impl Uploads {
    /// Makes a place of its own below a published folder, and throws away those
    /// of servers that are gone.
    pub(crate) fn begin(root: &Path) -> Result<Self, FsError> {
        let _lock = Lock::exclusive(&root.join(".lock"))?;
        for left in fs::list(&root.join(FOLDER))? {
            // One that ends just now takes its own away.
            if let Ok(Some(_lock)) = Lock::try_exclusive(&left.join("lock")) {
                fs::remove_dir_all(&left)?;
            }
        }
        let folder = fs::unique_beside(&root.join(FOLDER).join("server"));
        fs::create_dir_all(&folder)?;
        Ok(Self {
            _lock: Lock::exclusive(&folder.join("lock"))?,
            folder,
            permits: Semaphore::new(AT_ONCE),
        })
    }

    /// A folder for what is made of a body, gone at the latest with this server.
    pub(crate) fn scratch(&self) -> PathBuf {
        fs::unique_beside(&self.folder.join("scratch"))
    }

    /// Receives a body of at most `limit` bytes.
    pub(crate) async fn receive<B: Body<Data = Bytes> + Unpin>(
        &self,
        body: &mut B,
        limit: u64,
    ) -> Result<Received, ReceiveError> {
        let _permit = self.permits.acquire().await;
        let path = fs::unique_beside(&self.folder.join("archive"));
        let (pieces, waiting) = channel(AHEAD);
        let writer = spawn_blocking(move || write(path, waiting));
        let sent = send(body, limit, &pieces).await;
        drop(pieces);
        let written = writer.await;
        sent?;
        match written? {
            Ok(Some(received)) => Ok(received),
            Ok(None) => Err(ReceiveError::Broken),
            Err(error) if error.is_full() => Err(ReceiveError::Full),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        // Otherwise the next server does.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Received {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn sha256(&self) -> ContentHash {
        self.sha256
    }

    /// Puts it into its place.
    pub(super) fn place(mut self, to: &Path) -> Result<(), FsError> {
        fs::sync(&self.path)?;
        fs::rename(&self.path, to)?;
        self.path.clear();
        Ok(())
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The next bytes of a body.
pub(super) async fn next<B: Body<Data = Bytes> + Unpin>(
    body: &mut B,
) -> Result<Option<Bytes>, ReceiveError> {
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        return match timeout(SILENCE, frame).await {
            Err(_elapsed) => Err(ReceiveError::Silent),
            Ok(None) => Ok(None),
            Ok(Some(Err(_broken))) => Err(ReceiveError::Broken),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => Ok(Some(bytes)),
                Err(_trailers) => continue,
            },
        };
    }
}

/// All of a body of at most `limit` bytes.
pub(super) async fn whole(body: &mut Incoming, limit: u64) -> Result<Vec<u8>, ReceiveError> {
    if body.size_hint().lower() > limit {
        return Err(ReceiveError::TooLarge(limit));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = next(body).await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > limit {
            return Err(ReceiveError::TooLarge(limit));
        }
    }
    Ok(bytes)
}

async fn send<B: Body<Data = Bytes> + Unpin>(
    body: &mut B,
    limit: u64,
    to: &Sender<Piece>,
) -> Result<(), ReceiveError> {
    if body.size_hint().lower() > limit {
        return Err(ReceiveError::TooLarge(limit));
    }
    let mut size = 0;
    while let Some(piece) = next(body).await? {
        size += piece.len() as u64;
        if size > limit {
            return Err(ReceiveError::TooLarge(limit));
        }
        if to.send(Piece::Bytes(piece)).await.is_err() {
            return Ok(()); // the writer says why
        }
    }
    let _ = to.send(Piece::End).await;
    Ok(())
}

/// Writes what comes to a new file; nothing is left of what breaks off.
fn write(path: PathBuf, mut pieces: Receiver<Piece>) -> Result<Option<Received>, FsError> {
    let mut file = fs::create(&path)?;
    let mut received = Received {
        path,
        size: 0,
        sha256: ContentHash::of(b""),
    };
    let mut hasher = ContentHasher::default();
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) => {
                hasher.update(&bytes);
                fs::at("write", &received.path, file.write_all(&bytes))?;
                received.size += bytes.len() as u64;
            }
            Piece::End => {
                received.sha256 = hasher.finish();
                return Ok(Some(received));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pieces: Vec<Piece>) -> (tempfile::TempDir, Option<Received>) {
        let folder = tempfile::tempdir().unwrap();
        let (to, waiting) = channel(AHEAD);
        for piece in pieces {
            assert!(to.try_send(piece).is_ok());
        }
        drop(to);
        let received = write(folder.path().join("a"), waiting).unwrap();
        (folder, received)
    }

    #[test]
    fn what_breaks_off_leaves_nothing() {
        let piece = || Piece::Bytes(Bytes::from_static(b"piece"));
        let (folder, received) = written(vec![piece()]);
        assert!(received.is_none());
        assert_eq!(fs::list(folder.path()).unwrap(), [] as [PathBuf; 0]);
        let (folder, received) = written(vec![piece(), Piece::End]);
        let received = received.unwrap();
        assert_eq!(received.sha256(), ContentHash::of(b"piece"));
        drop(received);
        assert_eq!(fs::list(folder.path()).unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn leftovers_of_the_dead_go_and_those_of_the_living_stay() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(FOLDER).join("server.1-0.tmp");
        fs::create_dir_all(&left).unwrap();
        fs::write(&left.join("archive"), b"half").unwrap();
        let first = Uploads::begin(folder.path()).unwrap();
        assert!(!left.exists());
        let second = Uploads::begin(folder.path()).unwrap();
        assert!(first.folder.is_dir() && second.folder.is_dir());
        drop(first);
        assert!(second.folder.is_dir());
    }
}
