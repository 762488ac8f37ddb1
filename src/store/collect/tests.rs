use proptest::prelude::*;

use super::*;
use crate::fs::{Sharing, Time};
use crate::output::Output;
use crate::store::verify::{Depth, samples, verify};

const NOW: i64 = 1_000_000;

/// Graphs in which a node mostly refers to earlier ones; few uses, so that
/// many are equal.
fn graphs(backwards: bool) -> impl Strategy<Value = Vec<Node>> {
    let node = (
        0u64..50,
        0i64..6,
        proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        proptest::bool::weighted(0.1),
    );
    proptest::collection::vec(node, 1..24).prop_map(move |nodes| {
        let count = nodes.len();
        let nodes =
            nodes
                .into_iter()
                .enumerate()
                .map(|(number, (size, age, references, rooted))| {
                    let bound = if backwards { count } else { number };
                    let references = references.iter().filter(|_| bound > 0);
                    Node {
                        size,
                        last_use: NOW - age * 1_500,
                        references: references.map(|index| index.index(bound)).collect(),
                        rooted,
                    }
                });
        nodes.collect()
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    (0u64..600, proptest::option::of(0u64..10_000)).prop_map(|(max_size, older_than)| Limits {
        max_size,
        older_than,
        run: Run::Real,
    })
}

/// All that `start` reaches, itself included.
fn reached(nodes: &[Node], start: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    reach(nodes, start, |index| seen.insert(index));
    seen
}

/// The definition, word for word.
fn naive_last_use(nodes: &[Node], index: usize) -> i64 {
    let dependants = (0..nodes.len()).filter(|&other| reached(nodes, other).contains(&index));
    dependants.map(|other| nodes[other].last_use).max().unwrap()
}

proptest! {
    #[test]
    fn the_collector_keeps_its_promises(
        nodes in prop_oneof![graphs(false), graphs(true)], limits in limits()
    ) {
        let Choice { fates, taken } = choose(&nodes, &limits, NOW);
        let is_taken = |index: &usize| fates[*index] == Fate::Taken;
        let last_use = |index: usize| naive_last_use(&nodes, index);
        let all = 0..nodes.len();

        // Nothing that a root reaches, nothing used within the hour.
        for index in all.clone().filter(|&index| nodes[index].rooted) {
            prop_assert!(!reached(&nodes, index).iter().any(is_taken));
        }
        prop_assert!(all.clone().filter(is_taken).all(|index| NOW - last_use(index) > HOUR));
        // Nothing that stays refers to anything taken.
        for index in all.clone().filter(|index| !is_taken(index)) {
            prop_assert!(!reached(&nodes, index).iter().any(is_taken));
        }
        // It fits afterwards, or all that is left is protected.
        let left = || all.clone().filter(|index| !is_taken(index));
        let free: Vec<usize> = left().filter(|&index| fates[index] == Fate::Kept).collect();
        let total: u64 = left().map(|index| nodes[index].size).sum();
        prop_assert!(total <= limits.max_size || free.is_empty());
        // The least recently used goes, and no more than needed.
        for &index in &free {
            let age = u64::try_from(NOW - last_use(index)).unwrap();
            prop_assert!(limits.older_than.is_none_or(|limit| age <= limit));
            prop_assert!(taken.iter().all(|&other| last_use(other) <= last_use(index)));
        }
        let mut sorted = taken.clone();
        sorted.sort();
        prop_assert_eq!(sorted, all.clone().filter(is_taken).collect::<Vec<_>>());
    }

    #[test]
    fn each_step_of_a_removal_leaves_whole_closures(nodes in graphs(false), limits in limits()) {
        let taken = choose(&nodes, &limits, NOW).taken;
        for (step, &index) in taken.iter().enumerate() {
            let dependant = |&other: &usize| other != index && nodes[other].references.contains(&index);
            let before = (0..nodes.len()).filter(dependant);
            prop_assert!(before.into_iter().all(|other| taken[..step].contains(&other)));
        }
    }

    #[test]
    fn the_last_step_was_needed(nodes in graphs(false), max_size in 0u64..600) {
        let limits = Limits { max_size, older_than: None, run: Run::Real };
        let taken = choose(&nodes, &limits, NOW).taken;
        if let Some((_, all_but_last)) = taken.split_last() {
            let total: u64 = nodes.iter().map(|node| node.size).sum();
            let removed: u64 = all_but_last.iter().map(|&index| nodes[index].size).sum();
            prop_assert!(total - removed > max_size);
        }
    }
}

const LONG_AGO: Time = Time::from_seconds(1_000_000_000);

fn limit(max_size: u64) -> Limits {
    Limits {
        max_size,
        older_than: None,
        run: Run::Real,
    }
}

/// Makes everything in a store old, folders and manifests.
fn grow_old(root: &Path) {
    for path in fs::list(&root.join("paths")).unwrap() {
        let _ = fs::set_mtime(&path.join("manifest.json"), LONG_AGO);
        fs::set_mtime(&path, LONG_AGO).unwrap();
    }
}

fn names(root: &Path) -> BTreeSet<String> {
    Store::open(root)
        .unwrap()
        .names()
        .unwrap()
        .into_iter()
        .collect()
}

fn set(outputs: &[&Output]) -> BTreeSet<String> {
    outputs.iter().map(|output| output.store_name()).collect()
}

#[test]
fn roots_and_recent_use_protect_with_all_that_is_referred_to() {
    let folder = tempfile::tempdir().unwrap();
    let root = &folder.path().join("store");
    let target = folder.path().join("target");
    fs::create_dir_all(&target).unwrap();
    let store = Store::open(root).unwrap();
    let base = samples::add(&store, "base", &[], &[b"1234"]);
    let linked = samples::add(&store, "linked", &[&base], &[b"12"]);
    let used = samples::add(&store, "used", &[&base], &[b"123"]);
    let idle = samples::add(&store, "idle", &[&used], &[b"1"]);
    store
        .add_root(&Root {
            target: target.clone(),
            outputs: vec![linked.id],
        })
        .unwrap();
    grow_old(root);
    store.touch(&used.store_name(), used.key);
    assert!(matches!(
        collect(root, limit(0)),
        Err(StoreError::Busy { .. })
    ));
    drop(store);

    let dry = collect(
        root,
        Limits {
            run: Run::Dry,
            ..limit(0)
        },
    )
    .unwrap();
    assert_eq!(names(root), set(&[&base, &linked, &used, &idle]));
    let report = collect(root, limit(0)).unwrap();
    assert_eq!(report, dry);
    assert_eq!(names(root), set(&[&base, &linked, &used]));
    assert_eq!(report.kept, Amount { count: 3, bytes: 9 });
    assert_eq!(report.rooted, Amount { count: 2, bytes: 6 });
    assert_eq!(report.taken, Amount { count: 1, bytes: 1 });
    assert_eq!(report.names, [idle.store_name()]);
    assert!(report.freed > 0);

    fs::remove_dir_all(&target).unwrap();
    collect(root, limit(0)).unwrap();
    assert_eq!(names(root), set(&[&base, &used]));
    assert_eq!(fs::list(&root.join("roots")).unwrap(), [] as [PathBuf; 0]);
    assert_eq!(verify(root, Depth::Content).unwrap(), []);
}

#[test]
fn size_and_age_take_the_least_recently_used() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let store = Store::open(root).unwrap();
    let outputs = ["a", "b", "c"].map(|name| samples::add(&store, name, &[], &[&[0; 100]]));
    let now = fs::now().seconds();
    for (output, days) in outputs.iter().zip([3, 9, 6]) {
        let manifest = store.path(&output.store_name()).join("manifest.json");
        fs::set_mtime(&manifest, Time::from_seconds(now - days * DAY)).unwrap();
    }
    drop(store);
    assert_eq!(
        collect(root, limit(250)).unwrap().names,
        [outputs[1].store_name()]
    );
    let week = Limits {
        older_than: Some(5 * 86_400),
        ..limit(1_000)
    };
    assert_eq!(
        collect(root, week).unwrap().names,
        [outputs[2].store_name()]
    );
    assert_eq!(collect(root, limit(100)).unwrap().names, [] as [String; 0]);
}

#[test]
fn the_index_forgets_what_was_taken() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let store = Store::open(root).unwrap();
    let old = samples::add(&store, "old", &[], &[b"old"]);
    grow_old(root);
    let alone = samples::add(&store, "alone", &[], &[b"alone"]);
    let line = format!("{}\n", alone.store_name());
    let shared = root.join("index").join(old.host_recipe.to_string());
    fs::append(&shared, line.as_bytes()).unwrap();
    drop(store);
    collect(root, limit(0)).unwrap();
    assert_eq!(fs::read_text(&shared).unwrap(), line);

    grow_old(root);
    collect(root, limit(0)).unwrap();
    assert_eq!(fs::list(&root.join("index")).unwrap(), [] as [PathBuf; 0]);
}

#[test]
fn broken_paths_and_leftovers_go_after_an_hour() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let store = Store::open(root).unwrap();
    let broken = samples::add(&store, "broken", &[], &[b"bytes"]);
    let newer = samples::add(&store, "newer", &[], &[b"bytes"]);
    let manifest = |output: &Output| store.path(&output.store_name()).join("manifest.json");
    fs::write(&manifest(&broken), b"{").unwrap();
    fs::write(
        &manifest(&newer),
        br#"{"format":9,"name":"n","references":[],"x":1}"#,
    )
    .unwrap();
    let stale = [
        "paths/junk",
        "tmp/x",
        "trash/x",
        "cache/x",
        "units/x.json",
        "roots/x.json.1-0.tmp",
    ];
    for place in stale {
        fs::write(&root.join(place), b"junk").unwrap();
    }
    drop(store);
    let files = || {
        stale
            .map(|place| root.join(place))
            .into_iter()
            .filter(|path| path.exists())
            .count()
    };

    assert_eq!(
        collect(root, limit(1_000)).unwrap().taken,
        Amount::default()
    );
    assert_eq!((names(root).len(), files()), (2, 6));
    for place in stale {
        fs::set_mtime(&root.join(place), LONG_AGO).unwrap();
    }
    grow_old(root);
    let report = collect(root, limit(1_000)).unwrap();
    assert_eq!(report.taken, Amount { count: 2, bytes: 9 });
    assert_eq!((names(root), files()), (set(&[&newer]), 0));
}

#[test]
fn what_a_target_shares_frees_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = &folder.path().join("store");
    let store = Store::open(root).unwrap();
    let big = samples::add(&store, "big", &[], &[&[1; 10_000]]);
    samples::add(&store, "small", &[], &[&[2; 5_000]]);
    let target = folder.path().join("linked");
    fs::place(&store.file(&big, 0), &target, Sharing::Shared).unwrap();

    let usage = usage(root).unwrap();
    assert_eq!(
        usage.total,
        Amount {
            count: 2,
            bytes: 15_000
        }
    );
    let order: Vec<&str> = usage.packages.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(order, ["big", "small"]);
    assert_eq!(
        usage.packages[1].amount,
        Amount {
            count: 1,
            bytes: 5_000
        }
    );
    assert!(usage.shared >= 10_000 && usage.disk >= usage.shared + 5_000);

    drop(store);
    grow_old(root);
    let report = collect(root, limit(0)).unwrap();
    assert_eq!(report.names.len(), 2);
    assert_eq!(report.freed, usage.disk - usage.shared);
    assert_eq!(names(root), set(&[]));
}

#[test]
fn other_formats_and_absent_stores_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    assert_eq!(collect(root, limit(0)).unwrap(), Report::default());
    assert_eq!(fs::list(root).unwrap(), [] as [PathBuf; 0]);
    drop(Store::open(root).unwrap());
    fs::write(&root.join("format"), b"2\n").unwrap();
    assert!(matches!(
        collect(root, limit(0)),
        Err(StoreError::Format { .. })
    ));
}
