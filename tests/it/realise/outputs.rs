//! How outputs get out of a container, and which do.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::relay::Relay;
use super::{REALISE, assert_nothing_left, parsed, project_with_package, realised, with_builder};
use crate::support::{Mount, TestEnv, skipped, walk};

/// A library that compiles in what its build script has made.
const LIBRARY: &str =
    r#"pub const SECRET: &str = include_str!(concat!(env!("OUT_DIR"), "/secret"));"#;

/// Makes a file that only its owner may read, and a program.
const PRIVATE: &str = r#"
use std::os::unix::fs::PermissionsExt;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let out = std::env::var("OUT_DIR").unwrap();
    for (name, mode) in [("secret", 0o600), ("program", 0o755)] {
        let path = format!("{out}/{name}");
        std::fs::write(&path, "private").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}
"#;

/// The folder of the engine's volumes on this machine.
fn volumes() -> PathBuf {
    let mut docker = Command::new("docker");
    docker.args(["info", "--format", "{{.DockerRootDir}}"]);
    let root = String::from_utf8(docker.output().unwrap().stdout).unwrap();
    PathBuf::from(root.trim()).join("volumes")
}

/// Whether the engine was asked for an archive of files.
fn has_packed(relay: &Relay) -> bool {
    relay.asked("GET", "/archive?") > 0
}

/// What lies within reach is moved. Elsewhere, as with an engine on another
/// machine, it comes through the engine's archive calls; it is the same.
#[test]
fn outputs_are_moved_where_they_are_in_reach() {
    let Some(env) = with_builder() else { return };
    let relay = Relay::start();
    let env = env.with("DOCKER_HOST", relay.host());
    let files = [("build.rs", PRIVATE), ("src/lib.rs", LIBRARY)];
    let project = project_with_package(&env, "private", &files);
    let near = realised(&env, &project, &[]);
    assert_eq!(near["missing"], json!([]), "{near}");
    assert!(relay.asked("PUT", "/archive?") > 0, "the relay saw nothing");
    assert!(!has_packed(&relay), "outputs were packed");
    assert_private(&env, &near);
    assert_nothing_left(&env);

    let far = env.with_store(&env.root().join("far"));
    let Some(outcome) = far.quickbuild_without(&volumes(), &project, &REALISE) else {
        skipped("mount", "this process may not mount a tmpfs");
        return;
    };
    let answer = parsed(outcome);
    assert!(has_packed(&relay), "outputs were not packed");
    assert_eq!(near["added"], answer["added"]);
    assert_private(&far, &answer);
    assert_nothing_left(&far);
}

/// A store on another file system than the engine's gets copies.
#[test]
fn a_store_on_another_device_gets_the_same() {
    let Some(env) = with_builder() else { return };
    let files = [("build.rs", PRIVATE), ("src/lib.rs", LIBRARY)];
    let project = project_with_package(&env, "private", &files);
    let Some(disk) = Mount::new(env.root().join("disk"), "300m") else {
        return;
    };
    let relay = Relay::start();
    let far = env.with_store(&disk.path().join("store"));
    let far = far.with("DOCKER_HOST", relay.host());
    let made = realised(&far, &project, &[]);
    assert_eq!(made["missing"], json!([]), "{made}");
    assert!(!has_packed(&relay), "outputs were packed");
    assert_private(&far, &made);
    assert_nothing_left(&far);
    let same = realised(&env, &project, &[]);
    assert_eq!(same["added"], made["added"]);
}

/// All is whole and this user's, and can be read by all who may use the store;
/// what was private is so for others, too, where it is put into place.
#[track_caller]
fn assert_private(env: &TestEnv, made: &Value) {
    let project = env.project("tiny");
    let _ = env.quickbuild(&project, &["store", "verify"]).success();
    let user = std::fs::metadata("/proc/self").unwrap().uid();
    let mut modes = Vec::new();
    for path in walk(&env.store().join("paths")) {
        let found = std::fs::symlink_metadata(&path).unwrap();
        assert!(found.is_file(), "{path:?}");
        assert_eq!(found.uid(), user, "{path:?}");
        assert_eq!(found.mode() & 0o7022, 0, "{path:?}");
        if std::fs::read(&path).unwrap() == b"private" {
            modes.push(found.mode() & 0o777);
        }
    }
    modes.sort_unstable();
    assert_eq!(modes, [0o600, 0o755], "{made}");
}

/// A program that would run as whoever has built it gets nowhere; the rest does.
#[test]
fn set_user_id_files_stay_in_the_container() {
    let Some(env) = with_builder() else { return };
    let script = PRIVATE.replace("0o755", "0o4755");
    let files = [("build.rs", script.as_str()), ("src/lib.rs", LIBRARY)];
    let project = project_with_package(&env, "setting", &files);
    let made = realised(&env, &project, &[]);
    let missing = made["missing"].to_string();
    assert!(missing.contains("set-user-id file"), "{made}");
    assert!(made["added"].to_string().contains("-fnv-"), "{made}");
    for path in walk(&env.store().join("paths")) {
        let mode = std::fs::symlink_metadata(&path).unwrap().permissions();
        assert_eq!(
            mode,
            Permissions::from_mode(mode.mode() & !0o7000),
            "{path:?}"
        );
    }
    assert_nothing_left(&env);
}
