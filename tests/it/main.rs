//! Integration tests: the program as users run it, on projects of all kinds.
//!
//! * `align`: lock files that move to what is prebuilt.
//! * `analyse`: lock files, real and broken.
//! * `architecture`: what the sources may import.
//! * `phases`: cold, no-op, second checkout, relocated, changed, checked.
//! * `builders`: images are made, pinned and checked.
//! * `realise`: real containers, hostile build scripts, interruptions.
//! * `recipes`: recipe files, and workspaces generated from them.
//! * `bad_days`: damage, full disks, kills, locks, two processes at once.
//! * `keys`: who has signed which output.
//! * `substituters`: outputs published, fetched, and refused.
//! * `ci`: what the action and the page on CI say, done.
//! * `serve`: a server of our own.
//! * `service`: what is wanted, counted on both databases.
//!
//! Freshness is proved as Cargo sees it: plain `cargo` with
//! `--message-format=json` has to find every unit `"fresh": true`.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

mod align;
mod analyse;
mod architecture;
mod bad_days;
mod builders;
mod ci;
mod keys;
mod phases;
mod realise;
mod recipes;
mod serve;
mod service;
mod substituters;
mod support;
