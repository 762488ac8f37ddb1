//! Servers that are other people's programs, each on a port of its own of this
//! machine, ended when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::skipped;

/// A server that runs.
pub(crate) struct Program {
    process: Child,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Programs that `.ci/run` installs beside what Cargo makes.
fn tool(name: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    Some(tools.join("tools/bin").join(name)).filter(|path| path.is_file())
}

impl Program {
    fn start(folder: tempfile::TempDir, port: u16, mut command: Command) -> Self {
        let output = fs::File::create(folder.path().join("output")).unwrap();
        command.stdin(Stdio::null()).current_dir(folder.path());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let mut process = command.spawn().unwrap();
        for _ in 0..3_000 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Self {
                    process,
                    port,
                    folder,
                };
            }
            if process.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = process.kill();
        let said = fs::read_to_string(folder.path().join("output")).unwrap_or_default();
        panic!("{command:?} does not answer: {said}");
    }

    /// Starts what is told its port.
    pub(crate) fn on_a_port(command: impl FnOnce(u16) -> Command) -> Self {
        let port = free_port();
        Self::start(tempfile::tempdir().unwrap(), port, command(port))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A folder of its own, for what it keeps.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An S3 server, moto, with an empty bucket `cache`. It does one request after
/// the other: its conditions are not looked at and acted upon at once otherwise.
pub(crate) fn s3() -> Option<Program> {
    let Some(python) = tool("moto_server").and_then(|_| tool("python3")) else {
        skipped("s3", "`moto_server` is not installed");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut command = Command::new(python);
    let script = "import sys\n\
        import boto3\n\
        from moto.server import DomainDispatcherApplication, create_backend_app\n\
        from werkzeug.serving import make_server\n\
        app = DomainDispatcherApplication(create_backend_app)\n\
        server = make_server('127.0.0.1', int(sys.argv[1]), app, threaded=False)\n\
        server.serve_forever()\n";
    command.args(["-c", script]).arg(port.to_string());
    let server = Program::start(folder, port, command);
    put(&format!("{}/cache", server.url()), &[]);
    Some(server)
}

/// A registry, Debian's `docker-registry`, into which only `user` with the
/// password `password` is let if that is asked for.
pub(crate) fn registry(guarded: bool) -> Option<Program> {
    let program = Path::new("/usr/bin/docker-registry");
    if !program.is_file() {
        skipped("registry", "`docker-registry` is not installed");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let here = folder.path().display();
    let mut config = format!(
        "version: 0.1\n\
         log: {{level: warn}}\n\
         storage:\n  filesystem: {{rootdirectory: {here}/blobs}}\n  delete: {{enabled: true}}\n\
         http: {{addr: '127.0.0.1:{port}'}}\n"
    );
    if guarded {
        // bcrypt of `password`, as `htpasswd -B` writes it.
        let line = "user:$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu\n";
        fs::write(folder.path().join("htpasswd"), line).unwrap();
        config += &format!("auth:\n  htpasswd: {{realm: quickbuild, path: {here}/htpasswd}}\n");
    }
    let file = folder.path().join("registry.yml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(program);
    command.arg("serve").arg(file);
    Some(Program::start(folder, port, command))
}

/// Sends a `PUT` with a body, and nothing that a client library would add.
fn put(url: &str, body: &[u8]) {
    use std::io::{Read as _, Write as _};
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    // A server of many services sees by the signature's scope which one is meant.
    let head = format!(
        "PUT /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\nConnection: close\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, \
         SignedHeaders=host, Signature=0\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 OK"), "{answer}");
}
