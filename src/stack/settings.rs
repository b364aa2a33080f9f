//! What the rules need to know, as plain data: made from the conf, immutable, swapped whole.

use crate::base::Transport;
use crate::sip::same_name;
use crate::stack::auth;
use crate::stack::route::{Network, Route};
use std::net::{IpAddr, SocketAddr};

/// Everything that the conf says about SIP. One copy is shared by all cores.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Hosts this server is responsible for, lower-case. The listeners' own addresses always are.
    pub domains: Vec<Vec<u8>>,
    /// By position: [`crate::base::Flow::listener`] names one.
    pub listeners: Vec<Listener>,
    /// Local IP addresses that a wildcard listener answers on.
    pub local_addresses: Vec<IpAddr>,
    /// Number of cores that serve, at least 1.
    pub cores: u8,
    pub proxy: Proxy,
    pub registrar: Registrar,
    pub auth: auth::Settings,
    pub timers: Timers,
    pub limits: Limits,
    /// How connections to next hops are made, where a route says nothing else.
    pub outgoing: Outgoing,
    /// First match wins.
    pub routes: Vec<Route>,
    pub names: Names,
}

/// How names are dealt with (RFC 3263), by each core.
#[derive(Clone, Debug)]
pub struct Names {
    /// How long a request waits for the names of its next hop.
    pub timeout_ms: u64,
    /// Answers that are remembered.
    pub cache: usize,
    /// Questions that may be on their way.
    pub questions: usize,
    /// What may wait that has no transaction.
    pub held_bytes: usize,
}

impl Default for Names {
    fn default() -> Self {
        Names {
            timeout_ms: 4000,
            cache: 10_000,
            questions: 512,
            held_bytes: 4 << 20,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Listener {
    pub transport: Transport,
    /// What the socket is bound to; may be a wildcard.
    pub address: SocketAddr,
    /// `host:port` as Via and Record-Route write it; the host may be a name.
    pub advertise: Vec<u8>,
}

impl Listener {
    /// Whether what is sent to `ip` can reach this socket; `local` are the addresses of the machine.
    pub fn answers_on(&self, ip: IpAddr, local: &[IpAddr]) -> bool {
        let (ip, bound) = (ip.to_canonical(), self.address.ip().to_canonical());
        bound == ip
            || (bound.is_unspecified()
                && bound.is_ipv4() == ip.is_ipv4()
                && (ip.is_loopback() || ip.is_unspecified() || local.contains(&ip)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Transaction-stateful (RFC 3261 §16.2).
    Stateful,
    /// RFC 3261 §16.11.
    Stateless,
}

/// Which connection a request to a next hop over TCP or TLS takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Outgoing {
    /// One for each peer, shared by all calls.
    #[default]
    Reuse,
    /// One for each call, even to the same address; closed when the call is over.
    PerCall,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fork {
    /// All targets at once, whatever their q.
    Parallel,
    /// Highest q first; equal q together.
    Sequential,
}

/// What is done with a request within a dialog for one of our users that shows no route of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InDialog {
    Relay,
    /// 403 where we stay on the path of dialogs, unless the sender has proved its name.
    Refuse,
}

#[derive(Clone, Debug)]
pub struct Proxy {
    pub mode: Mode,
    pub record_route: bool,
    pub in_dialog_without_route: InDialog,
    pub fork: Fork,
    /// Answer 302 with the targets instead of relaying (RFC 3261 §8.3).
    pub redirect: bool,
    /// Max-Breadth for requests that bring none (RFC 5393 §5.3.3).
    pub max_breadth: u32,
}

#[derive(Clone, Debug)]
pub struct Registrar {
    pub enabled: bool,
    pub min_expires_s: u32,
    pub default_expires_s: u32,
    pub max_expires_s: u32,
    /// Contacts for one address-of-record.
    pub max_contacts: usize,
    /// Bytes of one Contact value, and of the Path and the Call-ID that are kept with it, each.
    pub contact_size: usize,
    /// Where contacts may lie besides where they were registered from; none: anywhere but where only this host has a say.
    pub contact_networks: Vec<Network>,
}

/// RFC 3261 §17, table 4; milliseconds.
#[derive(Clone, Debug)]
pub struct Timers {
    pub t1_ms: u64,
    pub t2_ms: u64,
    pub t4_ms: u64,
    /// Timer C: how long an INVITE may ring without a provisional response.
    pub c_ms: u64,
    /// How long a finished transaction is remembered to absorb retransmissions (timers D, H, I, J, L, M: 64·T1).
    pub linger_ms: u64,
}

#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest message, bytes.
    pub message_size: usize,
    /// Server transactions of one core.
    pub transactions: usize,
    /// Bytes of the messages that a core's transactions hold.
    pub transaction_bytes: usize,
    /// How many times as long as a request may be what it makes us send to places that have proved nothing; 0: any number.
    pub answer_factor: usize,
    /// How long messages may wait before new requests are refused; 0: for ever.
    pub overload_ms: u64,
    /// Where most must be refused, the kernel drops some of the INVITEs that come by UDP.
    pub shed: bool,
    /// Whom we believe what it asserts of others: identities (RFC 3325).
    pub trusted_sources: Vec<Network>,
    /// Requests a second of one user, and new ones for one address-of-record; 0: any number.
    pub requests_per_user: u32,
    pub requests_per_aor: u32,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            t1_ms: 500,
            t2_ms: 4000,
            t4_ms: 5000,
            c_ms: 180_000,
            linger_ms: 32_000,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            domains: Vec::new(),
            listeners: Vec::new(),
            local_addresses: Vec::new(),
            cores: 1,
            proxy: Proxy {
                in_dialog_without_route: InDialog::Relay,
                mode: Mode::Stateful,
                record_route: true,
                fork: Fork::Parallel,
                redirect: false,
                max_breadth: 60,
            },
            registrar: Registrar {
                enabled: true,
                min_expires_s: 60,
                default_expires_s: 3600,
                max_expires_s: 3600,
                max_contacts: 10,
                contact_size: 1024,
                contact_networks: Vec::new(),
            },
            auth: auth::Settings::default(),
            timers: Timers::default(),
            limits: Limits {
                message_size: 65_536,
                transactions: 1 << 20,
                transaction_bytes: 1 << 30,
                answer_factor: 3,
                overload_ms: 100,
                shed: false,
                trusted_sources: Vec::new(),
                requests_per_user: 0,
                requests_per_aor: 0,
            },
            outgoing: Outgoing::default(),
            routes: Vec::new(),
            names: Names::default(),
        }
    }
}

impl Settings {
    /// Whether a request for `host` and `port` goes to this server (RFC 3261 §16.4, §16.5): a configured domain, an advertised name, or an
    /// address that one of the listeners answers on. Without a port it does; with one, the port must be a listener's, or the
    /// default port where the host is a name. A question of routing: whose name a URI bears is [`Settings::whose`]'s to say.
    pub fn is_own(&self, host: &[u8], ip: Option<IpAddr>, port: Option<u16>) -> bool {
        let default = |port: u16| matches!(port, 5060 | 5061);
        let own_domain = || self.domains.iter().any(|domain| same_name(domain, host));
        let own_port = |port: u16| self.listeners.iter().any(|l| l.address.port() == port);
        let by_address = ip.is_some_and(|ip| {
            self.listeners.iter().any(|l| {
                l.answers_on(ip, &self.local_addresses)
                    && port.is_none_or(|port| port == l.address.port())
            })
        });
        by_address
            || self.listeners.iter().any(|listener| {
                // Most names are no listener's: its port is not read for those.
                is_named(&listener.advertise, host)
                    && port.is_none_or(|port| {
                        let (_, advertised) = split_host_port(&listener.advertise);
                        port == advertised.unwrap_or(listener.transport.default_port())
                    })
            })
            || (own_domain()
                && port.is_none_or(|port| own_port(port) || (ip.is_none() && default(port))))
    }

    /// Reads an IP address as SIP writes it, with or without brackets.
    pub fn ip(text: &[u8]) -> Option<IpAddr> {
        let text = text
            .strip_prefix(b"[")
            .and_then(|text| text.strip_suffix(b"]"))
            .unwrap_or(text);
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    /// The listener that speaks for us on the way to `peer`, whose Via and Record-Route name it: the one that the request came
    /// in by when transport and family fit, else the first that does. `None` when no listener does.
    pub fn listener_towards(
        &self,
        transport: Transport,
        peer: SocketAddr,
        came_by: u16,
    ) -> Option<u16> {
        let fits = |listener: &Listener| {
            listener.transport == transport && listener.address.is_ipv4() == peer.is_ipv4()
        };
        // A loopback socket reaches loopback only, and the other way round.
        let near = |listener: &Listener| {
            fits(listener)
                && (listener.address.ip().is_unspecified()
                    || listener.address.ip().is_loopback() == peer.ip().is_loopback())
        };
        let came_by = self.listeners.get(usize::from(came_by)).zip(Some(came_by));
        if let Some((listener, number)) = came_by
            && near(listener)
        {
            return Some(number);
        }
        let first = |test: &dyn Fn(&Listener) -> bool| {
            self.listeners.iter().position(test).map(|n| n as u16)
        };
        // Several addresses of ours: where one transport came in, the other goes out.
        let beside = |listener: &Listener| {
            near(listener)
                && came_by.is_some_and(|(other, _)| other.address.ip() == listener.address.ip())
        };
        first(&beside)
            .or_else(|| first(&near))
            .or_else(|| first(&fits))
    }

    /// Appends the Warning of RFC 5630 §5.3, in the name of a listener.
    pub fn write_sips_not_allowed(&self, listener: u16, out: &mut Vec<u8>) {
        let listener = self.listeners.get(usize::from(listener));
        out.extend_from_slice(b"Warning: 380 ");
        out.extend_from_slice(listener.map_or(&b"-"[..], |listener| &listener.advertise));
        out.extend_from_slice(b" \"SIPS Not Allowed\"\r\n");
    }

    /// The listener that advertises `host` and `port`; of several the one of this transport.
    pub fn listener_named(
        &self,
        transport: Transport,
        host: &[u8],
        port: Option<u16>,
    ) -> Option<u16> {
        let named = |listener: &Listener| {
            let (name, advertised) = split_host_port(&listener.advertise);
            let default = listener.transport.default_port();
            name.eq_ignore_ascii_case(host)
                && port.unwrap_or(default) == advertised.unwrap_or(default)
        };
        let exactly = |listener: &Listener| listener.transport == transport && named(listener);
        let mut all = self.listeners.iter();
        let place = all
            .position(exactly)
            .or_else(|| self.listeners.iter().position(named))?;
        Some(place as u16)
    }
}

/// Whether `host` is the host of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn is_named(advertise: &[u8], host: &[u8]) -> bool {
    match advertise.split_at_checked(host.len()) {
        Some((start, [] | [b':', ..])) if start == host => true,
        _ => same_name(split_host_port(advertise).0, host),
    }
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port`; the host keeps its brackets.
pub fn split_host_port(text: &[u8]) -> (&[u8], Option<u16>) {
    let host_end = match text.first() {
        Some(b'[') => memchr::memchr(b']', text).map(|bracket| bracket + 1),
        _ => memchr::memchr(b':', text),
    };
    let (host, rest) = text.split_at(host_end.unwrap_or(text.len()));
    let port = rest
        .strip_prefix(b":")
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    (host, port)
}
