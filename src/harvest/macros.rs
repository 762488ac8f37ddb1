//! What procedural macros read behind the compiler's back.
//!
//! A macro may read files and variables of which rustc hears nothing, as
//! template and database crates do: Cargo does not notice a change there, and
//! another checkout may have other files. So the macro's own sources and those
//! of its direct dependencies are searched for the usual ways of reading, as
//! those of build scripts are (`docs/decisions/0008-undeclared-reads.md`).

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::cargo::build_script::Reads;
use crate::cargo::package_files;
use crate::fs;
use crate::plan::{Plan, Planned};

/// Reads the manifests of a package and its workspace, which are inputs anyway.
const READS_MANIFESTS_ONLY: [&str; 1] = ["proc-macro-crate"];

/// Names the date of today in error messages, and uses it for nothing else
/// (`src/date.rs` and `src/bound.rs` of rustversion).
const DATE_IN_MESSAGES: [&str; 1] = ["rustversion"];

/// What the sources of packages say, each looked at once.
#[derive(Default)]
pub(super) struct Sources(Mutex<HashMap<PathBuf, Reads>>);

impl Sources {
    /// What the macros may read that a unit calls.
    pub(super) fn reads(&self, plan: &Plan, unit: &Planned) -> Reads {
        let mut all = Reads::default();
        let macros = unit.needs.iter().map(|&need| &plan.units[need]);
        for called in macros.filter(|need| need.kind == "proc-macro") {
            let own = self.of(called);
            let harmless = DATE_IN_MESSAGES.contains(&called.package.name.as_str());
            all.volatile |= own.volatile && !harmless;
            all.git_head |= own.git_head;
            add(&mut all, own);
            for &need in &called.needs {
                let helper = &plan.units[need];
                let is_library = matches!(helper.kind, "lib" | "proc-macro");
                if is_library && !READS_MANIFESTS_ONLY.contains(&helper.package.name.as_str()) {
                    add(&mut all, self.of(helper));
                }
            }
        }
        all
    }

    fn of(&self, unit: &Planned) -> Reads {
        let root = unit.unit.target.src_path.parent();
        let root = root.unwrap_or(Path::new("/")).to_owned();
        let known = |sources: &HashMap<PathBuf, Reads>| sources.get(&root).cloned();
        if let Some(reads) = known(&self.0.lock().expect("no panic while searching")) {
            return reads;
        }
        let mut reads = Reads::default();
        for file in fs::walk(&root).unwrap_or_default() {
            if file.extension().is_some_and(|extension| extension == "rs")
                && !file.starts_with("tests")
                && let Ok(text) = fs::read_text(&root.join(file))
            {
                reads.add_source(&text);
            }
        }
        let mut sources = self.0.lock().expect("no panic while searching");
        sources.insert(root, reads.clone());
        reads
    }
}

fn add(all: &mut Reads, some: Reads) {
    all.variables.extend(some.variables);
    all.files |= some.files;
}

/// All of a package that a macro might read: what lies in its folder, and each
/// folder below as a whole, since a new file in it matters, too. Folders with a
/// package of their own count by the files that are not that package's.
pub(super) fn package_inputs(package: &Path) -> fs::Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    for file in package_files::list(package)? {
        let mut parts = file.components();
        let top = package.join(parts.next().expect("a file has a name"));
        let is_nested = parts.next().is_some();
        let has_package = || {
            let below = fs::walk(&top).unwrap_or_default();
            below.iter().any(|file| file.ends_with("Cargo.toml"))
        };
        if paths.contains(&top) {
            continue;
        }
        paths.insert(if is_nested && !has_package() {
            top
        } else {
            package.join(file)
        });
    }
    Ok(paths)
}
