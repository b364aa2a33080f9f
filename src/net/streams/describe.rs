//! What an operator sees of the connections.

use super::life::Streams;
use crate::base::{Channel, Flow, Id, Instant, Transport};
use crate::net::connection::Connection;
use crate::net::state::State;
use std::net::SocketAddr;

impl Streams {
    /// Describes every connection for the operator.
    pub fn describe(&self, now: Instant) -> Vec<Description> {
        let describe = |(_, connection): (Id, &Connection)| Description {
            transport: connection.transport,
            peer: connection.peer,
            listener: connection.listener,
            is_ours: connection.names().is_some(),
            state: connection.state,
            quiet_ms: now.ms_since(connection.age.since),
            waiting: connection.waiting(),
        };
        self.connections.iter().map(describe).collect()
    }

    /// Returns our address of a connection; asks the kernel.
    pub fn address_of(&self, id: Id) -> Option<SocketAddr> {
        self.connections.get(id)?.stream.local_addr().ok()
    }

    /// Returns our address of the connection that a flow names, if there is one.
    pub fn local_address(&self, flow: &Flow) -> Option<SocketAddr> {
        let id = match flow.channel {
            Channel::Connection { slot, generation } => Id { slot, generation },
            Channel::Back => self.find_accepted(flow).ok()?,
            Channel::Peer { name, call } => self.find_asked(flow, name, call)?,
            Channel::Datagram { .. } => return None,
        };
        self.address_of(id)
    }
}

/// One connection as `strowger connections` shows it.
#[derive(Clone, Debug)]
pub struct Description {
    pub transport: Transport,
    pub peer: SocketAddr,
    pub listener: u16,
    /// True if we opened it.
    pub is_ours: bool,
    pub state: State,
    /// Since when it has been in its state, or when it was last used (within a second).
    pub quiet_ms: u64,
    /// Bytes that wait to be sent.
    pub waiting: usize,
}
