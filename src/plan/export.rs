//! A command's package instances as recipes, written out. Pure: no I/O.
//!
//! A unit that both the host and the target use is in the graph once. Host units
//! refer to it without debug information and others with it, so it is exported
//! in both forms where both are needed: what is exported is closed.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Common, Form, Planned, recipe_of};
use crate::digest::RecipeHash;
use crate::recipe::package::{PackageError, PackageRecipe};

/// What a command's packages come down to.
#[derive(Debug, Default)]
pub struct Export {
    /// The package instances, each once, sorted by path.
    pub packages: Vec<PackageRecipe>,
    /// Packages that are not exported, `name version`, with the reason.
    pub left_out: BTreeMap<String, String>,
}

/// Exports all package instances of a graph that others can fetch: those from
/// registries and Git repositories of which everything below is the same.
pub fn export(units: &[Planned], common: &Common) -> Export {
    let obstacles = obstacles(units);
    let mut export = Export::default();
    let mut wanted: BTreeSet<(usize, Form)> = BTreeSet::new();
    for (index, planned) in units.iter().enumerate() {
        if planned.package.is_path() {
            // A member's build script or proc macro wants the host's form.
            for &need in planned.needs.iter().filter(|&&n| obstacles[n].is_none()) {
                let form = form_below(form_of(planned), &units[need]);
                reach(units, (need, form), &mut wanted);
            }
            continue;
        }
        match &obstacles[index] {
            Some(reason) if is_main(planned) => {
                let name = format!("{} {}", planned.package.name, planned.package.version);
                export.left_out.insert(name, reason.clone());
            }
            Some(_) => {}
            None => reach(units, (index, form_of(planned)), &mut wanted),
        }
    }
    let mut packages: BTreeMap<RecipeHash, PackageRecipe> = BTreeMap::new();
    for (index, form) in wanted {
        let planned = &units[index];
        if !is_main(planned) {
            continue;
        }
        match package(units, (index, form), common) {
            Ok(recipe) => {
                packages.insert(recipe.hash(), recipe);
            }
            Err(error) => {
                let name = format!("{} {}", planned.package.name, planned.package.version);
                export.left_out.insert(name, error.to_string());
            }
        }
    }
    export.packages = packages.into_values().collect();
    export.packages.sort_by_cached_key(PackageRecipe::path);
    export
}

/// A unit's own form.
fn form_of(planned: &Planned) -> Form {
    if planned.host {
        Form::Host
    } else {
        Form::Target
    }
}

/// The form in which a unit in one form needs another unit.
fn form_below(form: Form, below: &Planned) -> Form {
    match form {
        Form::Host => Form::Host,
        Form::Target => form_of(below),
    }
}

/// Whether other packages depend on it.
fn is_main(planned: &Planned) -> bool {
    matches!(planned.kind, "lib" | "proc-macro") && !planned.test
}

/// Why each unit cannot be exported, if it cannot.
fn obstacles(units: &[Planned]) -> Vec<Option<String>> {
    let own = |planned: &Planned| match planned.refused {
        _ if planned.package.is_path() => Some("it needs a package in a folder".to_owned()),
        Some(refusal) => Some(refusal.reason().to_owned()),
        None => None,
    };
    let mut obstacles: Vec<Option<String>> = units.iter().map(own).collect();
    // The list is in Cargo's order, so spread upwards until nothing changes.
    loop {
        let mut changed = false;
        for (index, planned) in units.iter().enumerate() {
            if obstacles[index].is_none()
                && let Some(&below) = planned.needs.iter().find(|&&n| obstacles[n].is_some())
            {
                obstacles[index] = obstacles[below].clone();
                changed = true;
            }
        }
        if !changed {
            return obstacles;
        }
    }
}

/// Adds a unit and all below it, each in the form in which it is needed.
fn reach(units: &[Planned], start: (usize, Form), wanted: &mut BTreeSet<(usize, Form)>) {
    let mut open = vec![start];
    while let Some((index, form)) = open.pop() {
        if wanted.insert((index, form)) {
            let needs = units[index].needs.iter();
            open.extend(needs.map(|&need| (need, form_below(form, &units[need]))));
        }
    }
}

/// A main unit with the units of its own build script.
fn package(
    units: &[Planned],
    main: (usize, Form),
    common: &Common,
) -> Result<PackageRecipe, PackageError> {
    let own = &units[main.0].package;
    let mut recipes = vec![recipe_of(units, main.0, main.1, common)];
    let mut seen = BTreeSet::from([main]);
    let mut open = vec![main];
    while let Some((index, form)) = open.pop() {
        for &need in &units[index].needs {
            let below = &units[need];
            let id = (need, form_below(form, below));
            if below.package == *own && !is_main(below) && seen.insert(id) {
                recipes.push(recipe_of(units, id.0, id.1, common));
                open.push(id);
            }
        }
    }
    recipes.reverse();
    PackageRecipe::new(recipes)
}
