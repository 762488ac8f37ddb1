//! Crates that broke other tools: C code, bindings in OUT_DIR, headers in
//! OUT_DIR, paths in search folders, rustc probes, libraries of the system,
//! the clock.

use std::process::{Command, Stdio};

use crate::support::{TestEnv, names, skipped};

const PRINTED: &str = r#"{"sqlite":42,"zstd":true,"bzip2":true,"digest":227,"pid":true}"#;

/// One function, so that the C code is compiled once.
#[test]
fn crates_phases() {
    let env = TestEnv::new();
    let first = env.project("crates");
    let cold = env.quickbuild(&first, &["build"]).success();
    assert_eq!(cold.summary().built, cold.summary().units, "{cold}");
    let _ = env.quickbuild(&first, &["build"]).nothing_built();
    env.assert_fresh(&first, &["build"]);

    // The build script of `libsqlite3-sys` asks for `CARGO_MANIFEST_DIR` when it
    // is compiled, and so may only be used with the Cargo home that it names.
    // What it did, compiling SQLite, is used all the same.
    let moved = env.with_another_cargo_home();
    for (env, built) in [(&env, 0), (&moved, 1), (&moved, 0)] {
        let other = env.checkout(&first);
        let built_here = env.quickbuild(&other, &["build"]).success();
        assert_eq!(built_here.summary().built, built, "{built_here}");
        env.assert_fresh(&other, &["build"]);
        let program = env.program(&other, "target/debug/crates").success();
        assert_eq!(program.stdout.trim(), PRINTED);
        let _ = env.quickbuild(&other, &["check"]).nothing_built();
        env.assert_fresh(&other, &["check"]);
    }
    clock(&env);
    system_library(&env);
}

/// `shadow-rs` writes the time of the build: a member that uses it is compiled
/// in each checkout, and nothing else is.
fn clock(env: &TestEnv) {
    let build = ["build", "-p", "stamp"];
    let first = env.project("crates");
    let _ = env.quickbuild(&first, &build).success();
    let second = env.checkout(&first);
    assert_eq!(env.built(&second, &build), names(["stamp"]));
    assert_eq!(
        env.program(&second, "target/debug/stamp")
            .success()
            .stdout
            .trim(),
        "stamp 0.1.0"
    );
    // Not more often than plain Cargo does.
    let twin = env.checkout(&first);
    let _ = env.cargo(&twin, &build).success();
    assert_eq!(env.stale(&second, &build), env.stale(&twin, &build));
}

fn system_library(env: &TestEnv) {
    let mut probe = Command::new("pkg-config");
    probe
        .args(["--exists", "libssl"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        assert!(skipped("libssl", "pkg-config does not find it"));
        return;
    }
    let build = ["build", "-p", "tls"];
    let first = env.project("crates");
    let _ = env.quickbuild(&first, &build).success();
    let second = env.checkout(&first);
    let _ = env.quickbuild(&second, &build).nothing_built();
    env.assert_fresh(&second, &build);
    assert_eq!(
        env.program(&second, "target/debug/tls")
            .success()
            .stdout
            .trim(),
        "tls true"
    );
}
