//! Conditions of requests, and parts of files (RFC 9110, 13 and 14). Pure.

use std::ops::Range;

use hyper::HeaderMap;
use hyper::header::{AsHeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};

fn text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether a list of tags has one, or is a star. A weak tag is the same here:
/// whoever stands between may have compressed what is on its way.
fn lists(list: &str, tag: &str) -> bool {
    let mut tags = list.split(',').map(str::trim);
    tags.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// Whether whoever asks has what has this tag.
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    text(headers, IF_NONE_MATCH).is_some_and(|list| lists(list, tag))
}

/// What must be so for a file to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nothing was said.
    None,
    /// There is none yet.
    New,
    /// It is one of these.
    Replaces(String),
}

impl Condition {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match (text(headers, IF_NONE_MATCH), text(headers, IF_MATCH)) {
            (Some(list), _) if list.trim() == "*" => Self::New,
            (_, Some(list)) => Self::Replaces(list.to_owned()),
            _ => Self::None,
        }
    }

    /// Whether it holds, given the tag of what is there.
    pub(super) fn holds(&self, tag: Option<&str>) -> bool {
        match (self, tag) {
            (Self::None, _) | (Self::New, None) => true,
            (Self::New, Some(_)) | (Self::Replaces(_), None) => false,
            (Self::Replaces(list), Some(tag)) => lists(list, tag),
        }
    }
}

/// Which part of a file is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    All,
    /// These bytes.
    Some(Range<u64>),
    /// Bytes that it does not have.
    Beyond,
}

impl Part {
    /// Reads `Range` and `If-Range` for a file of some size. What is not
    /// understood, several parts for one, is all of it.
    pub(super) fn of(headers: &HeaderMap, size: u64, tag: &str) -> Self {
        // A date never is this tag.
        let is_same = text(headers, IF_RANGE).is_none_or(|known| known == tag);
        match text(headers, RANGE) {
            Some(range) if is_same => Self::parse(range, size).unwrap_or(Self::All),
            _ => Self::All,
        }
    }

    fn parse(range: &str, size: u64) -> Option<Self> {
        let range = range.trim().strip_prefix("bytes=")?;
        let (from, to) = range.split_once('-')?;
        let number = |digits: &str| -> Option<u64> {
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| digits.parse().unwrap_or(u64::MAX))
        };
        let part = if from.is_empty() {
            let last = number(to)?.min(size);
            size - last..size
        } else {
            let from = number(from)?;
            let end = if to.is_empty() {
                size
            } else {
                let to = number(to)?;
                if to < from {
                    return None;
                }
                to.saturating_add(1).min(size)
            };
            from..end
        };
        Some(if part.start < part.end {
            Self::Some(part)
        } else {
            Self::Beyond
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderName;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn parts_are_read() {
        for (range, part) in [
            ("bytes=0-", Part::Some(0..10)),
            ("bytes=4-", Part::Some(4..10)),
            ("bytes=4-4", Part::Some(4..5)),
            ("bytes=4-99", Part::Some(4..10)),
            ("bytes=-3", Part::Some(7..10)),
            ("bytes=-99", Part::Some(0..10)),
            ("bytes=10-", Part::Beyond),
            ("bytes=99999999999999999999-", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=4-3", Part::All),
            ("bytes=0-1,4-5", Part::All),
            ("bytes=-", Part::All),
            ("bytes=+1-", Part::All),
            ("lines=0-1", Part::All),
            ("", Part::All),
        ] {
            let asked = headers(&[(RANGE, range)]);
            assert_eq!(Part::of(&asked, 10, "\"a\""), part, "{range}");
        }
        let asked = |tag| headers(&[(RANGE, "bytes=4-"), (IF_RANGE, tag)]);
        assert_eq!(Part::of(&asked("\"a\""), 10, "\"a\""), Part::Some(4..10));
        assert_eq!(Part::of(&asked("\"b\""), 10, "\"a\""), Part::All);
        assert_eq!(Part::of(&headers(&[]), 0, "\"a\""), Part::All);
    }

    #[test]
    fn conditions_are_read() {
        let known = |list| is_known(&headers(&[(IF_NONE_MATCH, list)]), "\"a\"");
        assert!(known("\"a\"") && known("\"b\", W/\"a\"") && known("*"));
        assert!(!known("\"b\"") && !known("a"));
        let of = |name, value| Condition::of(&headers(&[(name, value)]));
        assert!(of(IF_NONE_MATCH, "*").holds(None));
        assert!(!of(IF_NONE_MATCH, "*").holds(Some("\"a\"")));
        assert!(of(IF_MATCH, "\"a\"").holds(Some("\"a\"")));
        assert!(of(IF_MATCH, "*").holds(Some("\"a\"")));
        assert!(!of(IF_MATCH, "\"b\"").holds(Some("\"a\"")));
        assert!(!of(IF_MATCH, "\"a\"").holds(None));
        assert_eq!(of(IF_NONE_MATCH, "\"a\""), Condition::None);
    }
}
