//! What a worker reports of itself: its counters, and what passed on its listeners.

use super::delay::Histogram;
use super::held::HeldCounters;
use super::turns::LongTurns;
use crate::base::counters;
use crate::net::{ListenerCounters, StreamCounters};
use crate::stack::{Counters, Occupancy};

counters! {
    /// The counters of one worker, or the sums over all.
    #[derive(Clone, Debug, Default)]
    pub struct Numbers {
        pub counters: Counters,
        pub occupancy: Occupancy,
        pub streams: StreamCounters,
        pub delay: Histogram,
        pub mail: MailCounters,
        pub held: HeldCounters,
        /// Requests that were not read because their source sends too many.
        pub shut_out: u64,
        /// Requests that were not read because their source is banned.
        pub banned: u64,
        /// Banned sources on all cores; reported by the first worker only.
        pub banned_sources: usize,
    }
}

/// What one worker replies to a request for its counters.
#[derive(Clone, Debug)]
pub struct Report {
    /// The worker's number, from 0.
    pub core: usize,
    pub numbers: Numbers,
    /// By listener.
    pub listeners: Vec<ListenerCounters>,
    pub cpu_ns: u64,
    pub turns: u64,
    /// It has a link with the other process of a restart.
    pub is_joined: bool,
    pub long_turns: LongTurns,
}

counters! {
    /// One core's mail counters.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MailCounters {
        pub sent: u64,
        pub received: u64,
        /// The recipient's pigeonhole was full.
        pub dropped_full: u64,
        /// There is no such core.
        pub dropped_unknown: u64,
        /// Locks taken: at most one for each recipient and turn.
        pub deliveries: u64,
    }
}
