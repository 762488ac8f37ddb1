//! Disks that are full or read-only, and folders that are not folders.

use std::fs;
use std::process::Command;

use super::{PRINTED, assert_prints, assert_works, filled};
use crate::support::{Mount, TestEnv, edit, names};

/// On another file system than the projects, too: everything is copied.
#[test]
fn a_read_only_store_serves_and_takes_nothing() {
    let env = TestEnv::new();
    let Some(disk) = Mount::new(env.root().join("disk"), "200m") else {
        return;
    };
    let env = env.with_store(&env.root().join("disk/store"));
    let first = filled(&env);
    disk.remount("ro");

    let second = env.checkout(&first);
    let _ = env.quickbuild(&second, &["build"]).nothing_built();
    assert_prints(&env, &second, PRINTED);
    env.assert_fresh(&second, &["build"]);

    edit(&second.path("leaf/src/lib.rs"), "\"leaf\"", "\"fael\"");
    assert_eq!(env.built(&second, &["build"]), names(["leaf", "tiny"]));
    assert_prints(&env, &second, "fael 7 1");
    env.assert_fresh(&second, &["build"]);

    edit(&second.path("leaf/src/lib.rs"), "\"fael\"", "\"leaf\"");
    assert_works(&env, &second);
}

/// Where the file system has reflinks, executables take no room either, and
/// are files of their own all the same.
#[test]
fn executables_are_reflinks_where_there_are_any() {
    let env = TestEnv::new();
    let Some(disk) = Mount::with_reflinks(env.root().join("disk")) else {
        return;
    };
    let env = env.with_store(&disk.path().join("store"));
    let target =
        |name: &str| env.with("CARGO_TARGET_DIR", disk.path().join(name).to_str().unwrap());
    let (first, second) = (target("first"), target("second"));
    let project = filled(&first);
    let _ = second.quickbuild(&project, &["build"]).nothing_built();
    second.assert_fresh(&project, &["build"]);

    let program = disk.path().join("second/debug/tiny");
    let mut extents = Command::new("filefrag");
    let listed = extents.arg("-v").arg(&program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let extents: Vec<&str> = listed.lines().filter(|line| line.contains("..")).collect();
    assert!(!extents.is_empty(), "{listed}");
    assert!(
        extents.iter().all(|extent| extent.contains("shared")),
        "{listed}"
    );
    // Written to, as by a linker, it changes alone.
    fs::write(&program, "stripped").unwrap();
    let third = target("third");
    let _ = third.quickbuild(&project, &["build"]).nothing_built();
    let run = third.program(
        &project,
        disk.path().join("third/debug/tiny").to_str().unwrap(),
    );
    assert_eq!(run.success().stdout.trim(), PRINTED);
}

#[test]
fn a_full_store_fails_no_build_and_serves_again_with_more_room() {
    for size in ["16k", "64k", "400k", "1m"] {
        let env = TestEnv::new();
        let Some(disk) = Mount::new(env.root().join("disk"), size) else {
            return;
        };
        let env = env.with_store(&env.root().join("disk/store"));
        let first = env.project("tiny");
        assert_works(&env, &first);
        let second = env.checkout(&first);
        assert_works(&env, &second);

        disk.remount("size=200m");
        let third = env.checkout(&first);
        assert_works(&env, &third);
        let fourth = env.checkout(&first);
        let _ = env.quickbuild(&fourth, &["build"]).nothing_built();
        assert_prints(&env, &fourth, PRINTED);
        env.assert_fresh(&fourth, &["build"]);
    }
}

/// The disk of the projects is full, the store is not: Cargo's failure is ours,
/// and with more room all is well again.
#[test]
fn a_full_target_directory_fails_as_cargo_does() {
    let env = TestEnv::new();
    let first = filled(&env);
    let Some(disk) = Mount::new(env.root().join("disk"), "300k") else {
        return;
    };
    let elsewhere = env.with(
        "CARGO_TARGET_DIR",
        env.root().join("disk").to_str().unwrap(),
    );
    let _ = elsewhere.quickbuild(&first, &["build"]).failure();
    disk.remount("size=200m");
    let _ = elsewhere.quickbuild(&first, &["build"]).success();
    elsewhere.assert_fresh(&first, &["build"]);
    let program = elsewhere.program(&first, "../../disk/debug/tiny").success();
    assert_eq!(program.stdout.trim(), PRINTED);
}

#[test]
fn a_read_only_target_directory_fails_as_cargo_does() {
    let env = TestEnv::new();
    let first = filled(&env);
    let Some(disk) = Mount::new(env.root().join("disk"), "200m") else {
        return;
    };
    disk.remount("ro");
    let elsewhere = env.with(
        "CARGO_TARGET_DIR",
        env.root().join("disk").to_str().unwrap(),
    );
    let plain = elsewhere.cargo(&first, &["build"]).failure();
    let ours = elsewhere.quickbuild(&first, &["build"]);
    assert_eq!(
        (ours.code, ours.diagnostics()),
        (plain.code, plain.diagnostics()),
        "{ours}\n{plain}"
    );
}

#[test]
fn stores_that_cannot_be_are_done_without() {
    let env = TestEnv::new();
    fs::write(env.root().join("file"), "no folder").unwrap();
    for store in ["file", "file/store", "/proc/store", "/dev/null"] {
        let env = env.with_store(&env.root().join(store));
        let project = env.project("tiny");
        assert_works(&env, &project);
        assert_works(&env, &project);
    }
}

/// The folder that quickbuild wants for itself is something else.
#[test]
fn its_own_folder_in_the_target_directory_is_done_without() {
    let env = TestEnv::new();
    let first = filled(&env);
    let second = env.checkout(&first);
    fs::create_dir(second.path("target")).unwrap();
    fs::write(second.path("target/.quickbuild"), "no folder").unwrap();
    assert_works(&env, &second);
    assert_works(&env, &second);
}
