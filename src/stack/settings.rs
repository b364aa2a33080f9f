//! What the rules need to know, as plain data: built from the conf, immutable, replaced as a whole.

use crate::base::Transport;
use crate::settings::{Auth, Dns, Limits, NextHops, Proxy, Records, Registrar, Timers};
pub use crate::settings::{Fork, InDialog, Mode, Outgoing};
use crate::sip::same_name;
use crate::stack::route::Routes;
use crate::stack::trunk::Trunk;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Everything that the conf says about SIP. One copy is shared by all cores.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Hosts that this server is responsible for, lower-case. The listeners' own addresses always count.
    pub domains: Vec<Vec<u8>>,
    /// Indexed by [`crate::base::Flow::listener`].
    pub listeners: Vec<Listener>,
    /// Local IP addresses that a wildcard listener answers on.
    pub local_addresses: Vec<IpAddr>,
    /// Number of serving cores, at least 1.
    pub cores: u8,
    pub per_core: PerCore,
    pub proxy: Proxy,
    pub registrar: Registrar,
    pub auth: Auth,
    pub next_hop: NextHops,
    pub timers: Timers,
    pub limits: Limits,
    pub dns: Dns,
    pub records: Records,
    /// How connections to next hops are made, unless a route says otherwise.
    pub outgoing: Outgoing,
    /// First match wins.
    pub routes: Routes,
    /// Carrier accounts.
    pub trunks: Vec<Arc<Trunk>>,
}

/// One core's part of what the conf allows the whole server, or of what memory holds.
#[derive(Clone, Debug)]
pub struct PerCore {
    /// Server transactions.
    pub transactions: usize,
    /// Bytes of the messages that transactions hold.
    pub transaction_bytes: usize,
    /// DNS queries that may be in flight.
    pub questions: usize,
}

impl Default for PerCore {
    fn default() -> Self {
        PerCore { transactions: 1 << 20, transaction_bytes: 1 << 30, questions: 512 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            domains: Vec::new(),
            listeners: Vec::new(),
            local_addresses: Vec::new(),
            cores: 1,
            per_core: PerCore::default(),
            proxy: Proxy::default(),
            registrar: Registrar::default(),
            auth: Auth::default(),
            next_hop: NextHops::default(),
            timers: Timers::default(),
            limits: Limits::default(),
            dns: Dns::default(),
            records: Records::default(),
            outgoing: Outgoing::default(),
            routes: Routes::default(),
            trunks: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Listener {
    pub transport: Transport,
    /// The address that the socket is bound to; may be a wildcard.
    pub address: SocketAddr,
    /// `host:port` as Via and Record-Route write it; the host may be a name.
    pub advertise: Vec<u8>,
}

impl Listener {
    /// Returns whether what is sent to `ip` can reach this socket; `local` are the machine's addresses.
    pub fn answers_on(&self, ip: IpAddr, local: &[IpAddr]) -> bool {
        let (ip, bound) = (ip.to_canonical(), self.address.ip().to_canonical());
        bound == ip
            || (bound.is_unspecified()
                && bound.is_ipv4() == ip.is_ipv4()
                && (ip.is_loopback() || ip.is_unspecified() || local.contains(&ip)))
    }
}

impl Settings {
    /// Returns whether a request for `host` and `port` is for this server (RFC 3261 §16.4, §16.5): a configured domain, an
    /// advertised name, or an address that one of the listeners answers on. A port, if given, must be a listener's, or the default
    /// port if the host is a name. This is about routing: whose name a URI bears is decided by [`Settings::whose`].
    pub fn is_own(&self, host: &[u8], ip: Option<IpAddr>, port: Option<u16>) -> bool {
        let default = |port: u16| matches!(port, 5060 | 5061);
        let own_domain = || self.domains.iter().any(|domain| same_name(domain, host));
        let own_port = |port: u16| self.listeners.iter().any(|l| l.address.port() == port);
        ip.is_some_and(|ip| self.is_own_address(ip, port))
            || self.listeners.iter().any(|listener| {
                // Most names belong to no listener: the port is not parsed for those.
                is_named(&listener.advertise, host)
                    && port.is_none_or(|port| {
                        let (_, advertised) = split_host_port(&listener.advertise);
                        port == advertised.unwrap_or(listener.transport.default_port())
                    })
            })
            || (own_domain() && port.is_none_or(|port| own_port(port) || (ip.is_none() && default(port))))
    }

    /// Returns whether one of the listeners answers on this address, and on this port if one is given.
    pub fn is_own_address(&self, ip: IpAddr, port: Option<u16>) -> bool {
        let is_port_of = |listener: &Listener| port.is_none_or(|port| port == listener.address.port());
        self.listeners.iter().any(|listener| is_port_of(listener) && listener.answers_on(ip, &self.local_addresses))
    }

    /// Parses an IP address as written in SIP, with or without brackets.
    pub fn ip(text: &[u8]) -> Option<IpAddr> {
        let text = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b"]")).unwrap_or(text);
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    /// Returns the listener for the path to `peer`, which Via and Record-Route then name: the one that the request arrived on if
    /// transport and family match, otherwise the first that matches; `None` if there is none.
    pub fn listener_towards(&self, transport: Transport, peer: SocketAddr, came_by: u16) -> Option<u16> {
        let fits = |listener: &Listener| listener.transport == transport && listener.address.is_ipv4() == peer.is_ipv4();
        // A loopback socket reaches only loopback, and vice versa.
        let near = |listener: &Listener| {
            fits(listener)
                && (listener.address.ip().is_unspecified() || listener.address.ip().is_loopback() == peer.ip().is_loopback())
        };
        let came_by = self.listeners.get(usize::from(came_by)).zip(Some(came_by));
        if let Some((listener, number)) = came_by
            && near(listener)
        {
            return Some(number);
        }
        let first = |test: &dyn Fn(&Listener) -> bool| self.listeners.iter().position(test).map(|n| n as u16);
        // With several addresses of ours, prefer the one that the request arrived on, under the other transport.
        let beside =
            |listener: &Listener| near(listener) && came_by.is_some_and(|(other, _)| other.address.ip() == listener.address.ip());
        first(&beside).or_else(|| first(&near)).or_else(|| first(&fits))
    }

    /// Appends the Warning of RFC 5630 §5.3 on behalf of a listener.
    pub fn write_sips_not_allowed(&self, listener: u16, out: &mut Vec<u8>) {
        let listener = self.listeners.get(usize::from(listener));
        out.extend_from_slice(b"Warning: 380 ");
        out.extend_from_slice(listener.map_or(&b"-"[..], |listener| &listener.advertise));
        out.extend_from_slice(b" \"SIPS Not Allowed\"\r\n");
    }

    /// Returns the listener that advertises `host` and `port`; if there are several, the one with this transport.
    pub fn listener_named(&self, transport: Transport, host: &[u8], port: Option<u16>) -> Option<u16> {
        let named = |listener: &Listener| {
            let (name, advertised) = split_host_port(&listener.advertise);
            let default = listener.transport.default_port();
            name.eq_ignore_ascii_case(host) && port.unwrap_or(default) == advertised.unwrap_or(default)
        };
        let exactly = |listener: &Listener| listener.transport == transport && named(listener);
        let mut all = self.listeners.iter();
        let place = all.position(exactly).or_else(|| self.listeners.iter().position(named))?;
        Some(place as u16)
    }
}

/// Returns whether `host` is the host in `host`, `host:port`, `[v6]` or `[v6]:port`.
fn is_named(advertise: &[u8], host: &[u8]) -> bool {
    match advertise.split_at_checked(host.len()) {
        Some((start, [] | [b':', ..])) if start == host => true,
        _ => same_name(host_of(advertise), host),
    }
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port`; the host keeps its brackets.
pub fn split_host_port(text: &[u8]) -> (&[u8], Option<u16>) {
    let (host, rest) = split_behind_host(text);
    let port = rest.strip_prefix(b":").and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    (host, port)
}

/// The host alone.
pub fn host_of(text: &[u8]) -> &[u8] {
    split_behind_host(text).0
}

fn split_behind_host(text: &[u8]) -> (&[u8], &[u8]) {
    let host_end = match text.first() {
        Some(b'[') => memchr::memchr(b']', text).map(|bracket| bracket + 1),
        _ => memchr::memchr(b':', text),
    };
    text.split_at(host_end.unwrap_or(text.len()))
}
