//! What the loop asks of a kind of traffic.

use crate::stats::Stats;
use crate::wire::{Link, Outbox};

/// The moment, and where a flow speaks and counts.
pub struct Turn<'a> {
    pub now_ns: u64,
    pub out: &'a mut Outbox,
    pub stats: &'a mut Stats,
}

pub trait Flow {
    /// Begins one call or request that was due at `scheduled_ns`. False when it cannot: too many are outstanding.
    fn start(&mut self, scheduled_ns: u64, turn: &mut Turn) -> bool;
    /// Takes a message that came by this link.
    fn receive(&mut self, link: Link, raw: &[u8], turn: &mut Turn);
    /// A connection is gone, and we did not close it.
    fn lost(&mut self, link: Link, turn: &mut Turn);
    /// Fires the timers whose time has come.
    fn handle_timers(&mut self, turn: &mut Turn);
    fn next_timer_ns(&self) -> Option<u64>;
    fn outstanding(&self) -> u32;
}
