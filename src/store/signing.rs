//! Signing outputs, and finding out who has signed them.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::closure::{closure, store_names};
use super::verify::{self, Depth, Kind};
use super::{Result, Store, StoreError};
use crate::digest::{ContentHash, OutputId};
use crate::output::{Claim, Output};
use crate::trust::{KeyName, PublicKey, SecretKey};

/// Signs outputs and all that they refer to, and returns the store names of all
/// that are signed now, sorted.
///
/// Every file of all of them is compared with its manifest before the first
/// signature is made. Fails with [`StoreError::Sign`] if one is absent or
/// damaged; then nothing was signed.
pub fn sign(store: &Store, names: &[String], key: &SecretKey) -> Result<Vec<String>> {
    let refuse = |store_name: &str, source| StoreError::Sign {
        store_name: store_name.to_owned(),
        source,
    };
    let outputs = closure(store, names)?.map_err(|(name, kind)| refuse(&name, kind))?;
    let outputs = store.settle_all(outputs, refuse)?;
    outputs.par_iter().try_for_each(|(name, _)| {
        let found = verify::inspect(store, name, Depth::Content).kinds;
        match found.into_iter().find(|kind| !kind.is_mendable()) {
            Some(kind) => Err(refuse(name, kind)),
            None => Ok(()),
        }
    })?;
    let contents: HashMap<OutputId, ContentHash> = outputs
        .values()
        .map(|output| (output.id, output.content_hash()))
        .collect();
    let claims = outputs.iter().map(|(name, output)| {
        let claim = Claim::of(output, |id| contents.get(&id).copied());
        claim.map_err(|id| refuse(name, Kind::Reference { id }))
    });
    let claims: Vec<Claim> = claims.collect::<Result<_>>()?;
    for (name, claim) in outputs.keys().zip(claims) {
        store.add_signature(name, key.sign(&claim.message()))?;
    }
    Ok(outputs.into_keys().collect())
}

/// Who has signed an output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers {
    /// Keys whose signatures hold for the output as it is here.
    pub valid: Vec<KeyName>,
    /// Known keys whose signatures are for something else.
    pub invalid: Vec<KeyName>,
    /// Keys that are not known.
    pub unknown: Vec<KeyName>,
}

/// Finds out who has signed which output; reads manifests, not files.
#[derive(Debug)]
pub struct SignatureCheck<'a> {
    store: &'a Store,
    keys: &'a [PublicKey],
    names: BTreeMap<OutputId, String>,
    contents: HashMap<OutputId, Option<ContentHash>>,
}

impl<'a> SignatureCheck<'a> {
    /// A check against some keys.
    pub fn new(store: &'a Store, keys: &'a [PublicKey]) -> Result<Self> {
        Ok(Self {
            store,
            keys,
            names: store_names(store)?,
            contents: HashMap::new(),
        })
    }

    /// Who has signed an output. If something that it refers to is missing,
    /// no signature holds.
    pub fn signers(&mut self, output: &Output) -> Result<Signers> {
        let mut signers = Signers::default();
        let Some(signatures) = self.store.signatures(&output.store_name())? else {
            return Ok(signers);
        };
        let claim = Claim::of(output, |id| self.content(id)).ok();
        let message = claim.map(|claim| claim.message());
        for signature in signatures.iter() {
            let name = signature.key();
            // Several keys may have one name, an old and a new one.
            let mut keys = self.keys.iter().filter(|key| key.name() == name).peekable();
            let is_known = keys.peek().is_some();
            let holds =
                message.is_some_and(|message| keys.any(|key| key.verifies(&message, signature)));
            let list = match (is_known, holds) {
                (_, true) => &mut signers.valid,
                (true, false) => &mut signers.invalid,
                (false, false) => &mut signers.unknown,
            };
            list.push(name.clone());
        }
        Ok(signers)
    }

    fn content(&mut self, id: OutputId) -> Option<ContentHash> {
        let Self { store, names, .. } = self;
        *self.contents.entry(id).or_insert_with(|| {
            let output = names.get(&id).and_then(|name| store.output(name));
            output.map(|output| output.content_hash())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs;
    use crate::output::Maker;
    use crate::store::Source;
    use crate::store::verify::samples;

    fn key(name: &str) -> SecretKey {
        SecretKey::generate(name.parse().unwrap()).unwrap()
    }

    struct Sample {
        _folder: tempfile::TempDir,
        store: Store,
        base: Output,
        top: Output,
    }

    impl Sample {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let base = samples::add(&store, "base", &[], &[b"base"]);
            let top = samples::add(&store, "top", &[&base], &[b"top", b"more"]);
            samples::add(&store, "apart", &[], &[b"apart"]);
            Self {
                _folder: folder,
                store,
                base,
                top,
            }
        }

        fn signers(&self, output: &Output, key: &PublicKey) -> Signers {
            let keys = [key.clone()];
            let mut check = SignatureCheck::new(&self.store, &keys).unwrap();
            check.signers(output).unwrap()
        }

        /// Puts another manifest in the place of one, as an attacker would.
        fn replace(&self, name: &str, output: &Output) {
            let manifest = self.store.path(name).join("manifest.json");
            fs::write(&manifest, &serde_json::to_vec(output).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_closure_is_signed_whole() {
        let sample = Sample::new();
        let key = key("test-1");
        let signed = sign(&sample.store, &[sample.top.store_name()], &key).unwrap();
        let mut names = [&sample.base, &sample.top].map(Output::store_name);
        names.sort();
        assert_eq!(signed, names);
        let valid = Signers {
            valid: vec![key.name().clone()],
            ..Signers::default()
        };
        for output in [&sample.base, &sample.top] {
            assert_eq!(sample.signers(output, &key.public()), valid);
        }
        let apart = sample.store.names().unwrap();
        let apart = apart.iter().find(|name| name.contains("apart")).unwrap();
        assert_eq!(sample.store.signatures(apart).unwrap(), None);

        // Another key of the same name, and one of another.
        let same_name = SecretKey::generate(key.name().clone()).unwrap();
        let signers = sample.signers(&sample.base, &same_name.public());
        assert_eq!(signers.invalid, [key.name().clone()]);
        let other = SecretKey::generate("other".parse().unwrap()).unwrap();
        let signers = sample.signers(&sample.base, &other.public());
        assert_eq!(signers.unknown, [key.name().clone()]);
    }

    #[test]
    fn what_is_damaged_is_not_signed() {
        let sample = Sample::new();
        fs::write(&sample.store.file(&sample.base, 0), b"BASE").unwrap();
        let key = key("test-1");
        let error = sign(&sample.store, &[sample.top.store_name()], &key).unwrap_err();
        assert!(
            matches!(&error, StoreError::Sign { store_name, source: Kind::Content { .. } }
                if *store_name == sample.base.store_name()),
            "{error:?}"
        );
        for name in sample.store.names().unwrap() {
            assert_eq!(sample.store.signatures(&name).unwrap(), None);
        }
    }

    #[test]
    fn a_changed_manifest_has_no_valid_signature() {
        let sample = Sample::new();
        let key = key("test-1");
        let name = sample.top.store_name();
        sign(&sample.store, std::slice::from_ref(&name), &key).unwrap();
        let tampered = |what: &str, change: &dyn Fn(&mut Output)| {
            let mut output = sample.top.clone();
            change(&mut output);
            // The signature stays where it is, whatever id is claimed.
            let keys = [key.public()];
            let mut check = SignatureCheck::new(&sample.store, &keys).unwrap();
            let claim = Claim::of(&output, |id| check.content(id));
            let signatures = sample.store.signatures(&name).unwrap().unwrap();
            let holds = claim.is_ok_and(|claim| signatures.are_by(&keys[0], &claim.message()));
            assert!(!holds, "{what}");
        };
        tampered("recipe", &|o| o.recipe = sample.base.recipe);
        tampered("id", &|o| o.id = sample.base.id);
        tampered("file", &|o| {
            o.files[0].sha256 = Some(ContentHash::of(b"evil"));
        });
        tampered("size", &|o| o.files[0].size += 1);
        tampered("name", &|o| o.files[0].name.push('x'));
        tampered("fewer files", &|o| drop(o.files.pop()));
        tampered("references", &|o| o.references.clear());
        tampered("inputs", &|o| o.inputs.env.push(("A".to_owned(), None)));
        tampered("maker", &|o| {
            o.builder = Maker::Image(ContentHash::of(b"image"));
        });
    }

    #[test]
    fn a_changed_reference_voids_the_signature() {
        let sample = Sample::new();
        let key = key("test-1");
        sign(&sample.store, &[sample.top.store_name()], &key).unwrap();
        let mut evil = sample.base.clone();
        evil.files = vec![crate::store::describe_bytes(
            evil.files[0].role,
            evil.files[0].name.clone(),
            b"evil",
        )];
        sample.replace(&sample.base.store_name(), &evil);
        let signers = sample.signers(&sample.top, &key.public());
        assert_eq!(signers.invalid, [key.name().clone()]);
        let signers = sample.signers(&evil, &key.public());
        assert_eq!(signers.invalid, [key.name().clone()]);

        // Nor does it hold where a reference is missing.
        sample.replace(&sample.base.store_name(), &sample.base);
        assert_eq!(sample.signers(&sample.top, &key.public()).valid.len(), 1);
        sample.store.discard(&sample.base.store_name()).unwrap();
        let signers = sample.signers(&sample.top, &key.public());
        assert_eq!(signers.invalid, [key.name().clone()]);
    }

    #[test]
    fn another_build_of_the_same_bytes_keeps_the_signature() {
        let sample = Sample::new();
        let key = key("test-1");
        let name = sample.top.store_name();
        sign(&sample.store, std::slice::from_ref(&name), &key).unwrap();
        let signatures = sample.store.signatures(&name).unwrap().unwrap();
        sample.store.discard(&name).unwrap();
        let mut again = sample.top.clone();
        again.seconds = 99.0;
        again.jobs = 64;
        let sources = [b"top".to_vec(), b"more".to_vec()].map(Source::Bytes);
        sample.store.add(&again, &sources).unwrap();
        sample.store.merge_signatures(&name, signatures).unwrap();
        assert_eq!(sample.signers(&again, &key.public()).valid.len(), 1);
    }
}
