//! An archive that comes while somebody reads it.

use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Response, StatusCode, Url};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Asker, Attempt, Pace, back_off, slow};
use crate::substituter::pieces::{PieceSender, Pieces, pieces};
use crate::substituter::{Result, SubstituterError};

/// How often the rest is asked for.
const PARTS: u32 = 6;

/// What is to be received.
pub(super) struct Wanted {
    pub(super) url: Url,
    /// What is shown to be let in, beyond what is always shown.
    pub(super) authorization: Option<HeaderValue>,
    /// Bytes that it should have.
    pub(super) size: u64,
    /// When it is of no use any more.
    pub(super) until: Instant,
}

/// Begins to receive a file.
pub(super) fn start(runtime: &Runtime, asker: Arc<Asker>, wanted: Wanted) -> Pieces {
    let (to, pieces) = pieces();
    runtime.spawn(async move {
        let receiving = pin!(timeout_at(wanted.until, receive(&asker, &wanted, &to)));
        // There never is a permit, so this waits until it is closed.
        let stopped = pin!(asker.running.acquire());
        let received = match select(receiving, stopped).await {
            Either::Left((received, _)) => received,
            Either::Right(_) => Ok(Err(slow(&wanted.url))),
        };
        if let Err(error) = received.unwrap_or_else(|_elapsed| Err(slow(&wanted.url))) {
            let _ = to.send(Err(error)).await; // nobody may be reading any more
        }
    });
    pieces
}

/// Receives all parts of a file.
async fn receive(asker: &Asker, wanted: &Wanted, to: &PieceSender) -> Result<()> {
    let size = wanted.size;
    let mut received = 0;
    let mut part = 0;
    loop {
        part += 1;
        let broken = match receive_part(asker, wanted, &mut received, to).await? {
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
    wanted: &Wanted,
    received: &mut u64,
    to: &PieceSender,
) -> Result<Option<Broken>> {
    let url = &wanted.url;
    let mut request = asker.client.get(url.clone());
    if let Some(authorization) = &wanted.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
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
