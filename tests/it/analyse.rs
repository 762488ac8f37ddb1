//! `quickbuild analyse`: real and broken lock files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Outcome, TestEnv, git, skipped, walk};

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

/// What a repository's own history says.
#[test]
fn a_history_says_what_is_left_of_a_lock_file() {
    let env = TestEnv::new();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    git(root, &["init", "--quiet"]);
    let commit = |day: &str, bytes: &[u8]| {
        put(root, "", bytes);
        git(root, &["add", "--all"]);
        let date = format!("2026-01-{day}T00:00:00Z");
        let author = format!("--date={date}");
        // The committer's time counts; only the environment sets it.
        let mut commit = std::process::Command::new("git");
        commit
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(["commit", "--quiet", "--message", day, &author])
            .env("GIT_COMMITTER_DATE", &date)
            .current_dir(root);
        assert!(commit.status().unwrap().success());
    };
    let two = |b: &str| lock(&[("a", "1.0.0", ""), ("b", b, "")]);
    commit("01", two("1.0.0").as_bytes());
    commit("03", b"version = 4\n<<<<<<< ours\n");
    commit("05", two("1.1.0").as_bytes());
    commit("20", two("1.2.0").as_bytes());
    let path = root.to_str().unwrap();
    let outcome = analyse(&env, &[path, "--history", "--format", "json"]).success();
    let report = report(&outcome);
    let history = &report["history"][0];
    assert_eq!(
        (&history["versions"], &history["broken"]),
        (&3.into(), &1.into())
    );
    assert_eq!(history["days"], 19);
    let left = |days: i64| {
        let points = history["points"].as_array().unwrap();
        let found = points.iter().find(|point| point["days"] == days);
        found.map(|point| point["trees"].as_f64().unwrap())
    };
    // A week after the first, one of two is left; after the second, all.
    assert_eq!(left(7), Some(0.75));
    assert_eq!(left(30), None);
    let page = analyse(&env, &[path, "--history", "--format", "html"]).success();
    assert!(page.stdout.contains("days later"), "{page}");
    // Where there is no history, it says so, and the rest is there.
    let lonely = tempfile::tempdir().unwrap();
    put(lonely.path(), "x", two("1.0.0").as_bytes());
    let path = lonely.path().to_str().unwrap();
    let outcome = analyse(&env, &[path, "--history"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stdout.contains("its history"), "{outcome}");
}

/// Downloads weigh instead of projects.
#[test]
fn what_is_downloaded_most_is_chosen_first() {
    let env = TestEnv::new();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put(
        root,
        "one",
        lock(&[("a", "1.0.0", ""), ("b", "1.0.0", "")]).as_bytes(),
    );
    put(root, "two", lock(&[("a", "1.0.0", "")]).as_bytes());
    let counts = root.join("counts.csv");
    fs::write(&counts, "name,downloads\n\"b\",100\na,1\n").unwrap();
    let first = |more: &[&str]| {
        let path = root.to_str().unwrap();
        let budget = ["--budget-seconds", "1", "--format", "json"];
        let words = [&[path], &budget[..], more].concat();
        let report = report(&analyse(&env, &words).success());
        report["selection"]["trees"][0]["name"].clone()
    };
    assert_eq!(first(&[]), "a");
    assert_eq!(first(&["--downloads", counts.to_str().unwrap()]), "b");
    let path = root.to_str().unwrap();
    let outcome = analyse(&env, &[path, "--downloads", "none.csv"]);
    assert_eq!(outcome.code, Some(3), "{outcome}");
}

/// A selection as recipe files, and as a branch that leaves what is checked out.
#[test]
fn a_selection_is_written_as_recipes() {
    let env = TestEnv::new();
    let project = env.project("crates");
    let known = env.root().join("known");
    let export = ["recipe", "export", "--to", known.to_str().unwrap(), "build"];
    let _ = env.quickbuild(&project, &export).success();
    let folder = project.dir.to_str().unwrap();
    let out = env.root().join("out");
    let budget = ["analyse", folder, "--budget-seconds", "1e9"];
    let given = [
        &budget[..],
        &["--known", known.to_str().unwrap(), "--recipes"],
    ]
    .concat();
    let write = [&given[..], &[out.to_str().unwrap()]].concat();
    let outcome = env.quickbuild(&project, &write).success();
    assert!(outcome.stderr.contains("of them new"), "{outcome}");
    let files = |folder: &Path| {
        let files = walk(folder).into_iter();
        files
            .filter(|path| path.extension().is_some_and(|e| e == "toml"))
            .count()
    };
    assert!(files(&out) > 3, "{outcome}");
    let check = ["recipe", "check", out.to_str().unwrap(), "--offline"];
    let _ = env.quickbuild(&project, &check).success();

    let repository = env.root().join("repository");
    fs::create_dir_all(repository.join("recipes")).unwrap();
    fs::write(repository.join("recipes/README.md"), "recipes\n").unwrap();
    git(&repository, &["init", "--quiet"]);
    git(&repository, &["config", "user.name", "t"]);
    git(&repository, &["config", "user.email", "t@example.org"]);
    git(&repository, &["add", "--all"]);
    git(&repository, &["commit", "--quiet", "--message", "first"]);
    let to = repository.join("recipes");
    let branch = [&given[..], &[to.to_str().unwrap(), "--branch", "chosen"]].concat();
    let outcome = env.quickbuild(&project, &branch).success();
    assert!(
        outcome.stderr.contains("on the branch `chosen`"),
        "{outcome}"
    );
    assert_eq!(files(&to), 0, "what is checked out stays");
    git(&repository, &["switch", "--quiet", "chosen"]);
    assert_eq!(files(&to), files(&out));
    // A branch that is there stays as it is.
    let again = env.quickbuild(&project, &branch);
    assert_eq!(again.code, Some(3), "{again}");
    // Without a budget nothing is chosen.
    let none = ["analyse", folder, "--recipes", out.to_str().unwrap()];
    assert_eq!(env.quickbuild(&project, &none).code, Some(3));
}

/// Where manifests and sources are at hand, recipes tell what lock files do not.
#[test]
fn recipes_tell_features_apart() {
    let env = TestEnv::new();
    let folder = tempfile::tempdir().unwrap();
    for (name, feature) in [("one", "std"), ("two", "alloc")] {
        let project = folder.path().join(name);
        fs::create_dir_all(project.join("src")).unwrap();
        fs::write(project.join("src/lib.rs"), "").unwrap();
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
             [dependencies]\nitoa = \"=1.0.15\"\nmemchr = {{ version = \"=2.7.4\", default-features = false, features = [\"{feature}\"] }}\n"
        );
        fs::write(project.join("Cargo.toml"), manifest).unwrap();
        let mut lock = std::process::Command::new("cargo");
        lock.args(["generate-lockfile", "--quiet"])
            .current_dir(&project);
        assert!(lock.status().unwrap().success());
    }
    let path = folder.path().to_str().unwrap();
    let outcome = analyse(&env, &[path, "--plan", "--format", "json"]).success();
    let report = report(&outcome);
    assert_eq!(
        report["sharing"]["packages"], 1.0,
        "by lock files all is shared"
    );
    assert_eq!(report["recipes"]["packages"], 4);
    assert_eq!(report["recipes"]["shared"], 0.5);
    assert_eq!(report["recipes"]["versions"], 1.0);
    assert_eq!(report["recipes"]["most"][0]["package"], "memchr-2.7.4");
}

/// Who did not have what others have gets it by moving.
#[test]
fn alignment_helps_those_who_were_not_looked_at() {
    let env = TestEnv::new();
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, itoa: &str, memchr: &str| {
        let own = format!(
            "[[package]]\nname = \"{name}\"\nversion = \"0.1.0\"\ndependencies = [\"itoa\", \"memchr\"]\n\n"
        );
        let others = lock(&[("itoa", itoa, ""), ("memchr", memchr, "")]);
        put(folder.path(), name, format!("{others}{own}").as_bytes());
    };
    // Repositories are divided by their names; more than one part has some.
    for name in ["p", "q", "r", "s", "t", "u"] {
        put(name, "1.0.15", "2.7.4");
    }
    put("v", "1.0.14", "2.7.2");
    put("w", "1.0.13", "2.7.1");
    let path = folder.path().to_str().unwrap();
    let words = [
        path,
        "--align",
        "--lookup",
        "--package",
        "itoa",
        "--format",
        "json",
    ];
    let report = report(&analyse(&env, &words).success());
    let alignment = &report["alignment"];
    let share = |name: &str| alignment[name].as_f64().unwrap();
    assert!(share("after") > share("before"), "{alignment}");
    assert_eq!(alignment["bundles"][0]["one"], 1.0, "{alignment}");
}
