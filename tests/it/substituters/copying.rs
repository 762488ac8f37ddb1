//! Outputs copied from one substituter to another, and removed from one's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Published, edit_document, files};
use crate::support::{Outcome, Server, TestEnv, programs};

/// Who copies: another store, that trusts the key.
fn copier(published: &Published) -> TestEnv {
    let store = published.env.root().join("copier");
    let env = published.env.with_store(&store);
    env.with("QUICKBUILD_PUBLIC_KEYS", &published.key)
}

fn copy(published: &Published, arguments: &[&str]) -> Outcome {
    let all = [&["copy"], arguments, &["--include-local"]].concat();
    copier(published).quickbuild(&published.project, &all)
}

fn other(published: &Published) -> PathBuf {
    published.env.root().join("other")
}

fn same_files(one: &Path, other: &Path) {
    for folder in ["recipes", "closures", "archives"] {
        let read = |root: &Path| -> Vec<(PathBuf, Vec<u8>)> {
            let files = files(root, folder).into_iter();
            let named = |path: PathBuf| {
                (
                    path.strip_prefix(root).unwrap().to_owned(),
                    fs::read(path).unwrap(),
                )
            };
            files.map(named).collect()
        };
        assert!(read(one) == read(other), "{folder} differ");
    }
}

#[test]
fn a_copy_is_the_same() {
    let published = Published::new();
    let (from, to) = (published.cache.clone(), other(&published));
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    let copied = copy(&published, &[from, to]).success();
    assert!(!copied.stdout.contains(" 0 outputs published"), "{copied}");
    same_files(&published.cache, &other(&published));
    let again = copy(&published, &[from, to, "--only-missing"]).success();
    assert!(again.stdout.contains(" 0 outputs published"), "{again}");
    published.client(to).assert_all_fetched();
    // Outputs of somebody's machine go nowhere without a word.
    let third = published.env.root().join("third");
    let env = copier(&published);
    let arguments = ["copy", from, third.to_str().unwrap()];
    let left = env.quickbuild(&published.project, &arguments).success();
    assert!(left.stdout.contains(" 0 outputs published"), "{left}");
}

#[test]
fn the_store_is_an_end_as_well() {
    let published = Published::new();
    let cache = published.cache.to_str().unwrap();
    let into = copy(&published, &[cache, "store"]).success();
    assert!(into.stdout.contains("copied into the store"), "{into}");
    let env = copier(&published);
    let checkout = env.checkout(&published.project);
    let _ = env.quickbuild(&checkout, &["build"]).nothing_built();
    let _ = env.quickbuild(&checkout, &["store", "verify"]).success();
    let to = other(&published);
    let _ = copy(&published, &["store", to.to_str().unwrap()]).success();
    same_files(&published.cache, &to);
    let both = copy(&published, &["store", "store"]);
    assert_eq!(both.code, Some(3), "{both}");
}

#[test]
fn a_web_server_says_what_it_has_or_needs_names() {
    let published = Published::new();
    let server = Server::new(&published.cache);
    let listed = published.env.root().join("listed");
    let listed = listed.to_str().unwrap();
    let all = copy(&published, &[&server.url(), listed]).success();
    assert!(all.stderr.contains("its inventory names"), "{all}");
    // All but the program, which is no package that others could need.
    let client = published.client(listed);
    let summary = client.run(&["build"]).success().summary();
    assert_eq!((summary.units - summary.from_store, summary.built), (1, 1));
    client.assert_sound();

    fs::remove_file(published.cache.join("inventory.json.zst")).unwrap();
    let to = other(&published);
    let to = to.to_str().unwrap();
    let all = copy(&published, &[&server.url(), to]);
    assert_eq!(all.code, Some(3), "{all}");
    assert!(all.stderr.contains("--recipe HASH"), "{all}");
    let closures = files(&published.cache, "closures");
    let names = closures
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap());
    let names: Vec<&str> = names
        .map(|name| name.strip_suffix(".json.zst").unwrap())
        .collect();
    let url = server.url();
    let mut arguments = vec![url.as_str(), to];
    for name in &names {
        arguments.extend(["--recipe", name]);
    }
    let _ = copy(&published, &arguments).success();
    published.client(to).assert_all_fetched();
}

#[test]
fn a_part_is_copied_with_all_it_needs() {
    let published = Published::new();
    let (from, to) = (published.cache.clone(), other(&published));
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    let _ = copy(&published, &[from, to, "--recipe", "leaf"]).success();
    let some = files(Path::new(to), "recipes").len();
    assert!(some < files(&published.cache, "recipes").len());
    let _ = copy(&published, &[from, to, "--recipe", "tiny"]).success();
    published.client(to).assert_all_fetched();
}

/// Between places of different kinds, over real servers.
#[test]
fn from_a_bucket_to_a_registry() {
    let Some(s3) = programs::s3() else { return };
    let Some(registry) = programs::registry(false) else {
        return;
    };
    let mut published = Published::new();
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT_URL", &s3.url()),
        ("AWS_ALLOW_HTTP", "true"),
    ] {
        published.env = published.env.with(name, value);
    }
    let cache = published.cache.to_str().unwrap();
    let oci = format!("oci://127.0.0.1:{}/cache", registry.port);
    let to = other(&published);
    let to = to.to_str().unwrap();
    for (from, to) in [(cache, "s3://cache/a"), ("s3://cache/a", &oci), (&oci, to)] {
        let copied = copy(&published, &[from, to]).success();
        assert!(!copied.stdout.contains(" 0 outputs published"), "{copied}");
        published.client(to).assert_all_fetched();
    }
    same_files(&published.cache, Path::new(to));
}

/// Nothing goes on that the policy of its place refuses.
#[test]
fn what_is_refused_is_not_copied() {
    let published = Published::new();
    let (from, to) = (published.cache.clone(), other(&published));
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    // Another content than was signed.
    for document in files(&published.cache, "recipes") {
        edit_document(&document, |mut value| {
            value["outputs"][0]["manifest"]["seconds"] = 7.5.into();
            value["outputs"][0]["signatures"] = serde_json::json!([]);
            value
        });
    }
    let refused = copy(&published, &[from, to]).success();
    assert!(refused.stdout.contains(" 0 outputs published"), "{refused}");
    assert!(refused.stderr.contains("not signed"), "{refused}");

    // An archive that is not what its document says.
    let published = Published::new();
    let from = published.cache.to_str().unwrap();
    let to = other(&published);
    for archive in files(&published.cache, "archives") {
        let mut bytes = fs::read(&archive).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(archive, bytes).unwrap();
    }
    let failed = copy(&published, &[from, to.to_str().unwrap()]);
    assert_eq!(failed.code, Some(3), "{failed}");
    assert!(files(&to, "recipes").is_empty());
    assert!(files(&to, "archives").is_empty());
}

/// Makes all archives as old as this.
fn age(cache: &Path, names: impl Fn(&str) -> bool, days: u64) {
    let time = SystemTime::now() - Duration::from_secs(days * 86_400);
    for archive in files(cache, "archives") {
        if names(archive.file_name().unwrap().to_str().unwrap()) {
            let file = fs::File::open(archive).unwrap();
            file.set_modified(time).unwrap();
        }
    }
}

fn prune(published: &Published, arguments: &[&str]) -> Outcome {
    let cache = published.cache.to_str().unwrap();
    published.run(&[&["prune", cache], arguments].concat())
}

#[test]
fn what_is_old_goes_and_what_is_needed_stays() {
    let published = Published::new();
    let count = |folder: &str| files(&published.cache, folder).len();
    let (recipes, archives) = (count("recipes"), count("archives"));
    age(&published.cache, |_| true, 100);
    let kept = prune(&published, &["--older-than", "200d"]).success();
    assert!(kept.stdout.contains(" 0 outputs are gone"), "{kept}");
    let dry = prune(&published, &["--older-than", "90d", "--dry-run"]).success();
    assert!(dry.stdout.contains("would go, 0 stay"), "{dry}");
    assert_eq!((count("recipes"), count("archives")), (recipes, archives));

    // What is named stays, with what it needs.
    let part = prune(&published, &["--older-than", "90d", "--keep", "leaf"]).success();
    assert!(!part.stdout.contains(" 0 stay"), "{part}");
    assert!(count("recipes") < recipes && count("recipes") > 0);
    assert_whole(&published);

    let all = prune(&published, &["--older-than", "90d"]).success();
    assert!(all.stdout.contains(" 0 stay"), "{all}");
    assert_eq!(count("recipes") + count("closures") + count("archives"), 0);
    // It can be published again.
    let _ = published.push().success();
    published.folder_client().assert_all_fetched();
}

#[test]
fn what_is_too_much_goes_and_what_is_young_and_unnamed_stays() {
    let published = Published::new();
    age(&published.cache, |_| true, 2);
    let stray = published
        .cache
        .join("archives/")
        .join(format!("{}.tar.zst", "0".repeat(64)));
    fs::write(&stray, b"on its way").unwrap();
    let none = prune(&published, &[]).success();
    assert!(none.stdout.contains(" 0 outputs are gone"), "{none}");
    assert!(stray.exists(), "an archive of now is spared");
    let size = |cache: &Path| -> u64 {
        files(cache, "archives")
            .iter()
            .map(|f| f.metadata().unwrap().len())
            .sum()
    };
    let half = size(&published.cache) / 2;
    let _ = prune(&published, &["--max-size", &half.to_string()]).success();
    assert!(size(&published.cache) <= half + 10);
    assert!(size(&published.cache) > 10);
    assert_whole(&published);
    age(&published.cache, |name| name.starts_with("0000"), 2);
    let _ = prune(&published, &[]).success();
    assert!(!stray.exists());

    let wrong = published.run(&["prune", "/nowhere"]);
    assert_eq!(wrong.code, Some(3), "{wrong}");
    assert!(!Path::new("/nowhere").exists());
    let server = Server::new(&published.cache);
    let web = published.run(&["prune", &server.url()]);
    assert_eq!(web.code, Some(3), "{web}");
}

/// Whoever is killed leaves no document that names an absent archive.
#[test]
fn a_killed_prune_leaves_whole_documents() {
    let published = Published::new();
    for n in (1..60).step_by(4) {
        age(&published.cache, |_| true, 100);
        let cache = published.cache.to_str().unwrap();
        let faulty = published.env.with("QUICKBUILD_FAULT", format!("kill@{n}"));
        let arguments = ["prune", cache, "--older-than", "90d"];
        let first = faulty.quickbuild(&published.project, &arguments);
        assert_whole(&published);
        let client = published.folder_client();
        let built = client.run(&["build"]).success();
        assert!(!built.stderr.contains("archive"), "{n}: {built}");
        let _ = prune(&published, &["--older-than", "90d"]).success();
        assert_eq!(files(&published.cache, "archives").len(), 0, "{n}");
        let _ = published.push().success();
        published.folder_client().assert_all_fetched();
        if first.code == Some(0) {
            return;
        }
    }
    panic!("it was killed each time");
}

/// Each document names archives that are there, and each output has all it
/// refers to among the published ones.
#[track_caller]
fn assert_whole(published: &Published) {
    let mut published_ids = std::collections::BTreeSet::new();
    let mut references = Vec::new();
    for folder in ["recipes", "closures"] {
        for document in files(&published.cache, folder) {
            let text = zstd::decode_all(fs::File::open(&document).unwrap()).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let mut own = std::collections::BTreeSet::new();
            for entry in value["outputs"].as_array().unwrap() {
                let hash = entry["archive"]["sha256"].as_str().unwrap();
                let archive = published.cache.join(format!("archives/{hash}.tar.zst"));
                assert!(archive.exists(), "{} names {hash}", document.display());
                let manifest = &entry["manifest"];
                let id = manifest["output"].as_str().or(manifest["id"].as_str());
                let id = id.unwrap_or_else(|| panic!("{manifest}")).to_owned();
                own.insert(id.clone());
                let refers = manifest["references"].as_array().unwrap();
                references.extend(refers.iter().map(|r| r.as_str().unwrap().to_owned()));
                if folder == "recipes" {
                    published_ids.insert(id);
                }
            }
        }
    }
    for reference in references {
        assert!(published_ids.contains(&reference), "{reference} is absent");
    }
}
