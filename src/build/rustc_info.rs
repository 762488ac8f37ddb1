//! Cargo's cache of what rustc says about itself, `.rustc_info.json`.
//!
//! Cargo empties it when the compiler or a wrapper changes, and asks rustc
//! again, which takes longer than all the rest of a build with nothing to do.
//! So the version for runs with our wrapper is kept beside the other, and a new
//! checkout gets this machine's version at once. Cargo itself checks that it
//! fits (`rustc_fingerprint` in `src/cargo/util/rustc.rs`).

use std::path::PathBuf;

use crate::digest::{Canonical, RecipeHash};
use crate::environment::Environment;
use crate::fs;
use crate::plan::Context;
use crate::store::Store;

fn plain_beside(context: &Context) -> PathBuf {
    context.layout.own_dir().join("rustc-info-plain.json")
}

fn wrapped_beside(context: &Context) -> PathBuf {
    context.layout.own_dir().join("rustc-info-wrapped.json")
}

fn in_store(context: &Context, store: &Store) -> PathBuf {
    let mut key = Canonical::new("quickbuild-rustc-info-1");
    key.text(&context.toolchain.rustc);
    key.text(&context.toolchain.sysroot.to_string_lossy());
    key.option(context.common.workspace_wrapper.as_deref());
    let variable = |environment: &Environment, name| environment.get(name).map(str::to_owned);
    for name in [
        "RUSTC",
        "RUSTUP_TOOLCHAIN",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
    ] {
        key.option(variable(&context.environment, name).as_deref());
    }
    store
        .cache("rustc-info")
        .join(format!("{}.json", RecipeHash::finish(key)))
}

/// Gives a new build directory this machine's version.
pub(super) fn restore(context: &Context, store: &Store) {
    let here = context.layout.rustc_info();
    if !here.exists() {
        copy(&in_store(context, store), &here);
    }
}

/// Keeps the version of a run without the wrapper for other checkouts.
pub(super) fn keep(context: &Context, store: &Store) {
    let kept = in_store(context, store);
    if !kept.exists()
        && let Some(folder) = kept.parent()
        && fs::create_dir_all(folder).is_ok()
    {
        copy(&context.layout.rustc_info(), &kept);
    }
}

/// Before a run with the wrapper.
pub(super) fn use_wrapped(context: &Context) {
    copy(&context.layout.rustc_info(), &plain_beside(context));
    copy(&wrapped_beside(context), &context.layout.rustc_info());
}

/// After a run with the wrapper.
pub(super) fn put_back(context: &Context) {
    copy(&context.layout.rustc_info(), &wrapped_beside(context));
    copy(&plain_beside(context), &context.layout.rustc_info());
}

/// Only shortcuts: where a copy fails, Cargo asks rustc.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    if let Ok(bytes) = fs::read(from) {
        let _ = fs::write_atomic(to, &bytes);
    }
}
