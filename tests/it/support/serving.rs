//! `quickbuild serve` as a process, and requests to it as bytes.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::{Project, TestEnv};

/// How long anything may take.
const LONG: Duration = Duration::from_secs(60);

/// Lines of a stream, as they come.
#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    fn read(&self, stream: impl Read + Send + 'static) {
        let lines = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                lines.0.0.lock().unwrap().push(line);
                lines.0.1.notify_all();
            }
        });
    }

    fn now(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits until there are lines of which this holds.
    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&[String]) -> bool) -> Vec<String> {
        let lines = self.0.0.lock().unwrap();
        let waiting = |lines: &mut Vec<String>| !holds(lines);
        let (lines, elapsed) = self.0.1.wait_timeout_while(lines, LONG, waiting).unwrap();
        assert!(!elapsed.timed_out(), "{what} did not come: {lines:#?}");
        lines.clone()
    }
}

/// The server; it ends when dropped.
pub(crate) struct Serving {
    child: Child,
    address: SocketAddr,
    scheme: String,
    log: Lines,
    said: Lines,
}

impl Serving {
    /// Starts `quickbuild serve` with these arguments on a free port.
    #[track_caller]
    pub(crate) fn start(env: &TestEnv, project: &Project, arguments: &[&str]) -> Self {
        Self::start_command(env, project, &[&["serve"], arguments].concat())
    }

    /// Starts `quickbuild service` with these arguments on a free port.
    #[track_caller]
    pub(crate) fn service(env: &TestEnv, project: &Project, arguments: &[&str]) -> Self {
        Self::start_command(env, project, &[&["service"], arguments].concat())
    }

    #[track_caller]
    fn start_command(env: &TestEnv, project: &Project, words: &[&str]) -> Self {
        let all = [words, &["--listen", "127.0.0.1:0"]].concat();
        let mut child = env.spawn_quickbuild(project, &all);
        let (log, said) = (Lines::default(), Lines::default());
        log.read(child.stdout.take().unwrap());
        said.read(child.stderr.take().unwrap());
        let is_address = |line: &String| {
            line.starts_with("quickbuild: serving") || line.starts_with("quickbuild: the service")
        };
        let lines = said.until("the address", |lines| lines.iter().any(is_address));
        let line = lines.iter().find(|line| is_address(line)).unwrap();
        let url = line.rsplit(' ').next().unwrap();
        let (scheme, address) = url.split_once("://").unwrap();
        Self {
            address: address.parse().unwrap(),
            scheme: scheme.to_owned(),
            child,
            log,
            said,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// A connection that was answered, and stays.
    pub(crate) fn keeping(&self) -> TcpStream {
        let mut stream = self.connect();
        let request = "GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        stream
    }

    /// Ends it as a power failure would.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        let _ = self.child.wait();
    }

    /// Whether somebody listens.
    pub(crate) fn is_open(&self) -> bool {
        TcpStream::connect(self.address).is_ok()
    }

    /// Waits for lines of the access log.
    #[track_caller]
    pub(crate) fn logged(&self, what: &str, holds: impl Fn(&[String]) -> bool) -> Vec<String> {
        self.log.until(what, holds)
    }

    /// Waits until something is said on standard error.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) {
        let _ = self
            .said
            .until(text, |lines| lines.iter().any(|line| line.contains(text)));
    }

    pub(crate) fn said(&self) -> String {
        self.said.now().join("\n")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        kill.arg(format!("-{signal}"))
            .arg(self.child.id().to_string());
        assert!(kill.status().unwrap().success());
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < LONG, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `GET`
    pub(crate) fn get(&self, path: &str, headers: &[&str]) -> Response {
        self.request("GET", path, headers, b"")
    }

    /// `PUT`
    pub(crate) fn put(&self, path: &str, headers: &[&str], body: &[u8]) -> Response {
        self.request("PUT", path, headers, body)
    }

    /// `POST`
    pub(crate) fn post(&self, path: &str, headers: &[&str], body: &[u8]) -> Response {
        self.request("POST", path, headers, body)
    }

    /// Sends a request as it is, and reads all of the answer.
    #[track_caller]
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Response {
        let mut stream = self.connect();
        let head = head(method, path, headers, body.len());
        stream.write_all(head.as_bytes()).unwrap();
        // Whoever is refused may not be able to send all.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Response::parse(&answer, method == "HEAD")
    }
}

/// The head of a request after which the connection ends.
pub(crate) fn head(method: &str, path: &str, headers: &[&str], length: usize) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    let has_length = headers.iter().any(|header| header.starts_with("Transfer-"));
    if !has_length && (length > 0 || method == "PUT" || method == "POST") {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head + "\r\n"
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal("KILL");
            let _ = self.child.wait();
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    #[track_caller]
    fn parse(bytes: &[u8], is_head: bool) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        let response = Self {
            status: status.parse().unwrap(),
            headers: headers.collect(),
            body: bytes[end + 4..].to_vec(),
        };
        if let Some(length) = response.header("content-length")
            && !is_head
        {
            assert_eq!(length, response.body.len().to_string());
        }
        response
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Without what differs between any two answers.
    pub(crate) fn without_date(mut self) -> Self {
        self.headers.retain(|(name, _)| name != "date");
        self
    }
}
