//! Who compiled an output.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::ContentHash;

/// Who compiled an output. The paths inside differ, and so do the hashes that
/// rustc gives to crates: what two makers compiled cannot be mixed. So an
/// output's id tells them apart, and references keep a closure to one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Maker {
    /// Cargo in a checkout, or the local sandbox; `local` outputs are never
    /// served to others unless the user says so.
    #[default]
    Local,
    /// A container of the image with this digest.
    Image(ContentHash),
}

/// Text that names no maker.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is neither `local` nor `image:sha256:` and a digest")]
pub struct ParseMakerError {
    text: String,
}

impl Maker {
    /// The maker that an image with this digest (`sha256:…`) is.
    pub fn image(digest: &str) -> Result<Self, ParseMakerError> {
        let hash = digest.strip_prefix("sha256:").and_then(|hex| {
            let hash: ContentHash = hex.parse().ok()?;
            // One spelling only, since it is hashed as text.
            (hash.to_string() == hex).then_some(hash)
        });
        hash.map(Self::Image).ok_or_else(|| ParseMakerError {
            text: format!("image:{digest}"),
        })
    }

    /// The digest of its image, as engines write it.
    pub fn image_digest(&self) -> Option<String> {
        match self {
            Self::Local => None,
            Self::Image(hash) => Some(format!("sha256:{hash}")),
        }
    }
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Image(hash) => write!(f, "image:sha256:{hash}"),
        }
    }
}

impl FromStr for Maker {
    type Err = ParseMakerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("image:") {
            Some(digest) => Self::image(digest),
            None if text == "local" => Ok(Self::Local),
            None => Err(ParseMakerError {
                text: text.to_owned(),
            }),
        }
    }
}

impl Serialize for Maker {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Maker {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_two_forms_are_makers() {
        assert_eq!("local".parse(), Ok(Maker::Local));
        let hash = ContentHash::of(b"image").to_string();
        let text = format!("image:sha256:{hash}");
        let maker: Maker = text.parse().unwrap();
        assert_eq!(maker.to_string(), text);
        assert_eq!(maker.image_digest(), Some(format!("sha256:{hash}")));
        assert_eq!(
            serde_json::to_string(&maker).unwrap(),
            format!("\"{text}\"")
        );
        for junk in [
            "".to_owned(),
            "Local".to_owned(),
            hash.clone(),
            format!("sha256:{hash}"),
            format!("image:{hash}"),
            format!("image:sha512:{hash}"),
            format!("image:sha256:{}", hash.to_uppercase()),
            format!("image:sha256:{}", &hash[1..]),
        ] {
            assert!(junk.parse::<Maker>().is_err(), "{junk}");
        }
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_print(image in any::<Option<Vec<u8>>>()) {
            let maker = image.map_or(Maker::Local, |image| Maker::Image(ContentHash::of(&image)));
            prop_assert_eq!(maker.to_string().parse(), Ok(maker));
        }
    }
}
