//! An image's configuration, and the archive that `docker load` takes.
//!
//! ```text
//! manifest.json     which file is what
//! <sha256>.json     the configuration (OCI image specification, "Image
//!                   Configuration"); its SHA-256 is the image's id
//! <sha256>.tar      one for each layer, the lowest first
//! ```
//!
//! The archive is never a file: it is read from its parts, piece by piece.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::{
    CREATED, GLIBC_LABEL, ImageError, Layer, LayerContent, NAME_LABEL, PACKAGES_LABEL, PATH,
    Result, TIME,
};
use crate::builder::definition::Definition;
use crate::digest::ContentHash;
use crate::fs;

/// Bytes of a tar's block.
const BLOCK: u64 = 512;

#[derive(Serialize)]
struct Configuration<'a> {
    architecture: &'a str,
    config: Settings<'a>,
    created: &'static str,
    history: Vec<Step>,
    os: &'static str,
    rootfs: RootFs,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Settings<'a> {
    env: [String; 1],
    labels: BTreeMap<&'static str, &'a str>,
}

#[derive(Serialize)]
struct Step {
    created: &'static str,
    created_by: &'static str,
}

#[derive(Serialize)]
struct RootFs {
    diff_ids: Vec<String>,
    r#type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestEntry {
    config: String,
    layers: Vec<String>,
}

/// The configuration of an image with these layers. It has no time and no name
/// of this machine, so equal layers give equal bytes.
pub(super) fn configuration(
    definition: &Definition,
    packages: &ContentHash,
    layers: &[Layer],
) -> Vec<u8> {
    let (glibc, packages) = (definition.glibc.to_string(), packages.to_string());
    let labels = [
        (NAME_LABEL, definition.name.as_str()),
        (GLIBC_LABEL, &glibc),
        (PACKAGES_LABEL, &packages),
    ];
    let step = |_: &Layer| Step {
        created: CREATED,
        created_by: "quickbuild",
    };
    let configuration = Configuration {
        architecture: &definition.architecture,
        config: Settings {
            env: [format!("PATH={PATH}")],
            labels: labels.into(),
        },
        created: CREATED,
        history: layers.iter().map(step).collect(),
        os: "linux",
        rootfs: RootFs {
            diff_ids: layers
                .iter()
                .map(|layer| format!("sha256:{}", layer.digest))
                .collect(),
            r#type: "layers",
        },
    };
    serde_json::to_vec(&configuration).expect("strings serialise")
}

/// The archive of an image; reading fails once `cancelled` is set.
pub(super) fn stream(
    configuration: Vec<u8>,
    layers: Vec<Layer>,
    cancelled: Arc<AtomicBool>,
) -> Result<Archive> {
    let config = format!("{}.json", ContentHash::of(&configuration));
    let manifest = [ManifestEntry {
        config: config.clone(),
        layers: layers.iter().map(layer_name).collect(),
    }];
    let manifest = serde_json::to_vec(&manifest).expect("strings serialise");
    let mut archive = Archive::new(cancelled);
    archive.small("manifest.json", manifest)?;
    archive.small(&config, configuration)?;
    for layer in layers {
        let name = layer_name(&layer);
        match layer.content {
            LayerContent::Bytes(bytes) => archive.small(&name, bytes)?,
            LayerContent::File(path) => archive.file(&name, 0o644, &path)?,
        }
    }
    Ok(archive)
}

fn layer_name(layer: &Layer) -> String {
    format!("{}.tar", layer.digest)
}

/// A tar that is read from its parts.
pub(in crate::builder) struct Archive {
    /// What is still to be read.
    parts: VecDeque<Box<dyn Read + Send>>,
    cancelled: Arc<AtomicBool>,
}

impl Archive {
    pub(in crate::builder) fn new(cancelled: Arc<AtomicBool>) -> Self {
        Self {
            parts: VecDeque::new(),
            cancelled,
        }
    }

    /// Adds a folder of a user.
    pub(in crate::builder) fn folder(&mut self, name: &str, owner: u64) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_uid(owner);
        header.set_gid(owner);
        self.header(header, name, 0)
    }

    /// Adds a file with these bytes.
    pub(in crate::builder) fn small(&mut self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let size = bytes.len() as u64;
        self.add(name, 0o644, size, Cursor::new(bytes))
    }

    /// Adds a file of this machine, as large as it is now.
    pub(in crate::builder) fn file(&mut self, name: &str, mode: u32, path: &Path) -> Result<()> {
        let size = fs::Stamp::of(path).map_or(0, |stamp| stamp.size);
        self.add(name, mode, size, fs::open(path)?)
    }

    fn add(
        &mut self,
        name: &str,
        mode: u32,
        size: u64,
        content: impl Read + Send + 'static,
    ) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        self.header(header, name, size)?;
        let padding = size.next_multiple_of(BLOCK) - size;
        self.parts.push_back(Box::new(content.take(size)));
        self.parts.push_back(Box::new(io::repeat(0).take(padding)));
        Ok(())
    }

    fn header(&mut self, mut header: tar::Header, name: &str, size: u64) -> Result<()> {
        let named = header.set_path(name);
        named.map_err(|source| ImageError::Tar {
            operation: "write an archive for the engine",
            source,
        })?;
        header.set_size(size);
        header.set_mtime(TIME);
        header.set_cksum();
        let header = header.as_bytes().to_vec();
        self.parts.push_back(Box::new(Cursor::new(header)));
        Ok(())
    }

    /// What is to be read, with the two empty blocks that end a tar.
    pub(in crate::builder) fn finish(mut self) -> impl Read + Send + 'static {
        self.parts
            .push_back(Box::new(io::repeat(0).take(2 * BLOCK)));
        self
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("it was cancelled"));
        }
        while let Some(part) = self.parts.front_mut() {
            let count = part.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.parts.pop_front();
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::image::{definitions, layers};

    fn parts() -> (Vec<u8>, Vec<Layer>) {
        let definitions = definitions(None).unwrap();
        let definition = definitions.get("1.95.0-x86_64-unknown-linux-gnu").unwrap();
        let layer = layers::system(definition).unwrap();
        let packages = ContentHash::of(b"gcc:amd64=1\n");
        let layers = vec![layer];
        (configuration(definition, &packages, &layers), layers)
    }

    #[test]
    fn the_archive_is_a_tar_of_manifest_configuration_and_layers() {
        let (configuration, layers) = parts();
        let layer = layers[0].digest;
        let archive = stream(configuration.clone(), layers, Arc::default());
        let archive = archive.unwrap().finish();
        let mut tar = tar::Archive::new(archive);
        let mut files = BTreeMap::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), bytes);
        }
        let config = format!("{}.json", ContentHash::of(&configuration));
        assert_eq!(files[&config], configuration);
        assert_eq!(ContentHash::of(&files[&format!("{layer}.tar")]), layer);
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["Config"], config);
        assert_eq!(manifest[0]["Layers"][0], format!("{layer}.tar"));
    }

    #[test]
    fn a_configuration_depends_on_its_inputs_only() {
        let (one, two) = (parts().0, parts().0);
        assert_eq!(one, two);
        let value: serde_json::Value = serde_json::from_slice(&one).unwrap();
        assert_eq!(value["architecture"], "amd64");
        assert_eq!(value["config"]["Labels"][GLIBC_LABEL], "2.36");
        assert_eq!(value["config"]["Env"][0], format!("PATH={PATH}"));
    }

    #[test]
    fn a_cancelled_archive_ends_with_an_error() {
        let (configuration, layers) = parts();
        let cancelled = Arc::new(AtomicBool::new(true));
        let archive = stream(configuration, layers, cancelled);
        let mut archive = archive.unwrap().finish();
        assert!(archive.read(&mut [0; 16]).is_err());
    }
}
