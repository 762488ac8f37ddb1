//! Realisations that are cancelled or killed, and engines that go away.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::relay::Relay;
use super::{assert_nothing_left, listed, project_with_script, with_builder};
use crate::support::{Mount, Project, TestEnv};

const SLEEPY: &str = r#"fn main() { std::thread::sleep(std::time::Duration::from_secs(300)); }"#;

/// Starts a realisation and waits until its container runs.
fn started(env: &TestEnv, project: &Project) -> Child {
    let child = env.spawn_quickbuild(project, &["realise", "--builder", "docker"]);
    let give_up = Instant::now() + Duration::from_secs(120);
    while listed(env, "container", &["--filter", "status=running"]).is_empty() {
        assert!(Instant::now() < give_up, "no container was started");
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    let sent = kill
        .arg(format!("-{name}"))
        .arg(child.id().to_string())
        .status();
    assert!(sent.unwrap().success());
}

#[test]
fn ctrl_c_removes_everything() {
    let Some(env) = with_builder() else { return };
    let project = project_with_script(&env, "sleepy", SLEEPY);
    let child = started(&env, &project);
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("cancelled"), "{stderr}");
    assert_nothing_left(&env);
}

#[test]
fn what_a_killed_realisation_left_is_removed_by_the_next() {
    let Some(env) = with_builder() else { return };
    let project = project_with_script(&env, "sleepy", SLEEPY);
    let mut child = started(&env, &project);
    signal(&child, "KILL");
    let _ = child.wait().unwrap();
    assert!(!listed(&env, "container", &[]).is_empty());
    let plain = env.project("tiny");
    let next = env
        .quickbuild(&plain, &["realise", "--builder", "docker"])
        .success();
    assert!(
        next.stderr.contains("that were killed are removed"),
        "{next}"
    );
    assert_nothing_left(&env);
}

#[test]
fn an_engine_that_goes_away_is_an_error_and_swept_later() {
    let Some(env) = with_builder() else { return };
    let relay = Relay::start();
    let through = env.with("DOCKER_HOST", relay.host());
    let project = project_with_script(&through, "sleepy", SLEEPY);
    let child = started(&through, &project);
    relay.cut();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("the container engine cannot"), "{stderr}");
    let plain = env.project("tiny");
    let _ = env
        .quickbuild(&plain, &["realise", "--builder", "docker"])
        .success();
    assert_nothing_left(&env);
}

/// While it is being given files, more of them than the connection holds.
#[test]
fn an_engine_that_goes_away_while_files_come_is_an_error() {
    let Some(env) = with_builder() else { return };
    let project = env.project("tiny");
    let realise = ["realise", "--builder", "docker"];
    for bytes in [100_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000] {
        let relay = Relay::for_bytes(bytes);
        let through = env.with("DOCKER_HOST", relay.host());
        let outcome = through.quickbuild(&project, &realise);
        assert_eq!(outcome.code, Some(3), "{bytes}: {outcome}");
        let said = "the container engine cannot";
        assert!(outcome.stderr.contains(said), "{bytes}: {outcome}");
    }
    let _ = env.quickbuild(&project, &realise).success();
    assert_nothing_left(&env);
}

/// Wherever it is in what it does when the room is used up.
#[test]
fn a_store_without_room_is_a_clear_error_and_nothing_is_left() {
    let Some(env) = with_builder() else { return };
    for size in ["64k", "400k"] {
        let Some(disk) = Mount::new(env.root().join(format!("disk-{size}")), size) else {
            return;
        };
        let env = env.with_store(&disk.path().join("store"));
        let project = env.project("workspace");
        let command = ["realise", "--builder", "docker", "--", "--workspace"];
        let outcome = env.quickbuild(&project, &command);
        assert_eq!(outcome.code, Some(3), "{size}: {outcome}");
        assert!(
            outcome.stderr.contains("No space left"),
            "{size}: {outcome}"
        );
        assert_nothing_left(&env);
        let paths = std::fs::read_dir(env.store().join("paths"));
        assert_eq!(paths.map_or(0, Iterator::count), 0, "{size}");
    }
}

#[test]
fn without_an_engine_the_error_says_so_and_nothing_is_built() {
    let env = TestEnv::new().with("DOCKER_HOST", "tcp://127.0.0.1:1");
    let project = env.project("tiny");
    let outcome = env.quickbuild(&project, &["realise", "--builder", "docker"]);
    assert_eq!(outcome.code, Some(3), "{outcome}");
    assert!(
        outcome.stderr.contains("no container engine answers"),
        "{outcome}"
    );
    assert!(outcome.stderr.contains("--builder local"), "{outcome}");
    // Where nobody asked for a container, this machine does it.
    let outcome = env.quickbuild(&project, &["realise"]).success();
    assert!(
        outcome.stderr.contains("building on this machine"),
        "{outcome}"
    );
    assert!(outcome.stdout.contains("0 units without"), "{outcome}");
}
