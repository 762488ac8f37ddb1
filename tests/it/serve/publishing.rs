//! What others may put, and what they may not.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{READ, WRITE, paths, serve, token_file};
use crate::substituters::{Published, edit_document, files as files_of};
use crate::support::{Response, Serving, head, walk};

const NEW: &str = "If-None-Match: *";

/// A server that has nothing yet, and to which one may publish.
struct Target {
    serving: Serving,
    folder: PathBuf,
}

impl Target {
    fn new(published: &Published, rules: &[&str]) -> Self {
        let folder = published.env.root().join("target");
        Self::at(published, folder, rules)
    }

    fn at(published: &Published, folder: PathBuf, rules: &[&str]) -> Self {
        let tokens = token_file(published, "write", WRITE);
        let place = folder.to_str().unwrap();
        let fixed = [place, "--write-tokens", &tokens];
        let all = [&fixed[..], rules].concat();
        Self {
            serving: Serving::start(&published.env, &published.project, &all),
            folder,
        }
    }

    fn signed(published: &Published) -> Self {
        let key = published.key.clone();
        Self::new(published, &["--public-key", &key])
    }

    fn put(&self, path: &str, condition: &str, body: &[u8]) -> Response {
        put(&self.serving, path, condition, body)
    }

    /// Puts a file of the published folder.
    fn put_file(&self, published: &Published, path: &str) -> Response {
        let body = fs::read(published.cache.join(&path[1..])).unwrap();
        self.put(path, NEW, &body)
    }

    /// Puts all archives.
    #[track_caller]
    fn put_archives(&self, published: &Published) {
        for path in paths(published, "archives") {
            let answer = self.put_file(published, &path);
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
    }

    /// Puts all of a folder of documents, each when it is accepted; gives what is
    /// said of those that never are.
    fn put_documents(&self, published: &Published, folder: &str) -> Vec<String> {
        let mut open = paths(published, folder);
        loop {
            let mut refused = Vec::new();
            let before = open.len();
            open.retain(|path| {
                let answer = self.put_file(published, path);
                let is_done = matches!(answer.status, 201 | 412);
                if !is_done {
                    refused.push(format!("{} {}", answer.status, answer.text()));
                }
                !is_done
            });
            if open.len() == before {
                return refused;
            }
        }
    }

    /// The files that are visible.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        published_files(&self.folder)
    }
}

fn put(serving: &Serving, path: &str, condition: &str, body: &[u8]) -> Response {
    let token = format!("Authorization: Bearer {WRITE}");
    serving.put(path, &[&token, condition], body)
}

fn published_files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = walk(folder).into_iter();
    let files = files.map(|path| (path.strip_prefix(folder).unwrap().to_owned(), path));
    let is_hidden = |path: &Path| {
        path.iter()
            .any(|name| name.to_str().unwrap().starts_with('.'))
    };
    let visible = files.filter(|(name, _)| !is_hidden(name));
    let read = visible.map(|(name, path)| (name, fs::read(path).unwrap()));
    read.collect()
}

/// The same as in a folder that was pushed into, byte by byte.
#[test]
fn all_can_be_published_over_http() {
    let published = Published::new();
    let target = Target::signed(&published);
    target.put_archives(&published);
    assert_eq!(target.put_documents(&published, "recipes"), [""; 0]);
    assert_eq!(target.put_documents(&published, "closures"), [""; 0]);
    let answer = target.put_file(&published, "/inventory.json.zst");
    assert_eq!(answer.status, 201, "{}", answer.text());
    let info = fs::read(published.cache.join("quickbuild-cache.json")).unwrap();
    let tag = target.serving.get("/quickbuild-cache.json", &[]);
    let tag = tag.header("etag").unwrap().to_owned();
    let answer = target.put("/quickbuild-cache.json", &format!("If-Match: {tag}"), &info);
    assert_eq!(answer.status, 204, "{}", answer.text());
    let now = target.serving.get("/quickbuild-cache.json", &[]);
    assert_eq!(now.header("etag"), answer.header("etag"));
    assert_eq!(target.files(), published_files(&published.cache));
    published.client(&target.serving.url()).assert_all_fetched();

    // The tags are those that a client sees.
    let path = &paths(&published, "recipes")[0];
    let seen = target.serving.get(path, &[]);
    let tag = seen.header("etag").unwrap();
    let again = target.put(path, &format!("If-Match: {tag}"), &seen.body);
    assert_eq!((again.status, again.header("etag")), (204, Some(tag)));
    let stopped = target.serving.get("/metrics", &[]).text();
    assert!(stopped.contains("uploaded_bytes_total"), "{stopped}");
}

#[test]
fn conditions_are_kept() {
    let published = Published::new();
    let target = Target::signed(&published);
    target.put_archives(&published);
    let archive = &paths(&published, "archives")[0];
    assert_eq!(target.put_file(&published, archive).status, 412);
    let bytes = fs::read(published.cache.join(&archive[1..])).unwrap();
    assert_eq!(target.put(archive, "X-Y: z", &bytes).status, 204);

    let leaf = paths(&published, "recipes")
        .into_iter()
        .find(|path| target.put_file(&published, path).status == 201)
        .unwrap();
    let bytes = fs::read(published.cache.join(&leaf[1..])).unwrap();
    assert_eq!(target.put(&leaf, "X-Y: z", &bytes).status, 428);
    let second = target.put(&leaf, NEW, &bytes);
    assert_eq!(second.status, 412);
    let tag = second.header("etag").unwrap().to_owned();
    assert_eq!(target.put(&leaf, "If-Match: \"other\"", &bytes).status, 412);
    let before = target.files();
    assert_eq!(
        target
            .put(&leaf, &format!("If-Match: {tag}"), &bytes)
            .status,
        204
    );
    // Who leaves out what is published takes nothing away.
    let empty = zstd::bulk::compress(b"{\"format\":1,\"outputs\":[],\"namings\":[]}", 3).unwrap();
    assert_eq!(
        target
            .put(&leaf, &format!("If-Match: {tag}"), &empty)
            .status,
        204
    );
    assert_eq!(target.files(), before);
    let missing = format!("/recipes/{}.json.zst", "0".repeat(32));
    assert_eq!(
        target
            .put(&missing, &format!("If-Match: {tag}"), &empty)
            .status,
        412
    );
}

#[test]
fn archives_are_what_their_names_say() {
    let published = Published::new();
    let target = Target::new(&published, &["--accept-unsigned", "--max-upload", "100kB"]);
    let before = target.files();
    let size = |path: &String| {
        fs::metadata(published.cache.join(&path[1..]))
            .unwrap()
            .len()
    };
    let all = paths(&published, "archives");
    let path = all.iter().min_by_key(|path| size(path)).unwrap();
    let mut bytes = fs::read(published.cache.join(&path[1..])).unwrap();
    bytes[20] ^= 1;
    let lied = target.put(path, NEW, &bytes);
    assert_eq!(lied.status, 422, "{}", lied.text());
    let large = target.put(path, NEW, &vec![0; 200_000]);
    assert_eq!(large.status, 413, "{}", large.text());
    let chunked = format!("{:x}\r\n{}\r\n0\r\n\r\n", 200_000, "x".repeat(200_000));
    let token = format!("Authorization: Bearer {WRITE}");
    let headers = [token.as_str(), NEW, "Transfer-Encoding: chunked"];
    let large = target.serving.put(path, &headers, chunked.as_bytes());
    assert_eq!(large.status, 413, "{}", large.text());
    assert_eq!(target.files(), before);
    assert_eq!(target.serving.get(path, &[]).status, 404);
    let left = walk(&target.folder.join(".uploads"));
    assert_eq!(left.len(), 1, "only the lock: {left:?}");
}

/// What is named must be there, whole, in order, and signed.
#[test]
fn lies_are_refused() {
    let published = Published::new();
    let target = Target::signed(&published);
    let refused = target.put_documents(&published, "recipes");
    assert_eq!(refused.len(), paths(&published, "recipes").len());
    let said = refused.join("\n");
    assert!(said.contains("archives come first"), "{said}");
    assert!(said.contains("dependencies come first"), "{said}");
    target.put_archives(&published);
    let closures = target.put_documents(&published, "closures").join("\n");
    assert!(closures.contains("closures come last"), "{closures}");

    // The documents of what refers to nothing.
    let documents = files_of(&published.cache, "recipes");
    let mut tried = 0;
    for (document, path) in documents.iter().zip(paths(&published, "recipes")) {
        let bytes = fs::read(document).unwrap();
        let text = zstd::decode_all(bytes.as_slice()).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        let references = &value["outputs"][0]["manifest"]["references"];
        if references.as_array().is_none_or(|list| !list.is_empty()) {
            continue;
        }
        tried += 1;
        let check = |why: &str, status: u16, change: &dyn Fn(&mut Value)| {
            edit_document(document, |mut value| {
                change(&mut value);
                value
            });
            let answer = target.put_file(&published, &path);
            assert_eq!(answer.status, status, "{why}: {}", answer.text());
            assert!(answer.text().contains(why), "{why}: {}", answer.text());
            fs::write(document, &bytes).unwrap();
        };
        let other = paths(&published, "archives").into_iter();
        let own = value["outputs"][0]["archive"]["sha256"].as_str().unwrap();
        let other = other.map(|path| path[10..74].to_owned());
        let other = other.into_iter().find(|sha256| sha256 != own).unwrap();
        check("not signed", 422, &|v| {
            v["outputs"][0]["signatures"] = json!([]);
        });
        check("unknown keys", 422, &|v| {
            let signature = v["outputs"][0]["signatures"][0].as_str().unwrap();
            let signature = signature.replace("test.example.org-1", "other-1");
            v["outputs"][0]["signatures"] = json!([signature]);
        });
        check("not what was signed", 422, &|v| {
            let timed = &mut v["outputs"][0]["manifest"]["timed"];
            *timed = json!(!timed.as_bool().unwrap());
        });
        check("is refused", 422, &|v| {
            v["outputs"][0]["archive"]["sha256"] = json!(other);
        });
        check("too large", 422, &|v| {
            v["outputs"][0]["archive"]["size"] = json!(1_u64 << 50);
        });
        check("not here", 422, &|v| {
            v["outputs"][0]["archive"]["sha256"] = json!("0".repeat(64));
        });
        check("an entry", 422, &|v| {
            v["outputs"][0]["manifest"] = json!({"format": 1});
        });
        check("format 2", 400, &|v| v["format"] = json!(2));
        let elsewhere = format!("/recipes/{}.json.zst", "0".repeat(32));
        let answer = target.put(&elsewhere, NEW, &bytes);
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert_eq!(target.put(&path, NEW, b"not a document").status, 400);
        assert_eq!(target.serving.get(&path, &[]).status, 404);
    }
    assert!(tried > 0);
    let files = target.files();
    let folders = files.keys().map(|path| path.iter().next().unwrap());
    let folders: Vec<_> = folders.filter(|name| *name != "archives").collect();
    assert_eq!(folders, ["quickbuild-cache.json"]);
    // And the truth is taken.
    assert_eq!(target.put_documents(&published, "recipes"), [""; 0]);
}

/// Signatures that nobody here can verify are not published.
#[test]
fn only_verified_signatures_are_kept() {
    let published = Published::new();
    let other = published.run(&["key", "generate", "other-1"]).success();
    let sign = ["key", "sign", "other-1", "--all"];
    let _ = published.run(&sign).success();
    let before = published_files(&published.cache);
    let target = Target::signed(&published);
    target.put_archives(&published);
    let _ = published.push().success();
    assert_ne!(published_files(&published.cache), before);
    assert_eq!(target.put_documents(&published, "recipes"), [""; 0]);
    for path in paths(&published, "recipes") {
        let served = target.serving.get(&path, &[]).body;
        assert_eq!(before.get(Path::new(&path[1..])), Some(&served), "{path}");
    }
    drop(target);

    // A second key that the operator names is added to what is published.
    let folder = published.env.root().join("target");
    let second = other.stdout.trim_end().to_owned();
    let rules = ["--public-key", &published.key, "--public-key", &second];
    let target = Target::at(&published, folder, &rules);
    for path in paths(&published, "recipes") {
        let tag = target
            .serving
            .get(&path, &[])
            .header("etag")
            .unwrap()
            .to_owned();
        let body = fs::read(published.cache.join(&path[1..])).unwrap();
        let answer = target.put(&path, &format!("If-Match: {tag}"), &body);
        assert_eq!(answer.status, 204, "{}", answer.text());
        assert_eq!(target.serving.get(&path, &[]).body, body);
    }
}

/// Two compilations of one id: the first one stays.
#[test]
fn what_is_published_first_stays() {
    let published = Published::new();
    let target = Target::new(&published, &["--accept-unsigned"]);
    target.put_archives(&published);
    assert_eq!(target.put_documents(&published, "recipes"), [""; 0]);
    let before = target.files();
    for (path, document) in paths(&published, "recipes")
        .iter()
        .zip(files_of(&published.cache, "recipes"))
    {
        edit_document(&document, |mut value| {
            let timed = &mut value["outputs"][0]["manifest"]["timed"];
            *timed = json!(!timed.as_bool().unwrap());
            value
        });
        let tag = target
            .serving
            .get(path, &[])
            .header("etag")
            .unwrap()
            .to_owned();
        let answer = target.put(
            path,
            &format!("If-Match: {tag}"),
            &fs::read(&document).unwrap(),
        );
        assert_eq!(answer.status, 409, "{}", answer.text());
        assert!(answer.text().contains("which stays"), "{}", answer.text());
    }
    assert_eq!(target.files(), before);
}

#[test]
fn who_publishes_cannot_name_keys_of_their_own() {
    let published = Published::new();
    let target = Target::signed(&published);
    let other = published.run(&["key", "generate", "other-1"]).success();
    let info = target.serving.get("/quickbuild-cache.json", &[]);
    let tag = format!("If-Match: {}", info.header("etag").unwrap());
    let put = |keys: &[&str]| {
        let body = json!({"format": 1, "priority": 1, "keys": keys, "lookup": false});
        let body = body.to_string().into_bytes();
        target.put("/quickbuild-cache.json", &tag, &body)
    };
    assert_eq!(put(&["nonsense"]).status, 422);
    assert_eq!(put(&[other.stdout.trim_end()]).status, 204);
    assert_eq!(put(&[published.key.as_str()]).status, 204);
    let info = target.serving.get("/quickbuild-cache.json", &[]).text();
    let info: Value = serde_json::from_str(&info).unwrap();
    let keys = json!([published.key]);
    assert_eq!(
        info,
        json!({"format": 1, "priority": 40, "keys": keys, "lookup": true})
    );
}

/// Of many that put one document at once, one is first; and many that publish
/// everything lose nothing.
#[test]
fn two_at_once_lose_nothing() {
    let published = Published::new();
    let target = Target::signed(&published);
    let leaf = &paths(&published, "archives")[0];
    let together = |path: &str| -> Vec<u16> {
        std::thread::scope(|scope| {
            let put = || target.put_file(&published, path).status;
            let all: Vec<_> = (0..8).map(|_| scope.spawn(put)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        })
    };
    // An archive has one content, so all of them may have put it.
    let statuses = together(leaf);
    assert!(statuses.contains(&201), "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 201 | 412)));
    for path in paths(&published, "archives") {
        let _ = target.put_file(&published, &path);
    }
    let first = paths(&published, "recipes")
        .into_iter()
        .map(|path| together(&path))
        .find(|statuses| statuses.contains(&201))
        .unwrap();
    assert_eq!(first.iter().filter(|status| **status == 201).count(), 1);
    assert_eq!(first.iter().filter(|status| **status == 412).count(), 7);

    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                assert_eq!(target.put_documents(&published, "recipes"), [""; 0]);
                assert_eq!(target.put_documents(&published, "closures"), [""; 0]);
            });
        }
    });
    let answer = target.put_file(&published, "/inventory.json.zst");
    assert_eq!(answer.status, 201, "{}", answer.text());
    let mut expected = published_files(&published.cache);
    let mut found = target.files();
    for files in [&mut expected, &mut found] {
        files.remove(Path::new("quickbuild-cache.json"));
    }
    assert_eq!(found, expected);
    published.client(&target.serving.url()).assert_all_fetched();
}

/// A server that is killed while it receives has nothing half, and the next one
/// cleans up.
#[test]
fn a_killed_server_has_nothing_half() {
    let published = Published::new();
    let mut target = Target::signed(&published);
    let before = target.files();
    let path = &paths(&published, "archives")[0];
    let bytes = fs::read(published.cache.join(&path[1..])).unwrap();
    let token = format!("Authorization: Bearer {WRITE}");
    let head = head("PUT", path, &[&token, NEW], bytes.len());
    let mut stream = target.serving.connect();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&bytes[..bytes.len() / 2]).unwrap();
    let uploads = target.folder.join(".uploads");
    // It has begun to write.
    let begun = || walk(&uploads).iter().any(|path| !path.ends_with("lock"));
    for _ in 0..1_000 {
        if begun() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(begun());
    target.serving.signal("KILL");
    assert!(!target.serving.ended().success());
    assert_eq!(target.files(), before);
    assert!(begun());

    let folder = target.folder.clone();
    drop(target);
    let rules = ["--public-key", &published.key];
    let target = Target::at(&published, folder, &rules);
    assert!(!begun());
    target.put_archives(&published);
    // A client that breaks off leaves nothing either.
    let other = "0".repeat(64);
    let head = head.replace(&path[10..74], &other);
    let mut stream = target.serving.connect();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&bytes[..10]).unwrap();
    drop(stream);
    let is_broken = |line: &String| line.contains(&other) && line.contains("\" 400 ");
    let _ = target
        .serving
        .logged("the broken one", |l| l.iter().any(is_broken));
    assert!(!begun());
}

/// A folder that others push into as well.
#[test]
fn a_served_folder_has_one_truth() {
    let published = Published::new();
    let write = token_file(&published, "write", WRITE);
    let read = token_file(&published, "read", READ);
    let tokens = ["--write-tokens", &write, "--read-tokens", &read];
    let rules = [&tokens[..], &["--public-key", &published.key]].concat();
    let serving = serve(&published, &rules);
    let before = published_files(&published.cache);
    let token = format!("Authorization: Bearer {WRITE}");
    for folder in ["recipes", "closures"] {
        for path in paths(&published, folder) {
            let seen = serving.get(&path, &[&token]);
            let tag = format!("If-Match: {}", seen.header("etag").unwrap());
            let answer = put(&serving, &path, &tag, &seen.body);
            assert_eq!(answer.status, 204, "{}", answer.text());
        }
    }
    assert_eq!(published_files(&published.cache), before);
    let _ = published.push().success();
    assert_eq!(published_files(&published.cache), before);
}
