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
}

/// Where a message came from, and where its answer goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    /// The other end.
    pub peer: SocketAddr,
    /// Which listener of the conf, by position. A datagram leaves through the socket that this names.
    pub listener: u16,
    pub transport: Transport,
    /// The core that owns the connection; for a datagram any core may send.
    pub core: u8,
    /// The connection's place in its owner's table and its generation; 0 and 0 for datagrams.
    pub slot: u32,
    pub generation: u32,
    /// Which of our addresses the peer sent its datagram to, where the listener is on all of them (0.0.0.0 or ::): an answer
    /// from another one would not pass a NAT or a connected socket. `None`: the listener has one address, or the peer asked
    /// nothing, and the kernel chooses. It decides what we write as source and nothing else.
    pub local: Option<IpAddr>,
}

impl Flow {
    /// The way of a datagram: a listener's socket and a peer.
    pub const fn datagram(listener: u16, peer: SocketAddr) -> Flow {
        Flow {
            peer,
            listener,
            transport: Transport::Udp,
            core: 0,
            slot: 0,
            generation: 0,
            local: None,
        }
    }
}
