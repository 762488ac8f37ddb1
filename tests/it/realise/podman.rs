//! Podman behind its socket, which speaks Docker's API and is another program.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{REALISE, copy_image, parsed, realised, with_builder};
use crate::support::{Mount, TestEnv, builder_image, skipped};

/// More than the image takes.
const ROOM: &str = "6g";

/// A Podman with everything of its own.
struct Podman {
    server: Child,
    socket: PathBuf,
    disk: Mount,
}

impl Podman {
    /// Starts one with an image of the engine that is there; `None` after a skip
    /// was noted.
    fn with_image(env: &TestEnv, image: &str) -> Option<Self> {
        if Command::new("podman").arg("--version").output().is_err() {
            assert!(skipped("podman", "`podman` is not installed"));
            return None;
        }
        // The paths of sockets must be short. In memory its own overlays work
        // wherever this runs.
        let disk = Mount::new(env.root().join("p"), ROOM)?;
        let socket = disk.path().join("socket");
        let service = format!("unix://{}", socket.display());
        let server = command(&disk)
            .args(["system", "service", "--time=0", &service])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(env.root().join("podman.log")).unwrap())
            .spawn()
            .unwrap();
        let podman = Self {
            server,
            socket,
            disk,
        };
        let give_up = Instant::now() + Duration::from_secs(60);
        while !podman.socket.exists() {
            let log = || std::fs::read_to_string(env.root().join("podman.log"));
            assert!(Instant::now() < give_up, "{:?}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        copy_image(image, command(&podman.disk).arg("load"));
        Some(podman)
    }

    /// What it lists.
    fn listed(&self, arguments: &[&str]) -> String {
        let output = command(&self.disk).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let id = self.server.id().to_string();
        let _ = Command::new("kill").arg(id).status(); // or it has ended
        let _ = self.server.wait();
    }
}

fn command(disk: &Mount) -> Command {
    let at = |name: &str| disk.path().join(name).display().to_string();
    let mut podman = Command::new("podman");
    podman
        .args(["--root", &at("root"), "--runroot", &at("run")])
        .args(["--tmpdir", &at("tmp"), "--runtime", "runc"])
        .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
    podman
}

/// What comes out does not depend on which engine it is.
#[test]
fn podman_makes_the_same_as_docker() {
    let Some(env) = with_builder() else { return };
    let Some(image) = builder_image() else { return };
    let Some(podman) = Podman::with_image(&env, image) else {
        return;
    };
    let project = env.project("small");
    let by_docker = realised(&env, &project, &[]);
    assert_eq!(by_docker["missing"], json!([]), "{by_docker}");

    let host = format!("unix://{}", podman.socket.display());
    let other = env
        .with_store(&env.root().join("other"))
        .with("DOCKER_HOST", &host);
    let by_podman = parsed(other.quickbuild(&project, &REALISE));
    assert_eq!(by_podman["missing"], json!([]), "{by_podman}");
    let added = by_podman["added"].as_array().unwrap();
    assert!(!added.is_empty(), "{by_podman}");
    // A name has the hash of all that is in an output.
    assert_eq!(by_docker["added"], by_podman["added"]);

    let left = podman.listed(&["ps", "--all", "--quiet"]);
    assert_eq!(left, "", "containers are left");
    let left = podman.listed(&["volume", "ls", "--quiet"]);
    assert_eq!(left, "", "volumes are left");
}
