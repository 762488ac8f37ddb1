//! What may be moved where: each move must satisfy all that depend on the package,
//! and what the new version needs must be there.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use semver::Version;

use super::project::{Lookup, Moves, OfferId};
use crate::cargo::releases::{Release, Requirement};
use crate::cargo::relock::line;

/// What is known of published versions.
pub trait Knowledge: Sync {
    /// A version of a package; `None` if it is not known here.
    fn release(&self, name: &str, version: &Version) -> Option<Arc<Release>>;

    /// Why nobody should move to a version that exists.
    fn objection(&self, name: &str, version: &Version, release: &Release) -> Option<Objection>;

    /// The versions of a package that were published, as far as they are known here.
    fn published(&self, _name: &str) -> Vec<Version> {
        Vec::new()
    }

    /// Whether packages may move to older versions: not where nobody knows which of
    /// them are vulnerable.
    fn may_go_back(&self) -> bool {
        true
    }

    /// Whether a package may come in of which nothing is known here.
    fn may_be_unknown(&self, _name: &str) -> bool {
        true
    }
}

/// Why nobody should move to a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Objection {
    /// The registry's index does not have it, or is not at hand.
    Unknown,
    /// It was withdrawn.
    Yanked,
    /// It needs a newer Rust than the workspace says to support.
    Rust(Version),
    /// It is older, and might be vulnerable.
    Older,
    /// It is known to be vulnerable.
    Vulnerable(String),
    /// The package stays as it is: the user says so, or it is not from the
    /// registry.
    Kept,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(
                f,
                "the registry's index does not have it, or is not at hand"
            ),
            Self::Yanked => write!(f, "it is yanked"),
            Self::Rust(version) => write!(f, "it needs Rust {version}"),
            Self::Older => write!(
                f,
                "it is older, and without an advisory database nobody knows whether it is vulnerable"
            ),
            Self::Vulnerable(id) => write!(f, "it is vulnerable ({id})"),
            Self::Kept => write!(f, "the package is kept as it is"),
        }
    }
}

/// Why moves do not fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clash {
    /// A version is not for anybody here.
    Version {
        /// Package and version.
        package: String,
        /// Why.
        objection: Objection,
    },
    /// One package does not allow the version of another.
    Requirement {
        /// Who requires it.
        package: String,
        /// What is required.
        requirement: String,
    },
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { package, objection } => write!(f, "`{package}`: {objection}"),
            Self::Requirement {
                package,
                requirement,
            } => write!(f, "`{package}` requires `{requirement}`"),
        }
    }
}

/// Sees whether packages may move so, as far as `changed` ones have to do with it:
/// without them it did. `added` are offers of packages that come in.
pub(super) fn fit(
    lookup: &Lookup,
    moves: &Moves,
    added: &BTreeSet<OfferId>,
    changed: &BTreeSet<usize>,
) -> Result<(), Clash> {
    let packages = &lookup.project.packages;
    for offer in added {
        lookup.admit(*offer)?;
    }
    let check = Check {
        lookup,
        moves,
        added,
    };
    let moved = |position: usize| moves.get(&position).map(|version| (position, version));
    for step in changed.iter().filter_map(|position| moved(*position)) {
        let release = check.release(step)?;
        for dependent in &lookup.dependents[step.0] {
            check.dependent(*dependent, step, &release)?;
        }
        for requirement in &release.requirements {
            check.requirement(step, requirement)?;
        }
    }
    let others = |position: &usize| !changed.contains(position);
    for position in changed {
        let needs = packages[*position].needs.iter().copied().filter(others);
        for step in needs.filter_map(moved) {
            let release = check.release(step)?;
            check.dependent(*position, step, &release)?;
        }
    }
    for step in moves.keys().copied().filter(others).filter_map(moved) {
        let named = lookup.judge(step.0, step.1).named;
        if changed
            .iter()
            .any(|position| named.binary_search(position).is_ok())
        {
            for requirement in &check.release(step)?.requirements {
                check.requirement(step, requirement)?;
            }
        }
    }
    Ok(())
}

struct Check<'a> {
    lookup: &'a Lookup<'a>,
    moves: &'a Moves,
    added: &'a BTreeSet<OfferId>,
}

impl Check<'_> {
    /// What a package moves to, if it may.
    fn release(&self, (position, version): (usize, &Version)) -> Result<Arc<Release>, Clash> {
        let package = &self.lookup.project.packages[position];
        let refuse = |objection| Clash::Version {
            package: format!("{} {version}", package.name),
            objection,
        };
        if !package.is_movable {
            return Err(refuse(Objection::Kept));
        }
        if *version < package.version && !self.lookup.knowledge.may_go_back() {
            return Err(refuse(Objection::Older));
        }
        let judged = self.lookup.judge(position, version);
        match (judged.release, judged.objection) {
            (Some(release), None) => Ok(release),
            (_, objection) => Err(refuse(objection.unwrap_or(Objection::Unknown))),
        }
    }

    /// Sees whether a package that depends on a moved one allows its version.
    fn dependent(
        &self,
        dependent: usize,
        (position, version): (usize, &Version),
        release: &Release,
    ) -> Result<(), Clash> {
        let packages = &self.lookup.project.packages;
        let (package, user) = (&packages[position], &packages[dependent]);
        let user_version = self.lookup.version(dependent, self.moves);
        let clash = |requirement: String| Clash::Requirement {
            package: format!("{} {user_version}", user.name),
            requirement,
        };
        let judged;
        let known = match &user.requirements {
            Some(requirements) => Some(requirements),
            None => {
                judged = self.lookup.judge(dependent, user_version);
                judged.release.as_ref().map(|release| &release.requirements)
            }
        };
        let Some(known) = known else {
            // Somebody wrote a requirement that the present version meets; newer
            // compatible ones usually meet it, too.
            let is_newer = *version >= package.version && line(version) == line(&package.version);
            return match is_newer {
                true => Ok(()),
                false => Err(clash(format!("{} {}", package.name, package.version))),
            };
        };
        // Of several requirements of one name, the one that the present version
        // meets is meant. What a moved one requires is looked at where it moves.
        let is_moved = self.moves.contains_key(&dependent);
        let meant = known.iter().filter(|requirement| {
            let of = if is_moved { version } else { &package.version };
            requirement.package == package.name && requirement.versions.matches(of)
        });
        for requirement in meant {
            if !requirement.versions.matches(version) {
                return Err(clash(format!("{} {}", package.name, requirement.versions)));
            }
            let missing = requirement
                .features
                .iter()
                .find(|feature| *feature != "default" && !release.features.contains(*feature));
            if let Some(feature) = missing {
                return Err(clash(format!("{} with feature {feature}", package.name)));
            }
        }
        Ok(())
    }

    /// Sees whether something that a new version needs is there.
    fn requirement(
        &self,
        (position, version): (usize, &Version),
        requirement: &Requirement,
    ) -> Result<(), Clash> {
        let Self {
            lookup,
            moves,
            added,
        } = self;
        let packages = &lookup.project.packages;
        let mut same = lookup.named(&requirement.package).iter();
        if same.any(|other| requirement.versions.matches(lookup.version(*other, moves))) {
            return Ok(());
        }
        let comes = |offer: &OfferId| {
            let offer = &lookup.offers.list[*offer];
            offer.name == requirement.package && requirement.versions.matches(&offer.version)
        };
        if added.iter().any(comes) {
            return Ok(());
        }
        let mut needed = packages[position].needs.iter();
        let is_needed = needed.any(|need| packages[*need].name == requirement.package);
        // What is optional, or for other platforms, and was not there is nothing that
        // a build here waits for: Cargo adds it if it must, and can.
        if !is_needed && (requirement.optional || !requirement.everywhere) {
            let name = &requirement.package;
            if !requirement.by_default
                || lookup.knowledge.may_be_unknown(name)
                || lookup.names(position, name)
            {
                return Ok(());
            }
            return Err(Clash::Version {
                package: name.clone(),
                objection: Objection::Unknown,
            });
        }
        Err(Clash::Requirement {
            package: format!("{} {version}", packages[position].name),
            requirement: format!("{} {}", requirement.package, requirement.versions),
        })
    }
}
