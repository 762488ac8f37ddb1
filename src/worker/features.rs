//! Which features of a package a lock file shows: those that bring the optional
//! dependencies which it has there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// A package as `cargo metadata` describes it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) version: String,
    /// Features, with what each turns on (Cargo book, "Features").
    features: BTreeMap<String, Vec<String>>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Clone, Deserialize)]
struct Dependency {
    /// The package.
    name: String,
    /// What the manifest calls it, where that is something else.
    rename: Option<String>,
    optional: bool,
}

/// What a manifest is to ask of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Features {
    /// Whether those that are on by default.
    pub(super) default: bool,
    /// And these.
    pub(super) others: Vec<String>,
}

const DEFAULT: &str = "default";

impl Described {
    /// The features with which it needs these packages: the default ones unless they
    /// bring another optional dependency, and for each that is missing the feature that
    /// brings least, and nothing else than is there.
    pub(super) fn features_for(&self, has: &BTreeSet<String>) -> Features {
        let optional = self.dependencies.iter().filter(|one| one.optional);
        let optional: BTreeMap<&str, &str> = optional
            .map(|one| (one.rename.as_deref().unwrap_or(&one.name), &*one.name))
            .collect();
        let is_there = |dependency: &&str| has.contains(optional[dependency]);
        let wanted: BTreeSet<&str> = optional.keys().copied().filter(is_there).collect();
        let mut found = self.brings(DEFAULT, &optional);
        let default = found.is_subset(&wanted);
        if !default {
            found.clear();
        }
        let mut others = Vec::new();
        for dependency in &wanted {
            if found.contains(dependency) {
                continue;
            }
            let all = self.features.keys().filter(|name| *name != DEFAULT);
            let all = all.map(|feature| (self.brings(feature, &optional), feature));
            let all = all.filter(|(brought, _)| brought.contains(dependency));
            let all = all.filter(|(brought, _)| brought.is_subset(&wanted));
            // The one of the dependency's own name is for whoever knows no other.
            let least = all.min_by_key(|(brought, name)| (brought.len(), name == dependency));
            if let Some((brought, feature)) = least {
                found.extend(brought);
                others.push(feature.clone());
            }
        }
        Features { default, others }
    }

    /// The optional dependencies that a feature turns on, by their names in the
    /// manifest.
    fn brings<'a>(
        &'a self,
        feature: &'a str,
        optional: &BTreeMap<&'a str, &str>,
    ) -> BTreeSet<&'a str> {
        let mut brought = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![feature];
        while let Some(feature) = open.pop() {
            if !seen.insert(feature) {
                continue;
            }
            for part in self.features.get(feature).into_iter().flatten() {
                match (part.strip_prefix("dep:"), part.split_once('/')) {
                    (Some(dependency), _) => {
                        brought.insert(dependency);
                    }
                    // `a?/b` turns `b` on only where `a` is there anyway.
                    (None, Some((dependency, _))) if dependency.ends_with('?') => {}
                    (None, Some((dependency, _))) => {
                        brought.insert(dependency);
                    }
                    (None, None) => open.push(part),
                }
            }
        }
        brought.retain(|dependency| optional.contains_key(dependency));
        brought
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(features: serde_json::Value) -> Described {
        serde_json::from_value(serde_json::json!({
            "name": "a", "version": "1.0.0", "features": features, "dependencies": [
                {"name": "always", "rename": null, "optional": false},
                {"name": "one", "rename": null, "optional": true},
                {"name": "two", "rename": "zwei", "optional": true},
            ],
        }))
        .unwrap()
    }

    fn found(features: serde_json::Value, has: &[&str]) -> (bool, String) {
        let has = has.iter().map(|name| (*name).to_owned()).collect();
        let Features { default, others } = described(features).features_for(&has);
        (default, others.join(" "))
    }

    #[test]
    fn the_features_are_those_that_bring_what_is_there() {
        let features = || {
            serde_json::json!({
                "default": ["std"], "std": ["one"], "one": ["dep:one"],
                "zwei": ["dep:zwei"], "all": ["one", "zwei"], "more": ["one?/x", "always/y"],
            })
        };
        assert_eq!(found(features(), &["always", "one"]), (true, String::new()));
        assert_eq!(found(features(), &["always"]), (false, String::new()));
        assert_eq!(
            found(features(), &["one", "two"]),
            (true, "zwei".to_owned())
        );
        assert_eq!(found(features(), &["two"]), (false, "zwei".to_owned()));
    }

    #[test]
    fn a_feature_with_a_name_of_its_own_goes_first() {
        let features = serde_json::json!({"one": ["dep:one"], "derive": ["one"]});
        assert_eq!(found(features, &["one"]), (true, "derive".to_owned()));
    }

    #[test]
    fn a_feature_that_brings_something_else_is_not_taken() {
        let features = || serde_json::json!({"full": ["dep:one", "zwei/x"], "some": ["zwei?/x"]});
        assert_eq!(found(features(), &["one"]), (true, String::new()));
        assert_eq!(
            found(features(), &["one", "two"]),
            (true, "full".to_owned())
        );
        // A package without a feature `default` has it all the same.
        assert_eq!(found(serde_json::json!({}), &[]), (true, String::new()));
    }
}
