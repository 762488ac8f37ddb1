//! Several substituters that are asked about one plan, each once, and what they
//! say together of one output.
//!
//! Where a substituter's settings ask for several signatures, those that other
//! substituters have count as well, on two conditions: it is a signature over
//! the very same statement, and the key is trusted for the substituter that has
//! it.

use std::collections::BTreeSet;

use super::cache::LookupCache;
use crate::substituter::{Document, Entry, Substituter};
use crate::trust::{KeyName, Signature};

/// A substituter, and what it said.
pub(super) struct Asked<'a> {
    pub(super) substituter: &'a Substituter,
    pub(super) cache: LookupCache,
    /// `None` as long as it was not asked; nothing is in it if that failed.
    pub(super) said: Option<Document>,
}

/// What all substituters but one say.
pub(super) struct Others<'a>(Vec<(&'a Substituter, &'a Document)>);

impl<'a> Others<'a> {
    /// What the others in a round say.
    pub(super) fn new(round: &'a [Asked<'_>], number: usize) -> Self {
        let others = round.iter().enumerate().filter(|(n, _)| *n != number);
        let said = others.filter_map(|(_, asked)| Some((asked.substituter, asked.said.as_ref()?)));
        Self(said.collect())
    }

    /// Nobody else.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Signatures that others have over the same statement about the same
    /// content, by keys that are trusted there.
    pub(super) fn signatures(&self, entry: &Entry, message: &[u8]) -> Vec<Signature> {
        let content = entry.output.content_hash();
        let mut found = Vec::new();
        for (substituter, document) in &self.0 {
            let same = document.outputs.get(&entry.output.id);
            let same = same.filter(|other| other.output.content_hash() == content);
            if let Some(signatures) = same.and_then(|other| other.signatures.as_ref()) {
                let valid = substituter.policy().valid(signatures, message);
                found.extend(valid.cloned());
            }
        }
        found
    }
}

/// The names of keys that have signed.
pub(super) fn signers(signatures: &[Signature]) -> BTreeSet<KeyName> {
    let names = signatures.iter().map(|signature| signature.key().clone());
    names.collect()
}
