//! The name of a path to a peer: what `net` opens and `stack` remembers. The two modules share this type and the outbox.

use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    /// The name as a Via header writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        }
    }

    /// True when the transport itself delivers or reports failure (RFC 3261 §17: reliable transports).
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Transport::Udp)
    }

    /// Returns the port of a URI that names none (RFC 3261 §19.1.2).
    pub const fn default_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 5060,
            Transport::Tls => 5061,
        }
    }
}

/// Where a message came from, and where its answer goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flow {
    /// The other end.
    pub peer: SocketAddr,
    /// The listener, by its position in the conf. A datagram is sent from this listener's socket; for a connection it is the
    /// listener that accepted it, or the one that our Via names.
    pub listener: u16,
    pub transport: Transport,
    /// The core that owns the connection; a datagram can be sent by any core. Beyond the cores of this process: those of the other
    /// process of a restart, in its order.
    pub core: u8,
    pub channel: Channel,
}

/// What carries a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Channel {
    /// A listener's own socket.
    Datagram {
        /// Our address that the peer sent its datagram to, if the listener is on all of them (0.0.0.0 or ::): an answer from
        /// another address would not pass a NAT or a connected socket. `None` if the listener has one address, or if we send
        /// unasked and the kernel chooses. It only decides the source address.
        local: Option<IpAddr>,
    },
    /// Exactly this connection: its slot in its owner's table, and its generation there.
    Connection { slot: u32, generation: u32 },
    /// A connection that this core has opened, or opens now, to the peer under the same two names.
    Peer {
        /// Identifies the name that the peer's certificate must prove (RFC 5922); the outbox carries the text
        /// ([`super::Outbox::introduce`]). 0: none is required.
        name: u64,
        /// Identifies the call that has the connection to itself; 0: it is shared.
        call: u64,
    },
    /// The connection that the peer has opened to us from the flow's address and port, whatever its slot (RFC 3261 §18.2.2): for
    /// responses of a stateless sender.
    Back,
}

impl Flow {
    /// Returns the flow of a datagram: a listener's socket and a peer.
    pub const fn datagram(listener: u16, peer: SocketAddr) -> Flow {
        Flow { peer, listener, transport: Transport::Udp, core: 0, channel: Channel::Datagram { local: None } }
    }

    /// Returns the flow to a peer over a connection with the transport of `listener`; `core` is our own.
    pub const fn towards(transport: Transport, listener: u16, core: u8, peer: SocketAddr, name: u64, call: u64) -> Flow {
        Flow { peer, listener, transport, core, channel: Channel::Peer { name, call } }
    }

    /// Returns our address that a datagram must have as its source, if known.
    pub const fn local(&self) -> Option<IpAddr> {
        match self.channel {
            Channel::Datagram { local } => local,
            _ => None,
        }
    }

    /// Returns the same datagram flow from another of our addresses.
    pub const fn from_local(mut self, address: Option<IpAddr>) -> Flow {
        if let Channel::Datagram { local } = &mut self.channel {
            *local = address;
        }
        self
    }
}
