//! A fresh store and a warm substituter.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::Published;
use crate::support::{Mood, Server, skipped};

#[test]
fn a_fresh_store_builds_nothing() {
    let published = Published::new();
    let server = Server::new(&published.cache);
    let folder = published.cache.to_str().unwrap().to_owned();
    for url in [folder.clone(), format!("file://{folder}"), server.url()] {
        let client = published.client(&url);
        client.assert_all_fetched();
        // What was fetched is as signed as it was.
        let verify = ["key", "verify", "--key", &published.key, "--all"];
        let _ = client.run(&verify).success();
        // And serves like what was built here.
        let second = client.env.checkout(&client.project);
        let _ = client.env.quickbuild(&second, &["build"]).nothing_built();
        client.env.assert_fresh(&second, &["build"]);
    }
}

#[test]
fn substitute_links_and_compiles_nothing() {
    let published = Published::new();
    let client = published.client(published.cache.to_str().unwrap());
    let done = client.run(&["substitute"]).success();
    assert!(done.stdout.contains("outputs fetched"), "{done}");
    client.env.assert_fresh(&client.project, &["build"]);
    client.assert_sound();
    let again = client.run(&["substitute"]).success();
    assert!(again.stdout.contains("; 0 outputs fetched"), "{again}");

    let without = published.client_with("/nowhere", "");
    let none = without.run(&["substitute", "--no-substitute"]);
    assert_eq!(none.code, Some(3), "{none}");
    let given = without.env.with("QUICKBUILD_PUBLIC_KEYS", &published.key);
    let folder = published.cache.to_str().unwrap();
    let done = given.quickbuild(&without.project, &["substitute", "--substituter", folder]);
    // Members are asked for where the configuration says so only.
    assert!(done.success().stdout.contains("; 1 outputs fetched"));
}

#[test]
fn what_is_fetched_serves_check_as_well() {
    let published = Published::new();
    let checked = published.env.checkout(&published.project);
    let _ = published.env.quickbuild(&checked, &["check"]).success();
    let _ = published.push().success();
    let client = published.folder_client();
    let _ = client.run(&["check"]).nothing_built();
    client.env.assert_fresh(&client.project, &["check"]);
}

#[test]
fn nobody_is_asked_where_that_is_not_wanted() {
    let published = Published::new();
    let server = Server::new(&published.cache);
    let client = published.client(&server.url());
    let offline = client.run(&["build", "--offline"]).success();
    assert_eq!(offline.summary().from_store, 0, "{offline}");
    let _ = client.run(&["build", "--no-substitute"]).success();
    assert_eq!(server.requests(), 0);

    // A folder needs no network.
    let client = published.folder_client();
    let _ = client.run(&["build", "--offline"]).nothing_built();
    let client = published.folder_client();
    let none = client.run(&["build", "--no-substitute"]).success();
    assert_eq!(none.summary().from_store, 0, "{none}");
    let none = published.folder_client();
    let none = none
        .env
        .with("QUICKBUILD_SUBSTITUTERS", "")
        .quickbuild(&none.project, &["build"]);
    assert_eq!(none.success().summary().from_store, 0);
}

#[test]
fn what_is_not_signed_is_used_from_the_own_disk_only() {
    let published = Published::new();
    let cache = published.cache.to_str().unwrap();
    published.client_with(cache, "").assert_all_fetched();

    let server = Server::new(&published.cache);
    let said = published.client_with(&server.url(), "").assert_all_built();
    assert!(said.contains("has no public key"), "{said}");

    fs::set_permissions(&published.cache, fs::Permissions::from_mode(0o777)).unwrap();
    let said = published.client_with(cache, "").assert_all_built();
    assert!(said.contains("has no public key"), "{said}");
    published.folder_client().assert_all_fetched();
}

#[test]
fn policies_are_obeyed() {
    let published = Published::new();
    let run = |arguments: &[&str]| published.run(arguments).success().stdout;
    let other = run(&["key", "generate", "other-1"]).trim_end().to_owned();
    let key = &published.key;
    let cache = published.cache.to_str().unwrap();
    let said = |settings: &str| published.client_with(cache, settings).assert_all_built();
    let unknown = format!("public-keys = [\"{other}\"]");
    assert!(said(&unknown).contains("none of that is trusted"));
    let both = format!("public-keys = [\"{key}\", \"{other}\"]");
    assert!(said(&format!("{both}\nsignatures = 2")).contains("too few keys"));
    let required = format!("{both}\nrequired-keys = [\"other-1\"]");
    assert!(said(&required).contains("a required key"));
    let proved = format!("{both}\nrequire-provenance = true");
    assert!(said(&proved).contains("without provenance"));

    // The second signature comes later and is added to what is published.
    let _ = run(&["key", "sign", "other-1", "--all"]);
    let pushed = published.push().success();
    assert!(pushed.stdout.contains("0 outputs published"), "{pushed}");
    for settings in [&format!("{both}\nsignatures = 2"), &required, &unknown] {
        published.client_with(cache, settings).assert_all_fetched();
    }

    let libraries = format!("{both}\nlibraries-only = true");
    let client = published.client_with(cache, &libraries);
    let built = client.run(&["build"]).success();
    let summary = built.summary();
    assert!(summary.from_store > 0 && summary.built > 0, "{built}");
    client.env.assert_fresh(&client.project, &["build"]);
}

#[test]
fn answers_are_kept_for_a_while() {
    let published = Published::new();
    let empty = published.env.root().join("empty");
    fs::create_dir_all(&empty).unwrap();
    fs::write(empty.join("quickbuild-cache.json"), "{\"format\": 1}").unwrap();
    let server = Server::new(&empty);
    let client = published.client(&server.url());
    let _ = client.run(&["substitute"]).success();
    let asked = server.requests();
    assert!(asked > 1, "{asked}");
    let _ = client.run(&["substitute"]).success();
    assert_eq!(server.requests(), asked);
    let shown = client.run(&["cache", "show", "--format", "json"]).success();
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown[0]["absent"], asked - 1, "{shown}");
    assert_eq!(shown[0]["substituter"], server.url());
    let _ = client.run(&["cache", "clear"]).success();
    let _ = client.run(&["substitute"]).success();
    assert_eq!(server.requests(), 2 * asked);
}

#[test]
fn what_is_missing_in_one_comes_from_the_next() {
    let published = Published::new();
    let half = published.env.root().join("half");
    crate::support::copy_tree(&published.cache, &half);
    for archive in super::files(&half, "archives").iter().step_by(2) {
        fs::remove_file(archive).unwrap();
    }
    let key = format!("public-keys = [\"{}\"]", published.key);
    let second = format!(
        "{key}\npriority = 10\n[[substituters]]\nurl = \"{}\"\nmembers = true\n{key}\npriority = 20",
        published.cache.display()
    );
    published
        .client_with(half.to_str().unwrap(), &second)
        .assert_all_fetched();
}

#[test]
fn who_is_let_in_shows_a_token_or_what_netrc_has() {
    let published = Published::new();
    let server = Server::moody(&published.cache, |_, _| Mood::Status(401, "X-Y: z"));
    let client = published.client(&server.url());
    let said = client.assert_all_built();
    assert!(said.contains("refuses access (401)"), "{said}");
    assert_eq!((server.requests(), server.shown()), (1, None));

    let server = Server::new(&published.cache);
    let key = format!("public-keys = [\"{}\"]", published.key);
    let settings = format!("{key}\ntoken-variable = \"CACHE_TOKEN\"");
    let mut client = published.client_with(&server.url(), &settings);
    client.env = client.env.with("CACHE_TOKEN", "secret");
    client.assert_all_fetched();
    assert_eq!(server.shown().as_deref(), Some("Bearer secret"));

    let netrc = published.env.root().join("netrc");
    fs::write(&netrc, "machine 127.0.0.1 login user password pass\n").unwrap();
    let mut client = published.client_with(&server.url(), &key);
    client.env = client.env.with("NETRC", netrc.to_str().unwrap());
    client.assert_all_fetched();
    assert_eq!(server.shown().as_deref(), Some("Basic dXNlcjpwYXNz"));
    // A URL is printed, so it may not have a secret.
    let url = server.url().replace("http://", "http://user:secret@");
    let said = published.client_with(&url, &key).assert_all_built();
    assert!(
        said.contains("credentials") && !said.contains("secret"),
        "{said}"
    );
}

/// What is asked for before archives: the substituter, then closures. That is
/// two round trips, however many units there are.
#[test]
fn a_tree_is_learned_in_one_request() {
    let published = Published::new();
    let paths = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&paths);
    let server = Server::moody(&published.cache, move |path, _| {
        noted.lock().unwrap().push(path.to_owned());
        Mood::Good
    });
    published.client(&server.url()).assert_all_fetched();
    let paths = paths.lock().unwrap();
    let kinds = paths.iter().map(|path| path.split('/').nth(1).unwrap());
    let kinds: Vec<&str> = kinds.collect();
    let archives = kinds.iter().filter(|kind| **kind == "archives").count();
    assert!(archives > 3, "{paths:?}");
    let before = &kinds[..kinds.len() - archives];
    assert_eq!(before, ["quickbuild-cache.json", "closures"], "{paths:?}");
}

/// Requests for other hosts go to the proxy that the environment names.
#[test]
fn proxies_are_those_of_the_environment() {
    let published = Published::new();
    let server = Server::moody(&published.cache, |_, _| Mood::Status(418, "X-Y: z"));
    let mut client = published.client("http://cache.example.org");
    client.env = client
        .env
        .with("http_proxy", server.url())
        .with("no_proxy", "");
    let said = client.assert_all_built();
    assert!(said.contains("answers 418"), "{said}");
    assert_eq!(server.requests(), 1);
}

/// A real nginx over HTTP, with dependencies of all kinds from the registry.
#[test]
fn nginx_is_a_substituter() {
    let Some(nginx) = Nginx::start() else {
        return;
    };
    let published = Published::new();
    let key = published.key.clone();
    let crates = published.env.project("crates");
    let env = &published.env;
    let _ = env.quickbuild(&crates, &["build"]).success();
    let _ = env
        .quickbuild(&crates, &["key", "sign", super::KEY, "--all"])
        .success();
    let to = nginx.root.to_str().unwrap();
    let push = ["push", to, "--workspace", "--include-local"];
    let _ = env.quickbuild(&crates, &push).success();

    let client = published.client_with(&nginx.url(), &format!("public-keys = [\"{key}\"]"));
    let other = client.env.checkout(&crates);
    let built = client.env.quickbuild(&other, &["build"]).nothing_built();
    assert!(built.stderr.contains("outputs fetched"), "{built}");
    client.env.assert_fresh(&other, &["build"]);
    client.assert_sound();
}

/// An nginx of our own.
pub(super) struct Nginx {
    process: Child,
    pub(super) root: PathBuf,
    port: u16,
    folder: tempfile::TempDir,
}

impl Nginx {
    fn start() -> Option<Self> {
        Self::listening("", "")
    }

    /// One that listens with these parameters and has these settings.
    pub(super) fn listening(parameters: &str, settings: &str) -> Option<Self> {
        let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"];
        let Some(program) = program.iter().find(|path| Path::new(path).is_file()) else {
            skipped("nginx", "nginx is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // Its workers are another user when root starts it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = folder.path().join("www");
        fs::create_dir(&root).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        let here = folder.path().display();
        let config = format!(
            "daemon off; pid {here}/pid; error_log {here}/error.log;\n\
             events {{}}\n\
             http {{ log_format protocol '$server_protocol $uri'; access_log {here}/access.log protocol; client_body_temp_path {here}/body; proxy_temp_path {here}/p;\n\
             fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
             server {{ listen 127.0.0.1:{port} {parameters}; root {here}/www; {settings} }} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).stdin(Stdio::null());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let nginx = Self {
            process: process.unwrap(),
            root,
            port,
            folder,
        };
        let answers = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        for _ in 0..1_000 {
            if answers() {
                return Some(nginx);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("nginx does not answer");
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Protocol and path of each request.
    pub(super) fn requests(&self) -> String {
        fs::read_to_string(self.folder.path().join("access.log")).unwrap()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let id = self.process.id().to_string();
        let _ = Command::new("kill").arg(id).status();
        let _ = self.process.wait();
    }
}
