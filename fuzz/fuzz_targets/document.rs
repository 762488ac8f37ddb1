//! What a substituter answers: a document, and what it says of itself.
//!
//! Nothing panics or grows without a bound, and what was read, written again and
//! read again is the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quickbuild::substituter::{CacheInfo, Document};

const URL: &str = "https://cache.example.org/";

fuzz_target!(|data: &[u8]| {
    if let Ok(info) = CacheInfo::parse(data, URL) {
        assert_eq!(CacheInfo::parse(&info.to_bytes(), URL).unwrap(), info);
    }
    // As it comes, and as the content of a frame that is well: otherwise few
    // inputs would get beyond Zstandard.
    let _ = Document::parse(data, URL);
    let packed = zstd::bulk::compress(data, 1).unwrap();
    let Ok(mut document) = Document::parse(&packed, URL) else {
        return;
    };
    for entry in document.outputs.values() {
        for file in &entry.output.files {
            assert!(!file.name.starts_with('/') && !file.name.split('/').any(|part| part == ".."));
        }
    }
    let bytes = document.to_bytes();
    let again = Document::parse(&bytes, URL).unwrap();
    document.refused.clear();
    assert_eq!(again, document);
});
