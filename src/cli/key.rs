//! `quickbuild key …`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::arguments::{Format, KeyCommand, Selection};
use super::store::outputs;
use super::terminal::{print_json, print_line};
use super::{Exit, Failure, Surroundings};
use crate::build::chain;
use crate::config::keys_folder;
use crate::fs;
use crate::output::Output;
use crate::store::signing::{SignatureCheck, Signers, sign};
use crate::store::{Store, StoreError};
use crate::trust::{KeyFileError, KeyName, PublicKey, SecretKey, create_key_file, read_key_file};

pub(super) fn run(surroundings: &Surroundings, command: KeyCommand) -> Result<ExitCode, Failure> {
    match command {
        KeyCommand::Generate { name, to } => generate(surroundings, &name, to),
        KeyCommand::Show { name } => {
            let key = read(surroundings, &name)?;
            print_line(&key.public().to_string());
            Ok(Exit::Success.into())
        }
        KeyCommand::Sign {
            name,
            outputs,
            format,
        } => {
            let key = read(surroundings, &name)?;
            sign_outputs(surroundings, &key, &outputs, format)
        }
        KeyCommand::Verify {
            keys,
            outputs,
            format,
        } => {
            let keys = public_keys(surroundings, &keys)?;
            verify(surroundings, &keys, &outputs, format)
        }
    }
}

fn generate(
    surroundings: &Surroundings,
    name: &str,
    to: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let name: KeyName = name.parse()?;
    let path = match to {
        Some(to) => surroundings.folder.join(to),
        None => {
            let folder = keys_folder(&surroundings.environment);
            fs::create_private_dir_all(&folder)?;
            folder.join(file_name(&name))
        }
    };
    let key = SecretKey::generate(name)?;
    create_key_file(&path, &key).map_err(|error| explain(error, &path))?;
    crate::console::line(&format!("the secret key is in `{}`", path.display()));
    print_line(&key.public().to_string());
    Ok(Exit::Success.into())
}

fn file_name(name: &KeyName) -> String {
    format!("{name}.secret")
}

/// Reads the secret key of a name, or the one in a file: a name has no `/`.
pub(super) fn read(surroundings: &Surroundings, name: &str) -> Result<SecretKey, Failure> {
    let path = if name.contains('/') {
        surroundings.folder.join(name)
    } else {
        let name: KeyName = name.parse().map_err(|error| {
            Failure::from(error).hint("write `./` before the name of a file that is here")
        })?;
        keys_folder(&surroundings.environment).join(file_name(&name))
    };
    read_key_file(&path).map_err(|error| explain(error, &path))
}

fn explain(error: KeyFileError, path: &Path) -> Failure {
    let hint = match &error {
        KeyFileError::Open { .. } => Some(format!(
            "`chmod 600 {}`; if others have read it, make a new key",
            quoted(path)
        )),
        KeyFileError::Foreign { .. } => Some("sign as the user that the key belongs to".to_owned()),
        KeyFileError::File(error) if error.is_absent() => Some(
            "`quickbuild key generate` makes a key; a file is named with a `/` in its path"
                .to_owned(),
        ),
        KeyFileError::Exists { .. } => {
            Some("a key that signed something is worth keeping: choose another name".to_owned())
        }
        KeyFileError::File(_) | KeyFileError::Content { .. } => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The keys that are given, or else those whose secret half is the user's own.
fn public_keys(surroundings: &Surroundings, given: &[String]) -> Result<Vec<PublicKey>, Failure> {
    if !given.is_empty() {
        let keys = given.iter().map(|text| Ok(text.parse()?));
        return keys.collect();
    }
    let mut keys = Vec::new();
    for path in fs::list(&keys_folder(&surroundings.environment))? {
        if path
            .extension()
            .is_some_and(|extension| extension == "secret")
        {
            let key = read_key_file(&path).map_err(|error| explain(error, &path))?;
            keys.push(key.public());
        }
    }
    if keys.is_empty() {
        return Err(Failure::new("there is no key to verify with")
            .hint("name one with `--key NAME:BASE64`, as `quickbuild key show` prints it"));
    }
    Ok(keys)
}

/// The public halves of the user's own keys, as far as they can be read.
pub(super) fn own_keys(surroundings: &Surroundings) -> Vec<PublicKey> {
    let files = fs::list(&keys_folder(&surroundings.environment)).unwrap_or_default();
    let keys = files.iter().filter_map(|path| read_key_file(path).ok());
    keys.map(|key| key.public()).collect()
}

/// The outputs that are meant.
fn select(store: &Store, selection: &Selection) -> Result<Vec<Output>, Failure> {
    let all = outputs(store)?;
    if selection.all {
        return Ok(all);
    }
    let mut wanted = BTreeSet::new();
    for word in &selection.outputs {
        let exact = all
            .iter()
            .filter(|output| output.name == *word || output.store_name() == *word);
        let mut found: Vec<_> = exact.map(|output| output.id).collect();
        if found.is_empty() {
            let by_id = all
                .iter()
                .filter(|output| output.id.to_string().starts_with(word.as_str()));
            found.extend(by_id.map(|output| output.id));
            if found.len() > 1 {
                let count = found.len();
                return Err(Failure::new(format!("{count} outputs begin with `{word}`")));
            }
        }
        if found.is_empty() {
            return Err(
                Failure::new(format!("no output is called `{word}` or begins so"))
                    .hint("`quickbuild store list` lists them"),
            );
        }
        wanted.extend(found);
    }
    Ok(all
        .into_iter()
        .filter(|output| wanted.contains(&output.id))
        .collect())
}

#[derive(Serialize)]
struct SignReport {
    key: String,
    outputs: Vec<String>,
}

fn sign_outputs(
    surroundings: &Surroundings,
    key: &SecretKey,
    selection: &Selection,
    format: Format,
) -> Result<ExitCode, Failure> {
    let store = Store::open(&surroundings.config()?.store)?;
    let names = select(&store, selection)?;
    let names: Vec<String> = names.iter().map(Output::store_name).collect();
    let signed = sign(&store, &names, key).map_err(|error| {
        let is_damaged = matches!(error, StoreError::Sign { .. });
        let failure = Failure::from(error);
        if is_damaged {
            failure.hint("`quickbuild store repair` takes out what is damaged")
        } else {
            failure
        }
    })?;
    match format {
        Format::Json => print_json(&SignReport {
            key: key.public().to_string(),
            outputs: signed,
        }),
        Format::Text => print_line(&format!(
            "{} outputs are signed with `{}`.",
            signed.len(),
            key.name()
        )),
    }
    Ok(Exit::Success.into())
}

#[derive(Serialize)]
struct VerifyReport {
    output: String,
    valid: Vec<String>,
    invalid: Vec<String>,
    unknown: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl VerifyReport {
    fn new(output: String, signers: &Signers, error: Option<String>) -> Self {
        let text = |names: &[KeyName]| names.iter().map(KeyName::to_string).collect();
        Self {
            output,
            valid: text(&signers.valid),
            invalid: text(&signers.invalid),
            unknown: text(&signers.unknown),
            error,
        }
    }

    fn line(&self) -> String {
        let mut parts = Vec::new();
        if !self.valid.is_empty() {
            parts.push(format!("signed with {}", self.valid.join(", ")));
        }
        if !self.invalid.is_empty() {
            let names = self.invalid.join(", ");
            parts.push(format!("not what was signed with {names}"));
        }
        if !self.unknown.is_empty() {
            let names = self.unknown.join(", ");
            parts.push(format!("signed with unknown keys: {names}"));
        }
        parts.extend(self.error.clone());
        if parts.is_empty() {
            parts.push("not signed".to_owned());
        }
        format!("{}  {}", self.output, parts.join("; "))
    }
}

fn verify(
    surroundings: &Surroundings,
    keys: &[PublicKey],
    selection: &Selection,
    format: Format,
) -> Result<ExitCode, Failure> {
    let store = Store::open(&surroundings.config()?.store)?;
    let outputs = select(&store, selection)?;
    let mut check = SignatureCheck::new(&store, keys)?;
    let mut reports = Vec::new();
    for output in &outputs {
        let name = output.store_name();
        reports.push(match check.signers(output) {
            Ok(signers) => VerifyReport::new(name, &signers, None),
            Err(error @ StoreError::Attached { .. }) => {
                VerifyReport::new(name, &Signers::default(), Some(chain(&error)))
            }
            Err(error) => return Err(error.into()),
        });
    }
    let valid = reports.iter().filter(|report| !report.valid.is_empty());
    let valid = valid.count();
    match format {
        Format::Json => print_json(&reports),
        Format::Text => {
            for report in &reports {
                print_line(&report.line());
            }
            print_line(&format!(
                "{valid} of {} outputs have a valid signature.",
                reports.len()
            ));
        }
    }
    let exit = if valid == reports.len() {
        Exit::Success
    } else {
        Exit::Found
    };
    Ok(exit.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quoted(Path::new("/a/b-1.secret")), "/a/b-1.secret");
        assert_eq!(quoted(Path::new("/a b/c'd")), r"'/a b/c'\''d'");
    }
}
