//! `quickbuild`: compile a Cargo unit once, find it Fresh ever after.
//!
//! Modules have ranks, and imports go down only (`docs/ARCHITECTURE.md` has
//! the picture, `tests/it/architecture.rs` holds it):
//!
//! | rank | modules | job |
//! |---|---|---|
//! | 0 | [`digest`], [`fs`], [`console`], [`environment`] | stable hashes; the only user of `std::fs`; the terminal; variables |
//! | 1 | [`cargo`], [`config`] | all that is known of Cargo; `quickbuild.toml` |
//! | 2 | [`recipe`], [`output`] | what to build; what building it produced |
//! | 3 | [`store`], [`builder`] | the hash-addressed store and its collector; containers and the local sandbox |
//! | 4 | [`plan`], [`link`], [`harvest`], [`bridge`] | what is needed; into `target/`; out of `target/`; the rustc wrapper |
//! | 5 | [`build`] | one command, from plan to summary |
//! | 6 | [`realise`] | makes recipes valid |
//! | 7 | [`cli`] | arguments, printing, exit codes |
//!
//! Two rules stand above all: a wrong artefact is worse than a slow build
//! (what cannot be proved, Cargo compiles), and a quickbuild failure never
//! fails a build.

pub mod bridge;
pub mod build;
pub mod builder;
pub mod cargo;
pub mod cli;
pub mod config;
pub mod console;
pub mod digest;
pub mod environment;
pub mod fs;
pub mod harvest;
pub mod link;
pub mod output;
pub mod plan;
pub mod realise;
pub mod recipe;
pub mod store;
