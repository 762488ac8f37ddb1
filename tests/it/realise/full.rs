//! An engine whose disk is full: one of our own, which keeps everything in a small
//! file system.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{assert_nothing_left, copy_image, project_with_script, with_builder};
use crate::support::{Mount, TestEnv, builder_image, skipped};

/// More than images take.
const LARGE: &str = "4g";

/// Writes as long as there is room.
const GREEDY: &str = r#"fn main() {
    let out = std::env::var("OUT_DIR").unwrap();
    for n in 0..200 { std::fs::write(format!("{out}/{n}"), vec![1; 16 << 20]).unwrap(); }
}"#;

/// A Docker engine that listens on a socket in its own file system.
struct Engine {
    server: Child,
    socket: String,
    disk: Mount,
}

impl Engine {
    /// Starts one with an image of the engine that is there; `None` after a skip
    /// was noted.
    fn with_image(env: &TestEnv, image: &str) -> Option<Self> {
        // The paths of sockets must be short.
        let disk = Mount::new(env.root().join("e"), LARGE)?;
        let at = |name: &str| disk.path().join(name).display().to_string();
        std::fs::write(at("empty.json"), "{}").unwrap();
        let log = std::fs::File::create(env.root().join("dockerd.log")).unwrap();
        let socket = format!("unix://{}", at("socket"));
        let mut server = Command::new("dockerd");
        server
            .args(["--config-file", &at("empty.json")])
            .args(["--data-root", &at("root"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("pid"), "--host", &socket])
            .args(["--storage-driver", "overlay2", "--bridge", "none"])
            .args([
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let Ok(server) = server.spawn() else {
            assert!(skipped("engine", "`dockerd` is not installed"));
            return None;
        };
        let mut engine = Self {
            server,
            socket,
            disk,
        };
        let give_up = Instant::now() + Duration::from_secs(60);
        while !engine.docker(&["info"]).output().unwrap().status.success() {
            let ended = engine.server.try_wait().unwrap();
            if ended.is_some() || Instant::now() > give_up {
                let log = std::fs::read_to_string(env.root().join("dockerd.log")).unwrap();
                let said = log.lines().last().unwrap_or_default();
                assert!(skipped(
                    "engine",
                    &format!("a second engine does not start: {said}")
                ));
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        copy_image(image, &mut engine.docker(&["load", "--quiet"]));
        Some(engine)
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        let mut docker = Command::new("docker");
        docker.args(arguments).env("DOCKER_HOST", &self.socket);
        docker
    }

    /// Leaves so many bytes free on its disk.
    fn leave(&self, room: u64) {
        let mut df = Command::new("df");
        df.args(["--output=used", "--block-size=1"])
            .arg(self.disk.path());
        let said = String::from_utf8(df.output().unwrap().stdout).unwrap();
        let used: u64 = said.lines().last().unwrap().trim().parse().unwrap();
        self.disk.remount(&format!("size={}", used + room));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let id = self.server.id().to_string();
        let _ = Command::new("kill").arg(id).status(); // or it has ended
        let _ = self.server.wait();
    }
}

/// Wherever it is in what it does when the room is used up: containers are made,
/// files come in, something is compiled.
#[test]
fn an_engine_without_room_is_a_clear_error_and_nothing_is_left() {
    let Some(env) = with_builder() else { return };
    let Some(image) = builder_image() else { return };
    let Some(engine) = Engine::with_image(&env, image) else {
        return;
    };
    let env = env.with("DOCKER_HOST", &engine.socket);
    let project = project_with_script(&env, "greedy", GREEDY);
    let program = std::fs::metadata(env!("CARGO_BIN_EXE_quickbuild")).unwrap();
    let program = program.len();
    let engine_is_full = "its disk is full";
    for (room, reason) in [
        (0, engine_is_full),
        (program / 2, engine_is_full),
        (program + (200 << 20), "left on the builder's disk"),
    ] {
        engine.leave(room);
        let outcome = env.quickbuild(&project, &["realise", "--builder", "docker"]);
        assert_eq!(outcome.code, Some(3), "{room}: {outcome}");
        assert!(outcome.stderr.contains(reason), "{room}: {outcome}");
        assert!(
            outcome.stderr.to_lowercase().contains("no space left"),
            "{room}: {outcome}"
        );
        assert_nothing_left(&env);
        let paths = std::fs::read_dir(env.store().join("paths"));
        assert_eq!(paths.map_or(0, Iterator::count), 0, "{room}");
    }
    // It was no more than that.
    engine.leave(program * 4);
    let plain = env.project("tiny");
    let _ = env
        .quickbuild(&plain, &["realise", "--builder", "docker"])
        .success();
    assert_nothing_left(&env);
}
