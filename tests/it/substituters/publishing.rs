//! Pushes: what is published is whole, and stays.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::{Published, files};
use crate::support::walk;

fn snapshot(published: &Published) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = walk(&published.cache).into_iter();
    files
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn a_second_push_changes_nothing() {
    let published = Published::new();
    let before = snapshot(&published);
    let again = published.push().success();
    assert!(again.stdout.contains("0 outputs published"), "{again}");
    assert_eq!(snapshot(&published), before);
    // And two stores with the same outputs publish the same bytes.
    fs::remove_dir_all(&published.cache).unwrap();
    let _ = published.push().success();
    assert_eq!(snapshot(&published), before);
}

#[test]
fn local_outputs_are_published_where_the_user_says_so() {
    let published = Published::new();
    let to = published.env.root().join("other");
    let pushed = published
        .run(&["push", to.to_str().unwrap(), "--all"])
        .success();
    assert!(pushed.stdout.contains("0 outputs published"), "{pushed}");
    assert!(pushed.stderr.contains("--include-local"), "{pushed}");
    assert!(files(&to, "archives").is_empty());
}

#[test]
fn a_part_is_published_with_all_it_needs() {
    let published = Published::new();
    let to = published.env.root().join("other");
    let push = ["push", to.to_str().unwrap(), "--include-local", "--recipe"];
    let pushed = |recipe: &str| published.run(&[&push[..], &[recipe]].concat());
    let _ = pushed("leaf").success();
    let some = files(&to, "recipes").len();
    let _ = pushed("tiny").success();
    assert!(files(&to, "recipes").len() > some);
    let absent = pushed("absent");
    assert_eq!(absent.code, Some(3), "{absent}");
    let client = published.client(to.to_str().unwrap());
    client.assert_all_fetched();
    let web = published.run(&["push", "https://cache.example.org", "--all"]);
    assert_eq!(web.code, Some(3), "{web}");
}

/// What was compiled elsewhere has the same ids and other bytes: local outputs
/// name their folders.
#[test]
fn what_is_published_first_stays() {
    let published = Published::new();
    let before = snapshot(&published);
    let env = published
        .env
        .with_store(&published.env.root().join("second"));
    let elsewhere = env.checkout(&published.project);
    let _ = env.quickbuild(&elsewhere, &["build"]).success();
    let to = published.cache.to_str().unwrap();
    let pushed = env.quickbuild(&elsewhere, &["push", to, "--all", "--include-local"]);
    assert_eq!(pushed.code, Some(1), "{pushed}");
    assert!(pushed.stderr.contains("CONFLICT"), "{pushed}");
    let after = snapshot(&published);
    for (path, bytes) in before {
        if !path.starts_with(published.cache.join("archives")) {
            continue;
        }
        assert_eq!(after.get(&path), Some(&bytes), "{}", path.display());
    }
    published.folder_client().assert_all_fetched();
}

#[test]
fn two_pushes_at_once_lose_nothing() {
    let published = Published::new();
    let before = snapshot(&published);
    for _ in 0..3 {
        fs::remove_dir_all(&published.cache).unwrap();
        let to = published.cache.to_str().unwrap();
        let arguments = ["push", to, "--all", "--include-local"];
        let pushing: Vec<_> = (0..3)
            .map(|_| {
                published
                    .env
                    .spawn_quickbuild(&published.project, &arguments)
            })
            .collect();
        for child in pushing {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        assert_eq!(snapshot(&published), before);
    }
    published.folder_client().assert_all_fetched();
}

/// The end at many of the changes that a push makes: what is named is there, and
/// the next push goes on.
#[test]
fn a_killed_or_failed_push_names_nothing_that_is_missing() {
    let published = Published::new();
    for kind in ["kill", "fail"] {
        for n in (1..150).step_by(6) {
            fs::remove_dir_all(&published.cache).unwrap();
            let faulty = published
                .env
                .with("QUICKBUILD_FAULT", format!("{kind}@{n}"));
            let to = published.cache.to_str().unwrap();
            let push = ["push", to, "--all", "--include-local"];
            let first = faulty.quickbuild(&published.project, &push);
            if published.cache.join("quickbuild-cache.json").is_file() {
                let client = published.folder_client();
                let built = client.run(&["build"]).success();
                assert!(!built.stderr.contains("archive"), "{kind}@{n}: {built}");
                client.assert_sound();
            }
            let _ = published.push().success();
            published.folder_client().assert_all_fetched();
            if first.code == Some(0) {
                break;
            }
        }
    }
}
