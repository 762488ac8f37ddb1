//! What clients tell the service: only what the user wants, and nothing private.

use std::fs;

use serde_json::Value;

use super::Bed;
use crate::support::{Mood, Server, TestEnv};

/// Switches reports on, in the user's own file.
fn switch_on(env: &TestEnv, url: &str) {
    let folder = env.root().join("home/.config/quickbuild");
    fs::create_dir_all(&folder).unwrap();
    let text = format!("[service]\nurl = \"{url}\"\nreport = true\n");
    fs::write(folder.join("quickbuild.toml"), text).unwrap();
}

#[test]
fn a_miss_is_reported_as_it_was_shown_and_only_if_that_is_wanted() {
    let bed = Bed::sqlite();
    let server = bed.start(&[]);
    let project = bed.env.project("small");
    let totals = || server.get("/v1/totals", &[]).json();

    // A project cannot switch reports on for whoever clones it.
    let theirs = format!("[service]\nurl = \"{}\"\nreport = true\n", server.url());
    fs::write(project.path("quickbuild.toml"), theirs).unwrap();
    let shown = bed
        .env
        .quickbuild(&project, &["plan", "--show-report"])
        .success();
    assert!(shown.stderr.contains("switched off"), "{shown}");
    bed.env.built(&project, &["check"]);
    assert_eq!(totals()["wants"], 0);

    switch_on(&bed.env, &server.url());
    let shown = bed
        .env
        .quickbuild(&project, &["plan", "build", "--show-report"])
        .success();
    assert!(shown.stderr.contains(&server.url()), "{shown}");
    assert_eq!(totals()["wants"], 0, "showing is not sending");
    let mut shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    bed.env.built(&project, &["build"]);
    let after = totals();
    assert!(after["wants"].as_u64().unwrap() > 0, "{after}");
    let today = &after["days"][0];
    assert_eq!(today["hits"], shown["usage"]["hits"]);
    assert_eq!(today["misses"], shown["usage"]["misses"]);
    assert!(
        today["milliseconds-compiled"].as_u64().unwrap() > 0,
        "{today}"
    );
    // What was shown is what was sent: with another id it is no news.
    shown["usage"]["id"] = "another".into();
    let kind = "Content-Type: application/json";
    let again = server.post("/v1/lockfiles", &[kind], shown.to_string().as_bytes());
    assert_eq!(again.json()["counted"], false, "{again:?}");

    // Nothing is lacking any more, so nothing is told.
    let reports = totals()["days"][0]["reports"].clone();
    bed.env.built(&project, &["build"]);
    assert_eq!(totals()["days"][0]["reports"], reports);
}

/// What a build script says reaches the one of a package above it (`links`, Cargo
/// book, "Build Scripts"), so one run is an input of another.
#[test]
fn a_run_that_needs_another_run_is_taken() {
    let bed = Bed::sqlite();
    let server = bed.start(&[]);
    switch_on(&bed.env, &server.url());
    let project = bed.env.project("tiny");
    let manifest = project.path("tiny/Cargo.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let more = "fnv = \"1\"\nlibgit2-sys = { version = \"0.18\", default-features = false }";
    fs::write(&manifest, text.replace("fnv = \"1\"", more)).unwrap();
    let _ = bed
        .env
        .cargo(&project, &["update", "--workspace"])
        .success();
    let shown = bed
        .env
        .quickbuild(&project, &["plan", "build", "--show-report"])
        .success();
    let report: Value = serde_json::from_str(&shown.stdout).unwrap();
    let recipes = report["recipes"].as_array().unwrap().iter();
    let recipes: Vec<&str> = recipes.map(|recipe| recipe.as_str().unwrap()).collect();
    for name in ["libz-sys", "libgit2-sys"] {
        let name = format!("name = \"{name}\"");
        let found = recipes.iter().find(|recipe| recipe.contains(&name));
        assert!(
            found.is_some_and(|recipe| recipe.contains("build-run")),
            "{name}: {report}"
        );
    }
    let kind = "Content-Type: application/json";
    let sent = server.post("/v1/lockfiles", &[kind], shown.stdout.as_bytes());
    assert_eq!(sent.status, 200, "{sent:?}");
    assert_eq!(sent.json()["counted"], true, "{sent:?}");
}

#[test]
fn nothing_private_is_shown() {
    let env = TestEnv::new();
    switch_on(&env, "http://127.0.0.1:1");
    let project = env.project("outside");
    let shown = env
        .quickbuild(&project, &["plan", "--show-report"])
        .success();
    let report: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert!(
        report["recipes"].is_null() && report["lock"].is_null(),
        "{report}"
    );
    // Flags may name folders or have secrets in them: such recipes stay here.
    let project = env.project("small");
    let flagged = env.with("RUSTFLAGS", "--cfg secret_of_mine");
    let shown = flagged
        .quickbuild(&project, &["plan", "--show-report"])
        .success();
    assert!(!shown.stdout.contains("secret_of_mine"), "{shown}");
    let root = env.root();
    for word in [root.to_str().unwrap(), "hidden", "path+"] {
        assert!(!shown.stdout.contains(word), "`{word}` in {shown}");
    }
}

#[test]
fn a_service_that_is_away_or_slow_costs_a_bounded_time_once() {
    let env = TestEnv::new();
    let project = env.project("small");
    let silent = Server::moody(&env.root(), |_, _| Mood::Silent);
    switch_on(&env, &silent.url());
    let done = env.quickbuild(&project, &["build"]).success();
    assert!(!done.stderr.contains("warning: the service"), "{done}");
    assert_eq!(silent.requests(), 1);
    // It is left alone for a while.
    let _ = env.quickbuild(&project, &["check"]).success();
    assert_eq!(silent.requests(), 1);
    // What is away or refuses is told only to whoever asks for more words.
    for number in 0..3 {
        let env = env.with_store(&env.root().join(format!("store-{number}")));
        let server = Server::moody(&env.root(), move |_, _| match number {
            0 => Mood::Status(503, "Retry-After: 1"),
            1 => Mood::Page,
            _ => Mood::Circling,
        });
        switch_on(&env, &server.url());
        let project = env.checkout(&project);
        let done = env.quickbuild(&project, &["build"]).success();
        assert!(!done.stderr.contains("service"), "{done}");
    }
    let env = env.with_store(&env.root().join("store-away"));
    switch_on(&env, "http://127.0.0.1:1");
    let done = env
        .quickbuild(&env.checkout(&project), &["build", "--verbose"])
        .success();
    assert!(done.stderr.contains("the service cannot be told"), "{done}");
}
