//! Recipes as files: exported from a workspace, checked, shown, compared; and
//! workspaces generated from them.

use std::fs;
use std::path::{Path, PathBuf};

use quickbuild::environment::Environment;
use quickbuild::realise::generate::{GenerateError, Generated, Network, Place, generate, inspect};
use quickbuild::recipe::package::PackageRecipe;
use quickbuild::recipe::repository::Repository;

use crate::support::{Outcome, Project, TestEnv, edit, skipped, walk};

/// Exports a project's recipes into a repository beside it.
#[track_caller]
fn export(env: &TestEnv, project: &Project, arguments: &[&str]) -> PathBuf {
    let recipes = env.root().join("recipes");
    let mut all = vec!["recipe", "export", "--to", recipes.to_str().unwrap()];
    all.extend(arguments);
    let _ = env.quickbuild(project, &all).success();
    recipes
}

#[track_caller]
fn check(env: &TestEnv, project: &Project, recipes: &Path, arguments: &[&str]) -> Outcome {
    let mut all = vec!["recipe", "check", recipes.to_str().unwrap()];
    all.extend(arguments);
    env.quickbuild(project, &all)
}

/// A closure of all recipes of a repository.
fn closure(recipes: &Path) -> Vec<PackageRecipe> {
    let repository = Repository::read(recipes).unwrap();
    assert!(repository.check().is_empty(), "{:?}", repository.check());
    let entries = repository.entries().iter();
    entries.map(|entry| entry.recipe.clone()).collect()
}

/// Generates a workspace for recipes, and tells which of them Cargo would not
/// compile there.
#[track_caller]
fn missing(closure: &[PackageRecipe]) -> Vec<String> {
    missing_in(&generate(closure).unwrap(), closure)
}

#[track_caller]
fn missing_in(generated: &Generated, closure: &[PackageRecipe]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let workspace = folder.path().join("workspace");
    generated.write(&workspace).unwrap();
    let environment = Environment::new(std::env::vars_os());
    let place = Place {
        folder: &workspace,
        environment: &environment,
        cache: &folder.path().join("cache"),
        network: Network::Allowed,
    };
    let inspected = inspect(generated, closure, place);
    let inspected = inspected.unwrap_or_else(|error| {
        let cause = std::error::Error::source(&error).and_then(std::error::Error::source);
        panic!("{error}: {cause:?}")
    });
    let missing = inspected.missing.iter();
    missing.map(ToString::to_string).collect()
}

/// Names of the packages of a repository, with `host` for the host's form.
fn names(closure: &[PackageRecipe]) -> Vec<String> {
    let name = |recipe: &PackageRecipe| {
        let host = if recipe.is_host_form() { " host" } else { "" };
        format!("{} {}{host}", recipe.name(), recipe.version())
    };
    closure.iter().map(name).collect()
}

/// The generated workspace compiles, and what comes out serves the project that
/// the recipes were exported from.
#[test]
fn what_a_generated_workspace_compiles_is_what_was_wanted() {
    let env = TestEnv::new();
    let project = env.project("tiny");
    let closure = closure(&export(&env, &project, &[]));
    let generated = env.project("tiny");
    fs::remove_dir_all(&generated.dir).unwrap();
    generate(&closure).unwrap().write(&generated.dir).unwrap();
    // All that this lock file has to pin is in recipes.
    let _ = env.cargo(&generated, &["fetch", "--locked"]).success();
    let _ = env.quickbuild(&generated, &["build"]).success();
    let built = env.built(&project, &["build"]);
    assert!(
        !built.contains("fnv") && built.contains("tiny"),
        "{built:?}"
    );
    env.assert_fresh(&project, &["build"]);
}

/// What other platforms need is not in recipes: Cargo adds it to the lock file,
/// and keeps what is there.
#[test]
fn cargo_completes_the_lock_file_and_keeps_its_pins() {
    let env = TestEnv::new();
    let project = env.project("crates");
    let closure = closure(&export(&env, &project, &[]));
    let generated = env.project("tiny");
    fs::remove_dir_all(&generated.dir).unwrap();
    generate(&closure).unwrap().write(&generated.dir).unwrap();
    let lock = generated.path("Cargo.lock");
    let before = fs::read_to_string(&lock).unwrap();
    let _ = env
        .cargo(&generated, &["metadata", "--format-version=1"])
        .success();
    let after = fs::read_to_string(&lock).unwrap();
    assert!(after.len() > before.len());
    for recipe in &closure {
        let main = recipe.main();
        let pin = format!(
            "name = \"{}\"\nversion = \"{}\"\nsource = \"{}\"\nchecksum = \"{}\"\n",
            main.name,
            main.version,
            main.source,
            main.checksum.as_ref().unwrap()
        );
        assert!(before.contains(&pin) && after.contains(&pin), "{pin}");
    }
    let locked = ["metadata", "--format-version=1", "--locked", "--offline"];
    let _ = env.cargo(&generated, &locked).success();
}

/// What a generated workspace lacks is named with the reason.
#[test]
fn a_workspace_that_is_not_what_was_wanted_is_seen() {
    let env = TestEnv::new();
    let project = env.project("tiny");
    let closure = closure(&export(&env, &project, &[]));
    let mut generated = generate(&closure).unwrap();
    for (_, bytes) in &mut generated.files {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replace("\"default\", ", "").into_bytes();
    }
    let missing = missing_in(&generated, &closure);
    assert_eq!(missing.len(), 1, "{missing:?}");
    let expected = "Cargo would compile it with other features";
    assert!(
        missing[0].starts_with("`fn/fnv/1.") && missing[0].ends_with(expected),
        "{missing:?}"
    );
}

/// The commit is in the lock file, the branch in the manifest.
#[test]
fn git_packages_are_generated() {
    // A Cargo home of its own, so that checkouts do not stay in the caller's.
    let env = TestEnv::new();
    let env = env.with_another_cargo_home();
    let greeter = env.project("greeter");
    let url = format!("file://{}", greeter.dir.display());
    let git = |arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@example.org"]);
        let ended = git.args(arguments).current_dir(&greeter.dir).status();
        assert!(ended.unwrap().success());
    };
    git(&["init", "--quiet", "--initial-branch=a/b"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message=all"]);
    let project = env.project("tiny");
    let dependency = format!("fnv = \"1\"\ngreeter = {{ git = \"{url}\", branch = \"a/b\" }}");
    edit(&project.path("tiny/Cargo.toml"), "fnv = \"1\"", &dependency);
    let _ = env
        .cargo(&project, &["metadata", "--format-version=1"])
        .success();
    let recipes = export(&env, &project, &[]);
    let _ = check(&env, &project, &recipes, &[]).success();
    let closure = closure(&recipes);
    assert_eq!(names(&closure).len(), 2, "{:?}", names(&closure));

    // The branch goes on; the recipe stays at its commit.
    edit(&greeter.path("build.rs"), "hello", "goodbye");
    git(&["commit", "--quiet", "--all", "--message=new"]);
    let generated = env.project("tiny");
    fs::remove_dir_all(&generated.dir).unwrap();
    generate(&closure).unwrap().write(&generated.dir).unwrap();
    let plan = env
        .quickbuild(&generated, &["plan", "--format=json"])
        .success();
    for recipe in &closure {
        for hash in recipe.hashes() {
            assert!(plan.stdout.contains(&hash.to_string()), "{plan}");
        }
    }
}

/// The recipes of this repository: sound, and each can be built with what it
/// needs.
#[test]
fn the_recipes_of_this_repository_are_sound() {
    let env = TestEnv::new();
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let project = env.project("tiny");
    let _ = check(&env, &project, &recipes, &["--offline"]).success();
    let repository = Repository::read(&recipes).unwrap();
    let closure_of = |recipe: &PackageRecipe| -> Vec<PackageRecipe> {
        let closure = repository.closure(&[recipe.hash()]).unwrap();
        closure.into_iter().cloned().collect()
    };
    for entry in repository.entries() {
        let generated = generate(&closure_of(&entry.recipe));
        assert!(generated.is_ok(), "{}: {generated:?}", entry.path.display());
    }
    // Cargo would compile just these, if it is the Cargo of the recipes.
    for name in ["axum", "rusqlite", "syn"] {
        let mut entries = repository.entries().iter();
        let recipe = &entries.find(|e| e.recipe.name() == name).unwrap().recipe;
        let tools = &recipe.main().toolchain;
        let output = std::process::Command::new("rustc").arg("-vV").output();
        if output.unwrap().stdout != tools.rustc.as_bytes() {
            assert!(skipped("toolchain", "the recipes are for another one"));
            return;
        }
        assert_eq!(missing(&closure_of(recipe)), Vec::<String>::new());
    }
}

fn file_of(recipes: &Path, name: &str) -> PathBuf {
    let files = walk(recipes).into_iter();
    let mut files = files.filter(|file| file.parent().unwrap().ends_with(name));
    files.next().unwrap()
}

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
fn a_generated_workspace_has_the_recipes_it_was_generated_from() {
    let env = TestEnv::new();
    let project = env.project("crates");
    let recipes = export(&env, &project, &[]);
    let closure = closure(&recipes);
    assert_eq!(missing(&closure), Vec::<String>::new());
    // One recipe and what it needs.
    let repository = Repository::read(&recipes).unwrap();
    let root = repository.find("rusqlite").unwrap().recipe.hash();
    let part = repository.closure(&[root]).unwrap();
    let part: Vec<PackageRecipe> = part.into_iter().cloned().collect();
    assert!(part.len() < closure.len());
    assert_eq!(missing(&part), Vec::<String>::new());
}

/// Two versions of one package, overrides of the profile for one package and for
/// build scripts, an optimised profile.
#[test]
fn profiles_and_several_versions_are_generated() {
    for arguments in [&["build"][..], &["build", "--release"]] {
        let env = TestEnv::new();
        let project = env.project("workspace");
        let closure = closure(&export(&env, &project, arguments));
        assert_eq!(names(&closure).len(), 2, "{:?}", names(&closure));
        assert_eq!(missing(&closure), Vec::<String>::new());
    }
}

/// This repository's own closure: host and target features that differ, several
/// versions of one package; also for a platform that is named.
#[test]
fn the_closure_of_this_repository_is_generated() {
    let env = TestEnv::new();
    let mut project = env.project("tiny");
    project.dir = env!("CARGO_MANIFEST_DIR").into();
    let host = host_triple();
    for arguments in [&["--locked"][..], &["--locked", "--target", &host]] {
        // Folders of their own, so that nothing is left in the checkout.
        let env = TestEnv::new();
        let env = env.with(
            "CARGO_TARGET_DIR",
            env.root().join("target").to_str().unwrap(),
        );
        let closure = closure(&export(&env, &project, arguments));
        let of = |name: &str| -> Vec<&PackageRecipe> {
            closure.iter().filter(|r| r.name() == name).collect()
        };
        let semver = of("semver");
        assert_eq!(semver.len(), 2, "{:?}", names(&closure));
        assert_ne!(semver[0].main().features, semver[1].main().features);
        assert_ne!(semver[0].is_host_form(), semver[1].is_host_form());
        assert!(of("hashbrown").len() > 1, "{:?}", names(&closure));
        assert_eq!(missing(&closure), Vec::<String>::new());
    }
}

fn host_triple() -> String {
    let output = std::process::Command::new("rustc").arg("-vV").output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.unwrap().to_owned()
}

/// What one unit graph cannot have together is refused before Cargo is asked.
#[test]
fn recipes_that_do_not_go_together_are_refused() {
    let env = TestEnv::new();
    let project = env.project("tiny");
    let recipes = export(&env, &project, &[]);
    let feature = "fnv = { version = \"1\", default-features = false }";
    edit(&project.path("tiny/Cargo.toml"), "fnv = \"1\"", feature);
    let _ = export(&env, &project, &[]);
    let both = closure(&recipes);
    assert_eq!(both.len(), 2, "{:?}", names(&both));
    let error = generate(&both).unwrap_err();
    assert!(matches!(error, GenerateError::Twice { .. }), "{error}");
    assert!(error.to_string().contains("fn/fnv/1."), "{error}");

    let _ = export(&env, &project, &["--release"]);
    assert_eq!(closure(&recipes).len(), 3);
    assert_eq!(generate(&[]), Err(GenerateError::Empty));
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
}
