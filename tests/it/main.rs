//! Integration tests: the program as users run it, on projects of all kinds.
//!
//! * `architecture`: what the sources may import.
//! * `phases`: cold, no-op, second checkout, relocated, changed, checked.
//! * `recipes`: recipe files, and workspaces generated from them.
//! * `bad_days`: damage, full disks, kills, locks, two processes at once.
//!
//! Freshness is proved as Cargo sees it: plain `cargo` with
//! `--message-format=json` has to find every unit `"fresh": true`.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

mod architecture;
mod bad_days;
mod phases;
mod recipes;
mod support;
