//! Putting a file somewhere without needless copies.

use std::fs as std_fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Result, Time, change, copy, remove_file, set_mtime};

/// Whether source and destination may be one inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody writes into such a file, so a hardlink will do: rlib, rmeta,
    /// proc-macro libraries and build-script binaries.
    Shared,
    /// The file may be written to in place (`OUT_DIR`, executables), or needs a
    /// modification time of its own.
    Private,
}

/// How a file was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Copy-on-write clone: own inode, shared blocks.
    Reflink,
    /// The same inode.
    Hardlink,
    /// Own inode, own blocks.
    Copy,
}

/// Set once a file system refused a clone, so that it is not asked for every
/// file; a store and a target live on one device nearly always.
static NO_REFLINK: AtomicBool = AtomicBool::new(false);

/// Places `from` at `to`, replacing what is there.
///
/// [`Sharing::Shared`] tries a hardlink, then a copy; [`Sharing::Private`] a
/// reflink, then a copy. Permission bits are kept; the modification time is
/// kept by hardlinks only.
pub fn place(from: &Path, to: &Path, sharing: Sharing) -> Result<Placement> {
    place_with_time(from, to, sharing, None)
}

/// [`place`], with a modification time for what is not shared.
pub fn place_at(from: &Path, to: &Path, sharing: Sharing, time: Time) -> Result<Placement> {
    place_with_time(from, to, sharing, Some(time))
}

fn place_with_time(
    from: &Path,
    to: &Path,
    sharing: Sharing,
    time: Option<Time>,
) -> Result<Placement> {
    match sharing {
        Sharing::Shared => {
            match change("link", to, || hard_link_over(from, to)) {
                Ok(()) => return Ok(Placement::Hardlink),
                Err(error) if error.is_full() || error.is_absent() => return Err(error),
                Err(_) => {} // another device, or a file system without hardlinks
            }
        }
        Sharing::Private => {
            if reflink(from, to)? {
                if let Some(time) = time {
                    set_mtime(to, time)?;
                }
                return Ok(Placement::Reflink);
            }
        }
    }
    change("copy to", to, || copy_over(from, to, time))?;
    Ok(Placement::Copy)
}

/// Clones a file, if the file system can.
fn reflink(from: &Path, to: &Path) -> Result<bool> {
    if NO_REFLINK.load(Ordering::Relaxed) {
        return Ok(false);
    }
    remove_file(to)?;
    let cloned = reflink_copy::reflink(from, to).is_ok();
    if !cloned {
        NO_REFLINK.store(true, Ordering::Relaxed);
    }
    Ok(cloned)
}

/// Moves a file that may belong to somebody else, out of a folder that nobody
/// else can reach: it is this process's user's before it leaves, and has none of
/// the bits by which a program runs as its owner. To another device by a copy.
pub fn take(from: &Path, to: &Path) -> Result<()> {
    let owner =
        |file: &Path| std_fs::symlink_metadata(file).map(|found| (found.uid(), found.gid()));
    change("take over", from, || {
        let process = owner(Path::new("/proc/self"))?;
        if owner(from)? != process {
            std::os::unix::fs::lchown(from, Some(process.0), Some(process.1))?;
        }
        let mode = std_fs::symlink_metadata(from)?.permissions().mode() & 0o755;
        std_fs::set_permissions(from, std_fs::Permissions::from_mode(mode))
    })?;
    if super::rename(from, to).is_err() {
        place(from, to, Sharing::Private)?;
        remove_file(from)?;
    }
    Ok(())
}

/// Copies content and permission bits to a new file: what is there may share
/// its inode with others.
fn copy_over(from: &Path, to: &Path, time: Option<Time>) -> io::Result<()> {
    let mut source = std_fs::File::open(from)?;
    let create = || std_fs::File::create_new(to);
    let mut target = match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std_fs::remove_file(to)?;
            create()?
        }
        other => other?,
    };
    copy::contents(&mut source, &mut target, to)?;
    target.set_permissions(source.metadata()?.permissions())?;
    match time {
        Some(time) => target.set_modified(time.into()),
        None => Ok(()),
    }
}

fn hard_link_over(from: &Path, to: &Path) -> io::Result<()> {
    match std_fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std_fs::remove_file(to)?;
            std_fs::hard_link(from, to)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Stamp, read, write};

    #[test]
    fn shared_is_one_inode_and_private_is_two() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        write(&from, b"content").unwrap();
        write(&to, b"old").unwrap();
        let inode = |path: &Path| Stamp::of(path).unwrap().inode;

        assert_eq!(
            place(&from, &to, Sharing::Shared).unwrap(),
            Placement::Hardlink
        );
        assert_eq!(inode(&from), inode(&to));

        let placement = place(&from, &to, Sharing::Private).unwrap();
        assert_ne!(placement, Placement::Hardlink);
        assert_ne!(inode(&from), inode(&to));
        assert_eq!(read(&to).unwrap(), b"content");
    }
}
