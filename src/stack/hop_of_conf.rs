//! A next hop that the conf names.

use crate::base::Transport;
use crate::sip::{KeptUri, Scheme};
use std::net::SocketAddr;

/// A `target` of a relay route.
#[derive(Clone, Debug, PartialEq)]
pub struct NextHop {
    /// The URI as the conf gives it.
    pub uri: KeptUri,
    /// `None`: the host of `uri` is a name, which is looked up for each request (RFC 3263).
    pub address: Option<SocketAddr>,
    /// What `uri` says, or its scheme's default. A name's records may say otherwise where it says nothing.
    pub transport: Transport,
    /// What the peer's certificate must prove over TLS (RFC 5922): the host of `uri`, lower-case, an address without brackets.
    pub host: Vec<u8>,
    /// Which certificate of ours it is shown over TLS if it asks; 0: the one that all are.
    pub identity: u64,
}

impl NextHop {
    /// Whether its URI says nothing of a transport, so that the records of a name may.
    pub fn leaves_transport_open(&self) -> bool {
        let uri = self.uri.uri();
        uri.scheme != Scheme::Sips && uri.transport().is_none()
    }
}
