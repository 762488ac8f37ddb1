//! The program as a server: the store and published folders over HTTP.
//!
//! * `calls`: clients that fetch from it, and what they ask for.
//! * `files`: parts, tags, and paths that lead nowhere.
//! * `guarded`: tokens, limits, TLS.
//! * `publishing`: what others may put, and what they may not.
//! * `stopping`: its end, in order and not.

mod calls;
mod files;
mod guarded;
mod publishing;
mod stopping;

use std::fs;
use std::path::PathBuf;

use crate::substituters::{Published, files as files_of};
use crate::support::Serving;

/// A token that may be long.
const READ: &str = "a-token-for-reading-only";
const WRITE: &str = "a-token-for-writing-as-well";

/// Serves what is published.
fn serve(published: &Published, arguments: &[&str]) -> Serving {
    let folder = published.cache.to_str().unwrap().to_owned();
    let all = [&[folder.as_str()], arguments].concat();
    Serving::start(&published.env, &published.project, &all)
}

/// A file of tokens that nobody else may read.
fn token_file(published: &Published, name: &str, token: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = published.env.root().join(name);
    fs::write(&path, format!("# for a test\n{token}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The path of a published file, as it is asked for.
fn paths(published: &Published, folder: &str) -> Vec<String> {
    let files = files_of(&published.cache, folder).into_iter();
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files
        .map(|path| format!("/{folder}/{}", name(path)))
        .collect()
}

/// The host recipes of which something is published.
fn recipes(published: &Published) -> Vec<String> {
    let paths = paths(published, "recipes").into_iter();
    let name = |path: String| {
        let name = path.rsplit('/').next().unwrap();
        name.strip_suffix(".json.zst").unwrap().to_owned()
    };
    paths.map(name).collect()
}
