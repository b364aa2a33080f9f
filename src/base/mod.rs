//! The cupboard: what every other room may use and what knows nothing of SIP. Pure: no clock, no socket, no thread, no
//! random source; time and randomness come in as numbers.

pub mod arena;
pub mod chunks;
pub mod dns;
pub mod flow;
pub mod hash;
pub mod load;
pub mod log_budget;
pub mod metric;
pub mod outbox;
pub mod pool;
pub mod proved;
pub mod rng;
pub mod roll;
pub mod sources;
pub mod time;
pub mod wheel;

pub use arena::{Arena, Id};
pub use flow::{Channel, Flow, Transport};
pub use hash::Key;
pub use load::Load;
pub use log_budget::LogBudget;
pub use outbox::{Errand, Held, Introduction, Outbox, Parcel, Span, Transmit};
pub use pool::{Blob, Pool};
pub use proved::Proved;
pub use rng::Rng;
pub use roll::{ProvedNames, Roll};
pub use sources::Sources;
pub use time::Instant;
pub use wheel::{TimerId, Wheel};
