//! What a container makes of a workspace.

use super::{assert_nothing_left, realised, with_builder, with_nightly_builder};
use crate::support::{Project, TestEnv, edit, git, nightly};

#[test]
fn what_a_container_made_is_fresh_elsewhere_and_made_once() {
    let Some(env) = with_builder() else { return };
    let project = env.project("workspace");
    let first = realised(&env, &project, &["--", "--workspace"]);
    assert_eq!(first["missing"], serde_json::json!([]), "{first}");
    let made = first["added"].as_array().unwrap().len();
    assert_eq!(first["valid"], made, "{first}");
    assert_eq!(made, 2, "{first}");
    assert_nothing_left(&env);
    let _ = env.quickbuild(&project, &["store", "verify"]).success();
    assert_serves_another_user(&env, &project);

    // Valid already.
    let again = realised(&env, &project, &["--", "--workspace"]);
    assert_eq!(again["valid"], made, "{again}");
    assert_eq!(again["added"], serde_json::json!([]), "{again}");
    assert_eq!(again["seconds"], 0.0, "{again}");

    // One leaf more is one package more.
    let wider = env.project("workspace");
    edit(
        &wider.path("base/Cargo.toml"),
        "[dependencies]",
        "[dependencies]\nfnv = \"1\"",
    );
    let _ = env.cargo(&wider, &["update", "--workspace"]).success();
    let more = realised(&env, &wider, &["--", "--workspace"]);
    let added = more["added"].as_array().unwrap();
    let added: Vec<&str> = added.iter().map(|name| name.as_str().unwrap()).collect();
    assert!(added.iter().any(|name| name.contains("-fnv-")), "{more}");
}

/// Another user: another Cargo home, another checkout, all three commands.
#[track_caller]
fn assert_serves_another_user(env: &TestEnv, project: &Project) {
    let other = env.with_another_cargo_home();
    for command in ["build", "check", "clippy"] {
        let checkout = other.checkout(project);
        let own = other.built(&checkout, &[command, "--workspace"]);
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let members = ["app", "base", "common", "derive", "native-sys"];
        assert!(
            own.iter().all(|name| members.contains(name)),
            "{command}: {own:?}"
        );
        other.assert_fresh(&checkout, &[command, "--workspace"]);
    }
}

#[test]
fn a_container_with_a_folder_for_each_unit_serves_others_too() {
    let Some(env) = with_nightly_builder() else {
        return;
    };
    let project = env.project("workspace");
    let made = realised(&env, &project, &["--", "--workspace"]);
    assert_eq!(made["missing"], serde_json::json!([]), "{made}");
    assert_eq!(made["added"].as_array().unwrap().len(), 2, "{made}");
    assert_nothing_left(&env);
    let _ = env.quickbuild(&project, &["store", "verify"]).success();
    assert_serves_another_user(&env, &project);
}

#[test]
fn two_containers_make_the_same() {
    let Some(env) = with_builder() else { return };
    let project = env.project("tiny");
    let outcome = env
        .quickbuild(&project, &["realise", "--builder", "docker", "--check"])
        .success();
    assert!(outcome.stdout.contains("0 files differ, 0 of"), "{outcome}");
    assert_nothing_left(&env);
}

#[test]
fn the_local_builder_makes_what_is_fresh_and_says_that_it_is_local() {
    let env = TestEnv::new();
    let project = env.project("workspace");
    let outcome = env
        .quickbuild(
            &project,
            &["realise", "--builder", "local", "--", "--workspace"],
        )
        .success();
    assert!(outcome.stdout.contains("0 units without"), "{outcome}");
    let listed = env
        .quickbuild(&project, &["store", "list", "--format", "json"])
        .success();
    assert!(!listed.stdout.contains("image:"), "{listed}");
    let other = env.with_another_cargo_home();
    let checkout = other.checkout(&project);
    let own = other.built(&checkout, &["build", "--workspace"]);
    assert!(!own.contains("itoa"), "{own:?}");
    other.assert_fresh(&checkout, &["build", "--workspace"]);
    let left: Vec<_> = std::fs::read_dir(env.store().join("tmp"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_local_builder_knows_the_per_unit_layout() {
    let Some(env) = nightly(&TestEnv::new()) else {
        crate::support::skipped("nightly", "that toolchain is not installed");
        return;
    };
    let project = env.project("tiny");
    let _ = env
        .quickbuild(&project, &["realise", "--builder", "local"])
        .success();
    let checkout = env.checkout(&project);
    let own = env.built(&checkout, &["build"]);
    assert!(!own.contains("fnv"), "{own:?}");
    env.assert_fresh(&checkout, &["build"]);
}

#[test]
fn git_packages_are_realised_by_commit() {
    let Some(env) = with_builder() else { return };
    // A Cargo home of its own, whose checkout is edited below.
    let env = env.with_another_cargo_home();
    let greeter = env.project("greeter");
    git(&greeter.dir, &["init", "--quiet", "--initial-branch=main"]);
    git(&greeter.dir, &["add", "--all"]);
    git(&greeter.dir, &["commit", "--quiet", "--message=all"]);
    let project = env.project("tiny");
    let dependency = format!("greeter = {{ git = \"file://{}\" }}", greeter.dir.display());
    edit(
        &project.path("tiny/Cargo.toml"),
        "fnv = \"1\"",
        &format!("fnv = \"1\"\n{dependency}"),
    );
    let _ = env.cargo(&project, &["update", "--workspace"]).success();
    let made = realised(&env, &project, &[]);
    let added = made["added"].to_string();
    assert!(added.contains("-greeter-0.1.0"), "{made}");
    let own = env.built(&project, &["build"]);
    assert_eq!(own, crate::support::names(["helper", "leaf", "tiny"]));
    env.assert_fresh(&project, &["build"]);

    // A checkout that somebody has edited is not that commit.
    let checkouts = env.root().join("other-cargo-home/git/checkouts");
    let sources = crate::support::walk(&checkouts);
    let source = sources.iter().find(|path| path.ends_with("src/lib.rs"));
    std::fs::write(source.unwrap(), "pub const WORD: &str = \"edited\";").unwrap();
    let env = env.with_store(&env.root().join("another-store"));
    let outcome = env.quickbuild(&project, &["realise", "--builder", "docker"]);
    assert_eq!(outcome.code, Some(3), "{outcome}");
    assert!(outcome.stderr.contains("is not the commit"), "{outcome}");
}
