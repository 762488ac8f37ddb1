//! Disks that are full or read-only, and folders that are not folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{PRINTED, assert_prints, assert_works, filled};
use crate::support::{TestEnv, edit, names, skipped};

/// A file system in memory; gone when dropped.
struct Mount(PathBuf);

impl Mount {
    /// Mounts one, if this process may.
    fn new(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let options = format!("size={size},mode=0755");
        if mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], &path) {
            return Some(Self(path));
        }
        assert!(skipped("mount", "this process may not mount a tmpfs"));
        None
    }

    #[track_caller]
    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(mount(&["-o", &options], &self.0), "cannot remount");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], path: &Path) -> bool {
    let mut command = Command::new("mount");
    command.args(arguments).arg(path).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

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
