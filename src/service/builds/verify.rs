//! What an output must be before anybody believes it.
//!
//! A worker sends what `quickbuild store export` writes. It is taken apart into a
//! store of its own: whatever is malformed, incomplete, or has another byte than
//! its manifest says, refuses all of it. What is left is compared with what was
//! asked for, and audited as a builder's outputs are.

use std::collections::BTreeSet;
use std::path::Path;

use super::Publishing;
use crate::builder::ROOT;
use crate::console::chain;
use crate::digest::RecipeHash;
use crate::fs::{self, FsError};
use crate::output::{Maker, Output};
use crate::realise::Audit;
use crate::recipe::package::PackageRecipe;
use crate::store::{Store, StoreError, archive};

/// What was asked for.
pub(super) struct Wanted {
    /// The builder.
    pub(super) builder: String,
    /// The recipes, the wanted one last.
    pub(super) recipes: Vec<PackageRecipe>,
}

/// Why outputs are refused.
#[derive(Debug, thiserror::Error)]
pub(in crate::service) enum VerifyError {
    /// They are not what was asked for, or not what they say.
    #[error("{0}")]
    Refused(String),
    /// Something here.
    #[error("the server's own files cannot be used")]
    File(#[from] FsError),
}

/// Outputs that are what they say, in a store of their own, dependencies first.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) store: Store,
    pub(super) outputs: Vec<Output>,
}

impl Verified {
    pub(super) fn read(
        export: &Path,
        into: &Path,
        wanted: &Wanted,
        publishing: &Publishing,
    ) -> Result<Self, VerifyError> {
        let ours = |error: StoreError| match error {
            StoreError::File(error) => VerifyError::File(error),
            other => VerifyError::Refused(chain(&other)),
        };
        fs::create_private_dir_all(into)?;
        let store = Store::open(into).map_err(ours)?;
        let _ = archive::import(&store, export).map_err(ours)?;
        let names = store.names().map_err(ours)?;
        let outputs = store.whole_closure(&names).map_err(ours)?;
        let audit = Audit {
            root: Path::new(ROOT),
            glibc: publishing
                .definitions
                .get(&wanted.builder)
                .ok()
                .map(|definition| definition.glibc),
            libraries: wanted.builder.contains('+'),
        };
        let known: BTreeSet<RecipeHash> = wanted
            .recipes
            .iter()
            .flat_map(|recipe| recipe.hashes().iter().copied())
            .collect();
        let pinned = publishing.images.get(&wanted.builder);
        for output in &outputs {
            let refuse = |why: &str| {
                let name = output.store_name();
                VerifyError::Refused(format!("`{name}`: {why}"))
            };
            if !known.contains(&output.recipe) && !known.contains(&output.host_recipe) {
                return Err(refuse("nobody asked for it"));
            }
            match (output.builder, pinned) {
                (Maker::Local, _) => return Err(refuse("no container has made it")),
                (Maker::Image(image), Some(pinned)) if image != *pinned => {
                    return Err(refuse("another image than the pinned one has made it"));
                }
                (Maker::Image(_), _) => {}
            }
            let folder = store.path(&output.store_name());
            let examined = audit.examine(output, &folder);
            examined.map_err(|why| refuse(&why))?;
        }
        Ok(Self { store, outputs })
    }
}
