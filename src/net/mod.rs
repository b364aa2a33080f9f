//! The wires (RFC 3261 §18): sockets in, bytes and flows out, and the other way round. Knows nothing of the rules.

pub mod age_list;
pub mod backlog;
pub mod connection;
pub mod counters;
pub mod holders;
pub mod interfaces;
pub mod limits;
pub mod listen;
pub mod overlong;
pub mod pool;
pub mod pressure;
mod shed;
pub mod state;
pub mod steer;
pub mod streams;
#[allow(unsafe_code)]
pub mod sys;
pub mod table;
pub mod tls;
pub mod udp;
pub mod wires;

pub use connection::Arrival;
pub use counters::{ListenerCounters, StreamCounters, Undeliverable};
pub use limits::Limits;
pub use listen::Listener;
pub use state::State;
pub use streams::Streams;
pub use udp::{BindError, Buffers, Udp, Undelivered};
pub use wires::{Socket, Wires};
