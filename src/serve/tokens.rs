//! Who may read, and who may write.
//!
//! Tokens come from files and variables, never from a command line, which all
//! users of a machine can read. Only their digests are kept, and all of them
//! are compared, so that the time it takes tells nothing.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use subtle::{Choice, ConstantTimeEq as _};

use crate::digest::ContentHash;
use crate::fs::{self, FsError};

/// Characters that a token must have at least.
const SHORTEST: usize = 16;
/// Bytes that a file of tokens may have.
const MAX_SIZE: u64 = 1 << 20;

/// Tokens that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file is out of reach.
    #[error("the file of tokens cannot be read")]
    File(#[from] FsError),
    /// Others may read it.
    #[error("others have access to the tokens in `{}` (mode {mode:o})", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A token is too easy to guess.
    #[error("a token in {place} has fewer than {SHORTEST} characters")]
    Short {
        /// Where it is.
        place: String,
    },
    /// A token could not be sent in a header.
    #[error("a token in {place} has a character that no header can have")]
    Characters {
        /// Where it is.
        place: String,
    },
    /// There is none.
    #[error("there is no token in {place}")]
    None {
        /// Where one was expected.
        place: String,
    },
}

/// The tokens of those who may read, and of those who may also write.
#[derive(Default)]
pub struct Tokens {
    readers: Vec<ContentHash>,
    writers: Vec<ContentHash>,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Nothing that needs a token.
    Stranger,
    /// Read.
    Reader,
    /// Read and write.
    Writer,
}

impl Tokens {
    /// Those who may read; without any, everybody may.
    pub fn allow_reading(&mut self, tokens: &[String]) {
        self.readers.extend(tokens.iter().map(digest));
    }

    /// Those who may read and write; without any, nobody may write.
    pub fn allow_writing(&mut self, tokens: &[String]) {
        self.writers.extend(tokens.iter().map(digest));
    }

    /// Whether reading needs a token.
    pub fn guards_reading(&self) -> bool {
        !self.readers.is_empty()
    }

    /// Whether anybody may write.
    pub fn allows_writing(&self) -> bool {
        !self.writers.is_empty()
    }

    /// What whoever sends these headers may do.
    pub(super) fn standing(&self, headers: &HeaderMap) -> Standing {
        if self.readers.is_empty() && self.writers.is_empty() {
            return Standing::Stranger;
        }
        let shown = headers.get(AUTHORIZATION);
        let shown = shown.and_then(|value| token(value.to_str().ok()?));
        // Nothing shown takes as long as something wrong.
        let shown = digest(&shown.unwrap_or_default());
        let is_one_of = |known: &[ContentHash]| {
            let equal = known
                .iter()
                .map(|one| one.as_bytes().ct_eq(shown.as_bytes()));
            equal.fold(Choice::from(0), |any, this| any | this)
        };
        let (reads, writes) = (is_one_of(&self.readers), is_one_of(&self.writers));
        if bool::from(writes) {
            Standing::Writer
        } else if bool::from(reads) {
            Standing::Reader
        } else {
            Standing::Stranger
        }
    }
}

fn digest(token: &String) -> ContentHash {
    ContentHash::of(token.as_bytes())
}

/// The token in a header: a bearer's, or the password of a login of any name,
/// which is what netrc has.
fn token(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let login = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (_name, password) = login.split_once(':')?;
    Some(password.to_owned())
}

/// Reads a file that nobody but its owner may read: one token a line; empty
/// lines and those that begin with `#` are passed over.
pub fn read_tokens(path: &Path) -> Result<Vec<String>, TokenError> {
    let file = fs::open(path)?;
    let access = fs::Access::of(&file, path)?;
    if access.mode & 0o077 != 0 {
        return Err(TokenError::Open {
            path: path.to_owned(),
            mode: access.mode,
        });
    }
    let mut text = String::new();
    fs::at("read", path, file.take(MAX_SIZE).read_to_string(&mut text))?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    checked(lines, &format!("`{}`", path.display()))
}

/// Reads tokens of a variable, apart by spaces.
pub fn parse_tokens(value: &str, variable: &str) -> Result<Vec<String>, TokenError> {
    checked(value.split_whitespace(), &format!("`{variable}`"))
}

fn checked<'a>(
    tokens: impl Iterator<Item = &'a str>,
    place: &str,
) -> Result<Vec<String>, TokenError> {
    let tokens: Vec<String> = tokens.map(str::to_owned).collect();
    let place = || place.to_owned();
    if tokens.is_empty() {
        return Err(TokenError::None { place: place() });
    }
    for token in &tokens {
        if token.len() < SHORTEST {
            return Err(TokenError::Short { place: place() });
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Characters { place: place() });
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &str = "a-token-for-reading";
    const WRITE: &str = "a-token-for-writing";

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn tokens_are_known_in_both_forms() {
        let mut tokens = Tokens::default();
        tokens.allow_reading(&[READ.to_owned()]);
        tokens.allow_writing(&[WRITE.to_owned(), "another-for-writing".to_owned()]);
        let basic = |password| format!("Basic {}", STANDARD.encode(format!("u:{password}")));
        for (value, standing) in [
            (format!("Bearer {READ}"), Standing::Reader),
            (format!("bearer {WRITE}"), Standing::Writer),
            (basic(WRITE), Standing::Writer),
            (basic(READ), Standing::Reader),
            (format!("Bearer {READ}x"), Standing::Stranger),
            (format!("Digest {READ}"), Standing::Stranger),
            ("Bearer".to_owned(), Standing::Stranger),
            ("Basic !".to_owned(), Standing::Stranger),
        ] {
            assert_eq!(tokens.standing(&headers(&value)), standing, "{value}");
        }
        let nobody = Tokens::default();
        assert_eq!(nobody.standing(&headers("Bearer ")), Standing::Stranger);
        assert_eq!(tokens.standing(&HeaderMap::new()), Standing::Stranger);
    }

    #[test]
    fn files_are_read_strictly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let read = |text: &str, mode| {
            fs::write(&path, text.as_bytes()).unwrap();
            fs::set_mode(&path, mode).unwrap();
            read_tokens(&path)
        };
        let text = format!("# ours\n{READ}\n\n {WRITE}\n");
        assert_eq!(read(&text, 0o600).unwrap(), [READ, WRITE]);
        assert!(matches!(read(&text, 0o640), Err(TokenError::Open { .. })));
        assert!(matches!(
            read("short", 0o600),
            Err(TokenError::Short { .. })
        ));
        assert!(matches!(
            read("# none", 0o600),
            Err(TokenError::None { .. })
        ));
        let spaced = format!("{READ} {WRITE}");
        assert!(matches!(
            read(&spaced, 0o600),
            Err(TokenError::Characters { .. })
        ));
        assert_eq!(parse_tokens(&spaced, "V").unwrap(), [READ, WRITE]);
    }
}
