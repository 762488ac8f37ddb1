//! Where the outputs of a build came from, and who vouches for each.
//!
//! ```text
//! plan ─► output of each unit ─► origin, signatures, provenance ─► report
//! store ─┘                                                     └─► SBOM (`cyclonedx`)
//! ```
//!
//! Nothing is fetched and no file of an output is read: a signature is compared
//! with the manifest, as `quickbuild key verify` does.

pub mod cyclonedx;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest::OutputId;
use crate::link::UnitPaths;
use crate::output::Output;
use crate::plan::state::State;
use crate::plan::{Context, Plan};
use crate::store::origin::Kind;
use crate::store::signing::SignatureCheck;
use crate::store::{Store, StoreError};
use crate::trust::{KeyName, PublicKey};

/// Where an output came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Source {
    /// Cargo compiled it on this machine.
    Compiled,
    /// A builder image made it on this machine.
    Builder {
        /// The image's digest.
        image: String,
    },
    /// A substituter has sent it.
    Substituter {
        /// Its URL or folder.
        place: String,
        /// When.
        time: String,
    },
    /// It was imported from a file.
    Archive {
        /// The file.
        place: String,
        /// When.
        time: String,
    },
}

impl Source {
    /// Whether it was made on this machine, and so needs nobody's word.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Compiled | Self::Builder { .. })
    }
}

/// Who built an output, as its provenance says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Built {
    /// The builder's URI.
    pub builder: String,
    /// When it ended.
    pub finished: String,
}

/// What is known of one output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Audited {
    /// Its store name.
    pub output: String,
    /// Package name.
    pub package: String,
    /// Package version.
    pub version: String,
    /// Kind of target.
    pub kind: String,
    /// Whether the target directory has it now.
    pub linked: bool,
    /// Where it came from.
    pub source: Source,
    /// Trusted keys that have signed it.
    pub valid: Vec<String>,
    /// Trusted keys whose signature is over something else.
    pub invalid: Vec<String>,
    /// Keys that have signed it, as they say, and that are not trusted here.
    pub unknown: Vec<String>,
    /// Who built it, if that is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Built>,
    /// What beside the manifest cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl Audited {
    /// Whether it came from elsewhere and no trusted key has signed it.
    pub fn is_unvouched(&self) -> bool {
        !self.source.is_own() && self.valid.is_empty()
    }
}

/// What is known of a build's outputs.
#[derive(Debug)]
pub struct Audit {
    /// Each output once, by name, version and store name.
    pub outputs: Vec<Audited>,
    /// The output of each unit, as its place in `outputs`.
    pub of_unit: Vec<Option<usize>>,
}

impl Audit {
    /// Looks at all outputs that serve a plan.
    pub fn make(
        context: &Context,
        plan: &Plan,
        store: &Store,
        keys: &[PublicKey],
    ) -> Result<Self, StoreError> {
        let state = State::load(&context.layout.build_dir);
        let mut check = SignatureCheck::new(store, keys)?;
        let mut found: BTreeMap<OutputId, Audited> = BTreeMap::new();
        for index in 0..plan.units.len() {
            let Some(output) = plan.resolution.output(index) else {
                continue;
            };
            let linked = is_linked(context, plan, &state, index);
            let audited = match found.remove(&output.id) {
                Some(known) => Audited {
                    linked: known.linked || linked,
                    ..known
                },
                None => look(store, output, linked, &mut check)?,
            };
            found.insert(output.id, audited);
        }
        let mut sorted: Vec<(OutputId, Audited)> = found.into_iter().collect();
        sorted.sort_by(|(_, a), (_, b)| {
            let key = |x: &Audited| (x.package.clone(), x.version.clone(), x.output.clone());
            key(a).cmp(&key(b))
        });
        let places: BTreeMap<OutputId, usize> = sorted
            .iter()
            .enumerate()
            .map(|(n, (id, _))| (*id, n))
            .collect();
        let of_unit = (0..plan.units.len()).map(|index| {
            let output = plan.resolution.output(index)?;
            places.get(&output.id).copied()
        });
        Ok(Self {
            of_unit: of_unit.collect(),
            outputs: sorted.into_iter().map(|(_, audited)| audited).collect(),
        })
    }
}

/// Whether a unit's files in the target directory are those of its output.
fn is_linked(context: &Context, plan: &Plan, state: &State, index: usize) -> bool {
    let (Some(output), Some(naming)) = (
        plan.resolution.output(index),
        &plan.resolution.namings[index],
    ) else {
        return false;
    };
    let paths = UnitPaths::new(&context.layout, &plan.units[index], naming);
    let unit = state.units.get(&paths.name);
    unit.is_some_and(|unit| unit.output == output.id)
}

/// Gathers what the store says of an output. What cannot be read is said, and
/// counts as absent.
fn look(
    store: &Store,
    output: &Output,
    linked: bool,
    check: &mut SignatureCheck<'_>,
) -> Result<Audited, StoreError> {
    let name = output.store_name();
    let mut problems = Vec::new();
    let origin = readable(store.origin(&name), &mut problems)?.flatten();
    let signers = readable(check.signers(output), &mut problems)?.unwrap_or_default();
    let statement = readable(store.provenance(output), &mut problems)?.flatten();
    let source = match (origin, output.builder.image_digest()) {
        (Some(origin), _) => {
            let (place, time) = (origin.place, origin.time.to_string());
            match origin.kind {
                Kind::Substituter => Source::Substituter { place, time },
                Kind::Archive => Source::Archive { place, time },
            }
        }
        (None, Some(image)) => Source::Builder { image },
        (None, None) => Source::Compiled,
    };
    let names = |keys: &[KeyName]| keys.iter().map(KeyName::to_string).collect();
    Ok(Audited {
        output: name,
        package: output.name.clone(),
        version: output.version.clone(),
        kind: output.target_kind.clone(),
        linked,
        source,
        valid: names(&signers.valid),
        invalid: names(&signers.invalid),
        unknown: names(&signers.unknown),
        provenance: statement.map(|statement| Built {
            builder: statement.predicate.run_details.builder.id,
            finished: statement
                .predicate
                .run_details
                .metadata
                .finished_on
                .to_string(),
        }),
        problems,
    })
}

/// What is malformed is a problem to tell; other errors end it.
fn readable<T>(
    result: Result<T, StoreError>,
    problems: &mut Vec<String>,
) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error @ StoreError::Attached { .. }) => {
            problems.push(crate::console::chain(&error));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
