//! From the first build to the hundredth: in each phase only what has to be
//! compiled is compiled, and plain Cargo agrees that the rest is Fresh.
//!
//! Each test keeps one store for all of its phases, as a user does.

mod crates;
mod lints;
mod macros;
mod outside;
mod scripts;
mod settings;
mod sources;
mod store;
mod workspace;
