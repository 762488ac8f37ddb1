//! Makes recipes valid.
//!
//! | module | job |
//! |---|---|
//! | [`generate`] | from recipes to a workspace that Cargo compiles to just them |

pub mod generate;
