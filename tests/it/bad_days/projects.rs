//! Projects that Cargo refuses: the exit code and the words are Cargo's.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{PRINTED, assert_prints, assert_works, filled};
use crate::support::{Project, TestEnv, edit};

/// Runs both in twin checkouts; the code and the messages must agree.
#[track_caller]
fn assert_like_cargo(env: &TestEnv, change: impl Fn(&Project), arguments: &[&str]) {
    let twins = [env.project("tiny"), env.project("tiny")];
    twins.iter().for_each(&change);
    let plain = env.cargo(&twins[0], arguments);
    let ours = env.quickbuild(&twins[1], arguments);
    let neutral = |outcome: &crate::support::Outcome, project: &Project| {
        let folder = project.dir.to_str().unwrap();
        let lines = outcome.diagnostics();
        lines
            .iter()
            .map(|line| line.replace(folder, "@"))
            .collect::<Vec<_>>()
    };
    let expected = (plain.code, neutral(&plain, &twins[0]));
    assert_eq!(
        (ours.code, neutral(&ours, &twins[1])),
        expected,
        "{ours}\n{plain}"
    );
}

#[test]
fn refused_projects_are_refused_in_cargos_words() {
    let env = TestEnv::new();
    let _ = filled(&env);
    let append = |project: &Project, file: &str, text: &str| {
        let path = project.path(file);
        let old = fs::read_to_string(&path).unwrap();
        fs::write(path, old + text).unwrap();
    };
    // A manifest that is none, a lock that is none, a dependency that is none,
    // a program that does not compile, a build script that fails.
    assert_like_cargo(
        &env,
        |p| append(p, "Cargo.toml", "\n[workspace\n"),
        &["build"],
    );
    assert_like_cargo(&env, |p| append(p, "Cargo.lock", "\njunk\n"), &["build"]);
    assert_like_cargo(
        &env,
        |p| append(p, "tiny/Cargo.toml", "gone = { path = \"../gone\" }\n"),
        &["build"],
    );
    assert_like_cargo(
        &env,
        |p| append(p, "tiny/src/main.rs", "fn f() -> u8 { \"\" }\n"),
        &["build"],
    );
    assert_like_cargo(
        &env,
        |p| append(p, "leaf/src/lib.rs", "fn f() -> u8 { \"\" }\n"),
        &["build"],
    );
    assert_like_cargo(
        &env,
        |p| append(p, "helper/build.rs", "#[used] static F: fn() = main;"),
        &["build"],
    );
    let fail = "fn main() { println!(\"seen\"); std::process::exit(7) }";
    assert_like_cargo(
        &env,
        |p| fs::write(p.path("helper/build.rs"), fail).unwrap(),
        &["build"],
    );
    assert_like_cargo(
        &env,
        |p| fs::remove_file(p.path("tiny/src/main.rs")).unwrap(),
        &["build"],
    );
    // Arguments that Cargo does not know, packages that are not there.
    assert_like_cargo(&env, |_| {}, &["build", "--no-such-flag"]);
    assert_like_cargo(&env, |_| {}, &["build", "-p", "nobody"]);
    assert_like_cargo(&env, |_| {}, &["build", "--features", "nothing"]);
    assert_like_cargo(&env, |_| {}, &["build", "--profile", "nothing"]);
    assert_like_cargo(
        &env,
        |p| fs::remove_file(p.path("Cargo.lock")).unwrap(),
        &["build", "--locked"],
    );
    assert_like_cargo(
        &env,
        |p| fs::remove_file(p.path("Cargo.toml")).unwrap(),
        &["build"],
    );
}

#[test]
fn exit_codes_of_programs_and_tests_are_passed_on() {
    let env = TestEnv::new();
    let exits = |p: &Project| {
        edit(
            &p.path("tiny/src/main.rs"),
            "println!",
            "std::process::exit(42); println!",
        );
    };
    assert_like_cargo(&env, exits, &["run"]);
    let aborts = |p: &Project| {
        edit(
            &p.path("tiny/src/main.rs"),
            "println!",
            "std::process::abort(); println!",
        );
    };
    assert_like_cargo(&env, aborts, &["run"]);
    let fails = |p: &Project| {
        edit(
            &p.path("leaf/src/lib.rs"),
            "pub const",
            "#[test]\nfn fails() { panic!() }\npub const",
        );
    };
    assert_like_cargo(&env, fails, &["test", "-p", "leaf", "-q"]);
}

/// Everything after `--` is the program's or the test runner's.
#[test]
fn arguments_of_programs_and_tests_are_passed_on() {
    let env = TestEnv::new();
    let echoes = |p: &Project| {
        let source = p.path("tiny/src/main.rs");
        edit(
            &source,
            "println!(",
            "eprintln!(\"{:?}\", std::env::args().skip(1).collect::<Vec<_>>());\n    println!(",
        );
    };
    assert_like_cargo(&env, echoes, &["run", "--", "-v", "--release", "--", "x y"]);
    assert_like_cargo(&env, echoes, &["run", "plain", "words"]);
    assert_like_cargo(&env, |_| {}, &["test", "--", "--list"]);
    assert_like_cargo(&env, |_| {}, &["test", "--", "--no-such-flag"]);
}

/// What was compiled before the error is kept, and used after it is mended.
#[test]
fn an_error_in_one_package_keeps_the_others() {
    let env = TestEnv::new();
    let project = env.project("tiny");
    edit(
        &project.path("tiny/src/main.rs"),
        "println!",
        "no_such_macro!",
    );
    let _ = env.quickbuild(&project, &["build"]).failure();
    edit(
        &project.path("tiny/src/main.rs"),
        "no_such_macro!",
        "println!",
    );
    let mended = env.quickbuild(&project, &["build"]).success();
    assert_eq!(mended.summary().built, 1, "{mended}");
    assert_prints(&env, &project, PRINTED);
    let other = env.checkout(&project);
    let _ = env.quickbuild(&other, &["build"]).nothing_built();
    assert_works(&env, &other);
}

#[test]
fn a_lock_file_is_made_as_cargo_makes_it() {
    let env = TestEnv::new();
    let twins = [env.project("tiny"), env.project("tiny")];
    for twin in &twins {
        fs::remove_file(twin.path("Cargo.lock")).unwrap();
    }
    let _ = env.cargo(&twins[0], &["build"]).success();
    let _ = env.quickbuild(&twins[1], &["build"]).success();
    let lock = |project: &Project| fs::read_to_string(project.path("Cargo.lock")).unwrap();
    assert_eq!(lock(&twins[0]), lock(&twins[1]));
    assert_works(&env, &twins[1]);
    let third = env.checkout(&twins[0]);
    let _ = env.quickbuild(&third, &["build"]).nothing_built();
}

/// Values of `--config` on the command line count for Cargo and for us.
#[test]
fn configuration_on_the_command_line_is_kept_apart() {
    let env = TestEnv::new();
    let project = filled(&env);
    let optimised = ["build", "--config", "profile.dev.opt-level=1"];
    let first = env.quickbuild(&project, &optimised).success();
    assert!(first.summary().built > 0, "{first}");
    env.assert_fresh(&project, &optimised);
    let other = env.checkout(&project);
    let _ = env.quickbuild(&other, &optimised).nothing_built();
    env.assert_fresh(&other, &optimised);
    let _ = env.quickbuild(&other, &["build"]).nothing_built();
    env.assert_fresh(&other, &["build"]);
}

/// A Cargo that builds, but cannot say what: nothing is kept, and that is said.
#[test]
fn a_cargo_that_does_not_tell_its_plan_is_named() {
    let env = TestEnv::new();
    let project = env.project("tiny");
    let script = env.root().join("cargo");
    let text = "#!/bin/sh\n\
        case \"$*\" in *--unit-graph*) echo 'error: no such thing' >&2; exit 101;; esac\n\
        exec cargo \"$@\"\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let other = env.with("CARGO", script.to_str().unwrap());
    let built = other.quickbuild(&project, &["build"]).success();
    assert!(
        built.stderr.contains("no such thing; Cargo ran alone"),
        "{built}"
    );
    assert_eq!(built.stderr.matches("warning:").count(), 1, "{built}");
    env.assert_fresh(&project, &["build"]);
    // Where Cargo fails as well, it has said why.
    fs::write(project.path("Cargo.toml"), "[workspace\n").unwrap();
    let broken = other.quickbuild(&project, &["build"]);
    assert_eq!(broken.code, Some(101), "{broken}");
    assert!(!broken.stderr.contains("Cargo ran alone"), "{broken}");
}
