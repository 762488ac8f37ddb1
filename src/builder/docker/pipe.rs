//! Between archives, which are written and read in threads, and the engine's
//! asynchronous streams.

use std::io::{self, Read, Write};
use std::sync::mpsc as blocking;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Takes bytes from a thread.
pub(super) struct Writing(pub(super) mpsc::Sender<io::Result<Bytes>>);

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_gone| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives bytes to a thread.
pub(super) struct Reading {
    pieces: blocking::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Reading {
    pub(super) fn new(pieces: blocking::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            pieces,
            rest: Bytes::new(),
        }
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.recv() {
                Ok(piece) => self.rest = piece?,
                Err(_end) => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}
