//! Which packages a substituter has, from the lookup cache where that holds.

use super::Result;
use super::cache::{Known, LookupCache};
use crate::fs;
use crate::store::Store;
use crate::substituter::{INVENTORY, Inventory, Substituter};

/// What a substituter says that it has now; `None` if it does not say.
pub fn inventory(store: &Store, substituter: &Substituter) -> Result<Option<Inventory>> {
    let place = substituter.place();
    // A folder is as near as the cache.
    if substituter.is_near() {
        let bytes = substituter.inventory_bytes()?;
        return read(bytes.as_deref(), substituter);
    }
    let cache = LookupCache::new(store, &place);
    match cache.document(INVENTORY) {
        Some(Known::Absent) => Ok(None),
        Some(Known::Bytes(bytes)) => read(Some(&bytes), substituter),
        None => {
            let bytes = substituter.inventory_bytes()?;
            cache.keep(INVENTORY, bytes.as_deref());
            read(bytes.as_deref(), substituter)
        }
    }
}

fn read(bytes: Option<&[u8]>, substituter: &Substituter) -> Result<Option<Inventory>> {
    let url = substituter.file(INVENTORY);
    let parsed = bytes.map(|bytes| Inventory::parse(bytes, &url));
    Ok(parsed.transpose()?)
}

/// The file in which the last answer of a substituter is kept, however old.
pub fn kept_inventory(store: &Store, substituter: &Substituter) -> Option<Vec<u8>> {
    let cache = LookupCache::new(store, &substituter.place());
    let bytes = fs::read_optional(&cache.file(INVENTORY));
    bytes.ok().flatten().filter(|bytes| !bytes.is_empty())
}
