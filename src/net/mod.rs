//! The wires (RFC 3261 §18): sockets in, bytes and flows out, and the other way round. Knows nothing of the rules.

pub mod backlog;
pub mod counters;
pub mod interfaces;
pub mod steer;
#[allow(unsafe_code)]
pub mod sys;
pub mod tls;
pub mod udp;
pub mod wires;

pub use counters::{ListenerCounters, Undeliverable};
pub use udp::{BindError, Buffers, Udp, Undelivered};
pub use wires::Wires;
