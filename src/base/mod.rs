//! What every other module may use and what knows nothing of SIP. Pure: no clock, no socket, no thread, no random source; time and
//! randomness are passed in as numbers.

mod arena;
pub(crate) mod bans;
pub mod calendar;
mod chunks;
mod counters;
pub mod dns;
mod flow;
pub(crate) mod guesses;
pub(crate) mod hash;
mod keyed;
pub(crate) mod list;
mod live_connections;
mod load;
mod log_budget;
pub(crate) mod lot;
mod marks;
pub mod metric;
mod network;
mod notes;
mod outbox;
pub mod pack;
mod pool;
pub(crate) mod proved;
mod rates;
mod rng;
mod shares;
pub(crate) mod source;
pub(crate) mod sources;
mod span;
mod time;
mod wheel;

pub use arena::{Arena, Id, OptionalId};
pub(crate) use bans::{Bans, Lasting};
pub use counters::Counted;
pub(crate) use counters::counters;
pub use flow::{Channel, Flow, Transport};
pub(crate) use guesses::Guesses;
pub use hash::{BuildPrehashed, Key};
pub use live_connections::{LiveConnections, ProvedNames};
pub use load::Load;
pub(crate) use log_budget::LogBudget;
pub(crate) use lot::{Draw, Shed};
pub(crate) use marks::Marks;
pub use network::Network;
pub use notes::{NoteKind, Notes};
pub use outbox::{Errand, Held, Introduction, Outbox, Parcel, Transmit};
pub(crate) use pool::{Blob, Pool};
pub(crate) use proved::Proved;
pub(crate) use rates::Rates;
pub use rng::Rng;
pub use shares::{ShareHolder, Shares};
pub use sources::{Hearing, Question, Sources};
pub use span::Span;
pub use time::{Instant, Timestamp};
pub(crate) use wheel::{TimerId, Wheel};

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
