//! Keys and signatures: Ed25519 (RFC 8032), written as Nix writes them.
//!
//! | text | what |
//! |---|---|
//! | `name:` base64 of 32 bytes | a public key |
//! | `name:` base64 of 64 bytes, seed and public key | a secret key, in a file of its own |
//! | `name:` base64 of 64 bytes | a signature; the name says which key made it |
//!
//! `docs/formats/signature.md` describes them. What is signed is no matter of
//! this module: it takes bytes, and `output::Claim` makes them.
//!
//! * A secret never appears in a message or in `Debug`, and its memory is wiped.
//! * A key file that others could read is refused before it is read.
//! * Each key and each signature has one spelling.

mod key;
mod key_file;
mod signatures;

pub use key::{KeyError, KeyName, PublicKey, SecretKey, Signature};
pub use key_file::{KeyFileError, create_key_file, read_key_file};
pub use signatures::{Signatures, SignaturesError};
