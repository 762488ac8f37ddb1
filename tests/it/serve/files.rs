//! Parts, tags, and paths that lead nowhere.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{paths, serve};
use crate::substituters::{Published, files as files_of};

#[test]
fn files_are_sent_as_they_lie_there() {
    let published = Published::new();
    let serving = serve(&published, &[]);
    for folder in ["recipes", "closures", "archives"] {
        let files = files_of(&published.cache, folder);
        for (path, file) in paths(&published, folder).iter().zip(&files) {
            let bytes = fs::read(file).unwrap();
            let answer = serving.get(path, &[]);
            assert_eq!((answer.status, &answer.body), (200, &bytes), "{path}");
            assert_eq!(answer.header("content-encoding"), None);
            let head = serving.request("HEAD", path, &[], b"");
            assert_eq!((head.status, head.body.len()), (200, 0));
            let length = bytes.len().to_string();
            assert_eq!(head.header("content-length"), Some(length.as_str()));
            assert_eq!(head.header("etag"), answer.header("etag"));
        }
    }
    let archive = serving.get(&paths(&published, "archives")[0], &[]);
    let kept = archive.header("cache-control").unwrap();
    assert_eq!(kept, "public, max-age=31536000, immutable");
    let document = serving.get(&paths(&published, "recipes")[0], &[]);
    assert_eq!(document.header("cache-control"), Some("public, max-age=60"));
}

#[test]
fn parts_of_files_are_sent() {
    let published = Published::new();
    let serving = serve(&published, &[]);
    let files = files_of(&published.cache, "archives");
    let (path, bytes) = (
        &paths(&published, "archives")[0],
        fs::read(&files[0]).unwrap(),
    );
    let size = bytes.len();
    let get = |header: &str| serving.get(path, &[header]);
    for (range, part) in [
        ("bytes=0-".to_owned(), 0..size),
        ("bytes=10-".to_owned(), 10..size),
        ("bytes=10-19".to_owned(), 10..20),
        ("bytes=-7".to_owned(), size - 7..size),
        (format!("bytes={}-{}", size - 1, size + 100), size - 1..size),
    ] {
        let answer = get(&format!("Range: {range}"));
        assert_eq!(
            (answer.status, &answer.body[..]),
            (206, &bytes[part.clone()]),
            "{range}"
        );
        let said = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), Some(said.as_str()));
    }
    let beyond = get(&format!("Range: bytes={size}-"));
    let said = format!("bytes */{size}");
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some(said.as_str()))
    );
    assert_eq!(get("Range: bytes=0-1,4-5").status, 200);
    let tag = serving.get(path, &[]).header("etag").unwrap().to_owned();
    let same = serving.get(path, &["Range: bytes=10-", &format!("If-Range: {tag}")]);
    assert_eq!(same.status, 206);
    let other = serving.get(path, &["Range: bytes=10-", "If-Range: \"other\""]);
    assert_eq!((other.status, other.body.len()), (200, size));
}

#[test]
fn what_is_known_is_not_sent_again() {
    let published = Published::new();
    let serving = serve(&published, &[]);
    let mut all = vec!["/quickbuild-cache.json".to_owned()];
    for folder in ["recipes", "closures", "archives"] {
        all.push(paths(&published, folder)[0].clone());
    }
    for path in &all {
        let first = serving.get(path, &[]);
        let tag = first.header("etag").unwrap();
        let known = serving.get(path, &[&format!("If-None-Match: \"x\", {tag}")]);
        assert_eq!((known.status, known.body.len()), (304, 0), "{path}");
        assert_eq!(known.header("etag"), Some(tag));
        assert_eq!(known.header("cache-control"), first.header("cache-control"));
        let other = serving.get(path, &["If-None-Match: \"x\""]);
        assert_eq!(other.without_date(), first.clone().without_date());
    }
    // A document that changes has another tag.
    let file = &files_of(&published.cache, "recipes")[0];
    let path = &paths(&published, "recipes")[0];
    let tag = serving.get(path, &[]).header("etag").unwrap().to_owned();
    let more = [
        fs::read(file).unwrap(),
        zstd::bulk::compress(b" ", 3).unwrap(),
    ]
    .concat();
    fs::write(file.with_extension("new"), more).unwrap();
    fs::rename(file.with_extension("new"), file).unwrap();
    let changed = serving.get(path, &[&format!("If-None-Match: {tag}")]);
    assert_eq!(changed.status, 200);
}

#[test]
fn no_path_leads_anywhere_else() {
    let published = Published::new();
    fs::write(published.cache.join("secret"), "secret").unwrap();
    fs::write(published.cache.join("recipes/secret"), "secret").unwrap();
    let serving = serve(&published, &[]);
    let recipe = paths(&published, "recipes")[0].clone();
    for path in [
        "/",
        "/secret",
        "/recipes/secret",
        "/recipes/",
        "/recipes",
        "/.lock",
        "/recipes/../secret",
        "/recipes/..%2fsecret",
        "/recipes/%2e%2e/secret",
        "/archives/../../../../../../etc/passwd",
        "/archives//etc/passwd",
        "//etc/passwd",
        "/archives/..%00.tar.zst",
        &recipe.replace("/recipes/", "/recipes/./"),
        &recipe.replace("/recipes/", "/recipes/../recipes/"),
        &recipe.replace(".zst", ".zst%00"),
    ] {
        let answer = serving.get(path, &[]);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("secret"), "{path}");
        assert_eq!(serving.put(path, &["If-None-Match: *"], b"x").status, 404);
    }
    assert_eq!(serving.get(&recipe, &[]).status, 200);
    // Not HTTP at all.
    let mut stream = serving.connect();
    stream.write_all(b"GET ../../etc/passwd\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(serving.get("/healthz", &[]).text(), "ok\n");
}

/// Forwards to a server, and breaks every other connection in the middle of an
/// archive.
fn breaking(server: std::net::SocketAddr) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // It ends with the test's process; nobody else knows its port.
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().flatten().enumerate() {
            let server = TcpStream::connect(server).unwrap();
            std::thread::spawn(move || forward(client, server, number % 2 == 0));
        }
    });
    url
}

fn forward(mut client: TcpStream, mut server: TcpStream, is_breaking: bool) {
    let (mut answers, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let is_archive = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_archive);
    std::thread::spawn(move || {
        let mut buffer = [0; 64 << 10];
        while let Ok(count @ 1..) = answers.read(&mut buffer) {
            let breaks = is_breaking && seen.load(Ordering::SeqCst);
            let sent = if breaks { count * 3 / 4 } else { count };
            if to.write_all(&buffer[..sent]).is_err() || breaks {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = answers.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 64 << 10];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        if buffer[..count].starts_with(b"GET /archives/") {
            is_archive.store(true, Ordering::SeqCst);
        }
        if server.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
}

/// A client whose connection breaks asks for the rest, and gets it.
#[test]
fn what_breaks_off_goes_on() {
    let published = Published::new();
    let serving = serve(&published, &[]);
    let url = serving.url();
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();
    published.client(&breaking(address)).assert_all_fetched();
    let is_part = |line: &String| line.contains("GET /archives/") && line.contains("\" 206 ");
    let _ = serving.logged("a part", |lines| lines.iter().any(is_part));
}
