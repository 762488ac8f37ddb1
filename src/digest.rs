//! Stable hashes and the identifiers made of them.
//!
//! Everything is SHA-256. A [`ContentHash`] is the whole digest of some bytes;
//! the other identifiers keep its first 160 bits, printed as 32 base-32
//! characters, and differ in type so that they cannot be mixed up.
//!
//! [`Canonical`] feeds structured data into the digest without ambiguity:
//! every field is preceded by its length, every list by its count, so that
//! `ab` + `c` and `a` + `bc` differ. No I/O, no clock, no environment here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Lower-case base 32 without the letters that are easily misread (`e o u t`),
/// the alphabet that Nix uses for its store paths.
const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Text that is not the printed form of an identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a {kind}")]
pub struct ParseDigestError {
    kind: &'static str,
    text: String,
}

/// SHA-256 of some bytes, printed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Ends a canonical digest.
    pub fn finish(digest: Canonical) -> Self {
        Self(digest.0.finalize().into())
    }

    /// The raw digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Hashes a stream of bytes into a [`ContentHash`].
#[derive(Default)]
pub struct ContentHasher(Sha256);

impl ContentHasher {
    /// Adds bytes to the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Ends the stream.
    pub fn finish(self) -> ContentHash {
        ContentHash(self.0.finalize().into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 64];
        for (two, byte) in text.chunks_exact_mut(2).zip(self.0) {
            two.copy_from_slice(&digits(byte));
        }
        f.write_str(std::str::from_utf8(&text).expect("digits are ASCII"))
    }
}

/// Bytes as hexadecimal digits, two for each, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(2 * bytes.len());
    for &byte in bytes {
        text.extend(digits(byte));
    }
    String::from_utf8(text).expect("digits are ASCII")
}

fn digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [byte >> 4, byte & 0xf].map(|digit| DIGITS[usize::from(digit)])
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentHash {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseDigestError {
            kind: "SHA-256 digest",
            text: text.to_owned(),
        };
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return Err(error());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let high = (pair[0] as char).to_digit(16).ok_or_else(error)?;
            let low = (pair[1] as char).to_digit(16).ok_or_else(error)?;
            *byte = (high * 16 + low) as u8;
        }
        Ok(Self(digest))
    }
}

/// Feeds structured data into SHA-256 unambiguously.
pub struct Canonical(Sha256);

impl Canonical {
    /// Starts a digest; `domain` names what is hashed and in which version,
    /// so that digests of different things never coincide.
    pub fn new(domain: &str) -> Self {
        let mut this = Self(Sha256::new());
        this.text(domain);
        this
    }

    /// Adds one string.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Adds one byte string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    /// Adds one number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(number.to_le_bytes());
        self
    }

    /// Adds an optional string; absent and empty differ.
    pub fn option(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            None => self.number(0),
            Some(text) => self.number(1).text(text),
        }
    }

    /// Adds a list of strings in the given order.
    pub fn list<T: AsRef<str>>(&mut self, items: &[T]) -> &mut Self {
        self.number(items.len() as u64);
        for item in items {
            self.text(item.as_ref());
        }
        self
    }

    fn finish(self) -> [u8; 20] {
        let digest: [u8; 32] = self.0.finalize().into();
        let mut short = [0; 20];
        short.copy_from_slice(&digest[..20]);
        short
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 20]);

        impl $name {
            /// Ends a canonical digest.
            pub fn finish(digest: Canonical) -> Self {
                Self(digest.finish())
            }

            /// The raw bits.
            pub fn as_bytes(&self) -> &[u8; 20] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base32(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_base32(text).map(Self).ok_or_else(|| ParseDigestError {
                    kind: $kind,
                    text: text.to_owned(),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

identifier!(
    /// Identifies a recipe: what is to be compiled, with what, for which platform.
    RecipeHash,
    "recipe hash"
);
identifier!(
    /// Identifies an output: a recipe with all inputs known, so one set of files.
    OutputId,
    "output id"
);
identifier!(
    /// Identifies a package with the versions of all it depends on, as a lock
    /// file has them: many recipes may have it, with other features or profiles.
    TreeHash,
    "tree hash"
);
identifier!(
    /// Identifies a unit exactly as Cargo tells units apart: a recipe with its
    /// mode and every profile field, and so with a name of its own under `target/`.
    UnitKey,
    "unit key"
);

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// 160 bits are exactly 32 groups of five, so no padding is ever needed.
fn base32(bytes: &[u8; 20]) -> String {
    let mut text = String::with_capacity(32);
    for group in bytes.chunks_exact(5) {
        let word = group
            .iter()
            .fold(0u64, |word, &byte| word << 8 | u64::from(byte));
        for shift in (0..8).rev() {
            let index = (word >> (shift * 5)) & 31;
            text.push(ALPHABET[index as usize] as char);
        }
    }
    text
}

fn parse_base32(text: &str) -> Option<[u8; 20]> {
    let characters = text.as_bytes();
    if characters.len() != 32 {
        return None;
    }
    let mut bytes = [0; 20];
    for (group, out) in characters.chunks_exact(8).zip(bytes.chunks_exact_mut(5)) {
        let mut word = 0u64;
        for character in group {
            let index = ALPHABET.iter().position(|a| a == character)?;
            word = word << 5 | index as u64;
        }
        out.copy_from_slice(&word.to_be_bytes()[3..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hexadecimal_digits_are_two_for_each_byte() {
        assert_eq!(hex(&[0x00, 0x9a, 0xf1]), "009af1");
        let hash = ContentHash::of(b"");
        assert!(hash.to_string().starts_with("e3b0c44298fc1c14")); // FIPS 180-4, of nothing
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let digest = |a: &str, b: &str| {
            let mut canonical = Canonical::new("test");
            canonical.text(a).text(b);
            RecipeHash::finish(canonical)
        };
        assert_ne!(digest("ab", "cd"), digest("a", "bcd"));
        let list = |items: &[&str], rest: &[&str]| {
            let mut canonical = Canonical::new("test");
            canonical.list(items).list(rest);
            RecipeHash::finish(canonical)
        };
        assert_ne!(list(&["a", "b"], &[]), list(&["a"], &["b"]));
    }

    #[test]
    fn absent_and_empty_differ() {
        let digest = |value: Option<&str>| {
            let mut canonical = Canonical::new("test");
            canonical.option(value);
            RecipeHash::finish(canonical)
        };
        assert_ne!(digest(None), digest(Some("")));
    }

    /// A pinned literal: whoever changes the encoding changes every store.
    #[test]
    fn encoding_is_pinned() {
        let mut canonical = Canonical::new("quickbuild-test-1");
        canonical
            .text("serde")
            .number(7)
            .option(None)
            .list(&["std", "derive"]);
        assert_eq!(
            RecipeHash::finish(canonical).to_string(),
            "li6hw2wm6x8jds6xml826jdp6jng8g85"
        );
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_print(bytes in any::<[u8; 20]>()) {
            prop_assert_eq!(parse_base32(&base32(&bytes)), Some(bytes));
        }

        #[test]
        fn junk_is_refused(text in "\\PC*") {
            if let Ok(id) = text.parse::<OutputId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
