//! Settings that change what is compiled, or by whom.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::{TestEnv, edit, nightly, skipped};

/// With `--target` host and target units are apart, and so are their folders.
#[test]
fn a_target_platform_has_units_of_its_own() {
    let env = TestEnv::new();
    let first = env.project("workspace");
    let version = env.cargo(&first, &["version", "--verbose"]).success();
    let host = version
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("host: "));
    let build = ["build", "--target", host.unwrap()];
    let cold = env.quickbuild(&first, &build).success();
    assert_eq!(cold.summary().built, cold.summary().units, "{cold}");

    let second = env.checkout(&first);
    let _ = env.quickbuild(&second, &build).nothing_built();
    env.assert_fresh(&second, &build);
    let program = format!("target/{}/debug/app", host.unwrap());
    let there = env.program(&first, &program).success().stdout;
    assert_eq!(env.program(&second, &program).success().stdout, there);
    // Only what is compiled for the host is the same without it.
    let plain = env.quickbuild(&second, &["build"]).success();
    assert!(plain.summary().built > 0, "{plain}");
    env.assert_fresh(&second, &["build"]);
    env.assert_fresh(&second, &build);
}

/// The user's wrapper sees what is compiled, and nothing else.
#[test]
fn a_wrapper_of_the_users_own_goes_on_working() {
    let env = TestEnv::new();
    let log = env.root().join("wrapped");
    let wrapper = env.root().join("wrapper.sh");
    let script = format!(
        "#!/bin/sh\ncase $* in *'--crate-name ___'*) ;; *--crate-name*) echo $# >> '{}';; esac\nexec \"$@\"\n",
        log.display()
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let wrapped = env.with("RUSTC_WRAPPER", wrapper.to_str().unwrap());
    let calls = || fs::read_to_string(&log).unwrap_or_default().lines().count();

    let first = wrapped.project("tiny");
    let cold = wrapped.quickbuild(&first, &["build"]).success();
    assert_eq!(cold.summary().built, cold.summary().units, "{cold}");
    assert!(calls() > 0, "the wrapper was not called");
    wrapped.assert_fresh(&first, &["build"]);

    let before = calls();
    let second = wrapped.checkout(&first);
    let _ = wrapped.quickbuild(&second, &["build"]).nothing_built();
    wrapped.assert_fresh(&second, &["build"]);
    assert_eq!(calls(), before, "something was compiled");
    edit(&second.path("tiny/src/main.rs"), "println!(", "print!(");
    let _ = wrapped.quickbuild(&second, &["build"]).success();
    assert!(
        calls() > before,
        "the change was compiled without the wrapper"
    );
}

/// In the legacy layout Cargo gives the `cdylib` of a path package no unit id
/// in its file name.
#[test]
fn dynamic_libraries_are_compiled_once() {
    let env = TestEnv::new();
    for crate_types in [
        r#"["cdylib"]"#,
        r#"["cdylib", "rlib"]"#,
        r#"["dylib"]"#,
        r#"["staticlib", "rlib"]"#,
    ] {
        let library = |project: &crate::support::Project| {
            let manifest = project.path("leaf/Cargo.toml");
            let text = fs::read_to_string(&manifest).unwrap();
            let lib = format!("{text}\n[lib]\ncrate-type = {crate_types}\n");
            fs::write(manifest, lib).unwrap();
        };
        let build = ["build", "--package=leaf"];
        let first = env.project("tiny");
        library(&first);
        let cold = env.quickbuild(&first, &build).success();
        assert_eq!(cold.summary().built, 1, "{crate_types}: {cold}");
        let second = env.checkout(&first);
        library(&second);
        let warm = env.quickbuild(&second, &build).success();
        assert_eq!(warm.summary().from_store, 1, "{crate_types}: {warm}");
        env.assert_fresh(&second, &build);
    }
}

/// What is compiled counts as built, whether it is kept or not.
#[test]
fn what_is_not_kept_counts_as_built() {
    let env = TestEnv::new();
    let project = env.project("tiny");
    let _ = env.cargo(&project, &["build"]).success();
    edit(&project.path("leaf/src/lib.rs"), "\"leaf\"", "\"tree\"");
    // The store is empty, so nothing can be proved to be compiled against it.
    let build = env.quickbuild(&project, &["build", "--verbose"]).success();
    assert_eq!(build.summary().built, 2, "{build}");
    assert!(build.stderr.contains("stays out of the store"), "{build}");
}

/// Another compiler has outputs of its own, however it is chosen: what one has
/// compiled would be an error to the other.
#[test]
fn a_configured_compiler_has_outputs_of_its_own() {
    let env = TestEnv::new();
    if nightly(&env).is_none() {
        assert!(skipped("nightly", "rustup has no nightly toolchain"));
        return;
    }
    let mut which = Command::new("rustup");
    let compiler = which
        .args(["which", "--toolchain", "nightly", "rustc"])
        .output();
    let compiler = String::from_utf8(compiler.unwrap().stdout).unwrap();
    let first = env.project("tiny");
    let _ = env.quickbuild(&first, &["build"]).success();
    let second = env.checkout(&first);
    fs::create_dir(second.path(".cargo")).unwrap();
    let config = format!("[build]\nrustc = \"{}\"\n", compiler.trim());
    fs::write(second.path(".cargo/config.toml"), config).unwrap();
    for command in ["build", "check"] {
        let other = env.quickbuild(&second, &[command]).success();
        assert_eq!(
            other.summary().from_store > 0,
            command == "check",
            "{other}"
        );
        env.assert_fresh(&second, &[command]);
    }
    let _ = env.quickbuild(&first, &["check"]).nothing_built();
    env.assert_fresh(&first, &["check"]);
}
