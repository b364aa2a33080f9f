//! The facade of the rules: it parses what came, asks whose it is, and routes it. Nothing else.

use crate::base::{Errand, Flow, Instant, Key, Outbox};
use crate::stack::{Counters, Location, Occupancy, Settings};
use std::sync::Arc;

/// One core's SIP element: transactions, proxy core, registrar. Owned by one worker, or by the laboratory.
pub struct Endpoint {
    settings: Arc<Settings>,
    location: Arc<Location>,
    core: u8,
    counters: Counters,
}

impl Endpoint {
    /// `key` is the server's secret, the same on every core; `core` is this one's number, from 0.
    pub fn new(settings: Arc<Settings>, location: Arc<Location>, core: u8, key: Key) -> Endpoint {
        let _ = key;
        Endpoint {
            settings,
            location,
            core,
            counters: Counters::default(),
        }
    }

    /// A message came from a peer: one datagram, or one framed message of a stream.
    pub fn handle(&mut self, now: Instant, flow: Flow, bytes: &[u8], outbox: &mut Outbox) {
        let _ = (now, flow, bytes, outbox, &self.location, self.core);
    }

    /// A message came from another core, with the flow on which that core got it.
    pub fn handle_mail(
        &mut self,
        now: Instant,
        errand: Errand,
        flow: Flow,
        bytes: &[u8],
        outbox: &mut Outbox,
    ) {
        let _ = (now, errand, flow, bytes, outbox);
    }

    /// What was sent to this flow was not delivered (ICMP unreachable, a dead connection): its transactions are told (§16.9).
    pub fn handle_flow_lost(&mut self, now: Instant, flow: Flow, outbox: &mut Outbox) {
        let _ = (now, flow, outbox);
    }

    /// Fires what is due.
    pub fn handle_timers(&mut self, now: Instant, outbox: &mut Outbox) {
        let _ = (now, outbox);
    }

    /// When [`Endpoint::handle_timers`] wants to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// New settings, valid for what comes next; transactions under way keep their targets.
    pub fn handle_config(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn occupancy(&self) -> Occupancy {
        Occupancy::default()
    }
}
