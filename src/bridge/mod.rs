//! The bridge: what happens between Cargo and the compiler when something has
//! to be learned or compiled.
//!
//! Cargo alone knows the ids of its units. So where a unit's name is not known
//! yet, Cargo runs with our wrapper in front of rustc, which finds the unit in
//! the plan by what the command line says and then
//!
//! * serves it, if the store has an output for it: the files are put where rustc
//!   would have written them, and Cargo writes the fingerprint itself; or
//! * becomes rustc, after noting under which id Cargo compiles the unit.
//!
//! `docs/formats/emissions.md` describes the files of a session, by which any
//! tool can ask for and give artefacts:
//!
//! ```text
//! <build dir>/.quickbuild/
//!   rustc-wrapper                the wrapper: a link to this program
//!   sessions/<pid>/
//!     session.json               what is the same for all units
//!     crates/<crate name>.json   the units of that crate
//!     records/<unit id>.json     a unit that Cargo asked rustc for
//! ```
//!
//! A build script's run is not a compilation, so the wrapper cannot stand in
//! for it; [`replay`](run_replay) does.

mod matching;
mod replay;
mod serve;
mod session;
mod wrapper;

pub use matching::{Entry, Question};
pub use replay::{is_replay, run as run_replay};
pub(crate) use replay::{remove as remove_replay, uncover as uncover_script};
pub use session::{Record, Records, Session, SessionError, SessionFile, sweep, user_wrapper};
pub use wrapper::{SESSION_VARIABLE, WRAPPER_NAME, run as run_wrapper};
