//! Lock files of strangers, as `quickbuild analyse` reads them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quickbuild::analyse::trees;
use quickbuild::cargo::lock_graph::LockGraph;

fuzz_target!(|data: &[u8]| {
    let Ok(mut lock) = LockGraph::parse(data) else {
        return;
    };
    let count = lock.packages.len();
    for package in &lock.packages {
        assert!(package.dependencies.iter().all(|need| *need < count));
        assert!(package.dependencies.is_sorted());
    }
    let found = trees::trees(&lock);
    assert!(found.len() <= count);
    for (position, tree) in found.iter().enumerate() {
        assert!(tree.children.iter().all(|child| *child < position));
    }
    // What no folder needs goes, and the rest is still a lock file.
    trees::sweep(&mut lock);
    let count = lock.packages.len();
    let mut needs = lock.packages.iter().flat_map(|package| &package.dependencies);
    assert!(needs.all(|need| *need < count));
});
