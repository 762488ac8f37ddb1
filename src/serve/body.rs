//! Bodies of answers: nothing, bytes, or a file in pieces.
//!
//! A client that reads slowly holds one piece of a file and no more. What the
//! system has in memory is read at once, as it is for a static file server;
//! only what must come from a device goes through another thread.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use super::log::Record;
use crate::fs::{self, File, FsError};

/// Bytes that are read at once: a piece that stays in a processor's cache
/// between reading and sending.
const PIECE: usize = 64 << 10;
/// Buffers that are kept for the next piece.
const KEPT: usize = 32;
/// Bytes of an answer in parts that are put together at once.
const PART: usize = 64 << 10;

/// What is sent.
pub(super) enum Content {
    /// Nothing.
    Empty,
    /// Bytes.
    Whole(Bytes),
    /// A part of a file.
    File(Box<FilePart>),
    /// Parts that lie in memory for all who ask, one behind the other.
    Parts(Parts),
}

impl Content {
    /// How many bytes are left.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Whole(bytes) => bytes.len() as u64,
            Self::File(part) => part.left,
            Self::Parts(parts) => parts.left,
        }
    }

    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)))
            }
            Self::File(part) => part.next(context),
            Self::Parts(parts) => Poll::Ready(parts.next().map(Ok)),
        }
    }
}

/// Parts that are sent one behind the other.
pub(super) struct Parts {
    parts: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl Parts {
    pub(super) fn new(parts: Vec<Bytes>) -> Self {
        let left = parts.iter().map(|part| part.len() as u64).sum();
        Self {
            parts: parts.into_iter(),
            left,
        }
    }

    /// Small parts are put together, so that each write has something to write.
    fn next(&mut self) -> Option<Bytes> {
        let first = self.parts.next()?;
        let next = self.parts.as_slice().first();
        let bytes = if next.is_none_or(|next| first.len() + next.len() > PART) {
            first
        } else {
            let mut together = BytesMut::with_capacity(PART);
            together.extend_from_slice(&first);
            while let Some(next) = self.parts.as_slice().first()
                && together.len() + next.len() <= PART
            {
                together.extend_from_slice(next);
                self.parts.next();
            }
            together.freeze()
        };
        self.left -= bytes.len() as u64;
        Some(bytes)
    }
}

/// A part of a file that is open.
pub(super) struct FilePart {
    file: Arc<File>,
    path: Arc<PathBuf>,
    offset: u64,
    left: u64,
    pool: Arc<Pool>,
    reading: Option<JoinHandle<Reading>>,
}

type Reading = (Box<[u8]>, Result<usize, FsError>);

impl FilePart {
    pub(super) fn new(file: Arc<File>, path: Arc<PathBuf>, pool: Arc<Pool>) -> Self {
        Self {
            file,
            path,
            offset: 0,
            left: 0,
            pool,
            reading: None,
        }
    }

    /// From here, so many bytes.
    pub(super) fn part(mut self, offset: u64, size: u64) -> Content {
        (self.offset, self.left) = (offset, size);
        Content::File(Box::new(self))
    }

    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let (buffer, read) = match &mut self.reading {
            Some(reading) => {
                let done = ready!(Pin::new(reading).poll(context));
                self.reading = None;
                match done {
                    Ok(done) => done,
                    Err(error) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                }
            }
            None => {
                let mut buffer = self.pool.take();
                let size = usize::try_from(self.left).map_or(PIECE, |left| left.min(PIECE));
                let target = &mut buffer[..size];
                match fs::read_at_once(&self.file, &self.path, self.offset, target).transpose() {
                    Some(read) => (buffer, read),
                    None => {
                        self.reading = Some(self.wait(buffer, size));
                        return self.next(context);
                    }
                }
            }
        };
        let count = match read {
            Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            Ok(count) => count,
            Err(error) => return Poll::Ready(Some(Err(io::Error::other(error)))),
        };
        self.offset += count as u64;
        self.left -= count as u64;
        let piece = Piece {
            buffer,
            size: count,
            pool: Arc::clone(&self.pool),
        };
        Poll::Ready(Some(Ok(Bytes::from_owner(piece))))
    }

    fn wait(&self, mut buffer: Box<[u8]>, size: usize) -> JoinHandle<Reading> {
        let (file, path) = (Arc::clone(&self.file), Arc::clone(&self.path));
        let offset = self.offset;
        spawn_blocking(move || {
            let read = fs::read_at(&file, &path, offset, &mut buffer[..size]);
            (buffer, read)
        })
    }
}

/// Buffers that are used again and again.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Box<[u8]>>>);

impl Pool {
    fn take(&self) -> Box<[u8]> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; PIECE].into_boxed_slice())
    }

    fn give_back(&self, buffer: Box<[u8]>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT && !buffer.is_empty() {
            kept.push(buffer);
        }
    }
}

/// Bytes of a file, in a buffer of the pool.
struct Piece {
    buffer: Box<[u8]>,
    size: usize,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.size]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.buffer));
    }
}

/// A body that is logged when it is gone, whole or not.
pub(super) struct Answer {
    content: Content,
    record: Record,
}

impl Answer {
    pub(super) fn new(content: Content, record: Record) -> Self {
        Self { content, record }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = ready!(self.content.next(context));
        if let Some(Ok(bytes)) = &next {
            self.record.sent(bytes.len() as u64);
        }
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.content.size() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_parts_are_sent_together_and_in_order() {
        let parts: Vec<Bytes> = (0..5_000_u32)
            .map(|n| Bytes::from(format!("<{n}>")))
            .collect();
        let whole = parts.concat();
        let mut parts = Parts::new(parts);
        assert_eq!(parts.left, whole.len() as u64);
        let mut sent = Vec::new();
        let mut writes = 0;
        while let Some(bytes) = parts.next() {
            sent.extend_from_slice(&bytes);
            writes += 1;
        }
        assert_eq!((sent, parts.left), (whole, 0));
        assert_eq!(writes, 1);
        let large = vec![Bytes::from(vec![1; PART]), Bytes::from(vec![2; PART])];
        let mut parts = Parts::new(large);
        assert_eq!(parts.next().map(|bytes| bytes.len()), Some(PART));
    }

    #[test]
    fn buffers_come_back() {
        let pool = Arc::new(Pool::default());
        let piece = Piece {
            buffer: pool.take(),
            size: 3,
            pool: Arc::clone(&pool),
        };
        let bytes = Bytes::from_owner(piece);
        assert_eq!(bytes.len(), 3);
        drop(bytes);
        assert_eq!(pool.0.lock().unwrap().len(), 1);
        let _again = pool.take();
        assert_eq!(pool.0.lock().unwrap().len(), 0);
    }
}
