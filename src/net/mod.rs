//! The wires (RFC 3261 §18): sockets in, bytes and flows out, and the other way round. Knows nothing of the rules.

pub mod age_list;
mod backlog;
pub mod connection;
pub(crate) mod counters;
mod holders;
pub mod interfaces;
mod limits;
mod listen;
mod overlong;
mod pool;
mod pressure;
pub mod proxy_header;
mod resting;
mod shed;
mod state;
pub(crate) mod steer;
pub mod streams;
#[allow(unsafe_code)]
pub mod sys;
pub mod table;
pub mod tls;
mod udp;
mod wires;

pub(crate) use connection::Arrival;
pub(crate) use counters::{ListenerCounters, StreamCounters, Undeliverable};
pub use limits::Limits;
pub(crate) use listen::Listener;
pub use state::State;
pub(crate) use streams::Streams;
pub(crate) use udp::{BindError, Buffers, Udp, Undelivered};
pub(crate) use wires::{Socket, Wires};
