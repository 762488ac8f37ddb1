//! Others at the same time.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Output};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{PRINTED, assert_prints, assert_works, filled};
use crate::support::{Project, TestEnv};

/// Long enough for any machine; only a deadlock takes longer.
const LIMIT: Duration = Duration::from_secs(180);

/// Waits for a process; one that hangs is a failure, and no hanging test.
#[track_caller]
fn end(mut child: Child) -> Output {
    let (sender, receiver) = mpsc::channel();
    let id = child.id();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::spawn(move || {
        let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            let mut bytes = Vec::new();
            pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            bytes
        };
        let stderr = stderr.map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>);
        let stdout = stdout.map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>);
        let errors = thread::spawn(move || read(stderr));
        let stdout = read(stdout);
        let stderr = errors.join().unwrap();
        let _ = sender.send(Output {
            status: child.wait().unwrap(),
            stdout,
            stderr,
        });
    });
    receiver
        .recv_timeout(LIMIT)
        .unwrap_or_else(|_| panic!("process {id} hangs"))
}

#[track_caller]
fn end_well(child: Child) {
    let output = end(child);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
}

fn start(env: &TestEnv, project: &Project) -> Child {
    env.spawn_quickbuild(project, &["build"])
}

/// Whether a process waits for a lock on a file (`proc(5)`, `/proc/locks`).
fn is_awaited(file: &File) -> bool {
    let inode = format!(":{} ", file.metadata().unwrap().ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks
        .lines()
        .any(|line| line.contains("->") && line.contains(&inode))
}

#[test]
fn another_cargo_is_waited_for() {
    let env = TestEnv::new();
    let first = filled(&env);
    let second = env.checkout(&first);
    fs::create_dir_all(second.path("target/debug")).unwrap();
    let lock = File::create(second.path("target/debug/.cargo-lock")).unwrap();
    lock.lock().unwrap();

    let mut waiting = start(&env, &second);
    let begin = Instant::now();
    while !is_awaited(&lock) {
        assert!(begin.elapsed() < LIMIT, "nobody waits for the lock");
        assert!(
            waiting.try_wait().unwrap().is_none(),
            "did not wait: {:?}",
            end(waiting)
        );
        thread::yield_now();
    }
    let files = fs::read_dir(second.path("target/debug")).unwrap().count();
    assert_eq!(files, 1, "something was written without the lock");
    lock.unlock().unwrap();
    end_well(waiting);
    assert_prints(&env, &second, PRINTED);
    env.assert_fresh(&second, &["build"]);
}

#[test]
fn two_in_one_checkout() {
    for round in 0..3 {
        let env = TestEnv::new();
        let project = env.project("tiny");
        if round == 2 {
            let _ = filled(&env); // both link
        }
        let both = [start(&env, &project), start(&env, &project)];
        both.into_iter().for_each(end_well);
        assert_prints(&env, &project, PRINTED);
        env.assert_fresh(&project, &["build"]);
        assert_works(&env, &project);
        let _ = env
            .quickbuild(&env.checkout(&project), &["build"])
            .nothing_built();
    }
}

/// Both compile the same, and both want to put it into the store.
#[test]
fn two_checkouts_with_one_store() {
    for _ in 0..3 {
        let env = TestEnv::new();
        let projects = [env.project("tiny"), env.project("tiny")];
        let both = [start(&env, &projects[0]), start(&env, &projects[1])];
        both.into_iter().for_each(end_well);
        for project in &projects {
            assert_prints(&env, project, PRINTED);
            env.assert_fresh(project, &["build"]);
            assert_works(&env, project);
        }
        let third = env.checkout(&projects[0]);
        let _ = env.quickbuild(&third, &["build"]).nothing_built();
        env.assert_fresh(&third, &["build"]);
    }
}

/// `build` and `check` of one checkout share files by the bridge.
#[test]
fn build_and_check_in_one_checkout() {
    let env = TestEnv::new();
    let project = env.project("tiny");
    let both = [
        start(&env, &project),
        env.spawn_quickbuild(&project, &["check"]),
    ];
    both.into_iter().for_each(end_well);
    assert_prints(&env, &project, PRINTED);
    for command in ["build", "check"] {
        env.assert_fresh(&project, &[command]);
    }
    for command in ["build", "check"] {
        let _ = env.quickbuild(&project, &[command]).success();
        for command in ["build", "check"] {
            env.assert_fresh(&project, &[command]);
        }
    }
}

/// Without the state, what is in place is recognised by its content.
#[test]
fn what_is_in_place_stays_when_the_state_is_lost() {
    let env = TestEnv::new();
    let project = env.project("tiny");
    for command in ["build", "check"] {
        let _ = env.quickbuild(&project, &[command]).success();
    }
    for command in ["build", "check"] {
        fs::remove_dir_all(project.path("target/.quickbuild")).unwrap();
        let _ = env.quickbuild(&project, &[command]).nothing_built();
        for command in ["build", "check"] {
            env.assert_fresh(&project, &[command]);
        }
    }
}

/// Plain Cargo starts while quickbuild is at work.
#[test]
fn quickbuild_and_plain_cargo_in_one_checkout() {
    let env = TestEnv::new();
    let _ = filled(&env);
    for _ in 0..3 {
        let project = env.project("tiny");
        let ours = start(&env, &project);
        let _ = env.cargo(&project, &["build"]).success();
        end_well(ours);
        assert_prints(&env, &project, PRINTED);
        assert_works(&env, &project);
    }
}
