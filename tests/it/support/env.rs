//! A cleared environment with its own HOME, TMPDIR and store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::{Outcome, copy_tree};

/// The name under which rustup knows nightly.
const NIGHTLY: &str = "nightly-x86_64-unknown-linux-gnu";

/// Folders and variables for commands. A clone shares the folders.
#[derive(Debug, Clone)]
pub(crate) struct TestEnv {
    folder: Arc<TempDir>,
    variables: BTreeMap<String, String>,
}

/// A copy of a fixture.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    fixture: &'static str,
    /// The workspace's folder.
    pub(crate) dir: PathBuf,
}

impl Project {
    /// A file of the project.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.join(relative)
    }
}

impl TestEnv {
    /// An empty store and nothing else.
    ///
    /// CARGO_HOME is the caller's, so that crates are not downloaded for each
    /// test; see [`Self::with_another_cargo_home`].
    pub(crate) fn new() -> Self {
        let folder = TempDir::with_prefix("quickbuild-it-").unwrap();
        // Cargo resolves symbolic links in paths; so does what is compared.
        let root = folder.path().canonicalize().unwrap();
        let mut variables = passed_on();
        let mut set = |name: &str, value: &Path| {
            variables.insert(name.to_owned(), value.to_str().unwrap().to_owned());
        };
        for (name, sub) in [
            ("HOME", "home"),
            ("TMPDIR", "tmp"),
            ("QUICKBUILD_STORE", "store"),
        ] {
            set(name, &root.join(sub));
        }
        set("CARGO_HOME", &callers_home("CARGO_HOME", ".cargo"));
        set("RUSTUP_HOME", &callers_home("RUSTUP_HOME", ".rustup"));
        for sub in ["home", "tmp", "projects"] {
            std::fs::create_dir(root.join(sub)).unwrap();
        }
        Self {
            folder: Arc::new(folder),
            variables,
        }
    }

    /// The same with a variable set.
    pub(crate) fn with(&self, name: &str, value: impl AsRef<str>) -> Self {
        let mut env = self.clone();
        env.variables
            .insert(name.to_owned(), value.as_ref().to_owned());
        env
    }

    /// A variable that commands have.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The same with another CARGO_HOME that has the same crates: their files
    /// are hardlinks, which keep the times that Cargo may look at.
    pub(crate) fn with_another_cargo_home(&self) -> Self {
        let home = self.root().join("other-cargo-home");
        std::fs::create_dir_all(&home).unwrap();
        let mut copy = Command::new("cp");
        let registry = self.cargo_home().join("registry");
        copy.arg("-al").arg(registry).arg(&home);
        let hardlinked = copy.stderr(Stdio::null()).status().unwrap().success();
        if !hardlinked {
            // Another device; the times are kept all the same.
            let mut copy = Command::new("cp");
            copy.arg("-a")
                .arg(self.cargo_home().join("registry"))
                .arg(&home);
            assert!(copy.status().unwrap().success());
        }
        for config in ["config.toml", "config"] {
            let _ = std::fs::copy(self.cargo_home().join(config), home.join(config));
        }
        self.with("CARGO_HOME", home.to_str().unwrap())
    }

    /// The same with another, empty store.
    pub(crate) fn with_store(&self, store: &Path) -> Self {
        self.with("QUICKBUILD_STORE", store.to_str().unwrap())
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    pub(crate) fn store(&self) -> PathBuf {
        PathBuf::from(&self.variables["QUICKBUILD_STORE"])
    }

    fn cargo_home(&self) -> PathBuf {
        PathBuf::from(&self.variables["CARGO_HOME"])
    }

    /// A copy of a fixture in a folder of its own. The workspace is in
    /// `project/` if the fixture has that.
    pub(crate) fn project(&self, fixture: &'static str) -> Project {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Paths of different lengths, so that one is not written over another.
        let folder = self
            .root()
            .join("projects")
            .join(format!("{fixture}-{count}"));
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        copy_tree(&fixtures.join(fixture), &folder);
        let nested = folder.join("project");
        let dir = if nested.is_dir() { nested } else { folder };
        Project { fixture, dir }
    }

    /// Another checkout of the same project, as it was at the beginning.
    pub(crate) fn checkout(&self, project: &Project) -> Project {
        self.project(project.fixture)
    }

    pub(crate) fn quickbuild(&self, project: &Project, arguments: &[&str]) -> Outcome {
        self.run(self.quickbuild_command(project, arguments))
    }

    /// Runs quickbuild where a folder looks empty; `None` where that cannot be
    /// arranged.
    pub(crate) fn quickbuild_without(
        &self,
        hidden: &Path,
        project: &Project,
        arguments: &[&str],
    ) -> Option<Outcome> {
        let can_unshare = Command::new("unshare").args(["--mount", "true"]).status();
        if !can_unshare.is_ok_and(|status| status.success()) {
            return None;
        }
        let hidden = hidden.to_str().unwrap();
        let hide = "mount -t tmpfs tmpfs \"$0\" || exit 99; exec \"$@\"";
        let mut words = vec!["--mount", "sh", "-c", hide, hidden];
        words.push(env!("CARGO_BIN_EXE_quickbuild"));
        words.extend(arguments);
        let outcome = self.run(self.command("unshare", project, &words));
        (outcome.code != Some(99)).then_some(outcome)
    }

    /// Starts quickbuild and does not wait for it.
    pub(crate) fn spawn_quickbuild(&self, project: &Project, arguments: &[&str]) -> Child {
        let mut command = self.quickbuild_command(project, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Starts quickbuild in a group of processes of its own, to be ended by
    /// [`kill_group`]; nobody hears what it says.
    pub(crate) fn spawn_group(&self, project: &Project, arguments: &[&str]) -> Child {
        use std::os::unix::process::CommandExt as _;
        let mut command = self.quickbuild_command(project, arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.process_group(0).spawn().unwrap()
    }

    /// Starts quickbuild on a terminal of its own; what is shown there comes out
    /// of standard output.
    pub(crate) fn spawn_in_terminal(&self, project: &Project, arguments: &[&str]) -> Child {
        let mut words = vec![env!("CARGO_BIN_EXE_quickbuild")];
        words.extend(arguments);
        let line = words.join(" ");
        let script = [
            "--quiet",
            "--flush",
            "--return",
            "--command",
            &line,
            "/dev/null",
        ];
        let mut command = self
            .with("TERM", "xterm")
            .command("script", project, &script);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn quickbuild_command(&self, project: &Project, arguments: &[&str]) -> Command {
        self.command(env!("CARGO_BIN_EXE_quickbuild"), project, arguments)
    }

    /// A script, as a CI runs it.
    pub(crate) fn shell(&self, project: &Project, script: &str) -> Outcome {
        let words = ["--noprofile", "--norc", "-eo", "pipefail", "-c", script];
        self.run(self.command("bash", project, &words))
    }

    /// Plain Cargo.
    pub(crate) fn cargo(&self, project: &Project, arguments: &[&str]) -> Outcome {
        self.run(self.command("cargo", project, arguments))
    }

    /// Runs a program of the project.
    pub(crate) fn program(&self, project: &Project, relative: &str) -> Outcome {
        let program = project.path(relative);
        self.run(self.command(program.to_str().unwrap(), project, &[]))
    }

    /// Packages that plain Cargo does not find Fresh; it compiles them.
    #[track_caller]
    pub(crate) fn stale(
        &self,
        project: &Project,
        arguments: &[&str],
    ) -> std::collections::BTreeSet<String> {
        self.cargo(project, &in_json(arguments)).success().stale()
    }

    /// Fails unless plain Cargo finds every unit Fresh.
    #[track_caller]
    pub(crate) fn assert_fresh(&self, project: &Project, arguments: &[&str]) {
        let stale = self.stale(project, arguments);
        assert!(
            stale.is_empty(),
            "not Fresh after `cargo {}`: {stale:?}",
            arguments.join(" ")
        );
    }

    /// Starts `quickbuild` with `--message-format=json` and tells which
    /// packages were compiled.
    #[track_caller]
    pub(crate) fn built(
        &self,
        project: &Project,
        arguments: &[&str],
    ) -> std::collections::BTreeSet<String> {
        self.quickbuild(project, &in_json(arguments))
            .success()
            .stale()
    }

    fn command(&self, program: &str, project: &Project, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&project.dir)
            .stdin(Stdio::null())
            .env_clear()
            .envs(&self.variables);
        command
    }

    fn run(&self, mut command: Command) -> Outcome {
        let output = command.output().unwrap();
        Outcome::new(&command, &output)
    }
}

/// A command that says in JSON what was Fresh.
fn in_json<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec![arguments[0], "--message-format=json"];
    all.extend(&arguments[1..]);
    all
}

/// Variables that a command needs and that change no result: where programs
/// are, which toolchain to use, how to reach the registry.
fn passed_on() -> BTreeMap<String, String> {
    const NAMES: [&str; 4] = ["PATH", "RUSTUP_TOOLCHAIN", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    const PREFIXES: [&str; 5] = [
        "DOCKER_",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
    ];
    let is_passed_on = |name: &str| {
        NAMES.contains(&name)
            || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || name.to_ascii_lowercase().ends_with("_proxy")
    };
    let mut variables: BTreeMap<String, String> = std::env::vars()
        .filter(|(name, _)| is_passed_on(name))
        .collect();
    variables.insert("LC_ALL".to_owned(), "C".to_owned());
    variables
}

fn callers_home(variable: &str, folder: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").unwrap()).join(folder),
    }
}

/// Ends all processes of a group that [`TestEnv::spawn_group`] has started, as a
/// power failure would.
pub(crate) fn kill_group(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        let group = format!("-{}", child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = child.wait();
    }
}

/// The variables that select nightly with per-unit build directories, if that
/// toolchain is installed.
pub(crate) fn nightly(env: &TestEnv) -> Option<TestEnv> {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", NIGHTLY, "rustc", "--version"]);
    rustc.stdout(Stdio::null()).stderr(Stdio::null());
    let found = rustc.status().is_ok_and(|status| status.success());
    found.then(|| {
        env.with("RUSTUP_TOOLCHAIN", NIGHTLY)
            .with("CARGO_UNSTABLE_BUILD_DIR_NEW_LAYOUT", "true")
    })
}
