//! Who is believed: several signers, at several places, and old answers.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Published, edit_document, files};
use crate::support::{copy_tree, edit};

/// A copy of a substituter whose documents are changed.
fn copied(published: &Published, name: &str, change: impl Fn(&mut serde_json::Value)) -> PathBuf {
    let to = published.env.root().join(name);
    copy_tree(&published.cache, &to);
    for folder in ["recipes", "closures"] {
        for document in files(&to, folder) {
            edit_document(&document, |mut document| {
                let outputs = document["outputs"].as_array_mut().unwrap();
                outputs.iter_mut().for_each(&change);
                document
            });
        }
    }
    to
}

/// Leaves only the signatures of one key.
fn signed_by<'a>(name: &'a str) -> impl Fn(&mut serde_json::Value) + 'a {
    move |entry| {
        let signatures = entry["signatures"].as_array_mut().unwrap();
        signatures.retain(|signature| {
            let text = signature.as_str().unwrap();
            text.split(':').next() == Some(name)
        });
        assert_eq!(signatures.len(), 1);
    }
}

/// A substituter in a configuration, with one key.
fn table(place: &Path, key: &str, settings: &str) -> String {
    format!(
        "[[substituters]]\nurl = \"{}\"\nmembers = true\npublic-keys = [\"{key}\"]\n{settings}\n",
        place.display()
    )
}

/// Two builders, each with a substituter of its own: together they are enough.
#[test]
fn builders_that_agree_are_counted_across_substituters() {
    let published = Published::new();
    let run = |arguments: &[&str]| published.run(arguments).success().stdout;
    let (first, second) = (super::KEY, "other-1");
    let other = run(&["key", "generate", second]).trim_end().to_owned();
    let _ = run(&["key", "sign", second, "--all"]);
    let _ = published.push().success();
    let a = copied(&published, "a", signed_by(first));
    let b = copied(&published, "b", signed_by(second));
    let both = |settings: &str| {
        let (a, b) = (
            table(&a, &published.key, settings),
            table(&b, &other, settings),
        );
        published.configured(&format!("{a}{b}"))
    };
    let client = both("signatures = 2");
    client.assert_all_fetched();
    // The signatures of both are here.
    for key in [&published.key, &other] {
        let _ = client
            .run(&["key", "verify", "--key", key, "--all"])
            .success();
    }
    // One alone is not enough.
    let alone = table(
        &a,
        &format!("{}\", \"{other}", published.key),
        "signatures = 2",
    );
    let said = published.configured(&alone).assert_all_built();
    assert!(said.contains("signed by too few keys"), "{said}");

    // The other one has not signed this content, but another one.
    let c = copied(&published, "c", |entry| {
        signed_by(second)(entry);
        let seconds = entry["manifest"]["mentions-clippy"].as_bool();
        entry["manifest"]["mentions-clippy"] = json!(!seconds.unwrap_or_default());
    });
    let settings = "signatures = 2";
    let client = published.configured(&format!(
        "{}{}",
        table(&a, &published.key, settings),
        table(&c, &other, settings)
    ));
    let said = client.assert_all_built();
    assert!(said.contains("signed by too few keys"), "{said}");
    // A key that is trusted at no place counts at none.
    let third = run(&["key", "generate", "third-1"]).trim_end().to_owned();
    let client = published.configured(&format!(
        "{}{}",
        table(&a, &published.key, settings),
        table(&b, &third, settings)
    ));
    let said = client.assert_all_built();
    assert!(said.contains("signed by too few keys"), "{said}");
}

#[test]
fn valid_signatures_by_unknown_keys_are_worth_nothing() {
    let published = Published::new();
    // It does not say with which keys it signs.
    let info = published.cache.join("quickbuild-cache.json");
    fs::write(info, "{\"format\": 1}").unwrap();
    let run = |arguments: &[&str]| published.run(arguments).success().stdout;
    let other = run(&["key", "generate", "other-1"]).trim_end().to_owned();
    let client = published.configured(&table(&published.cache, &other, ""));
    let said = client.assert_all_built();
    assert!(said.contains("signed by unknown keys only"), "{said}");
    // Another key under the name that is known.
    let renamed = other.replace("other-1", super::KEY);
    let client = published.configured(&table(&published.cache, &renamed, ""));
    let said = client.assert_all_built();
    assert!(said.contains("not what was signed"), "{said}");
}

/// Whoever serves old documents, signed as they were, keeps a client from what
/// is new, and makes it use nothing that is wrong.
#[test]
fn old_documents_that_are_served_again_are_no_danger() {
    let published = Published::new();
    let old = published.env.root().join("old");
    copy_tree(&published.cache, &old);
    let change = |path: PathBuf| edit(&path, "\"leaf\"", "\"fael\"");
    change(published.project.path("leaf/src/lib.rs"));
    let _ = published.run(&["build"]).success();
    let sign = ["key", "sign", super::KEY, "--all"];
    let _ = published.run(&sign).success();
    let _ = published.push().success();
    let new = published.folder_client();
    change(new.project.path("leaf/src/lib.rs"));
    new.assert_all_fetched();

    for folder in ["recipes", "closures"] {
        for document in files(&old, folder) {
            let to = published.cache.join(folder);
            fs::copy(&document, to.join(document.file_name().unwrap())).unwrap();
        }
    }
    let client = published.folder_client();
    change(client.project.path("leaf/src/lib.rs"));
    let built = client.run(&["build"]).success();
    let summary = built.summary();
    assert!(summary.built >= 2 && summary.from_store >= 1, "{built}");
    let program = client.env.program(&client.project, "target/debug/tiny");
    assert!(program.success().stdout.contains("fael"));
    client.env.assert_fresh(&client.project, &["build"]);
    client.assert_sound();
    // And in the other order: the new documents, for old sources.
    let client = new.env.checkout(&new.project);
    let _ = new.env.quickbuild(&client, &["build"]).success();
    let program = new.env.program(&client, "target/debug/tiny").success();
    assert!(program.stdout.contains("leaf"), "{program}");
}

/// What is here without Cargo's name for it gets the name.
#[test]
fn names_are_asked_for_where_only_they_are_missing() {
    let published = Published::new();
    let client = published.folder_client();
    let _ = client.run(&["substitute"]).success();
    let units = client.env.store().join("units");
    assert!(fs::read_dir(&units).unwrap().count() > 3);
    fs::remove_dir_all(&units).unwrap();
    fs::create_dir(&units).unwrap();
    let other = client.env.checkout(&client.project);
    let done = client.env.quickbuild(&other, &["substitute"]).success();
    assert!(done.stdout.contains("; 0 outputs fetched"), "{done}");
    client.env.assert_fresh(&other, &["build"]);
}
