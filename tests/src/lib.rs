//! The harness that proves Siltstone.
//!
//! - [`Model`] is what the engine should hold: an ordered map over keyspace, key and commit.
//! - [`Workload`] draws histories of [`Operation`]s from a seed, [`RandomOptions`] the options to run them under.
//! - [`Session`] applies operations to an open database and to the model, and compares every answer.
//! - [`CrashDriver`] crashes a history before every I/O, and checks what is recovered against the prefix contract.
//! - [`FaultDriver`] fails the n-th I/O of a history as a [`FaultPlan`] says, and checks that nothing is lost, nothing
//!   leaks and nothing lies.
//! - [`DamageDriver`] flips bits and cuts files, and checks that every answer is right or an error.
//! - [`Concurrency`] runs many threads over one database, and looks for an order that explains all that they saw.
//! - [`Seeds`] runs any of them over many seeds; a failure prints its seed and the command that replays it.
//!
//! ```
//! use siltstone_tests::{RandomOptions, Session, Workload, WorkloadOptions};
//!
//! # fn main() -> Result<(), siltstone_tests::Violation> {
//! let mut session = Session::in_memory(RandomOptions::new(1))?;
//! for operation in Workload::new(1, WorkloadOptions::default()).take(100) {
//!     session.apply(&operation)?;
//! }
//! session.finish()
//! # }
//! ```

mod concurrency;
mod crash;
mod damage;

mod directory;

mod fault;
mod model;
mod progress;
mod random_options;
mod seeds;
mod session;
mod violation;
mod workload;

pub use concurrency::{Concurrency, ConcurrencyFigures};
pub use crash::{CrashDriver, CrashFigures};

pub use damage::{DamageDriver, DamageFigures};
pub use directory::check_directory;

pub use fault::{FaultDriver, FaultFigures, FaultPlan};
pub use model::{Bounds, CommitIndex, DEFAULT_KEYSPACE, Entries, Incarnation, Model, State, Write};
pub use progress::{Presence, Progress};
pub use random_options::RandomOptions;
pub use seeds::{SEED_COUNT_VARIABLE, SEED_VARIABLE, Seeds, panic_message};
pub use session::{FaultJudge, Session};
pub use violation::Violation;
pub use workload::{CursorStep, KEYSPACES, Operation, Workload, WorkloadOptions};
