//! All sockets of one core: which of them have input, a bounded batch from each, and one batch to each at the end of a turn.

use super::connection::Arrival;
use super::counters::{ListenerCounters, StreamCounters, Undeliverable};
use super::limits::Limits;
use super::listen::Listener;
use super::pressure::{Backlog, Pressure};
use super::streams::{Accepted, Description, Streams};
use super::sys::{Datagram, Inbound, Outbound};
use super::tls::Contexts;
use super::udp::{Udp, Undelivered};
use crate::base::{Channel, Counted, Flow, Id, Instant, Load, LogBudget, Outbox, Shed};
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// After the kernel has refused a filter it is not asked again for this long, in milliseconds.
const REFUSED_MS: u64 = 10_000;

/// One listener's socket on one core.
pub enum Socket {
    Udp(Box<Udp>),
    Stream(Listener),
}

impl Socket {
    /// Returns the bound address.
    pub fn address(&self) -> SocketAddr {
        match self {
            Socket::Udp(udp) => udp.address(),
            Socket::Stream(listener) => listener.address(),
        }
    }
}

/// The sockets of one core, by the listener's position in the conf, and the connections.
pub struct Wires {
    pub(super) ports: Vec<Port>,
    pub(super) streams: Streams,
    /// Listeners that may hold datagrams or new connections, in the order in which they are served. The poll is edge-triggered: a
    /// listener stays on this list until its socket is found empty.
    pub(super) ready: Vec<u16>,
    inbound: Inbound,
    outbound: Outbound,
    undelivered: Undelivered,
    /// Transmits of this turn for connections of other cores.
    foreign: Vec<u32>,
    log: LogBudget,
    pressure: Pressure,
    /// What the kernel was last asked to drop; after a refusal it is not asked until the time.
    pub(super) shed: Option<Shed>,
    ask_again_at: Option<Instant>,
    pub(super) registry: Registry,
    /// Another process reads the listeners.
    pub(super) is_resting: bool,
}

pub(super) struct Port {
    pub(super) address: SocketAddr,
    pub(super) kind: PortKind,
    pub(super) is_ready: bool,
    /// Connections wait to be accepted, but the kernel cannot give us any.
    pub(super) is_held: bool,
    counters: ListenerCounters,
}

pub(super) enum PortKind {
    Datagrams(Box<Wire>),
    /// `None`: closed, because another process accepts.
    Connections(Option<Listener>),
}

pub(super) struct Wire {
    pub(super) udp: Box<Udp>,
    /// False while another process reads it.
    pub(super) is_read: bool,
    pub(super) has_icmp_errors: bool,
    pub(super) awaits_room: bool,
    /// The outbox's transmits that are sent from this core in this turn.
    outgoing: Vec<u32>,
    /// Unsent datagrams already logged, by [`Undeliverable`].
    logged: [u64; Undeliverable::ALL.len()],
}

impl Wires {
    /// Registers the sockets, in listener order, with the poll that `registry` belongs to, under tokens from 0.
    pub fn new(sockets: Vec<Socket>, batch: usize, streams: Streams, registry: Registry) -> io::Result<Wires> {
        let (mut ports, mut ready) = (Vec::with_capacity(sockets.len()), Vec::new());
        for (number, socket) in sockets.into_iter().enumerate() {
            let (token, address) = (Token(number), socket.address());
            let mut may_hold = false;
            let kind = match socket {
                Socket::Udp(mut udp) => {
                    may_hold = udp.join();
                    registry.register(&mut SourceFd(&udp.fd()), token, Interest::READABLE)?;
                    PortKind::Datagrams(Box::new(Wire {
                        udp,
                        is_read: true,
                        has_icmp_errors: false,
                        awaits_room: false,
                        outgoing: Vec::new(),
                        logged: [0; Undeliverable::ALL.len()],
                    }))
                }
                Socket::Stream(mut listener) => {
                    registry.register(listener.source(), token, Interest::READABLE)?;
                    PortKind::Connections(Some(listener))
                }
            };
            may_hold.then(|| ready.push(number as u16));
            ports.push(Port { address, kind, is_ready: may_hold, is_held: false, counters: ListenerCounters::default() });
        }
        Ok(Wires {
            ports,
            streams,
            ready,
            inbound: Inbound::new(batch),
            // A call leaves in more datagrams than it comes in, and what a whole batch brings should leave in one call.
            outbound: Outbound::new(2 * batch),
            undelivered: Undelivered::default(),
            foreign: Vec::new(),
            pressure: Pressure::default(),
            shed: None,
            ask_again_at: None,
            log: LogBudget::new("messages not sent"),
            registry,
            is_resting: false,
        })
    }

    /// Sets new limits for the connections.
    pub fn set_limits(&mut self, limits: Limits) {
        self.streams.set_limits(limits);
    }

    /// Sets the certificates and keys for handshakes that begin from now on.
    pub fn set_tls(&mut self, contexts: Option<Arc<Contexts>>) {
        self.streams.set_tls(contexts);
    }

    /// Processes a poll event of one socket.
    pub fn note(&mut self, event: &Event, now: Instant) {
        if Streams::owns(event.token()) {
            return self.streams.note(event, now);
        }
        let Token(number) = event.token();
        let Some(port) = self.ports.get_mut(number) else {
            debug_assert!(false, "no listener {number}");
            return;
        };
        // While there is no room for what is sent from here, the poll also reports errors of a socket that another process reads.
        let is_read = !matches!(&port.kind, PortKind::Datagrams(wire) if !wire.is_read);
        // An error may have cut a batch short, so the socket is checked again.
        if (event.is_readable() || event.is_error()) && is_read && !port.is_ready {
            port.is_ready = true;
            self.ready.push(number as u16);
        }
        let PortKind::Datagrams(wire) = &mut port.kind else {
            return;
        };
        if event.is_error() && is_read {
            wire.has_icmp_errors = true;
        }
        if event.is_writable() && wire.udp.is_waiting() {
            let (outbound, undelivered) = (&mut self.outbound, &mut self.undelivered);
            wire.udp.send_waiting(outbound, undelivered);
            follow_interest(&self.registry, wire, number);
        }
    }

    /// True if there is work to do before the next event.
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty() || !self.undelivered.is_empty() || self.streams.has_more()
    }

    /// Returns whether more has arrived than was taken in this turn; connections as for [`Wires::load`].
    pub fn is_behind(&self) -> bool {
        let holds_datagrams = |listener: &u16| {
            let port = self.ports.get(*listener as usize);
            port.is_some_and(|port| matches!(&port.kind, PortKind::Datagrams(wire) if wire.is_read))
        };
        self.streams.is_behind() || self.ready.iter().any(holds_datagrams)
    }

    /// Returns how far this core is behind at the end of a turn. Connections that wait to be accepted, or whose handshakes are in
    /// progress, do not count: they have queues of their own.
    pub fn load(&mut self, now: Instant) -> Load {
        let is_behind = self.is_behind();
        let taken = self.ports.iter().map(|port| match &port.kind {
            PortKind::Datagrams(wire) => wire.udp.received_bytes(),
            PortKind::Connections(_) => 0,
        });
        // For connections, not only complete messages count: parts of incomplete ones have been read as well.
        let taken_bytes = taken.sum::<u64>() + self.streams.read_bytes();
        let (ports, streams) = (&mut self.ports, &self.streams);
        let load = self.pressure.turn(now, is_behind, taken_bytes, || {
            let mut backlog = Backlog { waiting_bytes: streams.waiting_bytes(), ..Backlog::default() };
            for port in ports {
                if let PortKind::Datagrams(wire) = &mut port.kind
                    && wire.is_read
                {
                    let one = wire.udp.ask_waiting();
                    backlog.waiting_bytes += one.waiting_bytes;
                    backlog.is_filling |= one.is_filling;
                    backlog.lost += one.lost;
                }
            }
            backlog
        });
        self.ask_again_at = self.ask_again_at.filter(|time| now < *time);
        let shed = self.datagrams().map(|udp| udp.shed_so_far()).sum();
        Load { shed, cannot_shed: self.ask_again_at.is_some(), ..load }
    }

    fn datagrams(&mut self) -> impl Iterator<Item = &mut Udp> {
        self.ports.iter_mut().filter_map(|port| match &mut port.kind {
            PortKind::Datagrams(wire) => Some(&mut *wire.udp),
            PortKind::Connections(_) => None,
        })
    }

    /// Has the kernel drop what `shed` selects on all datagram sockets (`None`: nothing). If it cannot, everything is received, and
    /// [`Wires::load`] says so for a while.
    pub fn shed(&mut self, shed: Option<Shed>, now: Instant) {
        // The socket's filter is that of the process that reads it.
        if self.is_resting {
            return;
        }
        if let Err((address, error)) = self.set_shed(shed) {
            self.ask_again_at = Some(now.after_ms(REFUSED_MS));
            log::warn!(
                "udp {address}: the kernel refuses the filter that drops new INVITEs while this server is overloaded ({error}; a \
                 net.core.optmem_max of 80 KiB is enough): they are received, and answered 503; asked again after {} s",
                REFUSED_MS / 1000
            );
        }
    }

    /// On an error, with the listener's address, its kernel drops nothing.
    pub(super) fn set_shed(&mut self, shed: Option<Shed>) -> Result<(), (SocketAddr, io::Error)> {
        if shed == self.shed {
            return Ok(());
        }
        self.shed = shed;
        let mut outcome = Ok(());
        for udp in self.datagrams() {
            if let Err(error) = udp.shed(shed) {
                outcome = Err((udp.address(), error));
            }
        }
        outcome
    }

    /// Returns how many listeners are to be served in this turn; [`Wires::receive`] takes them by position.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes one batch from a ready datagram listener and returns it with the number of datagrams; a stream listener accepts some
    /// connections.
    pub fn receive(&mut self, position: usize, now: Instant) -> (u16, usize) {
        let Some(&listener) = self.ready.get(position) else {
            debug_assert!(false, "no listener is the {position}th that is ready");
            return (0, 0);
        };
        let Some(port) = self.ports.get_mut(listener as usize) else {
            debug_assert!(false, "no listener {listener}");
            return (listener, 0);
        };
        let wire = match &mut port.kind {
            PortKind::Datagrams(wire) => wire,
            PortKind::Connections(None) => {
                port.is_ready = false;
                return (listener, 0);
            }
            PortKind::Connections(Some(socket)) => {
                let accepted = self.streams.accept(socket, listener, now);
                port.is_ready = accepted == Accepted::Some;
                port.is_held = accepted == Accepted::Held;
                return (listener, 0);
            }
        };
        if wire.has_icmp_errors {
            wire.has_icmp_errors = wire.udp.take_icmp_errors(&mut self.undelivered);
        }
        let is_young = wire.udp.looks_for_strays();
        match wire.udp.receive(&mut self.inbound) {
            Ok(count) => {
                port.is_ready = count == self.inbound.capacity() || wire.has_icmp_errors || is_young;
                (listener, count)
            }
            Err(error) => {
                match error.raw_os_error() {
                    Some(libc::EAGAIN) => port.is_ready = wire.has_icmp_errors || is_young,
                    Some(libc::EINTR) => {}
                    // The kernel reports an ICMP error for some datagram that we sent; the next call succeeds.
                    _ => wire.has_icmp_errors = true,
                }
                (listener, 0)
            }
        }
    }

    /// Returns one datagram of the last [`Wires::receive`].
    pub fn datagram(&self, number: usize) -> Option<Datagram<'_>> {
        self.inbound.get(number)
    }

    /// Removes the listeners whose sockets were found empty from the list.
    pub fn settle(&mut self) {
        let ports = &self.ports;
        self.ready.retain(|listener| ports.get(*listener as usize).is_some_and(|port| port.is_ready));
    }

    /// Takes the connections that may hold input off their list: established ones first, then some whose handshakes are in
    /// progress.
    pub fn take_ready_streams(&mut self, list: &mut Vec<Id>, now: Instant) {
        self.streams.take_ready(list, now);
    }

    /// True if so much was read from connections in this turn that datagrams have to be served first.
    pub fn is_sated(&self) -> bool {
        self.streams.is_sated()
    }

    /// Puts the connections of the list that were not served first in the next turn.
    pub fn put_back_streams(&mut self, list: &mut Vec<Id>) {
        self.streams.put_back(list);
    }

    /// Returns our address on a flow of this core, if known: for a datagram, the listener's, with the flow's IP address.
    pub fn own_address(&self, flow: &Flow) -> Option<SocketAddr> {
        if let Some(own) = self.streams.local_address(flow) {
            return Some(own);
        }
        let listener = self.ports.get(usize::from(flow.listener))?.address;
        Some(SocketAddr::new(flow.local().unwrap_or(listener.ip()), listener.port()))
    }

    /// Returns our address on one connection.
    pub fn address_of_stream(&self, id: Id) -> Option<SocketAddr> {
        self.streams.address_of(id)
    }

    /// Reads a bounded amount from one connection; `on` gets the messages in it and returns for each whether it will be answered.
    pub fn receive_stream(&mut self, id: Id, now: Instant, on: impl FnMut(Flow, Arrival<'_>) -> bool) {
        let listener = self.streams.listener_of(id);
        let port = listener.and_then(|listener| self.ports.get_mut(listener as usize));
        if let Some(port) = port {
            self.streams.serve(id, now, &mut port.counters.received, on);
        }
    }

    /// Ends a connection whose source is banned.
    pub fn shut_out(&mut self, id: Id, now: Instant) {
        self.streams.shut_out(id, now);
    }

    /// Takes all transmits of the outbox: datagrams are sent now, in one or a few batches per listener, and messages for streams
    /// with the next [`Wires::flush`].
    pub fn send(&mut self, outbox: &Outbox, now: Instant) {
        for (number, transmit) in outbox.transmits.iter().enumerate() {
            let Channel::Datagram { .. } = transmit.flow.channel else {
                self.send_by_stream(outbox, number, now);
                continue;
            };
            match self.ports.get_mut(transmit.flow.listener as usize) {
                Some(Port { kind: PortKind::Datagrams(wire), .. }) => wire.outgoing.push(number as u32),
                _ => self.misdirected(),
            }
        }
        for (listener, port) in self.ports.iter_mut().enumerate() {
            let PortKind::Datagrams(wire) = &mut port.kind else {
                continue;
            };
            if wire.outgoing.is_empty() {
                continue;
            }
            let outgoing = &wire.outgoing;
            let get = |number: usize| {
                let transmit = &outbox.transmits[outgoing[number] as usize];
                Datagram { peer: transmit.flow.peer, local: transmit.flow.local(), bytes: outbox.get(transmit.span) }
            };
            let (outbound, undelivered) = (&mut self.outbound, &mut self.undelivered);
            wire.udp.send(outbound, outgoing.len(), get, undelivered);
            wire.outgoing.clear();
            follow_interest(&self.registry, wire, listener);
        }
        for flow in &outbox.releases {
            if self.is_own(flow) {
                self.streams.release(flow);
            }
        }
    }

    fn misdirected(&mut self) {
        if let Some(first) = self.ports.first_mut() {
            first.counters.drop(Undeliverable::NoSocket);
        }
    }

    /// False for a connection of another core.
    fn is_own(&self, flow: &Flow) -> bool {
        !matches!(flow.channel, Channel::Connection { .. }) || flow.core == self.streams.core()
    }

    fn send_by_stream(&mut self, outbox: &Outbox, number: usize, now: Instant) {
        let transmit = &outbox.transmits[number];
        if !self.is_own(&transmit.flow) {
            self.foreign.push(number as u32);
            return;
        }
        let host = match transmit.flow.channel {
            Channel::Peer { name, .. } if name != 0 => outbox.introduced(name),
            _ => None,
        };
        self.send_one(now, &transmit.flow, outbox.get(transmit.span), host);
    }

    /// Takes one message for a stream of this core.
    pub fn send_one(&mut self, now: Instant, flow: &Flow, bytes: &[u8], host: Option<(&[u8], u64)>) {
        let Some(port) = self.ports.get_mut(flow.listener as usize) else {
            return self.misdirected();
        };
        let address = port.address;
        let from = (!address.ip().is_unspecified()).then_some(address);
        match self.streams.send(now, flow, from, bytes, host) {
            Ok(()) => port.counters.sent.count(bytes),
            Err(reason) => {
                if self.log.may_say() {
                    let (name, peer) = (flow.transport.name(), flow.peer);
                    log::info!("{name} {peer}: not sent: {}", reason.label());
                }
                port.counters.drop(reason);
                self.undelivered.push(bytes);
            }
        }
    }

    /// Drains the numbers of the transmits of the last [`Wires::send`] whose connections belong to other cores.
    pub fn foreign(&mut self) -> std::vec::Drain<'_, u32> {
        self.foreign.drain(..)
    }

    /// Writes once to each connection that has output.
    pub fn flush(&mut self, now: Instant) {
        let ports = &mut self.ports;
        self.streams.flush(now, |listener| {
            if let Some(port) = ports.get_mut(listener as usize) {
                port.counters.sent.batches += 1;
            }
        });
    }

    /// Returns, once, whether connections have freed so much memory that it pays to return it to the system.
    pub fn take_freed(&mut self) -> bool {
        self.streams.take_freed()
    }

    /// Closes the connections that are overdue, and accepts those that had to wait.
    pub fn sweep(&mut self, now: Instant) {
        self.streams.sweep(now);
        self.log.renew(now);
        self.log_undelivered();
        if !self.streams.may_accept(now) {
            return;
        }
        for (number, port) in self.ports.iter_mut().enumerate() {
            if std::mem::take(&mut port.is_held) {
                port.is_ready = true;
                self.ready.push(number as u16);
            }
        }
    }

    /// Logs a line for each reason for which datagrams were not sent since the last line. The recipients are logged by whatever
    /// waits for an answer.
    fn log_undelivered(&mut self) {
        for port in &mut self.ports {
            let PortKind::Datagrams(wire) = &mut port.kind else {
                continue;
            };
            let now = wire.udp.undelivered();
            if *now == wire.logged {
                continue;
            }
            for reason in Undeliverable::ALL {
                let (logged, now) = (&mut wire.logged[reason as usize], now[reason as usize]);
                if now > *logged && self.log.may_say() {
                    let (address, label) = (wire.udp.address(), reason.label());
                    log::info!("UDP {address}: {} datagrams not sent: {label}", now - *logged);
                    *logged = now;
                }
            }
        }
    }

    /// Returns when [`Wires::sweep`] next has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        let is_held = self.ports.iter().any(|port| port.is_held);
        let accept = is_held.then(|| self.streams.accepts_again());
        self.streams.next_timeout().into_iter().chain(accept).min()
    }

    pub fn has_undelivered(&self) -> bool {
        !self.undelivered.is_empty()
    }

    /// Hands over what was reported undelivered since the last call, by ICMP errors and errors of the kernel (RFC 3261 §18.4), in
    /// exchange for a buffer to continue with.
    pub fn take_undelivered(&mut self, undelivered: &mut Undelivered) {
        undelivered.clear();
        std::mem::swap(undelivered, &mut self.undelivered);
    }

    pub fn has_lost(&self) -> bool {
        self.streams.has_lost()
    }

    /// Hands over the flows that have ended since the last call.
    pub fn take_lost(&mut self, list: &mut Vec<Flow>) {
        self.streams.take_lost(list);
    }

    /// Returns each listener's counters, after reading the drops from the kernel.
    pub fn counters(&mut self) -> Vec<ListenerCounters> {
        self.ports
            .iter_mut()
            .map(|port| {
                let mut counters = port.counters;
                if let PortKind::Datagrams(wire) = &mut port.kind {
                    counters.add(&wire.udp.counters());
                }
                counters
            })
            .collect()
    }

    /// Panics if an invariant that must hold between two turns is violated.
    #[cfg(debug_assertions)]
    pub fn check(&self) {
        for (number, port) in self.ports.iter().enumerate() {
            let listed = self.ready.iter().filter(|ready| usize::from(**ready) == number);
            let listed = listed.count();
            assert_eq!(listed, usize::from(port.is_ready), "listener {number} is ready");
        }
        self.streams.check();
    }

    pub fn stream_counters(&self) -> StreamCounters {
        self.streams.counters()
    }

    /// Describes every connection for the operator.
    pub fn describe(&self, now: Instant) -> Vec<Description> {
        self.streams.describe(now)
    }
}

/// Registers the interest that follows from the state: WRITABLE only while datagrams wait.
pub(super) fn follow_interest(registry: &Registry, wire: &mut Wire, listener: usize) {
    let awaits = wire.udp.is_waiting();
    if awaits == wire.awaits_room {
        return;
    }
    let token = Token(listener);
    let changed = match (wire.udp.sender_fd(), awaits) {
        (Some(fd), true) => registry.register(&mut SourceFd(&fd), token, Interest::WRITABLE),
        (Some(fd), false) => registry.deregister(&mut SourceFd(&fd)),
        (None, true) if !wire.is_read => registry.register(&mut SourceFd(&wire.udp.fd()), token, Interest::WRITABLE),
        (None, false) if !wire.is_read => registry.deregister(&mut SourceFd(&wire.udp.fd())),
        (None, true) => {
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.reregister(&mut SourceFd(&wire.udp.fd()), token, both)
        }
        (None, false) => registry.reregister(&mut SourceFd(&wire.udp.fd()), token, Interest::READABLE),
    };
    match changed {
        Ok(()) => wire.awaits_room = awaits,
        Err(error) => log::warn!("udp {}: interest not changed: {error}", wire.udp.address()),
    }
}
