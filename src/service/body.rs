//! Bodies of requests, within bounds of size, time and memory.

use std::io::{self, Read as _};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::answer::Refusal;
use super::intake::IntakeError;

/// Bytes of all bodies that are held at the same time.
const HELD: usize = 128 << 20;
/// Bytes of one permit.
const UNIT: usize = 4 << 10;

/// The largest window of a packed body, as a power of two: what RFC 9659 allows.
const WINDOW: u32 = 23;

/// How a body is packed (RFC 9110, 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// As it is.
    None,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(coding) = headers.get(CONTENT_ENCODING) else {
            return Ok(Self::None);
        };
        match coding.to_str().map(str::trim) {
            Ok(name) if name.eq_ignore_ascii_case("identity") => Ok(Self::None),
            Ok(name) if name.eq_ignore_ascii_case("zstd") => Ok(Self::Zstd),
            _ => {
                let text = "a body may be packed as `zstd`, and in no other way";
                Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
            }
        }
    }

    /// What was packed, which may have so many bytes.
    pub(super) fn unpack(self, bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, IntakeError> {
        if self == Self::None {
            return Ok(bytes);
        }
        let unpacked = || -> io::Result<Vec<u8>> {
            let mut decoder = zstd::Decoder::with_buffer(&*bytes)?;
            decoder.window_log_max(WINDOW)?;
            let mut unpacked = Vec::new();
            decoder.take(limit as u64 + 1).read_to_end(&mut unpacked)?;
            Ok(unpacked)
        };
        let unpacked = unpacked().map_err(IntakeError::Packed)?;
        match unpacked.len() > limit {
            true => Err(IntakeError::Swelling(limit)),
            false => Ok(unpacked),
        }
    }
}

/// Memory for bodies.
pub(super) struct Bodies {
    permits: Semaphore,
    /// Bytes that a body may have, packed or not.
    pub(super) limit: usize,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_body_is_as_long_as_another_may_be() {
        let packed = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
        let unpack = |bytes| Coding::Zstd.unpack(bytes, 1000);
        assert_eq!(unpack(packed(&[7; 1000])).unwrap(), [7; 1000]);
        for size in [1001, 100 << 20] {
            let swelling = unpack(packed(&vec![0; size]));
            assert!(matches!(swelling, Err(IntakeError::Swelling(1000))));
        }
        let broken = packed(&[7; 1000])[..10].to_vec();
        for bytes in [broken, b"{}".to_vec()] {
            assert!(matches!(unpack(bytes), Err(IntakeError::Packed(_))));
        }
        let as_it_is = Coding::None.unpack(b"{}".to_vec(), 0).unwrap();
        assert_eq!(as_it_is, b"{}");
    }
}
