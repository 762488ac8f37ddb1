use super::*;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Packages given as `name version source-or-minus dependency,dependency`.
fn lock(version: Option<u32>, packages: &[&str]) -> String {
    let mut text = version.map_or(String::new(), |version| format!("version = {version}\n"));
    for package in packages {
        let mut parts = package.splitn(4, ' ');
        let mut part = || parts.next().unwrap_or_default();
        let (name, version, source) = (part(), part(), part());
        text += &format!("\n[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
        if source != "-" {
            text += &format!("source = \"{source}\"\n");
        }
        let needed: Vec<String> = part()
            .split(',')
            .filter(|needed| !needed.is_empty())
            .map(|needed| format!("\"{needed}\""))
            .collect();
        text += &format!("dependencies = [{}]\n", needed.join(", "));
    }
    text
}

fn parse(text: &str) -> Result<LockGraph, LockError> {
    LockGraph::parse(text.as_bytes())
}

fn edges(text: &str) -> Vec<Vec<usize>> {
    let graph = parse(text).unwrap();
    graph.packages.into_iter().map(|p| p.dependencies).collect()
}

#[test]
fn a_dependency_is_found_by_as_much_as_it_says() {
    let packages = [
        format!("app 0.1.0 - a 1.0.0,b,c 1.0.0 ({REGISTRY})"),
        format!("a 1.0.0 {REGISTRY} "),
        format!("a 2.0.0 {REGISTRY} "),
        format!("b 1.0.0 {REGISTRY} a 2.0.0"),
        format!("c 1.0.0 {REGISTRY} "),
        "c 1.0.0 git+https://example.org/c?branch=x#0123 b".to_owned(),
    ];
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    for version in [None, Some(3), Some(4)] {
        assert_eq!(
            edges(&lock(version, &packages)),
            [vec![1, 3, 4], vec![], vec![], vec![2], vec![], vec![3]]
        );
    }
}

#[test]
fn version_1_has_a_root_and_full_names() {
    let text = format!(
        "[root]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [\n \"a 1.0.0 ({REGISTRY})\",\n]\n\
         {}\n[metadata]\n\"checksum a 1.0.0 ({REGISTRY})\" = \"00\"\n",
        lock(None, &[&format!("a 1.0.0 {REGISTRY} ")])
    );
    assert_eq!(edges(&text), [vec![], vec![0]]);
}

#[test]
fn a_commit_is_no_part_of_a_dependency() {
    let git = "git+https://example.org/a";
    let one = format!("app 0.1.0 - a 1.0.0 ({git})");
    let packages = [
        one.as_str(),
        &format!("a 1.0.0 {REGISTRY} "),
        &format!("a 1.0.0 {git}#0123 "),
    ];
    assert_eq!(edges(&lock(Some(4), &packages))[0], [2]);
}

#[test]
fn a_folder_is_meant_where_no_source_is_named() {
    let packages = [
        "app 0.1.0 - a 1.0.0",
        &format!("a 1.0.0 {REGISTRY} "),
        "a 1.0.0 - ",
    ];
    assert_eq!(edges(&lock(Some(4), &packages))[0], [2]);
}

#[test]
fn what_is_replaced_is_its_stand_in() {
    let text = format!(
        "{}replace = \"a 1.0.0 (git+https://example.org/a)\"\n{}",
        lock(None, &[&format!("a 1.0.0 {REGISTRY} ")]),
        lock(
            None,
            &[
                "a 1.0.0 git+https://example.org/a#0123 ",
                &format!("app 0.1.0 - a 1.0.0 ({REGISTRY})")
            ]
        )
    );
    assert_eq!(edges(&text), [vec![1], vec![], vec![0]]);
}

#[test]
fn what_is_wrong_is_named() {
    let twice = ["a 1.0.0 - ", "a 1.0.0 - "];
    assert_eq!(
        parse(&lock(Some(4), &twice)),
        Err(LockError::Twice {
            package: "a 1.0.0".to_owned()
        })
    );
    assert_eq!(
        parse(&lock(Some(4), &["a 1.0.0 - b"])),
        Err(LockError::Missing {
            package: "a 1.0.0".to_owned(),
            dependency: "b".to_owned()
        })
    );
    let several = ["a 1.0.0 - b", "b 1.0.0 - ", "b 2.0.0 - "];
    assert_eq!(
        parse(&lock(Some(4), &several)),
        Err(LockError::Ambiguous {
            package: "a 1.0.0".to_owned(),
            dependency: "b".to_owned()
        })
    );
    assert_eq!(parse("version = 5\n"), Err(LockError::Newer { version: 5 }));
    assert_eq!(LockGraph::parse(b"\xff"), Err(LockError::NotUtf8));
    assert_eq!(
        parse("version = 4\n<<<<<<< HEAD\n[[package]]\n"),
        Err(LockError::Conflict { line: 2 })
    );
    assert!(matches!(
        parse("[[package]]\nname = 1\n"),
        Err(LockError::Syntax { .. })
    ));
}

/// The library that other tools read lock files with says the same.
#[test]
fn real_lock_files_are_read_as_cargo_lock_reads_them() {
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let bytes = crate::fs::read(&own).unwrap();
    let ours = LockGraph::parse(&bytes).unwrap();
    let theirs = cargo_lock::Lockfile::load(&own).unwrap();
    assert_eq!(ours.packages.len(), theirs.packages.len());
    for (our, their) in ours.packages.iter().zip(&theirs.packages) {
        assert_eq!(our.name, their.name.as_str());
        let mut names: Vec<String> = their
            .dependencies
            .iter()
            .map(|d| format!("{} {}", d.name, d.version))
            .collect();
        names.sort();
        let needed = our.dependencies.iter().map(|d| &ours.packages[*d]);
        let mut our_names: Vec<String> = needed
            .map(|d| format!("{} {}", d.name, d.version))
            .collect();
        our_names.sort();
        assert_eq!(our_names, names);
    }
}
