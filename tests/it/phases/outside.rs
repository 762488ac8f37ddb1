//! A path dependency outside the workspace's folder. Cargo hashes its absolute
//! path into the unit ids of all that depends on it, so another checkout has
//! other names for the same units, which have to be learned there.

use crate::support::{TestEnv, edit, names};

#[test]
fn a_library_outside_the_workspace_is_compiled_once() {
    let env = TestEnv::new();
    let first = env.project("outside");
    let cold = env.quickbuild(&first, &["build"]).success();
    assert_eq!(cold.summary().built, cold.summary().units, "{cold}");
    let _ = env.quickbuild(&first, &["build"]).nothing_built();
    env.assert_fresh(&first, &["build"]);

    let second = env.checkout(&first);
    let warm = env.quickbuild(&second, &["build"]).success();
    // At least the count has to be right: what Cargo compiles is not "from the
    // store" (Cargo says "Compiling" for what the wrapper serves, too).
    let summary = warm.summary();
    assert_eq!(summary.from_store + summary.built, summary.units, "{warm}");
    env.assert_fresh(&second, &["build"]);
    let _ = env.quickbuild(&second, &["build"]).nothing_built();
    assert_eq!(
        env.program(&second, "target/debug/project")
            .success()
            .stdout
            .trim(),
        "outside"
    );
}

/// Whatever is remembered of the first checkout must not be taken for the
/// second one's.
#[test]
fn libraries_outside_two_checkouts_are_not_confused() {
    let env = TestEnv::new();
    let first = env.project("outside");
    let _ = env.quickbuild(&first, &["build"]).success();
    let second = env.checkout(&first);
    edit(&second.path("../library/src/lib.rs"), "outside", "another");
    let _ = env.quickbuild(&second, &["build"]).success();
    assert_eq!(
        env.program(&second, "target/debug/project")
            .success()
            .stdout
            .trim(),
        "another"
    );
    env.assert_fresh(&second, &["build"]);
    let _ = env.quickbuild(&second, &["build"]).nothing_built();

    edit(&second.path("../library/src/lib.rs"), "another", "a third");
    assert_eq!(
        env.built(&second, &["build"]),
        names(["library", "project"])
    );
    assert_eq!(
        env.program(&second, "target/debug/project")
            .success()
            .stdout
            .trim(),
        "a third"
    );
    let _ = env.quickbuild(&second, &["build"]).nothing_built();
    // The first is as it was.
    let _ = env.quickbuild(&first, &["build"]).nothing_built();
    assert_eq!(
        env.program(&first, "target/debug/project")
            .success()
            .stdout
            .trim(),
        "outside"
    );
}
