//! The rules. Time, randomness and bytes come in; transmits and timers go out. Pure: no clock, no socket, no thread.

mod admission;
mod answer;
pub mod auth;
mod bounds;
pub mod branch;
mod callee;
pub mod calls;
#[cfg(debug_assertions)]
mod check;
mod condition;
pub mod cookie;
mod core;
pub mod counters;
mod dialog;
pub mod element;
pub mod endpoint;
pub mod facts;
mod gates;
pub mod health;
mod hop_uri;
pub mod identity;
pub mod location;
mod log_event;
pub mod moved;
pub mod names;
pub mod overload;
pub mod passage;
pub mod peer_flows;
mod preprocess;
pub mod proxy;
pub mod refusal;
pub mod registrar;
mod request;
pub mod route;
pub mod route_counters;
pub mod settings;
mod source_proof;
pub mod token;
pub mod transaction;
mod turn;
pub mod whose;

pub use counters::{Counters, Occupancy};
pub use element::Element;
pub use endpoint::Endpoint;
pub use location::Location;
pub use settings::Settings;
