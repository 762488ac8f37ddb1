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

mod matching;
mod serve;
mod session;
mod wrapper;

pub use matching::{Entry, Question};
pub use serve::{Served, serve};
pub use session::{Record, Session, SessionError, SessionFile, sweep, user_wrapper};
pub use wrapper::{SESSION_VARIABLE, WRAPPER_NAME, run as run_wrapper};
