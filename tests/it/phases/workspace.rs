//! Members, proc macros, build scripts with `links`, renamed and doubled
//! dependencies, unified features, in both layouts of `target/`.

use crate::support::{Project, TestEnv, edit, names, nightly, skipped};

/// What the program prints.
const SENTENCE: &str = "hello Greeter generated one+two 1 [value with spaces = and: signs] 4";

#[test]
fn workspace_phases_in_the_legacy_layout() {
    phases(&TestEnv::new());
}

#[test]
fn workspace_phases_with_a_folder_for_each_unit() {
    let env = TestEnv::new();
    match nightly(&env) {
        Some(env) => phases(&env),
        None => assert!(skipped("nightly", "rustup has no nightly toolchain")),
    }
}

#[track_caller]
fn assert_prints(env: &TestEnv, project: &Project, sentence: &str) {
    let outcome = env.program(project, "target/debug/app").success();
    assert_eq!(outcome.stdout.trim(), sentence);
}

fn phases(env: &TestEnv) {
    let first = env.project("workspace");
    cold_and_noop(env, &first);
    let second = env.checkout(&first);
    relocated(env, &second);
    other_target_dir(env, &second);
    changed_and_reverted(env, &second);
    changed_variable(env, &second);
    checked_after_build(env, &first);
    tested(env, &first);
    other_commands(env, &first);
}

fn cold_and_noop(env: &TestEnv, project: &Project) {
    let cold = env.quickbuild(project, &["build"]).success();
    let summary = cold.summary();
    assert_eq!(summary.from_store, 0, "{cold}");
    assert_eq!(summary.built, summary.units, "{cold}");
    assert_prints(env, project, SENTENCE);
    let _ = env.quickbuild(project, &["build"]).nothing_built();
    env.assert_fresh(project, &["build"]);
    let _ = env.quickbuild(project, &["build"]).nothing_built();
}

/// Another checkout, and then one with another CARGO_HOME.
fn relocated(env: &TestEnv, second: &Project) {
    let _ = env.quickbuild(second, &["build"]).nothing_built();
    env.assert_fresh(second, &["build"]);
    assert_prints(env, second, SENTENCE);
    let _ = env.quickbuild(second, &["build"]).nothing_built();

    let elsewhere = env.with_another_cargo_home();
    let third = elsewhere.checkout(second);
    let _ = elsewhere.quickbuild(&third, &["build"]).nothing_built();
    elsewhere.assert_fresh(&third, &["build"]);
    assert_prints(&elsewhere, &third, SENTENCE);
}

fn other_target_dir(env: &TestEnv, project: &Project) {
    let target = env.root().join("elsewhere/target");
    let elsewhere = env.with("CARGO_TARGET_DIR", target.to_str().unwrap());
    let _ = elsewhere.quickbuild(project, &["build"]).nothing_built();
    elsewhere.assert_fresh(project, &["build"]);

    let arguments = ["build", "--target-dir", "target/deeper"];
    let _ = env.quickbuild(project, &arguments).nothing_built();
    env.assert_fresh(project, &arguments);
}

fn changed_and_reverted(env: &TestEnv, project: &Project) {
    let source = project.path("base/src/lib.rs");
    edit(
        &source,
        "itoa::Buffer::new().format(value).to_owned()",
        "format!(\"<{value}>\")",
    );
    assert_eq!(env.built(project, &["build"]), names(["app", "base"]));
    assert_prints(env, project, &SENTENCE.replace(" 1 ", " <1> "));
    env.assert_fresh(project, &["build"]);
    let _ = env.quickbuild(project, &["build"]).nothing_built();

    edit(
        &source,
        "format!(\"<{value}>\")",
        "itoa::Buffer::new().format(value).to_owned()",
    );
    let _ = env.quickbuild(project, &["build"]).nothing_built();
    assert_prints(env, project, SENTENCE);
    env.assert_fresh(project, &["build"]);
}

/// A build script declares the variable; what depends on it is `app`.
fn changed_variable(env: &TestEnv, project: &Project) {
    let moin = env.with("FIXTURE_GREETING", "moin");
    assert_eq!(
        moin.built(project, &["build"]),
        names(["app", "native-sys"])
    );
    assert_prints(&moin, project, &SENTENCE.replace("hello", "moin"));
    moin.assert_fresh(project, &["build"]);

    let _ = env.quickbuild(project, &["build"]).nothing_built();
    assert_prints(env, project, SENTENCE);
    env.assert_fresh(project, &["build"]);

    let fresh = moin.checkout(project);
    let _ = moin.quickbuild(&fresh, &["build"]).nothing_built();
    assert_prints(&moin, &fresh, &SENTENCE.replace("hello", "moin"));
}

/// The bridge: `check` uses what `build` made, at once and elsewhere.
fn checked_after_build(env: &TestEnv, built: &Project) {
    let _ = env.quickbuild(built, &["check"]).nothing_built();
    env.assert_fresh(built, &["check"]);
    env.assert_fresh(built, &["build"]);
    let _ = env.quickbuild(built, &["check"]).nothing_built();

    let other = env.checkout(built);
    let _ = env.quickbuild(&other, &["check"]).nothing_built();
    env.assert_fresh(&other, &["check"]);
    let _ = env.quickbuild(&other, &["build"]).nothing_built();
    env.assert_fresh(&other, &["build"]);
    env.assert_fresh(&other, &["check"]);
}

/// Test executables and the tests themselves. An integration test has the path
/// of its program compiled in (`CARGO_BIN_EXE_app`): that of another checkout
/// would test the other checkout's program, so this one has to be compiled, and
/// nothing else.
fn tested(env: &TestEnv, project: &Project) {
    let _ = env.quickbuild(project, &["test", "--no-run"]).success();
    env.assert_fresh(project, &["test", "--no-run"]);
    let other = env.checkout(project);
    let build = env.quickbuild(&other, &["test", "--no-run", "--message-format=json"]);
    let build = build.success();
    assert_eq!(build.stale_targets(), names(["integration"]), "{build}");
    // The documentation tests are a unit, too, that is neither kept nor built.
    assert_eq!(build.summary().built, 1, "{build}");
    env.assert_fresh(&other, &["test", "--no-run"]);
    assert_eq!(env.built(&other, &["test", "--no-run"]), names([]));

    let tests = env.quickbuild(&other, &["test"]).success();
    assert_eq!(tests.summary().built, 0, "{tests}");
    assert!(tests.stdout.contains("has_a_name ... ok"), "{tests}");
    let integration = "the_binary_says_what_the_library_says ... ok";
    assert!(tests.stdout.contains(integration), "{tests}");
}

fn other_commands(env: &TestEnv, project: &Project) {
    let run = env.quickbuild(project, &["run"]).success();
    assert_eq!(run.stdout.trim(), SENTENCE);
    assert_eq!(run.summary().built, 0, "{run}");
    let second = env.checkout(project);
    let run = env.quickbuild(&second, &["run"]).success();
    assert_eq!(run.stdout.trim(), SENTENCE);
    let summary = run.summary();
    assert!(summary.units > 0, "{run}");
    assert_eq!(
        (summary.from_store, summary.built),
        (summary.units, 0),
        "{run}"
    );

    let _ = env
        .quickbuild(project, &["build", "--workspace", "--all-targets"])
        .success();
    let other = env.checkout(project);
    let all = ["build", "--workspace", "--all-targets"];
    let build = env.quickbuild(&other, &all).success();
    // The integration test, as above.
    let summary = build.summary();
    assert_eq!(
        (summary.units - summary.from_store, summary.built),
        (1, 1),
        "{build}"
    );
    env.assert_fresh(&other, &all);
    let demo = env.program(&other, "target/debug/examples/demo").success();
    assert_eq!(demo.stdout.trim(), format!("demo: {SENTENCE}"));

    let _ = env.quickbuild(project, &["build", "--release"]).success();
    let other = env.checkout(project);
    let _ = env
        .quickbuild(&other, &["build", "--release"])
        .nothing_built();
    env.assert_fresh(&other, &["build", "--release"]);
}
