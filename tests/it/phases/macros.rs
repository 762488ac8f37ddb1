//! Procedural macros that read files and variables of which rustc and Cargo
//! hear nothing: another checkout may have others.

use std::fs;

use crate::support::{Project, TestEnv};

#[track_caller]
fn prints(env: &TestEnv, project: &Project, expected: &str) {
    let program = env.program(project, "target/debug/app").success();
    assert_eq!(program.stdout.trim(), expected);
}

#[test]
fn what_a_macro_reads_is_an_input() {
    let env = TestEnv::new();
    let first = env.project("macros");
    let _ = env.quickbuild(&first, &["build"]).success();
    prints(&env, &first, "one");
    let same = env.checkout(&first);
    let _ = env.quickbuild(&same, &["build"]).nothing_built();
    prints(&env, &same, "one");

    let changed = env.checkout(&first);
    fs::write(changed.path("app/words/a.txt"), "two").unwrap();
    let _ = env.quickbuild(&changed, &["build"]).success();
    prints(&env, &changed, "two");

    let more = env.checkout(&first);
    fs::write(more.path("app/words/b.txt"), "more").unwrap();
    let _ = env.quickbuild(&more, &["build"]).success();
    prints(&env, &more, "one more");

    let suffixed = env.with("FIXTURE_SUFFIX", "end");
    let other = suffixed.checkout(&first);
    let _ = suffixed.quickbuild(&other, &["build"]).success();
    prints(&env, &other, "one end");

    // Each is kept for whoever has the same.
    let again = env.checkout(&first);
    fs::write(again.path("app/words/b.txt"), "more").unwrap();
    let _ = env.quickbuild(&again, &["build"]).nothing_built();
    prints(&env, &again, "one more");
}
