//! Which images an engine has, and loading one.

use std::io::{self, Read};
use std::time::Duration;

use bollard::query_parameters::{
    CreateImageOptionsBuilder, ImportImageOptionsBuilder, TagImageOptionsBuilder,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Engine, engine_error, is_absent};
use crate::builder::Result;

/// Bytes that are sent to the engine at once.
const PIECE: usize = 1 << 20;

/// How long an engine may take over a whole image; it answers at the end.
const PATIENCE: Duration = Duration::from_secs(3600);

/// An image as the engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// SHA-256 of its configuration, `sha256:…`: what a locally made image is
    /// pinned by.
    pub id: String,
    /// Digests under which registries have it, `name@sha256:…`.
    pub digests: Vec<String>,
    /// `amd64`, `arm64`, …, as Go names architectures.
    pub architecture: String,
    /// Where its programs are looked for: `PATH` of its configuration.
    pub path: Option<String>,
}

impl Engine {
    /// An image by name, tag, id or digest; `None` if the engine has none.
    pub fn image(&self, name: &str) -> Result<Option<Image>> {
        let found = self.runtime.block_on(self.client.inspect_image(name));
        match found {
            Ok(image) => Ok(Some(Image {
                path: image.config.and_then(|config| {
                    let variables = config.env.unwrap_or_default();
                    let path = variables.iter().find_map(|v| v.strip_prefix("PATH="));
                    path.map(str::to_owned)
                }),
                id: image.id.unwrap_or_default(),
                digests: image.repo_digests.unwrap_or_default(),
                architecture: image.architecture.unwrap_or_default(),
            })),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(engine_error("inspect an image")(error)),
        }
    }

    /// The architecture of the machine that the engine runs on, as Go names it.
    pub fn architecture(&self) -> Result<String> {
        let version = self.ask("say its version", self.client.version())?;
        Ok(version.arch.unwrap_or_default())
    }

    /// Takes the images of an archive as `docker save` writes them.
    pub(in crate::builder) fn load(&self, archive: impl Read + Send + 'static) -> Result<()> {
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let pieces = stream::iter(Pieces(archive)).map(|piece| piece.map(Into::into));
        let client = self.client.clone().with_timeout(PATIENCE);
        let answers = client.import_image_stream(options, pieces, None);
        self.runtime
            .block_on(answers.try_for_each(|_| async { Ok(()) }))
            .map_err(engine_error("load an image"))
    }

    /// Gives an image a name and a tag.
    pub fn tag(&self, image: &str, name: &str, tag: &str) -> Result<()> {
        let options = TagImageOptionsBuilder::default()
            .repo(name)
            .tag(tag)
            .build();
        self.ask("tag an image", self.client.tag_image(image, Some(options)))
    }

    /// Fetches an image from the registry that its name says.
    pub fn pull(&self, name: &str) -> Result<()> {
        let options = CreateImageOptionsBuilder::default()
            .from_image(name)
            .build();
        let client = self.client.clone().with_timeout(PATIENCE);
        let answers = client.create_image(Some(options), None, None);
        self.runtime
            .block_on(answers.try_for_each(|_| async { Ok(()) }))
            .map_err(engine_error("pull an image"))
    }
}

/// A stream of bytes in pieces. Reading blocks; what is read is a file of this
/// machine, and nothing else waits on the connection's thread.
pub(super) struct Pieces<R>(pub(super) R);

impl<R: Read> Iterator for Pieces<R> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut piece = Vec::with_capacity(PIECE);
        let read = self.0.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        match read {
            Ok(0) => None,
            Ok(_) => Some(Ok(piece)),
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_all_there_is() {
        let bytes: Vec<u8> = (0..PIECE + 10).map(|n| n as u8).collect();
        let pieces: Vec<_> = Pieces(bytes.as_slice()).map(io::Result::unwrap).collect();
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces.concat(), bytes);
    }
}
