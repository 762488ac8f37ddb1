//! Clients that fetch, and what they ask for.

use std::fs;

use serde_json::{Value, json};

use super::{paths, recipes, serve};
use crate::substituters::{KEY, Published};
use crate::support::{Response, Serving, set_time};

/// What was asked for, in order, of the lines of a log.
fn asked(lines: &[String]) -> Vec<String> {
    let request = |line: &String| {
        let request = line.split('"').nth(1).unwrap();
        let words: Vec<&str> = request.split(' ').take(2).collect();
        words.join(" ")
    };
    lines.iter().map(request).collect()
}

fn lookup(serving: &Serving, body: &Value) -> Response {
    let body = body.to_string();
    let kind = "Content-Type: application/json";
    serving.request("POST", "/v1/lookup", &[kind], body.as_bytes())
}

fn document(response: &Response) -> Value {
    let text = zstd::decode_all(response.body.as_slice()).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Two round trips before the first archive, however many units there are.
#[test]
fn a_client_learns_all_in_one_call() {
    let published = Published::new();
    let serving = serve(&published, &[]);
    let client = published.client(&serving.url());
    let built = client.run(&["build"]).nothing_built();
    client.env.assert_fresh(&client.project, &["build"]);
    let (before, _) = built.stderr.split_once(" outputs fetched").unwrap();
    let fetched: usize = before.rsplit([' ', '\n']).next().unwrap().parse().unwrap();
    assert!(fetched > 3, "{built}");
    let lines = serving.logged("a line for each request", |l| l.len() == fetched + 2);
    let asked = asked(&lines);
    let is_archive = |path: &&String| path.starts_with("GET /archives/");
    let others: Vec<&String> = asked.iter().filter(|path| !is_archive(path)).collect();
    assert_eq!(
        others,
        ["GET /quickbuild-cache.json", "POST /v1/lookup"],
        "{lines:#?}"
    );
    // Nothing else was asked for before the first archive.
    assert!(
        asked[..2]
            .iter()
            .all(|path| !path.starts_with("GET /archives/"))
    );
    for line in &lines {
        assert!(line.contains("\" 200 ") && line.ends_with("\"quickbuild/0.1.0\""));
    }

    let metrics = serving.get("/metrics", &[]).text();
    let count = |name: &str| -> u64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let requests = "quickbuild_serve_requests_total";
    let archived = format!("{requests}{{route=\"archive\",status=\"200\"}}");
    assert_eq!(count(&archived), fetched as u64);
    assert_eq!(
        count("quickbuild_serve_lookup_recipes_total"),
        recipes(&published).len() as u64
    );
    assert_eq!(
        count("quickbuild_serve_outputs"),
        count("quickbuild_serve_lookup_outputs_total")
    );
    let sent = lines.iter().filter(|line| line.contains("GET /archives/"));
    let sent = sent.map(|line| {
        line.split("\" 200 ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
    });
    let bytes: u64 = sent.map(|bytes| bytes.parse::<u64>().unwrap()).sum();
    assert!(bytes > 1_000);
    assert_eq!(
        count("quickbuild_serve_sent_bytes_total{route=\"archive\"}"),
        bytes
    );
    let packed = serving.get("/metrics", &["Accept-Encoding: gzip"]);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.starts_with(&[0x1f, 0x8b]));
}

/// An answer has what the documents have, and nothing twice.
#[test]
fn calls_are_answered_as_documents_are() {
    let published = Published::new();
    let serving = serve(&published, &[]);
    let all = recipes(&published);
    let answer = lookup(&serving, &json!({"format": 1, "recipes": all}));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/zstd"));
    let answer = document(&answer);
    let mut outputs = Vec::new();
    let mut namings = Vec::new();
    for path in paths(&published, "recipes") {
        let one = document(&serving.get(&path, &[]));
        outputs.extend(one["outputs"].as_array().unwrap().clone());
        namings.extend(one["namings"].as_array().unwrap().clone());
    }
    outputs.sort_by_key(|entry| entry["manifest"]["id"].to_string());
    namings.sort_by_key(|naming| naming["key"].to_string());
    assert!(outputs.len() > 3 && namings.len() > 3);
    assert_eq!(answer["outputs"], json!(outputs));
    assert_eq!(answer["namings"], json!(namings));

    // One recipe comes with all it needs, as in its closure.
    for path in paths(&published, "closures") {
        let name = path.rsplit('/').next().unwrap();
        let recipe = name.strip_suffix(".json.zst").unwrap();
        let answer = document(&lookup(
            &serving,
            &json!({"format": 1, "recipes": [recipe]}),
        ));
        let closure = document(&serving.get(&path, &[]));
        assert_eq!(answer["outputs"], closure["outputs"], "{path}");
    }
    let none = lookup(&serving, &json!({"format": 1, "recipes": ["0".repeat(32)]}));
    assert_eq!(
        document(&none),
        json!({"format": 1, "outputs": [], "namings": []})
    );
}

#[test]
fn other_calls_are_refused() {
    let published = Published::new();
    let serving = serve(&published, &[]);
    let one = &recipes(&published)[0];
    let many: Vec<String> = (0..4_097).map(|n| format!("{n:032}")).collect();
    for body in [
        json!([]),
        json!({"format": 2, "recipes": []}),
        json!({"format": 1}),
        json!({"format": 1, "recipes": ["e"]}),
        json!({"format": 1, "recipes": [one, one]}),
        json!({"format": 1, "recipes": many}),
    ] {
        assert_eq!(lookup(&serving, &body).status, 400);
    }
    let large = json!({"format": 1, "recipes": ["0".repeat(300_000)]});
    assert_eq!(lookup(&serving, &large).status, 413);
    // Of a length that it does not tell.
    let text = large.to_string();
    let chunked = format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len());
    let header = "Transfer-Encoding: chunked";
    let refused = serving.request("POST", "/v1/lookup", &[header], chunked.as_bytes());
    assert_eq!(refused.status, 413);
    assert_eq!(serving.get("/v1/lookup", &[]).status, 405);
}

/// What is published while it serves is answered at once.
#[test]
fn a_folder_may_be_pushed_into() {
    let published = Published::new();
    let empty = published.env.root().join("empty");
    let to = empty.to_str().unwrap();
    let push = |what: &[&str]| {
        let push = [&["push", to, "--include-local"], what].concat();
        let _ = published.run(&push).success();
    };
    push(&["--recipe", "leaf"]);
    let serving = Serving::start(&published.env, &published.project, &[to]);
    let all = json!({"format": 1, "recipes": recipes(&published)});
    let some = document(&lookup(&serving, &all));
    push(&["--all"]);
    let more = document(&lookup(&serving, &all));
    let count = |document: &Value| document["outputs"].as_array().unwrap().len();
    assert!(count(&some) > 0 && count(&more) > count(&some));
    published.client(&serving.url()).assert_all_fetched();

    fs::remove_dir_all(empty.join("recipes")).unwrap();
    fs::create_dir(empty.join("recipes")).unwrap();
    assert_eq!(count(&document(&lookup(&serving, &all))), 0);
}

#[test]
fn a_folder_that_is_no_substituter_is_refused() {
    let published = Published::new();
    let empty = published.env.root().join("nothing");
    fs::create_dir(&empty).unwrap();
    let refused = published.run(&["serve", empty.to_str().unwrap()]);
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(refused.stderr.contains("is no substituter"), "{refused}");
}

/// The store itself: what is in it is packed once, and what comes and goes is
/// followed.
#[test]
fn a_store_is_served_and_followed() {
    let published = Published::new();
    let (env, project) = (&published.env, &published.project);
    let local = Serving::start(env, project, &[]);
    local.says("are not served; `--include-local`");
    drop(local);

    let serving = Serving::start(env, project, &["--include-local"]);
    let outputs = crate::substituters::files(&env.store(), "paths").len();
    serving.says(&format!(
        "quickbuild: {outputs} outputs are served, {outputs} of them new"
    ));
    published.client(&serving.url()).assert_all_fetched();
    let info: Value =
        serde_json::from_str(&serving.get("/quickbuild-cache.json", &[]).text()).unwrap();
    assert_eq!(info["lookup"], true);
    assert_eq!(info["keys"], json!([published.key]));

    // What is new comes, with its signatures.
    let _ = published.run(&["build", "--release"]).success();
    let _ = published.run(&["key", "sign", KEY, "--all"]).success();
    let more = crate::substituters::files(&env.store(), "paths").len();
    assert!(more > outputs);
    serving.says(&format!("quickbuild: {more} outputs are served"));
    // The collector is not kept waiting, and what it takes goes.
    let served = env.store().join("cache/serve");
    assert!(!crate::substituters::files(&served, "archives").is_empty());
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    for path in crate::substituters::files(&env.store(), "paths") {
        set_time(&path.join("manifest.json"), long_ago);
    }
    fs::remove_dir_all(project.path("target")).unwrap();
    let _ = published.run(&["store", "gc", "--max-size", "0"]).success();
    assert_eq!(crate::substituters::files(&env.store(), "paths").len(), 0);
    serving.says("quickbuild: 0 outputs are served, 0 of them new");
    for folder in ["recipes", "closures", "archives"] {
        assert_eq!(
            crate::substituters::files(&served, folder).len(),
            0,
            "{folder}"
        );
    }

    let refused = env
        .with("QUICKBUILD_SERVE_WRITE_TOKENS", super::WRITE)
        .quickbuild(project, &["serve"]);
    assert_eq!(refused.code, Some(3), "{refused}");
}
