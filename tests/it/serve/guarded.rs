//! Tokens, limits, TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{READ, WRITE, paths, serve, token_file};
use crate::substituters::Published;
use crate::support::skipped;

#[test]
fn who_has_no_token_learns_nothing() {
    let published = Published::new();
    let read = token_file(&published, "read", READ);
    let serving = serve(&published, &["--read-tokens", &read]);
    let archive = paths(&published, "archives")[0].clone();
    let stranger = serving.get(&archive, &[]).without_date();
    assert_eq!(stranger.status, 401);
    assert_eq!(
        stranger.header("www-authenticate"),
        Some("Bearer realm=\"quickbuild\"")
    );
    // The same for what is there and what is not, with a token and without.
    for path in [
        archive.as_str(),
        "/quickbuild-cache.json",
        "/nothing",
        "/metrics",
        "/v1/lookup",
    ] {
        for header in [
            "X-Y: z",
            "Authorization: Bearer other",
            "Authorization: Basic !",
        ] {
            let answer = serving.get(path, &[header]).without_date();
            assert_eq!(answer, stranger, "{path} {header}");
        }
    }
    let allowed = format!("Authorization: Bearer {READ}");
    let answer = serving.get(&archive, &[&allowed]);
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("cache-control")
            .unwrap()
            .starts_with("private, ")
    );
    assert_eq!(serving.get("/metrics", &[&allowed]).status, 200);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(serving.get(path, &[]).status, 200);
    }

    let said = published.client(&serving.url()).assert_all_built();
    assert!(said.contains("refuses access (401)"), "{said}");
    let key = format!("public-keys = [\"{}\"]", published.key);
    let settings = format!("{key}\ntoken-variable = \"CACHE_TOKEN\"");
    let mut client = published.client_with(&serving.url(), &settings);
    client.env = client.env.with("CACHE_TOKEN", READ);
    client.assert_all_fetched();
    let netrc = published.env.root().join("netrc");
    fs::write(
        &netrc,
        format!("machine 127.0.0.1 login x password {READ}\n"),
    )
    .unwrap();
    let mut client = published.client(&serving.url());
    client.env = client.env.with("NETRC", netrc.to_str().unwrap());
    client.assert_all_fetched();
    assert!(!serving.said().contains(READ));
    let lines = serving.logged("lines", |lines| !lines.is_empty());
    assert!(!lines.join("\n").contains(READ));
}

#[test]
fn writing_needs_another_token() {
    let published = Published::new();
    let (read, write) = (
        token_file(&published, "read", READ),
        token_file(&published, "write", WRITE),
    );
    let tokens = ["--read-tokens", &read, "--write-tokens", &write];
    let serving = serve(&published, &[&tokens[..], &["--accept-unsigned"]].concat());
    let path = format!("/archives/{}.tar.zst", "0".repeat(64));
    let put = |token: &str| {
        let header = format!("Authorization: Bearer {token}");
        serving
            .put(&path, &[&header, "If-None-Match: *"], b"x")
            .status
    };
    assert_eq!(serving.put(&path, &["If-None-Match: *"], b"x").status, 401);
    assert_eq!(put("another-token-altogether"), 401);
    assert_eq!(put(READ), 403);
    assert_eq!(put(WRITE), 422);
    // Whoever may write may read.
    let header = format!("Authorization: Bearer {WRITE}");
    assert_eq!(
        serving.get("/quickbuild-cache.json", &[&header]).status,
        200
    );
    drop(serving);

    // Where nobody may write, no token helps.
    let serving = serve(&published, &[]);
    let answer = serving.put(&path, &[&header, "If-None-Match: *"], b"x");
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET, HEAD"))
    );
}

#[test]
fn tokens_and_rules_are_asked_for() {
    let published = Published::new();
    let cache = published.cache.to_str().unwrap();
    let write = token_file(&published, "write", WRITE);
    let refused = published.run(&["serve", cache, "--write-tokens", &write]);
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(refused.stderr.contains("--accept-unsigned"), "{refused}");
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&write, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = published.run(&["serve", cache, "--read-tokens", &write]);
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(refused.stderr.contains("others have access"), "{refused}");
    let env = published.env.with("QUICKBUILD_SERVE_READ_TOKENS", "short");
    let refused = env.quickbuild(&published.project, &["serve", cache]);
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(refused.stderr.contains("fewer than 16"), "{refused}");
}

#[test]
fn who_asks_too_fast_waits() {
    let published = Published::new();
    let serving = serve(&published, &["--rate", "5"]);
    let answers: Vec<_> = (0..12)
        .map(|_| serving.get("/quickbuild-cache.json", &[]))
        .collect();
    let limited: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 429)
        .collect();
    assert!(!limited.is_empty());
    for answer in limited {
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(serving.get("/healthz", &[]).status, 200);
    // Our client waits and has everything in the end.
    published.client(&serving.url()).assert_all_fetched();
    let is_limited = |line: &String| line.contains("\" 429 ") && line.contains("quickbuild/");
    let _ = serving.logged("a client that waits", |lines| lines.iter().any(is_limited));
}

/// More connections than there may be wait for their turn.
#[test]
fn connections_have_a_bound() {
    let published = Published::new();
    let serving = serve(&published, &["--connections", "2"]);
    let first = serving.keeping();
    let second = serving.connect();
    let url = serving.url();
    let address = url.strip_prefix("http://").unwrap().to_owned();
    let third = std::thread::spawn(move || {
        use std::io::Write as _;
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(!third.is_finished());
    drop((first, second));
    assert!(third.join().unwrap().ends_with("ok\n"));
    // While all are taken, nobody keeps one that is answered.
    use std::io::Read as _;
    let is_kept = |mut stream: &std::net::TcpStream| {
        let moment = std::time::Duration::from_millis(200);
        stream.set_read_timeout(Some(moment)).unwrap();
        stream.read(&mut [0]).is_err()
    };
    // The third one may not be gone yet; then the first is sent away.
    let kept = (0..50).find_map(|_| Some(serving.keeping()).filter(is_kept));
    let _first = kept.unwrap();
    let mut second = serving.keeping();
    // Sooner than for a head that does not come.
    second
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .unwrap();
    assert_eq!(second.read(&mut [0]).unwrap(), 0);
}

/// A root of our own and a certificate for 127.0.0.1 that it has signed.
struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    fn new(folder: &Path) -> Option<Self> {
        let found = Command::new("openssl")
            .arg("version")
            .stdout(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            skipped("openssl", "openssl is not installed");
            return None;
        }
        let folder = folder.join("tls");
        fs::create_dir(&folder).unwrap();
        let run = |arguments: &str| {
            let mut command = Command::new("openssl");
            command.args(arguments.split(' ')).current_dir(&folder);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
        run(&format!(
            "req -x509 {new} -keyout ca.key -out ca.pem -subj /CN=root"
        ));
        run(
            &format!("req {new} -keyout server.key -out server.csr -subj /CN=server")
                .replace(" -days 2", ""),
        );
        fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        run(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out server.pem -extfile ext",
        );
        Some(Self { folder })
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn tls_is_spoken_with_who_trusts_the_certificate() {
    let published = Published::new();
    let Some(certificates) = Certificates::new(&published.env.root()) else {
        return;
    };
    let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|n| certificates.path(n));
    let read = token_file(&published, "read", READ);
    let tls = [
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--read-tokens",
        &read,
    ];
    let serving = serve(&published, &tls);
    assert!(serving.url().starts_with("https://"));
    let trusted = format!("public-keys = [\"{}\"]\ntoken = \"{READ}\"", published.key);

    let said = published
        .client_with(&serving.url(), &trusted)
        .assert_all_built();
    assert!(said.contains("cannot be reached"), "{said}");
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    let asked = serving.logged("nothing", |_| true);
    assert_eq!(asked, [""; 0], "somebody asked over TLS");

    // By a setting, relative to the file or not; or as all programs are told.
    let with = format!("{trusted}\nca = \"{ca}\"");
    published
        .client_with(&serving.url(), &with)
        .assert_all_fetched();
    let mut client = published.client_with(&serving.url(), &trusted);
    client.env = client.env.with("SSL_CERT_FILE", &ca);
    client.assert_all_fetched();
    let lines = serving.logged("requests", |lines| !lines.is_empty());
    for line in lines {
        assert!(line.contains(" HTTP/2\" 200 "), "{line}");
    }
    let missing = format!("{trusted}\nca = \"/nowhere/ca.pem\"");
    let said = published
        .client_with(&serving.url(), &missing)
        .assert_all_built();
    assert!(said.contains("/nowhere/ca.pem"), "{said}");

    // A client that does not speak TLS gets nothing, and harms nobody.
    use std::io::{Read as _, Write as _};
    let mut stream = serving.connect();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"));
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    let published = Published::new();
    let Some(certificates) = Certificates::new(&published.env.root()) else {
        return;
    };
    let cache = published.cache.to_str().unwrap();
    for (cert, key, said) in [
        ("server.key", "server.key", "has no certificate"),
        ("server.pem", "server.pem", "has no private key"),
        ("server.pem", "ca.key", "cannot be used"),
        ("absent", "server.key", "cannot read"),
    ] {
        let [cert, key] = [cert, key].map(|name| certificates.path(name));
        let refused = published.run(&["serve", cache, "--tls-cert", &cert, "--tls-key", &key]);
        assert_eq!(refused.code, Some(3), "{refused}");
        assert!(refused.stderr.contains(said), "{refused}");
    }
}
