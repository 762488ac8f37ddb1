//! What a signature vouches for.

use super::Output;
use crate::digest::{Canonical, ContentHash, OutputId, RecipeHash};

/// What whoever signs an output says of it: this is what the recipe gives, from
/// these inputs, against exactly these dependencies. `docs/formats/signature.md`
/// has the statement row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The output.
    pub id: OutputId,
    /// What it is an output of.
    pub recipe: RecipeHash,
    /// [`Output::content_hash`].
    pub content: ContentHash,
    /// Bytes of its files.
    pub size: u64,
    /// What it was compiled against, in the manifest's order, each with its
    /// own content.
    pub references: Vec<(OutputId, ContentHash)>,
}

impl Claim {
    /// The claim about an output. `content_of` tells the content hash of each
    /// output that it refers to; the first one that it does not know is the
    /// error.
    pub fn of(
        output: &Output,
        mut content_of: impl FnMut(OutputId) -> Option<ContentHash>,
    ) -> Result<Self, OutputId> {
        let references = output.references.iter();
        let references = references.map(|&id| Ok((id, content_of(id).ok_or(id)?)));
        Ok(Self {
            id: output.id,
            recipe: output.recipe,
            content: output.content_hash(),
            size: output.size(),
            references: references.collect::<Result<_, _>>()?,
        })
    }

    /// The bytes that are signed: the SHA-256 of the canonical statement.
    pub fn message(&self) -> [u8; 32] {
        let mut canonical = Canonical::new("quickbuild-signature-1");
        canonical
            .text(&self.id.to_string())
            .text(&self.recipe.to_string())
            .bytes(self.content.as_bytes())
            .number(self.size)
            .number(self.references.len() as u64);
        for (id, content) in &self.references {
            canonical.text(&id.to_string()).bytes(content.as_bytes());
        }
        *ContentHash::finish(canonical).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::hex;
    use crate::output::samples::full;

    fn claim() -> Claim {
        let content_of = |id: OutputId| Some(ContentHash::of(id.to_string().as_bytes()));
        Claim::of(&full(), content_of).unwrap()
    }

    /// A pinned literal: whoever changes the encoding makes all signatures void.
    #[test]
    fn the_message_is_pinned() {
        assert_eq!(
            hex(&claim().message()),
            "51efb3eeec852df8c0c44775c96c5f59d648bac25e375668752adda53a559bfa"
        );
    }

    #[test]
    fn every_field_is_in_the_message() {
        let message = claim().message();
        let differs = |what: &str, change: &dyn Fn(&mut Claim)| {
            let mut claim = claim();
            change(&mut claim);
            assert_ne!(claim.message(), message, "{what}");
        };
        differs("id", &|claim| claim.id = claim.references[0].0);
        differs("recipe", &|claim| claim.recipe = full().host_recipe);
        differs("content", &|claim| {
            claim.content = ContentHash::of(b"other");
        });
        differs("size", &|claim| claim.size += 1);
        differs("reference", &|claim| claim.references[0].0 = claim.id);
        differs("its content", &|claim| {
            claim.references[1].1 = claim.references[0].1;
        });
        differs("order", &|claim| claim.references.reverse());
        differs("fewer", &|claim| {
            claim.references.pop();
        });
    }

    #[test]
    fn a_reference_that_is_not_known_makes_no_claim() {
        let output = full();
        let second = output.references[1];
        let content_of = |id| (id != second).then(|| ContentHash::of(b""));
        assert_eq!(Claim::of(&output, content_of), Err(second));
    }
}
