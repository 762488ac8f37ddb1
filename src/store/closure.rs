//! Some outputs with all that they refer to.

use std::collections::BTreeMap;

use super::verify::Kind;
use super::{Result, Store, is_store_name};
use crate::digest::OutputId;
use crate::output::Output;

/// Outputs by store name, or the first one of them that is absent or useless.
pub(super) type Closure = std::result::Result<BTreeMap<String, Output>, (String, Kind)>;

/// The named outputs and all that they refer to.
pub(super) fn closure(store: &Store, names: &[String]) -> Result<Closure> {
    let by_id = store_names(store)?;
    let mut outputs = BTreeMap::new();
    let mut open = names.to_vec();
    while let Some(name) = open.pop() {
        if outputs.contains_key(&name) {
            continue;
        }
        let output = Some(&name).filter(|name| is_store_name(name));
        let Some(output) = output.and_then(|name| store.output(name)) else {
            return Ok(Err((name, Kind::NoManifest)));
        };
        for &id in &output.references {
            let Some(reference) = by_id.get(&id) else {
                return Ok(Err((name, Kind::Reference { id })));
            };
            open.push(reference.clone());
        }
        outputs.insert(name, output);
    }
    Ok(Ok(outputs))
}

/// The store name of each id.
pub(super) fn store_names(store: &Store) -> Result<BTreeMap<OutputId, String>> {
    let names = store.names()?.into_iter();
    let pairs = names.filter_map(|name| Some((name.split('-').next()?.parse().ok()?, name)));
    Ok(pairs.collect())
}
