//! Where each new output came from, as a statement beside it.

use std::collections::BTreeMap;

use super::job::Realised;
use crate::cargo::unit_graph::{PackageId, Source};
use crate::digest::{ContentHash, OutputId};
use crate::output::Output;
use crate::output::provenance::{Build, Resource, Statement, Timestamp};
use crate::store::{Store, StoreError};

/// What is the same for all outputs of a realisation.
pub(super) struct Run {
    /// What this machine calls it: the name of its log.
    pub(super) invocation: String,
    /// Seconds since 1970.
    pub(super) started: i64,
    /// The same.
    pub(super) finished: i64,
}

impl Run {
    /// Writes the statements of outputs that are in the store now.
    pub(super) fn state(
        &self,
        store: &Store,
        added: &[String],
        realised: &[Realised],
    ) -> Result<(), StoreError> {
        let times =
            Timestamp::from_seconds(self.started).zip(Timestamp::from_seconds(self.finished));
        let Some((started, finished)) = times else {
            return Ok(()); // this machine's clock is thousands of years off
        };
        let known: BTreeMap<&str, &Realised> = realised
            .iter()
            .map(|realised| (realised.output.as_str(), realised))
            .collect();
        // All that a new output refers to was made now or given.
        let mut contents: BTreeMap<OutputId, ContentHash> = BTreeMap::new();
        for realised in realised {
            if let Some(output) = store.output(&realised.output) {
                contents.insert(output.id, output.content_hash());
            }
        }
        for name in added {
            let (Some(output), Some(realised)) = (store.output(name), known.get(name.as_str()))
            else {
                continue;
            };
            let references = output.references.iter();
            let references = references.filter_map(|id| Some((*id, *contents.get(id)?)));
            let build = Build {
                builder_id: BUILDER.to_owned(),
                invocation_id: self.invocation.clone(),
                features: realised.features.clone(),
                sources: sources(&output, realised),
                references: references.collect(),
                started,
                finished,
            };
            store.add_provenance(name, &Statement::new(&output, build))?;
        }
        Ok(())
    }
}

/// Who operates the builder, as far as a statement without a signature can say.
const BUILDER: &str = "https://example.org/quickbuild/builder/unnamed";

/// The archive that was compiled.
fn sources(output: &Output, realised: &Realised) -> Vec<Resource> {
    let source = PackageId::parse(&realised.source).map(|package| package.source);
    let checksum = realised.checksum.as_deref();
    let checksum = checksum.and_then(|text| text.parse::<ContentHash>().ok());
    match (source, checksum) {
        (Some(Source::Immutable(url)), Some(checksum)) => {
            let uri = format!("{url}#{}@{}", output.name, output.version);
            vec![Resource::archive(uri, checksum)]
        }
        _ => Vec::new(),
    }
}
