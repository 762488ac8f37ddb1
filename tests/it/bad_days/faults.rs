//! The end at any point: `QUICKBUILD_FAULT=kill@n` ends the process at its n-th
//! change to the file system, `fail@n` makes that and all later ones fail as on
//! a full device (`src/fs/fault.rs`). The wrapper, a process of its own, counts
//! for itself.

use std::process::Command;

use super::{PRINTED, assert_prints, assert_works, filled};
use crate::support::{Outcome, Project, TestEnv};

/// More changes than one build of `tiny` makes.
const ENOUGH: usize = 2_000;

/// 1, 2, 3, 4, 5, 6, 8, 10, 13, 17 …: every one at first, then a third more.
fn steps() -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), |n| Some(n + (n / 3).max(1))).take_while(|n| *n < ENOUGH)
}

/// An environment whose store is a copy of another's.
fn with_copied_store(from: &TestEnv) -> TestEnv {
    let env = TestEnv::new();
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(from.store()).arg(env.store());
    assert!(copy.status().unwrap().success());
    env
}

/// Runs `build` for each step with the fault, in a fresh checkout with a fresh
/// environment, until a run gets through. Returns the step that did.
fn until_unharmed(
    kind: &str,
    fresh: impl Fn() -> TestEnv,
    unharmed: impl Fn(&Outcome) -> bool,
) -> usize {
    for n in steps() {
        let env = fresh();
        let project = env.project("tiny");
        let faulty = env.with("QUICKBUILD_FAULT", format!("{kind}@{n}"));
        let outcome = faulty.quickbuild(&project, &["build"]);
        let through = unharmed(&outcome);
        aftermath(&env, &project, &format!("{kind}@{n}: {outcome}"));
        if through {
            return n;
        }
    }
    panic!("{kind}: not one run got through");
}

/// After a fault: plain Cargo builds, quickbuild recovers, and what is in the
/// store is good for others.
fn aftermath(env: &TestEnv, project: &Project, when: &str) {
    let plain = env.cargo(project, &["build"]);
    assert_eq!(plain.code, Some(0), "plain Cargo after {when}\n{plain}");
    let program = env.program(project, "target/debug/tiny").success();
    assert_eq!(program.stdout.trim(), PRINTED, "after {when}");
    let again = env.quickbuild(project, &["build"]);
    assert_eq!(again.code, Some(0), "quickbuild after {when}\n{again}");
    let stale = env.stale(project, &["build"]);
    assert!(
        stale.is_empty(),
        "plain Cargo compiled {stale:?} after {again}\nafter {when}"
    );

    let other = env.checkout(project);
    let elsewhere = env.quickbuild(&other, &["build"]);
    assert_eq!(
        elsewhere.code,
        Some(0),
        "another checkout after {when}\n{elsewhere}"
    );
    assert_prints(env, &other, PRINTED);
    let stale = env.stale(&other, &["build"]);
    assert!(
        stale.is_empty(),
        "plain Cargo compiled {stale:?} after {elsewhere}\nafter {when}"
    );
    let third = env.checkout(project);
    let last = env.quickbuild(&third, &["build"]);
    let summary = last.clone().success().summary();
    assert_eq!(
        summary.from_store, summary.units,
        "the store after {when}\n{last}"
    );
}

/// What fails on our side must not fail the build.
fn fails_no_build(outcome: &Outcome) -> bool {
    assert_eq!(outcome.code, Some(0), "{outcome}");
    !outcome.stderr.contains("warning: quickbuild")
        && outcome
            .summary_line()
            .is_some_and(|s| s.built + s.from_store == s.units)
}

#[test]
fn killed_while_compiling_and_harvesting() {
    let last = until_unharmed("kill", TestEnv::new, |outcome| outcome.code == Some(0));
    assert!(last > 20, "only {last} changes: the fault was not at work");
}

#[test]
fn killed_while_linking() {
    let full = TestEnv::new();
    let _ = filled(&full);
    let fresh = || with_copied_store(&full);
    let last = until_unharmed("kill", fresh, |outcome| outcome.code == Some(0));
    assert!(last > 20, "only {last} changes: the fault was not at work");
}

#[test]
fn a_full_device_while_compiling_and_harvesting() {
    let _ = until_unharmed("fail", TestEnv::new, fails_no_build);
}

#[test]
fn a_full_device_while_linking() {
    let full = TestEnv::new();
    let _ = filled(&full);
    let _ = until_unharmed("fail", || with_copied_store(&full), fails_no_build);
}

/// An edit in an existing target directory: some units are replaced, and what
/// was there before must not pass for what is wanted now.
#[test]
fn killed_while_replacing() {
    for n in steps() {
        let env = TestEnv::new();
        let project = filled(&env);
        let words = env.with("FIXTURE_WORD", "blossom");
        let killed = words.with("QUICKBUILD_FAULT", format!("kill@{n}"));
        let outcome = killed.quickbuild(&project, &["build"]);
        let plain = words.cargo(&project, &["build"]).success();
        let program = env.program(&project, "target/debug/tiny").success();
        assert_eq!(
            program.stdout.trim(),
            "blossom 7 1",
            "after kill@{n}: {outcome}\n{plain}"
        );

        let killed = env.with("QUICKBUILD_FAULT", format!("kill@{n}"));
        let back = killed.quickbuild(&project, &["build"]);
        let plain = env.cargo(&project, &["build"]).success();
        let program = env.program(&project, "target/debug/tiny").success();
        assert_eq!(
            program.stdout.trim(),
            PRINTED,
            "after kill@{n}: {back}\n{plain}"
        );
        assert_works(&env, &project);
        if outcome.code == Some(0) && back.code == Some(0) {
            return;
        }
    }
    panic!("not one run got through");
}
