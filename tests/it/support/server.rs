//! A web server of files on this machine, with moods.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How a server answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// With the file.
    Good,
    /// With this status, and a header.
    Status(u16, &'static str),
    /// With a page for people.
    Page,
    /// Not at all, until the client goes or the server ends.
    Silent,
    /// With the file, byte by byte.
    Dripping,
    /// With the first part of what is asked for, and then it hangs up.
    Breaking,
    /// With a redirect to the same place.
    Circling,
}

/// Says how to answer a request for a path; the second argument is the number
/// of the request.
type Choose = dyn Fn(&str, usize) -> Mood + Send + Sync;

struct Inside {
    root: PathBuf,
    choose: Box<Choose>,
    requests: AtomicUsize,
    /// Requests with `Range`.
    ranges: AtomicUsize,
    /// What was last shown to be let in.
    shown: Mutex<Option<String>>,
    stopped: AtomicBool,
    /// Wakes who is silent.
    stop: (Mutex<()>, Condvar),
}

/// The server; it ends when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    inside: Arc<Inside>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn new(root: &Path) -> Self {
        Self::moody(root, |_, _| Mood::Good)
    }

    pub(crate) fn moody(
        root: &Path,
        choose: impl Fn(&str, usize) -> Mood + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Arc::new(Inside {
            root: root.to_owned(),
            choose: Box::new(choose),
            requests: AtomicUsize::new(0),
            ranges: AtomicUsize::new(0),
            shown: Mutex::new(None),
            stopped: AtomicBool::new(false),
            stop: (Mutex::new(()), Condvar::new()),
        });
        let shared = Arc::clone(&inside);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&shared);
                // A client that goes away is no failure of the test.
                std::thread::spawn(move || stream.map(|stream| shared.answer(stream)));
            }
        });
        Self {
            address,
            inside,
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> usize {
        self.inside.requests.load(Ordering::SeqCst)
    }

    /// The last request's `Authorization`.
    pub(crate) fn shown(&self) -> Option<String> {
        self.inside.shown.lock().unwrap().clone()
    }

    pub(crate) fn ranges(&self) -> usize {
        self.inside.ranges.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.inside.stopped.store(true, Ordering::SeqCst);
        self.inside.stop.1.notify_all();
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Inside {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let (mut from, mut length) = (None, 0);
        *self.shown.lock().unwrap() = None;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            if let Some((name, value)) = header.split_once(": ")
                && name.eq_ignore_ascii_case("authorization")
            {
                *self.shown.lock().unwrap() = Some(value.trim().to_owned());
            }
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(range) = header.strip_prefix("range: bytes=") {
                from = range.trim_end_matches('-').parse::<usize>().ok();
            }
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse().unwrap_or(0);
            }
        }
        reader.take(length).read_to_end(&mut Vec::new())?;
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        if from.is_some() {
            self.ranges.fetch_add(1, Ordering::SeqCst);
        }
        let mood = (self.choose)(&path, number);
        match mood {
            Mood::Silent => {
                self.wait(Duration::from_secs(60));
                return Ok(());
            }
            Mood::Status(status, header) => {
                return write!(
                    stream,
                    "HTTP/1.1 {status} X\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
            }
            Mood::Page => {
                let page = "<!doctype html><title>Welcome</title>";
                return write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                    page.len()
                );
            }
            Mood::Circling => {
                return write!(
                    stream,
                    "HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
            }
            Mood::Good | Mood::Dripping | Mood::Breaking => {}
        }
        let Ok(content) = fs::read(self.root.join(path.trim_start_matches('/'))) else {
            return write!(
                stream,
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        };
        let start = from.unwrap_or(0).min(content.len());
        let part = &content[start..];
        let status = match from {
            Some(_) => format!(
                "206 Partial Content\r\nContent-Range: bytes {start}-{}/{}",
                content.len() - 1,
                content.len()
            ),
            None => "200 OK".to_owned(),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            part.len()
        )?;
        match mood {
            Mood::Dripping => {
                for byte in part {
                    stream.write_all(&[*byte])?;
                    self.wait(Duration::from_millis(20));
                }
                Ok(())
            }
            Mood::Breaking => stream.write_all(&part[..part.len().div_ceil(2)]),
            _ => stream.write_all(part),
        }
    }

    fn wait(&self, time: Duration) {
        let guard = self.stop.0.lock().unwrap();
        let waiting = |(): &mut ()| !self.stopped.load(Ordering::SeqCst);
        drop(
            self.stop
                .1
                .wait_timeout_while(guard, time, waiting)
                .unwrap(),
        );
    }
}
