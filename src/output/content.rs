//! What a client gets from an output, as one hash.

use super::{DepInfo, File, Inputs, Output};
use crate::cargo::dep_info::CargoDepInfo;
use crate::cargo::fingerprint::{CheckDepInfo, LocalFingerprint};
use crate::digest::{Canonical, ContentHash};

impl Output {
    /// SHA-256 over all of the manifest that decides what a client uses;
    /// `docs/formats/signature.md` has it row by row.
    ///
    /// Two compilations that give the same bytes have the same content hash:
    /// how long it took, on how many processors, and what a checkout's times
    /// or the order of a list were is left out.
    pub fn content_hash(&self) -> ContentHash {
        // Taken apart, so that a new field has to be thought of here.
        let Self {
            format,
            id,
            recipe,
            host_recipe,
            key,
            name,
            version,
            target_kind,
            produced,
            references,
            inputs,
            files,
            unit_id,
            extra_filename,
            timed,
            mentions_clippy,
            rustc_dep_info,
            cargo_dep_info,
            local,
            seconds: _,
            jobs: _,
            glibc,
            builder,
        } = self;
        let mut canonical = Canonical::new("quickbuild-content-1");
        canonical
            .number(u64::from(*format))
            .text(&id.to_string())
            .text(&recipe.to_string())
            .text(&host_recipe.to_string())
            .text(&key.to_string())
            .text(name)
            .text(version)
            .text(target_kind)
            .text(&word(produced));
        canonical.number(references.len() as u64);
        for reference in references {
            canonical.text(&reference.to_string());
        }
        add_inputs(&mut canonical, inputs);
        canonical.number(files.len() as u64);
        for file in files {
            add_file(&mut canonical, file);
        }
        canonical
            .text(unit_id)
            .text(extra_filename)
            .number(u64::from(*timed))
            .number(u64::from(*mentions_clippy));
        add_rustc_dep_info(&mut canonical, rustc_dep_info.as_ref());
        add_cargo_dep_info(&mut canonical, cargo_dep_info.as_ref());
        canonical.number(local.len() as u64);
        for local in local {
            add_local(&mut canonical, local, *timed);
        }
        canonical
            .option(glibc.map(|version| version.to_string()).as_deref())
            .text(&builder.to_string());
        ContentHash::finish(canonical)
    }
}

/// The word that stands for a variant in the manifest.
pub(super) fn word(variant: &impl serde::Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("the variants have no fields: {other:?}"),
    }
}

fn add_file(canonical: &mut Canonical, file: &File) {
    let File {
        role,
        name,
        size,
        sha256,
        time: _,
        mode,
        portable,
    } = file;
    // Nothing is claimed of a file whose bytes nobody has looked at.
    let digest = sha256.as_ref().map_or(&[][..], |digest| digest.as_bytes());
    canonical
        .text(&word(role))
        .text(name)
        .number(*size)
        .bytes(digest)
        .number(u64::from(*mode))
        .number(u64::from(*portable));
}

fn add_inputs(canonical: &mut Canonical, inputs: &Inputs) {
    let Inputs {
        files,
        env,
        git_head,
        folders,
    } = inputs;
    canonical.number(files.len() as u64);
    for file in files {
        canonical
            .text(&word(&file.base))
            .text(&file.path.to_string_lossy())
            .bytes(file.sha256.as_bytes());
    }
    add_variables(canonical, env);
    canonical.option(git_head.as_deref());
    canonical.number(folders.len() as u64);
    for (name, folder) in folders {
        canonical.text(name).text(&folder.to_string_lossy());
    }
}

/// Variables in order, whatever theirs is.
fn add_variables(canonical: &mut Canonical, variables: &[(String, Option<String>)]) {
    let mut variables: Vec<_> = variables.iter().collect();
    variables.sort();
    canonical.number(variables.len() as u64);
    for (name, value) in variables {
        canonical.text(name).option(value.as_deref());
    }
}

fn add_rustc_dep_info(canonical: &mut Canonical, info: Option<&DepInfo>) {
    canonical.number(u64::from(info.is_some()));
    let Some(DepInfo { files, env }) = info else {
        return;
    };
    let mut files: Vec<&String> = files.iter().collect();
    files.sort();
    canonical.list(&files);
    add_variables(canonical, env);
}

fn add_cargo_dep_info(canonical: &mut Canonical, info: Option<&CargoDepInfo>) {
    canonical.number(u64::from(info.is_some()));
    let Some(CargoDepInfo { files, env }) = info else {
        return;
    };
    let files = files
        .iter()
        .map(|(base, path)| (word(base), path.to_string_lossy()));
    let mut files: Vec<_> = files.collect();
    files.sort();
    canonical.number(files.len() as u64);
    for (base, path) in files {
        canonical.text(&base).text(&path);
    }
    add_variables(canonical, env);
}

/// What linking computes anew is left out: the time of a path package's newest
/// file, and where what a build script printed lies.
fn add_local(canonical: &mut Canonical, local: &LocalFingerprint, timed: bool) {
    match local {
        LocalFingerprint::Precalculated(text) => {
            canonical
                .text("precalculated")
                .option(Some(text.as_str()).filter(|_| !timed));
        }
        LocalFingerprint::CheckDepInfo(CheckDepInfo {
            dep_info,
            checksum,
            fingerprint,
        }) => {
            canonical
                .text("dep-info")
                .text(&dep_info.to_string_lossy())
                .option(checksum.map(|flag| flag.to_string()).as_deref())
                .option(fingerprint.as_ref().map(word).as_deref());
        }
        LocalFingerprint::RerunIfChanged { output: _, paths } => {
            let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
            canonical.text("paths").list(&paths);
        }
        LocalFingerprint::RerunIfEnvChanged { var, val } => {
            canonical.text("variable").text(var).option(val.as_deref());
        }
    }
}

#[cfg(test)]
mod tests;
