//! Who is believed, and what is taken from them.

use std::collections::BTreeSet;
use std::fmt;

use super::{Entry, Result, SubstituterError};
use crate::config::SubstituterSettings;
use crate::output::{Claim, Output, Produced, Role};
use crate::trust::{KeyName, PublicKey, Signature, Signatures};

/// What an output of a substituter must have.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    keys: Vec<PublicKey>,
    required: Vec<KeyName>,
    signatures: usize,
    libraries_only: bool,
    require_provenance: bool,
}

/// Why an output is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Objection {
    /// Nobody has signed it.
    Unsigned,
    /// No trusted key has signed it.
    Untrusted,
    /// A trusted key has signed something else under its name.
    Invalid,
    /// Fewer trusted keys have signed it than must.
    TooFew,
    /// A key that must have signed it has not.
    Required,
    /// It has something that runs, or was made by something that ran.
    Runs,
    /// Nothing is said of how it came about.
    NoProvenance,
    /// It refers to something that is not taken, or not there.
    Reference,
    /// Something else of this id is here.
    Conflict,
    /// Its archive is larger than its files.
    Implausible,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsigned => "not signed",
            Self::Untrusted => "signed by unknown keys only",
            Self::Invalid => "not what was signed",
            Self::TooFew => "signed by too few keys",
            Self::Required => "not signed by a required key",
            Self::Runs => "not just a library",
            Self::NoProvenance => "without provenance",
            Self::Reference => "with references to what is refused or missing",
            Self::Conflict => "unlike what is here under the same id",
            Self::Implausible => "with an archive that is too large",
        })
    }
}

impl Policy {
    /// The policy in the settings.
    pub fn new(settings: &SubstituterSettings) -> Result<Self> {
        let place = || settings.url.clone();
        let keys = settings.public_keys.iter().map(|text| {
            text.parse::<PublicKey>()
                .map_err(|source| SubstituterError::Key {
                    place: place(),
                    source,
                })
        });
        let required = settings.required_keys.iter().map(|text| {
            text.parse::<KeyName>()
                .map_err(|source| SubstituterError::Key {
                    place: place(),
                    source,
                })
        });
        Ok(Self {
            keys: keys.collect::<Result<_>>()?,
            required: required.collect::<Result<_>>()?,
            signatures: settings.signatures,
            libraries_only: settings.libraries_only,
            require_provenance: settings.require_provenance,
        })
    }

    /// Whether no signature is asked for.
    pub fn is_unsigned(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether more than one key must have signed an output, so that signatures
    /// of other substituters help.
    pub fn asks_for_several(&self) -> bool {
        !self.is_unsigned() && (self.signatures > 1 || !self.required.is_empty())
    }

    /// The signatures by trusted keys that hold for a message.
    pub fn valid<'a>(
        &'a self,
        signatures: &'a Signatures,
        message: &'a [u8],
    ) -> impl Iterator<Item = &'a Signature> {
        signatures.iter().filter(move |signature| {
            let mut keys = self.keys.iter();
            keys.any(|key| key.verifies(message, signature))
        })
    }

    /// Whether one of these public keys is trusted.
    pub fn trusts_one_of(&self, keys: &[String]) -> bool {
        let keys = keys.iter().filter_map(|key| key.parse::<PublicKey>().ok());
        keys.into_iter().any(|key| self.keys.contains(&key))
    }

    /// Why an output is not taken, if it is not. The claim must be the one about
    /// it, with the content of its references as they are here. `elsewhere` are
    /// the keys that have signed the same claim and are trusted for another
    /// substituter: they count where several must have signed, behind one of this
    /// substituter's own.
    pub fn objection(
        &self,
        entry: &Entry,
        claim: &Claim,
        elsewhere: &BTreeSet<KeyName>,
    ) -> Option<Objection> {
        if self.libraries_only && runs(&entry.output) {
            Some(Objection::Runs)
        } else if self.require_provenance && entry.provenance.is_none() {
            Some(Objection::NoProvenance)
        } else if self.is_unsigned() {
            None
        } else {
            self.objection_to_signatures(entry, claim, elsewhere)
        }
    }

    fn objection_to_signatures(
        &self,
        entry: &Entry,
        claim: &Claim,
        elsewhere: &BTreeSet<KeyName>,
    ) -> Option<Objection> {
        let Some(signatures) = &entry.signatures else {
            return Some(Objection::Unsigned);
        };
        let message = claim.message();
        // By name: two keys of one name, an old and a new one, are one signer.
        let signers = self.valid(signatures, &message).map(Signature::key);
        let mut signers: BTreeSet<&KeyName> = signers.collect();
        if signers.is_empty() {
            let is_known = signatures
                .iter()
                .any(|signature| self.keys.iter().any(|key| key.name() == signature.key()));
            return Some(if is_known {
                Objection::Invalid
            } else {
                Objection::Untrusted
            });
        }
        if self.required.iter().any(|name| !signers.contains(&name)) {
            return Some(Objection::Required);
        }
        signers.extend(elsewhere);
        if signers.len() < self.signatures {
            Some(Objection::TooFew)
        } else {
            None
        }
    }
}

/// Whether an output has something that runs here, or what something did that
/// ran elsewhere.
fn runs(output: &Output) -> bool {
    let is_run = |role| matches!(role, Role::Executable | Role::Native);
    output.produced == Produced::Run || output.files.iter().any(|file| is_run(file.role))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::digest::ContentHash;
    use crate::output::provenance::Statement;
    use crate::output::provenance::tests::build;
    use crate::output::samples::full;
    use crate::substituter::ArchiveRef;
    use crate::trust::{SecretKey, Signatures};

    fn key(name: &str) -> SecretKey {
        SecretKey::generate(name.parse().unwrap()).unwrap()
    }

    fn claim(output: &Output) -> Claim {
        Claim::of(output, |id| {
            Some(ContentHash::of(id.to_string().as_bytes()))
        })
        .unwrap()
    }

    fn library() -> Output {
        let mut output = full();
        output.produced = Produced::Build;
        output.files.iter_mut().for_each(|f| f.role = Role::Library);
        output
    }

    fn signed(output: Output, keys: &[&SecretKey]) -> Entry {
        let message = claim(&output).message();
        let mut signatures: Option<Signatures> = None;
        for key in keys {
            let signature = key.sign(&message);
            match &mut signatures {
                Some(signatures) => signatures.insert(signature),
                None => signatures = Some(Signatures::new(signature)),
            }
        }
        Entry {
            archive: ArchiveRef {
                sha256: ContentHash::of(b""),
                size: 0,
            },
            signatures,
            provenance: None,
            output,
        }
    }

    fn policy(keys: &[&SecretKey], change: impl FnOnce(&mut SubstituterSettings)) -> Policy {
        let keys = keys.iter().map(|key| key.public().to_string()).collect();
        let mut settings = SubstituterSettings::new("u", Path::new("/"), keys);
        change(&mut settings);
        Policy::new(&settings).unwrap()
    }

    fn judge(policy: &Policy, entry: &Entry) -> Option<Objection> {
        policy.objection(entry, &claim(&entry.output), &BTreeSet::new())
    }

    #[test]
    fn trusted_keys_are_counted() {
        let (a, b, c) = (key("a"), key("b"), key("c"));
        let one = policy(&[&a, &b], |_| {});
        assert_eq!(judge(&one, &signed(library(), &[&a])), None);
        assert_eq!(judge(&one, &signed(library(), &[&b, &c])), None);
        let unsigned = signed(library(), &[]);
        assert_eq!(judge(&one, &unsigned), Some(Objection::Unsigned));
        let foreign = signed(library(), &[&c]);
        assert_eq!(judge(&one, &foreign), Some(Objection::Untrusted));

        let two = policy(&[&a, &b], |settings| settings.signatures = 2);
        assert_eq!(judge(&two, &signed(library(), &[&a, &b])), None);
        let few = signed(library(), &[&a, &c]);
        assert_eq!(judge(&two, &few), Some(Objection::TooFew));

        let needs_b = policy(&[&a, &b], |settings| {
            settings.required_keys = vec!["b".to_owned()];
        });
        let without = signed(library(), &[&a]);
        assert_eq!(judge(&needs_b, &without), Some(Objection::Required));
        assert_eq!(judge(&needs_b, &signed(library(), &[&b])), None);

        let none = policy(&[], |_| {});
        assert!(none.is_unsigned());
        assert_eq!(judge(&none, &unsigned), None);
    }

    #[test]
    fn keys_of_other_substituters_count_behind_an_own_one() {
        let (a, b, c) = (key("a"), key("b"), key("c"));
        let judge = |policy: &Policy, entry: &Entry, elsewhere: &[&SecretKey]| {
            let names = elsewhere.iter().map(|key| key.name().clone()).collect();
            policy.objection(entry, &claim(&entry.output), &names)
        };
        let two = policy(&[&a], |settings| settings.signatures = 2);
        let by_a = signed(library(), &[&a]);
        assert_eq!(judge(&two, &by_a, &[]), Some(Objection::TooFew));
        assert_eq!(judge(&two, &by_a, &[&b]), None);
        // The same name is the same signer.
        assert_eq!(judge(&two, &by_a, &[&a]), Some(Objection::TooFew));
        let by_c = signed(library(), &[&c]);
        assert_eq!(judge(&two, &by_c, &[&a, &b]), Some(Objection::Untrusted));
        // Whom this substituter requires is no matter of others.
        let needs_b = policy(&[&a, &b], |settings| {
            settings.required_keys = vec!["b".to_owned()];
        });
        assert_eq!(judge(&needs_b, &by_a, &[&b]), Some(Objection::Required));
    }

    #[test]
    fn two_keys_of_one_name_are_one_signer() {
        let (old, new) = (key("a"), key("a"));
        let two = policy(&[&old, &new], |settings| settings.signatures = 2);
        for key in [&old, &new] {
            let entry = signed(library(), &[key]);
            assert_eq!(judge(&two, &entry), Some(Objection::TooFew));
        }
    }

    #[test]
    fn another_content_was_not_signed() {
        let a = key("a");
        let mut entry = signed(library(), &[&a]);
        entry.output.files[0].sha256 = Some(ContentHash::of(b"evil"));
        let found = judge(&policy(&[&a], |_| {}), &entry);
        assert_eq!(found, Some(Objection::Invalid));
    }

    #[test]
    fn only_libraries_and_only_with_provenance() {
        let a = key("a");
        let libraries = policy(&[&a], |settings| settings.libraries_only = true);
        assert_eq!(judge(&libraries, &signed(library(), &[&a])), None);
        let mut macros = library();
        macros.files[0].role = Role::Native;
        let mut script = library();
        script.files[0].role = Role::Executable;
        let mut run = library();
        run.produced = Produced::Run;
        for output in [macros, script, run] {
            let entry = signed(output, &[&a]);
            assert_eq!(judge(&libraries, &entry), Some(Objection::Runs));
        }
        let proved = policy(&[&a], |settings| settings.require_provenance = true);
        let mut entry = signed(library(), &[&a]);
        assert_eq!(judge(&proved, &entry), Some(Objection::NoProvenance));
        entry.provenance = Some(Statement::new(&entry.output, build()));
        assert_eq!(judge(&proved, &entry), None);
    }

    #[test]
    fn what_is_no_key_is_named() {
        let settings = SubstituterSettings::new("u", Path::new("/"), vec!["a:b".to_owned()]);
        let error = Policy::new(&settings).unwrap_err();
        assert!(matches!(error, SubstituterError::Key { .. }));
    }
}
