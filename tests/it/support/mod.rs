//! A place of its own for each test: [`TestEnv`] has folders and variables,
//! [`Project`] is a copy of a fixture in it, [`Outcome`] is how a command ended,
//! [`Server`] serves files over HTTP, well or badly, [`GitHub`],
//! [`Buckets`] and [`Uploads`] are servers that are written to, `programs` starts other people's,
//! and [`Serving`] is `quickbuild serve`.

pub(crate) mod browser;
mod buckets;
mod docker;
mod env;
mod files;
mod github;
pub(crate) mod http;
mod mount;
mod outcome;
pub(crate) mod postgres;
pub(crate) mod programs;
mod registry;
mod server;
mod serving;
mod skip;
mod uploads;

pub(crate) use buckets::{Buckets, Cloud};
pub(crate) use docker::{BUILDER, NIGHTLY_BUILDER, builder_image, nightly_builder_image};
pub(crate) use env::{Project, TestEnv, kill_group, nightly};
pub(crate) use files::{Snapshot, copy_tree, edit, set_time, touch, walk};
pub(crate) use github::{GitHub, TOKEN};
pub(crate) use mount::Mount;
pub(crate) use outcome::{Outcome, names};
pub(crate) use registry::{Registry, git};
pub(crate) use server::{Mood, Server};
pub(crate) use serving::{Response, Serving, head};
pub(crate) use skip::{note, skipped};
pub(crate) use uploads::{Uploads, WRITE_TOKEN};
