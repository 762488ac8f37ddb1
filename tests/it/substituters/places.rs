//! The same over all places that can be written to: buckets, registries, releases
//! and servers that take uploads. The servers are real ones, or as their
//! documentation says.

use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Client, Published};
use crate::support::http::{Http, Request, Response, forward};
use crate::support::{Buckets, Cloud, GitHub, Outcome, TOKEN, Uploads, WRITE_TOKEN, programs};

/// No server is ill here, however busy this machine is.
const PATIENT: &str = "timeout = \"30s\"";

/// A place that outputs are pushed to, with settings for both sides.
struct Place {
    published: Published,
    url: String,
    settings: String,
}

impl Place {
    fn new(url: &str, settings: &str, variables: &[(&str, &str)]) -> Self {
        let mut published = Published::new();
        for (name, value) in variables {
            published.env = published.env.with(name, *value);
        }
        Self {
            published,
            url: url.to_owned(),
            settings: settings.to_owned(),
        }
    }

    fn key(&self) -> String {
        format!("public-keys = [\"{}\"]", self.published.key)
    }

    /// The environment of who pushes there.
    fn env(&self, url: &str) -> crate::support::TestEnv {
        // Another file each time: somebody may be reading the last one.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let config = self.published.env.root().join(format!("push-{count}.toml"));
        let text = format!(
            "[[substituters]]\nurl = \"{url}\"\n{PATIENT}\n{}\n{}\n",
            self.key(),
            self.settings
        );
        std::fs::write(&config, text).unwrap();
        let env = &self.published.env;
        env.with("QUICKBUILD_CONFIG", config.to_str().unwrap())
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let project = &self.published.project;
        self.env(&self.url).quickbuild(project, arguments)
    }

    fn push(&self, more: &[&str]) -> Outcome {
        let push = ["push", &self.url, "--all", "--include-local"];
        self.run(&[&push, more].concat())
    }

    fn client_of(&self, url: &str) -> Client {
        let settings = format!("{PATIENT}\n{}\n{}", self.key(), self.settings);
        self.published.client_with(url, &settings)
    }

    fn client(&self) -> Client {
        self.client_of(&self.url)
    }

    /// What is pushed is fetched, and pushed once only.
    #[track_caller]
    fn assert_serves(&self) {
        let absent = self.client().assert_all_built();
        assert!(absent.contains("is no substituter"), "{absent}");
        let pushed = self.push(&[]).success();
        assert!(!pushed.stdout.contains(" 0 outputs published"), "{pushed}");
        self.client().assert_all_fetched();
        for more in [&[][..], &["--only-missing"]] {
            let again = self.push(more).success();
            assert!(again.stdout.contains(" 0 outputs published"), "{again}");
        }
        self.client().assert_all_fetched();
    }

    /// What is published first stays, whoever comes with another content.
    #[track_caller]
    fn assert_first_stays(&self) {
        let published = &self.published;
        let env = self.env(&self.url);
        let env = env.with_store(&published.env.root().join("second"));
        let elsewhere = env.checkout(&published.project);
        let _ = env.quickbuild(&elsewhere, &["build"]).success();
        let push = ["push", &self.url, "--all", "--include-local"];
        let pushed = env.quickbuild(&elsewhere, &push);
        assert_eq!(pushed.code, Some(1), "{pushed}");
        assert!(pushed.stderr.contains("CONFLICT"), "{pushed}");
        self.client().assert_all_fetched();
    }

    /// All documents go; archives of today are spared where they are listed.
    #[track_caller]
    fn assert_pruned(&self) {
        let prune = ["prune", &self.url, "--max-size", "0"];
        let dry = self.run(&[&prune[..], &["--dry-run"]].concat()).success();
        assert!(dry.stdout.contains("would go, 0 stay; 0 archives"), "{dry}");
        self.client().assert_all_fetched();
        let pruned = self.run(&prune).success();
        assert!(pruned.stdout.contains(" 0 stay; 0 archives"), "{pruned}");
        let client = self.client();
        let built = client.run(&["build"]).success();
        assert_eq!(built.summary().from_store, 0, "{built}");
        let pushed = self.push(&[]).success();
        assert!(!pushed.stdout.contains(" 0 outputs published"), "{pushed}");
        self.client().assert_all_fetched();
    }

    /// Pushes at the same time lose nothing: three stores have the same outputs,
    /// each with a signature of its own, and all signatures are published.
    #[track_caller]
    fn assert_three_at_once(&self) {
        let published = &self.published;
        let root = published.env.root();
        let mut keys = vec![published.key.clone()];
        let env = self.env(&self.url);
        let mut stores = Vec::new();
        for number in 1..=3 {
            let name = format!("key-{number}");
            let key = published.run(&["key", "generate", &name]).success();
            keys.push(key.stdout.trim_end().to_owned());
            let store = root.join(format!("store-{number}"));
            let mut copy = std::process::Command::new("cp");
            copy.arg("-a").arg(published.env.store()).arg(&store);
            assert!(copy.status().unwrap().success());
            let own = env.with_store(&store);
            let sign = ["key", "sign", &name, "--all"];
            let _ = own.quickbuild(&published.project, &sign).success();
            stores.push(own);
        }
        let push = ["push", &self.url, "--all", "--include-local"];
        let pushing: Vec<Child> = stores
            .iter()
            .map(|own| own.spawn_quickbuild(&published.project, &push))
            .collect();
        for child in pushing {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        let settings = format!(
            "{PATIENT}\npublic-keys = {keys:?}\nsignatures = {}\n{}",
            keys.len(),
            self.settings
        );
        let client = published.client_with(&self.url, &settings);
        client.assert_all_fetched();
    }

    /// A push that ends anywhere names nothing that is absent, and the next one
    /// goes on. `place` gives an empty place, and the URL by which it is known.
    #[track_caller]
    fn assert_killed(&self, step: usize, place: impl Fn(usize) -> String) {
        for n in (1..).step_by(step) {
            let url = place(n);
            let env = self.env(&url);
            let faulty = env.with("QUICKBUILD_FAULT", format!("kill@{n}"));
            let push = ["push", &url, "--all", "--include-local"];
            let first = faulty.quickbuild(&self.published.project, &push);
            let client = self.client_of(&url);
            let built = client.run(&["build"]).success();
            assert!(!built.stderr.contains("archive"), "{n}: {built}");
            client.env.assert_fresh(&client.project, &["build"]);
            let _ = env.quickbuild(&self.published.project, &push).success();
            self.client_of(&url).assert_all_fetched();
            if first.code == Some(0) {
                return;
            }
        }
    }
}

const S3: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "key"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
    ("AWS_REGION", "us-east-1"),
];

fn endpoint(url: &str) -> String {
    format!("endpoint = \"{url}\"")
}

#[test]
fn pushes_to_a_folder_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path().join("cache").to_str().unwrap(), "", &[]);
    place.assert_three_at_once();
}

#[test]
fn an_s3_bucket_is_a_substituter() {
    let Some(server) = programs::s3() else { return };
    let place = Place::new("s3://cache/some/where", &endpoint(&server.url()), &S3);
    place.assert_serves();
    place.assert_first_stays();
    place.assert_pruned();
    let absent = place.env("s3://absent");
    let push = ["push", "s3://absent", "--all", "--include-local"];
    let failed = absent.quickbuild(&place.published.project, &push);
    assert_eq!(failed.code, Some(3), "{failed}");
    assert!(failed.stderr.contains("s3://absent/"), "{failed}");
}

#[test]
fn pushes_to_s3_lose_nothing() {
    let Some(server) = programs::s3() else { return };
    let place = Place::new("s3://cache", &endpoint(&server.url()), &S3);
    place.assert_three_at_once();
    place.assert_killed(11, |n| format!("s3://cache/killed/{n}"));
}

/// No server of theirs can be had here, so these are as their documentation says.
#[test]
fn buckets_of_google_and_azure_are_substituters() {
    let google = [("GOOGLE_BEARER_TOKEN", "token")];
    let azure = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0"),
    ];
    for (cloud, url, variables) in [
        (Cloud::Google, "gs://cache/some/where", &google[..]),
        (Cloud::Azure, "az://cache/some/where", &azure),
    ] {
        let server = Buckets::start(cloud);
        let place = Place::new(url, &endpoint(&server.url()), variables);
        place.assert_serves();
        place.assert_first_stays();
        let names = server.names();
        let is_below = |name: &String| name.starts_with("some/where/");
        assert!(!names.is_empty() && names.iter().all(is_below), "{names:?}");
        // All that was published years ago goes.
        let pruned = place.run(&["prune", url, "--older-than", "90d"]).success();
        assert!(pruned.stdout.contains(" 0 stay"), "{pruned}");
        assert_eq!(server.names(), ["some/where/quickbuild-cache.json"]);
    }
}

#[test]
fn buckets_of_google_and_azure_lose_nothing() {
    let server = Buckets::start(Cloud::Google);
    let variables = [("GOOGLE_BEARER_TOKEN", "token")];
    let place = Place::new("gs://cache", &endpoint(&server.url()), &variables);
    place.assert_three_at_once();
    let server = Buckets::start(Cloud::Azure);
    let variables = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0"),
    ];
    let place = Place::new("az://cache", &endpoint(&server.url()), &variables);
    place.assert_three_at_once();
}

/// What is too large for one request goes in parts.
#[test]
fn a_large_archive_goes_to_s3_in_parts() {
    let Some(server) = programs::s3() else { return };
    let place = Place::new("s3://cache/large", &endpoint(&server.url()), &S3);
    let published = &place.published;
    let script = published.project.path("helper/build.rs");
    // Bytes that nothing packs.
    let text = "fn main() {\n    let mut x = 1_u64;\n    let bytes: Vec<u8> = (0..20_000_000)\n\
        .map(|_| { x ^= x << 13; x ^= x >> 7; x ^= x << 17; x as u8 }).collect();\n    \
        let to = std::env::var(\"OUT_DIR\").unwrap() + \"/noise\";\n    \
        std::fs::write(to, bytes).unwrap();\n    println!(\"cargo::rerun-if-changed=build.rs\");\n}\n";
    std::fs::write(script, text).unwrap();
    let _ = published.run(&["build"]).success();
    let _ = published
        .run(&["key", "sign", super::KEY, "--all"])
        .success();
    let _ = published.push().success();
    let archives = super::files(&published.cache, "archives");
    let large = |path: &&std::path::PathBuf| path.metadata().unwrap().len() > 16 << 20;
    let large = archives.iter().find(large).expect("a large archive");
    let _ = place.push(&[]).success();
    let back = published.env.root().join("back");
    let copy = [
        "copy",
        &place.url,
        back.to_str().unwrap(),
        "--include-local",
    ];
    let _ = place.run(&copy).success();
    let again = back.join("archives").join(large.file_name().unwrap());
    assert!(std::fs::read(again).unwrap() == std::fs::read(large).unwrap());
}

#[test]
fn a_registry_is_a_substituter() {
    let Some(server) = programs::registry(false) else {
        return;
    };
    let url = format!("oci://127.0.0.1:{}/team/cache", server.port);
    let place = Place::new(&url, "", &[]);
    place.assert_serves();
    place.assert_first_stays();
    place.assert_pruned();
    // Archives are blobs with their own digests.
    let blobs = server
        .folder()
        .join("blobs/docker/registry/v2/blobs/sha256");
    let blobs: Vec<_> = crate::support::walk(&blobs).into_iter().collect();
    for archive in super::files(&place.published.cache, "archives") {
        let name = archive.file_name().unwrap().to_str().unwrap();
        let hash = name.strip_suffix(".tar.zst").unwrap();
        assert!(
            blobs
                .iter()
                .any(|blob| blob.to_string_lossy().contains(hash)),
            "{name}"
        );
    }
}

#[test]
fn pushes_to_a_registry_lose_nothing() {
    let Some(server) = programs::registry(false) else {
        return;
    };
    let url = format!("oci://127.0.0.1:{}/cache", server.port);
    let place = Place::new(&url, "", &[]);
    place.assert_three_at_once();
    place.assert_killed(13, |n| format!("{url}/killed-{n}"));
}

#[test]
fn a_guarded_registry_lets_in_who_has_a_password() {
    let Some(server) = programs::registry(true) else {
        return;
    };
    let url = format!("oci://127.0.0.1:{}/cache", server.port);
    let nobody = Place::new(&url, "", &[]);
    let refused = nobody.push(&[]);
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(refused.stderr.contains("refuses access (401)"), "{refused}");

    let root = nobody.published.env.root();
    let netrc = root.join("netrc");
    std::fs::write(&netrc, "machine 127.0.0.1 login user password password\n").unwrap();
    let mut place = nobody;
    place.published.env = place.published.env.with("NETRC", netrc.to_str().unwrap());
    let _ = place.push(&[]).success();
    place.client().assert_all_fetched();

    // What `docker login` keeps.
    let docker = root.join("docker");
    std::fs::create_dir(&docker).unwrap();
    let auth = "dXNlcjpwYXNzd29yZA==";
    let config = format!(
        "{{\"auths\": {{\"127.0.0.1:{}\": {{\"auth\": \"{auth}\"}}}}}}",
        server.port
    );
    std::fs::write(docker.join("config.json"), config).unwrap();
    let env = place.published.env.with("NETRC", "/nowhere");
    place.published.env = env.with("DOCKER_CONFIG", docker.to_str().unwrap());
    let client = place.client();
    client.assert_all_fetched();
    // Documents are known by now; archives alone are asked for.
    std::fs::remove_dir_all(client.env.store().join("paths")).unwrap();
    std::fs::create_dir(client.env.store().join("paths")).unwrap();
    let other = client.env.checkout(&client.project);
    let _ = client.env.quickbuild(&other, &["build"]).nothing_built();
}

/// As the large registries do it: they send elsewhere for a token. In front of a
/// real registry stands somebody who asks for one.
#[test]
fn a_registry_that_wants_a_token_is_shown_one() {
    let Some(server) = programs::registry(false) else {
        return;
    };
    let port = server.port;
    let guard = Http::start(|url| {
        let challenge = format!(
            "Bearer realm=\"{url}/token\",service=\"here\",scope=\"repository:cache:pull,push\""
        );
        move |request: &Request| {
            let shown = request.header("authorization");
            if request.path == "/token" {
                let is_asked = request.query["service"] == "here"
                    && request.query["scope"] == "repository%3Acache%3Apull%2Cpush";
                return match shown {
                    Some("Basic dXNlcjpwYXNzd29yZA==") if is_asked => {
                        Response::json(200, &serde_json::json!({"token": "t0", "expires_in": 60}))
                    }
                    _ => Response::status(401),
                };
            }
            if shown != Some("Bearer t0") {
                let mut response = Response::status(401);
                response
                    .headers
                    .push(("www-authenticate", challenge.clone()));
                return response;
            }
            forward(port, request).unwrap()
        }
    });
    let url = guard.url().replace("http://", "oci://") + "/cache";
    let mut place = Place::new(&url, "", &[]);
    let refused = place.push(&[]);
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(refused.stderr.contains("refuses access (401)"), "{refused}");
    let netrc = place.published.env.root().join("netrc");
    std::fs::write(&netrc, "machine 127.0.0.1 login user password password\n").unwrap();
    place.published.env = place.published.env.with("NETRC", netrc.to_str().unwrap());
    place.assert_serves();
}

#[test]
fn a_release_is_a_substituter() {
    let github = GitHub::start();
    let settings = format!("api = \"{}\"", github.api());
    let place = Place::new(&github.place(), &settings, &[]);
    let refused = place.push(&[]);
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(refused.stderr.contains("refuses access (401)"), "{refused}");
    let mut place = place;
    place.published.env = place.published.env.with("GITHUB_TOKEN", TOKEN);
    place.assert_serves();
    place.assert_first_stays();
    let names = github.names();
    assert!(
        names.contains(&"quickbuild-cache.json".to_owned()),
        "{names:?}"
    );
    assert!(
        names
            .iter()
            .all(|name| !name.contains('/') && !name.ends_with(".new")),
        "{names:?}"
    );
}

#[test]
fn pushes_to_a_release_lose_nothing() {
    let github = GitHub::start();
    let settings = format!("api = \"{}\"", github.api());
    let place = Place::new(&github.place(), &settings, &[("GITHUB_TOKEN", TOKEN)]);
    place.assert_three_at_once();
    place.assert_killed(13, |_| {
        github.clear();
        github.place()
    });
}

/// Who is killed between taking a document away and bringing the new one to its
/// place leaves it under another name; the next writer brings it there.
#[test]
fn a_release_recovers_what_was_left_behind() {
    let github = GitHub::start();
    let settings = format!("api = \"{}\"", github.api());
    let place = Place::new(&github.place(), &settings, &[("GITHUB_TOKEN", TOKEN)]);
    let _ = place.push(&[]).success();
    let before = github.names();
    let documents = before.iter().filter(|name| name.ends_with(".json.zst"));
    for name in documents.clone() {
        // The ids of what they replaced are gone.
        github.rename(name, |id| format!("{name}.{}.00ff.new", id + 1_000_000));
    }
    assert!(documents.clone().count() > 0);
    let again = place.push(&[]).success();
    assert!(again.stdout.contains(" 0 outputs published"), "{again}");
    let mut after = github.names();
    let mut before = before;
    before.sort();
    after.sort();
    assert_eq!(after, before);
    place.client().assert_all_fetched();
}

#[test]
fn a_server_that_takes_uploads_is_written_to() {
    let server = Uploads::start();
    let mut place = Place::new(&server.url(), "", &[]);
    let refused = place.push(&[]);
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(refused.stderr.contains("refuses access (401)"), "{refused}");
    assert!(server.paths().is_empty());
    place.settings = format!("token = \"{WRITE_TOKEN}\"");
    place.assert_serves();
    place.assert_first_stays();
}

#[test]
fn uploads_at_once_lose_nothing() {
    let server = Uploads::start();
    let settings = format!("token = \"{WRITE_TOKEN}\"");
    let place = Place::new(&server.url(), &settings, &[]);
    place.assert_three_at_once();
    place.assert_killed(13, |n| format!("{}/{n}", server.url()));
}

/// Static files are read by everybody, and written by nobody.
#[test]
fn a_server_that_takes_no_uploads_says_so() {
    let published = Published::new();
    let server = crate::support::Server::new(&published.cache);
    let place = Place::new(&server.url(), "", &[]);
    let refused = place.push(&[]);
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(
        refused.stderr.contains("ETag") || refused.stderr.contains("no uploads"),
        "{refused}"
    );
}
