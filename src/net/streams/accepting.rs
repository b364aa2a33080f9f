//! How connections of peers are accepted, given their slots, and their TLS handshakes begun in an order that is fair to all
//! sources.

use super::life::Streams;
use crate::base::{Channel, Flow, Id, Instant, Transport};
use crate::net::connection::{Connection, ReadQueue};
use crate::net::listen::Listener;
use crate::net::state::{Event, State, Why};
use mio::Interest;
use mio::net::TcpStream;
use std::io;
use std::net::SocketAddr;

/// Connections accepted from one listener in one turn.
const ACCEPTS: usize = 64;

/// How long we wait if the kernel gives us no connection, in milliseconds: retrying at once would only burn the core.
const PAUSE_MS: u64 = 100;

/// The result of accepting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// None waits any more.
    All,
    /// There may be more.
    Some,
    /// The kernel gives us none now: those that wait have to keep waiting.
    Held,
}

impl Streams {
    /// Accepts a bounded number of connections.
    pub fn accept(&mut self, listener: &Listener, number: u16, now: Instant) -> Accepted {
        for _ in 0..ACCEPTS {
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Accepted::All,
                    Some(libc::EINTR | libc::ECONNABORTED) => continue,
                    _ => {
                        self.cannot_accept(listener, &error, now);
                        return Accepted::Held;
                    }
                },
            };
            if let Some(state) = self.receive_peer(listener, peer, now) {
                self.come_in(stream, peer, listener.transport(), number, state, now);
            }
        }
        Accepted::Some
    }

    /// Returns the state in which a new connection begins; `None` if it is refused, which is counted.
    fn receive_peer(&mut self, listener: &Listener, peer: SocketAddr, now: Instant) -> Option<State> {
        let transport = listener.transport();
        if listener.awaits_proxy_header(peer.ip()) {
            // Bans, patience and shares are those of the client, which the header names.
            if self.has_place_for_header() {
                return Some(State::ProxyHeader);
            }
            self.refuse(peer);
            return None;
        }
        if self.is_banned(now, peer) {
            self.counters.banned += 1;
            return None;
        }
        if !self.has_patience(transport, peer, now) {
            return None;
        }
        if !self.has_room(Some(peer.ip()), now) {
            self.refuse(peer);
            return None;
        }
        Some(match transport {
            Transport::Tls => State::Accepted,
            _ => State::Open,
        })
    }

    /// Notes that there are no descriptors or no memory: waiting connections stay in the kernel for a moment. A source that holds
    /// many gives one up meanwhile.
    fn cannot_accept(&mut self, listener: &Listener, error: &io::Error, now: Instant) {
        self.counters.accept_errors += 1;
        self.accepts_again = now.after_ms(PAUSE_MS);
        if self.logs.accept.may_say() {
            let (name, address) = (listener.transport().name(), listener.address());
            log::error!(
                "{name} {address}: connections wait, because none can be accepted: {error}; {} are open{}",
                self.connections.len(),
                remedy(error)
            );
        }
        if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) && self.displace(None, now) {
            self.accepts_again = now;
        }
    }

    /// False while the kernel is not to be asked for waiting connections.
    pub fn may_accept(&self, now: Instant) -> bool {
        now >= self.accepts_again
    }

    /// Returns when to ask again, if connections wait.
    pub fn accepts_again(&self) -> Instant {
        self.accepts_again
    }

    pub(super) fn is_banned(&self, now: Instant, peer: SocketAddr) -> bool {
        let sources = self.sources.as_ref();
        sources.is_some_and(|sources| sources.is_banned(now, peer))
    }

    /// Returns false if a handshake of this peer would wait for too long, which is logged and counted.
    pub(super) fn has_patience(&mut self, transport: Transport, peer: SocketAddr, now: Instant) -> bool {
        if transport != Transport::Tls {
            return true;
        }
        let patience_ms = self.limits.patience_ms;
        let Some(will_wait_ms) = self.holders.overlong_ms(peer.ip(), patience_ms, now) else {
            return true;
        };
        // Letting it wait would make all wait, and most would have given up before their turn.
        self.counters.handshakes_refused += 1;
        if self.logs.overload.may_say() {
            log::warn!("{peer}: TLS connection refused: handshakes wait {will_wait_ms} ms before they begin ([limits] overload)");
        }
        false
    }

    /// Counts and logs a connection for which there is no place.
    pub(super) fn refuse(&mut self, peer: SocketAddr) {
        self.counters.refused += 1;
        if self.logs.full.may_say() {
            log::warn!(
                "{peer}: connection refused: {} are open, which is the limit ([connections] max, ulimit -n), and no source holds more of them \
                 than its own",
                self.connections.len()
            );
        }
    }

    fn come_in(&mut self, stream: TcpStream, peer: SocketAddr, transport: Transport, number: u16, state: State, now: Instant) {
        let flow = Flow { peer, listener: number, transport, core: self.core, channel: Channel::Back };
        let size = self.limits.message_size;
        let connection = Connection::new(stream, &flow, state, None, size, now);
        match self.admit(connection, Interest::READABLE, now) {
            Ok(id) => {
                self.counters.accepted += 1;
                if state != State::ProxyHeader {
                    self.enter_source(id, now);
                }
                if state != State::Accepted {
                    // The first message is often there already. A TLS client has to send first: a silent one costs no handshake.
                    self.mark_ready(id, now);
                }
            }
            Err(error) => log::error!("{peer}: connection not accepted: {error}"),
        }
    }

    /// Enters a connection under its peer's address, and counts it for the source.
    pub(super) fn enter_source(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.known(id) else {
            return;
        };
        let (transport, peer) = (connection.transport, connection.peer);
        self.accepted.insert((transport, peer), id);
        let mut trusted = self.limits.trusted.iter();
        let is_exempt = trusted.any(|network| network.contains(peer.ip()));
        self.holders.arrive(id.slot, peer.ip(), is_exempt, now);
    }

    /// Begins the handshakes of at most this many clients, taking sources in turn, and lists them to be served.
    pub(super) fn begin_handshakes(&mut self, most: usize, list: &mut Vec<Id>, now: Instant) {
        for _ in 0..most {
            let in_hand = self.counters.open(Transport::Tls, State::Handshaking) as usize;
            let limit = self.limits.rules.handshakes;
            if !self.holders.may_begin() {
                return;
            }
            let Some(turn) = self.holders.begin(in_hand, limit, self.limits.patience_ms, now) else {
                if self.holders.is_stuck() {
                    self.counters.handshakes_held += 1;
                    if self.logs.waiting.may_say() {
                        log::warn!(
                            "TLS clients wait: handshakes in progress: {in_hand}, limit: {limit} ([connections] handshakes); \
                             once half are taken, one source may have no more than a quarter"
                        );
                    }
                }
                continue;
            };
            let stalled = turn.instead_of.and_then(|slot| self.connections.tenant(slot));
            if let Some((id, _)) = stalled {
                self.apply(id, Event::Abort(Why::Stalled(limit)), now);
            }
            self.begin_handshake(turn.slot, list, now);
        }
    }

    fn begin_handshake(&mut self, slot: u32, list: &mut Vec<Id>, now: Instant) {
        let Some((id, connection)) = self.connections.tenant_mut(slot) else {
            debug_assert!(false, "the holders count a connection that is gone");
            return;
        };
        let peer = connection.peer;
        let event = match self.tls.as_ref().map(|contexts| contexts.accept(peer)) {
            Some(Ok(tls)) => {
                connection.tls = Some(Box::new(tls));
                connection.read_queue = ReadQueue::Handshake;
                list.push(id);
                Event::Turn
            }
            Some(Err(error)) => Event::Abort(Why::Error(io::Error::other(error))),
            None => Event::Abort(Why::Done),
        };
        self.apply(id, event, now);
    }
}

/// Returns what an operator can do so that connections are accepted.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "; raise the process's limit of open files (ulimit -n, LimitNOFILE) or lower [connections] max",
        Some(libc::ENFILE) => "; the machine's limit of open files is reached (fs.file-max)",
        _ => "",
    }
}
