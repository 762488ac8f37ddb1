//! An answer before it is sent.

use std::fmt::Display;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::{Answer, Content};
use super::log::Record;

/// Status, headers and content.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    content: Content,
}

/// Whether and how long whoever stands between may keep an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keeping {
    /// Whether it is for one client only.
    pub(super) is_private: bool,
    /// Whether it never changes.
    pub(super) is_final: bool,
}

impl Keeping {
    fn header(self) -> HeaderValue {
        HeaderValue::from_static(match (self.is_private, self.is_final) {
            (false, false) => "public, max-age=60",
            (false, true) => "public, max-age=31536000, immutable",
            (true, false) => "private, max-age=60",
            (true, true) => "private, max-age=31536000, immutable",
        })
    }
}

/// What there is to say, or why not.
pub(super) type Handled = Result<Reply, Reply>;

impl Reply {
    pub(super) fn new(status: StatusCode, kind: &'static str, content: Content) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content,
        }
        .with(CONTENT_TYPE, HeaderValue::from_static(kind))
    }

    /// Without a body.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content: Content::Empty,
        }
    }

    /// A line for people.
    pub(super) fn line(status: StatusCode, text: impl Display) -> Self {
        let content = Content::Whole(Bytes::from(format!("{text}\n")));
        Self::new(status, "text/plain; charset=utf-8", content)
    }

    /// Something of ours failed; what, is for the operator to know.
    pub(super) fn failure(error: &dyn std::error::Error) -> Self {
        let said = crate::console::chain(error);
        crate::console::line(&format!("warning: a request failed: {said}"));
        Self::line(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the server cannot do that now; its operator finds the reason in its output",
        )
    }

    /// The same with a header.
    pub(super) fn with(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        match value.try_into() {
            Ok(value) => self.headers.push((name, value)),
            Err(_not_ascii) => debug_assert!(false, "a header of ours is not one"),
        }
        self
    }

    /// The same, to be kept by whoever stands between.
    pub(super) fn kept(self, keeping: Keeping) -> Self {
        self.with(CACHE_CONTROL, keeping.header())
    }

    /// What is sent, logged when it is gone; of a `HEAD`, without the body.
    pub(super) fn send(self, mut record: Record, is_head: bool) -> Response<Answer> {
        record.status(self.status.as_u16());
        let has_body = !matches!(
            self.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        let size = self.content.size();
        let content = if is_head {
            Content::Empty
        } else {
            self.content
        };
        let mut response = Response::new(Answer::new(content, record));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        if has_body {
            response
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from(size));
        }
        response
    }
}
