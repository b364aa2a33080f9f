//! What the loop asks of a kind of traffic.

use crate::stats::Stats;
use crate::sys::Outbox;

pub trait Flow {
    /// Begins one call or request that was due at `scheduled_ns`. False when it cannot: too many are outstanding.
    fn start(
        &mut self,
        scheduled_ns: u64,
        now_ns: u64,
        out: &mut Outbox,
        stats: &mut Stats,
    ) -> bool;
    /// Takes a datagram that came on the socket of this number.
    fn receive(
        &mut self,
        socket: usize,
        raw: &[u8],
        now_ns: u64,
        out: &mut Outbox,
        stats: &mut Stats,
    );
    /// Fires the timers whose time has come.
    fn handle_timers(&mut self, now_ns: u64, out: &mut Outbox, stats: &mut Stats);
    fn next_timer_ns(&self) -> Option<u64>;
    fn outstanding(&self) -> u32;
}

/// The text that all messages share.
#[derive(Clone)]
pub struct Dialect {
    /// The host part of addresses-of-record.
    pub domain: String,
    /// Between the two ends stands only the relay, which changes nothing.
    pub floor: bool,
    /// A header line that brings the relay's datagrams to the size of the proxy's; empty otherwise.
    pub pad: String,
}

impl Dialect {
    pub fn new(domain: &str, floor: bool, pad: usize) -> Dialect {
        // "X-Pad: " and CRLF are part of the size.
        let pad = match pad {
            0 => String::new(),
            bytes => format!("X-Pad: {}\r\n", "p".repeat(bytes.saturating_sub(9))),
        };
        Dialect {
            domain: domain.to_string(),
            floor,
            pad,
        }
    }
}
