//! How long it takes to find out which packages to move, for real lock files of
//! some hundred to a thousand packages, where all trees of all other lock files
//! are prebuilt.
//!
//! `cargo bench --bench align` reads the lock files in `../shared/corpus`, or in
//! the folder that `CORPUS` names, and the index that Cargo has looked up
//! (`quickbuild analyse --lookup` makes it look; `INDEX_HOME` names the Cargo home
//! that has it). Reading what is known is measured, too; Cargo's proof is not.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use quickbuild::align::{Offer, Offers, propose};
use quickbuild::analyse::alignment::{Index, project};
use quickbuild::analyse::census::Census;
use quickbuild::analyse::projects::{self, Found, Search};
use quickbuild::cargo::lock_graph::LockGraph;
use quickbuild::cargo::releases::Releases;
use quickbuild::console;
use semver::Version;

fn main() {
    // `cargo test --benches` and the like want to know that it starts, no more.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let variable = |name: &str, otherwise: &str| {
        PathBuf::from(std::env::var_os(name).unwrap_or_else(|| otherwise.into()))
    };
    let corpus = variable("CORPUS", "../shared/corpus");
    let found = Search::run(&[corpus]).found;
    let read = found.iter().filter_map(|found| {
        let lock = projects::read(&found.path).ok()?;
        Some((found, lock))
    });
    let mut locks: Vec<(&Found, LockGraph)> = read.collect();
    assert!(!locks.is_empty(), "there are no lock files");
    locks.sort_by_key(|(_, lock)| lock.packages.len());
    let home = variable("HOME", "/").join(".cargo");
    let home = variable("INDEX_HOME", &home.to_string_lossy());
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .configure_from_args();
    let mut group = criterion.benchmark_group("align");
    // The largest, and some that are smaller.
    for part in [2, 3] {
        let position = locks.len() - 1 - locks.len() / (part * part * part);
        let (own, lock) = &locks[position];
        measure(&mut group, &locks, (own, lock), &home);
    }
    let (own, lock) = locks.last().expect("there is one");
    measure(&mut group, &locks, (own, lock), &home);
    group.finish();
    criterion.final_summary();
}

fn measure(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    locks: &[(&Found, LockGraph)],
    (own, lock): (&Found, &LockGraph),
    home: &PathBuf,
) {
    let others = locks
        .iter()
        .filter(|(found, _)| found.repository != own.repository);
    let others = others.map(|(found, lock)| (*found, 1.0, lock.clone()));
    let offers = offers(&Census::of(others.collect()));
    let banned = BTreeSet::new();
    let search = || {
        let releases = Releases::open(std::slice::from_ref(home)).expect("an index");
        let project = project(lock, lock, &offers, &|_, _| 1.0).expect("versions");
        propose(&project, &offers, &banned, &Index(releases))
    };
    let begin = Instant::now();
    let proposal = search();
    console::out(&format!(
        "{}: {} packages, {} trees prebuilt; {} moves, {:.0} of {:.0} prebuilt before, {:.0} after; {:.2} s\n",
        own.name,
        lock.packages.len(),
        offers.list.len(),
        proposal.steps.len(),
        proposal.before,
        proposal.all,
        proposal.after,
        begin.elapsed().as_secs_f64()
    ));
    group.bench_function(
        BenchmarkId::from_parameter(lock.packages.len()),
        |bencher| {
            bencher.iter(search);
        },
    );
}

/// All trees of a census as offers.
fn offers(census: &Census) -> Offers {
    let mut places = HashMap::new();
    let mut list = Vec::new();
    for (position, node) in census.nodes.iter().enumerate() {
        let package = census.package(position as u32);
        let Ok(version) = Version::parse(&package.version) else {
            continue;
        };
        let needs = node.children.iter().map(|child| places.get(child).copied());
        let Some(needs) = needs.collect() else {
            continue;
        };
        places.insert(position as u32, list.len());
        list.push(Offer {
            name: package.name.clone(),
            version,
            features: None,
            needs,
        });
    }
    Offers::new(list)
}
