//! Connections of load balancers: whose each is, by the PROXY header in front of it.
//!
//! A balancer stands for all its clients, so nothing is counted for its own address. Until the header is there, a connection has a
//! place and a deadline, and belongs to no source: the conf names the networks that may do that, and whoever is in one of them may
//! claim any address anyway. Nobody gives way to it meanwhile. From then on everything is as if the client had just connected itself.

use super::life::Streams;
use crate::base::{Id, Instant, Transport};
use crate::net::proxy_header::{self, Header, HeaderFault, MAX, Origin};
use crate::net::state::{Event, Why};
use std::io::{self, Read};
use std::net::SocketAddr;

impl Streams {
    /// Looks for the header. Nothing is taken from the socket before it is complete, and then nothing beyond it: what follows is for
    /// whoever reads next, and no connection needs memory for a header in pieces.
    #[cold]
    pub(super) fn look_for_header(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.known_mut(id) else {
            return;
        };
        // One byte more than a header can have, to see whether anything follows it.
        let scratch = self.scratch.get_mut(..=MAX).unwrap_or_default();
        let seen = match connection.stream.peek(scratch) {
            Ok(count) => scratch.get(..count).unwrap_or_default(),
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::WouldBlock => {}
                    io::ErrorKind::Interrupted => self.mark_ready(id, now),
                    _ => self.apply(id, Event::Abort(Why::Error(error)), now),
                };
            }
        };
        let is_ended = seen.is_empty() || connection.flags.is_half_closed;
        let event = match proxy_header::read(seen) {
            Ok(Some(header)) => {
                let is_followed = seen.len() > header.length || is_ended;
                return self.take_header(id, header, is_followed, now);
            }
            Ok(None) if is_ended => Event::End { is_inside: !seen.is_empty() },
            Ok(None) => return,
            Err(fault) => Event::Abort(Why::ProxyHeader(fault)),
        };
        self.apply(id, event, now);
    }

    fn take_header(&mut self, id: Id, header: Header, is_followed: bool, now: Instant) {
        let Some(connection) = self.connections.known_mut(id) else {
            return;
        };
        let scratch = self.scratch.get_mut(..header.length).unwrap_or_default();
        let why = match (&connection.stream).read(scratch) {
            Ok(count) if count == header.length => None,
            Ok(_) => Some(Why::ProxyHeader(HeaderFault::Truncated)),
            Err(error) => Some(Why::Error(error)),
        };
        if let Some(why) = why {
            return self.apply(id, Event::Abort(why), now);
        }
        self.eaten += header.length;
        self.read_bytes += header.length as u64;
        let (name, balancer) = (connection.transport.name(), connection.peer);
        match header.origin {
            Origin::Client { client, destination } => {
                log::debug!("{name} from {balancer}: PROXY header: from {client} to {destination}");
                connection.peer = client;
            }
            Origin::Own => log::debug!("{name} from {balancer}: PROXY header: its own connection"),
        }
        // Version 1 has no other word for it: HAProxy names itself in its checks.
        connection.flags.is_balancers = connection.peer == balancer;
        let (peer, transport) = (connection.peer, connection.transport);
        if let Err(why) = self.welcome(transport, peer, now) {
            return self.apply(id, Event::Unheard(why), now);
        }
        let by_tls = transport == Transport::Tls;
        self.apply(id, Event::Introduced { by_tls }, now);
        self.enter_source(id, now);
        if is_followed {
            // The poll has reported it already.
            self.mark_ready(id, now);
        }
    }

    /// What is asked of everyone who connects, in the same order.
    fn welcome(&mut self, transport: Transport, peer: SocketAddr, now: Instant) -> Result<(), Why> {
        if self.is_banned(now, peer) {
            self.counters.banned += 1;
            return Err(Why::Banned);
        }
        if !self.has_patience(transport, peer, now) {
            return Err(Why::Refused);
        }
        if !self.may_stay(peer.ip(), now) {
            self.refuse(peer);
            return Err(Why::Refused);
        }
        Ok(())
    }
}
