//! Realisations that are cancelled or killed, and engines that go away.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{assert_nothing_left, listed, project_with_script, with_builder};
use crate::support::{Project, TestEnv};

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
    let through = env.with("DOCKER_HOST", format!("tcp://{}", relay.address));
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

/// Hands connections on to the engine's socket, until it is cut.
struct Relay {
    address: String,
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Relay {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let shared = Arc::clone(&open);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut open = shared.lock().unwrap();
                let Some(open) = open.as_mut() else { continue };
                let engine = UnixStream::connect("/var/run/docker.sock").unwrap();
                open.push(client.try_clone().unwrap());
                let (mut up, mut back) = (client.try_clone().unwrap(), client);
                let (mut to, mut from) = (engine.try_clone().unwrap(), engine);
                std::thread::spawn(move || {
                    copy(&mut up, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                std::thread::spawn(move || {
                    copy(&mut from, &mut back);
                    let _ = back.shutdown(Shutdown::Write);
                });
            }
        });
        Self { address, open }
    }

    fn cut(&self) {
        for client in self.open.lock().unwrap().take().unwrap_or_default() {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) {
    let _ = std::io::copy(from, to); // ends when one side does
}
