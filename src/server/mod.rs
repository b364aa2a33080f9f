//! The running server: started from a conf, it answers operators, reloads, drains and stops.

mod announce;
mod api;
mod bindings;
mod drain;
mod handover;
mod health;
mod lock;
mod log_line;
mod log_queue;
pub mod logger;
mod notify;
mod records;
mod reload;
mod running;
mod secure;
mod sharing;
mod start;
mod targets;
mod typed;
mod wait;
mod watch;

pub use handover::child::note_own_program;
pub use handover::successor::Successor;
pub use start::run;
