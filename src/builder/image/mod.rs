//! Making an image without any registry, so that the same inputs give the same
//! image id.
//!
//! ```text
//! <store>/cache/images/
//!   lock           one image is made at a time
//!   <key>.tar      a Debian root, by what it was asked to be; kept for a day
//!   <key>.json     its digest, size and packages
//!   tmp/           of the one under way; emptied before and after
//! ```
//!
//! | module | job |
//! |---|---|
//! | `debian` | a Debian root by `mmdebstrap` |
//! | `layers` | compiler wrappers and users; the toolchain that rustup has |
//! | `archive` | configuration and archive as `docker load` takes them |
//!
//! * Layers are files that are hashed as they are written and sent as they
//!   are; none is held in memory.
//! * Entries are sorted, and have one owner and one time. What `mmdebstrap`
//!   writes does not depend on the moment, but on the packages that Debian has
//!   at it: the label [`PACKAGES_LABEL`] tells two such images apart.

pub(super) mod archive;
mod debian;
mod layers;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::BuilderError;
use super::definition::{BUILT_IN, Definition, DefinitionError, Definitions, Source};
use super::docker::{Engine, Image};
use crate::cargo::CargoError;
use crate::digest::ContentHash;
use crate::environment::Environment;
use crate::fs::{self, FsError, Lock};

/// Where an image's programs are looked for: rustup's toolchain, the compiler
/// wrappers, and then Debian's.
pub const PATH: &str = "/opt/rust/bin:/usr/local/bin:/usr/bin:/bin";

/// The name of all images that are made here; tags tell them apart.
pub const REPOSITORY: &str = "quickbuild-builder";

/// Label with the builder's name.
pub const NAME_LABEL: &str = "quickbuild.builder";
/// Label with the newest glibc that what is linked there may need.
pub const GLIBC_LABEL: &str = "quickbuild.glibc";
/// Label with the SHA-256 of the sorted list of Debian packages.
pub const PACKAGES_LABEL: &str = "quickbuild.packages";

/// The time of all that is in an image: 2025-01-01. Packages may be younger;
/// what depends on times is compared with what a build makes, which is later.
const TIME: u64 = 1_735_689_600;
/// [`TIME`] as the configuration has it.
const CREATED: &str = "2025-01-01T00:00:00Z";

/// How long to wait before looking again whether something has ended.
const WAIT: Duration = Duration::from_millis(50);

/// Whether a Debian root of this day will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// One that was made within the day is used again.
    Day,
    /// It is made anew.
    Anew,
}

/// Where and how images are made.
#[derive(Debug)]
pub struct Workshop<'a> {
    /// Variables that programs are found by.
    pub environment: &'a Environment,
    /// The folder described above.
    pub folder: PathBuf,
    /// Whether what is kept there counts.
    pub freshness: Freshness,
    /// Set by whoever wants it to end early.
    pub cancelled: Arc<AtomicBool>,
}

/// An image that was made.
#[derive(Debug)]
pub struct Made {
    /// `quickbuild-builder:<tag>`
    pub name: String,
    /// What the engine says of it.
    pub image: Image,
    /// Whether the engine had it already.
    pub existed: bool,
}

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A program is not installed.
    #[error("`{program}` is not installed")]
    Program {
        /// The program.
        program: &'static str,
    },
    /// A program failed.
    #[error("`{program}` failed: {message}")]
    Failed {
        /// The program.
        program: &'static str,
        /// The last lines of what it said.
        message: String,
    },
    /// A program could not be started or waited for.
    #[error("cannot run `{program}`")]
    Spawn {
        /// The program.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The toolchain could not be asked what it is.
    #[error("cannot use the toolchain `{toolchain}`")]
    Toolchain {
        /// rustup's name for it.
        toolchain: String,
        /// What went wrong.
        source: CargoError,
    },
    /// The toolchain is another one than the definition says.
    #[error("the toolchain `{toolchain}` has the {field} `{found}`, not `{expected}`")]
    OtherToolchain {
        /// rustup's name for it.
        toolchain: String,
        /// The line of `rustc -vV`.
        field: &'static str,
        /// What rustc says.
        found: String,
        /// What the definition says.
        expected: String,
    },
    /// A tar cannot be read or written.
    #[error("cannot {operation}")]
    Tar {
        /// What was done.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The Debian root has no list of packages.
    #[error("the Debian root has no list of its packages")]
    NoPackages,
    /// The engine has another image than was sent to it.
    #[error("the engine did not keep the image `{id}`")]
    NotKept {
        /// Its id.
        id: String,
    },
    /// It was given up.
    #[error("it was cancelled")]
    Cancelled,
    /// A file of this machine.
    #[error("a file of the image cannot be used")]
    File(#[from] FsError),
    /// The engine.
    #[error("the image cannot be put into the engine")]
    Engine(#[from] BuilderError),
}

/// Result of making an image.
pub type Result<T> = std::result::Result<T, ImageError>;

/// Why the definitions of a project cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file.
    #[error("the definitions of builders cannot be read")]
    File(#[from] FsError),
    /// What is in it.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
}

/// One layer of an image.
#[derive(Debug)]
struct Layer {
    content: LayerContent,
    /// SHA-256 of the tar.
    digest: ContentHash,
}

#[derive(Debug)]
enum LayerContent {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// The built-in definitions, and those in the folder `containers` of a project.
pub fn definitions(project: Option<&Path>) -> std::result::Result<Definitions, LoadError> {
    let mut texts: Vec<(String, String)> = BUILT_IN
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into();
    if let Some(project) = project {
        for path in fs::list(&project.join("containers"))? {
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.and_then(|name| name.strip_suffix(".toml")) {
                texts.push((name.to_owned(), fs::read_text(&path)?));
            }
        }
    }
    let texts = texts
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()));
    Ok(Definitions::parse(texts)?)
}

impl Workshop<'_> {
    /// Makes an image, loads it into the engine, if that does not have it, and
    /// gives it its tag. `step` is told what is being done.
    pub fn make(
        &self,
        engine: &Engine,
        definition: &Definition,
        step: &mut dyn FnMut(&str),
    ) -> Result<Made> {
        let machine = engine.architecture()?;
        if machine != definition.architecture {
            return Err(ImageError::Engine(BuilderError::Architecture {
                image: format!("{REPOSITORY}:{}", definition.tag()),
                found: definition.architecture.clone(),
                engine: machine,
            }));
        }
        step("waiting for another image to be made");
        let _lock = self.lock()?;
        let scratch = Scratch::new(&self.folder.join("tmp"))?;
        step("making the Debian root (about a minute)");
        let root = debian::root(self, definition, &scratch.0)?;
        let mut all = vec![root.layer, layers::system(definition)?];
        if let Source::Rustup(toolchain) = &definition.toolchain {
            step("packing the toolchain");
            let file = scratch.0.join("toolchain.tar");
            all.push(layers::toolchain(self, definition, toolchain, &file)?);
        }
        let configuration = archive::configuration(definition, &root.packages, &all);
        let id = format!("sha256:{}", ContentHash::of(&configuration));
        let existed = engine.image(&id)?.is_some();
        if !existed {
            step("loading the image into the engine");
            let archive = archive::stream(configuration, all, Arc::clone(&self.cancelled))?;
            let loaded = engine.load(archive.finish());
            loaded.map_err(|error| self.cause(error))?;
        }
        let image = engine.image(&id)?;
        let image = image.ok_or_else(|| ImageError::NotKept { id: id.clone() })?;
        engine.tag(&id, REPOSITORY, &definition.tag())?;
        Ok(Made {
            name: format!("{REPOSITORY}:{}", definition.tag()),
            image,
            existed,
        })
    }

    /// Waits for the folder; a wait that no signal ends would not do.
    fn lock(&self) -> Result<Lock> {
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join("lock");
        loop {
            if let Some(lock) = Lock::try_exclusive(&path)? {
                return Ok(lock);
            }
            if self.is_cancelled() {
                return Err(ImageError::Cancelled);
            }
            std::thread::sleep(WAIT);
        }
    }

    /// What the engine could not do because we stopped was cancelled.
    fn cause(&self, error: BuilderError) -> ImageError {
        match self.is_cancelled() {
            true => ImageError::Cancelled,
            false => error.into(),
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// A folder that is empty at first and gone at last. What a killed process left
/// there goes when the next one begins.
struct Scratch(PathBuf);

impl Scratch {
    fn new(folder: &Path) -> Result<Self> {
        fs::remove_dir_all(folder)?;
        fs::create_dir_all(folder)?;
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // the next one tries again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projects_definition_goes_before_a_built_in_one() {
        let folder = tempfile::tempdir().unwrap();
        let containers = folder.path().join("containers");
        fs::create_dir_all(&containers).unwrap();
        let (name, text) = BUILT_IN[1];
        let text = text.replace("\"make\"", "\"make\", \"perl\"");
        fs::write(&containers.join(format!("{name}.toml")), text.as_bytes()).unwrap();
        fs::write(&containers.join("README.md"), b"x").unwrap();
        let own = definitions(Some(folder.path())).unwrap();
        assert!(own.get(name).unwrap().packages.contains(&"perl".to_owned()));
        let built_in = definitions(None).unwrap();
        assert_eq!(own.iter().count(), built_in.iter().count());
        fs::write(&containers.join("x.toml"), b"format = 1").unwrap();
        assert!(definitions(Some(folder.path())).is_err());
    }

    #[test]
    fn a_wait_for_another_image_can_be_cancelled() {
        let folder = tempfile::tempdir().unwrap();
        let workshop = Workshop {
            environment: &Environment::default(),
            folder: folder.path().to_owned(),
            freshness: Freshness::Day,
            cancelled: Arc::new(AtomicBool::new(true)),
        };
        let held = workshop.lock().unwrap();
        assert!(matches!(workshop.lock(), Err(ImageError::Cancelled)));
        drop(held);
        assert!(workshop.lock().is_ok());
    }

    #[test]
    fn scratch_is_empty_and_then_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tmp");
        fs::create_dir_all(&path.join("left")).unwrap();
        let scratch = Scratch::new(&path).unwrap();
        assert!(fs::list(&path).unwrap().is_empty());
        drop(scratch);
        assert!(!path.exists());
    }
}
