//! Flows to peers, where the rules choose one: the names by which the wires know a peer and a call, which connections are alive,
//! and where a response goes if its connection is gone (RFC 3261 §18.2.2).

use crate::base::{Channel, Flow, Key, LiveConnections, ProvedNames, Transport};
use crate::sip::{Uri, Via};
use crate::stack::settings::Settings;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// One core's view of the connections.
#[derive(Clone, Debug)]
pub struct PeerFlows {
    live: Arc<LiveConnections>,
    core: u8,
    names: Key,
    calls: Key,
    flows: Key,
}

impl PeerFlows {
    /// Creates the view of `core`, which opens connections under these names.
    pub fn new(live: Arc<LiveConnections>, core: u8, secret: Key) -> PeerFlows {
        PeerFlows { live, core, names: secret.derive("peer name"), calls: secret.derive("call"), flows: secret.derive("flow") }
    }

    pub fn is_alive(&self, flow: &Flow) -> bool {
        self.live.is_alive(flow)
    }

    /// Also true for a connection whose peer sends no more but may still be receiving.
    pub fn takes_answers(&self, flow: &Flow) -> bool {
        self.live.takes_answers(flow)
    }

    /// Returns the names that the client at the other end of this connection has proved by certificate.
    pub fn proved(&self, flow: &Flow) -> Option<ProvedNames> {
        match flow.transport {
            Transport::Tls => self.live.proved(flow),
            Transport::Udp | Transport::Tcp => None,
        }
    }

    /// Returns a connection to `peer`: the existing one under these names, or a new one. `host` is what its certificate must prove
    /// over TLS, and `identity` the certificate that it is shown; `host` is replaced by what the wires must be told of it
    /// ([`crate::base::Outbox::introduce`]), which over TCP is nothing.
    pub fn towards(
        &self,
        transport: Transport,
        listener: u16,
        peer: SocketAddr,
        host: &mut Vec<u8>,
        identity: u64,
        call: u64,
    ) -> Flow {
        let name = match transport {
            Transport::Tls => self.name(host, identity),
            Transport::Udp | Transport::Tcp => {
                host.clear();
                0
            }
        };
        Flow::towards(transport, listener, self.core, peer, name, call)
    }

    /// Returns a hash of a host that is shown a certificate, never 0. Names are compared without case (RFC 5922 §7.2) and without
    /// the root's dot, addresses by value. `host` is normalised accordingly.
    pub fn name(&self, host: &mut Vec<u8>, identity: u64) -> u64 {
        host.make_ascii_lowercase();
        if host.last() == Some(&b'.') {
            host.pop();
        }
        if host.contains(&b':')
            && let Some(ip) = Settings::ip(host)
        {
            host.clear();
            // Writing to memory does not fail.
            let _ = write!(host, "{ip}");
        }
        let name = match identity {
            0 => self.names.hash(&[host]),
            _ => self.names.hash(&[host, &identity.to_be_bytes()]),
        };
        name.max(1)
    }

    /// Returns a hash of a call that has its connections to itself, never 0.
    pub fn call(&self, call_id: &[u8]) -> u64 {
        self.calls.hash(&[call_id]).max(1)
    }

    /// Returns the flow for a response whose connection is gone: a new one to the source's address, at the port of sent-by.
    pub fn back(&self, flow: &Flow, via: &Via, host: &mut Vec<u8>) -> Flow {
        let port = via.port.unwrap_or(flow.transport.default_port());
        let peer = SocketAddr::new(flow.peer.ip(), port);
        set_host(via.host_text, host);
        self.towards(flow.transport, flow.listener, peer, host, 0, 0)
    }

    /// Returns the key of requests in progress on a connection; `None` if the flow is not a connection.
    pub fn key(&self, flow: &Flow) -> Option<u128> {
        let (kind, a, b) = match flow.channel {
            Channel::Datagram { .. } | Channel::Back => return None,
            Channel::Connection { slot, generation } => (flow.core, u64::from(slot), u64::from(generation)),
            Channel::Peer { name, call } => (0, name, call),
        };
        let (a, b) = (a.to_be_bytes(), b.to_be_bytes());
        if let Channel::Connection { .. } = flow.channel {
            return Some(self.flows.wide(&[b"connection", &[kind], &a, &b]));
        }
        let port = flow.peer.port().to_be_bytes();
        let transport = [flow.transport as u8];
        Some(match flow.peer.ip() {
            IpAddr::V4(ip) => self.flows.wide(&[&transport, &ip.octets(), &port, &a, &b]),
            IpAddr::V6(ip) => self.flows.wide(&[&transport, &ip.octets(), &port, &a, &b]),
        })
    }
}

/// Returns where the response to a request goes (§18.2.2 with RFC 3581 §4): to the source address, at the source port if the client
/// asked for that with `rport`, otherwise at the port of sent-by. `maddr` is ignored: it would let a stranger aim our answers.
pub(in crate::stack) fn reply_flow(flow: Flow, via: &Via) -> Flow {
    if flow.transport.is_reliable() || via.rport().is_some() {
        return flow;
    }
    let mut flow = flow;
    flow.peer.set_port(via.port.unwrap_or(5060));
    flow
}

/// Returns whether a contact is the far end of this connection, by address and port, and the port is not a server's.
pub(in crate::stack) fn is_end_of(contact: &[u8], flow: &Flow) -> bool {
    let end = flow.peer;
    end.port() != flow.transport.default_port()
        && Uri::parse(contact).is_ok_and(|uri| uri.host.ip() == Some(end.ip()) && uri.port == Some(end.port()))
}

/// Sets `out` to the host as a certificate names it: an address without brackets.
pub fn set_host(host: &[u8], out: &mut Vec<u8>) {
    let bare = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(host);
    out.clear();
    out.extend_from_slice(bare);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer_flows() -> PeerFlows {
        PeerFlows::new(Arc::default(), 1, Key::new(1, 2))
    }

    fn towards(transport: Transport, peer: &str, host: &str, call: u64) -> Flow {
        let mut host = host.as_bytes().to_vec();
        peer_flows().towards(transport, 0, peer.parse().unwrap(), &mut host, 0, call)
    }

    #[test]
    fn a_peer_has_one_name_however_it_is_written_and_no_other() {
        let at = "10.0.0.1:5061";
        let flow = towards(Transport::Tls, at, "Example.COM", 0);
        assert_eq!(flow, towards(Transport::Tls, at, "example.com", 0));
        assert_eq!(flow, towards(Transport::Tls, at, "example.com.", 0));
        assert_ne!(flow, towards(Transport::Tls, at, "example.net", 0));
        assert_ne!(flow, towards(Transport::Tls, at, "10.0.0.1", 0));
        let mut host = b"example.com".to_vec();
        let peer = at.parse().unwrap();
        let other = peer_flows().towards(Transport::Tls, 0, peer, &mut host, 7, 0);
        assert_ne!(flow, other, "it is shown another certificate");
        let six = towards(Transport::Tls, at, "2001:db8::1", 0);
        assert_eq!(six, towards(Transport::Tls, at, "2001:0DB8:0:0::1", 0));
        assert!(matches!(flow.channel, Channel::Peer { name, call: 0 } if name != 0));
        let flow = towards(Transport::Tcp, at, "example.com", 7);
        assert_eq!(flow.channel, Channel::Peer { name: 0, call: 7 });
        assert_eq!(flow.core, 1);
    }

    #[test]
    fn every_connection_has_a_key_of_its_own() {
        let connection = |core, slot, generation| Flow {
            core,
            channel: Channel::Connection { slot, generation },
            ..towards(Transport::Tcp, "10.0.0.1:5060", "", 0)
        };
        let flows = [
            connection(0, 1, 2),
            connection(1, 1, 2),
            connection(0, 2, 2),
            connection(0, 1, 3),
            towards(Transport::Tcp, "10.0.0.1:5060", "", 0),
            towards(Transport::Tls, "10.0.0.1:5060", "a", 0),
            towards(Transport::Tls, "10.0.0.1:5060", "b", 0),
            towards(Transport::Tcp, "10.0.0.1:5061", "", 0),
            towards(Transport::Tcp, "10.0.0.2:5060", "", 0),
            towards(Transport::Tcp, "[2001:db8::1]:5060", "", 0),
            towards(Transport::Tcp, "10.0.0.1:5060", "", 1),
        ];
        let keys: std::collections::BTreeSet<_> = flows.iter().map(|flow| peer_flows().key(flow)).collect();
        assert_eq!(keys.len(), flows.len());
        assert!(!keys.contains(&None));
        let datagram = Flow::datagram(0, "10.0.0.1:5060".parse().unwrap());
        assert_eq!(peer_flows().key(&datagram), None);
    }

    #[test]
    fn the_host_of_an_ipv6_reference_is_the_address() {
        let mut out = b"old".to_vec();
        set_host(b"[2001:db8::1]", &mut out);
        assert_eq!(out, b"2001:db8::1");
        set_host(b"example.com", &mut out);
        assert_eq!(out, b"example.com");
    }
}
