use super::*;
use proptest::prelude::*;

fn unit(kind: &str, dependencies: Vec<Dependency>) -> Recipe {
    Recipe {
        format: FORMAT,
        name: "serde".to_owned(),
        version: "1.0.228".to_owned(),
        source: "registry+https://github.com/rust-lang/crates.io-index".to_owned(),
        checksum: Some("00".to_owned()),
        target: Target {
            kind: kind.to_owned(),
            name: "serde".to_owned(),
            crate_types: vec!["lib".to_owned()],
            edition: "2021".to_owned(),
        },
        features: vec!["std".to_owned()],
        platform: "x86_64-unknown-linux-gnu".to_owned(),
        test: false,
        toolchain: Tools {
            rustc: "rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\n".to_owned(),
            cargo: "cargo 1.95.0".to_owned(),
            layout: "legacy".to_owned(),
        },
        profile: [("opt_level", "\"0\""), ("debuginfo", "2")]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .into(),
        settings: BTreeMap::new(),
        dependencies,
    }
}

fn edge(name: &str, recipe: &Recipe) -> Dependency {
    Dependency {
        name: name.to_owned(),
        recipe: recipe.hash(),
        public: false,
        noprelude: false,
    }
}

/// A library with its build script, as `[script, run, library]`.
fn with_script() -> [Recipe; 3] {
    let script = unit("build-script", Vec::new());
    let run = unit("build-run", vec![edge("build_script_build", &script)]);
    let mut library = unit("lib", vec![edge("build_script_build", &run)]);
    library
        .settings
        .insert("cross".to_owned(), "true".to_owned());
    [script, run, library]
}

/// A pinned text: whoever changes it changes every recipe repository.
#[test]
fn the_text_is_pinned() {
    let [script, run, library] = with_script();
    let recipe = PackageRecipe::new(vec![run, script, library]).unwrap();
    insta::assert_snapshot!(recipe.to_toml());
}

#[test]
fn units_are_put_in_order_and_the_path_says_what_it_is() {
    let [script, run, library] = with_script();
    let hash = library.hash();
    let recipe = PackageRecipe::new(vec![run.clone(), script.clone(), library.clone()]).unwrap();
    assert_eq!(recipe.units(), [script, run, library]);
    let expected = format!("se/serde/1.0.228-{hash}.toml");
    assert_eq!(recipe.path(), PathBuf::from(expected));
    assert!(recipe.needs().is_empty());
    assert!(!recipe.is_host_form());
}

#[test]
fn short_names_have_short_folders() {
    let mut library = unit("lib", Vec::new());
    library.name = "h".to_owned();
    let recipe = PackageRecipe::new(vec![library]).unwrap();
    assert!(recipe.path().starts_with("h/h"));
}

#[test]
fn what_is_no_package_instance_is_refused() {
    let error = |units: Vec<Recipe>| PackageRecipe::new(units).unwrap_err().to_string();
    assert_eq!(error(Vec::new()), "the recipe has no unit");
    let [script, run, library] = with_script();
    assert_eq!(
        error(vec![library.clone(), run.clone()]),
        "the last unit is a `build-run`, not a library or proc macro"
    );
    let unneeded = error(vec![script.clone(), unit("lib", Vec::new())]);
    assert!(unneeded.starts_with("the main unit does not need the `build-script`"));
    let mut other = script;
    other.version = "2.0.0".to_owned();
    assert_eq!(
        error(vec![other, run, library]),
        "the units are not of one package and toolchain"
    );
    for name in ["../x", "", "a/b", "ä"] {
        let mut library = unit("lib", Vec::new());
        library.name = name.to_owned();
        assert_eq!(
            error(vec![library]),
            format!("`{name}` is not a package name")
        );
    }
    let mut library = unit("lib", Vec::new());
    library.version = "../1".to_owned();
    assert_eq!(error(vec![library]), "`../1` is not a version");
}

#[test]
fn unknown_fields_and_other_formats_are_refused() {
    let text = PackageRecipe::new(vec![unit("lib", Vec::new())])
        .unwrap()
        .to_toml();
    let error = |text: &str| PackageRecipe::from_toml(text).unwrap_err();
    let newer = text.replace("format = 1", "format = 2\nnovelty = true");
    assert!(matches!(error(&newer), PackageError::Format { found: 2 }));
    for (from, to) in [
        ("name = ", "novelty = 1\nname = "),
        ("kind = ", "novelty = 1\nkind = "),
        ("cargo = ", "novelty = 1\ncargo = "),
    ] {
        let changed = text.replacen(from, to, 1);
        assert!(
            matches!(error(&changed), PackageError::Syntax(_)),
            "{changed}"
        );
    }
    assert!(matches!(error("format = "), PackageError::Syntax(_)));
    assert!(matches!(error(""), PackageError::Syntax(_)));
}

fn any_recipe() -> impl Strategy<Value = Recipe> {
    let words = || proptest::collection::vec("[a-z\"'\\\\\n\t ]{0,6}", 0..3);
    let table = || proptest::collection::btree_map("[a-z_ ]{0,4}", "\\PC{0,6}", 0..3);
    let edges = proptest::collection::vec(("[a-z]{1,4}", any::<[bool; 2]>(), "[a-z]"), 0..3);
    (words(), table(), table(), edges, any::<bool>(), "\\PC{0,9}").prop_map(
        |(features, profile, settings, edges, test, source)| {
            let dependency = |(name, [public, noprelude], seed): (String, [bool; 2], String)| {
                let mut of = unit("lib", Vec::new());
                of.name = seed;
                Dependency {
                    public,
                    noprelude,
                    ..edge(&name, &of)
                }
            };
            Recipe {
                features,
                profile,
                settings,
                test,
                source,
                ..unit("lib", edges.into_iter().map(dependency).collect())
            }
        },
    )
}

proptest! {
    #[test]
    fn parse_is_the_inverse_of_print(main in any_recipe(), settings in proptest::collection::btree_map("[a-z]", "[a-z]", 0..3), scripted: bool) {
        let mut script = unit("build-script", Vec::new());
        script.source = main.source.clone();
        script.settings = settings;
        let mut units = Vec::new();
        let mut main = main;
        if scripted {
            main.dependencies.push(edge("build_script_build", &script));
            units.push(script);
        }
        units.push(main);
        let recipe = PackageRecipe::new(units).unwrap();
        let text = recipe.to_toml();
        let read = PackageRecipe::from_toml(&text).unwrap();
        prop_assert_eq!(&read, &recipe);
        prop_assert_eq!(read.to_toml(), text);
    }

    #[test]
    fn junk_never_panics(text in "\\PC{0,64}") {
        let _ = PackageRecipe::from_toml(&text);
    }
}
