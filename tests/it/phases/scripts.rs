//! What build scripts say, beyond what the fixtures' own say.

use crate::support::{TestEnv, edit};

/// `target-lexicon` does this, and with it all of pyo3: the compiler gets a
/// feature that the package does not have.
#[test]
fn features_set_by_build_scripts_are_no_other_unit() {
    let env = TestEnv::new();
    let prints = |project: &crate::support::Project| {
        edit(
            &project.path("helper/build.rs"),
            "println!(",
            "println!(\"cargo:rustc-cfg=feature=\\\"from_script\\\"\");\n    println!(",
        );
    };
    let first = env.project("tiny");
    prints(&first);
    let cold = env.quickbuild(&first, &["build"]).success();
    assert_eq!(cold.summary().built, cold.summary().units, "{cold}");
    let second = env.checkout(&first);
    prints(&second);
    let _ = env.quickbuild(&second, &["build"]).nothing_built();
    env.assert_fresh(&second, &["build"]);
}
