//! What an image is made of: `containers/<name>.toml`, parsed and checked.
//!
//! Nothing here does I/O. `docs/formats/builder.md` explains each field.
//!
//! * A definition names everything that is put into its image; a field that
//!   does not exist is refused, so that a misspelt one is never ignored.
//! * A variant names a base and what is added to it. It is one step: the base
//!   of a variant is no variant.
//! * What comes out is put into command lines, so every word is checked here.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cargo::glibc::{GlibcVersion, ParseGlibcError};

/// Version of the file's form.
const FORMAT: u32 = 1;

/// Definitions that come with the program, by name.
pub const BUILT_IN: [(&str, &str); 6] = [
    (
        "1.85.0-x86_64-unknown-linux-gnu",
        include_str!("../../containers/1.85.0-x86_64-unknown-linux-gnu.toml"),
    ),
    (
        "1.95.0-x86_64-unknown-linux-gnu",
        include_str!("../../containers/1.95.0-x86_64-unknown-linux-gnu.toml"),
    ),
    (
        "1.95.0-x86_64-unknown-linux-gnu+openssl",
        include_str!("../../containers/1.95.0-x86_64-unknown-linux-gnu+openssl.toml"),
    ),
    (
        "1.96.0-x86_64-unknown-linux-gnu",
        include_str!("../../containers/1.96.0-x86_64-unknown-linux-gnu.toml"),
    ),
    (
        "1.96.0-x86_64-unknown-linux-gnu+aarch64",
        include_str!("../../containers/1.96.0-x86_64-unknown-linux-gnu+aarch64.toml"),
    ),
    (
        "nightly-x86_64-unknown-linux-gnu",
        include_str!("../../containers/nightly-x86_64-unknown-linux-gnu.toml"),
    ),
];

/// An image to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its name, which is that of its file.
    pub name: String,
    /// `release` of `rustc -vV`.
    pub release: String,
    /// `commit-date` of `rustc -vV`, where the release alone does not tell one
    /// compiler from another.
    pub commit_date: Option<String>,
    /// `host` of `rustc -vV`.
    pub host: String,
    /// Debian's name of the machines it runs on, which is also Go's.
    pub architecture: String,
    /// Other architectures that packages are taken from.
    pub foreign_architectures: Vec<String>,
    /// Triples beside the host that it compiles for.
    pub targets: Vec<String>,
    /// The newest glibc that what it links may need.
    pub glibc: GlibcVersion,
    /// Debian's release.
    pub suite: String,
    /// Debian packages without the toolchain's, sorted.
    pub packages: Vec<String>,
    /// Where the Rust toolchain comes from.
    pub toolchain: Source,
}

/// Where a Rust toolchain comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Debian packages with their versions.
    Debian(Vec<String>),
    /// A toolchain of this machine, by rustup's name for it.
    Rustup(String),
}

/// Why definitions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// There is none of this name.
    #[error("there is no builder `{name}`")]
    Unknown {
        /// The name.
        name: String,
    },
    /// It is not TOML, or has fields that do not exist, or lacks some.
    #[error("the definition of the builder `{name}` is not valid")]
    Syntax {
        /// The builder.
        name: String,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// It is of a version that this program does not know.
    #[error(
        "the definition of the builder `{name}` has format {found}, and this program knows {FORMAT}"
    )]
    Format {
        /// The builder.
        name: String,
        /// The version.
        found: u32,
    },
    /// A field has a value that it may not have.
    #[error("`{value}` is no valid `{field}` of the builder `{name}`")]
    Value {
        /// The builder.
        name: String,
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// A field is missing that every builder without a base has.
    #[error("the definition of the builder `{name}` has neither `{field}` nor `base`")]
    Missing {
        /// The builder.
        name: String,
        /// The field.
        field: &'static str,
    },
    /// The base does not exist, or is a variant itself.
    #[error("`{base}` cannot be the base of the builder `{name}`")]
    Base {
        /// The builder.
        name: String,
        /// What it names.
        base: String,
    },
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    format: u32,
    base: Option<String>,
    release: Option<String>,
    commit_date: Option<String>,
    host: Option<String>,
    architecture: Option<String>,
    #[serde(default)]
    foreign_architectures: Vec<String>,
    #[serde(default)]
    targets: Vec<String>,
    glibc: Option<String>,
    suite: Option<String>,
    #[serde(default)]
    packages: Vec<String>,
    toolchain: Option<Toolchain>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
enum Toolchain {
    Debian(Vec<String>),
    Rustup(String),
}

/// All definitions that count, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definitions(BTreeMap<String, Definition>);

impl Definitions {
    /// Reads definitions from names and texts; of two with one name the later
    /// one counts.
    pub fn parse<'a>(
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, DefinitionError> {
        let mut files = BTreeMap::new();
        for (name, text) in texts {
            let file: File = toml::from_str(text).map_err(|source| DefinitionError::Syntax {
                name: name.to_owned(),
                source: Box::new(source),
            })?;
            files.insert(name, file);
        }
        let definitions = files.iter().map(|(name, file)| {
            let definition = match &file.base {
                None => complete(name, file),
                Some(base) => variant(name, file, base, &files),
            };
            Ok(((*name).to_owned(), definition?))
        });
        definitions.collect::<Result<_, _>>().map(Self)
    }

    /// The definition of this name.
    pub fn get(&self, name: &str) -> Result<&Definition, DefinitionError> {
        self.0.get(name).ok_or_else(|| DefinitionError::Unknown {
            name: name.to_owned(),
        })
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Definition> {
        self.0.values()
    }
}

/// The tag of a builder's image. Tags have no `+`.
pub fn tag(name: &str) -> String {
    name.replace('+', "_")
}

impl Definition {
    /// The tag under which its image is known to an engine, behind
    /// `quickbuild-builder:`.
    pub fn tag(&self) -> String {
        tag(&self.name)
    }

    /// All Debian packages, the toolchain's included, sorted.
    pub fn all_packages(&self) -> Vec<String> {
        let mut packages = self.packages.clone();
        if let Source::Debian(toolchain) = &self.toolchain {
            packages.extend(toolchain.iter().cloned());
        }
        packages.sort();
        packages.dedup();
        packages
    }

    /// The names under which programs look for a C or C++ compiler: without a
    /// prefix for the host, with Debian's prefix for host and targets.
    pub fn compilers(&self) -> Vec<String> {
        let plain = ["c++", "cc", "g++", "gcc"].map(str::to_owned);
        let prefixed = std::iter::once(&self.host).chain(&self.targets);
        let prefixed = prefixed.filter_map(|triple| c_prefix(triple));
        let prefixed = prefixed.flat_map(|prefix| ["g++", "gcc"].map(|c| format!("{prefix}-{c}")));
        plain.into_iter().chain(prefixed).collect()
    }
}

/// How Debian names the C compiler for a Rust target: `aarch64-linux-gnu`.
pub fn c_prefix(triple: &str) -> Option<String> {
    let (processor, rest) = triple.split_once('-')?;
    let (_vendor, system) = rest.split_once('-')?;
    Some(format!("{processor}-{system}"))
}

/// A definition without a base.
fn complete(name: &str, file: &File) -> Result<Definition, DefinitionError> {
    check_format(name, file)?;
    let text = |field: &'static str, value: &Option<String>| {
        value.clone().ok_or_else(|| DefinitionError::Missing {
            name: name.to_owned(),
            field,
        })
    };
    let glibc = text("glibc", &file.glibc)?;
    let toolchain = file.toolchain.clone();
    let toolchain = toolchain.ok_or_else(|| DefinitionError::Missing {
        name: name.to_owned(),
        field: "toolchain",
    })?;
    let definition = Definition {
        name: name.to_owned(),
        release: text("release", &file.release)?,
        commit_date: file.commit_date.clone(),
        host: text("host", &file.host)?,
        architecture: text("architecture", &file.architecture)?,
        foreign_architectures: sorted(file.foreign_architectures.clone()),
        targets: sorted(file.targets.clone()),
        glibc: glibc
            .parse()
            .map_err(|_unreadable: ParseGlibcError| refuse(name, "glibc", &glibc))?,
        suite: text("suite", &file.suite)?,
        packages: sorted(file.packages.clone()),
        toolchain: match toolchain {
            Toolchain::Debian(packages) => Source::Debian(sorted(packages)),
            Toolchain::Rustup(toolchain) => Source::Rustup(toolchain),
        },
    };
    check(&definition)?;
    Ok(definition)
}

/// A definition with a base, to which it adds packages, architectures and
/// targets and nothing else.
fn variant(
    name: &str,
    file: &File,
    base: &str,
    files: &BTreeMap<&str, File>,
) -> Result<Definition, DefinitionError> {
    check_format(name, file)?;
    let wrong_base = || DefinitionError::Base {
        name: name.to_owned(),
        base: base.to_owned(),
    };
    let base_file = files.get(base).filter(|file| file.base.is_none());
    let addition = name
        .strip_prefix(base)
        .and_then(|rest| rest.strip_prefix('+'));
    let (Some(base_file), Some(_)) = (base_file, addition) else {
        return Err(wrong_base());
    };
    let own = [
        ("release", &file.release),
        ("commit-date", &file.commit_date),
        ("host", &file.host),
        ("architecture", &file.architecture),
        ("glibc", &file.glibc),
        ("suite", &file.suite),
    ];
    let own = own
        .into_iter()
        .find_map(|(field, value)| Some((field, value.as_ref()?)));
    if let Some((field, value)) = own {
        return Err(refuse(name, field, value));
    }
    if file.toolchain.is_some() {
        return Err(refuse(name, "toolchain", "its own"));
    }
    let mut definition = complete(base, base_file)?;
    definition.name = name.to_owned();
    let extend = |list: &mut Vec<String>, more: &[String]| {
        list.extend_from_slice(more);
        list.sort();
        list.dedup();
    };
    extend(&mut definition.packages, &file.packages);
    extend(&mut definition.targets, &file.targets);
    extend(
        &mut definition.foreign_architectures,
        &file.foreign_architectures,
    );
    check(&definition)?;
    Ok(definition)
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list.dedup();
    list
}

fn check_format(name: &str, file: &File) -> Result<(), DefinitionError> {
    if file.format == FORMAT {
        return Ok(());
    }
    Err(DefinitionError::Format {
        name: name.to_owned(),
        found: file.format,
    })
}

fn refuse(name: &str, field: &'static str, value: &str) -> DefinitionError {
    DefinitionError::Value {
        name: name.to_owned(),
        field,
        value: value.to_owned(),
    }
}

/// Refuses words that would mean something else in a command line, and
/// machines that do not fit together.
fn check(definition: &Definition) -> Result<(), DefinitionError> {
    let Definition {
        name,
        release,
        commit_date,
        host,
        architecture,
        foreign_architectures,
        targets,
        glibc: _,
        suite,
        packages,
        toolchain,
    } = definition;
    let all = |field: &'static str, values: &[String], is_valid: fn(&str) -> bool| match values
        .iter()
        .find(|value| !is_valid(value))
    {
        None => Ok(()),
        Some(value) => Err(refuse(name, field, value)),
    };
    let one = |field: &'static str, value: &str, is_valid: fn(&str) -> bool| match is_valid(value) {
        true => Ok(()),
        false => Err(refuse(name, field, value)),
    };
    one("name", name, |name| is_word(name, "._-+"))?;
    one("release", release, |release| is_word(release, ".-"))?;
    if let Some(date) = commit_date {
        one("commit-date", date, |date| is_word(date, "-"))?;
    }
    one("host", host, |host| is_word(host, "_-."))?;
    one("suite", suite, |suite| is_word(suite, "-"))?;
    all("targets", targets, |triple| {
        is_word(triple, "_-.") && c_prefix(triple).is_some()
    })?;
    all("foreign-architectures", foreign_architectures, |name| {
        is_word(name, "-")
    })?;
    all("packages", packages, is_package)?;
    match toolchain {
        Source::Rustup(toolchain) => one("toolchain", toolchain, |name| is_word(name, "._-"))?,
        Source::Debian(packages) => all("toolchain", packages, |package| {
            is_package(package) && package.contains('=')
        })?,
    }
    let processor = host.split('-').next().unwrap_or_default();
    let fits = matches!(
        (architecture.as_str(), processor),
        ("amd64", "x86_64") | ("arm64", "aarch64")
    );
    if fits {
        Ok(())
    } else {
        Err(refuse(name, "architecture", architecture))
    }
}

/// Letters, digits and some other characters, the first a letter or digit.
fn is_word(text: &str, others: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_allowed)
}

/// `name`, `name:architecture`, either with `=version` (Debian policy, 5.6.1
/// and 5.6.12).
fn is_package(text: &str) -> bool {
    let (name, version) = match text.split_once('=') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let (name, architecture) = match name.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (name, None),
    };
    is_word(name, "+-.")
        && architecture.is_none_or(|architecture| is_word(architecture, "-"))
        && version.is_none_or(|version| is_word(version, "+-.~:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = r#"
        format = 1
        release = "1.95.0"
        host = "x86_64-unknown-linux-gnu"
        architecture = "amd64"
        glibc = "2.36"
        suite = "bookworm"
        packages = ["make", "gcc"]
        [toolchain]
        rustup = "1.95.0"
    "#;

    fn one(text: &str) -> Result<Definitions, DefinitionError> {
        Definitions::parse([("1.95.0-x", text)])
    }

    #[test]
    fn built_in_definitions_are_the_files_of_the_folder() {
        let definitions = Definitions::parse(BUILT_IN).unwrap();
        assert_eq!(definitions.iter().count(), BUILT_IN.len());
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("containers");
        let files = crate::fs::list(&folder).unwrap();
        let names = files
            .iter()
            .filter(|file| file.extension().is_some_and(|e| e == "toml"));
        let mut names: Vec<_> = names
            .map(|file| file.file_stem().unwrap().to_str().unwrap())
            .collect();
        names.sort_unstable();
        let mut built_in = BUILT_IN.map(|(name, _)| name);
        built_in.sort_unstable();
        assert_eq!(names, built_in);
    }

    #[test]
    fn a_name_is_release_and_host() {
        for definition in Definitions::parse(BUILT_IN).unwrap().iter() {
            let release = match definition.release.contains("nightly") {
                true => "nightly",
                false => &definition.release,
            };
            let name = format!("{release}-{}", definition.host);
            assert!(definition.name.starts_with(&name), "{}", definition.name);
        }
    }

    #[test]
    fn a_variant_adds_to_its_base() {
        let variant = "format = 1\nbase = \"1.95.0-x\"\npackages = [\"libssl-dev\"]";
        let texts = [("1.95.0-x", PLAIN), ("1.95.0-x+openssl", variant)];
        let definitions = Definitions::parse(texts).unwrap();
        let definition = definitions.get("1.95.0-x+openssl").unwrap();
        assert_eq!(definition.packages, ["gcc", "libssl-dev", "make"]);
        assert_eq!(definition.release, "1.95.0");
        assert_eq!(definition.tag(), "1.95.0-x_openssl");
        for (name, text) in [
            ("other", variant),
            ("1.95.0-x+y", "format = 1\nbase = \"1.95.0-x+openssl\""),
            (
                "1.95.0-x+y",
                "format = 1\nbase = \"1.95.0-x\"\nsuite = \"trixie\"",
            ),
        ] {
            let texts = [texts[0], texts[1], (name, text)];
            assert!(Definitions::parse(texts).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(one(PLAIN).is_ok());
        for (from, to) in [
            ("format = 1", "format = 2"),
            ("format = 1", "format = 1\nextra = 1"),
            ("suite = \"bookworm\"", ""),
            ("bookworm", "book worm"),
            ("\"make\"", "\"make,--hook=x\""),
            ("\"make\"", "\"?essential\""),
            ("\"2.36\"", "\"two\""),
            ("\"amd64\"", "\"arm64\""),
            ("rustup = \"1.95.0\"", "rustup = \"--version\""),
            ("rustup = \"1.95.0\"", "debian = [\"rustc-web\"]"),
            ("rustup = \"1.95.0\"", ""),
        ] {
            let text = PLAIN.replace(from, to);
            assert_ne!(text, PLAIN);
            assert!(one(&text).is_err(), "{to}");
        }
    }

    #[test]
    fn compilers_have_debians_names() {
        let definitions = Definitions::parse(BUILT_IN).unwrap();
        let cross = definitions.get("1.96.0-x86_64-unknown-linux-gnu+aarch64");
        let compilers = cross.unwrap().compilers();
        assert!(compilers.contains(&"aarch64-linux-gnu-gcc".to_owned()));
        assert!(compilers.contains(&"x86_64-linux-gnu-g++".to_owned()));
        assert!(compilers.contains(&"cc".to_owned()));
    }
}
