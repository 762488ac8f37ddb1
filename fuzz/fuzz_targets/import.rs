//! The archive of `store export`, as somebody may send it.
//!
//! What is refused leaves the store empty, and whatever is accepted is sound.

#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use quickbuild::store::verify::{Depth, verify};
use quickbuild::store::{Store, archive};

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let (root, file) = (folder.path().join("store"), folder.path().join("archive"));
    let store = Store::open(&root).unwrap();
    fs::write(&file, data).unwrap();
    let imported = archive::import(&store, &file);
    let names = store.names().unwrap();
    match imported {
        Ok(report) => assert_eq!(names.len(), report.added.len()),
        Err(_) => assert!(names.is_empty(), "{names:?}"),
    }
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    assert!(verify(&root, Depth::Content).unwrap().is_empty());
});
