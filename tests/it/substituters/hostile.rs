//! Files that are not what they should be. Nothing of them is ever visible in
//! the store, and Cargo compiles instead.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Published, edit_document, files};

/// What Cargo compiles when all archives are changed so.
fn with_archives(published: &Published, change: impl Fn(&Path)) -> String {
    for archive in files(&published.cache, "archives") {
        change(&archive);
    }
    published.folder_client().assert_all_built()
}

#[test]
fn flipped_bits_are_refused() {
    let published = Published::new();
    let said = with_archives(&published, |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(path, bytes).unwrap();
    });
    assert!(said.contains("the archive of `"), "{said}");
}

#[test]
fn archives_of_other_lengths_are_refused() {
    let published = Published::new();
    let said = with_archives(&published, |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 5]).unwrap();
    });
    assert!(said.contains("the archive of `"), "{said}");
    let published = Published::new();
    let said = with_archives(&published, |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, [&bytes[..], b"more"].concat()).unwrap();
    });
    assert!(said.contains("the archive of `"), "{said}");
}

#[test]
fn a_bomb_is_refused() {
    let published = Published::new();
    let said = with_archives(&published, |path| {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        fs::write(path, bomb).unwrap();
    });
    assert!(said.contains("the archive of `"), "{said}");
}

#[test]
fn the_archive_of_another_output_is_refused() {
    let published = Published::new();
    let archives = files(&published.cache, "archives");
    let all: Vec<Vec<u8>> = archives.iter().map(|a| fs::read(a).unwrap()).collect();
    let turned = all.iter().cycle().skip(1);
    for (archive, bytes) in archives.iter().zip(turned) {
        fs::write(archive, bytes).unwrap();
    }
    let said = published.folder_client().assert_all_built();
    assert!(said.contains("the archive of `"), "{said}");
}

#[test]
fn archives_that_are_gone_are_a_warning() {
    let published = Published::new();
    let said = with_archives(&published, |path| fs::remove_file(path).unwrap());
    assert!(said.contains("cannot open"), "{said}");
}

/// Changes all entries of all documents.
fn with_entries(published: &Published, change: impl Fn(&mut Value)) -> String {
    for folder in ["recipes", "closures"] {
        for document in files(&published.cache, folder) {
            edit_document(&document, |mut document| {
                let outputs = document["outputs"].as_array_mut().unwrap();
                outputs.iter_mut().for_each(&change);
                document
            });
        }
    }
    published.folder_client().assert_all_built()
}

#[test]
fn changed_manifests_have_no_valid_signature() {
    let published = Published::new();
    let said = with_entries(&published, |entry| {
        entry["manifest"]["glibc"] = json!("2.1");
    });
    assert!(said.contains("are refused: not what was signed"), "{said}");
    let published = Published::new();
    let said = with_entries(&published, |entry| entry["signatures"] = json!([]));
    assert!(said.contains("are refused: not signed"), "{said}");
    let published = Published::new();
    let said = with_entries(&published, |entry| {
        entry["manifest"]["unit-id"] = json!("../../evil");
    });
    assert!(said.contains("is passed over"), "{said}");
    // A newer quickbuild's entry, and one with names that lead out.
    let published = Published::new();
    let said = with_entries(&published, |entry| entry["manifest"]["new"] = json!(1));
    assert!(said.contains("is passed over"), "{said}");
    let published = Published::new();
    let said = with_entries(&published, |entry| {
        for file in entry["manifest"]["files"].as_array_mut().unwrap() {
            file["name"] = json!("../../../evil");
        }
    });
    assert!(said.contains("leads out of the target directory"), "{said}");
}

#[test]
fn an_archive_that_is_too_large_is_not_fetched() {
    let published = Published::new();
    let said = with_entries(&published, |entry| {
        entry["archive"]["size"] = json!(1_u64 << 50);
    });
    assert!(said.contains("an archive that is too large"), "{said}");
}

#[test]
fn a_closure_with_a_hole_is_not_used() {
    let published = Published::new();
    for folder in ["recipes", "closures"] {
        for document in files(&published.cache, folder) {
            edit_document(&document, |mut document| {
                let outputs = document["outputs"].as_array_mut().unwrap();
                outputs.retain(|entry| entry["manifest"]["name"] != "leaf");
                document
            });
        }
    }
    for settings in ["", &format!("public-keys = [\"{}\"]", published.key)] {
        let client = published.client_with(published.cache.to_str().unwrap(), settings);
        let built = client.run(&["build"]).success();
        let summary = built.summary();
        // `leaf`, and what needs it, is compiled here.
        assert!(summary.built >= 2 && summary.from_store >= 1, "{built}");
        client.env.assert_fresh(&client.project, &["build"]);
        client.assert_sound();
    }
}

#[test]
fn the_document_of_another_recipe_is_no_answer() {
    let published = Published::new();
    for folder in ["recipes", "closures"] {
        let documents = files(&published.cache, folder);
        let all: Vec<Vec<u8>> = documents.iter().map(|d| fs::read(d).unwrap()).collect();
        for (document, bytes) in documents.iter().zip(all.iter().cycle().skip(1)) {
            fs::write(document, bytes).unwrap();
        }
    }
    // What is said is true, if not what was asked for: some of it helps.
    let client = published.folder_client();
    let _ = client.run(&["build"]).success();
    client.env.assert_fresh(&client.project, &["build"]);
    client.assert_sound();
}

#[test]
fn other_documents_are_a_warning() {
    for content in [&b"<html>"[..], b"", &[0x28, 0xb5, 0x2f, 0xfd, 0, 0]] {
        let published = Published::new();
        for folder in ["recipes", "closures"] {
            for document in files(&published.cache, folder) {
                fs::write(document, content).unwrap();
            }
        }
        let said = published.folder_client().assert_all_built();
        assert!(
            said.contains("is not what a substituter has there"),
            "{said}"
        );
        assert!(said.contains("more problems like these"), "{said}");
    }
    for (content, message) in [
        ("<html>", "is not what a substituter has there"),
        ("{\"format\": 2}", "has format 2"),
        (
            "{\"format\": 1, \"keys\": [\"a:b\"]}",
            "none of that is trusted",
        ),
    ] {
        let published = Published::new();
        let info = published.cache.join("quickbuild-cache.json");
        fs::write(&info, content).unwrap();
        let said = published.folder_client().assert_all_built();
        assert!(said.contains(message), "{said}");
    }
    let published = Published::new();
    fs::remove_file(published.cache.join("quickbuild-cache.json")).unwrap();
    let said = published.folder_client().assert_all_built();
    assert!(said.contains("is no substituter"), "{said}");
}

/// The end at many of the changes that fetching makes: what is in the store then
/// is whole, and the next time all of it comes.
#[test]
fn a_killed_or_failed_fetch_leaves_whole_outputs() {
    let published = Published::new();
    for kind in ["kill", "fail"] {
        for n in (1..60).step_by(4) {
            let client = published.folder_client();
            let faulty = client.env.with("QUICKBUILD_FAULT", format!("{kind}@{n}"));
            let _ = faulty.quickbuild(&client.project, &["substitute"]);
            // Nothing looks as if it had been made here.
            for path in fs::read_dir(client.env.store().join("paths"))
                .into_iter()
                .flatten()
            {
                let path = path.unwrap().path();
                assert!(path.join("origin.json").is_file(), "{}", path.display());
                assert!(path.join("signatures").is_file(), "{}", path.display());
            }
            let _ = client.run(&["store", "verify"]).success();
            let _ = client.run(&["cache", "clear"]).success();
            let _ = client.run(&["build"]).nothing_built();
            client.env.assert_fresh(&client.project, &["build"]);
        }
    }
}
