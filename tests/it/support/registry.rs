//! A registry of one's own: a repository with an index and a folder of archives
//! (Cargo book, "Registry index").

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use quickbuild::digest::ContentHash;

use super::TestEnv;

/// A registry that projects know as `private`.
pub(crate) struct Registry {
    folder: PathBuf,
}

impl Registry {
    pub(crate) fn new(env: &TestEnv) -> Self {
        let folder = env.root().join("registry");
        fs::create_dir_all(folder.join("index")).unwrap();
        let config = format!(
            r#"{{"dl":"file://{}/{{crate}}-{{version}}.crate"}}"#,
            folder.display()
        );
        fs::write(folder.join("index/config.json"), config).unwrap();
        Self { folder }
    }

    /// Publishes version 0.1.0 of a package without dependencies.
    pub(crate) fn publish(&self, name: &str, files: &[(&str, &str)]) {
        let stem = format!("{name}-0.1.0");
        let manifest =
            format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
        let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(encoder);
        for (path, text) in [("Cargo.toml", manifest.as_str())].iter().chain(files) {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            header.set_mtime(1_153_704_088); // as `cargo package` has it
            let path = format!("{stem}/{path}");
            tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let archive = tar.into_inner().unwrap().finish().unwrap();
        let checksum = ContentHash::of(&archive);
        fs::write(self.folder.join(format!("{stem}.crate")), archive).unwrap();
        let entry = format!(
            r#"{{"name":"{name}","vers":"0.1.0","deps":[],"features":{{}},"cksum":"{checksum}","yanked":false}}"#
        );
        let folder = self.folder.join("index").join(&name[..2]).join(&name[2..4]);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), entry + "\n").unwrap();
    }

    /// Makes all that was published known, and the registry known to a project.
    pub(crate) fn serve(&self, project: &Path) {
        let index = self.folder.join("index");
        git(&index, &["init", "--quiet", "--initial-branch=main"]);
        git(&index, &["add", "--all"]);
        git(&index, &["commit", "--quiet", "--message=all"]);
        fs::create_dir_all(project.join(".cargo")).unwrap();
        let config = format!(
            "[registries.private]\nindex = \"file://{}\"\n",
            index.display()
        );
        fs::write(project.join(".cargo/config.toml"), config).unwrap();
    }
}

/// Runs Git in a folder.
#[track_caller]
pub(crate) fn git(folder: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
    let mut git = Command::new("git");
    let output = git
        .args(identity)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{git:?}: {text}");
}
