//! What of a project is prebuilt here, and what alignment would give.
//!
//! A lock file has versions and no features, so what is compared are versions: a
//! package is prebuilt for its *tree* where a recipe of it is published whose
//! packages below all have the versions that the lock file has. What that recipe
//! does not need, such as packages for other platforms, does not matter.
//!
//! Nobody is asked: there is no index here, so alignment only goes to newer
//! compatible versions that are published here, as Cargo's requirements nearly
//! always allow. It is a reason to run `quickbuild align`, and no more.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use semver::Version;
use sqlx::Row as _;

use super::database::{Database, Doing as _, Result, Rows};
use super::ids;
use super::intake::{Kind, Want};
use crate::align::{self, Knowledge, Node, Objection, Offer, Offers, Project, glance};
use crate::cargo::releases::Release;
use crate::cargo::relock::line;

/// What is being done, for errors.
const DOING: &str = "tell what is prebuilt";
/// Published recipes that are looked at for one project.
const RECIPES: usize = 20_000;
/// Trees that are moved to, as for the line that `quickbuild plan` says.
const ROUNDS: usize = 3;
/// More packages take longer than a page is worth.
const MOST: usize = 2_000;
/// And more different trees of them that are published.
const OFFERS: usize = 4_000;

/// A package of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// Positions of what it needs, each before it.
    pub(super) needs: Vec<usize>,
}

impl From<&Want> for Package {
    fn from(want: &Want) -> Self {
        Self {
            name: want.name.clone(),
            version: want.version.clone(),
            needs: want.needs.clone(),
        }
    }
}

/// How much of a package is prebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    /// Nothing of its version.
    No,
    /// Its version, with other versions below it.
    Version,
    /// Its tree.
    Tree,
}

/// A recipe that is published.
#[derive(Debug, Clone, PartialEq)]
struct Recipe {
    name: String,
    version: String,
    /// Ids of the recipes that it needs.
    needs: Vec<i64>,
    seconds: f64,
    builders: BTreeSet<String>,
}

/// What is published of some packages.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    recipes: BTreeMap<i64, Recipe>,
    by_version: HashMap<(String, String), Vec<i64>>,
    /// Whether there is more than was looked at.
    pub(super) is_cut: bool,
}

/// What is prebuilt of a package.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) found: Match,
    /// Builders of the recipes that fit.
    pub(super) builders: BTreeSet<String>,
    /// Seconds that it takes, as far as any version of it was ever published.
    pub(super) seconds: Option<f64>,
}

/// What alignment would give, at least.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gain {
    /// Seconds that are prebuilt afterwards, and are not now.
    pub(super) seconds: f64,
    /// Package, version, new version, and its part of the seconds.
    pub(super) moves: Vec<(String, String, String, f64)>,
}

/// Finds what is published of packages with these names.
pub(super) async fn shelf(database: &Database, packages: &[Package]) -> Result<Shelf> {
    // A host unit's recipe is the one without debug information.
    const FIND: &str = "SELECT wants.id, wants.name, wants.version, wants.needs, \
        builds.builder, outputs.milliseconds FROM {each} \
        JOIN outputs ON outputs.name = (each.value ->> 0) \
        JOIN wants ON wants.hash = outputs.recipe OR wants.hash = outputs.host_recipe \
        JOIN builds ON builds.id = outputs.build LIMIT $2";
    let names: BTreeSet<&String> = packages.iter().map(|package| &package.name).collect();
    let names: Rows = names.into_iter().map(|name| [name]).collect();
    let query = sqlx::query(database.sql(FIND)).bind(names.finish());
    let query = query.bind(RECIPES as i64 + 1);
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let mut shelf = Shelf {
        is_cut: rows.len() > RECIPES,
        ..Shelf::default()
    };
    for row in rows {
        let text = |column: usize| row.try_get::<String, _>(column).doing(DOING);
        let (name, version) = (text(1)?, text(2)?);
        let id: i64 = row.try_get(0).doing(DOING)?;
        let seconds = row.try_get::<i64, _>(5).doing(DOING)? as f64 / 1e3;
        let needs = ids::read(&text(3)?).unwrap_or_default();
        shelf.add(id, (name, version, needs), text(4)?, seconds);
    }
    Ok(shelf)
}

/// The packages that a set of wants has in trees, each after what it needs.
pub(super) async fn packages(database: &Database, wants: &[i64]) -> Result<Vec<Package>> {
    const FIND: &str = "SELECT wants.id, wants.name, wants.version, wants.needs FROM {each} \
        JOIN wants ON wants.id = CAST(each.value ->> 0 AS BIGINT) \
        WHERE wants.kind = $2 ORDER BY wants.id";
    let asked: Rows = wants.iter().map(|id| [id]).collect();
    let query = sqlx::query(database.sql(FIND)).bind(asked.finish());
    let query = query.bind(Kind::Tree.name());
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let mut places: HashMap<i64, usize> = HashMap::new();
    let mut packages = Vec::with_capacity(rows.len());
    for row in rows {
        let text = |column: usize| row.try_get::<String, _>(column).doing(DOING);
        let needs = ids::read(&text(3)?).unwrap_or_default();
        let needs = needs.iter().filter_map(|need| places.get(need).copied());
        let package = Package {
            name: text(1)?,
            version: text(2)?,
            needs: needs.collect(),
        };
        places.insert(row.try_get(0).doing(DOING)?, packages.len());
        packages.push(package);
    }
    Ok(packages)
}

impl Shelf {
    fn add(
        &mut self,
        id: i64,
        (name, version, needs): (String, String, Vec<i64>),
        builder: String,
        seconds: f64,
    ) {
        let Self {
            recipes,
            by_version,
            ..
        } = self;
        let recipe = recipes.entry(id).or_insert_with(|| {
            let key = (name.clone(), version.clone());
            by_version.entry(key).or_default().push(id);
            Recipe {
                name,
                version,
                needs,
                seconds: 0.0,
                builders: BTreeSet::new(),
            }
        });
        // A check is cheaper than the build that serves it.
        recipe.seconds = recipe.seconds.max(seconds);
        recipe.builders.insert(builder);
    }

    fn of(&self, package: &Package) -> &[i64] {
        let key = (package.name.clone(), package.version.clone());
        self.by_version.get(&key).map_or(&[], Vec::as_slice)
    }

    /// For each package, the recipes that fit its tree.
    fn fitting(&self, packages: &[Package]) -> Vec<Vec<i64>> {
        let mut found: Vec<Vec<i64>> = Vec::with_capacity(packages.len());
        for package in packages {
            let below = package.needs.iter().flat_map(|need| &found[*need]);
            let below: HashSet<i64> = below.copied().collect();
            let fits = |id: &&i64| {
                let needs = self.recipes.get(*id).map(|recipe| &recipe.needs);
                needs.is_some_and(|needs| needs.iter().all(|need| below.contains(need)))
            };
            let fitting = self.of(package).iter().filter(fits);
            found.push(fitting.copied().collect());
        }
        found
    }

    /// Seconds of versions, and of packages whatever the version.
    fn seconds(&self) -> HashMap<(&str, Option<&str>), f64> {
        let mut seconds: HashMap<(&str, Option<&str>), f64> = HashMap::new();
        for recipe in self.recipes.values() {
            for version in [Some(&*recipe.version), None] {
                let known = seconds.entry((&recipe.name, version)).or_default();
                *known = known.max(recipe.seconds);
            }
        }
        seconds
    }

    /// What is prebuilt of each package.
    pub(super) fn rows(&self, packages: &[Package]) -> Vec<Row> {
        let seconds = self.seconds();
        let fitting = self.fitting(packages);
        let rows = packages.iter().zip(fitting).map(|(package, fitting)| {
            let versions = self.of(package);
            let (found, recipes) = match (fitting.is_empty(), versions) {
                (false, _) => (Match::Tree, &*fitting),
                (true, []) => (Match::No, &[][..]),
                (true, versions) => (Match::Version, versions),
            };
            let builders = recipes.iter().filter_map(|id| self.recipes.get(id));
            let name = &*package.name;
            let seconds = seconds
                .get(&(name, Some(&*package.version)))
                .or_else(|| seconds.get(&(name, None)));
            Row {
                found,
                builders: builders
                    .flat_map(|recipe| recipe.builders.clone())
                    .collect(),
                seconds: seconds.copied(),
            }
        });
        rows.collect()
    }

    /// What alignment would give; none where there is too much to look at.
    pub(super) fn gain(&self, packages: &[Package]) -> Option<Gain> {
        if packages.len() > MOST || self.is_cut {
            return None;
        }
        let (offers, places) = self.offers(packages);
        if offers.list.len() > OFFERS {
            return None;
        }
        let project = self.project(packages, &places)?;
        let here = packages.iter();
        let here = here.map(|package| (package.name.clone(), package.version.clone()));
        let knowledge = Here {
            shelf: self,
            now: here.collect(),
        };
        let seen = glance(&project, &offers, &knowledge, ROUNDS);
        let moves = seen.steps.iter().map(|step| {
            let package = &project.packages[step.package];
            let (from, to) = (package.version.to_string(), step.to.to_string());
            (package.name.clone(), from, to, step.seconds)
        });
        Some(Gain {
            seconds: seen.after - seen.before,
            moves: moves.collect(),
        })
    }

    /// What the project has or could move to, published whole; and which offer is of
    /// which recipe. What only differs in profile or toolchain is one offer.
    fn offers(&self, packages: &[Package]) -> (Offers, HashMap<i64, usize>) {
        let mut now: HashMap<&str, Vec<Version>> = HashMap::new();
        for package in packages {
            if let Ok(version) = Version::parse(&package.version) {
                now.entry(&package.name).or_default().push(version);
            }
        }
        let is_near = |name: &str, version: &Version| {
            let mut now = now.get(name).into_iter().flatten();
            now.any(|now| line(now) == line(version) && now <= version)
        };
        let mut places: HashMap<i64, usize> = HashMap::new();
        let mut known: HashMap<(&str, &str, Vec<usize>), usize> = HashMap::new();
        let mut list = Vec::new();
        // What a want needs was there before it.
        for (id, recipe) in &self.recipes {
            let needs = recipe.needs.iter().map(|need| places.get(need).copied());
            let needs: Option<BTreeSet<usize>> = needs.collect();
            let (Some(needs), Ok(version)) = (needs, Version::parse(&recipe.version)) else {
                continue;
            };
            if !is_near(&recipe.name, &version) {
                continue;
            }
            let needs: Vec<usize> = needs.into_iter().collect();
            let key = (&*recipe.name, &*recipe.version, needs.clone());
            let place = *known.entry(key).or_insert(list.len());
            places.insert(*id, place);
            if place == list.len() {
                list.push(Offer {
                    name: recipe.name.clone(),
                    version,
                    features: None,
                    needs,
                });
            }
        }
        (Offers::new(list), places)
    }

    /// The project as the search for alignments sees it. A lock file has what all
    /// platforms and features need; of that, a package needs here what it needs in
    /// the published recipe that needs most of it.
    fn project(&self, packages: &[Package], places: &HashMap<i64, usize>) -> Option<Project> {
        let mut by_name: HashMap<&str, Vec<&Recipe>> = HashMap::new();
        for recipe in self.recipes.values() {
            by_name.entry(&recipe.name).or_default().push(recipe);
        }
        let seconds = self.seconds();
        let fitting = self.fitting(packages);
        let mut project = Project::default();
        for (package, fitting) in packages.iter().zip(&fitting) {
            let named = |need: &i64| self.recipes.get(need).map(|recipe| &*recipe.name);
            let names = |recipe: &Recipe| -> Option<BTreeSet<&str>> {
                recipe.needs.iter().map(named).collect()
            };
            let own = package.needs.iter().map(|need| &*packages[*need].name);
            let own: BTreeSet<&str> = own.collect();
            let most = fitting
                .iter()
                .max_by_key(|id| self.recipes[*id].needs.len());
            let selection = match most {
                Some(id) => names(&self.recipes[id]),
                None => {
                    let all = by_name.get(&*package.name).into_iter().flatten();
                    let all = all.filter_map(|recipe| names(recipe));
                    all.filter(|names| names.is_subset(&own))
                        .max_by_key(BTreeSet::len)
                }
            };
            let is_needed = |need: &&usize| {
                let name = &*packages[**need].name;
                let mut needed = selection.iter();
                needed.all(|names| names.contains(name))
            };
            let needs: Vec<usize> = package.needs.iter().filter(is_needed).copied().collect();
            let name = &*package.name;
            let known = seconds
                .get(&(name, Some(&*package.version)))
                .or_else(|| seconds.get(&(name, None)));
            project.nodes.push(Node {
                package: project.packages.len(),
                features: None,
                needs: needs.clone(),
                seconds: known.copied().unwrap_or(0.0),
                offer: most.and_then(|id| places.get(id).copied()),
            });
            project.packages.push(align::Package {
                name: package.name.clone(),
                version: Version::parse(&package.version).ok()?,
                is_movable: true,
                needs: package.needs.clone(),
                requirements: None,
            });
        }
        Some(project)
    }
}

/// What is known of versions here: that they are published. What a lock file has
/// now is left open, so that it only takes newer compatible versions.
struct Here<'a> {
    shelf: &'a Shelf,
    now: HashSet<(String, String)>,
}

impl Knowledge for Here<'_> {
    fn release(&self, name: &str, version: &Version) -> Option<Arc<Release>> {
        let key = (name.to_owned(), version.to_string());
        let is_known = !self.now.contains(&key) && self.shelf.by_version.contains_key(&key);
        is_known.then(|| Arc::new(Release::default()))
    }

    fn objection(&self, _: &str, _: &Version, _: &Release) -> Option<Objection> {
        None
    }

    fn may_go_back(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, needs: &[usize]) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            needs: needs.to_vec(),
        }
    }

    /// Recipes: id, name, version, needs; each takes two seconds.
    fn shelf(recipes: &[(i64, &str, &str, &[i64])]) -> Shelf {
        let mut shelf = Shelf::default();
        for (id, name, version, needs) in recipes {
            let of = ((*name).to_owned(), (*version).to_owned(), needs.to_vec());
            shelf.add(*id, of, "1.95.0-x".to_owned(), 2.0);
        }
        shelf
    }

    fn found(shelf: &Shelf, packages: &[Package]) -> Vec<Match> {
        shelf.rows(packages).iter().map(|row| row.found).collect()
    }

    #[test]
    fn a_tree_is_prebuilt_where_all_below_has_the_same_versions() {
        let shelf = shelf(&[
            (1, "leaf", "1.0.0", &[]),
            (2, "leaf", "1.1.0", &[]),
            (3, "mid", "2.0.0", &[1]),
            (4, "top", "3.0.0", &[3]),
            (5, "top", "3.0.0", &[]), // with other features
        ]);
        // The lock file also has what only another platform needs.
        let same = [
            package("leaf", "1.0.0", &[]),
            package("other", "1.0.0", &[]),
            package("mid", "2.0.0", &[0, 1]),
            package("top", "3.0.0", &[2]),
        ];
        let expected = [Match::Tree, Match::No, Match::Tree, Match::Tree];
        assert_eq!(found(&shelf, &same), expected);
        let newer = [
            package("leaf", "1.1.0", &[]),
            package("mid", "2.0.0", &[0]),
            package("mid", "2.1.0", &[0]),
        ];
        let expected = [Match::Tree, Match::Version, Match::No];
        assert_eq!(found(&shelf, &newer), expected);
        // Of another version, the seconds are known nevertheless.
        let seconds: Vec<_> = shelf.rows(&newer).iter().map(|row| row.seconds).collect();
        assert_eq!(seconds, [Some(2.0); 3]);
        assert_eq!(shelf.rows(&same)[1].seconds, None);
    }

    #[test]
    fn a_project_moves_to_newer_compatible_versions_that_are_published() {
        let shelf = shelf(&[
            (1, "leaf", "1.1.0", &[]),
            (2, "mid", "2.0.0", &[1]),
            (3, "top", "3.0.0", &[2]),
            (4, "far", "2.0.0", &[]),
            (5, "old", "1.0.0", &[]),
        ]);
        let project = [
            package("leaf", "1.0.0", &[]),
            package("windows-only", "0.1.0", &[]),
            package("mid", "2.0.0", &[0, 1]),
            package("top", "3.0.0", &[2]),
            package("far", "1.0.0", &[]),
            package("old", "1.2.0", &[]),
        ];
        let gain = shelf.gain(&project).unwrap();
        let moves: Vec<(&str, &str, &str)> = gain
            .moves
            .iter()
            .map(|(name, from, to, _)| (&**name, &**from, &**to))
            .collect();
        // Neither what Cargo would not take, nor what is older.
        assert_eq!(moves, [("leaf", "1.0.0", "1.1.0")]);
        assert!((gain.seconds - 6.0).abs() < 1e-9, "{gain:?}");
        let moved = [
            package("leaf", "1.1.0", &[]),
            package("mid", "2.0.0", &[0]),
            package("top", "3.0.0", &[1]),
        ];
        let gain = shelf.gain(&moved).unwrap();
        assert_eq!((gain.seconds, gain.moves.len()), (0.0, 0));
    }

    #[test]
    fn what_is_too_much_is_not_looked_at() {
        let many: Vec<Package> = (0..=MOST)
            .map(|number| package(&format!("p{number}"), "1.0.0", &[]))
            .collect();
        assert_eq!(shelf(&[]).gain(&many), None);
        let mut cut = shelf(&[(1, "a", "1.1.0", &[])]);
        cut.is_cut = true;
        assert_eq!(cut.gain(&[package("a", "1.0.0", &[])]), None);
    }
}
