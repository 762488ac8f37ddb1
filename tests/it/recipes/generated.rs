//! From recipes to a workspace whose unit graph has just them.

use std::fs;
use std::path::Path;
use std::process::Command;

use quickbuild::environment::Environment;
use quickbuild::realise::generate::{
    GenerateError, Generated, Network, Place, batches, generate, inspect,
};
use quickbuild::recipe::package::PackageRecipe;
use quickbuild::recipe::repository::Repository;

use super::{check, closure, export, names};
use crate::support::{TestEnv, edit, skipped};

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

fn host_triple() -> String {
    let output = Command::new("rustc").arg("-vV").output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.unwrap().to_owned()
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

fn git(folder: &Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=t", "-c", "user.email=t@example.org"]);
    let ended = git.args(arguments).current_dir(folder).status();
    assert!(ended.unwrap().success());
}

/// Makes a folder a repository with one commit on the branch `a/b`.
fn commit(folder: &Path) -> String {
    git(folder, &["init", "--quiet", "--initial-branch=a/b"]);
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "--message=all"]);
    format!(
        "{{ git = \"file://{}\", branch = \"a/b\" }}",
        folder.display()
    )
}

/// Generates a workspace and lets Cargo of this environment plan it.
#[track_caller]
fn assert_planned(env: &TestEnv, closure: &[PackageRecipe]) {
    let generated = env.project("tiny");
    fs::remove_dir_all(&generated.dir).unwrap();
    generate(closure).unwrap().write(&generated.dir).unwrap();
    let plan = env.quickbuild(&generated, &["plan", "--format=json"]);
    let plan = plan.success();
    for recipe in closure {
        for hash in recipe.hashes() {
            assert!(plan.stdout.contains(&hash.to_string()), "{plan}");
        }
    }
}

/// The commit is in the lock file, the branch in the manifest.
#[test]
fn git_packages_are_generated() {
    // A Cargo home of its own, so that checkouts do not stay in the caller's.
    let env = TestEnv::new();
    let env = env.with_another_cargo_home();
    let greeter = env.project("greeter");
    let place = commit(&greeter.dir);
    let project = env.project("tiny");
    let dependency = format!("fnv = \"1\"\ngreeter = {place}");
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
    git(
        &greeter.dir,
        &["commit", "--quiet", "--all", "--message=new"],
    );
    assert_planned(&env, &closure);
}

/// A Git package that stands in for one of the registry's.
#[test]
fn patched_packages_are_generated() {
    let env = TestEnv::new();
    let env = env.with_another_cargo_home();
    let project = env.project("tiny");
    let dependency = "fnv = \"1\"\nserde_json = \"1\"";
    edit(&project.path("tiny/Cargo.toml"), "fnv = \"1\"", dependency);
    let _ = env.cargo(&project, &["vendor"]).success();
    let itoa = env.root().join("itoa");
    fs::rename(project.path("vendor/itoa"), &itoa).unwrap();
    let manifest = fs::read_to_string(project.path("Cargo.toml")).unwrap();
    let patch = format!("{manifest}\n[patch.crates-io]\nitoa = {}\n", commit(&itoa));
    fs::write(project.path("Cargo.toml"), patch).unwrap();
    let _ = env
        .cargo(&project, &["metadata", "--format-version=1"])
        .success();
    let closure = closure(&export(&env, &project, &[]));
    let patched = closure.iter().find(|recipe| recipe.name() == "itoa");
    assert!(patched.unwrap().main().source.starts_with("git+file://"));
    assert_planned(&env, &closure);
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
    let closures = repository.entries().iter();
    let closures: Vec<_> = closures.map(|entry| closure_of(&entry.recipe)).collect();
    let batches = batches(&closures).unwrap();
    assert!(batches.len() < 30, "{}", batches.len());
    // Cargo would compile just these, if it is the Cargo of the recipes.
    for name in ["axum", "rusqlite", "syn"] {
        let mut entries = repository.entries().iter();
        let recipe = &entries.find(|e| e.recipe.name() == name).unwrap().recipe;
        let tools = &recipe.main().toolchain;
        let output = Command::new("rustc").arg("-vV").output();
        if output.unwrap().stdout != tools.rustc.as_bytes() {
            assert!(skipped("toolchain", "the recipes are for another one"));
            return;
        }
        assert_eq!(missing(&closure_of(recipe)), Vec::<String>::new());
    }
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

/// Whole profiles, overrides for all packages and for build scripts, flags, and
/// target tables; all with proc macros, build scripts and C code.
#[test]
fn profiles_and_settings_are_generated() {
    const RELEASE: &str = "[profile.release]\nlto = \"fat\"\ncodegen-units = 1\npanic = \"abort\"\nstrip = true\ndebug = 1\n";
    const OTHER: &str = "opt-level = 1\noverflow-checks = false\nsplit-debuginfo = \"packed\"\n\n\
        [profile.dev.package.\"*\"]\nopt-level = 3\ndebug-assertions = false\n\n\
        [profile.dev.build-override]\nopt-level = 2\ncodegen-units = 4\ndebug = true\n\n\
        [profile.dev.package.memchr]\nopt-level = \"s\"\ndebug = false\n\n\
        [profile.slow]\ninherits = \"dev\"\nstrip = \"debuginfo\"\nlto = \"off\"\nrpath = true\n";
    let config = format!(
        "[build]\nrustflags = [\"--cfg=a\", \"--cfg=b\"]\n\n[target.{}]\nlinker = \"cc\"\n",
        host_triple()
    );
    let cases: [(&str, &[&str], &str); 4] = [
        (RELEASE, &["--release"], ""),
        (OTHER, &[], ""),
        (OTHER, &["--profile=slow"], ""),
        ("", &[], &config),
    ];
    for (profile, arguments, config) in cases {
        let env = TestEnv::new();
        let project = env.project("crates");
        let manifest = fs::read_to_string(project.path("Cargo.toml")).unwrap();
        fs::write(project.path("Cargo.toml"), manifest + profile).unwrap();
        fs::create_dir(project.path(".cargo")).unwrap();
        fs::write(project.path(".cargo/config.toml"), config).unwrap();
        let closure = closure(&export(&env, &project, arguments));
        assert_eq!(
            missing(&closure),
            Vec::<String>::new(),
            "{profile} {arguments:?}"
        );
    }
    let env = TestEnv::new();
    let project = env.project("crates");
    let env = env.with("RUSTFLAGS", "--cfg a --cfg b");
    let closure = closure(&export(&env, &project, &[]));
    let generated = generate(&closure).unwrap();
    let flags = ("RUSTFLAGS".to_owned(), "--cfg a --cfg b".to_owned());
    assert_eq!(generated.environment, [flags]);
    assert_eq!(missing(&closure), Vec::<String>::new());
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
