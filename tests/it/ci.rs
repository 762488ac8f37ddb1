//! What `action.yml` and `docs/ci.md` tell a CI to do, done: their shell steps
//! run as they stand, in a fresh home, with a folder as the substituter.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{BUILDER, Mood, Outcome, Project, Server, TestEnv, builder_image};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// A step of the action: its condition, its variables, its script.
#[derive(Debug, Default)]
struct Step {
    condition: String,
    variables: BTreeMap<String, String>,
    script: String,
}

/// The part of YAML that `action.yml` keeps to: steps with `if`, `env` and a
/// block of `run`.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut block = "";
    let (_, text) = text.split_once("  steps:\n").unwrap();
    for line in text.lines() {
        if line.starts_with("    - name: ") {
            steps.push(Step::default());
            block = "";
        } else if let Some(step) = steps.last_mut() {
            match line.strip_prefix("        ") {
                Some(inner) if block == "run" => step.script.push_str(&format!("{inner}\n")),
                Some(inner) if block == "env" => {
                    let (name, value) = inner.split_once(": ").unwrap();
                    step.variables.insert(name.to_owned(), value.to_owned());
                }
                _ => {
                    let key = line.trim_start();
                    block = key.split(':').next().unwrap();
                    if let Some(condition) = key.strip_prefix("if: ") {
                        step.condition = condition.to_owned();
                    }
                }
            }
        }
    }
    steps
}

/// The defaults of the action's inputs.
fn defaults(text: &str) -> BTreeMap<String, String> {
    let (_, inputs) = text.split_once("\ninputs:\n").unwrap();
    let (inputs, _) = inputs.split_once("\nruns:\n").unwrap();
    let mut found = BTreeMap::new();
    let mut name = "";
    for line in inputs.lines() {
        if let Some(input) = line.strip_prefix("  ").filter(|l| !l.starts_with(' ')) {
            name = input.trim_end_matches(':');
        } else if let Some(value) = line.trim_start().strip_prefix("default: ") {
            found.insert(name.to_owned(), value.trim_matches('"').to_owned());
        }
    }
    found
}

/// A runner: a fresh home and store, and a folder with the program.
struct Runner {
    env: TestEnv,
    project: Project,
    github_env: PathBuf,
}

impl Runner {
    fn new(env: &TestEnv, name: &str) -> Self {
        let root = env.root().join(name);
        fs::create_dir_all(root.join("home")).unwrap();
        let github_env = root.join("github-env");
        fs::write(&github_env, "").unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_quickbuild"))
            .parent()
            .unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        Self {
            project: env.project("tiny"),
            env: env
                .with_store(&root.join("store"))
                .with("HOME", root.join("home").to_str().unwrap())
                .with("GITHUB_ENV", github_env.to_str().unwrap())
                .with("PATH", path),
            github_env,
        }
    }

    fn shell(&self, env: &TestEnv, script: &str) -> Outcome {
        env.shell(&self.project, script)
    }

    /// Runs the action with these inputs; gives the environment of the steps
    /// after it, and what was said.
    fn action(&self, inputs: &[(&str, &str)]) -> (TestEnv, String) {
        let text = read("action.yml");
        let mut values = defaults(&text);
        values.extend(
            inputs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
        );
        let mut said = String::new();
        let mut ran = 0;
        for step in steps(&text) {
            let mode = step.condition.strip_prefix("inputs.mode == ");
            if mode.is_some_and(|mode| mode.trim_matches('\'') != values["mode"]) {
                continue;
            }
            let mut env = self.env.clone();
            for (name, value) in &step.variables {
                let input = value.strip_prefix("${{ inputs.").unwrap();
                env = env.with(name, &values[input.strip_suffix(" }}").unwrap()]);
            }
            let outcome = self.shell(&env, &step.script).success();
            said.push_str(&outcome.to_string());
            ran += 1;
        }
        assert_eq!(ran, 2, "{said}");
        let mut env = self.env.clone();
        for line in fs::read_to_string(&self.github_env).unwrap().lines() {
            let (name, value) = line.split_once('=').unwrap();
            env = env.with(name, value);
        }
        (env, said)
    }
}

/// A key, as the documentation says to make one: the public half and the file.
fn key(runner: &Runner) -> (String, PathBuf) {
    let made = runner.shell(&runner.env, "quickbuild key generate ci.example.org-1");
    let public = made.success().stdout.trim_end().to_owned();
    let home = runner.env.root().join("main/home");
    let file = home.join(".config/quickbuild/keys/ci.example.org-1.secret");
    assert!(file.is_file());
    (public, file)
}

/// Main builds, signs and publishes; a pull request on another machine fetches,
/// and has no key.
#[test]
fn the_github_action_publishes_on_main_and_fetches_for_pull_requests() {
    let env = TestEnv::new();
    let main = Runner::new(&env, "main");
    let (public, secret) = key(&main);
    let place = env.root().join("cache");
    let place = place.to_str().unwrap();
    // Nothing is there yet, and that fails nothing.
    let fetch = [("substituter", place), ("public-keys", &public)];
    let (with, said) = main.action(&fetch);
    assert!(
        said.contains("::warning::") || said.contains("0 outputs fetched"),
        "{said}"
    );
    let built = main.shell(&with, "quickbuild build").success();
    assert!(built.stderr.contains("0 from the store"), "{built}");
    let secret = fs::read_to_string(secret).unwrap();
    let push = [
        ("mode", "push"),
        ("substituter", place),
        ("signing-key", secret.trim_end()),
    ];
    let (_, said) = main.action(&push);
    assert!(said.contains("outputs published"), "{said}");

    // A pull request has the workspace's own crates as well, if it wants to ask for
    // them, or the one package that is not among them.
    for (members, fetched) in [("true", 6), ("false", 1)] {
        let request = Runner::new(&env, &format!("request-{members}"));
        let inputs = [&fetch[..], &[("members", members)]].concat();
        let (with, said) = request.action(&inputs);
        let expected = format!("; {fetched} outputs fetched");
        assert!(said.contains(&expected), "{said}");
        let built = request.shell(&with, "quickbuild build").success();
        let expected = format!("{fetched} from the store");
        assert!(built.stderr.contains(&expected), "{built}");
        assert_eq!(
            built.stderr.contains("Compiling"),
            members == "false",
            "{built}"
        );
        let built = request.shell(&with, "cargo build").success();
        assert!(!built.stderr.contains("Compiling"), "{built}");
    }

    // A substituter that is ill costs a warning.
    let server = Server::moody(Path::new(place), |_, _| Mood::Status(500, "X-Y: z"));
    let unlucky = Runner::new(&env, "unlucky");
    let (with, said) = unlucky.action(&[("substituter", &server.url()), ("public-keys", &public)]);
    assert!(said.contains("answers 500"), "{said}");
    let _ = unlucky.shell(&with, "cargo build").success();
}

/// The lines of a fenced block in the page on CI, after a heading.
fn block<'a>(page: &'a str, heading: &str, language: &str) -> &'a str {
    let (_, part) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, part) = part.split_once(&format!("```{language}\n")).unwrap();
    part.split_once("```").unwrap().0
}

/// The commands below `script:` of a GitLab job.
fn script(yaml: &str) -> String {
    let (_, lines) = yaml.split_once("  script:\n").unwrap();
    let line = |line: &str| {
        let line = line.strip_prefix("    - ").or(line.strip_prefix("      "));
        line.filter(|line| *line != "|")
            .map(|line| format!("{line}\n"))
    };
    lines.lines().filter_map(line).collect()
}

#[test]
fn the_gitlab_job_does_what_it_says() {
    let env = TestEnv::new();
    let script = script(block(&read("docs/ci.md"), "GitLab", "yaml"));
    assert!(script.contains("quickbuild push"), "{script}");
    let main = Runner::new(&env, "main");
    let (public, secret) = key(&main);
    let place = env.root().join("cache");
    let with = |env: &TestEnv| {
        env.with("QUICKBUILD_SUBSTITUTERS", place.to_str().unwrap())
            .with("QUICKBUILD_PUBLIC_KEYS", &public)
            .with("CI_DEFAULT_BRANCH", "main")
            .with("CI_PUBLISH_TO", place.to_str().unwrap())
    };
    let on_main = with(&main.env)
        .with("CI_COMMIT_BRANCH", "main")
        .with("CI_SIGNING_KEY", secret.to_str().unwrap());
    let done = main.shell(&on_main, &script).success();
    assert!(done.stdout.contains("outputs published"), "{done}");
    let request = Runner::new(&env, "request");
    let done = request.shell(&with(&request.env), &script).success();
    assert!(done.stderr.contains("outputs fetched"), "{done}");
    assert!(!done.stdout.contains("outputs published"), "{done}");
}

fn docker(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("docker");
    let output = command
        .args(arguments)
        .current_dir(folder)
        .env("DOCKER_BUILDKIT", "0");
    let output = output.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "docker {arguments:?}: {said}");
    said
}

/// Removes images when dropped.
struct Images(Vec<String>);

impl Drop for Images {
    fn drop(&mut self) {
        let _ = Command::new("docker")
            .args(["image", "rm", "--force"])
            .args(&self.0)
            .output();
    }
}

/// The `Dockerfile` of the page, with a real engine: what is fetched in it came
/// from this machine.
#[test]
fn the_dockerfile_fetches() {
    let Some(image) = builder_image() else { return };
    // The engine knows no digest of an image that was never pulled.
    let image = image.split('@').next().unwrap();
    let env = TestEnv::new();
    // Crates are in the folder: the container has no registry.
    let vendored = |project: &Project| {
        fs::create_dir_all(project.path(".cargo")).unwrap();
        let vendor = env
            .cargo(project, &["vendor", "--locked", "vendor"])
            .success();
        fs::write(project.path(".cargo/config.toml"), vendor.stdout).unwrap();
    };
    let toolchain = BUILDER.split_once('-').unwrap().0;
    let maker = env.with("RUSTUP_TOOLCHAIN", toolchain);
    let project = env.project("tiny");
    vendored(&project);
    let _ = maker
        .quickbuild(&project, &["build", "--release"])
        .success();
    let made = maker.quickbuild(&project, &["key", "generate", "ci.example.org-1"]);
    let public = made.success().stdout.trim_end().to_owned();
    let _ = maker
        .quickbuild(&project, &["key", "sign", "ci.example.org-1", "--all"])
        .success();
    let place = env.root().join("cache");
    let push = ["push", place.to_str().unwrap(), "--all", "--include-local"];
    let _ = maker.quickbuild(&project, &push).success();

    // An image with the program and nothing else.
    let own = format!("quickbuild-test-{}", std::process::id());
    let images = Images(vec![format!("{own}:program"), format!("{own}:built")]);
    let folder = env.root().join("image/usr/local/bin");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_quickbuild"), folder.join("quickbuild")).unwrap();
    let tar = env.root().join("image.tar");
    let mut pack = Command::new("tar");
    pack.arg("cf")
        .arg(&tar)
        .arg("-C")
        .arg(env.root().join("image"))
        .arg("usr");
    assert!(pack.status().unwrap().success());
    docker(
        &env.root(),
        &["import", tar.to_str().unwrap(), &images.0[0]],
    );

    let checkout = env.checkout(&project);
    vendored(&checkout);
    let dockerfile = read("docs/ci.md");
    let dockerfile = block(&dockerfile, "Docker", "dockerfile");
    fs::write(checkout.path("Dockerfile"), dockerfile).unwrap();
    let server = Server::new(&place);
    let arguments = |name: &str, value: &str| format!("{name}={value}");
    let values = [
        arguments("RUST", image),
        arguments("QUICKBUILD", &images.0[0]),
        arguments("SUBSTITUTER", &server.url()),
        arguments("PUBLIC_KEY", &public),
    ];
    let mut build = vec![
        "build",
        "--network",
        "host",
        "--no-cache",
        "--tag",
        &images.0[1],
    ];
    for value in &values {
        build.extend(["--build-arg", value]);
    }
    build.push(".");
    let said = docker(&checkout.dir, &build);
    assert!(said.contains("1 outputs fetched"), "{said}");
    assert!(server.requests() > 2);
}
