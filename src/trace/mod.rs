//! Calls that can be traced: copies of messages and of the decisions about them, for operators and for a collector (HEP).
//!
//! Off by default. While off, a worker reads one flag in each turn ([`Taps::is_open`]). Every queue that leaves a worker is
//! bounded, and what does not fit is counted. Credentials and media keys are masked in the copy, before it leaves the worker
//! ([`mask`]).

pub mod event;
pub mod exporter;
pub mod filter;
pub mod hep;
pub mod mask;
pub mod queue;
pub mod reading;
pub mod session;
pub mod taps;
pub mod visible;

pub use event::{Event, Kind, Way};
pub use filter::Wanted;
pub use session::{Batch, End, Query, Session};
pub use taps::{Tap, Taps, TraceCounters};
