//! The rank table of `docs/ARCHITECTURE.md`, held by force: imports go down,
//! one module knows the file system, one knows the folders of `target/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::walk;

/// Modules by rank. Siblings may use each other where it says so.
const RANKS: [&[&str]; 9] = [
    &[
        "digest",
        "fs",
        "console",
        "environment",
        "workers",
        "interrupt",
        "markup",
    ],
    &["cargo", "config"],
    &["recipe", "output", "trust", "align"],
    &["store", "substituter", "builder"],
    &["plan", "substitute", "publish", "link", "harvest", "bridge"],
    &["build", "serve", "analyse", "audit"],
    &["realise", "report"],
    &["service", "worker"],
    &["cli"],
];

/// The one rank whose modules work on one thing together, the plan.
const RANK_WITH_SIBLINGS: usize = 4;

/// A module of rank 0 that hashes what it reads.
const SIBLINGS: [(&str, &str); 1] = [("fs", "digest")];

const LINES_OF_A_FILE: usize = 600;

/// Files that may be longer, with the reason.
const LONG_FILES: [(&str, &str); 0] = [];

struct Source {
    /// Relative to `src/`.
    path: PathBuf,
    /// Without comments and unit tests, line numbers kept.
    code: String,
    lines: usize,
}

impl Source {
    /// The top module; none for `lib.rs` and the programs.
    fn module(&self) -> Option<String> {
        let first = self.path.components().next()?.as_os_str().to_str()?;
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(module, "lib" | "bin")).then(|| module.to_owned())
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walk(&root).into_iter();
    let files = files.filter(|path| path.extension().is_some_and(|ext| ext == "rs"));
    // Unit tests in a file of their own are no part of the picture.
    let files = files.filter(|path| path.file_name().is_some_and(|name| name != "tests.rs"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        Source {
            path: path.strip_prefix(&root).unwrap().to_owned(),
            code: code(&text),
            lines: text.lines().count(),
        }
    };
    files.map(read).collect()
}

/// Leaves out comments, and what is below `#[cfg(test)]` in column 0.
fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    let lines = lines.map(|line| {
        if line.trim_start().starts_with("//") {
            ""
        } else {
            line
        }
    });
    lines.fold(String::new(), |all, line| all + line + "\n")
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|modules| modules.contains(&module))
}

/// Modules named by `crate::<module>`, in paths and in groups such as
/// `crate::{fs, store::Store}`.
fn imports(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        let is_part = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        text.trim_start().chars().take_while(is_part).collect()
    };
    let mut modules = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => {
                modules.insert(word(rest));
            }
            Some(group) => modules.extend(group_members(group).iter().map(|m| word(m))),
        }
    }
    modules.remove("");
    modules
}

/// The members of a group at its own level, up to its closing brace.
fn group_members(group: &str) -> Vec<&str> {
    let (mut depth, mut start) = (0_i32, 0);
    let mut members = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    members
}

#[test]
fn every_module_has_a_rank() {
    let modules: BTreeSet<String> = sources().iter().filter_map(Source::module).collect();
    let ranked: BTreeSet<String> = RANKS
        .iter()
        .flat_map(|rank| rank.iter())
        .map(|m| (*m).to_owned())
        .collect();
    assert_eq!(modules, ranked);
}

#[test]
fn imports_go_down() {
    let mut upward = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else {
            continue;
        };
        let own = rank(&module).unwrap();
        for import in imports(&source.code) {
            let Some(other) = rank(&import) else { continue };
            let sibling = other == own
                && (own == RANK_WITH_SIBLINGS
                    || SIBLINGS.contains(&(module.as_str(), import.as_str())));
            if import != module && other >= own && !sibling {
                upward.push(format!("{}: crate::{import}", source.path.display()));
            }
        }
    }
    assert!(
        upward.is_empty(),
        "imports that do not go down: {upward:#?}"
    );
}

#[test]
fn only_one_module_knows_the_file_system() {
    let mut found = Vec::new();
    for source in sources() {
        if source.path.starts_with("fs") {
            continue;
        }
        let groups = source.code.match_indices("std::{").map(|(at, open)| {
            let members = group_members(&source.code[at + open.len()..]);
            members.iter().any(|member| member.trim().starts_with("fs"))
        });
        let grouped = groups.into_iter().any(|names_fs| names_fs);
        if grouped
            || ["std::fs", "std_fs"]
                .iter()
                .any(|name| source.code.contains(name))
        {
            found.push(source.path.display().to_string());
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_one_module_knows_each_client() {
    for (client, folder) in [
        ("reqwest", "substituter/web"),
        ("object_store", "substituter/objects"),
        ("bollard", "builder/docker"),
        ("hyper", "serve"),
        ("axum", "service"),
        ("sqlx", "service"),
    ] {
        let sources = sources().into_iter();
        let found: Vec<String> = sources
            .filter(|source| !source.path.with_extension("").starts_with(folder))
            .filter(|source| source.code.contains(&format!("{client}::")))
            .map(|source| source.path.display().to_string())
            .collect();
        assert!(found.is_empty(), "{client}: {found:#?}");
    }
}

#[test]
fn only_the_layout_knows_the_folders_of_the_target_directory() {
    // As whole literals and as parts of paths in literals.
    let folders = [
        ".fingerprint",
        "\"deps\"",
        "\"deps/",
        "/deps/",
        "\"incremental\"",
        ".cargo-lock",
    ];
    let mut found = Vec::new();
    for source in sources() {
        let is_test = source.path.ends_with("tests.rs");
        if is_test || source.path == Path::new("cargo/layout.rs") {
            continue;
        }
        for (number, line) in source.code.lines().enumerate() {
            // A field of Cargo's JSON that happens to have this name.
            let is_field = line.contains("rename") || line.contains("serde");
            let named = folders.iter().any(|folder| line.contains(folder));
            // `paths.fingerprint_dir` is a field, no folder's name.
            let in_literal = line.contains('"');
            if named && in_literal && !is_field {
                found.push(format!(
                    "{}:{}: {}",
                    source.path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn files_are_not_too_long() {
    let mut long = Vec::new();
    for source in sources() {
        let excused = LONG_FILES
            .iter()
            .any(|(path, _)| source.path == Path::new(path));
        if source.lines > LINES_OF_A_FILE && !excused {
            long.push(format!("{}: {} lines", source.path.display(), source.lines));
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn groups_of_imports_are_read() {
    let code = "use crate::{fs, store::{Store, Root}, plan::Plan};\nfn f() { crate::cli::main(); }";
    let found: Vec<String> = imports(code).into_iter().collect();
    assert_eq!(found, ["cli", "fs", "plan", "store"]);
}
