//! Provenance: how an output came about, as an in-toto Statement v1 with a
//! SLSA Provenance v1 predicate. `docs/formats/provenance.md` describes it.
//! Pure: times and names of builders are the caller's.
//!
//! Specifications: <https://github.com/in-toto/attestation/tree/main/spec/v1>
//! and <https://slsa.dev/spec/v1.0/provenance>.

mod timestamp;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Maker, Output, Produced, Role};
use crate::cargo::glibc::GlibcVersion;
use crate::digest::{ContentHash, OutputId, RecipeHash, UnitKey};

pub use timestamp::{ParseTimestampError, Timestamp};

/// The `_type` of a statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The `predicateType` of a statement.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// The `buildType`: what the parameters mean.
pub const BUILD_TYPE: &str = "https://example.org/quickbuild/realise/v1";
/// The name under which [`Output::content_hash`] stands among digests: it is no
/// hash of a file.
pub const CONTENT: &str = "quickbuildContent1";

/// What a manifest does not know of how its output was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The URI of who operates the builder, whom a reader may trust.
    pub builder_id: String,
    /// What the builder calls this run.
    pub invocation_id: String,
    /// Enabled features.
    pub features: Vec<String>,
    /// The archives or checkouts that were compiled.
    pub sources: Vec<Resource>,
    /// What it was compiled against, each with its content hash; `references`
    /// of its [`Claim`](super::Claim).
    pub references: Vec<(OutputId, ContentHash)>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

/// An in-toto statement about one output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// The output and its files.
    pub subject: Vec<Resource>,
    /// [`PREDICATE_TYPE`].
    pub predicate_type: String,
    /// How they came about.
    pub predicate: Predicate,
}

/// A thing with a digest: in-toto's ResourceDescriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Resource {
    /// What it is called here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Digests in hexadecimal digits, by the names of their algorithms.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// What else there is to say of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Resource {
    /// A package's archive.
    pub fn archive(uri: impl Into<String>, checksum: ContentHash) -> Self {
        Self {
            uri: Some(uri.into()),
            ..Self::with_digest("sha256", checksum.to_string())
        }
    }

    /// A checkout of a Git repository.
    pub fn git(uri: impl Into<String>, commit: impl Into<String>) -> Self {
        Self {
            uri: Some(uri.into()),
            ..Self::with_digest("gitCommit", commit.into())
        }
    }

    fn with_digest(algorithm: &str, digest: String) -> Self {
        Self {
            digest: BTreeMap::from([(algorithm.to_owned(), digest)]),
            ..Self::default()
        }
    }
}

/// The predicate of SLSA Provenance v1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Predicate {
    /// What was to be built.
    pub build_definition: BuildDefinition,
    /// Who built it, and when.
    pub run_details: RunDetails,
}

/// What was to be built, and from what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BuildDefinition {
    /// [`BUILD_TYPE`].
    pub build_type: String,
    /// What was asked for.
    pub external_parameters: ExternalParameters,
    /// What the builder chose.
    pub internal_parameters: InternalParameters,
    /// Sources, the builder's image, and the outputs that it was compiled
    /// against.
    pub resolved_dependencies: Vec<Resource>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExternalParameters {
    /// The recipe.
    pub recipe: RecipeHash,
    /// Package name.
    pub package: String,
    /// Package version.
    pub version: String,
    /// Kind of target, as in the recipe.
    pub target_kind: String,
    /// Enabled features.
    pub features: Vec<String>,
}

/// What the builder chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InternalParameters {
    /// The recipe without debug information.
    pub host_recipe: RecipeHash,
    /// The unit as which it was compiled.
    pub unit_key: UnitKey,
    /// How it was produced.
    pub produced: Produced,
    /// Compile jobs at the same time.
    pub jobs: u32,
    /// Highest GLIBC symbol version that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glibc: Option<GlibcVersion>,
}

/// Who built it, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RunDetails {
    /// The builder.
    pub builder: BuilderIdentity,
    /// This run of it.
    pub metadata: RunMetadata,
}

/// The builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BuilderIdentity {
    /// The URI of who operates it.
    pub id: String,
    /// Versions of its parts, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub version: BTreeMap<String, String>,
}

/// A run of the builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RunMetadata {
    /// What the builder calls it.
    pub invocation_id: String,
    /// When it began.
    pub started_on: Timestamp,
    /// When it ended.
    pub finished_on: Timestamp,
}

impl Statement {
    /// The statement about an output that was made in `build`.
    pub fn new(output: &Output, build: Build) -> Self {
        let mut resolved_dependencies = build.sources;
        if let Maker::Image(hash) = output.builder {
            resolved_dependencies.push(Resource {
                name: Some("image".to_owned()),
                ..Resource::with_digest("sha256", hash.to_string())
            });
        }
        let references = build.references.into_iter().map(|(id, content)| Resource {
            name: Some(id.to_string()),
            ..Resource::with_digest(CONTENT, content.to_string())
        });
        resolved_dependencies.extend(references);
        let version = ("quickbuild", env!("CARGO_PKG_VERSION"));
        Self {
            kind: STATEMENT_TYPE.to_owned(),
            subject: subjects(output),
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Predicate {
                build_definition: BuildDefinition {
                    build_type: BUILD_TYPE.to_owned(),
                    external_parameters: ExternalParameters {
                        recipe: output.recipe,
                        package: output.name.clone(),
                        version: output.version.clone(),
                        target_kind: output.target_kind.clone(),
                        features: build.features,
                    },
                    internal_parameters: InternalParameters {
                        host_recipe: output.host_recipe,
                        unit_key: output.key,
                        produced: output.produced,
                        jobs: output.jobs,
                        glibc: output.glibc,
                    },
                    resolved_dependencies,
                },
                run_details: RunDetails {
                    builder: BuilderIdentity {
                        id: build.builder_id,
                        version: BTreeMap::from([(version.0.to_owned(), version.1.to_owned())]),
                    },
                    metadata: RunMetadata {
                        invocation_id: build.invocation_id,
                        started_on: build.started,
                        finished_on: build.finished,
                    },
                },
            },
        }
    }

    /// Whether this is a statement of the known types about exactly this
    /// output. It says nothing about whether it is true.
    pub fn is_about(&self, output: &Output) -> bool {
        let definition = &self.predicate.build_definition;
        self.kind == STATEMENT_TYPE
            && self.predicate_type == PREDICATE_TYPE
            && definition.build_type == BUILD_TYPE
            && definition.external_parameters.recipe == output.recipe
            && self.subject == subjects(output)
    }
}

/// The output as a whole, then its files.
fn subjects(output: &Output) -> Vec<Resource> {
    let whole = Resource {
        name: Some(output.store_name()),
        ..Resource::with_digest(CONTENT, output.content_hash().to_string())
    };
    let files = output.files.iter().enumerate().filter_map(|(index, file)| {
        let annotations = [("name", file.name.clone()), ("role", word(file.role))];
        let annotations = annotations.map(|(name, value)| (name.to_owned(), value));
        Some(Resource {
            name: Some(file.store_name(index)),
            annotations: annotations.into(),
            ..Resource::with_digest("sha256", file.sha256?.to_string())
        })
    });
    [whole].into_iter().chain(files).collect()
}

fn word(role: Role) -> String {
    super::content::word(&role)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::output::samples::full;

    pub(crate) fn build() -> Build {
        Build {
            builder_id: "https://example.org/builder".to_owned(),
            invocation_id: "run-1".to_owned(),
            features: vec!["std".to_owned()],
            sources: vec![Resource::archive(
                "https://example.org/sample-1.2.3.crate",
                ContentHash::of(b"archive"),
            )],
            references: vec![(full().references[0], ContentHash::of(b"first"))],
            started: Timestamp::from_seconds(1_735_689_600).unwrap(),
            finished: Timestamp::from_seconds(1_735_689_601).unwrap(),
        }
    }

    #[test]
    fn a_statement_has_the_form_of_the_specifications() {
        let output = full();
        let statement = serde_json::to_value(Statement::new(&output, build())).unwrap();
        let sha256 = |bytes: &[u8]| serde_json::json!({"sha256": ContentHash::of(bytes)});
        let expected = serde_json::json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [
                {
                    "name": output.store_name(),
                    "digest": {"quickbuildContent1": output.content_hash()},
                },
                {
                    "name": "files/0",
                    "digest": sha256(b"metadata"),
                    "annotations": {"name": "libsample@.rmeta", "role": "metadata"},
                },
                {
                    "name": "files/1",
                    "digest": sha256(b"library"),
                    "annotations": {"name": "libsample@.rlib", "role": "library"},
                },
            ],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "recipe": output.recipe,
                        "package": "sample",
                        "version": "1.2.3",
                        "targetKind": "lib",
                        "features": ["std"],
                    },
                    "internalParameters": {
                        "hostRecipe": output.host_recipe,
                        "unitKey": output.key,
                        "produced": "build",
                        "jobs": 2,
                        "glibc": "2.34",
                    },
                    "resolvedDependencies": [
                        {
                            "uri": "https://example.org/sample-1.2.3.crate",
                            "digest": sha256(b"archive"),
                        },
                        {"name": "image", "digest": sha256(b"image")},
                        {
                            "name": output.references[0],
                            "digest": {"quickbuildContent1": ContentHash::of(b"first")},
                        },
                    ],
                },
                "runDetails": {
                    "builder": {
                        "id": "https://example.org/builder",
                        "version": {"quickbuild": env!("CARGO_PKG_VERSION")},
                    },
                    "metadata": {
                        "invocationId": "run-1",
                        "startedOn": "2025-01-01T00:00:00Z",
                        "finishedOn": "2025-01-01T00:00:01Z",
                    },
                },
            },
        });
        assert_eq!(statement, expected);
    }

    #[test]
    fn parse_is_the_inverse_of_print() {
        let mut output = full();
        for builder in [output.builder, Maker::Local] {
            output.builder = builder;
            let statement = Statement::new(&output, build());
            let bytes = serde_json::to_vec(&statement).unwrap();
            let again: Statement = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(again, statement);
        }
    }

    #[test]
    fn a_statement_is_about_one_output() {
        let output = full();
        let statement = Statement::new(&output, build());
        assert!(statement.is_about(&output));
        let mut other = output.clone();
        other.seconds += 1.0; // another build of the same bytes
        assert!(statement.is_about(&other));
        other.files[0].sha256 = Some(ContentHash::of(b"other"));
        assert!(!statement.is_about(&other));
        let mut foreign = statement;
        foreign.predicate_type.push('x');
        assert!(!foreign.is_about(&output));
    }
}
