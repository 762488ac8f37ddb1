//! Recipes made valid in a container, and recipes that cannot be.

use std::path::{Path, PathBuf};

use super::{assert_nothing_left, with_builder};
use crate::support::{TestEnv, copy_tree, walk};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes")
}

/// The hash of one of the repository's recipes of a package.
fn recipe_of(package: &str) -> String {
    let folder = repository().join(&package[..2]).join(package);
    let mut files = walk(&folder);
    files.sort();
    let stem = files[0].file_stem().unwrap().to_str().unwrap();
    stem.rsplit_once('-').unwrap().1.to_owned()
}

/// A copy of the repository's files of some packages.
fn some(env: &TestEnv, packages: &[&str]) -> PathBuf {
    let to = env.root().join("recipes");
    for package in packages {
        let below = Path::new(&package[..2]).join(package);
        copy_tree(&repository().join(&below), &to.join(below));
    }
    to
}

#[test]
fn a_recipe_is_built_with_all_it_needs_and_says_where_it_came_from() {
    let Some(env) = with_builder() else { return };
    let project = env.project("tiny");
    let folder = repository();
    let recipe = recipe_of("serde_json");
    let arguments = ["realise", &recipe, "--builder", "docker", "--repository"];
    let arguments = [&arguments[..], &[folder.to_str().unwrap()]].concat();
    let outcome = env.quickbuild(&project, &arguments);
    let outcome = outcome.success();
    assert!(outcome.stdout.contains("0 units without"), "{outcome}");
    let mut found = 0;
    for path in walk(&env.store().join("paths")) {
        if path
            .file_name()
            .is_some_and(|name| name == "provenance.json")
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let statement: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
            assert!(text.contains("sha256"), "{text}");
            found += 1;
        }
    }
    let outputs = std::fs::read_dir(env.store().join("paths"))
        .unwrap()
        .count();
    assert_eq!(found, outputs);
    assert_nothing_left(&env);

    let again = env.quickbuild(&project, &arguments).success();
    assert!(again.stdout.contains("nothing to do"), "{again}");
    let log = env.quickbuild(&project, &["log", &recipe]).success();
    assert!(log.stdout.contains("Compiling serde_json"), "{log}");
}

#[test]
fn recipes_that_are_wrong_are_named_before_anything_starts() {
    let env = TestEnv::new();
    let project = env.project("tiny");
    let realise = |folder: &Path| {
        let folder = folder.to_str().unwrap();
        let recipe = recipe_of("thiserror");
        let arguments = [
            "realise",
            &recipe,
            "--builder",
            "local",
            "--repository",
            folder,
        ];
        env.quickbuild(&project, &arguments)
    };
    // What it needs is not there.
    let folder = some(&env, &["thiserror"]);
    let outcome = realise(&folder);
    assert_eq!(outcome.code, Some(3), "{outcome}");
    assert!(outcome.stderr.contains("thiserror"), "{outcome}");

    // Edited by hand, it is another recipe than its name says.
    let files = walk(&folder);
    let text = std::fs::read_to_string(&files[0]).unwrap();
    std::fs::write(
        &files[0],
        text.replace("opt_level = '\"0\"'", "opt_level = '\"3\"'"),
    )
    .unwrap();
    assert_ne!(text, std::fs::read_to_string(&files[0]).unwrap());
    let folder = folder.to_str().unwrap();
    let checked = env.quickbuild(&project, &["recipe", "check", folder, "--offline"]);
    assert_eq!(checked.code, Some(1), "{checked}");
}
