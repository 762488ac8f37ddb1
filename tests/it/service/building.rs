//! What enough clients want is built by workers in containers, signed, published.
//!
//! One realisation makes real outputs once; workers that do as they are told, die
//! or lie are then played by requests, and at last one is a process.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Bed;
use crate::realise::with_builder;
use crate::support::browser::Browser;
use crate::support::postgres::Postgres;
use crate::support::{BUILDER, Outcome, Response, Serving, TestEnv};

const JSON: &str = "Content-Type: application/json";
/// What has failed is tried again soon.
pub(super) const SOON: [&str; 2] = ["--retry", "1s"];

/// What is wanted, and what a container makes of it.
pub(super) struct Wanted {
    pub(super) report: Value,
    /// The recipe of `fnv`.
    pub(super) recipe: String,
    pub(super) export: Vec<u8>,
}

/// The environment keeps the engine's image pinned.
pub(super) fn wanted(env: &TestEnv) -> &'static Wanted {
    static WANTED: OnceLock<Wanted> = OnceLock::new();
    WANTED.get_or_init(|| {
        let env = env.with_store(&env.root().join("made"));
        let env = env.with("QUICKBUILD_SUBSTITUTERS", "");
        let project = env.project("tiny");
        let shown = ["plan", "build", "--show-report"];
        let shown = env.quickbuild(&project, &shown).success();
        let mut report: Value = serde_json::from_str(&shown.stdout).unwrap();
        report.as_object_mut().unwrap().remove("usage");
        let texts = report["recipes"].as_array().unwrap();
        let recipe = texts.last().unwrap().as_str().unwrap();
        assert!(recipe.contains("name = \"fnv\""), "{recipe}");
        let folder = env.root().join("wanted");
        let export = ["recipe", "export", "--to", folder.to_str().unwrap()];
        let _ = env.quickbuild(&project, &export).success();
        let file = crate::support::walk(&folder);
        let stem = file[0].file_stem().unwrap().to_str().unwrap();
        let hash = stem.rsplit_once('-').unwrap().1.to_owned();
        let realise = ["realise", &hash, "--repository", folder.to_str().unwrap()];
        let realise = [&realise[..], &["--builder", "docker", "--format", "json"]].concat();
        let made = env.quickbuild(&project, &realise).success();
        let made: Value = serde_json::from_str(&made.stdout).unwrap();
        assert_ne!(made["outputs"], json!([]), "{made}");
        let path = env.root().join("outputs");
        let export = ["store", "export", path.to_str().unwrap()];
        let _ = env.quickbuild(&project, &export).success();
        Wanted {
            report,
            recipe: hash,
            export: fs::read(path).unwrap(),
        }
    })
}

/// A bed whose service builds; a key `service-1` signs.
pub(super) fn beds() -> Vec<Bed> {
    let Some(env) = with_builder() else {
        return Vec::new();
    };
    let mut beds = vec![Bed {
        project: env.project("tiny"),
        env: env.clone(),
        postgres: None,
    }];
    if let Some(postgres) = Postgres::start() {
        let env = with_builder().unwrap();
        let env = env.with("QUICKBUILD_SERVICE_DATABASE", postgres.url());
        let bed = Bed {
            project: env.project("tiny"),
            env,
            postgres: Some(postgres),
        };
        let _ = bed.run(&["service", "migrate"]).success();
        beds.push(bed);
    }
    for bed in &beds {
        let _ = bed.run(&["key", "generate", "service-1"]).success();
    }
    beds
}

impl Bed {
    pub(super) fn builds(&self, arguments: &[&str]) -> Serving {
        let own = ["--key", "service-1", "--threshold", "2"];
        self.start(&[&own[..], arguments].concat())
    }
}

/// Reports what is wanted for somebody.
#[track_caller]
pub(super) fn want(server: &Serving, wanted: &Wanted, from: &str) {
    let from = format!("X-Forwarded-For: {from}");
    let body = wanted.report.to_string();
    let counted = server.post("/v1/lockfiles", &[&from, JSON], body.as_bytes());
    assert_eq!(counted.status, 200, "{counted:?}");
}

/// A worker that a test plays.
pub(super) struct Worker<'a> {
    pub(super) server: &'a Serving,
    pub(super) name: &'static str,
    pub(super) token: String,
}

impl Worker<'_> {
    pub(super) fn post(&self, path: &str, body: &Value) -> Response {
        let token = format!("Authorization: Bearer {}", self.token);
        let body = body.to_string();
        self.server.post(path, &[&token, JSON], body.as_bytes())
    }

    pub(super) fn ask(&self) -> Response {
        let ask = json!({"format": 1, "worker": self.name, "builders": [BUILDER]});
        self.post("/v1/work", &ask)
    }

    /// A lease, within some seconds.
    #[track_caller]
    pub(super) fn lease(&self) -> String {
        self.job()["lease"].as_str().unwrap().to_owned()
    }

    /// Something to build, within some seconds.
    #[track_caller]
    pub(super) fn job(&self) -> Value {
        let begin = Instant::now();
        loop {
            let answer = self.ask();
            if answer.status == 200 {
                return answer.json();
            }
            assert_eq!(answer.status, 204, "{answer:?}");
            assert!(begin.elapsed() < Duration::from_secs(60), "nothing to do");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub(super) fn alive(&self, lease: &str, log: &str) -> u16 {
        let path = format!("/v1/work/{lease}/alive");
        self.post(&path, &json!({"log": log})).status
    }

    pub(super) fn failed(&self, lease: &str, recipe: bool) -> u16 {
        let path = format!("/v1/work/{lease}/failed");
        let failed = json!({"recipe": recipe, "reason": "no", "log": "error: no\n"});
        self.post(&path, &failed).status
    }

    pub(super) fn send(&self, lease: &str, export: &[u8]) -> Response {
        let token = format!("Authorization: Bearer {}", self.token);
        let path = format!("/v1/work/{lease}/outputs");
        self.server.put(&path, &[&token], export)
    }
}

pub(super) fn worker<'a>(
    bed: &Bed,
    server: &'a Serving,
    name: &'static str,
    scope: &str,
) -> Worker<'a> {
    Worker {
        server,
        name,
        token: bed.token(name, scope),
    }
}

/// The build of the wanted recipe.
pub(super) fn build(server: &Serving, wanted: &Wanted) -> Option<Value> {
    let found = server.get(&format!("/v1/builds?recipe={}", wanted.recipe), &[]);
    assert_eq!(found.status, 200, "{found:?}");
    found.json()["builds"].as_array().unwrap().first().cloned()
}

/// Waits until the build is in a state.
#[track_caller]
pub(super) fn until(server: &Serving, wanted: &Wanted, state: &str) -> Value {
    let begin = Instant::now();
    loop {
        let build = build(server, wanted);
        if let Some(build) = build.as_ref().filter(|build| build["state"] == state) {
            return build.clone();
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{build:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub(super) fn public(bed: &Bed) -> PathBuf {
    bed.project.path("service/public")
}

/// What a client with an empty store finds at the service's substituter.
pub(super) fn client(bed: &Bed) -> Outcome {
    let key = bed.run(&["key", "show", "service-1"]).success();
    let client = bed.env.with_store(&bed.env.root().join("client"));
    let client = client.with("QUICKBUILD_SUBSTITUTERS", public(bed).to_str().unwrap());
    let client = client.with("QUICKBUILD_PUBLIC_KEYS", key.stdout.trim());
    let fetch = ["substitute", "build"];
    let _ = client.quickbuild(&bed.project, &fetch).success();
    client.cargo(&bed.project, &["build"]).success()
}

#[test]
fn what_enough_want_is_built_once_signed_and_used_by_plain_cargo() {
    for bed in beds() {
        let server = bed.builds(&[]);
        let wanted = wanted(&bed.env);
        let trusted = worker(&bed, &server, "trusted", "work-trusted");
        want(&server, wanted, "192.0.2.1");
        want(&server, wanted, "192.0.2.1");
        assert_eq!(trusted.ask().status, 204, "one voice is not enough");
        want(&server, wanted, "192.0.2.2");
        let lease = trusted.lease();
        assert_eq!(trusted.ask().status, 204, "it is built once");
        assert_eq!(trusted.alive(&lease, "Compiling fnv\n"), 204);
        let sent = trusted.send(&lease, &wanted.export);
        assert_eq!(sent.status, 200, "{sent:?}");
        assert!(sent.json()["accepted"].as_u64().unwrap() > 0, "{sent:?}");
        let again = trusted.send(&lease, &wanted.export);
        assert_eq!(again.status, 409, "a result is taken once: {again:?}");
        until(&server, wanted, "built");
        want(&server, wanted, "192.0.2.3");
        assert_eq!(trusted.ask().status, 204);
        let built = client(&bed);
        assert!(!built.stderr.contains("Compiling fnv"), "{built}");
        let metrics = server.get("/metrics", &[]).text();
        let is_counted = metrics.contains("quickbuild_service_builds{state=\"built\"} 1\n");
        assert!(is_counted, "{metrics}");
    }
}

#[test]
fn workers_that_are_not_believed_must_agree() {
    for bed in beds() {
        let server = bed.builds(&SOON);
        let wanted = wanted(&bed.env);
        let one = worker(&bed, &server, "one", "work");
        let two = worker(&bed, &server, "two", "work");
        want(&server, wanted, "192.0.2.1");
        want(&server, wanted, "192.0.2.2");
        let lease = one.lease();
        let sent = one.send(&lease, &wanted.export);
        assert_eq!(sent.json()["accepted"], 0, "{sent:?}");
        assert!(sent.json()["waiting"].as_u64().unwrap() > 0, "{sent:?}");
        assert!(!public(&bed).join("recipes").exists());
        // Nobody confirms themselves.
        assert_eq!(one.ask().status, 204);
        let lease = two.lease();
        let sent = two.send(&lease, &wanted.export);
        assert_eq!(sent.json()["waiting"], 0, "{sent:?}");
        until(&server, wanted, "built");
        let built = client(&bed);
        assert!(!built.stderr.contains("Compiling fnv"), "{built}");
    }
}

/// Of one build: a worker that dies, one that comes back late, one that lies in
/// five ways, a server that is killed three times; then it is built, once.
#[test]
fn whatever_workers_and_servers_do_a_build_is_neither_lost_nor_done_twice() {
    for bed in beds() {
        let mut server = bed.builds(&SOON);
        let wanted = wanted(&bed.env);
        want(&server, wanted, "192.0.2.1");
        want(&server, wanted, "192.0.2.2");
        let tokens = ["dead", "liar", "good"].map(|name| bed.token(name, "work-trusted"));
        // It takes the build and is not heard of again; the server is killed, too.
        let late = {
            let [dead, ..] = play(&server, &tokens);
            dead.lease()
        };
        server.kill();
        server = bed.builds(&["--lease", "10s", "--retry", "1s"]);
        let lease = {
            let [_, liar, _] = play(&server, &tokens);
            liar.lease()
        };
        let [dead, liar, _] = play(&server, &tokens);
        assert_eq!(dead.alive(&late, ""), 409);
        let sent = dead.send(&late, &wanted.export);
        assert_eq!(sent.status, 409, "it comes back late: {sent:?}");
        // Whose lease it is not.
        assert_eq!(dead.send(&lease, &wanted.export).status, 409);
        let mut flipped = wanted.export.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        let half = &wanted.export[..middle];
        let local = other_outputs(&bed);
        let lies: [&[u8]; 4] = [b"no archive", &flipped, half, &local];
        let mut lease = lease;
        for (number, lie) in lies.into_iter().enumerate() {
            let sent = liar.send(&lease, lie);
            assert_eq!(sent.status, 422, "lie {number}: {sent:?}");
            assert!(!public(&bed).join("recipes").exists());
            lease = liar.lease();
        }
        server.kill();
        server = bed.builds(&SOON);
        let [_, liar, good] = play(&server, &tokens);
        assert_eq!(liar.alive(&lease, ""), 204, "the lease outlives the server");
        assert_eq!(liar.failed(&lease, false), 204);
        let lease = good.lease();
        let sent = good.send(&lease, &wanted.export);
        assert_eq!(sent.status, 200, "{sent:?}");
        server.kill();
        server = bed.builds(&SOON);
        let [_, _, good] = play(&server, &tokens);
        let built = until(&server, wanted, "built");
        assert_eq!(good.ask().status, 204);
        let tries = server
            .get(&format!("/v1/builds/{}", built["id"]), &[])
            .json();
        let outcomes = tries["tries"].as_array().unwrap().iter();
        let outcomes: Vec<&str> = outcomes.map(|t| t["outcome"].as_str().unwrap()).collect();
        let count = |what: &str| outcomes.iter().filter(|outcome| **outcome == what).count();
        let told = (count("built"), count("lost"), count("returned"));
        assert_eq!(told, (1, 1, 5), "{outcomes:?}");
    }
}

/// Three workers that tests play, with these tokens.
fn play<'a>(server: &'a Serving, tokens: &[String; 3]) -> [Worker<'a>; 3] {
    let worker = |name, token: &String| Worker {
        server,
        name,
        token: token.clone(),
    };
    let [dead, liar, good] = tokens;
    [
        worker("dead", dead),
        worker("liar", liar),
        worker("good", good),
    ]
}

/// What was compiled on this machine, as an export.
fn other_outputs(bed: &Bed) -> Vec<u8> {
    let env = bed.env.with_store(&bed.env.root().join("own"));
    let project = env.project("tiny");
    env.built(&project, &["build"]);
    let path = env.root().join("own-outputs");
    let export = ["store", "export", path.to_str().unwrap(), "fnv"];
    let _ = env.quickbuild(&project, &export).success();
    fs::read(path).unwrap()
}

#[test]
fn what_fails_rests_and_keeps_its_log_and_strangers_lease_nothing() {
    for bed in beds() {
        let server = bed.builds(&["--retry", "0s"]);
        let wanted = wanted(&bed.env);
        want(&server, wanted, "192.0.2.1");
        want(&server, wanted, "192.0.2.2");
        let ask = json!({"format": 1, "worker": "w", "builders": [BUILDER]}).to_string();
        let nobody = server.post("/v1/work", &[JSON], ask.as_bytes());
        assert_eq!(nobody.status, 401, "{nobody:?}");
        let reporter = worker(&bed, &server, "reporter", "report");
        assert_eq!(reporter.ask().status, 403);
        let worker = worker(&bed, &server, "worker", "work");
        let other = json!({"format": 1, "worker": "w", "builders": ["1.0.0-other"]});
        for _ in 0..5 {
            let lease = worker.lease();
            assert_eq!(worker.post("/v1/work", &other).status, 204);
            assert_eq!(worker.failed(&lease, true), 204);
            assert_eq!(worker.failed(&lease, true), 409);
        }
        let build = until(&server, wanted, "resting");
        let after = build["after"].as_i64().unwrap() - build["since"].as_i64().unwrap();
        assert!((6 * 86_400..=7 * 86_400 + 120).contains(&after), "{build}");
        assert_eq!(worker.ask().status, 204);
        let told = server
            .get(&format!("/v1/builds/{}", build["id"]), &[])
            .json();
        let tries = told["tries"].as_array().unwrap();
        assert_eq!(tries.len(), 5, "{told}");
        assert_eq!(tries[0]["log"], "error: no\n");
    }
}

/// What another image has made than the one that the service pins is refused,
/// and a recipe with flags of its own is not built at all.
#[test]
fn other_images_and_strangers_flags_are_refused() {
    let Some(bed) = beds().into_iter().next() else {
        return;
    };
    let wanted = wanted(&bed.env);
    let other = bed.env.root().join("other.toml");
    let digest = "0".repeat(64);
    let text =
        format!("[builders.\"{BUILDER}\"]\nimage = \"quickbuild-builder:other@sha256:{digest}\"\n");
    fs::write(&other, text).unwrap();
    let pinned = Bed {
        env: bed.env.with("QUICKBUILD_CONFIG", other.to_str().unwrap()),
        project: bed.env.project("tiny"),
        postgres: None,
    };
    let server = pinned.builds(&[]);
    want(&server, wanted, "192.0.2.1");
    want(&server, wanted, "192.0.2.2");
    let trusted = worker(&pinned, &server, "box", "work-trusted");
    let sent = trusted.send(&trusted.lease(), &wanted.export);
    assert_eq!(sent.status, 422, "{sent:?}");
    assert!(sent.text().contains("image"), "{sent:?}");

    let flags = bed.env.with("RUSTFLAGS", "-Clinker=/tmp/evil");
    let folder = flags.root().join("flags");
    let export = ["recipe", "export", "--to", folder.to_str().unwrap()];
    let _ = flags.quickbuild(&bed.project, &export).success();
    let files = crate::support::walk(&folder);
    let texts: Vec<String> = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    assert!(texts[0].contains("evil"), "{texts:?}");
    let stem = files[0].file_stem().unwrap().to_str().unwrap();
    let evil = Wanted {
        report: json!({"format": 1, "recipes": texts}),
        recipe: stem.rsplit_once('-').unwrap().1.to_owned(),
        export: Vec::new(),
    };
    want(&server, &evil, "192.0.2.3");
    want(&server, &evil, "192.0.2.4");
    let refused = until(&server, &evil, "refused");
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("rustflags"), "{refused}");
}

#[test]
fn people_watch_a_build_in_a_browser() {
    let (Some(browser), Some(bed)) = (Browser::start(), beds().into_iter().next()) else {
        return;
    };
    let server = bed.builds(&[]);
    let wanted = wanted(&bed.env);
    want(&server, wanted, "192.0.2.1");
    want(&server, wanted, "192.0.2.2");
    let trusted = worker(&bed, &server, "box", "work-trusted");
    let lease = trusted.lease();
    browser.open(&format!("{}/builds", server.url()));
    browser.shows("h1", "Builds");
    browser.find("tbody a").click();
    browser.shows("h1", "Build of fnv 1.0.7");
    browser.shows("#state", "leased");
    // What comes later is shown without asking for the page again.
    assert_eq!(trusted.alive(&lease, "Compiling fnv <b>1.0.7</b>\n"), 204);
    browser.shows("#log", "Compiling fnv <b>1.0.7</b>");
    assert_eq!(trusted.send(&lease, &wanted.export).status, 200);
    browser.shows("#state", "built");
    browser.shows("tbody td:nth-child(4)", "built");
    let picture = browser.picture("build");
    assert!(picture.starts_with(b"\x89PNG"));
    browser.open(&format!("{}/wants/{}", server.url(), wanted.recipe));
    browser.shows("tbody td:last-child", "by one worker");
    browser.open(&format!("{}/workers", server.url()));
    browser.shows("tbody th", "box");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    for absent in [
        "/builds/999",
        "/builds/x",
        "/builds/x/events",
        "/v1/builds/x",
    ] {
        assert_eq!(server.get(absent, &[]).status, 404, "{absent}");
    }
    let nobody = server.get("/builds/999/events", &[]);
    assert_eq!(nobody.status, 404);
}

#[test]
fn builders_have_a_budget_for_a_day_and_nothing_is_built_that_nobody_signs() {
    let Some(bed) = beds().into_iter().next() else {
        return;
    };
    let wanted = wanted(&bed.env);
    let token = bed.token("worker", "work");
    let asked = |server: &Serving| {
        let token = token.clone();
        let name = "worker";
        let worker = Worker {
            server,
            name,
            token,
        };
        worker.ask().status
    };
    let spent = bed.builds(&["--budget", "0s"]);
    want(&spent, wanted, "192.0.2.1");
    want(&spent, wanted, "192.0.2.2");
    until(&spent, wanted, "queued");
    assert_eq!(asked(&spent), 204);
    drop(spent);
    assert_eq!(asked(&bed.start(&[])), 204);
    let server = bed.builds(&[]);
    let worker = Worker {
        server: &server,
        name: "worker",
        token: token.clone(),
    };
    // A server that was ended may not have told the queue yet.
    let _ = worker.lease();
}

#[test]
fn a_worker_realises_in_a_container_and_a_client_finds_it_fresh() {
    for bed in beds() {
        let server = bed.builds(&[]);
        let wanted = wanted(&bed.env);
        want(&server, wanted, "192.0.2.1");
        want(&server, wanted, "192.0.2.2");
        until(&server, wanted, "queued");
        let store = bed.env.root().join("worker");
        let own = bed.env.with_store(&store);
        let url = server.url();
        let run = |own: &TestEnv| {
            let words = ["worker", "--server", &url, "--once", "--name", "box"];
            own.quickbuild(&bed.project, &words)
        };
        let refused = run(&own);
        assert_eq!(refused.code, Some(3), "{refused}");
        let wrong = run(&own.with("QUICKBUILD_WORKER_TOKEN", "qbs_wrong"));
        assert!(wrong.stderr.contains("scope `work`"), "{wrong}");
        let token = bed.token("box", "work-trusted");
        let done = run(&own.with("QUICKBUILD_WORKER_TOKEN", &token)).success();
        assert!(done.stderr.contains("outputs are published"), "{done}");
        let built = until(&server, wanted, "built");
        let told = server
            .get(&format!("/v1/builds/{}", built["id"]), &[])
            .json();
        let log = told["tries"][0]["log"].as_str().unwrap();
        assert!(log.contains("Compiling fnv"), "{log}");
        let built = client(&bed);
        assert!(!built.stderr.contains("Compiling fnv"), "{built}");
    }
}
