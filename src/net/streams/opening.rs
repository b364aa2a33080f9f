//! How our connections are opened, and the results.

use super::life::Streams;
use crate::base::{Channel, Flow, Id, Instant, Transport};
use crate::net::connection::Connection;
use crate::net::counters::Undeliverable;
use crate::net::listen;
use crate::net::state::{Event, State, Why};
use crate::net::tls::Tls;
use mio::Interest;
use mio::net::TcpStream;
use std::io;
use std::net::SocketAddr;

impl Streams {
    /// Begins to connect. `host`: the name that the peer's certificate must prove, and the certificate that it is shown.
    pub(super) fn open(
        &mut self,
        now: Instant,
        flow: &Flow,
        from: Option<SocketAddr>,
        host: Option<(&[u8], u64)>,
    ) -> Result<Id, Undeliverable> {
        if !self.has_room(None, now) {
            self.counters.refused += 1;
            if self.logs.full.may_say() {
                log::warn!(
                    "{}: not connected: {} connections are open, which is the limit ([connections] max)",
                    flow.peer,
                    self.limits.connections
                );
            }
            return Err(Undeliverable::NoConnection);
        }
        let tls = match flow.transport {
            Transport::Tls => Some(self.client_tls(flow.peer, host)?),
            _ => None,
        };
        let opened = listen::connect(flow.peer, from).and_then(|stream| {
            let size = self.limits.message_size;
            let connection = Connection::new(stream, flow, State::Connecting, tls, size, now);
            self.admit(connection, Interest::READABLE | Interest::WRITABLE, now)
        });
        match opened {
            Ok(id) => {
                if let Channel::Peer { name, call } = flow.channel {
                    self.asked.insert((flow.transport, flow.peer, name, call), id);
                }
                self.counters.connecting += 1;
                Ok(id)
            }
            Err(error) => {
                if self.logs.single.may_say() {
                    let (name, peer) = (flow.transport.name(), flow.peer);
                    log::info!("{name} {peer}: not connected: {error}");
                }
                self.counters.failed += 1;
                Err(Undeliverable::Unreachable)
            }
        }
    }

    fn client_tls(&self, peer: SocketAddr, host: Option<(&[u8], u64)>) -> Result<Box<Tls>, Undeliverable> {
        let (Some(contexts), Some((host, identity))) = (&self.tls, host) else {
            return Err(Undeliverable::NoConnection);
        };
        let host = std::str::from_utf8(host).map_err(|_| Undeliverable::Unreachable)?;
        contexts.connect_as(peer, host, identity).map(Box::new).map_err(|error| {
            log::error!("TLS {peer}: not connected: {error}");
            Undeliverable::NoConnection
        })
    }

    /// Handles the poll's report on connecting. `is_certain`: it reported room to write, and neither an error nor an end. The kernel
    /// does so only once the connection is there; anything else is asked for.
    pub(super) fn connected(&mut self, id: Id, is_certain: bool, now: Instant) {
        let Some(connection) = self.connections.known_mut(id) else {
            return;
        };
        let is_there = match is_certain {
            true => Ok(true),
            false => is_there(&connection.stream),
        };
        match is_there {
            Ok(true) => {}
            // Neither failed nor done: a spurious event.
            Ok(false) => return,
            Err(error) => return self.apply(id, Event::Abort(Why::Error(error)), now),
        }
        let started = connection.tls.as_mut().map(|tls| tls.start());
        let event = match started {
            Some(Err(failure)) => Event::Abort(Why::Tls(failure)),
            started => Event::Connected { by_tls: started.is_some() },
        };
        self.apply(id, event, now);
    }
}

/// Returns whether a connection is there; an error if it has failed.
fn is_there(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}
