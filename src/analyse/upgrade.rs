//! A lock file moved to the newest versions, as whoever prebuilds would move it: all
//! that it requires stays required, by the registry's index.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use semver::{Version, VersionReq};

use super::trees;
use crate::align::Knowledge;
use crate::cargo::lock_graph::{LockGraph, LockedPackage};
use crate::cargo::relock::line;
use crate::cargo::source::CRATES_IO;

type Line = (String, (u64, u64, u64));

/// The versions of each line of compatible versions that some lock files have one of,
/// the newest first.
#[derive(Debug, Default)]
pub(super) struct Newest(HashMap<Line, Vec<Version>>);

impl Newest {
    /// Of what some lock files have, and of what was published beside it, without what
    /// nobody should move to.
    pub(super) fn of<'a>(
        locks: impl Iterator<Item = &'a LockGraph>,
        knowledge: &dyn Knowledge,
    ) -> Self {
        let mut lines: BTreeMap<Line, BTreeSet<Version>> = BTreeMap::new();
        let packages = locks.flat_map(|lock| &lock.packages);
        for package in packages.filter(|package| trees::source(package) == CRATES_IO) {
            if let Ok(version) = Version::parse(&package.version) {
                let key = (package.name.clone(), line(&version));
                lines.entry(key).or_default().insert(version);
            }
        }
        let lines = lines.into_iter().map(|(key, mut versions)| {
            let published = knowledge.published(&key.0).into_iter();
            let published = published.filter(|version| version.pre.is_empty());
            versions.extend(published.filter(|version| line(version) == key.1));
            let is_fit = |version: &Version| {
                let release = knowledge.release(&key.0, version);
                release.is_some_and(|of| knowledge.objection(&key.0, version, &of).is_none())
            };
            let versions = versions.into_iter().rev();
            let versions = versions.filter(is_fit).collect();
            (key, versions)
        });
        Self(lines.collect())
    }

    /// Versions that are newer than one, the newest first.
    fn beyond(&self, name: &str, version: &Version) -> &[Version] {
        let line = self.0.get(&(name.to_owned(), line(version)));
        let versions = line.map_or(&[][..], Vec::as_slice);
        let newer = versions.iter().take_while(|newer| *newer > version);
        &versions[..newer.count()]
    }
}

/// Moves a lock file. What would not fit with the newest versions has the newest
/// that fit; that of two that do not agree goes back that another version helps.
pub(super) fn upgrade(lock: &LockGraph, newest: &Newest, knowledge: &dyn Knowledge) -> LockGraph {
    let now: Vec<Option<Version>> = lock
        .packages
        .iter()
        .map(|package| Version::parse(&package.version).ok())
        .collect();
    let moves = lock.packages.iter().zip(&now).map(|(package, now)| {
        let now = now.as_ref().filter(|_| trees::source(package) == CRATES_IO);
        now.map_or(&[][..], |now| newest.beyond(&package.name, now))
    });
    let moves = moves.collect();
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
    /// Versions that a package could still move to: the first is the one that it
    /// has; if there is none, it stays.
    moves: Vec<&'a [Version]>,
    knowledge: &'a dyn Knowledge,
}

/// What keeps a package from having what it needs.
enum Misfit {
    /// Of packages of one name, none has a version that will do.
    Versions(Vec<usize>, VersionReq),
    /// Something is not there at all.
    Absent,
    /// Nobody knows what it needs.
    Unknown,
}

impl Upgrade<'_> {
    fn version(&self, package: usize) -> Option<&Version> {
        self.moves[package].first().or(self.now[package].as_ref())
    }

    /// Takes back moves that something does not allow; says whether there were any.
    fn retreat(&mut self) -> bool {
        let mut has_changed = false;
        for position in 0..self.lock.packages.len() {
            if let Err(misfit) = self.needs(position) {
                has_changed |= self.give_way(position, &misfit);
            }
        }
        has_changed
    }

    fn give_way(&mut self, position: usize, misfit: &Misfit) -> bool {
        match misfit {
            Misfit::Unknown => {
                let needs = &self.lock.packages[position].dependencies;
                let mut has_changed = false;
                for need in needs {
                    has_changed |= !std::mem::take(&mut self.moves[*need]).is_empty();
                }
                has_changed
            }
            Misfit::Versions(had, versions) => {
                for need in had {
                    let open = self.moves[*need];
                    let lower = open.iter().skip(1).chain(&self.now[*need]);
                    let mut lower = lower.enumerate();
                    if !open.is_empty()
                        && let Some((at, _)) = lower.find(|(_, lower)| versions.matches(lower))
                    {
                        self.moves[*need] = &open[at + 1..];
                        return true;
                    }
                }
                self.lower(position)
            }
            Misfit::Absent => self.lower(position),
        }
    }

    /// Has a package go back to the version before.
    fn lower(&mut self, package: usize) -> bool {
        let open = self.moves[package];
        self.moves[package] = open.get(1..).unwrap_or_default();
        !open.is_empty()
    }

    /// What a package needs with all moves.
    fn needs(&self, position: usize) -> Result<Vec<usize>, Misfit> {
        let package: &LockedPackage = &self.lock.packages[position];
        let own = &package.dependencies;
        if trees::source(package) != CRATES_IO {
            return Ok(own.clone());
        }
        let version = self.version(position);
        let release = version.and_then(|of| self.knowledge.release(&package.name, of));
        let Some(release) = release else {
            let stays = own.iter().all(|need| self.moves[*need].is_empty());
            return if stays {
                Ok(own.clone())
            } else {
                Err(Misfit::Unknown)
            };
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
                    return Err(Misfit::Versions(had, requirement.versions.clone()));
                }
            } else if !self.moves[position].is_empty()
                && !requirement.optional
                && requirement.everywhere
            {
                let all = 0..self.lock.packages.len();
                let found = all.into_iter().find(fits);
                needs.insert(found.ok_or(Misfit::Absent)?);
            }
        }
        Ok(needs.into_iter().collect())
    }

    fn finish(self) -> LockGraph {
        let packages = self.lock.packages.iter().enumerate();
        let packages = packages.map(|(position, package)| LockedPackage {
            name: package.name.clone(),
            version: match self.moves[position].first() {
                Some(version) => version.to_string(),
                None => package.version.clone(),
            },
            source: package.source.clone(),
            dependencies: match self.moves[position] {
                [] => package.dependencies.clone(),
                _ => self.needs(position).unwrap_or_default(),
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

    use proptest::prelude::*;
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
                by_default: true,
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

        fn published(&self, name: &str) -> Vec<Version> {
            let known = self.0.keys().filter(|(of, _)| *of == name);
            known.map(|(_, version)| version.parse().unwrap()).collect()
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
            (("b", "1.1.0"), vec![]),
            // Nobody has these yet.
            (("b", "1.2.0"), vec![]),
            (("b", "1.3.0-rc.1"), vec![]),
            (("b", "2.0.0"), vec![]),
            (("c", "1.0.0"), vec![("b", "=1.0.0")]),
            (("new", "0.2.0"), vec![]),
        ]));
        let mine = lock(&[
            ("app", "0.1.0", &[1]),
            ("a", "1.0.0", &[2]),
            ("b", "1.0.0", &[]),
        ]);
        let other = lock(&[("b", "1.1.0", &[])]);
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
            ["app 0.1.0", "a 1.0.0", "b 1.2.0"]
        );
    }

    #[test]
    fn what_does_not_fit_goes_back_no_further_than_it_must() {
        let registry = Registry(BTreeMap::from([
            (("a", "1.0.0"), vec![("b", "^1")]),
            (("a", "1.1.0"), vec![("b", "^1.1")]),
            (("a", "1.2.0"), vec![("b", "^1.2")]),
            (("b", "1.0.0"), vec![]),
            (("b", "1.1.0"), vec![]),
            (("b", "1.2.0"), vec![]),
            (("c", "1.0.0"), vec![("b", "<1.2"), ("d", "^1")]),
            (("d", "1.0.0"), vec![]),
            (("d", "1.1.0"), vec![]),
        ]));
        let others = [
            lock(&[("a", "1.1.0", &[1]), ("b", "1.1.0", &[])]),
            lock(&[
                ("a", "1.2.0", &[1]),
                ("b", "1.2.0", &[]),
                ("d", "1.1.0", &[]),
            ]),
        ];
        let newest = Newest::of(others.iter(), &registry);
        // `c` allows neither the newest `b` nor, so, the newest `a`; `d` is free.
        let mine = lock(&[
            ("app", "0.1.0", &[1, 3]),
            ("a", "1.0.0", &[2]),
            ("b", "1.0.0", &[]),
            ("c", "1.0.0", &[2, 4]),
            ("d", "1.0.0", &[]),
        ]);
        assert_eq!(
            versions(&upgrade(&mine, &newest, &registry)),
            ["app 0.1.0", "a 1.1.0", "b 1.1.0", "c 1.0.0", "d 1.1.0"]
        );
    }

    /// Which package, in which version, is how particular about the next one.
    fn any_registry() -> impl Strategy<Value = Vec<(usize, usize, u8)>> {
        prop::collection::vec((0usize..5, 0usize..5, 0u8..4), 0..20)
    }

    proptest! {
        /// Whatever the index says of packages that need each other in a row.
        #[test]
        fn what_has_moved_fits(bounds in any_registry()) {
            const NAMES: [&str; 6] = ["p0", "p1", "p2", "p3", "p4", "p5"];
            const VERSIONS: [&str; 4] = ["1.0.0", "1.1.0", "1.2.0", "1.3.0"];
            const ALLOWED: [&str; 4] = ["^1", "<1.2", "^1.1", "=1.2.0"];
            // Version `at` of package `of` requires of the next one what the list says.
            let bound = |of: usize, at: usize| {
                let found = bounds.iter().find(|bound| (bound.0, bound.1 % 4) == (of, at));
                // Everybody fits as it is.
                let rule = found.filter(|_| at > 0).map_or(0, |bound| bound.2);
                ALLOWED[usize::from(rule)]
            };
            let mut known = BTreeMap::new();
            for of in 0..6 {
                for (at, version) in VERSIONS.iter().enumerate() {
                    let needs = if of < 5 { vec![(NAMES[of + 1], bound(of, at))] } else { vec![] };
                    known.insert((NAMES[of], *version), needs);
                }
            }
            let registry = Registry(known);
            let packages: Vec<(&str, &str, &[usize])> = vec![
                ("app", "0.1.0", &[1]), ("p0", "1.0.0", &[2]), ("p1", "1.0.0", &[3]),
                ("p2", "1.0.0", &[4]), ("p3", "1.0.0", &[5]), ("p4", "1.0.0", &[6]), ("p5", "1.0.0", &[]),
            ];
            let others = VERSIONS.map(|version| {
                lock(&NAMES.map(|name| (name, version, &[][..])))
            });
            let newest = Newest::of(others.iter(), &registry);
            let moved = upgrade(&lock(&packages), &newest, &registry);
            prop_assert_eq!(moved.packages.len(), 7);
            for package in &moved.packages[1..] {
                let version = Version::parse(&package.version).unwrap();
                let release = registry.release(&package.name, &version).unwrap();
                for requirement in &release.requirements {
                    let found = moved.packages.iter().find(|of| of.name == requirement.package);
                    let version = Version::parse(&found.unwrap().version).unwrap();
                    prop_assert!(requirement.versions.matches(&version));
                }
            }
        }
    }
}
