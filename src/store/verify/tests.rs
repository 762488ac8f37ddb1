use super::*;
use crate::fs::Time;
use crate::store::{Source, StoreError};

/// A store of `base`, `middle` upon it and `top` upon that, and one apart.
fn chain(root: &Path) -> [Output; 4] {
    let store = Store::open(root).unwrap();
    let base = samples::add(&store, "base", &[], &[b"base", b"more"]);
    let middle = samples::add(&store, "middle", &[&base], &[b"middle"]);
    let top = samples::add(&store, "top", &[&middle], &[b"top"]);
    let apart = samples::add(&store, "apart", &[], &[b""]);
    [base, middle, top, apart]
}

fn file(root: &Path, output: &Output, name: &str) -> std::path::PathBuf {
    root.join("paths").join(output.store_name()).join(name)
}

fn kinds(root: &Path, depth: Depth) -> Vec<Kind> {
    verify(root, depth)
        .unwrap()
        .into_iter()
        .map(|problem| problem.kind)
        .collect()
}

#[test]
fn a_sound_store_has_no_problems() {
    let folder = tempfile::tempdir().unwrap();
    chain(folder.path());
    assert_eq!(verify(folder.path(), Depth::Content).unwrap(), []);
    assert_eq!(repair(folder.path(), &[]).unwrap(), RepairReport::default());
}

#[test]
fn the_mode_is_the_manifests_whatever_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut output = samples::output("tool", &[], &[b"#!"]);
    output.files[0].mode = 0o700;
    store
        .add(&output, &[Source::Bytes(b"#!".to_vec())])
        .unwrap();
    assert_eq!(kinds(folder.path(), Depth::Stamps), []);
}

#[test]
fn each_damage_to_a_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let [base, ..] = chain(root);
    let path = file(root, &base, "files/0");
    let place = || "files/0".to_owned();

    fs::set_mode(&path, 0o600).unwrap();
    let mode = Kind::Mode {
        file: place(),
        expected: 0o644,
        found: 0o600,
    };
    assert_eq!(kinds(root, Depth::Stamps), [mode]);
    fs::set_mode(&path, 0o644).unwrap();

    fs::set_mtime(&path, Time::from_seconds(1)).unwrap();
    assert_eq!(kinds(root, Depth::Stamps), [Kind::Time { file: place() }]);

    fs::write(&path, b"BASE").unwrap();
    fs::set_mtime(&path, FILE_TIME).unwrap();
    assert_eq!(kinds(root, Depth::Stamps), []);
    assert_eq!(
        kinds(root, Depth::Content),
        [Kind::Content { file: place() }]
    );

    fs::write(&path, b"longer").unwrap();
    fs::set_mtime(&path, FILE_TIME).unwrap();
    let size = Kind::Size {
        file: place(),
        expected: 4,
        found: 6,
    };
    assert_eq!(kinds(root, Depth::Content), [size]);

    fs::symlink(&file(root, &base, "files/1"), &path).unwrap();
    assert_eq!(
        kinds(root, Depth::Stamps),
        [Kind::Missing { file: place() }]
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(
        kinds(root, Depth::Stamps),
        [Kind::Missing { file: place() }]
    );
}

#[test]
fn each_damage_to_a_manifest_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let [.., apart] = chain(root);
    let path = file(root, &apart, "manifest.json");
    let put = |output: &Output| fs::write(&path, &serde_json::to_vec(output).unwrap()).unwrap();

    put(&Output {
        version: "2.0.0".to_owned(),
        ..apart.clone()
    });
    assert!(matches!(
        &kinds(root, Depth::Stamps)[..],
        [Kind::Name { .. }]
    ));
    put(&Output {
        inputs: crate::output::Inputs {
            git_head: Some("0".to_owned()),
            ..Default::default()
        },
        ..apart.clone()
    });
    assert!(matches!(&kinds(root, Depth::Stamps)[..], [Kind::Id { .. }]));
    fs::write(&path, b"{\"format\": 2, \"new\": 0}").unwrap();
    assert_eq!(kinds(root, Depth::Stamps), [Kind::Format { found: 2 }]);
    let report = repair(root, &verify(root, Depth::Stamps).unwrap()).unwrap();
    assert_eq!(report, RepairReport::default());
    fs::write(&path, b"{").unwrap();
    assert!(matches!(
        &kinds(root, Depth::Stamps)[..],
        [Kind::Manifest { .. }]
    ));
    fs::remove_file(&path).unwrap();
    assert_eq!(kinds(root, Depth::Stamps), [Kind::NoManifest]);

    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path.parent().unwrap(), b"no folder").unwrap();
    let report = repair(root, &verify(root, Depth::Stamps).unwrap()).unwrap();
    assert_eq!(report.discarded, [apart.store_name()]);
    assert_eq!(kinds(root, Depth::Stamps), []);
}

#[test]
fn what_is_damaged_goes_with_all_that_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let [base, middle, top, apart] = chain(root);
    fs::write(&file(root, &base, "files/1"), b"other").unwrap();
    let problems = verify(root, Depth::Stamps).unwrap();
    assert!(
        problems
            .iter()
            .all(|problem| problem.store_name == base.store_name())
    );

    let report = repair(root, &problems).unwrap();
    let names = [&base, &middle, &top].map(Output::store_name);
    assert_eq!(report.discarded, names);
    assert_eq!(
        Store::open(root).unwrap().names().unwrap(),
        [apart.store_name()]
    );
}

#[test]
fn a_missing_reference_is_found_and_its_dependants_go() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let [base, middle, top, _] = chain(root);
    fs::remove_dir_all(&root.join("paths").join(base.store_name())).unwrap();
    assert_eq!(
        kinds(root, Depth::Stamps),
        [Kind::Reference { id: base.id }]
    );
    let report = repair(root, &verify(root, Depth::Stamps).unwrap()).unwrap();
    assert_eq!(report.discarded, [&middle, &top].map(Output::store_name));
    assert_eq!(kinds(root, Depth::Content), []);
}

#[test]
fn time_and_mode_are_set_right_around_right_content_only() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let [base, _, top, _] = chain(root);
    fs::set_mtime(&file(root, &base, "files/0"), Time::from_seconds(1)).unwrap();
    fs::set_mode(&file(root, &base, "files/1"), 0o600).unwrap();
    fs::write(&file(root, &top, "files/0"), b"TOP").unwrap(); // the time tells
    let report = repair(root, &verify(root, Depth::Stamps).unwrap()).unwrap();
    assert_eq!(report.mended, [base.store_name()]);
    assert_eq!(report.discarded, [top.store_name()]);
    assert_eq!(kinds(root, Depth::Content), []);
}

#[test]
fn repair_needs_the_store_alone_and_no_name_leads_out_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let [base, ..] = chain(root);
    let problem = |store_name: &str| Problem {
        store_name: store_name.to_owned(),
        kind: Kind::NoManifest,
    };
    let open = Store::open(root).unwrap();
    assert!(matches!(repair(root, &[]), Err(StoreError::Busy { .. })));
    drop(open);
    // Neither a lie about a sound path nor a foreign name does any harm.
    let lies = [
        problem(&base.store_name()),
        problem("../units"),
        problem(".."),
    ];
    assert_eq!(repair(root, &lies).unwrap(), RepairReport::default());
    assert_eq!(verify(root, Depth::Content).unwrap(), []);
}
