//! `quickbuild builder …`

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::arguments::{BuilderCommand, Format};
use super::terminal::{Terminal, Verbosity, print_json, print_line};
use super::{Exit, Failure, Surroundings};
use crate::build::Observer as _;
use crate::builder::BuilderError;
use crate::builder::check::{Finding, check, emulator};
use crate::builder::definition::{Definition, DefinitionError, Definitions};
use crate::builder::docker::{Engine, Image};
use crate::builder::image::{Freshness, ImageError, LoadError, REPOSITORY, Workshop, definitions};
use crate::builder::pin::{digest, pinned_image};
use crate::config::{Config, FILE, ImagePin, project_file, write_pin};

/// What a command has before it.
struct Scene<'a> {
    surroundings: &'a Surroundings,
    config: Config,
    definitions: Definitions,
}

pub(super) fn run(
    surroundings: &Surroundings,
    command: BuilderCommand,
) -> Result<ExitCode, Failure> {
    let project = project_file(&surroundings.folder);
    let scene = Scene {
        surroundings,
        config: surroundings.config()?,
        definitions: definitions(project.as_deref().and_then(Path::parent)).map_err(advise_load)?,
    };
    match command {
        BuilderCommand::List { format } => scene.list(format),
        BuilderCommand::Build { names, fresh, pin } => {
            let freshness = if fresh {
                Freshness::Anew
            } else {
                Freshness::Day
            };
            scene.build(&names, freshness, pin)
        }
        BuilderCommand::Pin { name, image } => scene.pin(&name, image.as_deref()),
        BuilderCommand::Check { names, format } => scene.check(&names, format),
    }
}

/// One builder in a report.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row<'a> {
    name: &'a str,
    release: &'a str,
    host: &'a str,
    targets: &'a [String],
    glibc: String,
    /// The id of the image that the engine has under the builder's tag.
    image: Option<String>,
    /// What the configuration pins.
    pinned: Option<String>,
}

/// What `check` found out about one builder.
#[derive(Serialize)]
struct Checked<'a> {
    name: &'a str,
    findings: Vec<Finding>,
}

impl Scene<'_> {
    fn engine(&self) -> Result<Engine, Failure> {
        Engine::connect(&self.surroundings.environment).map_err(advise)
    }

    fn definition(&self, name: &str) -> Result<&Definition, Failure> {
        self.definitions.get(name).map_err(advise_unknown)
    }

    fn pinned(&self, name: &str) -> Option<&ImagePin> {
        self.config.builders.get(name)?.image.as_ref()
    }

    fn list(&self, format: Format) -> Result<ExitCode, Failure> {
        let engine = self.engine();
        if let Err(failure) = &engine {
            failure.warn();
        }
        let row = |definition| self.row(engine.as_ref().ok(), definition);
        let rows: Result<Vec<Row<'_>>, Failure> = self.definitions.iter().map(row).collect();
        let rows = rows?;
        if format == Format::Json {
            print_json(&rows);
            return Ok(Exit::Success.into());
        }
        let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        for row in &rows {
            let image = row.image.as_deref().map_or("no image", short);
            let pinned = row
                .pinned
                .as_deref()
                .map_or("not pinned".to_owned(), |pin| {
                    let digest = pin.split_once('@').map_or(pin, |(_, digest)| digest);
                    format!("pinned to {}", short(digest))
                });
            print_line(&format!("{:width$}  {image:19}  {pinned}", row.name));
        }
        Ok(Exit::Success.into())
    }

    fn row<'a>(
        &'a self,
        engine: Option<&Engine>,
        definition: &'a Definition,
    ) -> Result<Row<'a>, Failure> {
        let image = match engine {
            Some(engine) => engine.image(&local_name(definition)).map_err(advise)?,
            None => None,
        };
        Ok(Row {
            name: &definition.name,
            release: &definition.release,
            host: &definition.host,
            targets: &definition.targets,
            glibc: definition.glibc.to_string(),
            image: image.map(|image| image.id),
            pinned: self.pinned(&definition.name).map(ToString::to_string),
        })
    }

    fn build(
        &self,
        names: &[String],
        freshness: Freshness,
        pin: bool,
    ) -> Result<ExitCode, Failure> {
        let wanted: Result<Vec<_>, _> = names.iter().map(|name| self.definition(name)).collect();
        let wanted = wanted?;
        let engine = self.engine()?;
        let cancelled = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The first one ends the work and the second one the process. Where
            // they cannot be registered, the next image's making cleans up.
            let code = i32::from(Exit::Failed as u8);
            let _ = flag::register_conditional_shutdown(signal, code, Arc::clone(&cancelled));
            let _ = flag::register(signal, Arc::clone(&cancelled));
        }
        let workshop = Workshop {
            environment: &self.surroundings.environment,
            folder: self.config.store.join("cache/images"),
            freshness,
            cancelled,
        };
        let mut terminal = Terminal::new(Verbosity::Normal, std::io::stderr().is_terminal());
        for definition in wanted {
            let mut step =
                |message: &str| terminal.step(&format!("{}: {message}", definition.name));
            let made = workshop.make(&engine, definition, &mut step);
            terminal.clear();
            let made = made.map_err(advise_image)?;
            let image = ImagePin {
                name: made.name,
                digest: made.image.id,
            };
            print_line(&image.to_string());
            if pin {
                self.write(&definition.name, &image)?;
            }
        }
        Ok(Exit::Success.into())
    }

    fn pin(&self, name: &str, image: Option<&str>) -> Result<ExitCode, Failure> {
        let definition = self.definition(name)?;
        let engine = self.engine()?;
        let own = local_name(definition);
        let image = image.map(with_tag);
        let image = image.as_deref();
        let wanted = image.unwrap_or(&own);
        let known = engine.image(wanted).map_err(advise)?;
        let found = match (known, image) {
            (Some(found), _) => found,
            (None, None) => {
                return Err(Failure::new(format!("the engine has no image `{own}`"))
                    .hint(format!("`quickbuild builder build {name}` makes it")));
            }
            (None, Some(image)) => {
                engine.pull(image).map_err(|error| {
                    let hint =
                        format!("`quickbuild builder build {name}` makes one without a registry");
                    Failure::from(error).hint(hint)
                })?;
                let pulled = engine.image(image).map_err(advise)?;
                pulled.ok_or_else(|| {
                    Failure::new(format!("the engine did not keep the image `{image}`"))
                })?
            }
        };
        let machine = engine.architecture().map_err(advise)?;
        if found.architecture != machine {
            return Err(advise(BuilderError::Architecture {
                image: wanted.to_owned(),
                found: found.architecture,
                engine: machine,
            }));
        }
        let pin = format!("{}@{}", without_digest(wanted), digest(&found));
        let pin: ImagePin = pin
            .parse()
            .map_err(|error| Failure::new(format!("`{pin}`: {error}")))?;
        self.write(name, &pin)?;
        print_line(&pin.to_string());
        Ok(Exit::Success.into())
    }

    /// Writes a pin into the project's configuration.
    fn write(&self, name: &str, pin: &ImagePin) -> Result<(), Failure> {
        write_pin(&self.file(), name, pin)?;
        Ok(())
    }

    fn file(&self) -> PathBuf {
        let folder = &self.surroundings.folder;
        match self.surroundings.environment.get("QUICKBUILD_CONFIG") {
            Some(only) => folder.join(only),
            None => project_file(folder).unwrap_or_else(|| folder.join(FILE)),
        }
    }

    fn check(&self, names: &[String], format: Format) -> Result<ExitCode, Failure> {
        let engine = self.engine()?;
        let mut wanted = Vec::new();
        for name in names {
            wanted.push(self.definition(name)?);
        }
        if names.is_empty() {
            for definition in self.definitions.iter() {
                let has_image = || engine.image(&local_name(definition));
                if self.pinned(&definition.name).is_some() || has_image().map_err(advise)?.is_some()
                {
                    wanted.push(definition);
                }
            }
        }
        if wanted.is_empty() {
            return Err(
                Failure::new("no builder is pinned, and the engine has no image of one")
                    .hint("`quickbuild builder build NAME --pin` makes one"),
            );
        }
        let mut all = Vec::new();
        for definition in wanted {
            let findings = self.check_one(&engine, definition)?;
            if format == Format::Text {
                for finding in &findings {
                    let word = if finding.ok { "ok" } else { "wrong" };
                    let Finding {
                        subject, detail, ..
                    } = finding;
                    print_line(&format!("{}: {subject}: {word}: {detail}", definition.name));
                }
            }
            all.push(Checked {
                name: &definition.name,
                findings,
            });
        }
        if format == Format::Json {
            print_json(&all);
        }
        let is_wrong = |checked: &Checked<'_>| checked.findings.iter().any(|finding| !finding.ok);
        Ok(if all.iter().any(is_wrong) {
            Exit::Found
        } else {
            Exit::Success
        }
        .into())
    }

    fn check_one(&self, engine: &Engine, definition: &Definition) -> Result<Vec<Finding>, Failure> {
        let (pinned, image) = match self.image(engine, definition) {
            Ok(found) => found,
            Err(
                error @ (BuilderError::Digest { .. }
                | BuilderError::Architecture { .. }
                | BuilderError::NoImage { .. }),
            ) => return Ok(vec![finding("image", false, error.to_string())]),
            Err(error) => return Err(advise(error)),
        };
        let mut findings = vec![finding("image", true, pinned)];
        let emulators = definition.targets.iter().filter_map(|target| {
            let environment = &self.surroundings.environment;
            Some((target.clone(), environment.find_program(&emulator(target))?))
        });
        let answers = check(
            engine,
            definition,
            &image,
            &self.surroundings.program,
            &emulators.collect(),
        )
        .map_err(advise_image)?;
        findings.extend(answers);
        Ok(findings)
    }

    /// The pinned image, or the one that was made here, and which of the two.
    fn image(
        &self,
        engine: &Engine,
        definition: &Definition,
    ) -> Result<(String, Image), BuilderError> {
        if let Some(pin) = self.pinned(&definition.name) {
            let image = pinned_image(engine, &self.config, &definition.name)?;
            return Ok((format!("pinned to {pin}"), image));
        }
        let name = local_name(definition);
        match engine.image(&name)? {
            Some(image) => Ok((format!("{name}@{}, not pinned", image.id), image)),
            None => Err(BuilderError::NoImage { image: name }),
        }
    }
}

fn finding(subject: &str, ok: bool, detail: String) -> Finding {
    Finding {
        subject: subject.to_owned(),
        ok,
        detail,
    }
}

/// The name under which an image that was made here is known.
fn local_name(definition: &Definition) -> String {
    format!("{REPOSITORY}:{}", definition.tag())
}

/// The name with a tag or a digest: without either, a registry would send
/// everything that it has under the name.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

fn without_digest(image: &str) -> &str {
    image.split_once('@').map_or(image, |(name, _)| name)
}

/// The beginning of a digest.
fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

fn advise(error: BuilderError) -> Failure {
    let hint = match &error {
        BuilderError::NoEngine { .. } => {
            "start Docker or Podman, or set DOCKER_HOST; Debian's package is docker.io"
        }
        BuilderError::NotPinned { .. } => {
            "`quickbuild builder build NAME --pin` makes and pins one"
        }
        BuilderError::NoImage { .. } => "`quickbuild builder build NAME` makes it",
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

fn advise_image(error: ImageError) -> Failure {
    let hint = match &error {
        ImageError::Engine(_) => None,
        ImageError::Program { program: "rustup" } => {
            Some("the definition takes its toolchain from rustup; see https://rustup.rs".to_owned())
        }
        ImageError::Program { program } => Some(format!("install it: apt-get install {program}")),
        ImageError::Toolchain { toolchain, .. } => Some(format!(
            "`rustup toolchain install {toolchain}` installs it"
        )),
        ImageError::OtherToolchain { .. } => Some(
            "write a definition for it into containers/; see docs/formats/builder.md".to_owned(),
        ),
        _ => None,
    };
    match hint {
        Some(hint) => Failure::from(error).hint(hint),
        None => error.into(),
    }
}

fn advise_load(error: LoadError) -> Failure {
    Failure::from(error).hint("docs/formats/builder.md explains each field")
}

fn advise_unknown(error: DefinitionError) -> Failure {
    Failure::from(error).hint("`quickbuild builder list` lists them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        assert_eq!(with_tag("rust"), "rust:latest");
        assert_eq!(with_tag("host:5000/rust"), "host:5000/rust:latest");
        assert_eq!(with_tag("rust:1.95.0"), "rust:1.95.0");
        assert_eq!(with_tag("rust@sha256:0"), "rust@sha256:0");
    }
}
