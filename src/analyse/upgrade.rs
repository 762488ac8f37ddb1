//! A lock file moved to the newest versions that others have, as whoever prebuilds
//! would move it: all that it requires stays required, by the registry's index.

use std::collections::{BTreeSet, HashMap};

use semver::Version;

use super::trees;
use crate::align::Knowledge;
use crate::cargo::lock_graph::{LockGraph, LockedPackage};
use crate::cargo::relock::line;
use crate::cargo::source::CRATES_IO;

type Line = (String, (u64, u64, u64));

/// The newest version of each line of compatible versions.
#[derive(Debug, Default)]
pub(super) struct Newest(HashMap<Line, Version>);

impl Newest {
    /// Of what some lock files have.
    pub(super) fn of<'a>(
        locks: impl Iterator<Item = &'a LockGraph>,
        knowledge: &dyn Knowledge,
    ) -> Self {
        let mut newest = Self::default();
        let packages = locks.flat_map(|lock| &lock.packages);
        for package in packages.filter(|package| trees::source(package) == CRATES_IO) {
            let Ok(version) = Version::parse(&package.version) else {
                continue;
            };
            let key = (package.name.clone(), line(&version));
            if newest.0.get(&key).is_some_and(|known| *known >= version) {
                continue;
            }
            let release = knowledge.release(&package.name, &version);
            let is_fit = release
                .is_some_and(|of| knowledge.objection(&package.name, &version, &of).is_none());
            if is_fit {
                newest.0.insert(key, version);
            }
        }
        newest
    }
}

/// Moves a lock file. Packages that would not fit stay as they are.
pub(super) fn upgrade(lock: &LockGraph, newest: &Newest, knowledge: &dyn Knowledge) -> LockGraph {
    let now: Vec<Option<Version>> = lock
        .packages
        .iter()
        .map(|package| Version::parse(&package.version).ok())
        .collect();
    let wanted = lock.packages.iter().zip(&now).map(|(package, now)| {
        let now = now.as_ref()?;
        let public = trees::source(package) == CRATES_IO;
        let newest = newest.0.get(&(package.name.clone(), line(now)))?;
        (public && newest > now).then(|| newest.clone())
    });
    let moves = wanted.collect();
    let mut upgrade = Upgrade {
        lock,
        now,
        moves,
        knowledge,
    };
    while upgrade.retreat() {}
    upgrade.finish()
}

struct Upgrade<'a> {
    lock: &'a LockGraph,
    now: Vec<Option<Version>>,
    moves: Vec<Option<Version>>,
    knowledge: &'a dyn Knowledge,
}

impl Upgrade<'_> {
    fn version(&self, package: usize) -> Option<&Version> {
        self.moves[package].as_ref().or(self.now[package].as_ref())
    }

    /// Takes back moves that something does not allow; says whether there were any.
    fn retreat(&mut self) -> bool {
        let mut back = BTreeSet::new();
        for position in 0..self.lock.packages.len() {
            match self.needs(position) {
                Some(_) => {}
                // Both: it may be this one or what it needs.
                None => {
                    back.insert(position);
                    back.extend(self.lock.packages[position].dependencies.iter().copied());
                }
            }
        }
        let mut has_changed = false;
        for position in back {
            has_changed |= self.moves[position].take().is_some();
        }
        has_changed
    }

    /// What a package needs with all moves; `None` if that is not there.
    fn needs(&self, position: usize) -> Option<Vec<usize>> {
        let package: &LockedPackage = &self.lock.packages[position];
        let release = |version: Option<&Version>| {
            let version = version?;
            self.knowledge.release(&package.name, version)
        };
        let own = &package.dependencies;
        if trees::source(package) != CRATES_IO {
            return Some(own.clone());
        }
        let Some(release) = release(self.version(position)) else {
            // Nothing is known of it, so nothing moves that it needs.
            let stays = own.iter().all(|need| self.moves[*need].is_none());
            return stays.then(|| own.clone());
        };
        let named = |need: usize| &self.lock.packages[need].name;
        let mut needs = BTreeSet::new();
        for requirement in &release.requirements {
            let fits = |need: &usize| {
                let version = self.version(*need);
                *named(*need) == requirement.package
                    && version.is_some_and(|version| requirement.versions.matches(version))
            };
            let had = own
                .iter()
                .copied()
                .filter(|need| *named(*need) == requirement.package);
            let had: Vec<usize> = had.collect();
            if let Some(found) = had.iter().find(|need| fits(need)) {
                needs.insert(*found);
            } else if !had.is_empty() {
                // One of several of this name may be meant by another requirement.
                let others = release.requirements.iter().filter(|other| {
                    other.package == requirement.package && other.versions != requirement.versions
                });
                if others.count() == 0 {
                    return None;
                }
            } else if self.moves[position].is_some()
                && !requirement.optional
                && requirement.everywhere
            {
                let all = 0..self.lock.packages.len();
                needs.insert(all.into_iter().find(fits)?);
            }
        }
        Some(needs.into_iter().collect())
    }

    fn finish(self) -> LockGraph {
        let packages = self.lock.packages.iter().enumerate();
        let packages = packages.map(|(position, package)| LockedPackage {
            name: package.name.clone(),
            version: match &self.moves[position] {
                Some(version) => version.to_string(),
                None => package.version.clone(),
            },
            source: package.source.clone(),
            dependencies: match &self.moves[position] {
                Some(_) => self.needs(position).unwrap_or_default(),
                None => package.dependencies.clone(),
            },
        });
        let mut lock = LockGraph {
            packages: packages.collect(),
        };
        trees::sweep(&mut lock);
        lock
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use semver::VersionReq;

    use super::*;
    use crate::align::Objection;
    use crate::cargo::releases::{Release, Requirement};

    /// What each version requires.
    struct Registry(BTreeMap<(&'static str, &'static str), Vec<(&'static str, &'static str)>>);

    impl Knowledge for Registry {
        fn release(&self, name: &str, version: &Version) -> Option<Arc<Release>> {
            let version = version.to_string();
            let mut known = self.0.iter();
            let (_, needs) = known.find(|((of, at), _)| *of == name && *at == version)?;
            let requirement = |(package, versions): &(&str, &str)| Requirement {
                package: (*package).to_owned(),
                versions: VersionReq::parse(versions).unwrap(),
                optional: false,
                everywhere: true,
                features: Vec::new(),
            };
            Some(Arc::new(Release {
                requirements: needs.iter().map(requirement).collect(),
                ..Release::default()
            }))
        }

        fn objection(&self, _: &str, _: &Version, _: &Release) -> Option<Objection> {
            None
        }
    }

    fn lock(packages: &[(&str, &str, &[usize])]) -> LockGraph {
        let package = |(name, version, needs): &(&str, &str, &[usize])| LockedPackage {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            source: (*name != "app").then(|| CRATES_IO.to_owned()),
            dependencies: needs.to_vec(),
        };
        LockGraph {
            packages: packages.iter().map(package).collect(),
        }
    }

    fn versions(lock: &LockGraph) -> Vec<String> {
        let text = |of: &LockedPackage| format!("{} {}", of.name, of.version);
        lock.packages.iter().map(text).collect()
    }

    #[test]
    fn packages_move_as_far_as_requirements_allow() {
        let registry = Registry(BTreeMap::from([
            (("a", "1.0.0"), vec![("b", "^1")]),
            (("a", "1.1.0"), vec![("b", "^1"), ("new", "^0.2")]),
            (("b", "1.0.0"), vec![]),
            (("b", "1.2.0"), vec![]),
            (("c", "1.0.0"), vec![("b", "=1.0.0")]),
            (("new", "0.2.0"), vec![]),
        ]));
        let mine = lock(&[
            ("app", "0.1.0", &[1]),
            ("a", "1.0.0", &[2]),
            ("b", "1.0.0", &[]),
        ]);
        let other = lock(&[("b", "1.2.0", &[])]);
        let newest = Newest::of([&mine, &other].into_iter(), &registry);
        assert_eq!(
            versions(&upgrade(&mine, &newest, &registry)),
            ["app 0.1.0", "a 1.0.0", "b 1.2.0"]
        );
        // Somebody pins it.
        let pinned = lock(&[
            ("app", "0.1.0", &[1, 3]),
            ("a", "1.0.0", &[2]),
            ("b", "1.0.0", &[]),
            ("c", "1.0.0", &[2]),
        ]);
        assert_eq!(
            versions(&upgrade(&pinned, &newest, &registry)),
            ["app 0.1.0", "a 1.0.0", "b 1.0.0", "c 1.0.0"]
        );
        // A newer version needs what is not there.
        let newer = lock(&[("a", "1.1.0", &[1]), ("new", "0.2.0", &[])]);
        let newest = Newest::of([&mine, &newer].into_iter(), &registry);
        assert_eq!(
            versions(&upgrade(&mine, &newest, &registry)),
            ["app 0.1.0", "a 1.0.0", "b 1.0.0"]
        );
    }
}
