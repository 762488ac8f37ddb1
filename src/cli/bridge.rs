//! `quickbuild bridge request|emit`: the bridge for other tools.

use std::ffi::OsString;
use std::process::ExitCode;

use serde_json::json;

use super::terminal::print_json;
use super::{Exit, Failure, Surroundings};
use crate::bridge::run_wrapper;
use crate::digest::RecipeHash;
use crate::output::{Output, Role};
use crate::store::Store;

/// Prints the outputs of a recipe that have the wanted emission.
pub(super) fn request(
    surroundings: &Surroundings,
    recipe: &str,
    emit: &str,
) -> Result<ExitCode, Failure> {
    let recipe: RecipeHash = recipe.parse().map_err(|error| {
        Failure::from(error).hint("`quickbuild plan --format json` prints the recipe of each unit")
    })?;
    let roles: &[Role] = match emit {
        "metadata" => &[Role::Metadata],
        "link" => &[Role::Library, Role::Native, Role::Executable],
        "build-run" => &[Role::Stdout, Role::OutDir],
        "diagnostics" => &[Role::Diagnostics],
        "dep-info" => &[],
        other => {
            return Err(Failure::new(format!("`{other}` is not an emission"))
                .hint("use metadata, link, dep-info, build-run or diagnostics"));
        }
    };
    let store = Store::open(&surroundings.config()?.store)?;
    let has = |output: &Output| {
        (output.recipe == recipe || output.host_recipe == recipe)
            && if emit == "dep-info" {
                output.rustc_dep_info.is_some()
            } else {
                output.files.iter().any(|file| roles.contains(&file.role))
            }
    };
    let names = store.names()?;
    let outputs = names
        .iter()
        .filter_map(|name| store.output(name))
        .filter(has);
    let answers: Vec<_> = outputs
        .filter(|output| store.is_intact(output))
        .map(|output| {
            let files = output
                .files
                .iter()
                .enumerate()
                .filter(|(_, file)| roles.contains(&file.role));
            let files: Vec<_> = files
                .map(|(index, file)| {
                    json!({
                        "role": file.role, "name": file.name, "sha256": file.sha256,
                        "path": store.file(&output, index),
                    })
                })
                .collect();
            json!({
                "output": output.store_name(), "produced": output.produced, "files": files,
                "inputs": output.inputs, "references": output.references,
                "dep-info": output.rustc_dep_info,
            })
        })
        .collect();
    print_json(&answers);
    Ok(if answers.is_empty() {
        Exit::Found
    } else {
        Exit::Success
    }
    .into())
}

/// Does what the wrapper does for one command line of the compiler.
pub(super) fn emit(mut arguments: Vec<String>) -> ExitCode {
    if arguments.first().is_some_and(|first| first == "--") {
        arguments.remove(0);
    }
    run_wrapper(arguments.into_iter().map(OsString::from).collect())
}
