//! The only user of `std::fs`: every error names its operation and path.
//!
//! * [`write_atomic`] leaves the old or the new content, never a mixture.
//! * [`place`] puts a file somewhere by reflink, hardlink or copy; `copy` finds
//!   the faster way for large ones.
//! * [`Lock`] is the advisory lock (`flock`) that Cargo takes, too.
//! * [`fault`] makes the *n*-th change fail, or ends the process at it, so that
//!   tests can prove what a kill at any point leaves behind.

mod copy;
pub mod fault;
mod lock;
mod place;
mod private;
mod region;
mod stamp;

use std::fs as std_fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use lock::Lock;
pub use place::{Placement, Sharing, place, place_at, take};
pub use private::{Access, create_private_dir_all, write_new_private};
pub use region::{read_at, read_at_once};
pub use stamp::{Stamp, Time, now, set_mtime};
pub use std_fs::File;

use crate::digest::{ContentHash, ContentHasher};

/// A file-system operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} `{}`", path.display())]
pub struct FsError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FsError {
    /// Whether the cause is that the file or folder does not exist.
    pub fn is_absent(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether the cause is that the file or folder exists.
    pub fn is_present(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }

    /// Whether the device has no room left.
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    /// Whether writing is forbidden here (permissions, read-only mount).
    pub fn is_read_only(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        )
    }
}

/// Result of a file-system operation.
pub type Result<T> = std::result::Result<T, FsError>;

/// Adds the operation and the path to a bare I/O error.
pub fn at<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| FsError {
        operation,
        path: path.to_owned(),
        source,
    })
}

/// Passes the fault injector, then runs a change.
fn change<T>(
    operation: &'static str,
    path: &Path,
    run: impl FnOnce() -> io::Result<T>,
) -> Result<T> {
    at(operation, path, fault::pass().and_then(|()| run()))
}

/// Opens a file for reading it in pieces.
pub fn open(path: &Path) -> Result<std_fs::File> {
    at("open", path, std_fs::File::open(path))
}

/// Creates a file for writing it in pieces; for files that nobody else can be
/// reading yet.
pub fn create(path: &Path) -> Result<std_fs::File> {
    change("create", path, || std_fs::File::create(path))
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    at("read", path, std_fs::read(path))
}

/// Reads a whole file, or nothing if there is none.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>> {
    match read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a whole UTF-8 file.
pub fn read_text(path: &Path) -> Result<String> {
    at("read", path, std_fs::read_to_string(path))
}

/// Writes a file in place; for files that nobody else can be reading yet.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    change("write", path, || std_fs::write(path, bytes))
}

/// [`write()`], with a modification time.
pub fn write_at(path: &Path, bytes: &[u8], time: Time) -> Result<()> {
    change("write", path, || {
        let mut file = std_fs::File::create(path)?;
        file.write_all(bytes)?;
        file.set_modified(time.into())
    })
}

/// Writes a stream to a new file and tells its length and digest. The inner
/// error is that of the stream, the outer one that of the file.
pub fn write_hashed(
    content: &mut impl io::Read,
    path: &Path,
) -> Result<io::Result<(u64, ContentHash)>> {
    let mut file = create(path)?;
    let mut hasher = ContentHasher::default();
    let mut size = 0;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match content.read(&mut buffer) {
            Ok(0) => return Ok(Ok((size, hasher.finish()))),
            Ok(count) => count,
            Err(error) => return Ok(Err(error)),
        };
        hasher.update(&buffer[..count]);
        at("write", path, file.write_all(&buffer[..count]))?;
        size += count as u64;
    }
}

/// Copies a file's content to a new file.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    change("copy to", to, || std_fs::copy(from, to).map(drop))
}

/// Replaces a file at once: writes beside it, then renames.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = unique_beside(path);
    let result = write(&beside, bytes).and_then(|()| rename(&beside, path));
    if result.is_err() {
        let _ = std_fs::remove_file(&beside);
    }
    result
}

/// Appends whole lines to a file, creating it.
pub fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    change("append to", path, || {
        std_fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?
            .write_all(bytes)
    })
}

/// A name beside `path` that no other process or thread uses.
pub fn unique_beside(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let serial = COUNTER.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}-{serial}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Creates a folder and its parents.
pub fn create_dir_all(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    change("create", path, || std_fs::create_dir_all(path))
}

/// Renames a file or folder, replacing a file of the new name.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    change("rename to", to, || std_fs::rename(from, to))
}

/// Gives a file a second name; fails with [`FsError::is_present`] if there is a
/// file of that name.
pub fn link(from: &Path, to: &Path) -> Result<()> {
    change("create", to, || std_fs::hard_link(from, to))
}

/// Removes a file, if it is there.
pub fn remove_file(path: &Path) -> Result<()> {
    match change("remove", path, || std_fs::remove_file(path)) {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

/// Removes a folder with all it holds, if it is there.
pub fn remove_dir_all(path: &Path) -> Result<()> {
    match change("remove", path, || std_fs::remove_dir_all(path)) {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

/// Empties a file, which is how Cargo withdraws a fingerprint.
pub fn truncate(path: &Path) -> Result<()> {
    write(path, b"")
}

/// Flushes a file or folder to the device.
pub fn sync(path: &Path) -> Result<()> {
    at(
        "sync",
        path,
        std_fs::File::open(path).and_then(|f| f.sync_all()),
    )
}

/// The entries of a folder, sorted by name; none if there is no such folder.
pub fn list(path: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = list_unsorted(path)?;
    paths.sort();
    Ok(paths)
}

/// The entries of a folder in the system's own order.
pub fn list_unsorted(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = match at("list", path, std_fs::read_dir(path)) {
        Ok(entries) => entries,
        Err(error) if error.is_absent() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries
        .map(|entry| Ok(at("list", path, entry)?.path()))
        .collect()
}

/// All files below a folder, relative to it, sorted; symbolic links count as
/// files and are not followed.
pub fn walk(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in list(&folder)? {
            let kind = at("inspect", &path, std_fs::symlink_metadata(&path))?;
            if kind.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Bytes that may still be written on the file system of a path; `None` where it
/// does not say.
pub fn room(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes of all files below a folder, as far as they can be counted while
/// others write there.
pub fn tree_size(root: &Path) -> u64 {
    let mut size = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std_fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => size += found.len(),
                Err(_gone) => {}
            }
        }
    }
    size
}

/// Hashes a file's content, reading it in pieces.
pub fn hash_file(path: &Path) -> Result<ContentHash> {
    let mut file = at("open", path, std_fs::File::open(path))?;
    let mut hasher = ContentHasher::default();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = at("read", path, file.read(&mut buffer))?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}

/// The absolute path without symbolic links.
pub fn canonicalize(path: &Path) -> Result<PathBuf> {
    at("resolve", path, std_fs::canonicalize(path))
}

/// Where a symbolic link points to.
pub fn read_link(path: &Path) -> Result<PathBuf> {
    at("read link", path, std_fs::read_link(path))
}

/// Makes a symbolic link, replacing what is there.
pub fn symlink(target: &Path, link: &Path) -> Result<()> {
    remove_file(link)?;
    change("link", link, || std::os::unix::fs::symlink(target, link))
}

/// Gives a file an inode of its own, with its content, mode and time. Returns
/// whether it shared one before.
pub fn unshare(path: &Path) -> Result<bool> {
    let (Some(stamp), Some((_, links, _))) = (Stamp::of(path), Stamp::usage(path)) else {
        return Ok(false);
    };
    if links < 2 {
        return Ok(false);
    }
    let beside = unique_beside(path);
    place(path, &beside, Sharing::Private)?;
    set_mtime(&beside, stamp.mtime)?;
    rename(&beside, path)?;
    Ok(true)
}

/// Sets the permission bits.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    change("set permissions of", path, || {
        std_fs::set_permissions(path, std_fs::Permissions::from_mode(mode))
    })
}

/// The permission bits.
pub fn mode(path: &Path) -> Result<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = at("inspect", path, std_fs::metadata(path))?;
    Ok(metadata.permissions().mode() & 0o7777)
}

/// Whether the path is a symbolic link.
pub fn is_symlink(path: &Path) -> bool {
    std_fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_atomic_replaces_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(list(folder.path()).unwrap(), [path]);
    }

    #[test]
    fn walk_lists_files_relative_and_sorted() {
        let folder = tempfile::tempdir().unwrap();
        create_dir_all(&folder.path().join("b/c")).unwrap();
        write(&folder.path().join("b/c/d"), b"").unwrap();
        write(&folder.path().join("a"), b"").unwrap();
        let files = walk(folder.path()).unwrap();
        assert_eq!(files, [PathBuf::from("a"), PathBuf::from("b/c/d")]);
    }

    #[test]
    fn errors_name_operation_and_path() {
        let error = read(Path::new("/nowhere/file")).unwrap_err();
        assert!(error.is_absent());
        assert_eq!(error.to_string(), "cannot read `/nowhere/file`");
    }
}
