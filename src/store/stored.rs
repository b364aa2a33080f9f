//! A binding as stored in the table and in the log: nothing in it is specific to this run of the server.

use crate::base::{Channel, Flow, Transport};
use crate::stack::location::{BindingText, Reached, Row};
use std::net::{IpAddr, SocketAddr};

/// How the times and listeners of memory are written to disk.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// The time since 1970 at [`crate::base::Instant`] zero, milliseconds.
    pub wall_ms: u64,
    pub listeners: &'a [(Transport, SocketAddr)],
}

/// A binding as stored.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    pub text: BindingText<'a>,
    /// Milliseconds since 1970.
    pub expires_ms: u64,
    pub cseq: u32,
    pub reg_id: u32,
    /// Thousandths, 0 to 1000.
    pub q: u16,
    pub removed: bool,
    pub reached: Reached,
    /// Where the REGISTER came from.
    pub source: Option<(Transport, SocketAddr)>,
    pub local: Option<IpAddr>,
    pub listener: Option<SocketAddr>,
}

impl<'a> Stored<'a> {
    pub fn of(row: &Row<'a>, terms: Terms) -> Stored<'a> {
        let source = row.source;
        let listener = source.and_then(|flow| terms.listeners.get(usize::from(flow.listener)));
        Stored {
            text: row.text,
            expires_ms: terms.wall_ms.saturating_add(row.expires.as_ms()),
            cseq: row.cseq,
            reg_id: row.reg_id,
            q: row.q,
            removed: row.removed,
            reached: row.reached,
            source: source.map(|flow| (flow.transport, flow.peer)),
            local: source.and_then(|flow| flow.local()),
            listener: listener.map(|(_, address)| *address),
        }
    }

    /// The flow by which the REGISTER came. A connection of that time is dead today; a listener that the conf no longer has leads
    /// nowhere.
    pub fn flow(&self, terms: Terms) -> Option<Flow> {
        let (transport, peer) = self.source?;
        let same = |(own, bound): &(Transport, SocketAddr)| *own == transport && Some(*bound) == self.listener;
        let listener = terms.listeners.iter().position(same)?;
        Some(Flow {
            transport,
            channel: match transport {
                Transport::Udp => Channel::Datagram { local: self.local },
                // Generation 0 is never alive.
                Transport::Tcp | Transport::Tls => Channel::Connection { slot: 0, generation: 0 },
            },
            ..Flow::datagram(listener as u16, peer)
        })
    }
}
