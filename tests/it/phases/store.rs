//! Nothing that Cargo does in a target directory reaches the store.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::support::{Project, Snapshot, TestEnv, edit, names, nightly, skipped, touch, walk};

#[test]
fn plain_cargo_never_writes_to_the_store() {
    plain_cargo(&TestEnv::new());
}

#[test]
fn plain_cargo_never_writes_to_the_store_with_a_folder_for_each_unit() {
    let env = TestEnv::new();
    match nightly(&env) {
        Some(env) => plain_cargo(&env),
        None => assert!(skipped("nightly", "rustup has no nightly toolchain")),
    }
}

fn plain_cargo(env: &TestEnv) {
    let first = env.project("workspace");
    let _ = env.quickbuild(&first, &["build"]).success();
    let linked = env.checkout(&first);
    let _ = env.quickbuild(&linked, &["build"]).nothing_built();
    let before = Snapshot::of(&env.store());

    // The same names, other bytes.
    let other_flags = env.with("RUSTFLAGS", "--cfg fixture -C codegen-units=3");
    let _ = other_flags.cargo(&linked, &["build"]).success();
    before.assert_kept(&env.store());
    let _ = env.cargo(&linked, &["build"]).success();

    // A library that is gone.
    for library in libraries(&linked, "base") {
        fs::remove_file(library).unwrap();
    }
    let _ = env.cargo(&linked, &["build"]).success();
    before.assert_kept(&env.store());

    // A member that was edited; build scripts that run again in their OUT_DIR.
    edit(&linked.path("base/src/lib.rs"), "itoa::", "::itoa::");
    touch(&linked.path("base/build.rs"));
    touch(&linked.path("native-sys/build.rs"));
    let _ = env.cargo(&linked, &["build"]).success();
    before.assert_kept(&env.store());
    // And the whole folder, cleaned.
    let _ = env.cargo(&linked, &["clean"]).success();
    before.assert_kept(&env.store());

    // What is in the store still serves.
    let third = env.checkout(&first);
    let _ = env.quickbuild(&third, &["build"]).nothing_built();
    env.assert_fresh(&third, &["build"]);
}

/// The store holds on to the programs of a target directory. Some linkers write
/// into the file that is there; Cargo makes way for them only where it links the
/// result to another name, so for programs and not for tests.
#[test]
fn a_linker_that_writes_in_place_reaches_no_other_checkout() {
    const TEST: [&str; 2] = ["test", "--no-run"];
    let env = TestEnv::new();
    let env = env.with("RUSTFLAGS", format!("-Clinker={}", in_place_linker(&env)));
    let first = env.project("tiny");
    let _ = env.quickbuild(&first, &TEST).success();
    let second = env.checkout(&first);
    let _ = env.quickbuild(&second, &TEST).nothing_built();
    let original = programs(&second);

    let source = first.path("tiny/src/main.rs");
    let text = fs::read_to_string(&source).unwrap();
    let changed = format!("{text}\n#[test]\nfn changed() {{}}\n");
    fs::write(&source, &changed).unwrap();
    let _ = env.quickbuild(&first, &TEST).success();
    assert_ne!(programs(&first), original);
    assert_eq!(programs(&second), original);
    // The version before is still in the store.
    let third = env.checkout(&second);
    let _ = env.quickbuild(&third, &TEST).nothing_built();
    assert_eq!(programs(&third), original);

    // Plain Cargo has no wrapper that makes way: what the store held on to is
    // gone, and nobody gets something else instead.
    fs::write(&source, changed.replace("changed", "once_more")).unwrap();
    let _ = env.cargo(&first, &TEST).success();
    fs::write(third.path("tiny/src/main.rs"), &changed).unwrap();
    let outcome = env.quickbuild(&third, &["test"]).success();
    assert_eq!(outcome.summary().built, 1, "{outcome:?}");
    assert!(
        outcome.stdout.contains("test changed ... ok"),
        "{outcome:?}"
    );
    assert_eq!(programs(&second), original);
}

/// What is in the executables below a project's `deps/`.
fn programs(project: &Project) -> Vec<Vec<u8>> {
    let files = walk(&project.path("target/debug/deps")).into_iter();
    let programs = files.filter(|path| path.extension().is_none());
    let found: Vec<_> = programs.map(|path| fs::read(path).unwrap()).collect();
    assert!(!found.is_empty(), "no program in {project:?}");
    found
}

/// A program that links as `cc` does, but into the file that is there.
fn in_place_linker(env: &TestEnv) -> String {
    let script = "#!/bin/sh\n\
        set -e\n\
        for word; do [ \"$before\" = -o ] && out=$word; before=$word; done\n\
        [ ! -f \"$out\" ] || mv \"$out\" \"$out.old\"\n\
        cc \"$@\"\n\
        [ ! -f \"$out.old\" ] || { cat \"$out\" >\"$out.old\"; mv \"$out.old\" \"$out\"; }\n";
    let path = env.root().join("in-place-linker");
    fs::write(&path, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).unwrap();
    path.display().to_string()
}

/// The `.rlib` files of a crate in the project's target directory.
fn libraries(project: &Project, crate_name: &str) -> Vec<std::path::PathBuf> {
    let prefix = format!("lib{crate_name}-");
    let files = walk(&project.path("target")).into_iter();
    let found: Vec<_> = files
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            // The per-unit layout has no id in some names.
            (name.starts_with(&prefix) || name == format!("lib{crate_name}.rlib"))
                && name.ends_with(".rlib")
        })
        .collect();
    assert!(!found.is_empty(), "no library of {crate_name}");
    found
}

/// Plain Cargo compiles a change, quickbuild takes over from there.
#[test]
fn quickbuild_goes_on_after_plain_cargo() {
    let env = TestEnv::new();
    let project = env.project("workspace");
    let _ = env.quickbuild(&project, &["build"]).success();
    for library in libraries(&project, "base") {
        fs::remove_file(library).unwrap();
    }
    let _ = env.quickbuild(&project, &["build"]).nothing_built();
    env.assert_fresh(&project, &["build"]);

    edit(
        &project.path("base/src/lib.rs"),
        "itoa::Buffer",
        "::itoa::Buffer",
    );
    assert_eq!(env.stale(&project, &["build"]), names(["app", "base"]));
    let _ = env.quickbuild(&project, &["build"]).success();
    env.assert_fresh(&project, &["build"]);
    assert!(
        env.program(&project, "target/debug/app")
            .success()
            .stdout
            .contains("hello")
    );

    // What it compiles from now on goes into the store as ever.
    edit(
        &project.path("base/src/lib.rs"),
        "::itoa::Buffer",
        "crate::itoa_again::Buffer",
    );
    edit(
        &project.path("base/src/lib.rs"),
        "pub fn features",
        "use itoa as itoa_again;\n\npub fn features",
    );
    assert_eq!(env.built(&project, &["build"]), names(["app", "base"]));
    let _ = env.quickbuild(&project, &["build"]).nothing_built();
}

/// A project that plain Cargo has built before quickbuild came: nothing is
/// compiled again, and other checkouts profit once something was compiled.
#[test]
fn quickbuild_takes_over_a_target_directory_of_plain_cargo() {
    let env = TestEnv::new();
    let project = env.project("workspace");
    let _ = env.cargo(&project, &["build"]).success();
    assert_eq!(env.built(&project, &["build"]), names([]));
    env.assert_fresh(&project, &["build"]);

    edit(
        &project.path("base/src/lib.rs"),
        "itoa::Buffer",
        "::itoa::Buffer",
    );
    assert_eq!(env.built(&project, &["build"]), names(["app", "base"]));
    env.assert_fresh(&project, &["build"]);
    assert!(
        env.program(&project, "target/debug/app")
            .success()
            .stdout
            .contains("hello")
    );
}

/// A detached target directory shares nothing, and stays Fresh.
#[test]
fn a_detached_target_has_its_own_copies() {
    let env = TestEnv::new();
    let first = env.project("tiny");
    let _ = env.quickbuild(&first, &["build"]).success();
    let second = env.checkout(&first);
    let _ = env.quickbuild(&second, &["build"]).nothing_built();
    let shared = |project: &Project| {
        let in_store: BTreeSet<u64> = walk(&env.store().join("paths")).iter().map(inode).collect();
        let files = walk(&project.path("target")).into_iter();
        files.filter(|file| in_store.contains(&inode(file))).count()
    };
    assert!(shared(&second) > 0, "nothing was shared before");

    let _ = env.quickbuild(&second, &["detach"]).success();
    assert_eq!(shared(&second), 0);
    env.assert_fresh(&second, &["build"]);
    let roots = fs::read_dir(env.store().join("roots")).unwrap().count();
    assert_eq!(roots, 1, "the store still counts the directory");
}

/// What was made on a newer system would not start here.
#[test]
fn an_output_for_a_newer_c_library_is_not_used() {
    let env = TestEnv::new();
    let first = env.project("tiny");
    let _ = env.quickbuild(&first, &["build"]).success();
    let mut needing = 0;
    for manifest in walk(&env.store().join("paths")) {
        if manifest.ends_with("manifest.json") {
            let text = fs::read_to_string(&manifest).unwrap();
            if let Some((start, rest)) = text.split_once("\"glibc\":\"") {
                let (_, end) = rest.split_once('"').unwrap();
                let newer = format!("{start}\"glibc\":\"99.0\"{end}");
                fs::write(&manifest, newer).unwrap();
                needing += 1;
            }
        }
    }
    assert!(needing > 0, "nothing here runs with the GNU C library");
    let second = env.checkout(&first);
    let plan = env.quickbuild(&second, &["plan"]).success();
    let reason = "the stored output needs GLIBC 99.0, and this system has ";
    assert!(plan.stdout.contains(reason), "{plan}");
    let build = env.quickbuild(&second, &["build"]).success();
    let summary = build.summary();
    assert!(summary.from_store < summary.units, "{build}");
    let program = env.program(&second, "target/debug/tiny").success();
    assert_eq!(program.stdout.trim(), "leaf 7 1");
    env.assert_fresh(&second, &["build"]);
}

fn inode(file: impl AsRef<std::path::Path>) -> u64 {
    fs::metadata(file).unwrap().ino()
}
