//! What is written for one unit: fingerprint, dep-info, messages.

use std::path::{Path, PathBuf};

use crate::cargo::dep_info::{Base, CargoDepInfo, RustcDepInfo};
use crate::cargo::fingerprint::{
    CheckDepInfo, DepFingerprint, Fingerprint, LocalFingerprint, path_hash,
};
use crate::cargo::package_files;
use crate::digest::UnitKey;
use crate::fs;
use crate::output::{Naming, Output, Produced, Role};
use crate::plan::resolve::package_folder;
use crate::plan::{Context, Planned};
use crate::store::Store;

use super::UnitPaths;

/// Which of an output's files a unit has: a check unit wants metadata only.
pub(super) fn emits(unit: &Planned, output: &Output) -> &'static [Role] {
    let checks = matches!(unit.produced, Produced::Check | Produced::Clippy);
    match (checks, output.target_kind.as_str()) {
        (true, _) => &[Role::Metadata],
        _ => &[
            Role::Library,
            Role::Native,
            Role::Executable,
            Role::Metadata,
        ],
    }
}

/// Whether a check unit must have metadata that the output lacks: that of an
/// executable is an empty file, which nobody reads.
pub(super) fn needs_empty_metadata(unit: &Planned, output: &Output) -> bool {
    matches!(unit.produced, Produced::Check | Produced::Clippy)
        && output.files_of(Role::Metadata).next().is_none()
}

/// The compiler's messages for a unit. Clippy's own are not for `cargo check`.
pub(super) fn diagnostics(
    store: &Store,
    unit: &Planned,
    output: &Output,
) -> fs::Result<Option<Vec<u8>>> {
    let Some((index, _)) = output.files_of(Role::Diagnostics).next() else {
        return Ok(None);
    };
    let text = fs::read(&store.file(output, index))?;
    if output.produced != Produced::Clippy || unit.produced == Produced::Clippy {
        return Ok(Some(text));
    }
    let text = without_clippy(&String::from_utf8_lossy(&text));
    Ok((!text.is_empty()).then(|| text.into_bytes()))
}

/// Leaves out clippy's lints and the line that counts warnings.
pub fn without_clippy(messages: &str) -> String {
    let is_ours = |line: &&str| {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else {
            return true;
        };
        let text = |pointer| message.pointer(pointer).and_then(serde_json::Value::as_str);
        let clippy = text("/code/code").is_some_and(|code| code.starts_with("clippy::"));
        let count = text("/message").is_some_and(|m| m.ends_with(" emitted"));
        !clippy && !count
    };
    messages
        .lines()
        .filter(is_ours)
        .fold(String::new(), |all, line| all + line + "\n")
}

/// The fingerprint that Cargo will compute for a unit here; `None` if one of
/// its dependencies has none.
pub fn expected_fingerprint(
    context: &Context,
    unit: &Planned,
    output: &Output,
    naming: &Naming,
    hash_of: &dyn Fn(&UnitKey) -> Option<u64>,
) -> Option<Fingerprint> {
    let mut fingerprint = naming.fingerprint.clone();
    if naming.absolute_path {
        fingerprint.path = path_hash(&unit.unit.target.src_path);
    }
    for (DepFingerprint(_, _, _, hash), key) in fingerprint.deps.iter_mut().zip(&naming.deps) {
        *hash = hash_of(key)?;
    }
    fingerprint.local = local_part(context, unit, output, naming)?;
    Some(fingerprint)
}

fn local_part(
    context: &Context,
    unit: &Planned,
    output: &Output,
    naming: &Naming,
) -> Option<Vec<LocalFingerprint>> {
    let build_dir = &context.layout.build_dir;
    if unit.kind != "build-run" {
        let paths = UnitPaths::new(&context.layout, unit, naming);
        let dep_info = paths.dep_info.strip_prefix(build_dir).ok()?.to_owned();
        let template = naming.fingerprint.local.first();
        let Some(LocalFingerprint::CheckDepInfo(template)) = template else {
            return None;
        };
        return Some(vec![LocalFingerprint::CheckDepInfo(CheckDepInfo {
            dep_info,
            ..template.clone()
        })]);
    }
    let platform = unit.unit.platform.as_deref();
    let files = context
        .layout
        .run_files(platform, &unit.package.name, &naming.unit_id);
    let local = output.local.iter().map(|local| match local {
        LocalFingerprint::RerunIfChanged { paths, .. } => {
            let here = |path: &PathBuf| {
                let text = path.to_string_lossy();
                let text = text.replace("@out-dir@", &files.out_dir.to_string_lossy());
                PathBuf::from(context.roots.local(&text))
            };
            Some(LocalFingerprint::RerunIfChanged {
                output: files.stdout.strip_prefix(build_dir).ok()?.to_owned(),
                paths: paths.iter().map(here).collect(),
            })
        }
        LocalFingerprint::Precalculated(_) => {
            match package_folder(unit).filter(|_| unit.package.is_path()) {
                // The newest file of the package, which a checkout decides.
                Some(folder) => {
                    let files = package_files::list(folder).ok()?;
                    Some(LocalFingerprint::Precalculated(package_files::newest(
                        folder, &files,
                    )?))
                }
                None => Some(local.clone()),
            }
        }
        other => Some(other.clone()),
    });
    local.collect()
}

/// Cargo's dep-info with this user's folders.
pub fn local_dep_info(
    context: &Context,
    unit: &Planned,
    output: &Output,
    out_dir: Option<&Path>,
) -> Option<CargoDepInfo> {
    let info = output.cargo_dep_info.as_ref()?;
    let relative_out_dir =
        out_dir.map(|dir| dir.strip_prefix(&context.layout.build_dir).unwrap_or(dir));
    let here = |(base, path): &(Base, PathBuf)| {
        let path = match (path.strip_prefix("@out-dir@"), relative_out_dir) {
            (Ok(rest), Some(out_dir)) => out_dir.join(rest),
            _ => PathBuf::from(context.roots.local(&path.to_string_lossy())),
        };
        (*base, path)
    };
    let value = |value: &String| context.roots.local(value);
    // What only clippy reads says nothing about `cargo check`.
    let read = |(name, _): &&(String, Option<String>)| {
        unit.produced == Produced::Clippy || !name.starts_with("CLIPPY_")
    };
    Some(CargoDepInfo {
        files: info.files.iter().map(here).collect(),
        env: info
            .env
            .iter()
            .filter(read)
            .map(|(n, v)| (n.clone(), v.as_ref().map(value)))
            .collect(),
    })
}

/// rustc's dep-info with this user's folders, for a compilation that the bridge
/// stands in for.
pub fn local_rustc_dep_info(
    roots: &crate::cargo::workspace::Roots,
    output: &Output,
    out_dir: Option<&str>,
) -> Option<RustcDepInfo> {
    let info = output.rustc_dep_info.as_ref()?;
    let here = |text: &String| {
        let text = match out_dir {
            Some(out_dir) => text.replace("@out-dir@", out_dir),
            None => text.clone(),
        };
        roots.local(&text)
    };
    Some(RustcDepInfo {
        files: info.files.iter().map(here).collect(),
        env: info
            .env
            .iter()
            .map(|(n, v)| (n.clone(), v.as_ref().map(here)))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_replays_rustc_and_not_clippy() {
        let messages = concat!(
            r#"{"message":"unused variable: `x`","code":{"code":"unused_variables"}}"#,
            "\n",
            r#"{"message":"needless return","code":{"code":"clippy::needless_return"}}"#,
            "\n",
            r#"{"message":"2 warnings emitted","code":null}"#,
            "\n",
        );
        let kept = without_clippy(messages);
        assert_eq!(kept.lines().count(), 1);
        assert!(kept.contains("unused_variables"));
    }
}
