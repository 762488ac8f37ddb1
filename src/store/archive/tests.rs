use super::*;
use crate::cargo::fingerprint::Fingerprint;
use crate::output::FORMAT;
use crate::output::provenance::Statement;
use crate::store::Source;
use crate::store::attached::tests::statement;
use crate::store::verify::{Depth, Kind, samples, verify};
use crate::trust::SecretKey;

fn naming(key: UnitKey) -> Naming {
    let fingerprint = br#"{"rustc":1,"features":"","declared_features":"","target":1,
        "profile":1,"path":1,"deps":[],"local":[],"rustflags":[],"config":1,"compile_kind":0}"#;
    Naming {
        format: FORMAT,
        key,
        recipe: None,
        unit_id: "0123456789abcdef".to_owned(),
        extra_filename: "-0123456789abcdef".to_owned(),
        out_dir: "debug/deps".into(),
        stem: "lib-base".to_owned(),
        fingerprint: Fingerprint::parse(fingerprint).unwrap(),
        absolute_path: true,
        deps: Vec::new(),
    }
}

/// `top` upon `base`, which has a naming, and one apart.
struct Sample {
    folder: tempfile::TempDir,
    store: Store,
    base: Output,
    top: Output,
}

impl Sample {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let base = samples::add(&store, "base", &[], &[b"base", b""]);
        let top = samples::add(&store, "top", &[&base], &[&[7; 1_000]]);
        let apart = samples::add(&store, "apart", &[], &[b"apart"]);
        store.add_naming(&naming(base.key)).unwrap();
        store.add_naming(&naming(apart.key)).unwrap();
        Self {
            folder,
            store,
            base,
            top,
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names = vec![self.base.store_name(), self.top.store_name()];
        names.sort();
        names
    }

    fn export(&self) -> Vec<u8> {
        let to = self.folder.path().join("archive");
        assert_eq!(
            export(&self.store, &[self.top.store_name()], &to).unwrap(),
            self.names()
        );
        fs::read(&to).unwrap()
    }
}

/// Imports bytes into a new store; a refused archive has left nothing.
fn import_bytes(archive: &[u8]) -> Result<(tempfile::TempDir, Store, ImportReport)> {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("archive");
    fs::write(&from, archive).unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let result = import(&store, &from);
    assert_eq!(
        fs::walk(&store.root().join("tmp")).unwrap(),
        [] as [PathBuf; 0]
    );
    assert_eq!(verify(store.root(), Depth::Content).unwrap(), []);
    match result {
        Ok(report) => Ok((folder, store, report)),
        Err(error) => {
            assert_eq!(store.names().unwrap(), [] as [String; 0]);
            assert_eq!(
                fs::walk(&store.root().join("units")).unwrap(),
                [] as [PathBuf; 0]
            );
            Err(error)
        }
    }
}

#[test]
fn import_undoes_export() {
    let sample = Sample::new();
    let bytes = sample.export();
    let (folder, store, report) = import_bytes(&bytes).unwrap();
    let dependencies_first = [&sample.base, &sample.top].map(Output::store_name);
    assert_eq!(report.added, dependencies_first);
    assert_eq!((report.existing.len(), report.namings), (0, 1));
    for output in [&sample.base, &sample.top] {
        assert_eq!(store.output(&output.store_name()).as_ref(), Some(output));
        assert_eq!(store.candidates(output.host_recipe), [output.store_name()]);
    }
    assert_eq!(store.naming(sample.base.key), Some(naming(sample.base.key)));

    let again = folder.path().join("again");
    export(&store, &sample.names(), &again).unwrap();
    assert_eq!(fs::read(&again).unwrap(), bytes);
    let report = import(&store, &again).unwrap();
    assert_eq!(
        (report.added.len(), report.existing.len(), report.namings),
        (0, 2, 0)
    );
}

#[test]
fn modes_and_long_names_survive() {
    let sample = Sample::new();
    let name = "n".repeat(64);
    let mut output = samples::output(&name, &[], &[b"#!"]);
    output.version = format!("1.0.0-alpha.1+{}", "0".repeat(20));
    output.files[0].mode = 0o755;
    sample
        .store
        .add(&output, &[Source::Bytes(b"#!".to_vec())])
        .unwrap();
    let to = sample.folder.path().join("archive");
    export(&sample.store, &[output.store_name()], &to).unwrap();
    let (_folder, store, _) = import_bytes(&fs::read(&to).unwrap()).unwrap();
    assert_eq!(fs::mode(&store.file(&output, 0)).unwrap(), 0o755);
}

#[test]
fn only_sound_outputs_are_exported() {
    let sample = Sample::new();
    let to = sample.folder.path().join("archive");
    let export = |name: &str| match export(&sample.store, &[name.to_owned()], &to) {
        Err(StoreError::Export { source, .. }) => Some(source),
        result => {
            result.unwrap();
            None
        }
    };
    assert_eq!(export("../store"), Some(Kind::NoManifest));
    assert_eq!(
        export(&samples::output("none", &[], &[]).store_name()),
        Some(Kind::NoManifest)
    );
    let top = sample.top.store_name();
    fs::write(&sample.store.file(&sample.base, 0), b"BASE").unwrap();
    let file = "files/0".to_owned();
    assert_eq!(export(&top), Some(Kind::Content { file }));
    sample.store.discard(&sample.base.store_name()).unwrap();
    assert_eq!(export(&top), Some(Kind::Reference { id: sample.base.id }));
    assert!(!to.exists());
}

#[test]
fn what_a_store_has_need_not_be_in_the_archive() {
    let sample = Sample::new();
    let mut entries = entries(&sample.export());
    let base = format!("paths/{}/", sample.base.store_name());
    entries.retain(|(name, ..)| !name.starts_with(&base) && !name.starts_with("units"));
    let archive = pack(&entries);
    assert!(refusal(import_bytes(&archive)).contains("which is missing"));

    let store = Store::open(&sample.folder.path().join("other")).unwrap();
    samples::add(&store, "base", &[], &[b"base", b""]);
    let from = sample.folder.path().join("archive");
    fs::write(&from, &archive).unwrap();
    assert_eq!(
        import(&store, &from).unwrap().added,
        [sample.top.store_name()]
    );
}

/// Name, kind and content of an entry.
type Raw = (String, tar::EntryType, Vec<u8>);

fn entries(archive: &[u8]) -> Vec<Raw> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(archive).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (name, tar::EntryType::Regular, content)
    });
    entries.collect()
}

/// Packs whatever it is told to, impossible names included.
fn pack(entries: &[Raw]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, &content[..]).unwrap();
    }
    zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap()
}

fn refusal<T>(result: Result<T>) -> String {
    match result {
        Err(StoreError::Archive { reason }) => reason,
        Err(error) => format!("{error:?}"),
        Ok(_) => panic!("it was taken"),
    }
}

#[test]
fn other_entries_and_orders_are_refused() {
    let sample = Sample::new();
    let good = entries(&sample.export());
    assert!(import_bytes(&pack(&good)).is_ok());
    let refused = |reason: &str, change: &dyn Fn(&mut Vec<Raw>)| {
        let mut entries = good.clone();
        change(&mut entries);
        let found = refusal(import_bytes(&pack(&entries)));
        assert!(found.contains(reason), "{found:?} instead of {reason:?}");
    };
    let place = |end: &str| {
        good.iter()
            .position(|(name, ..)| name.ends_with(end))
            .unwrap()
    };
    let [first, second] = ["files/0", "files/1"].map(place);
    let unit = good.len() - 1;

    refused("another SHA-256", &|entries| entries[first].2[0] ^= 1);
    refused("bytes instead of", &|entries| entries[first].2.push(0));
    refused("out of order", &|entries| entries.swap(second - 1, second));
    refused("is not in it", &|entries| drop(entries.remove(second)));
    refused("out of order", &|entries| drop(entries.remove(0)));
    refused("out of order", &|entries| {
        entries.insert(first, good[first].clone());
    });
    refused("out of order", &|entries| {
        entries.extend_from_slice(&good[..unit]);
    });
    refused("out of order", &|entries| entries.push(good[unit].clone()));
    refused("out of order", &|entries| {
        let path = good
            .iter()
            .take_while(|(name, ..)| name.starts_with(&good[0].0[..38]));
        let path: Vec<Raw> = path.cloned().collect();
        drop(entries.splice(0..0, path));
    });
    for name in [
        "../evil",
        "/paths/evil",
        "paths/../evil",
        "./manifest.json",
        "units/../evil.json",
        "units/\u{1b}[2J.json",
    ] {
        refused("not a name", &|entries| entries[unit].0 = name.to_owned());
    }
    for end in [
        "files/00",
        "files/+1",
        "files/../manifest.json",
        "files//0",
        "files/0/",
    ] {
        let name = good[first].0.replace("files/0", end);
        refused("not a name", &|entries| entries[first].0 = name.clone());
    }
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Directory,
        tar::EntryType::Char,
        tar::EntryType::Fifo,
        tar::EntryType::GNULongName,
        tar::EntryType::XHeader,
        tar::EntryType::GNUSparse,
    ] {
        refused("not a regular file", &|entries| entries[first].1 = kind);
    }
}

#[test]
fn impossible_manifests_and_namings_are_refused() {
    let sample = Sample::new();
    let good = entries(&sample.export());
    let refused = |reason: &str, end: &str, from: &str, to: &str| {
        let mut entries = good.clone();
        let entry = entries
            .iter_mut()
            .rev()
            .find(|(name, ..)| name.ends_with(end))
            .unwrap();
        let text = String::from_utf8(entry.2.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        entry.2 = text.replacen(from, to, 1).into_bytes();
        let found = refusal(import_bytes(&pack(&entries)));
        assert!(found.contains(reason), "{found:?} instead of {reason:?}");
    };
    let manifest = |reason, from, to| refused(reason, "manifest.json", from, to);
    manifest("format", "\"format\":1", "\"format\":2");
    manifest("Manifest", "\"timed\"", "\"timid\"");
    manifest("another output", "1.0.0", "2.0.0");
    manifest("another output", "1.0.0", "/../1");
    manifest(
        "id that does not follow",
        "\"env\":[]",
        "\"env\":[[\"A\",null]]",
    );
    manifest("impossible mode", "\"mode\":420", "\"mode\":2541");
    manifest("impossible mode", "\"mode\":420", "\"mode\":0");
    manifest("leads out", "\"name\":\"lib", "\"name\":\"../lib");
    manifest("leads out", "\"name\":\"lib", "\"name\":\"/lib");
    manifest("unit id", "\"unit-id\":\"", "\"unit-id\":\"/");
    let naming = |from, to| refused("is invalid", ".json", from, to);
    naming("debug/deps", "../deps");
    naming("lib-base", "/lib-base");
    naming("\"format\":1", "\"format\":2");
    naming("\"rustc\"", "\"rusty\"");

    let mut entries = good.clone();
    let key = samples::output("foreign", &[], &[]).key;
    entries.last_mut().unwrap().0 = format!("units/{key}.json");
    assert!(refusal(import_bytes(&pack(&entries))).contains("no output in it"));
}

#[test]
fn the_end_is_where_it_should_be() {
    let sample = Sample::new();
    let tar = zstd::decode_all(&sample.export()[..]).unwrap();
    let import = |tar: &[u8]| import_bytes(&zstd::encode_all(tar, 1).unwrap());
    assert!(import(&tar).is_ok());
    for cut in (0..tar.len()).step_by(512).chain([1, tar.len() - 1]) {
        refusal(import(&tar[..cut]));
    }
    let longer = [&tar[..], &[0; 512]].concat();
    assert!(refusal(import(&longer)).contains("does not end"));
    assert!(import_bytes(b"").is_err());
}

/// A flip that the format itself does not see (an unused bit) must not
/// matter either.
#[test]
fn no_flipped_or_missing_byte_gets_through() {
    let sample = Sample::new();
    let good = sample.export();
    let from = sample.folder.path().join("bad");
    let store = Store::open(&sample.folder.path().join("other")).unwrap();
    let import = |archive: &[u8]| {
        fs::write(&from, archive).unwrap();
        import(&store, &from)
    };
    for at in (0..good.len()).step_by(3) {
        assert!(import(&good[..at]).is_err(), "cut at {at}");
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        if import(&bad).is_err() {
            assert_eq!(store.names().unwrap(), [] as [String; 0]);
            continue;
        }
        for output in [&sample.base, &sample.top] {
            let store_name = output.store_name();
            assert_eq!(store.output(&store_name).as_ref(), Some(output));
            store.discard(&store_name).unwrap();
        }
        assert_eq!(verify(store.root(), Depth::Content).unwrap(), []);
        let known = store.naming(sample.base.key);
        assert_eq!(known, Some(naming(sample.base.key)));
    }
}

/// Signatures and provenance of `base`, which are by nobody in particular.
fn attach_to_base(sample: &Sample) -> (String, Statement) {
    let name = sample.base.store_name();
    for key in ["b", "a"] {
        let key = SecretKey::generate(key.parse().unwrap()).unwrap();
        let signature = key.sign(b"message");
        sample.store.add_signature(&name, signature).unwrap();
    }
    let statement = statement(&sample.base);
    sample.store.add_provenance(&name, &statement).unwrap();
    (name, statement)
}

#[test]
fn signatures_and_provenance_are_carried() {
    let sample = Sample::new();
    let plain = sample.export();
    let (name, statement) = attach_to_base(&sample);
    let bytes = sample.export();
    assert_ne!(bytes, plain);
    let (folder, store, _) = import_bytes(&bytes).unwrap();
    let known = sample.store.signatures(&name).unwrap();
    assert_eq!(store.signatures(&name).unwrap(), known);
    assert_eq!(
        store.provenance(&sample.base).unwrap(),
        Some(statement.clone())
    );
    let again = folder.path().join("again");
    export(&store, &sample.names(), &again).unwrap();
    assert_eq!(fs::read(&again).unwrap(), bytes);

    // Without them it is the archive that it was before there were any.
    for file in [SIGNATURES, PROVENANCE] {
        sample.store.detach(&name, file).unwrap();
    }
    assert_eq!(sample.export(), plain);
    // They come to an output that has none, and replace none.
    let from = sample.folder.path().join("attached");
    fs::write(&from, &bytes).unwrap();
    import(&sample.store, &from).unwrap();
    assert_eq!(sample.store.signatures(&name).unwrap(), known);
    let other = SecretKey::generate("a".parse().unwrap()).unwrap();
    let signature = other.sign(b"here");
    sample.store.add_signature(&name, signature).unwrap();
    import(&sample.store, &from).unwrap();
    let kept = sample.store.signatures(&name).unwrap().unwrap();
    assert!(kept.are_by(&other.public(), b"here"));
}

#[test]
fn what_is_said_of_other_bytes_is_not_taken() {
    let sample = Sample::new();
    let (name, _) = attach_to_base(&sample);
    let from = sample.folder.path().join("attached");
    fs::write(&from, &sample.export()).unwrap();
    // The same id with other bytes, as another compilation gives them.
    let store = Store::open(&sample.folder.path().join("other")).unwrap();
    samples::add(&store, "base", &[], &[b"BASE", b""]);
    import(&store, &from).unwrap();
    assert_eq!(store.signatures(&name).unwrap(), None);
    assert_eq!(store.provenance(&sample.base).unwrap(), None);
}

#[test]
fn malformed_signatures_and_provenance_are_refused() {
    let sample = Sample::new();
    attach_to_base(&sample);
    let good = entries(&sample.export());
    assert!(import_bytes(&pack(&good)).is_ok());
    let place = |end: &str| {
        good.iter()
            .position(|(name, ..)| name.ends_with(end))
            .unwrap()
    };
    let [manifest, signatures, provenance] = ["manifest.json", SIGNATURES, PROVENANCE].map(|end| {
        let base = good[place(SIGNATURES)].0.replace(SIGNATURES, end);
        place(&base)
    });
    let refused = |reason: &str, change: &dyn Fn(&mut Vec<Raw>)| {
        let mut entries = good.clone();
        change(&mut entries);
        let found = refusal(import_bytes(&pack(&entries)));
        assert!(found.contains(reason), "{found:?} instead of {reason:?}");
    };
    refused("malformed", &|entries| entries[signatures].2.truncate(9));
    refused("malformed", &|entries| entries[signatures].2.clear());
    refused("malformed", &|entries| entries[signatures].2[0] = 0xff);
    refused("malformed", &|entries| entries[provenance].2.clear());
    let foreign = serde_json::to_vec(&statement(&sample.top)).unwrap();
    refused("something else", &|entries| {
        entries[provenance].2.clone_from(&foreign);
    });
    refused("out of order", &|entries| {
        entries.swap(signatures, provenance);
    });
    refused("out of order", &|entries| {
        entries.swap(manifest, signatures);
    });
    refused("out of order", &|entries| {
        entries.insert(signatures, good[signatures].clone());
    });
    refused("out of order", &|entries| {
        entries.swap(provenance, provenance + 1);
    });
    refused("out of order", &|entries| {
        entries[signatures].0 = format!("paths/{}/{SIGNATURES}", sample.top.store_name());
    });
}
