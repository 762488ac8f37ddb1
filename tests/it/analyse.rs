//! `quickbuild analyse`: real and broken lock files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Outcome, TestEnv, skipped, walk};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Lock files of real projects, beside the repository where there are any.
fn corpus() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    let reason = "there are no lock files in ../shared/corpus";
    match folder.is_dir() || skipped("corpus", reason) {
        true if folder.is_dir() => Some(folder),
        _ => None,
    }
}

fn lock(packages: &[(&str, &str, &str)]) -> String {
    let package = |(name, version, needs): &(&str, &str, &str)| {
        let needs: Vec<String> = needs
            .split_whitespace()
            .map(|n| format!("\"{n}\""))
            .collect();
        format!(
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{REGISTRY}\"\ndependencies = [{}]\n\n",
            needs.join(", ")
        )
    };
    let packages: Vec<String> = packages.iter().map(package).collect();
    format!("version = 4\n\n{}", packages.concat())
}

fn put(root: &Path, name: &str, bytes: &[u8]) {
    let folder = root.join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("Cargo.lock"), bytes).unwrap();
}

fn analyse(env: &TestEnv, arguments: &[&str]) -> Outcome {
    let project = env.project("tiny");
    let all: Vec<&str> = ["analyse"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    env.quickbuild(&project, &all)
}

fn report(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

#[test]
fn what_is_broken_is_named_and_the_rest_is_analysed() {
    let env = TestEnv::new();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put(
        root,
        "good",
        lock(&[("a", "1.0.0", "b"), ("b", "1.0.0", "")]).as_bytes(),
    );
    put(root, "old", format!(
        "[root]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [\"b 1.0.0 ({REGISTRY})\"]\n\n\
         [[package]]\nname = \"b\"\nversion = \"1.0.0\"\nsource = \"{REGISTRY}\"\n\n\
         [metadata]\n\"checksum b 1.0.0 ({REGISTRY})\" = \"00\"\n").as_bytes());
    put(
        root,
        "twice",
        lock(&[("b", "1.0.0", ""), ("b", "1.0.0", "")]).as_bytes(),
    );
    put(root, "missing", lock(&[("a", "1.0.0", "b")]).as_bytes());
    put(
        root,
        "ambiguous",
        lock(&[("a", "1.0.0", "b"), ("b", "1.0.0", ""), ("b", "2.0.0", "")]).as_bytes(),
    );
    put(
        root,
        "conflict",
        b"version = 4\n<<<<<<< ours\n=======\n>>>>>>> theirs\n",
    );
    put(root, "latin", b"name = \"caf\xe9\"\n");
    put(root, "newer", b"version = 5\n");
    fs::create_dir_all(root.join("large")).unwrap();
    let large = fs::File::create(root.join("large/Cargo.lock")).unwrap();
    large.set_len(100 << 20).unwrap();
    fs::create_dir_all(root.join("link")).unwrap();
    std::os::unix::fs::symlink(root.join("good/Cargo.lock"), root.join("link/Cargo.lock")).unwrap();
    // A loop of folders ends.
    std::os::unix::fs::symlink(root, root.join("loop")).unwrap();

    let path = root.to_str().unwrap();
    let outcome = analyse(&env, &[path, "--format", "json"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    let report = report(&outcome);
    assert_eq!(report["counted"]["projects"], 2);
    assert_eq!(report["counted"]["distinct-trees"], 2);
    let left: Vec<(String, String)> = report["left-out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|left| {
            let text = |name: &str| left[name].as_str().unwrap().to_owned();
            let path = text("path");
            let folder = Path::new(&path).parent().unwrap().file_name().unwrap();
            (folder.to_str().unwrap().to_owned(), text("reason"))
        })
        .collect();
    let reason = |name: &str| {
        let found = left.iter().find(|(folder, _)| folder == name);
        found
            .unwrap_or_else(|| panic!("{name} is not named: {left:?}"))
            .1
            .clone()
    };
    assert_eq!(left.len(), 8, "{left:?}");
    assert!(reason("twice").contains("`b 1.0.0` is there twice"));
    assert!(reason("missing").contains("needs `b`, which is not there"));
    assert!(reason("ambiguous").contains("could be one of several"));
    assert!(reason("conflict").contains("line 2 is the mark of a merge conflict"));
    assert!(reason("latin").contains("not UTF-8"));
    assert!(reason("newer").contains("version 5"));
    assert!(reason("large").contains("104857600 bytes"));
    assert!(reason("link").contains("symbolic link"));
}

#[test]
fn where_there_is_nothing_it_says_so() {
    let env = TestEnv::new();
    let folder = tempfile::tempdir().unwrap();
    let outcome = analyse(&env, &[folder.path().to_str().unwrap()]);
    assert_eq!(outcome.code, Some(3), "{outcome}");
    assert!(
        outcome.stderr.contains("there is no lock file to analyse"),
        "{outcome}"
    );
    let outcome = analyse(&env, &["no-such-file"]);
    assert_eq!(outcome.code, Some(3), "{outcome}");
    assert!(outcome.stderr.contains("no-such-file"), "{outcome}");
}

#[test]
fn a_page_needs_nothing_else_and_believes_no_name() {
    let env = TestEnv::new();
    let folder = tempfile::tempdir().unwrap();
    let name = "<script>alert(1)</script>";
    for project in ["one", "two"] {
        put(
            folder.path(),
            project,
            lock(&[(name, "1.0.0", "")]).as_bytes(),
        );
    }
    let path = folder.path().to_str().unwrap();
    let outcome = analyse(&env, &[path, "--format", "html", "--package", name]);
    let page = outcome.success().stdout;
    assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
    assert!(page.contains("<polyline"));
    for foreign in [
        "<script", "http:", "https:", "url(", "@import", "<link", "<img",
    ] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn a_selection_is_closed_and_within_its_budget() {
    let Some(corpus) = corpus() else { return };
    let env = TestEnv::new();
    let path = corpus.to_str().unwrap();
    for (option, budget) in [("--budget-seconds", "300"), ("--budget-bytes", "300MB")] {
        let outcome = analyse(
            &env,
            &[path, "--tier", "app", "--format", "json", option, budget],
        );
        let report = report(&outcome.success());
        let selection = &report["selection"];
        let trees = selection["trees"].as_array().unwrap();
        assert!(trees.len() > 100, "{}", trees.len());
        let spent = match option {
            "--budget-seconds" => selection["build-seconds"].as_f64().unwrap(),
            _ => selection["bytes"].as_f64().unwrap() / 1e6,
        };
        assert!(spent <= 300.0, "{spent}");
        let hashes: BTreeSet<&str> = trees
            .iter()
            .map(|tree| tree["tree"].as_str().unwrap())
            .collect();
        assert_eq!(hashes.len(), trees.len(), "a tree is chosen once");
    }
}

/// The order in which files are found, and names of folders, change nothing.
#[test]
fn the_same_files_give_the_same_report() {
    let Some(corpus) = corpus() else { return };
    let env = TestEnv::new();
    let path = corpus.to_str().unwrap();
    let first = analyse(&env, &[path, "--format", "json"]).success();
    let second = analyse(&env, &[path, "--format", "json"]).success();
    assert_eq!(first.stdout, second.stdout);
    let report = report(&first);
    let locks = walk(&corpus)
        .into_iter()
        .filter(|path| path.ends_with("Cargo.lock"));
    assert_eq!(report["counted"]["projects"], locks.count());
    let curve = report["coverage"].as_array().unwrap();
    let share = |point: &Value| point["seen"].as_f64().unwrap();
    assert!(
        curve
            .windows(2)
            .all(|pair| share(&pair[0]) <= share(&pair[1]) + 1e-9)
    );
    assert!((share(curve.last().unwrap()) - 1.0).abs() < 1e-6);
}
