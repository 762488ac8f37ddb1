//! Build scripts that want more than they may have, archives and images that are
//! not what they should be.

use std::io::Write as _;
use std::process::{Command, Stdio};

use quickbuild::digest::ContentHash;

use super::{
    assert_failed, assert_nothing_left, limit, project_with_package, project_with_script,
    with_builder,
};

/// Tries what a builder must not allow, and leaves what came of it.
const CURIOUS: &str = r#"
use std::net::{TcpStream, SocketAddr};
use std::time::Duration;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let mut found = Vec::new();
    for address in ["1.1.1.1:53", "172.17.0.1:2375", "127.0.0.1:2375"] {
        let address: SocketAddr = address.parse().unwrap();
        if TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok() {
            found.push(format!("reached {address}"));
        }
    }
    for socket in ["/var/run/docker.sock", "/run/podman/podman.sock"] {
        if std::path::Path::new(socket).exists() {
            found.push(format!("found {socket}"));
        }
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs");
    let first = ["/proc/1/fd/1", "/proc/1/mem"]; // the process that says how it ended
    let files = [source, "/quickbuild/in/quickbuild", "/quickbuild/in/new", "/usr/new", "/etc/new", "/new"];
    for file in files.into_iter().chain(first) {
        if std::fs::OpenOptions::new().create(true).append(true).open(file).is_ok() {
            found.push(format!("wrote {file}"));
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        if !status.contains(line) {
            found.push(format!("has no {line}"));
        }
    }
    if std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)).unwrap() == 0 {
        found.push("is root".to_owned());
    }
    found.push(std::fs::read_to_string("/etc/hostname").unwrap().trim().to_owned());
    let out = std::env::var("OUT_DIR").unwrap();
    std::fs::write(format!("{out}/found.txt"), found.join("; ")).unwrap();
}
"#;

#[test]
fn a_script_reaches_nothing_but_its_own_folder() {
    let Some(env) = with_builder() else { return };
    let project = project_with_script(&env, "curious", CURIOUS);
    let _ = env
        .quickbuild(&project, &["realise", "--builder", "docker"])
        .success();
    let mut found = Vec::new();
    for path in crate::support::walk(&env.store().join("paths")) {
        let is_run = path.to_str().is_some_and(|path| path.contains("-curious-"));
        if let Ok(text) = std::fs::read_to_string(&path)
            && is_run
            && text.ends_with("builder")
        {
            found.push(text);
        }
    }
    assert_eq!(found, ["builder"]);
    assert_nothing_left(&env);
}

/// What a script leaves running neither outlives the build nor is waited for.
#[test]
fn a_script_that_leaves_something_running_ends_with_the_build() {
    let Some(env) = with_builder() else { return };
    limit(&env, "time = \"60s\"");
    let script = r#"
use std::process::{Command, Stdio};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let mut orphan = Command::new("sh");
    let loop_for_ever = "trap '' HUP INT TERM; while :; do echo still here >>../../../more; sleep 1; done &";
    orphan.arg("-c").arg(loop_for_ever).current_dir(std::env::var("OUT_DIR").unwrap());
    orphan.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(orphan.status().unwrap().success());
}"#;
    let project = project_with_script(&env, "leaving", script);
    let outcome = env.quickbuild(&project, &["realise", "--builder", "docker"]);
    let outcome = outcome.success();
    assert!(outcome.stdout.contains("4 outputs valid"), "{outcome}");
    let _ = env.quickbuild(&project, &["store", "verify"]).success();
    let log = env.quickbuild(&project, &["log", "tiny"]).success();
    assert!(!log.stdout.contains("has ended here"), "{log}");
    assert_nothing_left(&env);
}

#[test]
fn a_script_that_forks_for_ever_is_stopped() {
    let Some(env) = with_builder() else { return };
    limit(&env, "processes = 100\ntime = \"20s\"");
    let script = r#"fn main() {
        loop { let _ = std::process::Command::new("sleep").arg("1000").spawn(); }
    }"#;
    let project = project_with_script(&env, "forking", script);
    let outcome = env.quickbuild(&project, &["realise", "--builder", "docker"]);
    assert_failed(&env, &project, outcome, "it was stopped after 20 s");
}

#[test]
fn a_script_that_eats_memory_is_stopped() {
    let Some(env) = with_builder() else { return };
    limit(&env, "memory = \"700MB\"\ntime = \"120s\"");
    let script = r#"fn main() {
        let mut all = Vec::new();
        loop { all.push(vec![1_u8; 1 << 20]); }
    }"#;
    let project = project_with_script(&env, "hungry", script);
    let outcome = env.quickbuild(&project, &["realise", "--builder", "docker"]);
    assert_failed(&env, &project, outcome, "700000000 bytes of memory");
}

#[test]
fn a_script_that_fills_the_disk_is_stopped() {
    let Some(env) = with_builder() else { return };
    limit(&env, "disk = \"200MB\"\ntime = \"120s\"");
    let script = r#"fn main() {
        let out = std::env::var("OUT_DIR").unwrap();
        for n in 0.. { std::fs::write(format!("{out}/{n}"), vec![0; 16 << 20]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(50)); }
    }"#;
    let project = project_with_script(&env, "filling", script);
    let outcome = env.quickbuild(&project, &["realise", "--builder", "docker"]);
    assert_failed(
        &env,
        &project,
        outcome,
        "it wrote more than 200000000 bytes",
    );
}

/// Before anything of a package runs.
#[test]
fn an_archive_that_holds_too_much_is_refused() {
    let Some(env) = with_builder() else { return };
    limit(&env, "disk = \"20MB\"");
    let zeros = "0".repeat(30 << 20);
    let files = [("src/lib.rs", ""), ("zeros.txt", zeros.as_str())];
    let project = project_with_package(&env, "swelling", &files);
    let outcome = env.quickbuild(&project, &["realise", "--builder", "docker"]);
    let reason = "the unpacked packages have more than 20000000 bytes";
    assert_failed(&env, &project, outcome, reason);
}

#[test]
fn a_script_that_fails_is_quoted_and_logged() {
    let Some(env) = with_builder() else { return };
    let script = r#"fn main() { panic!("this script has its reasons"); }"#;
    let project = project_with_script(&env, "failing", script);
    let outcome = env.quickbuild(&project, &["realise", "--builder", "docker"]);
    assert!(outcome.stderr.contains("has its reasons"), "{outcome}");
    let log = env.quickbuild(&project, &["log", "tiny"]).success();
    assert!(log.stdout.contains("has its reasons"), "{log}");
    assert_failed(&env, &project, outcome, "`cargo build` failed");
}

#[test]
fn an_archive_with_another_checksum_is_refused() {
    let Some(env) = with_builder() else { return };
    let env = env.with_another_cargo_home();
    let project = env.project("tiny");
    let lock = project.path("Cargo.lock");
    let text = std::fs::read_to_string(&lock).unwrap();
    let at = text.find("checksum = \"").unwrap() + "checksum = \"".len();
    let other = if text[at..].starts_with('0') {
        "1"
    } else {
        "0"
    };
    std::fs::write(&lock, format!("{}{other}{}", &text[..at], &text[at + 1..])).unwrap();
    let outcome = env.quickbuild(&project, &["realise", "--builder", "docker"]);
    assert_eq!(outcome.code, Some(3), "{outcome}");
    assert!(outcome.stderr.contains("checksum"), "{outcome}");
    assert_nothing_left(&env);
}

/// The engine itself says what the image is for.
#[test]
fn an_image_of_another_architecture_is_refused() {
    let Some(env) = with_builder() else { return };
    let image = foreign_image();
    let config = env.root().join("quickbuild.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let (before, _) = text.split_once("image = ").unwrap();
    std::fs::write(&config, format!("{before}image = \"{image}\"\n")).unwrap();
    let project = env.project("tiny");
    let outcome = env.quickbuild(&project, &["realise", "--builder", "docker"]);
    let (name, _) = image.split_once('@').unwrap();
    docker(&["image", "rm", name], &[]);
    assert_eq!(outcome.code, Some(3), "{outcome}");
    let reason = format!("the image `{name}` is for `s390x`, and the engine runs");
    assert!(outcome.stderr.contains(&reason), "{outcome}");
    assert_nothing_left(&env);
}

/// Loads an image that is for no machine that tests run on, and pins it.
fn foreign_image() -> String {
    let name = format!("quickbuild-test:foreign-{}", std::process::id());
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "nothing", b"");
    let layer = layer.into_inner().unwrap();
    let config = serde_json::json!({
        "architecture": "s390x", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", ContentHash::of(&layer))] },
    });
    let config = config.to_string();
    let manifest = serde_json::json!([
        { "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }
    ]);
    let mut archive = tar::Builder::new(Vec::new());
    append(
        &mut archive,
        "manifest.json",
        manifest.to_string().as_bytes(),
    );
    append(&mut archive, "config.json", config.as_bytes());
    append(&mut archive, "layer.tar", &layer);
    docker(&["load", "--quiet"], &archive.into_inner().unwrap());
    format!("{name}@sha256:{}", ContentHash::of(config.as_bytes()))
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content).unwrap();
}

#[track_caller]
fn docker(arguments: &[&str], input: &[u8]) {
    let mut docker = Command::new("docker");
    docker
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut child = docker.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    assert!(child.wait().unwrap().success(), "{docker:?}");
}

#[test]
fn an_image_with_another_digest_is_refused() {
    let Some(env) = with_builder() else { return };
    let config = env.root().join("quickbuild.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let (before, digest) = text.split_once("sha256:").unwrap();
    let digest: String = digest
        .chars()
        .map(|c| if c == 'a' { 'b' } else { 'a' })
        .take(64)
        .collect();
    std::fs::write(&config, format!("{before}sha256:{digest}\"\n")).unwrap();
    let project = env.project("tiny");
    let outcome = env.quickbuild(&project, &["realise", "--builder", "docker"]);
    assert_eq!(outcome.code, Some(3), "{outcome}");
    assert!(outcome.stderr.contains("not the pinned"), "{outcome}");
    assert_nothing_left(&env);
}
