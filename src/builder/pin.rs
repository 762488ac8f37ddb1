//! Which image a builder is pinned to.
//!
//! A pin is a name and a digest. What is used is the image that the engine has
//! under the name, and only if its digest is the pinned one: a tag that has
//! moved is refused, never followed.

use super::docker::{Engine, Image};
use super::{BuilderError, Limits, Result};
use crate::config::{Config, ImagePin};

/// The image that the configuration pins for a builder.
///
/// Fails with [`BuilderError::NotPinned`], [`BuilderError::NoImage`],
/// [`BuilderError::Digest`] or [`BuilderError::Architecture`].
pub fn pinned_image(engine: &Engine, config: &Config, name: &str) -> Result<Image> {
    let settings = config.builders.get(name);
    let pin = settings.and_then(|settings| settings.image.as_ref());
    let pin = pin.ok_or_else(|| BuilderError::NotPinned {
        name: name.to_owned(),
    })?;
    resolve(engine, pin)
}

/// What a task of a builder may use: what the configuration says, and the
/// built-in limits otherwise.
pub fn limits(config: &Config, name: &str) -> Limits {
    let built_in = Limits::default();
    let Some(settings) = config.builders.get(name) else {
        return built_in;
    };
    Limits {
        memory: settings.memory.unwrap_or(built_in.memory),
        processes: settings.processes.unwrap_or(built_in.processes),
        time: settings.time.unwrap_or(built_in.time),
        ..built_in
    }
}

/// The image that a pin means.
pub fn resolve(engine: &Engine, pin: &ImagePin) -> Result<Image> {
    let by_name = engine.image(&pin.name)?;
    let found = match by_name {
        Some(image) => Some(image),
        // Pulled by digest, an image has no tag.
        None => engine.image(&pin.to_string())?,
    };
    let image = found.ok_or_else(|| BuilderError::NoImage {
        image: pin.name.clone(),
    })?;
    check_digest(pin, &image)?;
    let engine = engine.architecture()?;
    if image.architecture != engine {
        return Err(BuilderError::Architecture {
            image: pin.name.clone(),
            found: image.architecture,
            engine,
        });
    }
    Ok(image)
}

/// The digest to pin an image by: that of its registry, if it came from one.
pub fn digest(image: &Image) -> &str {
    let digests = image.digests.iter();
    let mut digests = digests.filter_map(|name| Some(name.split_once('@')?.1));
    digests.next().unwrap_or(&image.id)
}

fn check_digest(pin: &ImagePin, image: &Image) -> Result<()> {
    let is_pinned = |name: &String| name.ends_with(&format!("@{}", pin.digest));
    if image.id == pin.digest || image.digests.iter().any(is_pinned) {
        return Ok(());
    }
    Err(BuilderError::Digest {
        image: pin.name.clone(),
        pinned: pin.digest.clone(),
        found: digest(image).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BuilderSettings;

    #[test]
    fn limits_are_those_of_the_file_and_the_built_in_ones() {
        let mut config = Config::built_in(&crate::environment::Environment::default());
        assert_eq!(limits(&config, "x"), Limits::default());
        let settings = BuilderSettings {
            memory: Some(1 << 30),
            ..BuilderSettings::default()
        };
        config.builders.insert("x".to_owned(), settings);
        let expected = Limits {
            memory: 1 << 30,
            ..Limits::default()
        };
        assert_eq!(limits(&config, "x"), expected);
    }

    fn hash(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn pin(digit: char) -> ImagePin {
        format!("rust:1@{}", hash(digit)).parse().unwrap()
    }

    #[test]
    fn an_image_is_the_pinned_one_by_its_id_or_its_registrys_digest() {
        let image = Image {
            id: hash('1'),
            digests: vec![format!("rust@{}", hash('2'))],
            architecture: "amd64".to_owned(),
            path: None,
        };
        assert!(check_digest(&pin('1'), &image).is_ok());
        assert!(check_digest(&pin('2'), &image).is_ok());
        let refused = check_digest(&pin('3'), &image);
        assert!(matches!(refused, Err(BuilderError::Digest { .. })));
        assert_eq!(digest(&image), hash('2'));
        let local = Image {
            digests: Vec::new(),
            ..image
        };
        assert_eq!(digest(&local), hash('1'));
    }
}
