//! `clippy`, `check` and `build` share artefacts, but not messages.

use crate::support::{Outcome, TestEnv};

/// Of rustc.
const UNUSED: &str = "unused variable: `unused`";
/// Of clippy.
const NEEDLESS: &str = "unneeded `return` statement";

#[track_caller]
fn assert_messages(outcome: &Outcome, rustc: bool, clippy: bool) {
    assert_eq!(outcome.stderr.contains(UNUSED), rustc, "{outcome}");
    assert_eq!(outcome.stderr.contains(NEEDLESS), clippy, "{outcome}");
}

#[test]
fn check_after_clippy_compiles_nothing_and_prints_no_clippy_lints() {
    let env = TestEnv::new();
    let first = env.project("lints");
    let clippy = env.quickbuild(&first, &["clippy"]).success();
    assert_messages(&clippy, true, true);

    let check = env.quickbuild(&first, &["check"]).nothing_built();
    assert_messages(&check, true, false);
    env.assert_fresh(&first, &["check"]);
    // Both replay what belongs to them, whoever asks.
    assert_messages(&env.cargo(&first, &["check"]).success(), true, false);
    assert_messages(&env.cargo(&first, &["clippy"]).success(), true, true);
    env.assert_fresh(&first, &["clippy"]);

    let second = env.checkout(&first);
    let check = env.quickbuild(&second, &["check"]).nothing_built();
    assert_messages(&check, true, false);
    env.assert_fresh(&second, &["check"]);
    let clippy = env.quickbuild(&second, &["clippy"]).nothing_built();
    assert_messages(&clippy, true, true);
    env.assert_fresh(&second, &["clippy"]);
}

#[test]
fn clippy_after_check_lints_members_only() {
    let env = TestEnv::new();
    let project = env.project("lints");
    let check = env.quickbuild(&project, &["check"]).success();
    assert_messages(&check, true, false);
    // Members have to be linted; what they depend on has not.
    let clippy = env.quickbuild(&project, &["clippy"]).success();
    assert_messages(&clippy, true, true);
    let summary = clippy.summary();
    assert_eq!((summary.from_store, summary.built), (1, 2), "{clippy}");
}

#[test]
fn lint_levels_given_to_clippy_are_kept_apart() {
    let env = TestEnv::new();
    let first = env.project("lints");
    let denied = ["clippy", "--", "-D", "clippy::needless_return"];
    let denied = env.quickbuild(&first, &denied).failure();
    assert_messages(&denied, true, true);
    let clippy = env.quickbuild(&first, &["clippy"]).success();
    assert_messages(&clippy, true, true);
    let allowed = ["clippy", "--", "-A", "clippy::needless_return"];
    assert_messages(&env.quickbuild(&first, &allowed).success(), true, false);
    let second = env.checkout(&first);
    assert_messages(&env.quickbuild(&second, &["clippy"]).success(), true, true);
    assert_messages(&env.quickbuild(&second, &allowed).success(), true, false);
}

/// Exit codes and messages, cold and warm, are those of plain Cargo.
#[test]
fn messages_are_those_of_plain_cargo() {
    // With `test` alone, library and test executable have the same warning, and
    // which of the two Cargo calls the duplicate is chance.
    let commands: [&[&str]; 4] = [&["build"], &["check"], &["clippy"], &["test", "--tests"]];
    for command in commands {
        let env = TestEnv::new();
        let plain = env.cargo(&env.project("lints"), command);
        let expected = (plain.code, plain.diagnostics());
        let first = env.project("lints");
        for (when, project) in [
            ("cold", &first),
            ("noop", &first),
            ("warm", &env.checkout(&first)),
        ] {
            let ours = env.quickbuild(project, command);
            let found = (ours.code, ours.diagnostics());
            assert_eq!(found, expected, "{when} {command:?}: {ours}\n{plain}");
        }
    }
}
