//! A next hop that the conf names.

use crate::base::Transport;
use crate::sip::{KeptUri, Scheme};
use std::net::SocketAddr;

/// A `target` of a relay route.
#[derive(Clone, Debug, PartialEq)]
pub struct NextHop {
    /// The URI as written in the conf.
    pub uri: KeptUri,
    /// `None`: the host of `uri` is a name, looked up for each request (RFC 3263).
    pub address: Option<SocketAddr>,
    /// As given in `uri`, otherwise its scheme's default, which a name's DNS records may override.
    pub transport: Transport,
    /// What the peer's certificate must prove over TLS (RFC 5922): the host of `uri`, lower-case, an address without brackets.
    pub host: Vec<u8>,
    /// Which of our certificates it is shown over TLS on request; 0: the default one.
    pub identity: u64,
}

impl NextHop {
    /// Returns whether its URI names no transport, so that a name's records may.
    pub fn leaves_transport_open(&self) -> bool {
        let uri = self.uri.uri();
        uri.scheme != Scheme::Sips && uri.transport().is_none()
    }
}
