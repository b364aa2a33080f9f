//! The rules. Time, randomness and bytes come in; transmits and timers go out. Pure: no clock, no socket, no thread.

pub mod auth;
pub mod branch;
pub mod calls;
#[cfg(debug_assertions)]
mod check;
pub mod cookie;
pub mod counters;
pub mod drain;
pub mod endpoint;
pub mod facts;
pub mod health;
pub mod identity;
pub mod location;
mod log_event;
pub mod moved;
pub mod names;
pub mod overload;
pub mod passage;
pub mod peer_flows;
pub mod proxy;
pub mod registrar;
pub mod route;
pub mod settings;
pub mod token;
pub mod transaction;
pub mod whose;

pub use counters::{Counters, Occupancy};
pub use endpoint::Endpoint;
pub use location::Location;
pub use settings::Settings;
