//! Key names, keys and single signatures.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

/// Characters that a name may have; they become part of a file's name.
const MAX_NAME: usize = 100;

/// Text that is no key name, key or signature. Secret text is not repeated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The name has a character that names do not have, or no letter at all.
    #[error(
        "`{0}` is not a name of a key: letters, digits, `-`, `.` and `_`, with a letter or digit first"
    )]
    Name(String),
    /// There is no colon.
    #[error("{kind} has the form `name:base64`")]
    Form {
        /// What was read.
        kind: &'static str,
    },
    /// What follows the colon is not base64, or of another length.
    #[error("{kind} of `{name}` is not {bytes} bytes in base64")]
    Base64 {
        /// What was read.
        kind: &'static str,
        /// The key's name.
        name: KeyName,
        /// The length it has.
        bytes: usize,
    },
    /// The bytes are no point of the curve, or one that signs anything.
    #[error("the public key of `{0}` is not a key of Ed25519")]
    Point(KeyName),
    /// Seed and public key of a secret key are of different keys.
    #[error("the secret key of `{0}` is damaged: its two halves do not belong together")]
    Halves(KeyName),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// The name of a key: who signs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins_well && text.len() <= MAX_NAME && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyError::Name(text.to_owned()))
        }
    }
}

/// Reads `name:base64` with exactly `N` bytes.
fn parse<const N: usize>(
    kind: &'static str,
    text: &str,
) -> Result<(KeyName, Zeroizing<[u8; N]>), KeyError> {
    let (name, base64) = text.split_once(':').ok_or(KeyError::Form { kind })?;
    let name: KeyName = name.parse()?;
    // The decoder takes one spelling only: padded, without stray bits.
    let decoded = STANDARD.decode(base64).map(Zeroizing::new);
    let bytes = decoded.ok().and_then(|decoded| {
        let bytes: &[u8; N] = decoded.as_slice().try_into().ok()?;
        Some(Zeroizing::new(*bytes))
    });
    match bytes {
        Some(bytes) => Ok((name, bytes)),
        None => Err(KeyError::Base64 {
            kind,
            name,
            bytes: N,
        }),
    }
}

/// What a signature is checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: KeyName,
    key: VerifyingKey,
}

impl PublicKey {
    /// Its name.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Whether this key made the signature for these bytes. A signature under
    /// another name is another key's.
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        // Strictly: a signature that only some implementations take is none.
        signature.key == self.name && self.key.verify_strict(message, &bytes).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, STANDARD.encode(self.key.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = parse::<32>("the public key", text)?;
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Self { name, key }),
            _ => Err(KeyError::Point(name)),
        }
    }
}

/// What signs. Its memory is wiped when it is dropped.
pub struct SecretKey {
    name: KeyName,
    key: SigningKey,
}

impl SecretKey {
    /// A new key from the system's random numbers.
    pub fn generate(name: KeyName) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(KeyError::Random)?;
        let key = SigningKey::from_bytes(&seed);
        Ok(Self { name, key })
    }

    /// Reads what [`to_text`](Self::to_text) writes.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = parse::<64>("the secret key", text)?;
        match SigningKey::from_keypair_bytes(&bytes) {
            Ok(key) => Ok(Self { name, key }),
            Err(_mismatch) => Err(KeyError::Halves(name)),
        }
    }

    /// The text for a key file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(self.key.to_keypair_bytes());
        let mut text = Zeroizing::new(String::with_capacity(self.name.0.len() + 1 + 88));
        text.push_str(&self.name.0);
        text.push(':');
        STANDARD.encode_string(bytes.as_slice(), &mut text);
        text
    }

    /// Its name.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The key that its signatures are checked with.
    pub fn public(&self) -> PublicKey {
        PublicKey {
            name: self.name.clone(),
            key: self.key.verifying_key(),
        }
    }

    /// Signs bytes.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature {
            key: self.name.clone(),
            bytes: self.key.sign(message).to_bytes(),
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A signature and the name of the key that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    key: KeyName,
    bytes: [u8; 64],
}

impl Signature {
    /// The name of the key that it is said to be by.
    pub fn key(&self) -> &KeyName {
        &self.key
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key, STANDARD.encode(self.bytes))
    }
}

impl FromStr for Signature {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (key, bytes) = parse::<64>("the signature", text)?;
        Ok(Self { key, bytes: *bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        let mut bytes = [0; N];
        assert_eq!(text.len(), 2 * N);
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
        }
        bytes
    }

    fn key(seed: [u8; 32]) -> SecretKey {
        SecretKey {
            name: "test-1".parse().unwrap(),
            key: SigningKey::from_bytes(&seed),
        }
    }

    /// RFC 8032, section 7.1, tests 1 and 3.
    #[test]
    fn signatures_are_those_of_the_rfc() {
        let vectors = [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ];
        for (seed, public, message, signature) in vectors {
            let secret = key(hex(seed));
            assert_eq!(secret.public().key.as_bytes(), &hex::<32>(public));
            let message: Vec<u8> = match message {
                "" => Vec::new(),
                message => hex::<2>(message).to_vec(),
            };
            let signed = secret.sign(&message);
            assert_eq!(signed.bytes, hex::<64>(signature));
            assert!(secret.public().verifies(&message, &signed));
        }
    }

    #[test]
    fn another_message_key_or_name_does_not_verify() {
        let secret = key([1; 32]);
        let signature = secret.sign(b"message");
        let public = secret.public();
        assert!(public.verifies(b"message", &signature));
        assert!(!public.verifies(b"massage", &signature));
        assert!(!key([2; 32]).public().verifies(b"message", &signature));
        for at in 0..64 {
            let mut flipped = signature.clone();
            flipped.bytes[at] ^= 1;
            assert!(!public.verifies(b"message", &flipped), "byte {at}");
        }
        let mut renamed = signature;
        renamed.key = "test-2".parse().unwrap();
        assert!(!public.verifies(b"message", &renamed));
    }

    #[test]
    fn names_are_words() {
        for name in ["a", "cache.example.org-1", "A_b.C-9"] {
            assert_eq!(name.parse::<KeyName>().unwrap().as_str(), name);
        }
        let long = "x".repeat(MAX_NAME + 1);
        for name in ["", "-a", ".a", "..", "a/b", "a b", "a:b", "ä", "a\n", &long] {
            assert_eq!(
                name.parse::<KeyName>(),
                Err(KeyError::Name(name.to_owned()))
            );
        }
    }

    #[test]
    fn junk_is_no_key_and_is_not_repeated() {
        let text = key([3; 32]).to_text();
        let (name, base64) = text.split_once(':').unwrap();
        let mut halves = STANDARD.decode(base64).unwrap();
        halves[63] ^= 1;
        let halves = format!("{name}:{}", STANDARD.encode(halves));
        assert!(matches!(
            SecretKey::parse(&halves),
            Err(KeyError::Halves(_))
        ));
        let unpadded = text.trim_end_matches('=').to_owned();
        for junk in [
            base64.to_owned(),
            format!("{name}:{}", &base64[4..]),
            format!("{name}: {base64}"),
            format!("{name}:{base64}\n"),
            unpadded,
            halves,
        ] {
            let error = SecretKey::parse(&junk).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(&base64[8..16]));
        }
        assert!(!format!("{:?}", key([3; 32])).contains(&base64[..16]));
        // All zeros are a point of small order: some "signatures" of it hold
        // for many messages.
        let weak = format!("weak:{}", STANDARD.encode([0; 32]));
        assert!(matches!(weak.parse::<PublicKey>(), Err(KeyError::Point(_))));
    }

    #[test]
    fn generated_keys_differ() {
        let name: KeyName = "a".parse().unwrap();
        let one = SecretKey::generate(name.clone()).unwrap();
        let other = SecretKey::generate(name).unwrap();
        assert_ne!(one.public(), other.public());
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_print(
            seed in any::<[u8; 32]>(),
            message in any::<Vec<u8>>(),
            name in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}",
        ) {
            let secret = SecretKey {
                name: name.parse().unwrap(),
                key: SigningKey::from_bytes(&seed),
            };
            let again = SecretKey::parse(&secret.to_text()).unwrap();
            prop_assert_eq!(again.to_text(), secret.to_text());
            let public: PublicKey = secret.public().to_string().parse().unwrap();
            prop_assert_eq!(&public, &secret.public());
            let signature = again.sign(&message);
            prop_assert!(public.verifies(&message, &signature));
            prop_assert_eq!(signature.to_string().parse(), Ok(signature));
        }

        #[test]
        fn what_is_read_is_spelled_so(text in "[a-z]{1,3}:[A-Za-z0-9+/]{84,88}={0,2}") {
            if let Ok(signature) = text.parse::<Signature>() {
                prop_assert_eq!(signature.to_string(), text);
            }
        }
    }
}
