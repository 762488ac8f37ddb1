//! Bodies of requests, within bounds of size, time and memory.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::answer::Refusal;

/// Bytes of all bodies that are held at the same time.
const HELD: usize = 128 << 20;
/// Bytes of one permit.
const UNIT: usize = 4 << 10;

/// Memory for bodies.
pub(super) struct Bodies {
    permits: Semaphore,
    limit: usize,
    patience: Duration,
}

/// A body, and the memory that it may have while it is held.
pub(super) struct Held<'a> {
    pub(super) bytes: Vec<u8>,
    _permits: Option<SemaphorePermit<'a>>,
}

impl Bodies {
    pub(super) fn new(limit: usize, patience: Duration) -> Self {
        Self {
            permits: Semaphore::new(HELD / UNIT),
            limit,
            patience,
        }
    }

    /// All of a body. A client that sends slowly holds no more than it has sent.
    pub(super) async fn receive(&self, body: Body) -> Result<Held<'_>, Refusal> {
        use axum::body::HttpBody as _;
        let too_large = || {
            let text = format!("the body has more than {} bytes", self.limit);
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text)
        };
        if body.size_hint().lower() > self.limit as u64 {
            return Err(too_large());
        }
        let until = Instant::now() + self.patience;
        let mut body = std::pin::pin!(body);
        let mut bytes = Vec::new();
        let mut permits: Option<SemaphorePermit> = None;
        loop {
            let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context));
            let frame = match timeout_at(until, frame).await {
                Err(_elapsed) => {
                    let text = "the body does not come";
                    return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, text));
                }
                Ok(None) => break,
                Ok(Some(Err(_broken))) => {
                    return Err(Refusal::new(StatusCode::BAD_REQUEST, "the body broke off"));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(piece) = frame.into_data() else {
                continue; // trailers
            };
            if bytes.len() + piece.len() > self.limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece);
            let held = permits.as_ref().map_or(0, SemaphorePermit::num_permits);
            let more = bytes.len().div_ceil(UNIT).saturating_sub(held);
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            let Ok(more) = self.permits.try_acquire_many(more) else {
                return Err(Refusal::busy("too much is being sent at the same time"));
            };
            match &mut permits {
                Some(permits) => permits.merge(more),
                None => permits = Some(more),
            }
        }
        Ok(Held {
            bytes,
            _permits: permits,
        })
    }
}
