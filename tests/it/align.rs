//! `quickbuild align`: a lock file that fits what is prebuilt, with real Cargo
//! and real crates.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use quickbuild::substituter::{INVENTORY, Inventory};
use serde_json::Value;

use crate::support::{Outcome, Project, Serving, TestEnv};

/// What somebody has built: a tree of three packages, and another package.
const BUILT: [(&str, &str); 4] = [
    ("equivalent", "1.0.1"),
    ("hashbrown", "0.15.3"),
    ("indexmap", "2.9.0"),
    ("itoa", "1.0.14"),
];
/// What the project has.
const OWN: [(&str, &str); 4] = [
    ("equivalent", "1.0.2"),
    ("hashbrown", "0.15.5"),
    ("indexmap", "2.10.0"),
    ("itoa", "1.0.15"),
];

/// Writes a package whose dependencies are these, exactly as locked.
fn write(env: &TestEnv, project: &Project, requirements: &str, locked: &[(&str, &str)]) {
    let manifest = format!(
        "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{requirements}\n[workspace]\n"
    );
    fs::write(project.path("Cargo.toml"), manifest).unwrap();
    fs::create_dir_all(project.path("src")).unwrap();
    fs::write(project.path("src/main.rs"), "fn main() {}\n").unwrap();
    let _ = fs::remove_file(project.path("build.rs"));
    let _ = fs::remove_file(project.path("Cargo.lock"));
    let _ = env.cargo(project, &["generate-lockfile"]).success();
    // What others depend on comes last, so that it may go back.
    for (name, version) in locked.iter().rev() {
        let update = ["update", "--package", name, "--precise", version];
        let _ = env.cargo(project, &update).success();
    }
}

/// Writes the user's own settings.
fn settings(env: &TestEnv, text: &str) {
    let folder = env.root().join("home/.config/quickbuild");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("quickbuild.toml"), text).unwrap();
}

const REQUIREMENTS: &str = "[dependencies]\nindexmap = \"2.7\"\nitoa = \"1\"\n";

/// A substituter with what somebody built.
struct World {
    env: TestEnv,
    cache: PathBuf,
}

impl World {
    fn new() -> Self {
        let env = TestEnv::new();
        let project = env.project("tiny");
        write(&env, &project, REQUIREMENTS, &BUILT);
        let _ = env.quickbuild(&project, &["build"]).success();
        let cache = env.root().join("cache");
        let push = ["push", cache.to_str().unwrap(), "--all", "--include-local"];
        let _ = env.quickbuild(&project, &push).success();
        // How long these small packages took would decide what is worth a move.
        let path = cache.join(INVENTORY);
        let mut inventory = Inventory::parse(&fs::read(&path).unwrap(), INVENTORY).unwrap();
        for listed in inventory.packages.values_mut() {
            listed.seconds = 1.0;
        }
        fs::write(path, inventory.to_bytes()).unwrap();
        // Known to have nothing against any version.
        let database = env.root().join("no-advisories");
        fs::create_dir_all(database.join("crates")).unwrap();
        settings(&env, &format!("[align]\nadvisory-db = {database:?}\n"));
        let store = env.root().join("client-store");
        let env = env.with_store(&store);
        let env = env.with("QUICKBUILD_SUBSTITUTERS", cache.to_str().unwrap());
        Self { env, cache }
    }

    fn client(&self, requirements: &str) -> Project {
        let project = self.env.project("tiny");
        write(&self.env, &project, requirements, &OWN);
        project
    }

    fn align(&self, project: &Project, arguments: &[&str]) -> Outcome {
        let words: Vec<&str> = ["align"]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        self.env.quickbuild(project, &words)
    }

    /// What would change, as `package version`.
    fn changes(&self, project: &Project, arguments: &[&str]) -> Vec<String> {
        let words = [&["--format", "json"], arguments].concat();
        let report = json(&self.align(project, &words).success());
        let changes = report["changes"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut changes: Vec<String> = changes
            .map(|change| format!("{} {}", text(&change["package"]), text(&change["to"])))
            .collect();
        changes.sort();
        changes
    }
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

fn lock(project: &Project) -> Vec<u8> {
    fs::read(project.path("Cargo.lock")).unwrap()
}

fn all_of(list: &[(&str, &str)]) -> Vec<String> {
    list.iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect()
}

#[test]
fn a_lock_moves_to_what_is_prebuilt_and_cargo_finds_it_fresh() {
    let world = World::new();
    let project = world.client(REQUIREMENTS);
    let before = lock(&project);
    for _ in 0..2 {
        // The second time from what was kept.
        let plan = world.env.quickbuild(&project, &["plan"]).success();
        assert!(
            plan.stdout.contains("`quickbuild align` says how"),
            "{plan}"
        );
    }
    let shown = world.align(&project, &[]).success();
    assert!(
        shown
            .stdout
            .starts_with("Change 4 packages and 100 % of your"),
        "{shown}"
    );
    assert!(shown.stdout.contains("the recipes are those"), "{shown}");
    assert_eq!(world.changes(&project, &[]), all_of(&BUILT));
    let checked = world.align(&project, &["--check"]);
    assert_eq!(checked.code, Some(1), "{checked}");
    assert_eq!(lock(&project), before, "nothing changes without --apply");

    // A link to the lock file stays one.
    let real = world.env.root().join("real.lock");
    fs::rename(project.path("Cargo.lock"), &real).unwrap();
    std::os::unix::fs::symlink(&real, project.path("Cargo.lock")).unwrap();
    let applied = world.align(&project, &["--apply"]).success();
    assert!(
        applied.stdout.starts_with("Changed 4 packages"),
        "{applied}"
    );
    assert!(project.path("Cargo.lock").is_symlink());
    let _ = world.env.cargo(&project, &["tree", "--locked"]).success();
    let checked = world.align(&project, &["--check"]);
    assert_eq!(checked.code, Some(0), "{checked}");
    assert!(
        checked.stdout.contains("No change helps: 100 %"),
        "{checked}"
    );
    let plan = world.env.quickbuild(&project, &["plan"]).success();
    assert!(!plan.stdout.contains("quickbuild align"), "{plan}");
    // And it is what it promised: nothing of others is compiled.
    let built = world.env.built(&project, &["build"]);
    assert_eq!(built.into_iter().collect::<Vec<_>>(), ["tiny"]);
}

/// However many packages move, Cargo is not asked for each.
#[test]
fn packages_move_at_once() {
    let world = World::new();
    let project = world.client(REQUIREMENTS);
    let calls = world.env.root().join("calls");
    let cargo = world.env.root().join("cargo-that-notes");
    let script = format!("#!/bin/sh\necho \"$*\" >>{calls:?}\nexec cargo \"$@\"\n");
    fs::write(&cargo, script).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let env = world.env.with("CARGO", cargo.to_str().unwrap());
    let arguments = ["align", "--format", "json"];
    let report = json(&env.quickbuild(&project, &arguments).success());
    assert_eq!(report["changes"].as_array().unwrap().len(), BUILT.len());
    let calls = fs::read_to_string(&calls).unwrap();
    assert!(calls.contains("update --workspace"), "{calls}");
    assert!(!calls.contains("--precise"), "{calls}");
}

#[test]
fn what_the_user_wants_and_what_is_unfit_is_respected() {
    let world = World::new();
    let project = world.client(REQUIREMENTS);
    let tree = &BUILT[..3];
    assert_eq!(world.changes(&project, &["--keep", "itoa"]), all_of(tree));
    // A tree is as good as its parts: without its leaf, only the other leaf fits.
    let kept = world.changes(&project, &["--keep", "hashbrown"]);
    assert_eq!(kept, ["equivalent 1.0.1", "itoa 1.0.14"]);
    fs::write(
        project.path("quickbuild.toml"),
        "[align]\nkeep = [\"itoa\"]\n",
    )
    .unwrap();
    assert_eq!(world.changes(&project, &[]), all_of(tree));
    fs::remove_file(project.path("quickbuild.toml")).unwrap();

    let pinned = world.client("[dependencies]\nindexmap = \"2.7\"\nitoa = \"=1.0.15\"\n");
    assert_eq!(world.changes(&pinned, &[]), all_of(tree));
    // indexmap 2.9 says that it needs Rust 1.63, as its index has it.
    let old = world.client(&format!("rust-version = \"1.60\"\n{REQUIREMENTS}"));
    let report = json(&world.align(&old, &["--format", "json"]).success());
    let clashes = report["clashes"].to_string();
    assert!(clashes.contains("it needs Rust 1.6"), "{report}");
    let changes = report["changes"].to_string();
    assert!(!changes.contains("indexmap"), "{report}");

    let database = world.env.root().join("advisories");
    let about = database.join("crates/itoa");
    fs::create_dir_all(&about).unwrap();
    let advisory = "```toml\n[advisory]\nid = \"RUSTSEC-2026-0001\"\npackage = \"itoa\"\n\
        [versions]\npatched = [\">= 1.0.15\"]\n```\n\n# It leaks\n";
    fs::write(about.join("RUSTSEC-2026-0001.md"), advisory).unwrap();
    let database = ["--advisory-db", database.to_str().unwrap()];
    assert_eq!(world.changes(&project, &database), all_of(tree));
    // Without a database nothing goes back, and it is said why.
    settings(&world.env, "");
    let outcome = world.align(&project, &[]).success();
    if outcome.stderr.contains("no advisory database") {
        assert!(
            outcome.stderr.contains("nothing moves to an older one"),
            "{outcome}"
        );
        assert!(outcome.stdout.contains("No change helps"), "{outcome}");
    }
    let none = world.align(&project, &["--advisory-db", "no-such-folder"]);
    assert_eq!(none.code, Some(3), "{none}");
}

/// A folder of the project's own, and what stands in for a package, never move.
#[test]
fn folders_and_patched_packages_stay() {
    let world = World::new();
    let project = world.client(REQUIREMENTS);
    let own = project.path("own-itoa");
    fs::create_dir_all(own.join("src")).unwrap();
    let manifest = "[package]\nname = \"itoa\"\nversion = \"1.0.15\"\nedition = \"2021\"\n";
    fs::write(own.join("Cargo.toml"), manifest).unwrap();
    fs::write(own.join("src/lib.rs"), "").unwrap();
    let patch = "\n[patch.crates-io]\nitoa = { path = \"own-itoa\" }\n";
    write(
        &world.env,
        &project,
        &format!("{REQUIREMENTS}{patch}"),
        &OWN[..3],
    );
    assert_eq!(world.changes(&project, &[]), all_of(&BUILT[..3]));
    let _ = world.align(&project, &["--apply"]).success();
    let _ = world.env.cargo(&project, &["tree", "--locked"]).success();
}

#[test]
fn a_server_says_what_it_has_and_the_answer_is_kept() {
    let world = World::new();
    let project = world.client(REQUIREMENTS);
    let cache = world.cache.to_str().unwrap();
    let serving = Serving::start(&world.env, &project, &[cache]);
    let url = serving.url();
    let from = ["--substituter", url.as_str()];
    assert_eq!(world.changes(&project, &from), all_of(&BUILT));
    drop(serving);
    assert_eq!(world.changes(&project, &from), all_of(&BUILT));
    let offline = [&from[..], &["--offline"]].concat();
    assert_eq!(world.changes(&project, &offline), all_of(&BUILT));
}

#[test]
fn bad_days_are_named_and_leave_the_lock_file_alone() {
    let world = World::new();
    let project = world.client(REQUIREMENTS);
    let before = lock(&project);
    let fails = |arguments: &[&str], said: &str| {
        let outcome = world.align(&project, arguments);
        assert_eq!(outcome.code, Some(3), "{outcome}");
        assert!(outcome.stderr.contains(said), "{outcome}");
        assert_eq!(lock(&project), before);
    };
    let empty = world.env.root().join("empty");
    fs::create_dir_all(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    fails(&["--apply", "--substituter", empty], "no substituter says");
    // Damaged, and of the future.
    let inventory = world.cache.join("inventory.json.zst");
    let good = fs::read(&inventory).unwrap();
    fs::write(&inventory, &good[..good.len() / 2]).unwrap();
    fails(&["--apply"], "no substituter says");
    fs::write(&inventory, zstd(r#"{"format":9,"packages":[]}"#)).unwrap();
    fails(&["--apply"], "has format 9");
    // A forged one: names that are options, versions that nobody has published,
    // recipes that are nobody's.
    let forged = |name: &str, version: &str| {
        let recipe = "0".repeat(32);
        zstd(&format!(
            r#"{{"format":1,"packages":[{{"recipe":"{recipe}","name":"{name}","version":"{version}","seconds":9e9}}]}}"#
        ))
    };
    for (name, version) in [
        ("--config=x", "1.0.0"),
        ("itoa", "1.0.999"),
        ("itoa", "1.0.14"),
    ] {
        fs::write(&inventory, forged(name, version)).unwrap();
        assert_eq!(world.changes(&project, &["--apply"]), Vec::<String>::new());
        assert_eq!(lock(&project), before, "{name} {version}");
    }
    fs::write(&inventory, good).unwrap();
    fails(&["--analysis", "Cargo.toml"], "is not a report");
    // No substituter at all, no lock file, no manifest.
    let nobody = world.env.with("QUICKBUILD_SUBSTITUTERS", "");
    let outcome = nobody.quickbuild(&project, &["align"]);
    assert!(outcome.stderr.contains("--substituter URL"), "{outcome}");
    fs::write(project.path("Cargo.lock"), "<<<<<<< ours\n").unwrap();
    let outcome = world.align(&project, &["--apply"]);
    assert_eq!(outcome.code, Some(3), "{outcome}");
    fs::remove_file(project.path("Cargo.lock")).unwrap();
    let outcome = world.align(&project, &["--apply"]);
    assert_eq!(outcome.code, Some(3), "{outcome}");
    assert!(
        outcome.stderr.contains("cargo generate-lockfile"),
        "{outcome}"
    );
}

/// What an analysis chose counts as prebuilt.
#[test]
fn an_analysis_may_say_what_is_prebuilt() {
    let env = TestEnv::new();
    let built = env.project("tiny");
    write(&env, &built, REQUIREMENTS, &BUILT);
    let project = env.project("tiny");
    write(&env, &project, REQUIREMENTS, &OWN);
    let folder = built.dir.to_str().unwrap();
    let analyse = [
        "analyse",
        folder,
        "--format",
        "json",
        "--budget-seconds",
        "1e9",
    ];
    let report = env.quickbuild(&project, &analyse).success();
    fs::write(project.path("analysis.json"), &report.stdout).unwrap();
    let database = env.root().join("no-advisories");
    fs::create_dir_all(database.join("crates")).unwrap();
    settings(&env, &format!("[align]\nadvisory-db = {database:?}\n"));
    let align = ["align", "--format", "json", "--analysis", "analysis.json"];
    let report = json(&env.quickbuild(&project, &align).success());
    assert_eq!(report["changes"].as_array().unwrap().len(), 4, "{report}");
    assert_eq!(report["proved-by-recipes"], false);
    let apply = ["align", "--apply", "--analysis", "analysis.json"];
    let _ = env.quickbuild(&project, &apply).success();
    let _ = env.cargo(&project, &["tree", "--locked"]).success();
}

fn zstd(text: &str) -> Vec<u8> {
    zstd::bulk::compress(text.as_bytes(), 1).unwrap()
}

/// What goes from a substituter goes from its inventory.
#[test]
fn what_is_pruned_is_not_offered() {
    let world = World::new();
    let project = world.client(REQUIREMENTS);
    let cache = world.cache.to_str().unwrap();
    let prune = ["prune", cache, "--max-size", "0", "--keep", "itoa"];
    let _ = world.env.quickbuild(&project, &prune).success();
    assert!(Path::new(cache).join("inventory.json.zst").is_file());
    assert_eq!(world.changes(&project, &[]), ["itoa 1.0.14"]);
}
