//! An archive that comes while somebody reads it.

use std::io::{self, Read};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{Either, select};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode, Url};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Asker, Attempt, Pace, back_off, slow};
use crate::substituter::{Result, SubstituterError};

/// Pieces that wait for the reader.
const AHEAD: usize = 16;
/// How often the rest is asked for.
const PARTS: u32 = 6;

type Piece = Result<Bytes>;

/// Reads what a task of the runtime receives.
pub(super) struct Download {
    pieces: Receiver<Piece>,
    current: Bytes,
}

/// What is to be received.
pub(super) struct Wanted {
    pub(super) url: Url,
    /// Bytes that it should have.
    pub(super) size: u64,
    /// When it is of no use any more.
    pub(super) until: Instant,
}

/// Begins to receive a file.
pub(super) fn start(runtime: &Runtime, asker: Arc<Asker>, wanted: Wanted) -> Download {
    let (to, pieces) = channel(AHEAD);
    runtime.spawn(async move {
        let Wanted { url, size, until } = wanted;
        let receiving = pin!(timeout_at(until, receive(&asker, &url, size, &to)));
        // There never is a permit, so this waits until it is closed.
        let stopped = pin!(asker.running.acquire());
        let received = match select(receiving, stopped).await {
            Either::Left((received, _)) => received,
            Either::Right(_) => Ok(Err(slow(&url))),
        };
        if let Err(error) = received.unwrap_or_else(|_elapsed| Err(slow(&url))) {
            let _ = to.send(Err(error)).await; // nobody may be reading any more
        }
    });
    Download {
        pieces,
        current: Bytes::new(),
    }
}

impl Read for Download {
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

/// Receives all parts of a file.
async fn receive(asker: &Asker, url: &Url, size: u64, to: &Sender<Piece>) -> Result<()> {
    let mut received = 0;
    let mut part = 0;
    loop {
        part += 1;
        let broken = match receive_part(asker, url, &mut received, to).await? {
            // A whole body that is too short, or an empty file.
            None if received >= size || part == PARTS => return Ok(()),
            None => None,
            Some((error, _)) if part == PARTS => return Err(error),
            Some((_, pause)) => pause,
        };
        if received > size {
            return Ok(()); // whoever reads it sees that it is too long
        }
        sleep(broken.unwrap_or_else(|| back_off(part.min(3)))).await;
    }
}

type Broken = (SubstituterError, Option<std::time::Duration>);

/// Receives what is missing, as far as the connection lasts. Gives what broke
/// it, if that may go better next time.
async fn receive_part(
    asker: &Asker,
    url: &Url,
    received: &mut u64,
    to: &Sender<Piece>,
) -> Result<Option<Broken>> {
    let mut request = asker.client.get(url.clone());
    if *received > 0 {
        request = request.header(RANGE, format!("bytes={received}-"));
    }
    let mut response = match asker.send(url, request).await? {
        Attempt::Done(Some(response)) => response,
        Attempt::Done(None) => {
            return Err(SubstituterError::Status {
                url: url.to_string(),
                status: StatusCode::NOT_FOUND.as_u16(),
            });
        }
        Attempt::Again(error, pause) => return Ok(Some((error, pause))),
    };
    let mut known = passed_over(&response, *received, url)?;
    let mut pace = Pace::new(asker.timeout);
    loop {
        match pace.chunk(&mut response, url).await {
            Ok(None) => return Ok(None),
            Ok(Some(mut chunk)) => {
                let skipped = known.min(chunk.len() as u64);
                known -= skipped;
                let chunk = chunk.split_off(usize::try_from(skipped).unwrap_or(chunk.len()));
                *received += chunk.len() as u64;
                if !chunk.is_empty() && to.send(Ok(chunk)).await.is_err() {
                    return Ok(None); // nobody reads any more
                }
            }
            Err(error @ SubstituterError::Slow { .. }) => return Err(error),
            Err(error) => return Ok(Some((error, None))),
        }
    }
}

/// How many bytes of an answer are here already.
fn passed_over(response: &Response, received: u64, url: &Url) -> Result<u64> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(received);
    }
    let range = response.headers().get(CONTENT_RANGE);
    let range = range.and_then(|range| range.to_str().ok());
    let start = range
        .and_then(|range| range.strip_prefix("bytes "))
        .and_then(|range| range.split('-').next()?.parse::<u64>().ok());
    if start == Some(received) {
        Ok(0)
    } else {
        Err(SubstituterError::Malformed {
            url: url.to_string(),
            reason: "it sends another part than was asked for".to_owned(),
        })
    }
}
