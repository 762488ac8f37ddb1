//! A task's files as a tar, and what a command left as files again.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;

use super::{BuilderError, Content, Entry, Result};
use crate::fs::{self, Sharing, Time};

/// The one time of all files that a command sees. Cargo calls a unit stale if a
/// watched file is newer than it, and one moment before all builds is older.
const TIME: Time = Time::from_seconds(1_735_689_600);

/// Bytes that are read or written at once.
const PIECE: usize = 256 << 10;

/// A folder of a task's root, and the user to whom what is in it belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) folder: &'static str,
    pub(super) owner: u64,
}

/// Writes the entries of one folder as a tar, relative to it.
pub(super) fn write(to: impl Write, entries: &[Entry], part: Part) -> Result<()> {
    let buffered = io::BufWriter::with_capacity(PIECE, to);
    let mut writer = Writer {
        tar: tar::Builder::new(buffered),
        owner: part.owner,
        folders: BTreeSet::new(),
    };
    for Entry { path, content } in entries {
        let Some(path) = below(path, part.folder) else {
            continue;
        };
        match content {
            Content::Folder => writer.folder(Path::new(path))?,
            Content::Bytes { bytes, executable } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                writer.file(path, mode, bytes.len() as u64, &mut bytes.as_slice())?;
            }
            Content::File(from) => writer.copy(path, from)?,
            Content::Tree(root) => {
                writer.folder(Path::new(path))?;
                for relative in fs::walk(root)? {
                    writer.copy(
                        &format!("{path}/{}", relative.display()),
                        &root.join(relative),
                    )?;
                }
            }
        }
    }
    let finished = writer.tar.into_inner().and_then(|mut to| to.flush());
    finished.map_err(BuilderError::Output)
}

/// The rest of a path in a folder of a task's root.
pub(super) fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    path.strip_prefix(folder)?.strip_prefix('/')
}

struct Writer<W: Write> {
    tar: tar::Builder<W>,
    owner: u64,
    /// Folders that are in it: engines give those that are not to root.
    folders: BTreeSet<PathBuf>,
}

impl<W: Write> Writer<W> {
    fn header(&self, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(TIME.seconds().unsigned_abs());
        header.set_uid(self.owner);
        header.set_gid(self.owner);
        header
    }

    fn folder(&mut self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() || !self.folders.insert(path.to_owned()) {
            return Ok(());
        }
        self.folder(path.parent().unwrap_or(Path::new("")))?;
        let mut header = self.header(0o755, 0);
        header.set_entry_type(tar::EntryType::Directory);
        let appended = self.tar.append_data(&mut header, path, io::empty());
        appended.map_err(BuilderError::Output)
    }

    fn file(&mut self, path: &str, mode: u32, size: u64, content: &mut dyn Read) -> Result<()> {
        self.folder(Path::new(path).parent().unwrap_or(Path::new("")))?;
        let mut header = self.header(mode, size);
        let appended = self.tar.append_data(&mut header, path, content.take(size));
        appended.map_err(BuilderError::Output)
    }

    fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        // Whoever may run it may; nobody but the owner may write.
        let mode = (fs::mode(from)? & 0o111) | 0o644;
        let size = fs::Stamp::of(from).map_or(0, |stamp| stamp.size);
        let mut content = fs::open(from)?;
        self.file(path, mode, size, &mut content)
    }
}

/// Puts entries below a folder, as [`write`] would have them unpacked.
pub(super) fn place(root: &Path, entries: &[Entry]) -> Result<()> {
    for Entry { path, content } in entries {
        let to = root.join(path);
        fs::create_dir_all(to.parent().unwrap_or(root))?;
        match content {
            Content::Folder => fs::create_dir_all(&to)?,
            Content::File(from) => copy(from, &to)?,
            Content::Bytes { bytes, executable } => {
                fs::write(&to, bytes)?;
                fs::set_mode(&to, if *executable { 0o755 } else { 0o644 })?;
                fs::set_mtime(&to, TIME)?;
            }
            Content::Tree(tree) => {
                for relative in fs::walk(tree)? {
                    let to = to.join(&relative);
                    fs::create_dir_all(to.parent().unwrap_or(root))?;
                    copy(&tree.join(&relative), &to)?;
                }
            }
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::place(from, to, Sharing::Private)?;
    Ok(fs::set_mtime(to, TIME)?)
}

/// Moves what a command left in a folder of this machine: regular files only.
/// They belong to this process's user afterwards. Nobody may be writing there
/// any more.
pub(super) fn take(from: &Path, to: &Path) -> Result<()> {
    if fs::is_symlink(from) {
        return Err(refuse("it is a symbolic link".to_owned()));
    }
    // Where the two are not one mount each is copied.
    fs::walk(from)?.par_iter().try_for_each(|relative| {
        let path = from.join(relative);
        if fs::is_symlink(&path) || !path.is_file() {
            let name = relative.display();
            return Err(refuse(format!("`{name}` is no regular file")));
        }
        let to = to.join(relative);
        fs::create_dir_all(to.parent().unwrap_or(from))?;
        Ok(fs::take(&path, &to)?)
    })
}

/// Removes what is in a folder, side by side, as far as that can be. Nobody may be
/// writing there any more.
pub(super) fn empty(folder: &Path) {
    let inside = fs::list_unsorted(folder).unwrap_or_default();
    inside.par_iter().for_each(|path| {
        if !fs::is_symlink(path) && path.is_dir() {
            empty(path);
            let _ = fs::remove_dir_all(path); // what stays, the engine removes
        } else {
            let _ = fs::remove_file(path);
        }
    });
}

/// Unpacks what a command left: files and folders, nothing else, and all of it
/// below `to`. The archive's first folder is left out of the paths.
pub(super) fn read(from: impl Read, to: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries().map_err(BuilderError::Output)? {
        let mut entry = entry.map_err(BuilderError::Output)?;
        let name = entry.path().map_err(BuilderError::Output)?.into_owned();
        let Some(inside) = inside(&name) else {
            return Err(refuse(format!("`{}` leads elsewhere", name.display())));
        };
        let path = to.join(inside);
        match entry.header().entry_type() {
            tar::EntryType::Directory => fs::create_dir_all(&path)?,
            tar::EntryType::Regular => {
                let mode = entry.header().mode().map_err(BuilderError::Output)? & 0o755;
                fs::create_dir_all(path.parent().unwrap_or(to))?;
                let mut file = io::BufWriter::with_capacity(PIECE, fs::create(&path)?);
                let copied = io::copy(&mut entry, &mut file).and_then(|_| file.flush());
                copied.map_err(BuilderError::Output)?;
                drop(file);
                fs::set_mode(&path, mode)?;
                let seconds = entry.header().mtime().map_err(BuilderError::Output)?;
                let seconds = i64::try_from(seconds).unwrap_or_default();
                fs::set_mtime(&path, Time::from_seconds(seconds))?;
            }
            kind => {
                return Err(refuse(format!("`{}` is a {kind:?}", name.display())));
            }
        }
    }
    Ok(())
}

/// The path without its first folder, if it goes nowhere but down.
fn inside(name: &Path) -> Option<PathBuf> {
    let mut parts = name.components().filter(|part| *part != Component::CurDir);
    parts.next()?;
    let rest: Vec<Component<'_>> = parts.collect();
    let down = rest.iter().all(|part| matches!(part, Component::Normal(_)));
    down.then(|| rest.into_iter().collect())
}

fn refuse(reason: String) -> BuilderError {
    BuilderError::Output(io::Error::new(io::ErrorKind::InvalidData, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir_all(&source.join("b")).unwrap();
        fs::write(&source.join("b/c"), b"content").unwrap();
        fs::set_mode(&source.join("b/c"), 0o755).unwrap();
        let entries = [
            Entry {
                path: "work/out/tree".to_owned(),
                content: Content::Tree(source),
            },
            Entry {
                path: "work/out/a".to_owned(),
                content: Content::Bytes {
                    bytes: b"a".to_vec(),
                    executable: false,
                },
            },
        ];
        let mut bytes = Vec::new();
        let part = Part {
            folder: "work",
            owner: 7,
        };
        write(&mut bytes, &entries, part).unwrap();
        let to = folder.path().join("to");
        fs::create_dir_all(&to).unwrap();
        read(bytes.as_slice(), &to).unwrap();
        assert_eq!(fs::read(&to.join("tree/b/c")).unwrap(), b"content");
        assert_eq!(fs::mode(&to.join("tree/b/c")).unwrap(), 0o755);
        assert_eq!(fs::read(&to.join("a")).unwrap(), b"a");
        let stamp = fs::Stamp::of(&to.join("a")).unwrap();
        assert_eq!(stamp.mtime, TIME);
    }

    #[test]
    fn what_is_emptied_has_nothing_and_what_it_links_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (folder.path().join("ours"), folder.path().join("other"));
        for path in [ours.join("a/b"), ours.join("c"), other.clone()] {
            fs::create_dir_all(&path).unwrap();
            fs::write(&path.join("file"), b"").unwrap();
        }
        fs::symlink(&other, &ours.join("link")).unwrap();
        empty(&ours);
        assert!(fs::list(&ours).unwrap().is_empty());
        assert!(other.join("file").exists());
    }

    #[test]
    fn links_are_not_followed_when_files_are_moved() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to, secret] = ["from", "to", "secret"].map(|name| folder.path().join(name));
        for folder in [&from, &to, &secret] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(&secret.join("key"), b"key").unwrap();
        fs::symlink(&secret, &from.join("out")).unwrap();
        assert!(take(&from.join("out"), &to).is_err());
        assert!(take(&from, &to).is_err());
        fs::remove_file(&from.join("out")).unwrap();
        fs::symlink(&secret.join("key"), &from.join("key")).unwrap();
        assert!(take(&from, &to).is_err());
        assert!(fs::list(&to).unwrap().is_empty());
        assert!(secret.join("key").is_file());
    }

    #[test]
    fn links_and_ways_out_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let packed = |kind, name: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o644);
            header.set_mtime(0);
            let field = &mut header.as_old_mut().name;
            field[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            let mut tar = tar::Builder::new(Vec::new());
            tar.append(&header, io::empty()).unwrap();
            tar.into_inner().unwrap()
        };
        for (kind, name) in [
            (tar::EntryType::Symlink, "out/link"),
            (tar::EntryType::Link, "out/link"),
            (tar::EntryType::Char, "out/device"),
            (tar::EntryType::Regular, "out/../../above"),
        ] {
            let bytes = packed(kind, name);
            assert!(read(bytes.as_slice(), folder.path()).is_err(), "{name}");
        }
        assert!(fs::list(folder.path()).unwrap().is_empty());
    }
}
