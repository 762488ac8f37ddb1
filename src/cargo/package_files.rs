//! The files of a path package, as Cargo lists them.
//!
//! A build script without `rerun-if-*` lines is run again when any file of its
//! package is newer than at the last run; Cargo keeps the newest file's time
//! and name in the fingerprint (`PathSource::fingerprint` and `list_files` in
//! `src/cargo/sources/path.rs`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fs::{self, Stamp, Time};

/// Lists the files below a package, relative to it, in Cargo's order. In a Git
/// repository: those tracked or not ignored, without packages nested inside.
/// Elsewhere: all but `target` and what is hidden.
pub fn list(package: &Path) -> fs::Result<Vec<PathBuf>> {
    if let Some(files) = list_git(package) {
        return Ok(files);
    }
    let mut files = Vec::new();
    walk(package, package, &mut files)?;
    Ok(files)
}

fn list_git(package: &Path) -> Option<Vec<PathBuf>> {
    let in_repository = package.ancestors().any(|a| a.join(".git").exists());
    if !in_repository {
        return None;
    }
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(package)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    let files = text
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from);
    let files: Vec<PathBuf> = files.filter(|f| package.join(f).is_file()).collect();
    let nested: Vec<PathBuf> = files
        .iter()
        .filter(|f| f.file_name().is_some_and(|name| name == "Cargo.toml"))
        .filter_map(|f| f.parent().map(Path::to_owned))
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect();
    let is_nested = |file: &PathBuf| nested.iter().any(|folder| file.starts_with(folder));
    let files: Vec<PathBuf> = files.into_iter().filter(|file| !is_nested(file)).collect();
    // A package that Git ignores altogether is walked, as Cargo does.
    files
        .iter()
        .any(|f| f == Path::new("Cargo.toml"))
        .then_some(files)
}

/// Entries in the order in which the system lists them, a folder's content in
/// its place, as `walkdir` does for Cargo.
fn walk(package: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> fs::Result<()> {
    let top = folder == package;
    for path in fs::list_unsorted(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        if !path.is_dir() || fs::is_symlink(&path) {
            files.push(path.strip_prefix(package).unwrap_or(&path).to_owned());
        } else if !(top && name == "target" || path.join("Cargo.toml").is_file()) {
            walk(package, &path, files)?;
        }
    }
    Ok(())
}

/// The string that Cargo keeps for the newest of these files.
pub fn newest(package: &Path, files: &[PathBuf]) -> Option<String> {
    let mut newest: Option<(Time, &PathBuf)> = None;
    for file in files {
        let time = Stamp::of(&package.join(file)).map_or(Time::default(), |stamp| stamp.mtime);
        // Of several newest files Cargo keeps the first (`last_modified_file`).
        if newest.is_none_or(|(newest, _)| time > newest) {
            newest = Some((time, file));
        }
    }
    let (time, file) = newest?;
    Some(format!(
        "{}.{:09}s ({})",
        time.seconds(),
        time.nanoseconds(),
        file.display()
    ))
}

/// The commit that is checked out around a folder; `None` outside Git.
pub fn git_head(folder: &Path) -> Option<String> {
    let git = folder
        .ancestors()
        .map(|a| a.join(".git"))
        .find(|g| g.exists())?;
    let git = if git.is_file() {
        // A worktree: `gitdir: <path>`.
        let text = fs::read_text(&git).ok()?;
        folder.join(text.strip_prefix("gitdir:")?.trim())
    } else {
        git
    };
    let head = fs::read_text(&git.join("HEAD")).ok()?;
    let Some(name) = head.strip_prefix("ref:").map(str::trim) else {
        return Some(head.trim().to_owned());
    };
    let common = fs::read_text(&git.join("commondir"))
        .map_or_else(|_| git.clone(), |text| git.join(text.trim()));
    if let Ok(commit) = fs::read_text(&common.join(name)) {
        return Some(commit.trim().to_owned());
    }
    let packed = fs::read_text(&common.join("packed-refs")).ok()?;
    let line = packed
        .lines()
        .find(|line| line.split(' ').nth(1) == Some(name))?;
    line.split(' ').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{create_dir_all, set_mtime, write};

    #[test]
    fn a_folder_outside_git_is_walked_without_target_and_nested_packages() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for file in [
            "Cargo.toml",
            "src/lib.rs",
            ".hidden",
            "target/x",
            "nested/Cargo.toml",
            "nested/y",
        ] {
            let path = root.join(file);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(&path, b"").unwrap();
        }
        let mut files = list(root).unwrap();
        files.sort();
        assert_eq!(
            files,
            [PathBuf::from("Cargo.toml"), PathBuf::from("src/lib.rs")]
        );
    }

    #[test]
    fn the_newest_file_is_named_as_cargo_names_it() {
        let folder = tempfile::tempdir().unwrap();
        for (name, seconds) in [("a", 5), ("b", 7), ("c", 7)] {
            let path = folder.path().join(name);
            write(&path, b"").unwrap();
            set_mtime(&path, Time::from_seconds(seconds)).unwrap();
        }
        let files = ["a".into(), "b".into(), "c".into()];
        assert_eq!(newest(folder.path(), &files).unwrap(), "7.000000000s (b)");
    }
}
