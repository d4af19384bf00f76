//! The harness that proves Siltstone.
//!
//! - [`Model`] is what the engine should hold: an ordered map over keyspace, key and commit.
//! - [`Workload`] draws histories of [`Operation`]s from a seed, [`RandomOptions`] the options to run them under.
//! - [`Session`] applies operations to an open database and to the model, and compares every answer.
//! - [`Simulation`] does everything at once from one seed: operations, background work, crashes, faults, full disks, time; it
//!   cuts a history that fails to what it needs.
//! - [`Metamorphic`] runs one history under many options, and compares all that they answer.
//! - [`CrashDriver`] crashes a history before every I/O, and checks what is recovered against the prefix contract.
//! - [`FaultDriver`] fails the n-th I/O of a history as a [`FaultPlan`] says, and checks that nothing is lost, nothing
//!   leaks and nothing lies.
//! - [`Concurrency`] runs many threads over one database, and looks for an order that explains all that they saw.
//! - [`ApplicationCrash`] crashes an application of yours at every I/O, and fails every I/O of it: see below.
//! - [`FuzzTarget`] has hostile bytes read by everything that reads bytes.
//! - [`DamageDriver`] flips bits, cuts, exchanges, copies and removes files, and checks that every answer is right or an error.
//! - [`ProcessDriver`] kills a process that writes, and opens what it left.
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
//!
//! # Prove your application
//!
//! You have an application over Siltstone, and an invariant that must hold whatever happens: every confirmed order is there,
//! no seat is sold twice, the money adds up. Say how the application works and what must hold:
//!
//! ```
//! use siltstone::{WriteBatch, WriteOptions};
//! use siltstone_tests::{ApplicationCrash, Promises};
//!
//! let suite = ApplicationCrash::new(
//!     // What the application does, and which of it has been confirmed to its users.
//!     |db, _seed, confirmed: &Promises<u32>| {
//!         for order in 0..4u32 {
//!             let mut batch = WriteBatch::new();
//!             batch.put(format!("order/{order}"), "a book").put(format!("bill/{order}"), "12.80");
//!             db.write_with(batch, &WriteOptions::sync())?;
//!             confirmed.synced(order);
//!         }
//!         Ok(())
//!     },
//!     // What must hold after any crash.
//!     |db, confirmed| {
//!         for order in confirmed {
//!             db.get(format!("order/{order}"))?.ok_or("a confirmed order is lost")?;
//!         }
//!         let (orders, bills) = (db.prefix("order/")?.count(), db.prefix("bill/")?.count());
//!         if orders == bills { Ok(()) } else { Err("an order without its bill".into()) }
//!     },
//! );
//! let figures = suite.run(1)?;
//! assert!(figures.points > 4 && figures.faults > 4);
//! # Ok::<(), siltstone_tests::Violation>(())
//! ```
//!
//! It is run on a simulated disk, crashed before every I/O, with several outcomes of what was not synced, also in the
//! middle of a recovery; and every I/O is failed in every way, once and for good. `examples/bank.rs` is such an application,
//! and with `--plant` one with a bug that is found.

mod application;
mod concurrency;
mod crash;
mod damage;

mod directory;

mod fault;
mod fuzz;
mod metamorphic;
mod model;
mod process;
mod progress;
mod random_options;
mod seeds;
mod session;
mod simulation;
mod violation;
mod workload;

pub use application::{ApplicationCrash, ApplicationFigures, ApplicationResult, Promises};
pub use concurrency::{Concurrency, ConcurrencyFigures};
pub use crash::{CrashDriver, CrashFigures, Loss};

pub use damage::{DamageDriver, DamageFigures};
pub use directory::check_directory;

pub use fault::{FaultDriver, FaultFigures, FaultPlan};
pub use fuzz::FuzzTarget;
pub use metamorphic::{Metamorphic, MetamorphicFigures};
pub use model::{Bounds, CommitIndex, DEFAULT_KEYSPACE, Entries, Incarnation, Model, State, Write};
pub use process::{ProcessDriver, ProcessFigures, write_until_killed};
pub use progress::{Presence, Progress};
pub use random_options::{OptionGroup, RandomOptions};
pub use seeds::{SEED_COUNT_VARIABLE, SEED_VARIABLE, Seeds, panic_message};
pub use session::{FaultJudge, Session, Transcript};
pub use simulation::{Crash, Simulation, SimulationFailure, SimulationFigures, Step, StepSet, shrink};
pub use violation::Violation;
pub use workload::{CursorStep, KEYSPACES, Operation, Workload, WorkloadOptions};
