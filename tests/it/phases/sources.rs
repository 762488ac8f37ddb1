//! Packages from other places than crates.io's own registry: Git, a vendored
//! folder, an alternative registry.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Project, Registry, TestEnv, edit, git};

/// `tiny` with one more dependency, given as a line of its manifest.
fn tiny_with(env: &TestEnv, dependency: &str) -> Project {
    let project = env.project("tiny");
    edit(
        &project.path("tiny/Cargo.toml"),
        "fnv = \"1\"",
        &format!("fnv = \"1\"\n{dependency}"),
    );
    edit(
        &project.path("tiny/src/main.rs"),
        "leaf::WORD",
        "greeter::WORD",
    );
    project
}

/// Another checkout, with the changes of the first.
fn twin(env: &TestEnv, first: &Project) -> Project {
    let second = env.checkout(first);
    for entry in fs::read_dir(&first.dir).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("target") {
            run(Command::new("cp").arg("-R").arg(&path).arg(&second.dir));
        }
    }
    second
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}

/// Makes a folder a repository with one commit.
fn commit(folder: &Path) {
    git(folder, &["init", "--quiet", "--initial-branch=main"]);
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "--message=all"]);
}

#[track_caller]
fn compiled_once(env: &TestEnv, first: &Project, word: &str) {
    let cold = env.quickbuild(first, &["build"]).success();
    assert_eq!(cold.summary().built, cold.summary().units, "{cold}");
    env.assert_fresh(first, &["build"]);
    let second = twin(env, first);
    let _ = env.quickbuild(&second, &["build"]).nothing_built();
    env.assert_fresh(&second, &["build"]);
    let _ = env.quickbuild(&second, &["check"]).nothing_built();
    let printed = env.program(&second, "target/debug/tiny").success().stdout;
    assert_eq!(printed.split(' ').next(), Some(word), "{printed}");
}

#[test]
fn a_git_dependency_is_compiled_once() {
    // A Cargo home of its own, so that checkouts do not stay in the caller's.
    let env = TestEnv::new();
    let env = env.with_another_cargo_home();
    let greeter = env.project("greeter");
    commit(&greeter.dir);
    let url = format!("file://{}", greeter.dir.display());
    git(&greeter.dir, &["branch", "a/b+c"]);
    let branch = tiny_with(
        &env,
        &format!("greeter = {{ git = \"{url}\", branch = \"a/b+c\" }}"),
    );
    let branch_store = env.with_store(&env.root().join("branch-store"));
    compiled_once(&branch_store, &branch, "hello");
    let first = tiny_with(&env, &format!("greeter = {{ git = \"{url}\" }}"));
    compiled_once(&env, &first, "hello");

    // Another commit is another package.
    edit(&greeter.path("build.rs"), "hello", "goodbye");
    git(
        &greeter.dir,
        &["commit", "--quiet", "--all", "--message=new"],
    );
    let third = twin(&env, &first);
    let _ = env
        .cargo(&third, &["update", "--package=greeter"])
        .success();
    let _ = env.quickbuild(&third, &["build"]).success();
    let printed = env.program(&third, "target/debug/tiny").success().stdout;
    assert!(printed.starts_with("goodbye"), "{printed}");
    env.assert_fresh(&third, &["build"]);
}

#[test]
fn a_vendored_dependency_is_compiled_once() {
    let env = TestEnv::new();
    let first = env.project("tiny");
    let vendored = env.cargo(&first, &["vendor"]).success();
    fs::create_dir(first.path(".cargo")).unwrap();
    fs::write(first.path(".cargo/config.toml"), vendored.stdout).unwrap();
    assert!(first.path("vendor/fnv/lib.rs").is_file());
    compiled_once(&env, &first, "leaf");

    // What is vendored may be edited, but not behind the back of its checksums:
    // Cargo refuses, and so do we.
    let change = |project: &Project| {
        let (from, to) = ("0xcbf29ce484222325", "0xcbf29ce484222326");
        edit(&project.path("vendor/fnv/lib.rs"), from, to);
    };
    let twins = [twin(&env, &first), twin(&env, &first)];
    twins.iter().for_each(change);
    let (ours, theirs) = (
        env.quickbuild(&twins[0], &["build"]),
        env.cargo(&twins[1], &["build"]),
    );
    assert_eq!(ours.code, theirs.code, "{ours}\n{theirs}");
}

/// As distributions patch what they vendor: the list of checksums is emptied, and
/// name, version and lock file stay as they were.
#[test]
fn a_vendored_package_that_was_edited_is_not_the_registrys() {
    let env = TestEnv::new();
    let from_registry = env.project("tiny");
    let _ = env.quickbuild(&from_registry, &["build"]).success();

    let vendored = env.project("tiny");
    let config = env.cargo(&vendored, &["vendor"]).success().stdout;
    fs::create_dir(vendored.path(".cargo")).unwrap();
    fs::write(vendored.path(".cargo/config.toml"), config).unwrap();
    let sums = vendored.path("vendor/fnv/.cargo-checksum.json");
    let text = fs::read_to_string(&sums).unwrap();
    let (files, package) = (
        text.find("\"files\"").unwrap(),
        text.find("\"package\"").unwrap(),
    );
    fs::write(
        &sums,
        format!("{}\"files\":{{}},{}", &text[..files], &text[package..]),
    )
    .unwrap();
    let library = vendored.path("vendor/fnv/lib.rs");
    let text = fs::read_to_string(&library).unwrap();
    fs::write(&library, format!("{text}\npub const EDITED: u8 = 1;\n")).unwrap();
    edit(
        &vendored.path("tiny/src/main.rs"),
        "leaf::WORD",
        "fnv::EDITED",
    );
    let _ = env.quickbuild(&vendored, &["build"]).success();
    let printed = env.program(&vendored, "target/debug/tiny").success().stdout;
    assert!(printed.starts_with("1 "), "{printed}");
    let _ = env.quickbuild(&from_registry, &["build"]).nothing_built();
}

#[test]
fn a_dependency_from_an_alternative_registry_is_compiled_once() {
    let env = TestEnv::new();
    let env = env.with_another_cargo_home();
    let greeter = env.project("greeter");
    let registry = Registry::new(&env);
    let files = ["build.rs", "src/lib.rs"];
    let texts = files.map(|file| fs::read_to_string(greeter.path(file)).unwrap());
    registry.publish("greeter", &[(files[0], &texts[0]), (files[1], &texts[1])]);

    let first = tiny_with(
        &env,
        "greeter = { version = \"0.1\", registry = \"private\" }",
    );
    registry.serve(&first.dir);
    compiled_once(&env, &first, "hello");
}
