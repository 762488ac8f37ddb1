//! The archive of an output, as a substituter sends it.
//!
//! Whatever comes, nothing is written but files of the manifest below the given
//! folder; and where unpacking succeeds, all of them are there with the bytes that
//! the manifest promises.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use quickbuild::digest::ContentHash;
use quickbuild::output::Output;
use quickbuild::substituter::{ArchiveRef, archive};

fn manifest() -> &'static Output {
    static MANIFEST: OnceLock<Output> = OnceLock::new();
    MANIFEST.get_or_init(|| serde_json::from_str(include_str!("manifest.json")).unwrap())
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() && !path.is_symlink() {
            true => walk(&path, found),
            false => found.push(path),
        }
    }
}

fn unpack(bytes: &[u8]) {
    let output = manifest();
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("a/b/into");
    let reference = ArchiveRef {
        sha256: ContentHash::of(bytes),
        size: bytes.len() as u64,
    };
    let unpacked = archive::unpack(output, reference, bytes, &into);
    let mut found = Vec::new();
    walk(folder.path(), &mut found);
    let expected: Vec<PathBuf> = (0..output.files.len())
        .map(|number| into.join(format!("files/{number}")))
        .collect();
    assert!(found.iter().all(|path| expected.contains(path)), "{found:?}");
    if unpacked.is_ok() {
        for (file, path) in output.files.iter().zip(&expected) {
            let content = fs::read(path).unwrap();
            assert_eq!(Some(ContentHash::of(&content)), file.sha256);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    unpack(data);
    // As a tar in a frame that is well.
    unpack(&zstd::bulk::compress(data, 1).unwrap());
});
