//! `quickbuild builder`: images are made, pinned and checked in a real engine.

use std::fs;

use serde_json::Value;

use crate::support::{BUILDER, Outcome, Project, TestEnv, builder_image, programs, skipped};

/// An address at which nothing listens.
const NO_ENGINE: &str = "unix:///nowhere/docker.sock";

fn place() -> (TestEnv, Project) {
    let env = TestEnv::new();
    let project = env.project("tiny");
    (env, project)
}

fn builder(env: &TestEnv, project: &Project, arguments: &[&str]) -> Outcome {
    let mut all = vec!["builder"];
    all.extend(arguments);
    env.quickbuild(project, &all)
}

fn json(outcome: Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("no JSON: {outcome}"))
}

fn pin_of(project: &Project, image: &str) {
    let text = format!(
        "# ours\n\n[builders.\"{BUILDER}\"]\nimage = \"{image}\" # why\nmemory = \"4GB\"\n"
    );
    fs::write(project.path("quickbuild.toml"), text).unwrap();
}

fn digest(image: &str) -> &str {
    image.split_once('@').unwrap().1
}

#[test]
fn an_image_is_what_its_definition_says() {
    let Some(image) = builder_image() else { return };
    let (env, project) = place();
    pin_of(&project, image);
    let checked = json(builder(&env, &project, &["check", BUILDER, "--format", "json"]).success());
    let findings = checked[0]["findings"].as_array().unwrap();
    let subjects = findings
        .iter()
        .map(|finding| finding["subject"].as_str().unwrap());
    let subjects: Vec<&str> = subjects.collect();
    assert_eq!(
        subjects,
        [
            "image",
            "architecture",
            "rustc",
            "cargo",
            "user",
            "users",
            "set-user-id",
            "network",
            "glibc",
            "cc",
            "c++",
            "rust",
            "quickbuild"
        ]
    );
    assert!(
        findings.iter().all(|finding| finding["ok"] == true),
        "{findings:#?}"
    );
}

#[test]
fn an_image_that_exists_is_not_made_again() {
    let Some(image) = builder_image() else { return };
    let (env, project) = place();
    let store = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("builders");
    let again = builder(
        &env.with_store(&store),
        &project,
        &["build", BUILDER, "--pin"],
    )
    .success();
    assert_eq!(again.stdout.trim(), image);
    let config = fs::read_to_string(project.path("quickbuild.toml")).unwrap();
    assert_eq!(
        config,
        format!("[builders.\"{BUILDER}\"]\nimage = \"{image}\"\n")
    );
    assert!(!store.join("cache/images/tmp").exists());
}

#[test]
fn a_pin_is_written_and_the_rest_of_the_file_stays() {
    let Some(image) = builder_image() else { return };
    let (env, project) = place();
    let other = format!("other:1@sha256:{}", "0".repeat(64));
    pin_of(&project, &other);
    let before = fs::read_to_string(project.path("quickbuild.toml")).unwrap();
    let pinned = builder(&env, &project, &["pin", BUILDER]).success();
    assert_eq!(pinned.stdout.trim(), image);
    let after = fs::read_to_string(project.path("quickbuild.toml")).unwrap();
    assert_eq!(after, before.replace(&other, image));
    let rows = json(builder(&env, &project, &["list", "--format", "json"]).success());
    let rows = rows.as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == BUILDER).unwrap();
    assert_eq!(row["image"], digest(image));
    assert_eq!(row["pinned"], image);
    assert_eq!(row["glibc"], "2.36");
}

#[test]
fn another_digest_is_refused() {
    let Some(image) = builder_image() else { return };
    let (env, project) = place();
    let wrong = format!("sha256:{}", "1".repeat(64));
    pin_of(&project, &image.replace(digest(image), &wrong));
    let refused = builder(&env, &project, &["check"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    let said = format!(
        "has the digest `{}`, not the pinned `{wrong}`",
        digest(image)
    );
    assert!(refused.stdout.contains(&said), "{refused}");
    pin_of(&project, &format!("quickbuild-builder:nowhere@{wrong}"));
    let absent = builder(&env, &project, &["check", BUILDER]);
    assert_eq!(absent.code, Some(1), "{absent}");
    assert!(
        absent.stdout.contains("the engine has no image"),
        "{absent}"
    );
}

#[test]
fn no_registry_and_no_programs_are_clear_errors() {
    if builder_image().is_none() {
        return;
    }
    let (env, project) = place();
    // Nothing listens at the discard port of this machine.
    let unreachable = builder(&env, &project, &["pin", BUILDER, "127.0.0.1:9/rust:1.95.0"]);
    assert_eq!(unreachable.code, Some(3), "{unreachable}");
    assert!(
        unreachable.stderr.contains("cannot pull an image"),
        "{unreachable}"
    );
    assert!(
        unreachable
            .stderr
            .contains("hint: `quickbuild builder build"),
        "{unreachable}"
    );
    assert!(!project.path("quickbuild.toml").exists());

    let bare = env.with("PATH", "/nowhere");
    let missing = builder(&bare, &project, &["build", BUILDER]);
    assert_eq!(missing.code, Some(3), "{missing}");
    assert!(
        missing.stderr.contains("`mmdebstrap` is not installed"),
        "{missing}"
    );
    assert!(missing.stderr.contains("hint: install it"), "{missing}");
    assert!(!env.store().join("cache/images/tmp").exists());
}

#[test]
fn without_an_engine_there_is_a_list_and_a_clear_error() {
    let (env, project) = place();
    let env = env.with("DOCKER_HOST", NO_ENGINE);
    let listed = builder(&env, &project, &["list"]).success();
    assert!(
        listed
            .stderr
            .contains("warning: no container engine answers"),
        "{listed}"
    );
    assert!(listed.stdout.contains(&format!("{BUILDER}  ")), "{listed}");
    for command in ["build", "pin", "check"] {
        let failed = builder(&env, &project, &[command, BUILDER]);
        assert_eq!(failed.code, Some(3), "{failed}");
        assert!(failed.stderr.contains(NO_ENGINE), "{failed}");
        assert!(failed.stderr.contains("hint: start Docker"), "{failed}");
    }
}

#[test]
fn a_wrong_definition_is_named() {
    let (env, project) = place();
    let unknown = builder(&env, &project, &["build", "0.1.0-x86_64-unknown-linux-gnu"]);
    assert_eq!(unknown.code, Some(3), "{unknown}");
    assert!(unknown.stderr.contains("there is no builder"), "{unknown}");
    fs::write(project.path("quickbuild.toml"), "").unwrap();
    fs::create_dir(project.path("containers")).unwrap();
    let variant = format!("format = 1\nbase = \"{BUILDER}\"\npakages = [\"libpq-dev\"]\n");
    let file = project.path(&format!("containers/{BUILDER}+libpq.toml"));
    fs::write(&file, &variant).unwrap();
    let wrong = builder(&env, &project, &["list"]);
    assert_eq!(wrong.code, Some(3), "{wrong}");
    assert!(wrong.stderr.contains("`pakages`"), "{wrong}");
    fs::write(&file, variant.replace("pakages", "packages")).unwrap();
    let env = env.with("DOCKER_HOST", NO_ENGINE);
    let listed = builder(&env, &project, &["list"]).success();
    assert!(listed.stdout.contains("+libpq"), "{listed}");
}

/// A registry that answers: what it has is pulled and pinned by the digest that
/// it has there.
#[test]
fn an_image_of_a_registry_is_pulled_and_pinned() {
    let docker = |arguments: &[&str]| {
        let mut command = std::process::Command::new("docker");
        command.args(arguments).stdin(std::process::Stdio::null());
        command
            .output()
            .ok()
            .filter(|output| output.status.success())
    };
    if docker(&["info"]).is_none() {
        skipped("docker", "`docker info` fails");
        return;
    }
    let Some(registry) = programs::registry(false) else {
        return;
    };
    let (env, project) = place();
    let name = format!("127.0.0.1:{}/tiny/builder:1", registry.port);
    let tar = env.root().join("image.tar");
    let mut builder_of = tar::Builder::new(fs::File::create(&tar).unwrap());
    let mut header = tar::Header::new_ustar();
    header.set_size(6);
    header.set_mode(0o644);
    header.set_cksum();
    // Of its own, so that nobody else has this image.
    let content = std::process::id() % 1_000_000;
    let content = format!("{content:06}");
    builder_of
        .append_data(&mut header, "who", content.as_bytes())
        .unwrap();
    builder_of.finish().unwrap();
    let _image = Removed(name.clone());
    assert!(docker(&["import", tar.to_str().unwrap(), &name]).is_some());
    assert!(docker(&["push", &name]).is_some());
    assert!(docker(&["rmi", &name]).is_some());
    assert!(docker(&["image", "inspect", &name]).is_none());

    let pinned = builder(&env, &project, &["pin", BUILDER, &name]).success();
    let pinned = pinned.stdout.trim();
    let config = fs::read_to_string(project.path("quickbuild.toml")).unwrap();
    assert_eq!(
        config,
        format!("[builders.\"{BUILDER}\"]\nimage = \"{pinned}\"\n")
    );
    // The digest is that of a manifest that the registry has.
    let hash = digest(pinned).strip_prefix("sha256:").unwrap();
    assert_eq!(pinned, format!("{name}@sha256:{hash}"));
    let blobs = registry.folder().join("blobs/docker/registry/v2");
    let manifest = blobs.join(format!("blobs/sha256/{}/{hash}/data", &hash[..2]));
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert_eq!(manifest["schemaVersion"], 2);
    let tagged = blobs.join("repositories/tiny/builder/_manifests/tags/1/current/link");
    assert_eq!(fs::read_to_string(tagged).unwrap(), digest(pinned));
    // It is the pinned one, and not what its definition says.
    let checked = builder(&env, &project, &["check", BUILDER]);
    assert_eq!(checked.code, Some(1), "{checked}");
    assert!(!checked.stdout.contains("not the pinned"), "{checked}");
}

/// An image that is taken out of the engine, whatever happens.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        let mut command = std::process::Command::new("docker");
        let _ = command.args(["rmi", "--force", &self.0]).output();
    }
}
