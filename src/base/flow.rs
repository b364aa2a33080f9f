//! The name of a way to a peer: what `net` opens and `stack` remembers. The two rooms share this noun and the outbox.

use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    /// As a Via header writes it.
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

    /// The port of a URI that names none (RFC 3261 §19.1.2).
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
    /// Which listener of the conf, by position. A datagram leaves through the socket that this names; for a connection it is
    /// the one that accepted it, or the one that our Via names.
    pub listener: u16,
    pub transport: Transport,
    /// The core that owns the connection; for a datagram any core may send.
    pub core: u8,
    pub channel: Channel,
}

/// What carries a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Channel {
    /// A listener's own socket.
    Datagram {
        /// Which of our addresses the peer sent its datagram to, where the listener is on all of them (0.0.0.0 or ::): an
        /// answer from another one would not pass a NAT or a connected socket. `None`: the listener has one address, or the
        /// peer asked nothing, and the kernel chooses. It decides what we write as source and nothing else.
        local: Option<IpAddr>,
    },
    /// This connection and no other: its place in its owner's table, and its generation there.
    Connection { slot: u32, generation: u32 },
    /// A connection that this core has opened to the peer under the same two names, or opens now.
    Peer {
        /// Stands for the name that the peer's certificate must prove (RFC 5922); the outbox brings the text along
        /// ([`super::Outbox::introduce`]). 0: none is asked.
        name: u64,
        /// Stands for the call that has the connection to itself; 0: it is shared.
        call: u64,
    },
    /// The connection that the peer has opened to us from the flow's address and port, whatever its place (RFC 3261 §18.2.2):
    /// for the response of who remembers nothing.
    Back,
}

impl Flow {
    /// The way of a datagram: a listener's socket and a peer.
    pub const fn datagram(listener: u16, peer: SocketAddr) -> Flow {
        Flow { peer, listener, transport: Transport::Udp, core: 0, channel: Channel::Datagram { local: None } }
    }

    /// The way to a peer by a connection of the transport of `listener`: `core` is our own.
    pub const fn towards(transport: Transport, listener: u16, core: u8, peer: SocketAddr, name: u64, call: u64) -> Flow {
        Flow { peer, listener, transport, core, channel: Channel::Peer { name, call } }
    }

    /// The address of ours that a datagram has to show as its source, where that is known.
    pub const fn local(&self) -> Option<IpAddr> {
        match self.channel {
            Channel::Datagram { local } => local,
            _ => None,
        }
    }

    /// The same datagram flow, from another of our addresses.
    pub const fn from_local(mut self, address: Option<IpAddr>) -> Flow {
        if let Channel::Datagram { local } = &mut self.channel {
            *local = address;
        }
        self
    }
}
