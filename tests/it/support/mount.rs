//! File systems of one's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::skipped;

/// A file system in memory; gone when dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Mounts one, if this process may.
    pub(crate) fn new(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let options = format!("size={size},mode=0755");
        if mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], &path) {
            return Some(Self(path));
        }
        assert!(skipped("mount", "this process may not mount a tmpfs"));
        None
    }

    /// Mounts one with reflinks, if this process may: btrfs in a file.
    pub(crate) fn with_reflinks(path: PathBuf) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let image = path.with_extension("img");
        let file = fs::File::create(&image).unwrap();
        file.set_len(400 << 20).unwrap();
        let mut make = Command::new("mkfs.btrfs");
        make.arg("--quiet").arg(&image).stderr(Stdio::null());
        let made = make.status().is_ok_and(|status| status.success());
        if made && mount(&["-o", "loop", image.to_str().unwrap()], &path) {
            return Some(Self(path));
        }
        assert!(skipped("reflink", "this process may not mount a btrfs"));
        None
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    #[track_caller]
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(mount(&["-o", &options], &self.0), "cannot remount");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], path: &Path) -> bool {
    let mut command = Command::new("mount");
    command.args(arguments).arg(path).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
