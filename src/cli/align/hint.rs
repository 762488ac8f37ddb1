//! Whether alignment would help, in one line and from what is at hand: inventories
//! that are kept or lie in folders, and the index that Cargo has.
//!
//! Nobody is asked, no manifest is read, and nothing is proved, so it is a reason to
//! run `quickbuild align`, and no more. The answer is kept under a key of all that
//! it follows from.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::super::Surroundings;
use super::super::analyse::index_homes;
use super::sources::Sources;
use super::workspace::{self, Facts};
use crate::align::glance;
use crate::align::project::packages;
use crate::cargo::lock_graph::LockGraph;
use crate::cargo::releases::Releases;
use crate::cargo::relock::Network;
use crate::config::Config;
use crate::digest::{Canonical, RecipeHash};
use crate::fs;
use crate::plan::{Context, Planned};
use crate::store::Store;
use crate::substitute::stock;
use crate::substituter::Inventory;

/// Share of all seconds that alignment must be worth to be spoken of.
const LEAST: f64 = 0.05;
/// Trees that are moved to: the whole search may take seconds, and those that are
/// worth most tell enough.
const ROUNDS: usize = 3;
/// More packages take longer than a line is worth.
const MOST: usize = 2_000;

/// A line about a command's plan, if alignment seems to help.
pub(in crate::cli) fn hint(
    surroundings: &Surroundings,
    (config, store): (&Config, &Store),
    context: &Context,
    units: &[Planned],
) -> Option<String> {
    let kept = config.substituters.iter().filter_map(|settings| {
        let substituter = surroundings.substituter(config, &settings.url).ok()?;
        match substituter.is_near() {
            true => substituter.inventory_bytes().ok()?,
            false => stock::kept_inventory(store, &substituter),
        }
    });
    let kept: Vec<Vec<u8>> = kept.collect();
    if kept.is_empty() || units.len() > MOST {
        return None;
    }
    let lock = fs::read(&context.roots.workspace.join("Cargo.lock")).ok()?;
    let mut key = Canonical::new("quickbuild-alignment-1");
    key.bytes(&lock);
    for bytes in &kept {
        key.bytes(bytes);
    }
    for unit in units.iter().filter(|unit| workspace::is_main(unit)) {
        key.bytes(unit.host_recipe.as_bytes());
    }
    let file = store
        .cache("alignments")
        .join(RecipeHash::finish(key).to_string());
    let said = match fs::read_text(&file) {
        Ok(said) => said,
        Err(_absent) => {
            let said = look(surroundings, config, context, (units, &lock, &kept));
            let said = said.unwrap_or_default();
            keep(&file, &said);
            said
        }
    };
    (!said.is_empty()).then_some(said)
}

/// Only a shortcut: where it cannot be kept, the next run looks again.
fn keep(file: &Path, said: &str) {
    let folder = file.parent().unwrap_or(file);
    let _ = fs::create_dir_all(folder).and_then(|()| fs::write_atomic(file, said.as_bytes()));
}

fn look(
    surroundings: &Surroundings,
    config: &Config,
    context: &Context,
    (units, lock, kept): (&[Planned], &[u8], &[Vec<u8>]),
) -> Option<String> {
    let mut inventory = Inventory::default();
    for bytes in kept {
        inventory.add(&Inventory::parse(bytes, "kept").ok()?);
    }
    let sources = Sources::of_inventory(inventory, &context.toolchain.rustc);
    let lock = LockGraph::parse(lock).ok()?;
    let keep: BTreeSet<String> = config.keep.iter().cloned().collect();
    let packages = packages(&lock, &HashMap::new(), &keep)?;
    let project = workspace::planned(packages, units, &sources);
    let cargo_home = surroundings.environment.cargo_home();
    let (_, advisories) = Facts::advisories(config.advisory_db.as_deref(), &cargo_home);
    let facts = Facts {
        releases: Releases::open(&index_homes(surroundings).ok()?).ok()?,
        advisories,
        rust: None,
        network: Network::Allowed,
    };
    let all: f64 = project.nodes.iter().map(|node| node.seconds).sum();
    let seen = glance(&project, &sources.offers, &facts, ROUNDS);
    let gained = seen.after - seen.before;
    (gained > 0.0 && gained >= LEAST * all).then(|| {
        format!(
            "About {gained:.1} s more, at least, could be prebuilt: `quickbuild align` says how."
        )
    })
}
