//! What a worker does when another process takes its place, or when it takes the place of another's.

use super::link::Link;
use super::mailbox::{Estate, Letters};
use super::{LINK, Worker};
use crate::base::Instant;
use crate::stack::Element;
use crate::stack::counterpart::Counterpart;
use std::io;
use std::os::fd::OwnedFd;

impl<E: Element> Worker<E> {
    /// Leaves the listeners, and whatever is new, to the process at the other end of the link.
    pub(super) fn hand_over(&mut self, now: Instant, end: OwnedFd) -> io::Result<Estate> {
        if self.mailbox.is_joined() {
            return Err(io::Error::other("another process is joined already"));
        }
        let link = Link::new(end, self.live.clone(), None, self.poll.registry(), LINK)?;
        self.wires.rest()?;
        self.mailbox.join(Some(link));
        self.element.handle_counterpart(Some(Counterpart::Successor));
        let mut estate = Estate::default();
        self.element.bequeath(now, &mut estate.rules);
        (estate.connections, estate.proved) = self.wires.living();
        Ok(estate)
    }

    /// Serves again, and handles what was sent to the successor, whose end of the link this is.
    pub(super) fn resume(&mut self, now: Instant, successors_end: Option<OwnedFd>) -> io::Result<()> {
        if self.has_let_go {
            return Err(io::Error::other("the successor serves already"));
        }
        let link = self.mailbox.join(None);
        self.taken = None;
        self.forget_others(now);
        self.element.handle_counterpart(None);
        if let (Some(link), Some(end)) = (link, successors_end) {
            let mut letters = Letters::default();
            self.mailbox.collect_from_end(*link, end, &mut letters);
            self.process(now, &letters);
        }
        match self.wires.is_resting() {
            true => self.wires.resume(),
            false => Ok(()),
        }
    }

    pub(super) fn collect_from_link(&mut self, now: Instant, letters: &mut Letters) {
        if self.mailbox.collect_from_link(letters) {
            self.process(now, letters);
        }
        if self.mailbox.link().is_some_and(|link| link.has_ended()) {
            self.lose_counterpart(now);
        }
    }

    /// The other process has ended: with it its transactions and connections.
    fn lose_counterpart(&mut self, now: Instant) {
        let link = self.mailbox.join(None);
        let was_predecessor = link.is_some_and(|link| link.leads_to_predecessor());
        self.element.handle_counterpart(match was_predecessor {
            true => None,
            false => Some(Counterpart::Lost),
        });
        self.forget_others(now);
    }

    /// Forgets the connections of the same core of the other process.
    fn forget_others(&mut self, now: Instant) {
        let core = self.core + self.mailbox.cores();
        for flow in self.live.forget_others(core as u8) {
            self.element.handle_flow_lost(now, flow, &mut self.outbox);
            self.mailbox.write_lost_of_others(flow);
        }
    }

    /// The successor says what it serves.
    pub(super) fn note_taken(&mut self, listeners: &[u8]) {
        let pairs = listeners.chunks_exact(2);
        self.taken = Some(pairs.map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect());
        self.release();
    }

    /// The successor serves: what it has taken is left to it for good.
    pub(super) fn let_go(&mut self) {
        self.has_let_go = true;
        self.release();
    }

    fn release(&mut self) {
        if let (true, Some(taken)) = (self.has_let_go, self.taken.take())
            && let Err(error) = self.wires.release(&taken)
        {
            log::error!("worker {}: listeners that the successor does not have are not served: {error}", self.core);
        }
    }
}
