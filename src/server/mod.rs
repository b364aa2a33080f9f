//! The running server: started from a conf, it answers operators, reloads, drains and stops.

mod bindings;
mod drain;
mod log_line;
mod log_queue;
pub mod logger;
mod notify;
mod reload;
pub mod secure;
pub mod start;
mod watch;
