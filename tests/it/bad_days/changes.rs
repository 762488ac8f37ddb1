//! Sources and variables that change, change back, or only seem to change.

use std::time::{Duration, UNIX_EPOCH};

use super::{PRINTED, assert_prints, filled};
use crate::support::{TestEnv, edit, names, set_time, touch, walk};

#[test]
fn a_variable_read_by_a_library_changes() {
    let env = TestEnv::new();
    let project = filled(&env);
    let other = env.with("FIXTURE_WORD", "blossom");
    assert_eq!(other.built(&project, &["build"]), names(["leaf", "tiny"]));
    assert_prints(&env, &project, "blossom 7 1");
    other.assert_fresh(&project, &["build"]);
    // The value is part of what is stored; both are there now.
    let _ = env.quickbuild(&project, &["build"]).nothing_built();
    assert_prints(&env, &project, PRINTED);
    env.assert_fresh(&project, &["build"]);
    let second = other.checkout(&project);
    let _ = other.quickbuild(&second, &["build"]).nothing_built();
    assert_prints(&env, &second, "blossom 7 1");
    other.assert_fresh(&second, &["build"]);
}

/// The same length and within the same second, so that only content tells.
#[test]
fn sources_go_back_and_forth() {
    let env = TestEnv::new();
    let project = filled(&env);
    let source = project.path("tiny/src/main.rs");
    for round in 0..3 {
        edit(&source, "{} {} {}", "{};{};{}");
        let build = env.quickbuild(&project, &["build"]).success();
        assert_prints(&env, &project, "leaf;7;1");
        assert_eq!(build.summary().built, usize::from(round == 0), "{build}");
        env.assert_fresh(&project, &["build"]);
        edit(&source, "{};{};{}", "{} {} {}");
        let _ = env.quickbuild(&project, &["build"]).nothing_built();
        assert_prints(&env, &project, PRINTED);
        env.assert_fresh(&project, &["build"]);
    }
}

/// With plain Cargo in turns: what it leaves is never taken for ours.
#[test]
fn sources_go_back_and_forth_with_plain_cargo_in_between() {
    let env = TestEnv::new();
    let project = filled(&env);
    let source = project.path("helper/src/lib.rs");
    for (from, to, printed) in [
        ("\"))", "\")) + 1", "leaf 8 1"),
        ("\")) + 1", "\"))", PRINTED),
    ]
    .repeat(2)
    {
        edit(&source, from, to);
        let _ = env.cargo(&project, &["build"]).success();
        assert_prints(&env, &project, printed);
        let _ = env.quickbuild(&project, &["build"]).success();
        assert_prints(&env, &project, printed);
        env.assert_fresh(&project, &["build"]);
    }
    // A change that quickbuild sees first.
    edit(&source, "\"))", "\")) + 1");
    let _ = env.quickbuild(&project, &["build"]).success();
    assert_prints(&env, &project, "leaf 8 1");
}

#[test]
fn touched_files_are_not_changed_files() {
    let env = TestEnv::new();
    let project = filled(&env);
    for file in [
        "leaf/src/lib.rs",
        "helper/build.rs",
        "tiny/src/main.rs",
        "tiny/Cargo.toml",
        "Cargo.lock",
    ] {
        touch(&project.path(file));
        let _ = env.quickbuild(&project, &["build"]).nothing_built();
        env.assert_fresh(&project, &["build"]);
    }
    assert_prints(&env, &project, PRINTED);
}

/// An archive that was unpacked with its times: content decides, not age.
#[test]
fn an_old_source_with_other_content_is_compiled() {
    let env = TestEnv::new();
    let first = filled(&env);
    let second = env.checkout(&first);
    let source = second.path("leaf/src/lib.rs");
    edit(&source, "\"leaf\"", "\"fael\"");
    let year_2001 = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    set_time(&source, year_2001);
    assert_eq!(env.built(&second, &["build"]), names(["leaf", "tiny"]));
    assert_prints(&env, &second, "fael 7 1");
    env.assert_fresh(&second, &["build"]);
}

/// A clock that was ahead when the project was written. Plain Cargo compiles
/// such a source each time, and is right even if the time stays the same.
#[test]
fn sources_from_the_future_are_compiled_when_they_change() {
    let tomorrow = std::time::SystemTime::now() + Duration::from_secs(86_400);
    for later in [1, 0] {
        let env = TestEnv::new();
        let first = filled(&env);
        let second = env.checkout(&first);
        let source = second.path("leaf/src/lib.rs");
        set_time(&source, tomorrow);
        let _ = env.quickbuild(&second, &["build"]).success();
        assert_prints(&env, &second, PRINTED);
        edit(&source, "\"leaf\"", "\"fael\"");
        set_time(&source, tomorrow + Duration::from_secs(later));
        let _ = env.quickbuild(&second, &["build"]).success();
        assert_prints(&env, &second, "fael 7 1");
    }
}

/// All files of one time, as from an archive, a container image or a clone that
/// took less than a tick of the clock. Which of them Cargo names as the newest
/// of a package without `rerun-if` lines is its own order of listing.
#[test]
fn files_of_one_time_run_no_build_script_again() {
    let env = TestEnv::new();
    let project = env.project("workspace");
    let set_all = |project: &crate::support::Project| {
        let time = std::time::SystemTime::now() - Duration::from_secs(60);
        walk(&project.dir)
            .iter()
            .for_each(|file| set_time(file, time));
    };
    set_all(&project);
    let _ = env.quickbuild(&project, &["build"]).success();
    env.assert_fresh(&project, &["build"]);
    let check = env.quickbuild(&project, &["check"]).success();
    assert_eq!(check.summary().built, 0, "{check}");
    let second = env.checkout(&project);
    set_all(&second);
    let _ = env.quickbuild(&second, &["build"]).nothing_built();
    env.assert_fresh(&second, &["build"]);
}
