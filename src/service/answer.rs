//! Answers: JSON, and refusals as RFC 9457 has them.

use std::fmt::Display;

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::json;

use super::counter::CountError;
use super::database::DatabaseError;
use super::intake::IntakeError;
use crate::console;

/// Why something is not done.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    detail: String,
    /// Seconds after which to ask again.
    again: Option<u64>,
}

/// What there is to say, or why not.
pub(super) type Handled = Result<Response<Body>, Refusal>;

impl Refusal {
    pub(super) fn new(status: StatusCode, detail: impl Display) -> Self {
        Self {
            status,
            detail: detail.to_string(),
            again: None,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Somebody asks too much, or all together do.
    pub(super) fn again(mut self, seconds: u64) -> Self {
        self.again = Some(seconds.max(1));
        self
    }

    pub(super) fn busy(detail: impl Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).again(1)
    }

    pub(super) fn absent() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing here")
    }

    /// Something of ours failed; what, is for the operator to know.
    pub(super) fn failure(error: &DatabaseError) -> Self {
        let said = console::chain(error);
        console::line(&format!("warning: a request failed: {said}"));
        let text = "the service cannot do that now; its operator finds the reason in its output";
        if error.is_passing() {
            return Self::busy(text).again(5);
        }
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        Self::failure(&error)
    }
}

impl From<CountError> for Refusal {
    fn from(error: CountError) -> Self {
        match &error {
            CountError::Busy => Self::busy(&error),
            CountError::Database(source) => Self::failure(source),
        }
    }
}

impl From<IntakeError> for Refusal {
    fn from(error: IntakeError) -> Self {
        let status = match error {
            IntakeError::TooMany { .. } | IntakeError::Swelling(_) => StatusCode::PAYLOAD_TOO_LARGE,
            IntakeError::Packed(_) | IntakeError::Json(_) | IntakeError::Lock(_) => {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, console::chain(&error))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let body = json!({
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, kind);
        if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("zstd"));
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(again) = self.again {
            headers.insert(RETRY_AFTER, HeaderValue::from(again));
        }
        response
    }
}

/// JSON that nobody keeps.
pub(super) fn json<T: Serialize>(value: &T) -> Response<Body> {
    let text = serde_json::to_string(value).expect("answers have a text");
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Something that is the same until the next version of this program.
pub(super) fn document(text: &'static str, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let kept = HeaderValue::from_static("public, max-age=3600");
    headers.insert(CACHE_CONTROL, kept);
    response
}

/// A line for people and machines.
pub(super) fn line(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
