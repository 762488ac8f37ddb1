use super::*;
use crate::cargo::source::CRATES_IO;
use crate::recipe::{Dependency, FORMAT, Target, Tools};

fn profile(fields: &[(&str, &str)]) -> BTreeMap<String, String> {
    let defaults = [
        ("codegen_units", "null"),
        ("debug_assertions", "true"),
        ("incremental", "false"),
        ("lto", "\"false\""),
        ("opt_level", "\"0\""),
        ("panic", "\"unwind\""),
    ];
    let all = defaults.iter().chain(fields);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// A library for the target, named `name-version`.
fn target(name: &str, needs: &[&PackageRecipe]) -> Recipe {
    let (name, version) = name.rsplit_once('-').unwrap();
    let edge = |need: &&PackageRecipe| Dependency {
        name: need.name().to_owned(),
        recipe: need.hash(),
        public: false,
        noprelude: false,
    };
    Recipe {
        format: FORMAT,
        name: name.to_owned(),
        version: version.to_owned(),
        source: CRATES_IO.to_owned(),
        checksum: Some("00".to_owned()),
        target: Target {
            kind: "lib".to_owned(),
            name: name.to_owned(),
            crate_types: vec!["lib".to_owned()],
            edition: "2021".to_owned(),
        },
        features: vec!["std".to_owned()],
        platform: "x86_64-unknown-linux-gnu".to_owned(),
        test: false,
        toolchain: Tools {
            rustc: "rustc 1.95.0\n".to_owned(),
            cargo: "cargo 1.95.0".to_owned(),
            layout: "legacy".to_owned(),
        },
        profile: profile(&[("debuginfo", "2"), ("strip", "{\"deferred\":\"None\"}")]),
        settings: BTreeMap::new(),
        dependencies: needs.iter().map(edge).collect(),
    }
}

fn host(name: &str, needs: &[&PackageRecipe]) -> Recipe {
    target(name, needs).without_debug_information()
}

fn instance(recipe: Recipe) -> PackageRecipe {
    PackageRecipe::new(vec![recipe]).unwrap()
}

fn file(generated: &Generated, name: &str) -> String {
    let mut files = generated.files.iter();
    let (_, bytes) = files.find(|(path, _)| path == Path::new(name)).unwrap();
    String::from_utf8(bytes.clone()).unwrap()
}

#[test]
fn a_closure_of_both_sides_becomes_one_package() {
    let old = instance(target("syn-1.0.0", &[]));
    let both = instance(target("log-0.4.1", &[]));
    let both_on_host = instance(host("log-0.4.1", &[]));
    let mut fast = target("syn-2.0.0+x", &[&both, &old]);
    fast.profile
        .insert("opt_level".to_owned(), "\"3\"".to_owned());
    let fast = instance(fast);
    let mut derive = host("derive-1.0.0", &[&both_on_host]);
    derive.target.kind = "proc-macro".to_owned();
    let derive = instance(derive);
    let mut git = target("kit-1.0.0", &[&fast, &derive]);
    git.source = "git+https://example.org/kit?branch=a%2Fb#06b1".to_owned();
    git.checksum = None;
    let git = instance(git);
    let generated = generate(&[git, derive, fast, both_on_host, both, old]).unwrap();
    insta::assert_snapshot!(format!(
        "{}\n=== Cargo.lock\n{}",
        file(&generated, "Cargo.toml"),
        file(&generated, "Cargo.lock")
    ));
    assert_eq!(file(&generated, "build.rs"), "fn main() {}\n");
    assert!(generated.arguments.is_empty());
}

#[test]
fn settings_and_platforms_are_set_up() {
    let mut cross = target("a-1.0.0", &[]);
    let settings = [
        ("cross", "true"),
        ("rustflags", "[\"-Ctarget-cpu=native\"]"),
        (
            "target",
            "{\"x86_64-unknown-linux-gnu\":{\"linker\":\"clang\"}}",
        ),
        ("unstable", "a b=c"),
        ("CARGO_TARGET_X_LINKER", "ld"),
    ];
    for (name, value) in settings {
        cross.settings.insert(name.to_owned(), value.to_owned());
    }
    cross.profile = profile(&[
        ("debuginfo", "0"),
        ("debug_assertions", "false"),
        ("opt_level", "\"s\""),
        ("lto", "\"thin\""),
        ("strip", "{\"resolved\":{\"Named\":\"symbols\"}}"),
    ]);
    let generated = generate(&[instance(cross.clone())]).unwrap();
    assert_eq!(
        generated.arguments,
        [
            "-Z",
            "a",
            "-Z",
            "b=c",
            "--release",
            "--target",
            "x86_64-unknown-linux-gnu"
        ]
    );
    assert_eq!(
        generated.environment,
        [("CARGO_TARGET_X_LINKER".to_owned(), "ld".to_owned())]
    );
    let config = file(&generated, ".cargo/config.toml");
    assert!(
        config.contains("rustflags = [\"-Ctarget-cpu=native\"]"),
        "{config}"
    );
    assert!(config.contains("linker = \"clang\""), "{config}");
    let manifest = file(&generated, "Cargo.toml");
    assert!(manifest.contains("lto = \"thin\"\n"), "{manifest}");
    assert!(manifest.contains("opt-level = \"s\"\n"), "{manifest}");
    assert!(manifest.contains("strip = \"symbols\"\n"), "{manifest}");

    cross
        .settings
        .insert("rustflags".to_owned(), "-C x -C y".to_owned());
    let generated = generate(&[instance(cross.clone())]).unwrap();
    assert!(
        generated
            .environment
            .contains(&("RUSTFLAGS".to_owned(), "-C x -C y".to_owned()))
    );
    cross
        .settings
        .insert("target".to_owned(), "\"@workspace@/x\"".to_owned());
    let error = generate(&[instance(cross)]).unwrap_err();
    assert!(matches!(error, GenerateError::Setting { .. }), "{error}");
}

#[test]
fn what_no_workspace_can_have_is_refused_by_name() {
    let leaf = instance(target("leaf-1.0.0", &[]));
    let top = instance(target("top-1.0.0", &[&leaf]));
    let open = generate(std::slice::from_ref(&top)).unwrap_err();
    let expected = GenerateError::Open {
        recipe: top.path().display().to_string(),
        needs: leaf.hash(),
    };
    assert_eq!(open, expected);

    let changed = |change: &dyn Fn(&mut Recipe)| {
        let mut other = target("other-1.0.0", &[]);
        change(&mut other);
        generate(&[leaf.clone(), instance(other)]).unwrap_err()
    };
    let differ = |error: GenerateError, expected: &str| {
        assert!(
            matches!(error, GenerateError::Differ { what, .. } if what == expected),
            "{error}"
        );
    };
    differ(changed(&|r| r.toolchain.layout.push('x')), "toolchain");
    differ(
        changed(&|r| drop(r.settings.insert("rustflags".to_owned(), "x".to_owned()))),
        "setting",
    );
    differ(changed(&|r| r.platform.push('x')), "platform");
    let source = changed(&|r| r.source = "path+../x".to_owned());
    assert!(matches!(source, GenerateError::Source { .. }), "{source}");
    let same = changed(&|r| {
        r.name = "leaf".to_owned();
        r.features.clear();
    });
    assert!(matches!(same, GenerateError::Twice { .. }), "{same}");
    let compatible = changed(&|r| {
        r.name = "leaf".to_owned();
        r.version = "1.2.0".to_owned();
    });
    assert!(
        matches!(compatible, GenerateError::Compatible { .. }),
        "{compatible}"
    );
    let backend = changed(&|r| {
        r.profile
            .insert("codegen_backend".to_owned(), "\"x\"".to_owned());
    });
    assert!(
        matches!(backend, GenerateError::Profile { .. }),
        "{backend}"
    );
}

#[test]
fn closures_that_go_together_share_a_workspace() {
    let leaf = instance(target("leaf-1.0.0", &[]));
    let top = instance(target("top-1.0.0", &[&leaf]));
    let other_leaf = instance(Recipe {
        features: Vec::new(),
        ..target("leaf-1.0.0", &[])
    });
    let other = instance(target("other-1.0.0", &[&leaf]));
    let closures = [
        vec![other_leaf.clone()],
        vec![leaf.clone(), top.clone()],
        vec![leaf.clone(), other.clone()],
    ];
    let expected = [vec![leaf, top.clone(), other], vec![other_leaf]];
    assert_eq!(batches(&closures).unwrap(), expected);
    let open = batches(&[vec![top]]).unwrap_err();
    assert!(matches!(open, GenerateError::Open { .. }), "{open}");
}

#[test]
fn compatible_versions_share_their_range() {
    assert_eq!(compatible_range("1.2.3"), compatible_range("1.0.0-rc.1"));
    assert_eq!(compatible_range("0.2.3"), compatible_range("0.2.0"));
    assert_ne!(compatible_range("0.2.3"), compatible_range("0.3.0"));
    assert_ne!(compatible_range("0.0.3"), compatible_range("0.0.4"));
}
