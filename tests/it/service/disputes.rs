//! Workers that make different things of one recipe, and what comes of it.

use std::fs;

use serde_json::{Value, json};

use super::Bed;
use super::administering::change;
use super::building::{SOON, Wanted, beds, build, client, public, until, want, wanted, worker};
use crate::support::{Serving, walk};

/// The same outputs with another byte in each library, and manifests that say so;
/// `salt` is the byte.
fn other_content(bed: &Bed, wanted: &Wanted, salt: u8) -> Vec<u8> {
    let name = format!("other-{salt}");
    let env = bed.env.with_store(&bed.env.root().join(&name));
    let (from, to) = (name.clone() + ".in", name + ".out");
    fs::write(bed.project.path(&from), &wanted.export).unwrap();
    let import = ["store", "import", &from];
    let _ = env.quickbuild(&bed.project, &import).success();
    let mut changed = 0;
    for path in walk(&env.store()) {
        if path.file_name().unwrap() != "manifest.json" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let mut manifest: Value = serde_json::from_str(&text).unwrap();
        let files = manifest["files"].as_array_mut().unwrap();
        for (number, file) in files.iter_mut().enumerate() {
            if file["role"] != "library" && file["role"] != "metadata" {
                continue;
            }
            let content = path.with_file_name("files").join(number.to_string());
            let mut bytes = fs::read(&content).unwrap();
            bytes.push(salt);
            fs::remove_file(&content).unwrap();
            fs::write(&content, &bytes).unwrap();
            file["size"] = json!(bytes.len());
            file["sha256"] = json!(quickbuild::digest::ContentHash::of(&bytes).to_string());
            changed += 1;
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, manifest.to_string()).unwrap();
        // It is about the bytes of before.
        fs::remove_file(path.with_file_name("provenance.json")).unwrap();
    }
    assert!(changed > 0, "nothing to change");
    let export = ["store", "export", &to];
    let _ = env.quickbuild(&bed.project, &export).success();
    fs::read(bed.project.path(&to)).unwrap()
}

/// All that is published, with its bytes.
fn published(bed: &Bed) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = walk(&public(bed)).into_iter();
    let mut files: Vec<_> = files
        .map(|file| (file.clone(), fs::read(file).unwrap()))
        .collect();
    files.sort();
    files
}

/// Two that do not agree; the build rests, and its page and the output say why.
fn disagree(bed: &Bed, server: &Serving, wanted: &Wanted, other: &[u8]) {
    want(server, wanted, "192.0.2.1");
    want(server, wanted, "192.0.2.2");
    let one = worker(bed, server, "one", "work");
    let two = worker(bed, server, "two", "work");
    let sent = one.send(&one.lease(), &wanted.export);
    assert_eq!(sent.json()["accepted"], 0, "{sent:?}");
    let sent = two.send(&two.lease(), other);
    assert_eq!(sent.status, 200, "{sent:?}");
    assert_eq!(sent.json()["accepted"], 0, "{sent:?}");
    assert_ne!(sent.json()["conflicts"], json!([]), "{sent:?}");
    let rests = until(server, wanted, "resting");
    let reason = rests["reason"].as_str().unwrap();
    assert!(reason.contains("something else of"), "{rests}");
    let page = server.get(&format!("/builds/{}", rests["id"]), &[]).text();
    assert!(page.contains("something else of"), "{page}");
    server.says("CONFLICT: build");
    let metrics = server.get("/metrics", &[]).text();
    assert!(metrics.contains("event=\"conflicts\"} 1\n"), "{metrics}");
    assert!(!public(bed).join("recipes").exists());
    // Neither of them gets it again, however often they ask.
    for _ in 0..3 {
        assert_eq!((one.ask().status, two.ask().status), (204, 204));
    }
    let still = build(server, wanted).unwrap();
    assert_eq!(
        (&still["state"], &still["round"]),
        (&json!("resting"), &rests["round"])
    );
}

/// It is built, and a client uses it.
#[track_caller]
fn assert_built(bed: &Bed, server: &Serving, wanted: &Wanted) {
    until(server, wanted, "built");
    let built = client(bed);
    assert!(!built.stderr.contains("Compiling fnv"), "{built}");
}

#[test]
fn of_two_that_disagree_a_third_says_who_is_right() {
    for bed in beds() {
        let server = bed.builds(&SOON);
        let wanted = wanted(&bed.env);
        let other = other_content(&bed, wanted, 1);
        disagree(&bed, &server, wanted, &other);
        let third = worker(&bed, &server, "third", "work");
        let sent = third.send(&third.lease(), &wanted.export);
        assert_eq!(sent.status, 200, "{sent:?}");
        assert_eq!(sent.json()["waiting"], 0, "{sent:?}");
        assert_built(&bed, &server, wanted);
    }
}

#[test]
fn three_that_disagree_wait_for_one_that_is_believed() {
    for bed in beds() {
        let server = bed.builds(&SOON);
        let wanted = wanted(&bed.env);
        let others = [1, 2].map(|salt| other_content(&bed, wanted, salt));
        disagree(&bed, &server, wanted, &others[0]);
        let third = worker(&bed, &server, "third", "work");
        let sent = third.send(&third.lease(), &others[1]);
        assert_eq!(sent.json()["accepted"], 0, "{sent:?}");
        until(&server, wanted, "resting");
        assert_eq!(third.ask().status, 204);
        let trusted = worker(&bed, &server, "trusted", "work-trusted");
        let sent = trusted.send(&trusted.lease(), &wanted.export);
        assert_eq!(sent.json()["waiting"], 0, "{sent:?}");
        assert_built(&bed, &server, wanted);
    }
}

/// The database has forgotten that it is built, but not what was published.
#[test]
fn what_is_made_once_more_and_differently_is_told_and_left_out() {
    for bed in beds() {
        let server = bed.builds(&SOON);
        let wanted = wanted(&bed.env);
        want(&server, wanted, "192.0.2.1");
        want(&server, wanted, "192.0.2.2");
        let trusted = worker(&bed, &server, "trusted", "work-trusted");
        let _ = trusted.send(&trusted.lease(), &wanted.export);
        until(&server, wanted, "built");
        let before = published(&bed);
        change(
            &bed,
            "UPDATE builds SET state = 'queued', round = round + 1, after = 0, lease = ''",
        );
        let other = other_content(&bed, wanted, 4);
        let sent = trusted.send(&trusted.lease(), &other);
        assert_eq!(sent.status, 200, "{sent:?}");
        assert_ne!(sent.json()["conflicts"], json!([]), "{sent:?}");
        server.says("CONFLICT: build");
        let built = until(&server, wanted, "built");
        let told = server.get(&format!("/v1/builds/{}", built["id"]), &[]);
        // Both tries may have begun within the same second.
        let tries = told.json()["tries"].as_array().unwrap().clone();
        let said = |one: &Value| one["reason"].as_str().unwrap().to_owned();
        let said: Vec<String> = tries.iter().map(said).collect();
        let is_told = said
            .iter()
            .any(|said| said.contains("published with another content"));
        assert!(is_told, "{told:?}");
        assert_eq!(before, published(&bed), "something was replaced");
    }
}

/// Whoever was first has published; what comes later changes nothing, and is told.
#[test]
fn what_is_published_stays_whatever_else_is_made_of_it() {
    for bed in beds() {
        let server = bed.builds(&SOON);
        let wanted = wanted(&bed.env);
        want(&server, wanted, "192.0.2.1");
        want(&server, wanted, "192.0.2.2");
        let trusted = worker(&bed, &server, "trusted", "work-trusted");
        let first = trusted.send(&trusted.lease(), &wanted.export);
        assert_eq!(first.json()["conflicts"], json!([]), "{first:?}");
        until(&server, wanted, "built");
        let before = published(&bed);
        drop(server);
        // A service that knows nothing of the first one, and publishes there, too.
        let late = Bed {
            env: bed.env.with("QUICKBUILD_SERVICE_DATABASE", ""),
            project: bed.env.project("tiny"),
            postgres: None,
        };
        let server = late.builds(&["--publish", public(&bed).to_str().unwrap()]);
        want(&server, wanted, "192.0.2.1");
        want(&server, wanted, "192.0.2.2");
        let liar = worker(&late, &server, "late", "work-trusted");
        let other = other_content(&bed, wanted, 3);
        let sent = liar.send(&liar.lease(), &other);
        assert_eq!(sent.status, 200, "{sent:?}");
        assert_eq!(sent.json()["accepted"], 0, "{sent:?}");
        assert_ne!(sent.json()["conflicts"], json!([]), "{sent:?}");
        server.says("CONFLICT: build");
        let told = build(&server, wanted).unwrap();
        let reason = told["reason"].as_str().unwrap();
        assert!(reason.contains("published with another content"), "{told}");
        let after = published(&bed);
        assert_eq!(before, after, "something was replaced");
        let built = client(&bed);
        assert!(!built.stderr.contains("Compiling fnv"), "{built}");
    }
}
