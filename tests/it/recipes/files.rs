//! Recipe files: exported from a workspace, checked, shown, compared, added.

use std::fs;

use quickbuild::recipe::package::PackageRecipe;
use quickbuild::recipe::repository::Repository;

use super::{check, export, file_of};
use crate::support::{TestEnv, walk};

#[test]
fn what_is_exported_is_sound_and_says_the_same_again() {
    let env = TestEnv::new();
    let project = env.project("crates");
    let recipes = export(&env, &project, &[]);
    let first = walk(&recipes);
    // Scripts, C code, proc macros.
    assert!(first.len() > 30, "{}", first.len());
    let _ = check(&env, &project, &recipes, &[]).success();
    let offline = check(&env, &project, &recipes, &["--offline"]).success();
    let skipped = format!("{} recipes were not compared", first.len());
    assert!(offline.stdout.contains(&skipped), "{offline}");

    // Each unit has its recipe in a file, by the hash that the plan tells.
    let plan = env
        .quickbuild(&project, &["plan", "--format=json"])
        .success();
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    let repository = Repository::read(&recipes).unwrap();
    for unit in plan["list"].as_array().unwrap() {
        let hash = unit["recipe"].as_str().unwrap().parse().unwrap();
        let expected = unit["package"] != "crates";
        assert_eq!(repository.get(hash).is_some(), expected, "{unit}");
    }

    // Another checkout, another command of the same profile: the same recipes.
    let other = env.checkout(&project);
    let again = export(&env, &other, &["check"]);
    assert_eq!(walk(&again), first);
    // Members have no recipes.
    assert!(
        first
            .iter()
            .all(|file| !file.starts_with(recipes.join("cr/crates")))
    );
}

#[test]
fn recipes_are_shown_hashed_and_compared() {
    let env = TestEnv::new();
    let project = env.project("crates");
    let recipes = export(&env, &project, &[]);
    let folder = recipes.to_str().unwrap();
    let recipe = |arguments: &[&str]| {
        let mut all = vec!["recipe"];
        all.extend(arguments);
        env.quickbuild(&project, &all)
    };
    let shown = recipe(&["show", "rusqlite", "--repository", folder]).success();
    assert!(shown.stdout.contains("name = \"rusqlite\""), "{shown}");
    assert!(shown.stdout.contains("── libsqlite3-sys 0."), "{shown}");
    let json = recipe(&["show", "rusqlite", "--repository", folder, "--format=json"]).success();
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let closure = json["closure"].as_array().unwrap();
    assert_eq!(closure.last().unwrap()["recipe"], json["recipe"]);
    let hash = json["recipe"].as_str().unwrap();

    let file = file_of(&recipes, "rusqlite");
    let printed = recipe(&["hash", file.to_str().unwrap()]).success();
    assert_eq!(printed.stdout.trim(), hash);
    let by_hash = recipe(&["show", &hash[..8], "--repository", folder]).success();
    assert_eq!(by_hash.stdout, shown.stdout);
    let _ = recipe(&["show", "no-such-thing", "--repository", folder]).failure();

    let same = recipe(&["diff", "rusqlite", hash, "--repository", folder]).success();
    assert_eq!(same.stdout, "The recipes are the same.\n");
    let other = file_of(&recipes, "memchr");
    let differ = recipe(&[
        "diff",
        "rusqlite",
        other.to_str().unwrap(),
        "--repository",
        folder,
    ]);
    assert_eq!(differ.code, Some(1), "{differ}");
    let json = recipe(&[
        "diff",
        "rusqlite",
        "memchr",
        "--repository",
        folder,
        "--format=json",
    ]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json[0]["a"], &json[0]["b"]),
        (&"rusqlite".into(), &"memchr".into())
    );
    assert!(
        differ
            .stdout
            .starts_with("name\n  - rusqlite\n  + memchr\n"),
        "{differ}"
    );
}

/// Proposals are put in place once their closure is whole.
#[test]
fn what_is_added_is_canonical_and_closed() {
    let env = TestEnv::new();
    let project = env.project("crates");
    let recipes = export(&env, &project, &[]);
    let merged = env.root().join("merged");
    let add = |files: &[&str]| {
        let mut all = vec!["recipe", "add", "--repository", merged.to_str().unwrap()];
        all.extend(files);
        env.quickbuild(&project, &all)
    };
    // In another spelling, and with a name that says nothing.
    let leaf = file_of(&recipes, "itoa");
    let text = fs::read_to_string(&leaf).unwrap();
    fs::write(project.path("a.toml"), format!("# a remark\n{text}")).unwrap();
    let added = add(&["a.toml"]).success();
    assert!(added.stdout.contains(": added"), "{added}");
    assert_eq!(fs::read_to_string(file_of(&merged, "itoa")).unwrap(), text);
    assert!(add(&["a.toml"]).success().stdout.contains("there already"));

    let rusqlite = file_of(&recipes, "rusqlite");
    let open = add(&[rusqlite.to_str().unwrap()]).failure();
    assert!(open.stderr.contains("which no file describes"), "{open}");
    let all = walk(&recipes);
    let all: Vec<&str> = all.iter().map(|file| file.to_str().unwrap()).collect();
    let _ = add(&all).success();
    let _ = check(&env, &project, &merged, &["--offline"]).success();
    fs::write(project.path("junk.toml"), "format = 2\n").unwrap();
    let junk = add(&["junk.toml"]).failure();
    assert!(
        junk.stderr.contains("recipe format 2 is not supported"),
        "{junk}"
    );
}

/// A recipe that was edited by hand, and what registries say about others.
#[test]
fn what_is_not_sound_is_found() {
    let env = TestEnv::new();
    let project = env.project("tiny");
    let recipes = export(&env, &project, &[]);
    let _ = check(&env, &project, &recipes, &[]).success();
    let fnv = file_of(&recipes, "fnv");
    let text = fs::read_to_string(&fnv).unwrap();
    let line = text.lines().find(|line| line.starts_with("checksum"));
    let zeros = format!("checksum = \"{}\"", "0".repeat(64));

    // A canonical recipe of an archive that the registry does not have.
    let change = |from: &str, to: &str| {
        let changed = PackageRecipe::from_toml(&text.replace(from, to)).unwrap();
        fs::remove_dir_all(&recipes).unwrap();
        Repository::write(&recipes, &changed).unwrap();
        check(&env, &project, &recipes, &[])
    };
    let wrong = change(line.unwrap(), &zeros);
    assert_eq!(wrong.code, Some(1), "{wrong}");
    assert!(wrong.stdout.contains("has the checksum 000"), "{wrong}");
    let unpublished = change("version = \"1.", "version = \"999.");
    assert!(
        unpublished.stdout.contains("is not in the registry"),
        "{unpublished}"
    );
    let unheard = change("name = \"fnv\"", "name = \"quickbuild-no-such-package\"");
    assert!(
        unheard.stdout.contains("is not in the registry"),
        "{unheard}"
    );
    // Withdrawn in 2019.
    let bytes = "549c8cf9befa7948bfd9ebb0ed84c6b25b0400046b6db1b73c026e4117c26c12";
    let bytes = text
        .replace("name = \"fnv\"", "name = \"bytes\"")
        .replace(line.unwrap(), &format!("checksum = \"{bytes}\""));
    let version = PackageRecipe::from_toml(&text)
        .unwrap()
        .version()
        .to_owned();
    let bytes = bytes.replace(&format!("version = \"{version}\""), "version = \"0.5.0\"");
    fs::remove_dir_all(&recipes).unwrap();
    Repository::write(&recipes, &PackageRecipe::from_toml(&bytes).unwrap()).unwrap();
    let yanked = check(&env, &project, &recipes, &["--format=json"]);
    assert_eq!(yanked.code, Some(1), "{yanked}");
    let report: serde_json::Value = serde_json::from_str(&yanked.stdout).unwrap();
    assert_eq!(report["problems"][0]["fault"], "yanked", "{yanked}");
    let _ = check(&env, &project, &recipes, &["--offline"]).success();

    // Whether it is yanked is not known where Cargo must not ask.
    let silent = env.with("CARGO_NET_OFFLINE", "true");
    let unknown = check(&silent, &project, &recipes, &[]);
    assert_eq!(unknown.code, Some(3), "{unknown}");
    assert!(
        unknown
            .stderr
            .contains("Cargo did not get the registry's index"),
        "{unknown}"
    );
}
