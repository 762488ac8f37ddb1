//! The file of an output's signatures.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{KeyError, KeyName, PublicKey, Signature};

/// Signatures of one output: one for each key, sorted by the key's name. There
/// is one at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signatures(BTreeMap<KeyName, Signature>);

/// Text that is no list of signatures.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignaturesError {
    /// There is none, or something other than a newline at the end.
    #[error("a list of signatures has whole lines, and one at least")]
    Lines,
    /// A line is no signature.
    #[error("line {line} is no signature")]
    Signature {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The names are not in order, or one comes twice.
    #[error("line {line} is out of order")]
    Order {
        /// Its number, from 1.
        line: usize,
    },
}

impl Signatures {
    /// A list of one.
    pub fn new(signature: Signature) -> Self {
        Self(BTreeMap::from([(signature.key().clone(), signature)]))
    }

    /// Adds a signature in the place of the same key's.
    pub fn insert(&mut self, signature: Signature) {
        self.0.insert(signature.key().clone(), signature);
    }

    /// Adds those of keys that are not in it.
    pub fn merge(&mut self, other: Self) {
        for (name, signature) in other.0 {
            self.0.entry(name).or_insert(signature);
        }
    }

    /// All of them, by the keys' names.
    pub fn iter(&self) -> impl Iterator<Item = &Signature> {
        self.0.values()
    }

    /// Whether the key of this name has signed these bytes.
    pub fn are_by(&self, key: &PublicKey, message: &[u8]) -> bool {
        let signature = self.0.get(key.name());
        signature.is_some_and(|signature| key.verifies(message, signature))
    }
}

impl fmt::Display for Signatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter()
            .try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl FromStr for Signatures {
    type Err = SignaturesError;

    fn from_str(text: &str) -> Result<Self, SignaturesError> {
        let lines = text.strip_suffix('\n').ok_or(SignaturesError::Lines)?;
        let mut signatures: BTreeMap<KeyName, Signature> = BTreeMap::new();
        for (line, text) in (1..).zip(lines.split('\n')) {
            let signature: Signature = text
                .parse()
                .map_err(|source| SignaturesError::Signature { line, source })?;
            let last = signatures.last_key_value();
            if last.is_some_and(|(name, _)| name >= signature.key()) {
                return Err(SignaturesError::Order { line });
            }
            signatures.insert(signature.key().clone(), signature);
        }
        Ok(Self(signatures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::SecretKey;
    use proptest::prelude::*;

    fn signature(name: &str) -> Signature {
        let key = SecretKey::generate(name.parse().unwrap()).unwrap();
        key.sign(b"message")
    }

    #[test]
    fn there_is_one_for_each_key() {
        let first = SecretKey::generate("a".parse().unwrap()).unwrap();
        let second = SecretKey::generate("a".parse().unwrap()).unwrap();
        let mut signatures = Signatures::new(first.sign(b"message"));
        assert!(signatures.are_by(&first.public(), b"message"));
        assert!(!signatures.are_by(&first.public(), b"massage"));
        assert!(!signatures.are_by(&second.public(), b"message"));

        signatures.merge(Signatures::new(second.sign(b"message")));
        assert!(signatures.are_by(&first.public(), b"message"));
        signatures.insert(second.sign(b"message"));
        assert!(signatures.are_by(&second.public(), b"message"));
        assert_eq!(signatures.iter().count(), 1);
    }

    #[test]
    fn other_forms_are_refused() {
        let [a, b] = ["a", "b"].map(signature);
        let read = |text: String| text.parse::<Signatures>();
        assert!(read(format!("{a}\n{b}\n")).is_ok());
        let order = Err(SignaturesError::Order { line: 2 });
        assert_eq!(read(format!("{b}\n{a}\n")), order);
        assert_eq!(read(format!("{a}\n{a}\n")), order);
        for lines in [String::new(), format!("{a}")] {
            assert_eq!(read(lines), Err(SignaturesError::Lines));
        }
        for junk in ["\n".to_owned(), format!("{a}\r\n"), format!("{a}\n\n")] {
            let error = read(junk).unwrap_err();
            assert!(matches!(error, SignaturesError::Signature { .. }));
        }
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_print(names in proptest::collection::btree_set("[a-z]{1,4}", 1..5)) {
            let mut names = names.iter();
            let mut signatures = Signatures::new(signature(names.next().unwrap()));
            names.for_each(|name| signatures.insert(signature(name)));
            prop_assert_eq!(signatures.to_string().parse(), Ok(signatures));
        }
    }
}
