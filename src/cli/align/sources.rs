//! What is prebuilt: what substituters, the store, or an analysis have.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use semver::Version;
use serde::Deserialize;

use super::super::{Failure, Surroundings};
use crate::align::{Offer, OfferId, Offers};
use crate::cargo::fingerprint::text_hash;
use crate::config::Config;
use crate::console::{chain, line};
use crate::digest::RecipeHash;
use crate::fs;
use crate::output::Output;
use crate::store::Store;
use crate::substitute::stock;
use crate::substituter::Inventory;
use crate::substituter::inventory::Listed;

/// What stands for the store.
const STORE: &str = "store";

/// What is prebuilt.
pub(super) struct Sources {
    pub(super) offers: Offers,
    /// The offer that is of a recipe.
    pub(super) by_recipe: HashMap<RecipeHash, OfferId>,
    /// Seconds of each offer.
    seconds: Vec<f64>,
    by_version: HashMap<(String, String), f64>,
    by_name: HashMap<String, f64>,
    typical: f64,
}

/// The inventories of substituters: given ones, or else the configured ones.
pub(super) fn inventories(
    surroundings: &Surroundings,
    (config, store): (&Config, &Store),
    urls: &[String],
    is_offline: bool,
) -> Result<Inventory, Failure> {
    let configured = || config.substituters.iter().map(|of| of.url.clone());
    let urls: Vec<String> = match urls {
        [] => configured().collect(),
        urls => urls.to_vec(),
    };
    if urls.is_empty() {
        return Err(Failure::new("it is not known what is prebuilt").hint(
            "name a substituter with `--substituter URL`, or in `quickbuild.toml`; `--substituter store` is the local store",
        ));
    }
    let mut all = Inventory::default();
    let mut answers = 0;
    for url in &urls {
        if url == STORE {
            answers += 1;
            all.add(&of_store(store)?);
            continue;
        }
        let substituter = surroundings.substituter(config, url)?;
        if is_offline && !substituter.is_near() {
            let kept = stock::kept_inventory(store, &substituter);
            let kept = kept.and_then(|bytes| Inventory::parse(&bytes, url).ok());
            answers += usize::from(kept.is_some());
            all.add(&kept.unwrap_or_default());
            continue;
        }
        match stock::inventory(store, &substituter) {
            Ok(Some(inventory)) => {
                answers += 1;
                all.add(&inventory);
            }
            Ok(None) => line(&format!(
                "warning: `{url}` does not say which packages it has"
            )),
            Err(error) => line(&format!("warning: {}", chain(&error))),
        }
    }
    if answers == 0 {
        return Err(Failure::new("no substituter says which packages it has").hint(
            "a push by this quickbuild writes `inventory.json.zst`; pushing what is there already does, too",
        ));
    }
    Ok(all)
}

fn of_store(store: &Store) -> Result<Inventory, Failure> {
    let names = store.names()?.into_iter();
    let outputs: Vec<Output> = names.filter_map(|name| store.output(&name)).collect();
    let namings = store.namings()?;
    Ok(Inventory::of(&outputs, &namings))
}

impl Sources {
    /// What inventories say of a toolchain, by `rustc -vV`.
    pub(super) fn of_inventory(inventory: Inventory, rustc: &str) -> Self {
        let own = format!("{:016x}", text_hash(rustc));
        let fits = |listed: &Listed| {
            let other = listed.toolchain.as_ref();
            other.is_none_or(|toolchain| *toolchain == own)
        };
        let listed = inventory.packages.into_iter();
        let listed = listed.filter(|(_, listed)| fits(listed));
        let listed: BTreeMap<RecipeHash, Listed> = listed.collect();
        let (by_recipe, rows) = closed(listed);
        Self::new(by_recipe, rows)
    }

    /// What the selection of an analysis says.
    pub(super) fn of_analysis(path: &Path) -> Result<Self, Failure> {
        let bytes = fs::read(path)?;
        let wrong = |what: &str| {
            Failure::new(format!("`{}` {what}", path.display()))
                .hint("`quickbuild analyse DIR --budget-seconds N --format json > FILE` writes one")
        };
        let report: Report = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(&format!("is not a report of `quickbuild analyse`: {error}")))?;
        let selection = report.selection.ok_or_else(|| wrong("has no selection"))?;
        let places: HashMap<&str, usize> = selection
            .trees
            .iter()
            .enumerate()
            .map(|(at, tree)| (tree.tree.as_str(), at))
            .collect();
        let rows = selection.trees.iter().map(|tree| {
            let needs = tree.needs.iter();
            let needs: Option<Vec<OfferId>> = needs
                .map(|need| places.get(need.as_str()).copied())
                .collect();
            Some((tree, needs?))
        });
        let rows: Option<Vec<_>> = rows.collect();
        let rows = rows.ok_or_else(|| wrong("has a selection that is not whole"))?;
        let rows = rows.into_iter().map(|(tree, needs)| {
            let version = Version::parse(&tree.version).ok()?;
            let offer = Offer {
                name: tree.name.clone(),
                version,
                features: None,
                needs,
            };
            Some((offer, tree.seconds))
        });
        let rows: Option<Vec<_>> = rows.collect();
        let rows = rows.ok_or_else(|| wrong("has a version that is none"))?;
        Ok(Self::new(HashMap::new(), rows))
    }

    fn new(by_recipe: HashMap<RecipeHash, OfferId>, rows: Vec<(Offer, f64)>) -> Self {
        let mut by_version: HashMap<(String, String), f64> = HashMap::new();
        let mut by_name: HashMap<String, Vec<f64>> = HashMap::new();
        for (offer, seconds) in &rows {
            let key = (offer.name.clone(), offer.version.to_string());
            let known = by_version.entry(key).or_insert(*seconds);
            *known = known.max(*seconds);
            by_name
                .entry(offer.name.clone())
                .or_default()
                .push(*seconds);
        }
        let all: Vec<f64> = rows.iter().map(|(_, seconds)| *seconds).collect();
        let (offers, seconds): (Vec<Offer>, Vec<f64>) = rows.into_iter().unzip();
        let by_name = by_name.into_iter();
        Self {
            offers: Offers::new(offers),
            by_recipe,
            seconds,
            by_version,
            by_name: by_name.map(|(name, all)| (name, median(all))).collect(),
            typical: if all.is_empty() { 1.0 } else { median(all) },
        }
    }

    /// Seconds of a package: those of its offer, of another offer of this version,
    /// of other versions, or those that are typical here.
    pub(super) fn seconds(&self, offer: Option<OfferId>, name: &str, version: &str) -> f64 {
        if let Some(offer) = offer {
            return self.seconds[offer];
        }
        let key = (name.to_owned(), version.to_owned());
        let known = self.by_version.get(&key).or_else(|| self.by_name.get(name));
        known.copied().unwrap_or(self.typical)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Offers of what is listed with all that it needs.
fn closed(
    mut listed: BTreeMap<RecipeHash, Listed>,
) -> (HashMap<RecipeHash, OfferId>, Vec<(Offer, f64)>) {
    loop {
        let is_there = |recipe: &RecipeHash| listed.contains_key(recipe);
        let broken = listed.iter().filter(|(_, of)| {
            !of.needs.iter().all(is_there) || Version::parse(&of.version).is_err()
        });
        let broken: Vec<RecipeHash> = broken.map(|(recipe, _)| *recipe).collect();
        if broken.is_empty() {
            break;
        }
        for recipe in broken {
            listed.remove(&recipe);
        }
    }
    let places = listed.keys().enumerate();
    let places: HashMap<RecipeHash, OfferId> = places.map(|(at, recipe)| (*recipe, at)).collect();
    let rows = listed.into_values().filter_map(|of| {
        let offer = Offer {
            version: Version::parse(&of.version).ok()?,
            name: of.name,
            features: of.features,
            needs: of.needs.iter().map(|need| places[need]).collect(),
        };
        Some((offer, of.seconds))
    });
    let rows = rows.collect();
    (places, rows)
}

/// What is read of a report of `quickbuild analyse`.
#[derive(Deserialize)]
struct Report {
    selection: Option<Selection>,
}

#[derive(Deserialize)]
struct Selection {
    trees: Vec<Tree>,
}

#[derive(Deserialize)]
struct Tree {
    name: String,
    version: String,
    tree: String,
    seconds: f64,
    needs: Vec<String>,
}
