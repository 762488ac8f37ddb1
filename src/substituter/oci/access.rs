//! Being let in by a registry: with what is known, or with a token that another
//! server gives for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::substituter::web::{Answer, Call, Method, Url, Web, is_safe};
use crate::substituter::{Result, SubstituterError};

/// Bytes that the answer with a token may have.
const MAX_TOKEN: u64 = 1 << 20;

/// What is shown to a registry.
pub(super) struct Access {
    /// The credentials as they are configured: `Basic …` or `Bearer …`.
    own: Option<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shown: Option<String>,
    /// Whether the registry has let somebody in with that.
    is_known: bool,
}

impl Access {
    pub(super) fn new(own: Option<String>) -> Self {
        Self {
            own,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is known what must be shown.
    pub(super) fn is_known(&self) -> bool {
        self.state().is_known
    }

    /// What is shown now.
    pub(super) fn shown(&self) -> Option<String> {
        self.state().shown.clone()
    }

    /// Makes a request; where the registry asks who this is, tells it and makes
    /// the request once more.
    pub(super) fn send(&self, web: &Web, call: Call<'_>) -> Result<Answer> {
        let with = |shown: Option<String>| match shown {
            Some(text) => call.clone().header("authorization", text),
            None => call.clone(),
        };
        let answer = web.exchange(&with(self.shown()))?;
        if answer.status != 401 {
            self.state().is_known = true;
            return Ok(answer);
        }
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        let shown = match Challenge::parse(challenge) {
            Some(Challenge::Basic) => self.own.clone(),
            Some(Challenge::Bearer { realm, query }) => self.token(web, &realm, &query)?,
            None => None,
        };
        let Some(shown) = shown else {
            return Ok(answer);
        };
        self.state().shown = Some(shown.clone());
        let answer = web.exchange(&with(Some(shown)))?;
        self.state().is_known = true;
        Ok(answer)
    }

    /// A token for what a challenge speaks of.
    fn token(&self, web: &Web, realm: &str, query: &[(String, String)]) -> Result<Option<String>> {
        let refuse = |reason| SubstituterError::Location {
            text: realm.to_owned(),
            reason,
        };
        let url =
            Url::parse_with_params(realm, query).map_err(|_invalid| refuse("it is not a URL"))?;
        if !is_safe(&url) {
            return Err(refuse(
                "a registry sends us there for a token, without `https`",
            ));
        }
        let mut call = Call::new(Method::GET, url, MAX_TOKEN);
        if let Some(own) = &self.own {
            // A token alone is taken for a password.
            let shown = match own.strip_prefix("Bearer ") {
                Some(token) => format!("Basic {}", STANDARD.encode(format!("token:{token}"))),
                None => own.clone(),
            };
            call = call.header("authorization", shown);
        }
        let answer = web.exchange(&call)?;
        if answer.status != 200 {
            return Err(answer.error());
        }
        let value: serde_json::Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
        let token = value.get("token").or_else(|| value.get("access_token"));
        Ok(token
            .and_then(|token| token.as_str())
            .map(|token| format!("Bearer {token}")))
    }
}

/// What a registry wants to be shown.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    /// A token that `realm` gives for the other parameters.
    Bearer {
        realm: String,
        query: Vec<(String, String)>,
    },
}

impl Challenge {
    /// Reads a header `WWW-Authenticate` (RFC 9110).
    fn parse(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut query) = (None, Vec::new());
        while let Some((name, value)) = rest.split_once('=') {
            let (value, more) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => value.split_once(',').unwrap_or((value, "")),
            };
            let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
            match name.as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" | "scope" => query.push((name, value.to_owned())),
                _ => {}
            }
            rest = more;
        }
        realm.map(|realm| Self::Bearer { realm, query })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = "Bearer realm=\"https://a.org/token\",service=\"a.org\", scope=\"repository:b:pull,push\",error=x";
        let Some(Challenge::Bearer { realm, query }) = Challenge::parse(text) else {
            panic!("{text}");
        };
        assert_eq!(realm, "https://a.org/token");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let scope = "repository:b:pull,push";
        assert_eq!(query, [pair("service", "a.org"), pair("scope", scope)]);
        assert_eq!(
            Challenge::parse("Basic realm=\"x\""),
            Some(Challenge::Basic)
        );
        for text in ["", "Digest realm=\"x\"", "Bearer", "Bearer realm=\"x"] {
            assert_eq!(Challenge::parse(text), None, "{text}");
        }
    }
}
