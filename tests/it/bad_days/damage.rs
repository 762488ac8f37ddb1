//! Damaged stores: what is broken is out, the rest serves.

use std::fs;
use std::path::{Path, PathBuf};

use super::{PRINTED, assert_prints, assert_works, filled};
use crate::support::{Project, TestEnv, set_time, walk};

/// All stored files, without manifests.
fn stored_files(env: &TestEnv) -> Vec<PathBuf> {
    let files = walk(&env.store().join("paths")).into_iter();
    let files: Vec<_> = files
        .filter(|path| path.file_name().unwrap() != "manifest.json")
        .collect();
    assert!(!files.is_empty(), "nothing is stored");
    files
}

fn manifests(env: &TestEnv) -> Vec<PathBuf> {
    let files = walk(&env.store().join("paths")).into_iter();
    files
        .filter(|path| path.file_name().unwrap() == "manifest.json")
        .collect()
}

/// A fresh file in place of the old one, so that target directories that share
/// the inode are left alone.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The same length, every byte another.
fn spoil(path: &Path) {
    let bytes: Vec<u8> = fs::read(path)
        .unwrap()
        .iter()
        .map(|byte| byte ^ 0x55)
        .collect();
    replace(path, &bytes);
}

/// A new checkout is built rightly, and the checkout after that from the store
/// only: what was damaged has been replaced.
#[track_caller]
fn assert_heals(env: &TestEnv, first: &Project) {
    assert_heals_after(env, first, "the damage");
}

#[track_caller]
fn assert_heals_after(env: &TestEnv, first: &Project, damage: &str) {
    let second = env.checkout(first);
    assert_works(env, &second);
    let third = env.checkout(first);
    let build = env.quickbuild(&third, &["build"]).success();
    assert_eq!(build.summary().built, 0, "after {damage}: {build}");
    assert_prints(env, &third, PRINTED);
    env.assert_fresh(&third, &["build"]);
    assert_works(env, first);
}

#[test]
fn changed_bytes_are_not_used() {
    let env = TestEnv::new();
    let first = filled(&env);
    stored_files(&env).iter().for_each(|path| spoil(path));
    assert_heals(&env, &first);
}

#[test]
fn a_file_cut_short_is_not_used() {
    let env = TestEnv::new();
    let first = filled(&env);
    for path in stored_files(&env) {
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let bytes = fs::read(&path).unwrap();
        replace(&path, &bytes[..bytes.len() / 2]);
        // Empty files stay as they are.
        set_time(&path, time);
    }
    assert_heals(&env, &first);
}

/// Size and time are as they were: nobody can see it without reading all.
/// `store verify` reads all; `store repair` takes out what is wrong.
#[test]
fn changed_bytes_with_the_old_time_are_found_by_verify() {
    let env = TestEnv::new();
    let first = filled(&env);
    let _ = env.quickbuild(&first, &["store", "verify"]).success();
    for path in stored_files(&env) {
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        spoil(&path);
        set_time(&path, time);
    }
    let verify = env.quickbuild(&first, &["store", "verify"]);
    assert_eq!(verify.code, Some(1), "{verify}");
    let _ = env.quickbuild(&first, &["store", "repair"]);
    assert_heals(&env, &first);
}

#[test]
fn files_that_are_gone_are_not_used() {
    let env = TestEnv::new();
    let first = filled(&env);
    for path in stored_files(&env) {
        fs::remove_file(path).unwrap();
    }
    assert_heals(&env, &first);
}

/// A copy of a store that was broken off: folders without their manifests.
#[test]
fn paths_without_manifest_are_not_used() {
    let env = TestEnv::new();
    let first = filled(&env);
    for manifest in manifests(&env) {
        fs::remove_file(manifest).unwrap();
    }
    assert_heals(&env, &first);
}

#[test]
fn manifests_that_are_no_manifests_are_not_used() {
    for junk in ["", "{", "{\"format\":1}", "\u{0}\u{0}\u{0}\u{0}", "[]"] {
        let env = TestEnv::new();
        let first = filled(&env);
        for manifest in manifests(&env) {
            replace(&manifest, junk.as_bytes());
        }
        assert_heals_after(&env, &first, &format!("{junk:?} as manifests"));
    }
}

/// All that the store keeps beside the outputs.
#[test]
fn junk_in_the_indexes_is_passed_over() {
    for folder in ["index", "units", "cache", "roots"] {
        for junk in ["", "junk\n../../../etc/passwd\n", "{\"format\":1}"] {
            let env = TestEnv::new();
            let first = filled(&env);
            for path in walk(&env.store().join(folder)) {
                replace(&path, junk.as_bytes());
            }
            if folder == "index" {
                // Libraries name the folder of their checkout, so a checkout
                // that compiled them again has other ones, and the program that
                // it links to them says nothing about the stored one. The next
                // checkout uses the stored libraries and finds the program.
                assert_works(&env, &env.checkout(&first));
            }
            assert_heals_after(&env, &first, &format!("{junk:?} in {folder}"));
        }
    }
}

/// An output that is damaged after it was linked does no harm to the checkout
/// that has it, and one that is linked by a state that lies is found out.
#[test]
fn junk_in_the_state_of_a_target_directory_is_passed_over() {
    let env = TestEnv::new();
    let project = filled(&env);
    for path in walk(&project.path("target/.quickbuild")) {
        if path.is_symlink() {
            continue;
        }
        replace(&path, b"{\"format\":1,\"units\":7}");
        assert_works(&env, &project);
    }
    fs::remove_dir_all(project.path("target/.quickbuild")).unwrap();
    assert_works(&env, &project);
    let _ = env.quickbuild(&project, &["build"]).nothing_built();
}

/// A store of the future is left alone; Cargo builds.
#[test]
fn a_store_of_a_newer_format_is_left_alone() {
    let env = TestEnv::new();
    let first = filled(&env);
    fs::write(env.store().join("format"), "999\n").unwrap();
    let before = walk(&env.store());
    let second = env.checkout(&first);
    let build = env.quickbuild(&second, &["build"]).success();
    assert!(
        build.stderr.contains("format"),
        "no word about the format: {build}"
    );
    assert_prints(&env, &second, PRINTED);
    env.assert_fresh(&second, &["build"]);
    assert_eq!(walk(&env.store()), before);
}
