//! A place of its own for each test: [`TestEnv`] has folders and variables,
//! [`Project`] is a copy of a fixture in it, [`Outcome`] is how a command ended,
//! [`Server`] serves files over HTTP, well or badly, and [`Serving`] is
//! `quickbuild serve`.

mod docker;
mod env;
mod files;
mod outcome;
mod registry;
mod server;
mod serving;
mod skip;

pub(crate) use docker::{BUILDER, builder_image};
pub(crate) use env::{Project, TestEnv, nightly};
pub(crate) use files::{Snapshot, copy_tree, edit, set_time, touch, walk};
pub(crate) use outcome::{Outcome, names};
pub(crate) use registry::{Registry, git};
pub(crate) use server::{Mood, Server};
pub(crate) use serving::{Response, Serving, head};
pub(crate) use skip::skipped;
