//! Who vouches for what is published: signatures and provenance, read where they
//! lie, and held against this service's own key.

use std::collections::BTreeMap;

use sqlx::Row as _;

use super::builds::Publishing;
use super::database::{Database, Doing as _, Result};
use crate::digest::{OutputId, RecipeHash};
use crate::output::provenance::Statement;
use crate::output::{Claim, Maker};
use crate::substituter::{Document, Entry, Question, SubstituterError};
use crate::trust::{PublicKey, Signatures};

/// What is being done, for errors.
const DOING: &str = "tell who vouches for outputs";
/// Recipes whose documents are read for one page.
const RECIPES: i64 = 16;

/// What the database says of a published output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    /// Its store name.
    output: String,
    /// The recipe under which it is published.
    recipe: String,
    /// Its content.
    content: String,
    /// The build that made it.
    build: i64,
    /// The builder.
    builder: String,
}

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signer {
    /// The key's name.
    pub(super) name: String,
    /// Whether it is this service's key, and what is published is what was signed;
    /// none for keys of others.
    pub(super) holds: Option<bool>,
}

/// What is said of a published output where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vouched {
    /// Its store name.
    pub(super) output: String,
    /// The builder.
    pub(super) builder: String,
    /// The build whose log tells how it was made.
    pub(super) build: i64,
    /// Who has signed it; none where it is not there.
    pub(super) signers: Option<Vec<Signer>>,
    /// Whether it has the content that the service has noted.
    pub(super) is_noted: bool,
    /// The image that made it, by its digest.
    pub(super) image: Option<String>,
    /// How it came about, if that is said.
    pub(super) made: Option<Run>,
}

/// A run of a builder, as provenance tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// Who operates the builder.
    pub(super) by: String,
    /// What they call the run.
    pub(super) run: String,
    /// When it began.
    pub(super) began: String,
    /// When it ended.
    pub(super) ended: String,
}

/// What is published of a recipe, as the database has it.
pub(super) async fn published(database: &Database, recipe: &str) -> Result<Vec<Published>> {
    const FIND: &str = "SELECT outputs.output, outputs.host_recipe, outputs.content, \
        outputs.build, builds.builder FROM outputs JOIN builds ON builds.id = outputs.build \
        WHERE outputs.recipe = $1 OR outputs.host_recipe = $1 ORDER BY outputs.output LIMIT $2";
    let query = sqlx::query(FIND).bind(recipe).bind(RECIPES);
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let published = rows.iter().map(|row| {
        let text = |column: usize| row.try_get::<String, _>(column).doing(DOING);
        Ok(Published {
            output: text(0)?,
            recipe: text(1)?,
            content: text(2)?,
            build: row.try_get(3).doing(DOING)?,
            builder: text(4)?,
        })
    });
    published.collect()
}

/// Reads what is said of outputs where they lie.
pub(super) fn look(
    publishing: &Publishing,
    published: &[Published],
) -> std::result::Result<Vec<Vouched>, SubstituterError> {
    let recipes = published.iter().filter_map(|one| one.recipe.parse().ok());
    let mut recipes: Vec<RecipeHash> = recipes.collect();
    recipes.sort_unstable();
    recipes.dedup();
    // With what they refer to, since that is signed as well.
    let found = publishing.to.documents(Question::Closures, &recipes)?;
    let mut all = Document::default();
    for (recipe, bytes) in recipes.iter().zip(found) {
        if let Some(bytes) = bytes {
            let path = Question::Closures.path(*recipe);
            all.add(&publishing.to.parse(&bytes, &path)?);
        }
    }
    let key = publishing.key.as_ref().map(|key| key.public());
    let entries = all.outputs.values();
    let entries: BTreeMap<String, &Entry> = entries
        .map(|entry| (entry.output.store_name(), entry))
        .collect();
    let vouched = published.iter().map(|one| {
        let entry = entries.get(&one.output);
        vouched(one, entry.copied(), &all, key.as_ref())
    });
    Ok(vouched.collect())
}

fn vouched(
    one: &Published,
    entry: Option<&Entry>,
    all: &Document,
    key: Option<&PublicKey>,
) -> Vouched {
    let content = entry.map(|entry| entry.output.content_hash().to_string());
    Vouched {
        output: one.output.clone(),
        builder: one.builder.clone(),
        build: one.build,
        signers: entry.map(|entry| signers(entry, all, key)),
        is_noted: content.is_none_or(|content| content == one.content),
        image: entry.and_then(|entry| match entry.output.builder {
            Maker::Image(image) => Some(format!("sha256:{image}")),
            Maker::Local => None,
        }),
        made: entry.and_then(made),
    }
}

fn signers(entry: &Entry, all: &Document, key: Option<&PublicKey>) -> Vec<Signer> {
    let content = |id: OutputId| {
        let entry = all.outputs.get(&id)?;
        Some(entry.output.content_hash())
    };
    let claim = Claim::of(&entry.output, content).ok();
    let message = claim.map(|claim| claim.message());
    let signatures = entry.signatures.iter().flat_map(Signatures::iter);
    let signers = signatures.map(|signature| {
        let key = key.filter(|key| key.name() == signature.key());
        let holds = key.map(|key| message.is_some_and(|message| key.verifies(&message, signature)));
        Signer {
            name: signature.key().to_string(),
            holds,
        }
    });
    signers.collect()
}

/// What provenance says, if it is about this output.
fn made(entry: &Entry) -> Option<Run> {
    let is_about = |statement: &&Statement| statement.is_about(&entry.output);
    let details = &entry
        .provenance
        .as_ref()
        .filter(is_about)?
        .predicate
        .run_details;
    Some(Run {
        by: details.builder.id.clone(),
        run: details.metadata.invocation_id.clone(),
        began: details.metadata.started_on.to_string(),
        ended: details.metadata.finished_on.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples::full;
    use crate::substituter::ArchiveRef;
    use crate::trust::SecretKey;

    fn key(name: &str) -> SecretKey {
        SecretKey::generate(name.parse().unwrap()).unwrap()
    }

    /// An output that refers to nothing, signed by some.
    fn document(keys: &[&SecretKey]) -> (Document, Published) {
        let mut output = full();
        output.references.clear();
        let message = Claim::of(&output, |_| None).unwrap().message();
        let mut entry = Entry {
            archive: ArchiveRef {
                sha256: crate::digest::ContentHash::of(b""),
                size: 0,
            },
            output: output.clone(),
            signatures: None,
            provenance: None,
        };
        let signatures = keys.iter().map(|key| key.sign(&message));
        entry.add_signatures(&signatures.collect::<Vec<_>>());
        let published = Published {
            output: output.store_name(),
            recipe: output.host_recipe.to_string(),
            content: output.content_hash().to_string(),
            build: 7,
            builder: "1.95.0-x".to_owned(),
        };
        let mut document = Document::default();
        document.outputs.insert(output.id, entry);
        (document, published)
    }

    fn judged(document: &Document, one: &Published, own: &SecretKey) -> Vouched {
        let entry = document.outputs.values().next();
        vouched(one, entry, document, Some(&own.public()))
    }

    #[test]
    fn only_this_services_signature_of_this_content_holds() {
        let (own, other) = (key("own"), key("other"));
        let (document, one) = document(&[&own, &other]);
        let seen = judged(&document, &one, &own);
        assert!(seen.is_noted);
        let holds = |vouched: &Vouched| -> Vec<(String, Option<bool>)> {
            let signers = vouched.signers.iter().flatten();
            signers.map(|s| (s.name.clone(), s.holds)).collect()
        };
        let names = |own| vec![("other".to_owned(), None), ("own".to_owned(), own)];
        assert_eq!(holds(&seen), names(Some(true)));
        // Another key of the same name, and another content.
        assert_eq!(
            holds(&judged(&document, &one, &key("own"))),
            names(Some(false))
        );
        let mut forged = document.clone();
        for entry in forged.outputs.values_mut() {
            entry.output.files[0].size += 1;
        }
        let seen = judged(&forged, &one, &own);
        assert_eq!(holds(&seen), names(Some(false)));
        assert!(!seen.is_noted);
        // What is not there is signed by nobody.
        let gone = vouched(&one, None, &document, Some(&own.public()));
        assert_eq!((gone.signers, gone.made), (None, None));
    }
}
