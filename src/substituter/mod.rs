//! Where outputs are fetched from, and published: folders, web servers, buckets,
//! registries and releases, as `docs/formats/substituter.md` describes them.
//!
//! ```text
//! quickbuild-cache.json
//! recipes/<host recipe>.json.zst      all that is published of one recipe
//! closures/<host recipe>.json.zst     the same, with all that it refers to
//! archives/<sha256>.tar.zst           the files of one output
//! inventory.json.zst                  which packages there are, with what they need
//! v1/lookup                           many recipes at once; servers only
//! ```
//!
//! | module | job |
//! |---|---|
//! | `location` | a URL or a folder |
//! | [`document`] | what the files say |
//! | [`inventory`] | the file that says which packages there are |
//! | [`archive`] | the files of one output, packed and unpacked |
//! | [`policy`] | who is believed |
//! | [`backend`] | what a place can do: read, and perhaps write |
//! | `folder`, `web`, `objects`, `oci`, `github` | back ends: bytes, nothing else |
//! | `pieces` | what comes while it is read |
//! | `credentials` | tokens and netrc |
//!
//! Invariants:
//! * What comes out of [`Substituter::unpack`] is verified: each file has the
//!   size and the SHA-256 of a manifest.
//! * No request waits, and no answer grows, without a bound.
//! * Only `web` names the HTTP client, only `objects` the one of buckets.

pub mod archive;
pub mod backend;
mod credentials;
pub mod document;
mod folder;
mod github;
pub mod inventory;
mod location;
mod objects;
mod oci;
mod pieces;
pub mod policy;
mod web;

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use crate::config::SubstituterSettings;
use crate::digest::{ContentHash, RecipeHash};
use crate::environment::Environment;
use crate::fs::FsError;
use crate::output::Output;

use backend::{Backend, Writer};
pub use document::{ArchiveRef, CacheInfo, Document, Entry};
pub use inventory::{INVENTORY, Inventory};
pub use location::Location;
pub use policy::{Objection, Policy};
pub use web::peer::{Peer, Reply};

/// Version of the protocol.
pub const FORMAT: u32 = 1;

/// Recipes that one call asks for.
const MAX_RECIPES: usize = 4_096;

/// A substituter cannot be used, or not for this.
#[derive(Debug, thiserror::Error)]
pub enum SubstituterError {
    /// A text names no place.
    #[error("`{text}` is no place of a substituter: {reason}")]
    Location {
        /// The text.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A key cannot be read.
    #[error("a public key of `{place}` cannot be used")]
    Key {
        /// The substituter.
        place: String,
        /// What is wrong.
        source: crate::trust::KeyError,
    },
    /// There is no key, and it is not a folder of the user's own.
    #[error("`{place}` has no public key in the configuration, so nothing of it is used")]
    NoKey {
        /// The substituter.
        place: String,
        /// The keys that it says it signs with.
        offered: Vec<String>,
    },
    /// It gives no answer: no such host, no connection, a broken one.
    #[error("`{url}` cannot be reached")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It was silent for too long, or all but silent.
    #[error("`{url}` is too slow")]
    Slow {
        /// What was asked for.
        url: String,
    },
    /// It answers with an error.
    #[error("`{url}` answers {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status of HTTP.
        status: u16,
    },
    /// It does not let us in.
    #[error("`{url}` refuses access ({status})")]
    Denied {
        /// What was asked for.
        url: String,
        /// The status of HTTP.
        status: u16,
    },
    /// What it sends is larger than it may be.
    #[error("`{url}` has more than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The bound.
        limit: u64,
    },
    /// What it sends is not what belongs there.
    #[error("`{url}` is not what a substituter has there: {reason}")]
    Malformed {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// It has another version of the protocol.
    #[error("`{url}` has format {found}, this quickbuild knows {FORMAT}")]
    Format {
        /// What was asked for.
        url: String,
        /// Its format.
        found: u32,
    },
    /// There is nothing of a substituter at all.
    #[error("`{place}` is no substituter: it has no `quickbuild-cache.json`")]
    Absent {
        /// The place.
        place: String,
    },
    /// The archive of an output is not what its manifest says.
    #[error("the archive of `{store_name}` at `{place}` is refused: {reason}")]
    Archive {
        /// The output.
        store_name: String,
        /// The substituter.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The archive of an output broke off.
    #[error("the archive of `{store_name}` at `{place}` cannot be read")]
    Read {
        /// The output.
        store_name: String,
        /// The substituter.
        place: String,
        /// What happened.
        source: std::io::Error,
    },
    /// Nothing can be written there.
    #[error("`{place}` cannot be written to: {reason}")]
    ReadOnly {
        /// The substituter.
        place: String,
        /// Why.
        reason: &'static str,
    },
    /// Something else is there under the name of what is to be written.
    #[error("`{url}` has another content, which stays")]
    Conflict {
        /// What was to be written.
        url: String,
    },
    /// What was sent is not taken.
    #[error("`{url}` does not take what was sent: {reason}")]
    Refused {
        /// What was to be written.
        url: String,
        /// Why.
        reason: String,
    },
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be started")]
    Client {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of this machine.
    #[error("a file cannot be used")]
    File(#[from] FsError),
}

/// Result of an operation.
pub type Result<T> = std::result::Result<T, SubstituterError>;

/// Which documents are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// What is published of recipes.
    Recipes,
    /// The same, with all that it refers to.
    Closures,
}

impl Question {
    /// What the document at a path is about, if it is one.
    pub fn of(path: &str) -> Option<(Self, RecipeHash)> {
        let (folder, name) = path.split_once('/')?;
        let recipe = name.strip_suffix(".json.zst")?.parse().ok()?;
        match folder {
            "recipes" => Some((Self::Recipes, recipe)),
            "closures" => Some((Self::Closures, recipe)),
            _ => None,
        }
    }

    /// The path of the document about a recipe.
    pub fn path(self, recipe: RecipeHash) -> String {
        match self {
            Self::Recipes => format!("recipes/{recipe}.json.zst"),
            Self::Closures => format!("closures/{recipe}.json.zst"),
        }
    }
}

/// The path of an archive.
pub fn archive_path(sha256: ContentHash) -> String {
    format!("archives/{sha256}.tar.zst")
}

/// A substituter that can be asked.
pub struct Substituter {
    location: Location,
    policy: Policy,
    settings: SubstituterSettings,
    backend: Box<dyn Backend>,
}

impl std::fmt::Debug for Substituter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Substituter")
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

impl Substituter {
    /// Makes ready to ask; nothing is asked yet.
    pub fn open(settings: &SubstituterSettings, environment: &Environment) -> Result<Self> {
        let location = Location::parse(&settings.url, &settings.base)?;
        let policy = Policy::new(settings)?;
        let backend: Box<dyn Backend> = match &location {
            Location::Folder(path) => Box::new(folder::Folder::new(path.clone())),
            Location::Web(url) => Box::new(web::Web::new(url.clone(), settings, environment)?),
            Location::Bucket(url) => {
                Box::new(objects::Objects::new(url.clone(), settings, environment)?)
            }
            Location::Registry(registry) => {
                Box::new(oci::Registry::new(registry.clone(), settings, environment)?)
            }
            Location::Release(release) => Box::new(github::Release::new(
                release.clone(),
                settings,
                environment,
            )?),
        };
        Ok(Self {
            location,
            policy,
            settings: settings.clone(),
            backend,
        })
    }

    /// A folder, for those who write to one of their own.
    pub fn folder(path: &Path) -> Result<Self> {
        let url = path.to_string_lossy().into_owned();
        let settings = SubstituterSettings::new(url, Path::new("/"), Vec::new());
        Ok(Self {
            location: Location::Folder(path.to_owned()),
            policy: Policy::new(&settings)?,
            settings,
            backend: Box::new(folder::Folder::new(path.to_owned())),
        })
    }

    /// Where it is, as text for people.
    pub fn place(&self) -> String {
        self.location.to_string()
    }

    /// Whether asking it needs no network.
    pub fn is_near(&self) -> bool {
        matches!(self.location, Location::Folder(_))
    }

    /// Who is believed.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How it is configured.
    pub fn settings(&self) -> &SubstituterSettings {
        &self.settings
    }

    /// What it says of itself, as it lies there.
    ///
    /// Fails with [`SubstituterError::Absent`] if there is no substituter.
    pub fn info_bytes(&self) -> Result<Vec<u8>> {
        let path = document::INFO.to_owned();
        let mut answers = self.backend.get(&[path], document::MAX_INFO)?;
        answers
            .pop()
            .flatten()
            .ok_or_else(|| SubstituterError::Absent {
                place: self.place(),
            })
    }

    /// Reads what [`info_bytes`](Self::info_bytes) gives, and says whether
    /// anything here can be used at all.
    pub fn info(&self, bytes: &[u8]) -> Result<CacheInfo> {
        let info = CacheInfo::parse(bytes, &self.location.join(document::INFO))?;
        if self.policy.is_unsigned() && !self.is_own() {
            return Err(SubstituterError::NoKey {
                place: self.place(),
                offered: info.keys,
            });
        }
        Ok(info)
    }

    /// Whether it is a folder that nobody but the user, or root, can change.
    fn is_own(&self) -> bool {
        match &self.location {
            Location::Folder(path) => folder::is_own(path),
            _ => false,
        }
    }

    /// What writes there.
    pub fn writer(&self) -> Result<&dyn Writer> {
        self.backend
            .writer()
            .ok_or_else(|| SubstituterError::ReadOnly {
                place: self.place(),
                reason: "nothing can be written to such a place",
            })
    }

    /// The place of one of its files, as text for people.
    pub fn file(&self, path: &str) -> String {
        self.location.join(path)
    }

    /// Which packages it has, as it lies there; `None` if it does not say.
    pub fn inventory_bytes(&self) -> Result<Option<Vec<u8>>> {
        let path = INVENTORY.to_owned();
        let mut answers = self.backend.get(&[path], document::MAX_DOCUMENT)?;
        Ok(answers.pop().flatten())
    }

    /// Documents about recipes, as they lie there; `None` for what is not
    /// published.
    pub fn documents(
        &self,
        question: Question,
        recipes: &[RecipeHash],
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let paths: Vec<String> = recipes
            .iter()
            .map(|&recipe| question.path(recipe))
            .collect();
        self.backend.get(&paths, document::MAX_DOCUMENT)
    }

    /// Asks for many recipes with all that they refer to; `None` where nobody
    /// answers such calls.
    pub fn lookup(&self, recipes: &[RecipeHash]) -> Result<Option<Vec<Vec<u8>>>> {
        let mut answers = Vec::new();
        for recipes in recipes.chunks(MAX_RECIPES) {
            let body = document::call(recipes);
            let answer = self
                .backend
                .post(document::CALL, body, document::MAX_DOCUMENT)?;
            let Some(answer) = answer else {
                return Ok(None);
            };
            answers.push(answer);
        }
        Ok(Some(answers))
    }

    /// Reads a document that came from `path`.
    pub fn parse(&self, bytes: &[u8], path: &str) -> Result<Document> {
        Document::parse(bytes, &self.location.join(path))
    }

    /// Starts to read an archive, which may go on while nobody reads, until it is
    /// of no use any more.
    pub fn download(&self, archive: ArchiveRef, until: Instant) -> Result<Box<dyn Read + Send>> {
        let path = archive_path(archive.sha256);
        self.backend.open(&path, archive.size, until)
    }

    /// Ends all downloads: whoever reads one gets an error soon.
    pub fn stop(&self) {
        self.backend.stop();
    }

    /// Unpacks what [`download`](Self::download) reads into a new folder,
    /// verifying every byte. After an error the folder is to be thrown away.
    pub fn unpack(
        &self,
        output: &Output,
        archive: ArchiveRef,
        content: impl Read,
        into: &Path,
    ) -> Result<()> {
        archive::unpack(output, archive, content, into).map_err(|error| {
            let (store_name, place) = (output.store_name(), self.place());
            match error {
                archive::UnpackError::Refused(reason) => SubstituterError::Archive {
                    store_name,
                    place,
                    reason,
                },
                archive::UnpackError::Read(source) => SubstituterError::Read {
                    store_name,
                    place,
                    source,
                },
                archive::UnpackError::File(source) => SubstituterError::File(source),
            }
        })
    }
}
