//! The laboratory: whole networks of servers, phones and strangers from one seed, on a virtual clock and a bad network, under
//! the eyes of an auditor. Pure: what happens is a function of the seed.
//!
//! [`run`] takes a seed and a number of steps. A failure names the rule, the server, the step and the last messages; the same
//! seed gives the same run. [`Sabotage`] breaks a rule on purpose, to see that the auditor notices.

#![forbid(unsafe_code)]

mod address;
mod addresses;
mod air;
mod auditor;
mod bearer;
mod bindings;
mod callee;
mod caller;
mod digest;
mod gang;
mod hashing;
mod hostile;
mod impostor;
mod intent;
mod laboratory;
mod link;
mod names;
mod phone;
mod plan;
mod proving;
mod reading;
mod rule;
mod sabotage;
mod scenario;
mod server;
mod shared;
mod statistics;
mod streams;
mod text;
mod writing;

pub use laboratory::{Failure, Report, run, run_taped, run_traced};
pub use rule::Rule;
pub use sabotage::Sabotage;
pub use shared::{SharedFailure, SharedReport, SharedSabotage, run_shared};
pub use statistics::Statistics;
