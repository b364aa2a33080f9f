//! The cupboard: what every other room may use and what knows nothing of SIP. Pure: no clock, no socket, no thread, no
//! random source; time and randomness come in as numbers.

pub mod arena;
pub mod bans;
pub mod chunks;
pub mod counters;
pub mod dns;
pub mod flow;
pub mod guesses;
pub mod hash;
pub mod list;
pub mod live_connections;
pub mod load;
pub mod log_budget;
pub mod lot;
pub mod marks;
pub mod metric;
pub mod network;
pub mod outbox;
pub mod pool;
pub mod proved;
pub mod rates;
pub mod rng;
pub mod shares;
pub mod sources;
pub mod span;
pub mod time;
pub mod wheel;

pub use arena::{Arena, Id};
pub use bans::{Bans, Lasting};
pub use counters::Counted;
pub(crate) use counters::counters;
pub use flow::{Channel, Flow, Transport};
pub use guesses::{Guess, Guesses};
pub use hash::{BuildPrehashed, Key};
pub use live_connections::{LiveConnections, ProvedNames};
pub use load::Load;
pub use log_budget::LogBudget;
pub use lot::{Draw, Shed};
pub use marks::Marks;
pub use network::Network;
pub use outbox::{Errand, Held, Introduction, Outbox, Parcel, Transmit};
pub use pool::{Blob, Pool};
pub use proved::Proved;
pub use rates::Rates;
pub use rng::Rng;
pub use shares::{ShareHolder, Shares};
pub use sources::{Hearing, Question, Sources};
pub use span::Span;
pub use time::Instant;
pub use wheel::{TimerId, Wheel};

#[cfg(all(test, debug_assertions))]
pub(crate) mod tests {
    /// A check finds what is wrong, and says it.
    #[track_caller]
    pub fn assert_panics(what: &str, check: impl FnOnce()) {
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        let why = checked.expect_err(what);
        let message = match why.downcast_ref::<&str>() {
            Some(text) => (*text).to_owned(),
            None => why.downcast_ref::<String>().expect("words").clone(),
        };
        assert!(message.contains(what), "{message:?} instead of {what:?}");
    }
}
