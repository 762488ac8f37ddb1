//! A TCP port that stands for the engine's socket.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

/// Hands connections on to the engine's socket, until it is cut, and keeps what
/// was asked.
pub(super) struct Relay {
    address: String,
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Relay {
    pub(super) fn start() -> Self {
        Self::until(None)
    }

    /// Is cut when so many bytes have been sent on one connection.
    pub(super) fn for_bytes(limit: usize) -> Self {
        Self::until(Some(limit))
    }

    fn until(limit: Option<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (shared, all_sent) = (Arc::clone(&open), Arc::clone(&sent));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut open = shared.lock().unwrap();
                let Some(open) = open.as_mut() else { continue };
                let engine = UnixStream::connect("/var/run/docker.sock").unwrap();
                open.push(client.try_clone().unwrap());
                let (mut up, mut back) = (client.try_clone().unwrap(), client);
                let (mut to, mut from) = (engine.try_clone().unwrap(), engine);
                let (sent, connections) = (Arc::clone(&all_sent), Arc::clone(&shared));
                let mut size = 0;
                std::thread::spawn(move || {
                    copy(&mut up, &mut to, |bytes| {
                        sent.lock().unwrap().extend(bytes);
                        size += bytes.len();
                        if limit.is_some_and(|limit| size > limit) {
                            cut(&connections);
                        }
                    });
                    let _ = to.shutdown(Shutdown::Write);
                });
                std::thread::spawn(move || {
                    copy(&mut from, &mut back, |_| ());
                    let _ = back.shutdown(Shutdown::Write);
                });
            }
        });
        Self {
            address,
            open,
            sent,
        }
    }

    /// For `DOCKER_HOST`.
    pub(super) fn host(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// Requests so far that begin like this, after the API's version.
    pub(super) fn asked(&self, method: &str, path: &str) -> usize {
        let sent = self.sent.lock().unwrap();
        let text = String::from_utf8_lossy(&sent);
        let requests = text
            .split("\r\n")
            .filter(|line| line.ends_with(" HTTP/1.1"));
        // Behind a body there is no end of line.
        let matching = requests.filter(|line| {
            let start = line.rfind(&format!("{method} /"));
            start.is_some_and(|start| line[start..].contains(path))
        });
        matching.count()
    }

    pub(super) fn cut(&self) {
        cut(&self.open);
    }
}

fn cut(open: &Mutex<Option<Vec<TcpStream>>>) {
    for client in open.lock().unwrap().take().unwrap_or_default() {
        let _ = client.shutdown(Shutdown::Both);
    }
}

/// Until one side ends.
fn copy(from: &mut impl Read, to: &mut impl Write, mut see: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        see(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
