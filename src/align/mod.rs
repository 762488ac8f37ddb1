//! Which packages of a lock file to move to other versions, so that more of them
//! are built already.
//!
//! An *offer* is a package that is built, with the offers that it was built
//! against: so an offer names the exact versions of a whole tree. Moving a project
//! to a tree means to move each of its packages to the tree's version; what it is
//! worth is the seconds of all packages that then have an offer for all below
//! them.
//!
//! | module | job |
//! |---|---|
//! | [`project`] | a lock file, what it is built of, and what is offered |
//! | [`value`] | what is built already, with some packages moved |
//! | [`rules`] | what may be moved where |
//! | [`search`] | the moves that are worth most |
//!
//! Pure: what is known of versions comes from whoever calls. A proposal is advice;
//! Cargo has the last word.

pub mod project;
pub mod rules;
pub mod search;
pub mod value;

pub use project::{Node, Offer, OfferId, Offers, Package, Project};
pub use rules::{Clash, Knowledge, Objection};
pub use search::{Proposal, Step, glance, propose, reaches};
