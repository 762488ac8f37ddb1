//! The end of a server, in order and not.

use std::fs;
use std::io::{Read as _, Write as _};

use super::serve;
use crate::substituters::Published;
use crate::support::{Serving, head};

/// The path of a large file that nobody has in a buffer on the way.
fn large(published: &Published) -> (String, usize) {
    let size = 64 << 20;
    let name = format!("archives/{}.tar.zst", "0".repeat(64));
    let file = fs::File::create(published.cache.join(&name)).unwrap();
    file.set_len(size).unwrap();
    (format!("/{name}"), usize::try_from(size).unwrap())
}

fn begin(serving: &Serving, path: &str) -> std::net::TcpStream {
    let mut stream = serving.connect();
    stream
        .write_all(head("GET", path, &[], 0).as_bytes())
        .unwrap();
    let mut first = [0; 1_000];
    stream.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200"));
    stream
}

#[test]
fn downloads_under_way_are_finished() {
    for signal in ["TERM", "INT"] {
        let published = Published::new();
        let (path, size) = large(&published);
        let mut serving = serve(&published, &[]);
        let mut stream = begin(&serving, &path);
        let mut idle = serving.keeping();
        serving.signal(signal);
        serving.says("stopping");
        // Nobody else is let in, and who asks for nothing is sent away.
        assert_eq!(idle.read(&mut [0]).unwrap(), 0);
        for _ in 0..1_000 {
            if !serving.is_open() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(!serving.is_open());
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.len() + 1_000 > size, "{}", rest.len());
        assert_eq!(serving.ended().code(), Some(0));
        let _ = serving.logged("the download", |lines| {
            lines
                .iter()
                .any(|line| line.contains(&format!(" 200 {size} ")))
        });
    }
}

#[test]
fn who_does_not_read_is_not_waited_for_for_ever() {
    let published = Published::new();
    let (path, _) = large(&published);
    let mut serving = serve(&published, &["--grace", "1s"]);
    let _stream = begin(&serving, &path);
    serving.signal("TERM");
    assert_eq!(serving.ended().code(), Some(0));
    serving.says("1 connections did not end in time");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let published = Published::new();
    let (path, _) = large(&published);
    let mut serving = serve(&published, &[]);
    let _stream = begin(&serving, &path);
    serving.signal("TERM");
    serving.says("stopping");
    serving.signal("TERM");
    assert_eq!(serving.ended().code(), Some(128 + 15));
}
