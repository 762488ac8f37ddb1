//! PostgreSQL, Debian's, in a folder of its own and by a user without rights.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::skipped;

/// A server with one database.
pub(crate) struct Postgres {
    programs: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl Postgres {
    /// Starts one; `None` after a skip has been noted.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(None)
    }

    /// Starts one that speaks only TLS, with `server.pem` and `server.key` of a folder.
    pub(crate) fn start_with_tls(certificates: &Path) -> Option<Self> {
        Self::start_with(Some(certificates))
    }

    fn start_with(certificates: Option<&Path>) -> Option<Self> {
        let Some(programs) = programs() else {
            skipped("postgres", "Debian's `postgresql` is not installed");
            return None;
        };
        let folder = tempfile::Builder::new()
            .prefix("quickbuild-pg-")
            .tempdir()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut this = Self {
            programs,
            folder,
            port,
            process: None,
        };
        if is_root(this.folder.path()) {
            let mut own = Command::new("chown");
            own.args(["nobody:nogroup"]).arg(this.folder.path());
            assert!(own.status().unwrap().success());
        }
        let mut init = this.command("initdb");
        init.args(["--no-sync", "--auth=trust", "--locale=C", "--encoding=UTF8"]);
        init.args(["--username=quickbuild", "--pgdata", "data"]);
        let made = init.output().unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        if let Some(certificates) = certificates {
            this.offer_tls(certificates);
        }
        this.resume();
        Some(this)
    }

    fn offer_tls(&self, certificates: &Path) {
        let data = self.folder.path().join("data");
        for name in ["server.pem", "server.key"] {
            let file = data.join(name);
            fs::copy(certificates.join(name), &file).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&file, mode).unwrap();
            let owner = fs::metadata(&data).unwrap();
            std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let settings = "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n";
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .unwrap();
        std::io::Write::write_all(&mut file, settings.as_bytes()).unwrap();
        let allowed = "hostssl all all 127.0.0.1/32 trust\nhostssl all all ::1/128 trust\n";
        fs::write(data.join("pg_hba.conf"), allowed).unwrap();
    }

    /// All of it, as `pg_dump` writes it.
    pub(crate) fn dump(&self) -> Vec<u8> {
        let mut dump = self.command("pg_dump");
        dump.args(["--format=custom", "--dbname", &self.url()]);
        let output = dump.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        output.stdout
    }

    /// Takes what [`Self::dump`] gave.
    pub(crate) fn restore(&self, dump: &[u8]) {
        let file = self.folder.path().join("dump");
        fs::write(&file, dump).unwrap();
        let mut restore = self.command("pg_restore");
        restore.args(["--exit-on-error", "--no-owner", "--dbname", &self.url()]);
        let output = restore.arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    /// Starts the server again, and waits until it answers.
    pub(crate) fn resume(&mut self) {
        let output = self.folder.path().join("output");
        let output = fs::File::create(output).unwrap();
        let mut server = self.command("postgres");
        server.args([
            "-D",
            "data",
            "-h",
            "127.0.0.1",
            "-k",
            ".",
            "-c",
            "fsync=off",
        ]);
        server.args(["-p", &self.port.to_string()]);
        server.stdout(output.try_clone().unwrap()).stderr(output);
        self.process = Some(server.spawn().unwrap());
        let begin = Instant::now();
        loop {
            let mut ask = self.command("pg_isready");
            ask.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
            if ask.stdout(Stdio::null()).status().unwrap().success() {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "no PostgreSQL");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the server at once, as a failing machine would.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        // SIGQUIT: it ends without tidying up, and so do its children.
        let id = process.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &id]).status();
        let _ = process.wait();
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("postgres://quickbuild@127.0.0.1:{}/postgres", self.port)
    }

    /// What a query answers, as text.
    pub(crate) fn query(&self, sql: &str) -> String {
        let output = self
            .command("psql")
            .args(["-At", "-c", sql, &self.url()])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// One of its programs, by a user who may run it: none of them runs as root.
    fn command(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = if is_root(Path::new("/proc/self")) {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.uid() == 0)
}

/// The newest one's folder of programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    let mut folders: Vec<_> = folders.filter(|bin| bin.join("initdb").is_file()).collect();
    folders.sort();
    folders.pop()
}
