//! An object that comes while somebody reads it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, ObjectStore};
use tokio::time::{Instant, timeout, timeout_at};

use super::failed;
use crate::substituter::pieces::{PieceSender, Pieces, pieces};
use crate::substituter::web::Web;
use crate::substituter::{Result, SubstituterError};

/// What is to be received.
pub(super) struct Wanted {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: ObjectPath,
    /// Its place, for people.
    pub(super) url: String,
    /// When it is of no use any more.
    pub(super) until: Instant,
    /// How long it may be silent.
    pub(super) timeout: Duration,
}

impl Wanted {
    fn slow(&self) -> SubstituterError {
        SubstituterError::Slow {
            url: self.url.clone(),
        }
    }
}

/// Begins to receive an object.
pub(super) fn start(web: &Web, wanted: Wanted) -> Pieces {
    let (to, pieces) = pieces();
    web.spawn(async move {
        let received = timeout_at(wanted.until, receive(&wanted, &to)).await;
        if let Err(error) = received.unwrap_or_else(|_elapsed| Err(wanted.slow())) {
            let _ = to.send(Err(error)).await; // nobody may be reading any more
        }
    });
    pieces
}

/// Receives an object; what breaks off is asked for again by the client.
async fn receive(wanted: &Wanted, to: &PieceSender) -> Result<()> {
    let begun = wanted.store.get_opts(&wanted.path, GetOptions::default());
    let begun = timeout(wanted.timeout, begun).await;
    let begun = begun.map_err(|_elapsed| wanted.slow())?;
    let object = begun.map_err(|error| failed(wanted.url.clone(), error))?;
    let mut pieces = object.into_stream();
    loop {
        let piece = timeout(wanted.timeout, pieces.next()).await;
        match piece.map_err(|_elapsed| wanted.slow())? {
            None => return Ok(()),
            Some(Ok(piece)) => {
                if to.send(Ok(piece)).await.is_err() {
                    return Ok(()); // nobody reads any more
                }
            }
            Some(Err(error)) => return Err(failed(wanted.url.clone(), error)),
        }
    }
}
