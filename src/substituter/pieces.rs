//! A file that comes in pieces while somebody reads it.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Result;

/// Pieces that wait for the reader.
const AHEAD: usize = 16;

/// The end at which pieces are put in; an error is the last one.
pub(super) type PieceSender = Sender<Result<Bytes>>;

/// The end at which they are read.
pub(super) struct Pieces {
    pieces: Receiver<Result<Bytes>>,
    current: Bytes,
}

/// Both ends.
pub(super) fn pieces() -> (PieceSender, Pieces) {
    let (to, pieces) = channel(AHEAD);
    let current = Bytes::new();
    (to, Pieces { pieces, current })
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(Ok(piece)) => self.current = piece,
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
