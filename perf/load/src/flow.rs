//! What the loop asks of a kind of traffic.

use crate::end::Body;
use crate::stats::Stats;
use crate::wire::{Link, Outbox};

pub trait Flow {
    /// Begins one call or request that was due at `scheduled_ns`. False when it cannot: too many are outstanding.
    fn start(&mut self, scheduled_ns: u64, now_ns: u64, out: &mut Outbox, stats: &mut Stats) -> bool;
    /// Takes a message that came by this link.
    fn receive(&mut self, link: Link, raw: &[u8], now_ns: u64, out: &mut Outbox, stats: &mut Stats);
    /// A connection is gone, and we did not close it.
    fn lost(&mut self, link: Link, out: &mut Outbox, stats: &mut Stats);
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
    /// The answerer is a next hop: the Request-URI of an INVITE reaches it as it left the caller, and nobody is registered.
    pub routed: bool,
    /// How many proxies a request may pass on its way to the answerer.
    pub hops: usize,
    /// The session description that INVITE and 200 carry.
    pub body: &'static Body,
    /// A header line that brings the relay's datagrams to the size of the proxy's; empty otherwise.
    pub pad: String,
}

impl Dialect {
    pub fn new(domain: &str, body: &'static Body, floor: bool, routed: bool, hops: usize, pad: usize) -> Dialect {
        // "X-Pad: " and CRLF are part of the size.
        let pad = match pad {
            0 => String::new(),
            bytes => format!("X-Pad: {}\r\n", "p".repeat(bytes.saturating_sub(9))),
        };
        Dialect { domain: domain.to_string(), body, floor, routed, hops, pad }
    }
}
