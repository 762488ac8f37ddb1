//! Lock files, and the recipes that their packages could have.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use quickbuild::cargo::source::CRATES_IO;
use quickbuild::digest::RecipeHash;
use quickbuild::recipe::package::PackageRecipe;
use quickbuild::recipe::{Dependency, FORMAT, Recipe, Target, Tools};
use quickbuild::report::public_lock;
use quickbuild::service::intake::Intake;

use crate::support::Numbers;
use crate::{BUILDER, SECONDS};

/// A tree of some lock file, as a recipe.
pub(crate) struct Package {
    pub(crate) recipe: RecipeHash,
    /// The recipe's file as a string of JSON.
    text: String,
    /// What it needs, each before it.
    needs: Vec<usize>,
}

/// A lock file.
pub(crate) struct Project {
    /// What it has, each after what it needs.
    pub(crate) packages: Vec<usize>,
    /// As a string of JSON.
    lock: String,
    /// How popular it is, with all before it.
    weight: f64,
}

/// All of them.
pub(crate) struct Corpus {
    pub(crate) packages: Vec<Package>,
    pub(crate) by_recipe: HashMap<RecipeHash, usize>,
    projects: Vec<Project>,
    unread: usize,
}

impl Corpus {
    /// Reads a folder of folders with a `Cargo.lock`; `None` where there is none.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let mut this = Self {
            packages: Vec::new(),
            by_recipe: HashMap::new(),
            projects: Vec::new(),
            unread: 0,
        };
        let folders = std::fs::read_dir(folder).ok()?;
        let folders = folders.map(|entry| entry.expect("a folder is listed").path());
        let mut files: Vec<_> = folders.map(|folder| folder.join("Cargo.lock")).collect();
        files.retain(|file| file.is_file());
        // Who is popular must not depend on the alphabet.
        files.sort_by_key(|file| Numbers(key(&file.to_string_lossy())).below(u64::MAX));
        let mut by_tree = HashMap::new();
        for file in files {
            let text = std::fs::read(&file).expect("a lock file is read");
            this.add(&text, &mut by_tree);
        }
        (!this.projects.is_empty()).then_some(this)
    }

    fn add(&mut self, text: &[u8], by_tree: &mut HashMap<String, usize>) {
        let (Ok(intake), Ok(Some(lock))) = (Intake::of_lock(text, None), public_lock(text)) else {
            self.unread += 1;
            return;
        };
        let mut own: Vec<usize> = Vec::new();
        for want in &intake.wants {
            let needs: Vec<usize> = want.needs.iter().map(|need| own[*need]).collect();
            let known = by_tree.get(&want.hash).copied();
            let package = known.unwrap_or_else(|| {
                let number = self.packages.len();
                let package = self.package(&want.name, &want.version, needs);
                self.by_recipe.insert(package.recipe, number);
                self.packages.push(package);
                by_tree.insert(want.hash.clone(), number);
                number
            });
            own.push(package);
        }
        let rank = self.projects.len() + 1;
        let before = self.projects.last().map_or(0.0, |last| last.weight);
        self.projects.push(Project {
            packages: own,
            lock: quoted(&lock),
            weight: before + 1.0 / rank as f64,
        });
    }

    /// A library with default features, compiled for development.
    fn package(&self, name: &str, version: &str, needs: Vec<usize>) -> Package {
        let dependencies = needs.iter().map(|need| Dependency {
            name: format!("p{need}"),
            recipe: self.packages[*need].recipe,
            public: false,
            noprelude: false,
        });
        let (release, host) = BUILDER.split_once('-').expect("a builder");
        let profile = [("opt_level", "\"0\""), ("debug_assertions", "true")];
        let profile = profile.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let recipe = Recipe {
            format: FORMAT,
            name: name.to_owned(),
            version: version.to_owned(),
            source: CRATES_IO.to_owned(),
            checksum: None,
            target: Target {
                kind: "lib".to_owned(),
                name: name.replace('-', "_"),
                crate_types: vec!["lib".to_owned()],
                edition: "2021".to_owned(),
            },
            features: vec!["default".to_owned()],
            platform: host.to_owned(),
            test: false,
            toolchain: Tools {
                rustc: format!("rustc {release}\nhost: {host}\nrelease: {release}\n"),
                cargo: format!("cargo {release}"),
                layout: "legacy".to_owned(),
            },
            profile: BTreeMap::from(profile),
            settings: BTreeMap::new(),
            dependencies: dependencies.collect(),
        };
        let recipe = PackageRecipe::new(vec![recipe]).expect("a recipe");
        Package {
            recipe: recipe.hash(),
            text: quoted(&recipe.to_toml()),
            needs,
        }
    }

    /// The project of a client, by Zipf's law.
    pub(crate) fn draw(&self, numbers: &mut Numbers) -> &Project {
        let all = self.projects.last().map_or(0.0, |last| last.weight);
        let drawn = numbers.below(1 << 32) as f64 / (1_u64 << 32) as f64 * all;
        let position = self
            .projects
            .partition_point(|project| project.weight <= drawn);
        &self.projects[position.min(self.projects.len() - 1)]
    }

    /// What a client says that lacked something.
    pub(crate) fn report(
        &self,
        project: &Project,
        lacked: &[usize],
        client: usize,
        hits: usize,
    ) -> String {
        let mut said: Vec<usize> = lacked.to_vec();
        let mut position = 0;
        let mut seen: std::collections::HashSet<usize> = said.iter().copied().collect();
        while let Some(package) = said.get(position) {
            let needs = self.packages[*package].needs.iter();
            said.extend(
                needs
                    .filter(|need| seen.insert(**need))
                    .copied()
                    .collect::<Vec<_>>(),
            );
            position += 1;
        }
        // What a package needs was numbered before it.
        said.sort_unstable();
        let texts: Vec<&str> = said
            .iter()
            .map(|package| self.packages[*package].text.as_str())
            .collect();
        let mut text = format!(
            "{{\"format\":1,\"builder\":\"{BUILDER}\",\"lock\":{},",
            project.lock
        );
        let _ = write!(text, "\"recipes\":[{}],", texts.join(","));
        let _ = write!(
            text,
            "\"usage\":{{\"id\":\"client-{client}\",\"hits\":{hits},\"misses\":{},\
             \"seconds-saved\":{:.1},\"seconds-compiled\":{:.1}}}}}",
            lacked.len(),
            hits as f64 * SECONDS,
            lacked.len() as f64 * SECONDS
        );
        text
    }

    pub(crate) fn told(&self) -> String {
        let sizes = self.projects.iter().map(|project| project.packages.len());
        format!(
            "{} lock files ({} could not be read), {} packages in them, {} different ones\n",
            self.projects.len(),
            self.unread,
            sizes.sum::<usize>(),
            self.packages.len()
        )
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text")
}

fn key(text: &str) -> u64 {
    let bytes = text.bytes();
    bytes.fold(0, |key, byte| {
        key.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte)
    })
}
