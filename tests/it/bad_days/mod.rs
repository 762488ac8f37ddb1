//! Damage, full and read-only disks, kills, locks, broken projects, two
//! processes at once.
//!
//! Two rules are on trial: a failure of quickbuild never fails a build, and
//! what comes out is never wrong. So each test ends with the program's output
//! and with plain Cargo.

mod changes;
mod damage;
mod disks;
mod faults;
mod projects;
mod together;

use crate::support::{Project, TestEnv};

/// What the fixture `tiny` prints.
const PRINTED: &str = "leaf 7 1";

#[track_caller]
fn assert_prints(env: &TestEnv, project: &Project, printed: &str) {
    let outcome = env.program(project, "target/debug/tiny").success();
    assert_eq!(outcome.stdout.trim(), printed, "{outcome}");
}

/// Whatever happened before: quickbuild builds, the program is right, plain
/// Cargo finds all Fresh.
#[track_caller]
fn assert_works(env: &TestEnv, project: &Project) {
    let _ = env.quickbuild(project, &["build"]).success();
    assert_prints(env, project, PRINTED);
    env.assert_fresh(project, &["build"]);
}

/// A store that has everything of `tiny`, and the project that filled it.
fn filled(env: &TestEnv) -> Project {
    let project = env.project("tiny");
    let cold = env.quickbuild(&project, &["build"]).success();
    assert_eq!(cold.summary().built, cold.summary().units, "{cold}");
    project
}
