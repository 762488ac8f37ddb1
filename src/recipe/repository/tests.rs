use super::*;
use crate::recipe::{Dependency, FORMAT, Recipe, Target, Tools};
use proptest::prelude::*;

fn package(name: &str, needs: &[&PackageRecipe]) -> PackageRecipe {
    let edge = |need: &&PackageRecipe| Dependency {
        name: need.name().to_owned(),
        recipe: need.hash(),
        public: false,
        noprelude: false,
    };
    PackageRecipe::new(vec![recipe(name, needs.iter().map(edge).collect())]).unwrap()
}

fn recipe(name: &str, dependencies: Vec<Dependency>) -> Recipe {
    Recipe {
        format: FORMAT,
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        source: crate::cargo::source::CRATES_IO.to_owned(),
        checksum: Some("00".to_owned()),
        target: Target {
            kind: "lib".to_owned(),
            name: name.to_owned(),
            crate_types: vec!["lib".to_owned()],
            edition: "2021".to_owned(),
        },
        features: Vec::new(),
        platform: "x86_64-unknown-linux-gnu".to_owned(),
        test: false,
        toolchain: Tools {
            rustc: "rustc 1.95.0\n".to_owned(),
            cargo: "cargo 1.95.0".to_owned(),
            layout: "legacy".to_owned(),
        },
        profile: BTreeMap::new(),
        settings: BTreeMap::new(),
        dependencies,
    }
}

fn folder(recipes: &[&PackageRecipe]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for recipe in recipes {
        assert!(Repository::write(folder.path(), recipe).unwrap());
        assert!(!Repository::write(folder.path(), recipe).unwrap());
    }
    folder
}

fn problems(folder: &tempfile::TempDir) -> Vec<String> {
    let repository = Repository::read(folder.path()).unwrap();
    repository.check().iter().map(Problem::to_string).collect()
}

fn edit(folder: &tempfile::TempDir, recipe: &PackageRecipe, from: &str, to: &str) {
    let path = folder.path().join(recipe.path());
    let text = fs::read_text(&path).unwrap();
    assert!(text.contains(from));
    fs::write(&path, text.replace(from, to).as_bytes()).unwrap();
}

#[test]
fn a_sound_repository_has_no_problems_and_its_closures_are_whole() {
    let leaf = package("leaf", &[]);
    let middle = package("middle", &[&leaf]);
    let top = package("top", &[&leaf, &middle]);
    let folder = folder(&[&top, &leaf, &middle]);
    fs::write(&folder.path().join("README.md"), b"# recipes\n").unwrap();
    assert_eq!(problems(&folder), Vec::<String>::new());
    let repository = Repository::read(folder.path()).unwrap();
    let closure = repository.closure(&[top.hash()]).unwrap();
    assert_eq!(closure, [&leaf, &middle, &top]);
}

#[test]
fn a_folder_that_is_not_there_is_empty() {
    let repository = Repository::read(Path::new("/nowhere/recipes")).unwrap();
    assert!(repository.entries().is_empty());
}

#[test]
fn what_was_edited_by_hand_is_found() {
    let leaf = package("leaf", &[]);
    let top = package("top", &[&leaf]);
    let dir = folder(&[&leaf, &top]);
    edit(&dir, &leaf, "features = []", "features=[]");
    let name = leaf.path().display().to_string();
    assert_eq!(
        problems(&dir),
        [format!(
            "{name}: is not in canonical form; `quickbuild recipe add` writes it so"
        )]
    );

    let dir = folder(&[&leaf, &top]);
    edit(&dir, &leaf, "features = []", "features = [\"x\"]");
    let found = problems(&dir);
    assert!(found[0].starts_with(&format!("{name}: belongs at `le/leaf/1.0.0-")));
    assert!(found[1].contains("which no file describes"), "{found:?}");

    let dir = folder(&[&leaf, &top]);
    edit(&dir, &leaf, "format = 1", "format = 1\nnovelty = 2");
    assert!(problems(&dir)[0].contains("cannot be read: not a recipe file"));
}

#[test]
fn a_recipe_that_needs_itself_is_found() {
    let leaf = package("leaf", &[]);
    let top = package("top", &[&leaf]);
    let dir = folder(&[&leaf, &top]);
    edit(
        &dir,
        &leaf,
        "platform = \"x86_64-unknown-linux-gnu\"\n",
        &format!(
            "platform = \"x86_64-unknown-linux-gnu\"\ndependencies = [\n    {{ name = \"top\", recipe = \"{}\" }},\n]\n",
            top.hash()
        ),
    );
    let found = problems(&dir);
    assert!(
        found.iter().any(|p| p.contains("needs itself, by way of")),
        "{found:?}"
    );
}

#[test]
fn what_misses_is_named_with_the_file_that_needs_it() {
    let leaf = package("leaf", &[]);
    let top = package("top", &[&leaf]);
    let folder = folder(&[&top]);
    let expected = format!(
        "{}: needs `leaf` {}, which no file describes",
        top.path().display(),
        leaf.hash()
    );
    assert_eq!(problems(&folder), [expected]);
    let repository = Repository::read(folder.path()).unwrap();
    let error = repository.closure(&[top.hash()]).unwrap_err();
    assert_eq!(
        error,
        ClosureError::Missing {
            recipe: leaf.hash(),
            by: Some(top.path())
        }
    );
}

#[test]
fn a_second_file_of_a_recipe_and_strangers_are_found() {
    let leaf = package("leaf", &[]);
    let folder = folder(&[&leaf]);
    let copy = folder.path().join("le/leaf/copy.toml");
    fs::write(&copy, leaf.to_toml().as_bytes()).unwrap();
    fs::write(&folder.path().join("le/notes.txt"), b"\xff").unwrap();
    fs::symlink(&copy, &folder.path().join("le/z.toml")).unwrap();
    let found = problems(&folder);
    assert!(found[3].ends_with("it is a symbolic link"), "{found:?}");
    assert!(
        found[0].contains("le/leaf/copy.toml: belongs at"),
        "{found:?}"
    );
    assert!(found[1].contains("is the same recipe as"), "{found:?}");
    assert!(
        found[2].contains("le/notes.txt: cannot be read"),
        "{found:?}"
    );
}

#[test]
fn recipes_are_found_by_name_version_and_hash() {
    let leaf = package("leaf", &[]);
    let top = package("top", &[&leaf]);
    let other = package("top", &[]);
    let folder = folder(&[&leaf, &top, &other]);
    let repository = Repository::read(folder.path()).unwrap();
    let hash = |text: &str| repository.find(text).map(|entry| entry.recipe.hash());
    assert_eq!(hash("leaf"), Ok(leaf.hash()));
    assert_eq!(hash("leaf@1.0.0"), Ok(leaf.hash()));
    assert_eq!(hash(&top.hash().to_string()[..12]), Ok(top.hash()));
    assert_eq!(hash("leaf@2"), Err(FindError::None("leaf@2".to_owned())));
    assert!(matches!(hash("top"), Err(FindError::Several { .. })));
    assert!(matches!(hash(""), Err(FindError::None(_))));
}

/// Edges from later packages to earlier ones, as bits.
fn any_packages() -> impl Strategy<Value = Vec<PackageRecipe>> {
    proptest::collection::vec(any::<u16>(), 1..9).prop_map(|rows| {
        let mut made: Vec<PackageRecipe> = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            let below = made.iter().enumerate();
            let needs: Vec<&PackageRecipe> = below
                .filter(|(at, _)| row >> at & 1 == 1)
                .map(|(_, need)| need)
                .collect();
            made.push(package(&format!("p{number}"), &needs));
        }
        made
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_closure_is_what_a_naive_search_finds(packages in any_packages()) {
        let folder = folder(&packages.iter().collect::<Vec<_>>());
        let repository = Repository::read(folder.path()).unwrap();
        let root = packages.last().unwrap();
        let found = repository.closure(&[root.hash()]).unwrap();
        let mut naive = BTreeSet::from([root.hash()]);
        for package in packages.iter().rev() {
            if naive.contains(&package.hash()) {
                naive.extend(package.needs());
            }
        }
        let hashes: Vec<RecipeHash> = found.iter().map(|recipe| recipe.hash()).collect();
        prop_assert_eq!(&hashes.iter().copied().collect::<BTreeSet<_>>(), &naive);
        prop_assert_eq!(hashes.len(), naive.len());
        for (at, recipe) in found.iter().enumerate() {
            prop_assert!(recipe.needs().iter().all(|need| hashes[..at].contains(need)));
        }
    }
}
