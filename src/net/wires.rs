//! All sockets of one core: which of them hold something, a bounded bite from each, and one batch to each at a turn's end.

use super::counters::{ListenerCounters, Undeliverable};
use super::sys::{Datagram, Inbound, Outbound};
use super::udp::{Udp, Undelivered};
use crate::base::Outbox;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::io;
use std::net::SocketAddr;

/// The sockets of one core, by the listener's position in the conf.
pub struct Wires {
    sockets: Vec<Wire>,
    /// Listeners that may hold datagrams, in the order in which they are served. mio tells it once (edge-triggered): who is on
    /// this list stays there until his socket is seen empty.
    ready: Vec<u16>,
    inbound: Inbound,
    outbound: Outbound,
    undelivered: Undelivered,
    /// Transmits that name a listener which does not exist.
    misdirected: u64,
    registry: Registry,
}

struct Wire {
    udp: Udp,
    is_ready: bool,
    has_icmp_errors: bool,
    awaits_room: bool,
    /// Which of the outbox's transmits leave here in this turn.
    outgoing: Vec<u32>,
}

impl Wires {
    /// Registers the sockets, in the order of the listeners, with the poll that `registry` belongs to, under the tokens from 0.
    pub fn new(sockets: Vec<Udp>, batch: usize, registry: Registry) -> io::Result<Wires> {
        for (listener, udp) in sockets.iter().enumerate() {
            registry.register(
                &mut SourceFd(&udp.fd()),
                Token(listener),
                Interest::READABLE,
            )?;
        }
        let wires = sockets.into_iter().map(|udp| Wire {
            udp,
            is_ready: false,
            has_icmp_errors: false,
            awaits_room: false,
            outgoing: Vec::new(),
        });
        Ok(Wires {
            sockets: wires.collect(),
            ready: Vec::new(),
            inbound: Inbound::new(batch),
            outbound: Outbound::new(batch),
            undelivered: Undelivered::default(),
            misdirected: 0,
            registry,
        })
    }

    pub fn listeners(&self) -> usize {
        self.sockets.len()
    }

    /// Where a listener is bound.
    pub fn address(&self, listener: usize) -> Option<SocketAddr> {
        Some(self.sockets.get(listener)?.udp.address())
    }

    /// Takes in what the poll says about one socket.
    pub fn note(&mut self, event: &Event) {
        let Token(number) = event.token();
        let Some(wire) = self.sockets.get_mut(number) else {
            return;
        };
        if event.is_error() {
            wire.has_icmp_errors = true;
        }
        // An error may have cut a batch short, so the socket is looked at again.
        if (event.is_readable() || event.is_error()) && !wire.is_ready {
            wire.is_ready = true;
            self.ready.push(number as u16);
        }
        if event.is_writable() && wire.udp.is_waiting() {
            let (outbound, undelivered) = (&mut self.outbound, &mut self.undelivered);
            wire.udp.send_waiting(outbound, undelivered);
            follow_interest(&self.registry, wire, number);
        }
    }

    /// True when there is something to do before the next event.
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty() || !self.undelivered.is_empty()
    }

    /// Listeners that are to be served in this turn, by position in the list of the ready.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes one batch from a ready listener; returns it and how many datagrams came.
    pub fn receive(&mut self, position: usize) -> (u16, usize) {
        let Some(&listener) = self.ready.get(position) else {
            return (0, 0);
        };
        let Some(wire) = self.sockets.get_mut(listener as usize) else {
            return (listener, 0);
        };
        if wire.has_icmp_errors {
            wire.has_icmp_errors = wire.udp.take_icmp_errors(&mut self.undelivered);
        }
        match wire.udp.receive(&mut self.inbound) {
            Ok(count) => {
                wire.is_ready = count == self.inbound.capacity() || wire.has_icmp_errors;
                (listener, count)
            }
            Err(error) => {
                match error.raw_os_error() {
                    Some(libc::EAGAIN) => wire.is_ready = wire.has_icmp_errors,
                    Some(libc::EINTR) => {}
                    // What the kernel reports here is an ICMP error of some datagram that we sent: the next call goes on.
                    _ => wire.has_icmp_errors = true,
                }
                (listener, 0)
            }
        }
    }

    /// One datagram of the last [`Wires::receive`].
    pub fn datagram(&self, number: usize) -> Option<Datagram<'_>> {
        self.inbound.get(number)
    }

    /// Takes those off the list whose socket was seen empty.
    pub fn settle(&mut self) {
        let sockets = &self.sockets;
        self.ready.retain(|listener| {
            sockets
                .get(*listener as usize)
                .is_some_and(|wire| wire.is_ready)
        });
    }

    /// Sends all transmits of the outbox: one batch, or a few, for each listener.
    pub fn send(&mut self, outbox: &Outbox) {
        for (number, transmit) in outbox.transmits.iter().enumerate() {
            match self.sockets.get_mut(transmit.flow.listener as usize) {
                Some(wire) => wire.outgoing.push(number as u32),
                None => self.misdirected += 1,
            }
        }
        for (listener, wire) in self.sockets.iter_mut().enumerate() {
            if wire.outgoing.is_empty() {
                continue;
            }
            let outgoing = &wire.outgoing;
            let get = |number: usize| {
                let transmit = &outbox.transmits[outgoing[number] as usize];
                Datagram {
                    peer: transmit.flow.peer,
                    local: transmit.flow.local(),
                    bytes: outbox.get(transmit.span),
                }
            };
            let (outbound, undelivered) = (&mut self.outbound, &mut self.undelivered);
            wire.udp.send(outbound, outgoing.len(), get, undelivered);
            wire.outgoing.clear();
            follow_interest(&self.registry, wire, listener);
        }
    }

    pub fn has_undelivered(&self) -> bool {
        !self.undelivered.is_empty()
    }

    /// Hands over what did not arrive since the last call, by ICMP errors and refusals of the kernel (RFC 3261 §18.4), in
    /// exchange for memory to go on with.
    pub fn take_undelivered(&mut self, undelivered: &mut Undelivered) {
        undelivered.clear();
        std::mem::swap(undelivered, &mut self.undelivered);
    }

    /// What each listener counted; asks the kernel for its drops.
    pub fn counters(&mut self) -> Vec<ListenerCounters> {
        let mut all: Vec<ListenerCounters> = self
            .sockets
            .iter_mut()
            .map(|wire| wire.udp.counters())
            .collect();
        if let Some(first) = all.first_mut() {
            first.undelivered[Undeliverable::NoSocket as usize] += self.misdirected;
        }
        all
    }
}

/// Interest is derived: WRITABLE only while datagrams wait.
fn follow_interest(registry: &Registry, wire: &mut Wire, listener: usize) {
    let awaits = wire.udp.is_waiting();
    if awaits == wire.awaits_room {
        return;
    }
    let token = Token(listener);
    let changed = match (wire.udp.sender_fd(), awaits) {
        (Some(fd), true) => registry.register(&mut SourceFd(&fd), token, Interest::WRITABLE),
        (Some(fd), false) => registry.deregister(&mut SourceFd(&fd)),
        (None, true) => {
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.reregister(&mut SourceFd(&wire.udp.fd()), token, both)
        }
        (None, false) => {
            registry.reregister(&mut SourceFd(&wire.udp.fd()), token, Interest::READABLE)
        }
    };
    match changed {
        Ok(()) => wire.awaits_room = awaits,
        Err(error) => log::warn!("udp {}: interest not changed: {error}", wire.udp.address()),
    }
}
