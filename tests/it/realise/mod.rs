//! Realisations in real containers, and on this machine where that is asked for.
//!
//! * `workspace`: what a container made is Fresh for others, and the same twice.
//! * `outputs`: how they get out of a container, and which do.
//! * `podman`: another engine makes the same.
//! * `hostile`: build scripts that want more than they may have.
//! * `recipes`: recipes of the repository.
//! * `substituted`: what substituters have is not built again.
//! * `full`: an engine that has no room; nothing is left behind.
//! * `interrupted`: cancelled, killed, out of room; nothing is left behind.

mod full;
mod hostile;
mod interrupted;
mod outputs;
mod podman;
mod recipes;
mod relay;
mod substituted;
mod workspace;

use std::process::{Command, Stdio};

use crate::support::{
    BUILDER, NIGHTLY_BUILDER, Outcome, Project, Registry, TestEnv, builder_image, nightly,
    nightly_builder_image,
};

/// The release in the image.
const RELEASE: &str = "1.95.0";

/// An environment in which the builder of this toolchain is pinned, or `None`
/// after a skip was noted.
pub(crate) fn with_builder() -> Option<TestEnv> {
    let env = pinned(BUILDER, builder_image()?);
    // The toolchain in the image, under whatever name it is installed.
    let project = env.project("tiny");
    let rustc = env.cargo(&project, &["--version"]).success().stdout;
    let is_the_image_s = rustc.starts_with(&format!("cargo {RELEASE} "));
    Some(if is_the_image_s {
        env
    } else {
        env.with("RUSTUP_TOOLCHAIN", RELEASE)
    })
}

/// The same with nightly, where each unit has a folder.
fn with_nightly_builder() -> Option<TestEnv> {
    let image = nightly_builder_image()?;
    nightly(&pinned(NIGHTLY_BUILDER, image))
}

fn pinned(builder: &str, image: &str) -> TestEnv {
    let env = TestEnv::new();
    let config = env.root().join("quickbuild.toml");
    let text = format!("[builders.\"{builder}\"]\nimage = \"{image}\"\n");
    std::fs::write(&config, text).unwrap();
    env.with("QUICKBUILD_CONFIG", config.to_str().unwrap())
}

/// Adds lines to the builder's settings.
fn limit(env: &TestEnv, lines: &str) {
    let config = env.root().join("quickbuild.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}{lines}\n")).unwrap();
}

/// Gives an image of the engine that is there to a command of another one.
fn copy_image(image: &str, load: &mut Command) {
    // As it is named, without the digest that it is pinned by.
    let name = image.split('@').next().unwrap();
    let mut save = Command::new("docker");
    let save = save.args(["save", name]).stdout(Stdio::piped());
    let mut save = save.spawn().unwrap();
    let loaded = load.stdin(save.stdout.take().unwrap()).output().unwrap();
    assert!(save.wait().unwrap().success());
    assert!(loaded.status.success(), "{loaded:?}");
}

const REALISE: [&str; 5] = ["realise", "--builder", "docker", "--format", "json"];

/// What a container makes of a project, in JSON.
fn realised(env: &TestEnv, project: &Project, more: &[&str]) -> serde_json::Value {
    parsed(env.quickbuild(project, &[&REALISE, more].concat()))
}

#[track_caller]
fn parsed(outcome: Outcome) -> serde_json::Value {
    let outcome = outcome.success();
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

/// A project whose only dependency is a package with this build script.
fn project_with_script(env: &TestEnv, name: &str, script: &str) -> Project {
    project_with_package(env, name, &[("build.rs", script), ("src/lib.rs", "")])
}

/// A project whose only dependency is a package with these files.
fn project_with_package(env: &TestEnv, name: &str, files: &[(&str, &str)]) -> Project {
    let registry = Registry::new(env);
    registry.publish(name, files);
    let project = env.project("tiny");
    let manifest = project.path("tiny/Cargo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let line = format!("{name} = {{ version = \"0.1\", registry = \"private\" }}");
    std::fs::write(
        &manifest,
        text.replace("fnv = \"1\"", &format!("fnv = \"1\"\n{line}")),
    )
    .unwrap();
    registry.serve(&project.dir);
    let _ = env.cargo(&project, &["update", "--workspace"]).success();
    project
}

/// Containers or volumes of realisations into this store.
fn listed(env: &TestEnv, what: &str, more: &[&str]) -> String {
    let mut docker = Command::new("docker");
    docker.args([what, "ls", "--quiet", "--filter"]);
    docker.arg(format!("label=quickbuild.store={}", env.store().display()));
    if what == "container" {
        docker.arg("--all");
    }
    if let Some(host) = env.variable("DOCKER_HOST") {
        docker.env("DOCKER_HOST", host);
    }
    let output = docker.args(more).output().unwrap();
    assert!(output.status.success(), "{docker:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Nothing of a realisation is left on the engine or in the store's `tmp/`.
#[track_caller]
pub(crate) fn assert_nothing_left(env: &TestEnv) {
    for what in ["container", "volume"] {
        assert_eq!(listed(env, what, &[]), "", "{what}s are left");
    }
    let tmp = env.store().join("tmp");
    let left: Vec<_> = std::fs::read_dir(tmp).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The command failed and said why; its log can be shown.
#[track_caller]
fn assert_failed(env: &TestEnv, project: &Project, outcome: Outcome, reason: &str) {
    assert_eq!(outcome.code, Some(3), "{outcome}");
    assert!(outcome.stderr.contains(reason), "{outcome}");
    let log = env.quickbuild(project, &["log", "tiny"]).success();
    assert!(log.stdout.contains("tiny 0.1.0, by "), "{log}");
    assert_nothing_left(env);
}
