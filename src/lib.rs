//! `quickbuild`: compile a Cargo unit once, find it Fresh ever after.
//!
//! Modules have ranks, and imports go down only (`docs/ARCHITECTURE.md` has
//! the picture, `tests/it/architecture.rs` holds it):
//!
//! | rank | modules | job |
//! |---|---|---|
//! | 0 | [`digest`], [`fs`], [`console`], [`environment`], [`workers`], [`interrupt`], [`markup`] | stable hashes; the only user of `std::fs`; the terminal; variables; many things at the same time; Ctrl-C; pages of HTML |
//! | 1 | [`cargo`], [`config`] | all that is known of Cargo; `quickbuild.toml` |
//! | 2 | [`recipe`], [`output`], [`trust`], [`align`] | what to build; what building it produced; keys and signatures; which versions to move to |
//! | 3 | [`store`], [`substituter`], [`builder`] | the hash-addressed store and its collector; where outputs come from; containers and the local sandbox |
//! | 4 | [`plan`], [`substitute`], [`publish`], [`link`], [`harvest`], [`bridge`] | what is needed; from substituters; to substituters; into `target/`; out of `target/`; the rustc wrapper |
//! | 5 | [`build`], [`serve`], [`analyse`], [`audit`] | one command, from plan to summary; a substituter over HTTP; what many lock files share; where outputs came from |
//! | 6 | [`realise`], [`report`] | recipes made valid in builders; what a client tells a service |
//! | 7 | [`service`] | counts what is wanted |
//! | 8 | [`cli`] | arguments, printing, exit codes |
//!
//! Two rules stand above all: a wrong artefact is worse than a slow build
//! (what cannot be proved, Cargo compiles), and a quickbuild failure never
//! fails a build.

pub mod align;
pub mod analyse;
pub mod audit;
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
pub mod interrupt;
pub mod link;
pub mod markup;
pub mod output;
pub mod plan;
pub mod publish;
pub mod realise;
pub mod recipe;
pub mod report;
pub mod serve;
pub mod service;
pub mod store;
pub mod substitute;
pub mod substituter;
pub mod trust;
pub mod worker;
pub mod workers;
