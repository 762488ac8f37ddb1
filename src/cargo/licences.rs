//! Under which licences packages are: `cargo metadata` (Cargo book, "cargo
//! metadata" and "The manifest format").

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::invocation::Invocation;
use super::unit_graph::PackageId;
use super::{CargoError, output_of};
use crate::environment::Environment;

/// What a manifest says of the licence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Licence {
    /// An SPDX expression.
    Expression(String),
    /// A file of the package.
    File(String),
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    license: Option<String>,
    license_file: Option<String>,
}

/// The licences of all packages of a workspace, as far as manifests say.
pub fn load(
    environment: &Environment,
    folder: &Path,
    invocation: &Invocation,
) -> Result<Vec<(PackageId, Licence)>, CargoError> {
    let mut command = Command::new(environment.cargo());
    command.current_dir(folder);
    command.args(["metadata", "--format-version", "1"]);
    if let Some(path) = invocation.manifest_path() {
        command.arg("--manifest-path").arg(path);
    }
    for value in invocation.values(&["--config"]) {
        command.args(["--config", value]);
    }
    for flag in ["--offline", "--locked", "--frozen"] {
        if invocation.has_flag(&[flag]) {
            command.arg(flag);
        }
    }
    let text = output_of(&mut command)?;
    let metadata: Metadata = serde_json::from_str(&text).map_err(|source| CargoError::Answer {
        program: "cargo metadata".to_owned(),
        source,
    })?;
    let packages = metadata.packages.into_iter();
    Ok(packages
        .filter_map(|package| {
            let licence = match (package.license, package.license_file) {
                (Some(text), _) => Licence::Expression(expression(&text)),
                (None, Some(file)) => Licence::File(file),
                (None, None) => return None,
            };
            Some((PackageId::parse(&package.id)?, licence))
        })
        .collect())
}

/// Before SPDX expressions, `/` stood between licences to choose from.
fn expression(text: &str) -> String {
    let parts = text.split('/').map(str::trim);
    parts.collect::<Vec<_>>().join(" OR ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_expressions_are_read() {
        assert_eq!(expression("MIT/Apache-2.0"), "MIT OR Apache-2.0");
        assert_eq!(expression("MIT / Apache-2.0"), "MIT OR Apache-2.0");
        let new = "(MIT OR Apache-2.0) AND Unicode-3.0";
        assert_eq!(expression(new), new);
    }
}
