//! Which images an engine has, and loading one.

use super::{Engine, engine_error};
use crate::builder::Result;

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
}

impl Engine {
    /// An image by name, tag, id or digest; `None` if the engine has none.
    pub fn image(&self, name: &str) -> Result<Option<Image>> {
        let found = self.runtime.block_on(self.client.inspect_image(name));
        match found {
            Ok(image) => Ok(Some(Image {
                id: image.id.unwrap_or_default(),
                digests: image.repo_digests.unwrap_or_default(),
                architecture: image.architecture.unwrap_or_default(),
            })),
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 404, ..
            }) => Ok(None),
            Err(error) => Err(engine_error("inspect an image")(error)),
        }
    }
}
