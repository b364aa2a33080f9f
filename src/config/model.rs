//! The conf as plain checked data: the result of [`load`](super::load) for a TOML file.
//!
//! The plain sections are those of [`crate::settings`], which has their defaults; the others are here.

use crate::base::{Network, Transport};
use crate::net::tls::{Certificates, Pair};
use crate::settings::*;
use crate::stack::route::Routes;
use crate::stack::trunk::{Password, Trunk};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// A whole conf. It is immutable once loaded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conf {
    pub server: Server,
    pub listen: Listeners,
    pub tls: Tls,
    /// Those of `[tls]`, of each `[[tls.identity]]` and of each `[[route]]`. The files existed, and were PEM of their kind, when
    /// the conf was read.
    pub certificates: Certificates,
    pub connections: Connections,
    pub proxy: Proxy,
    pub registrar: Registrar,
    pub location: SharedTable,
    /// What `[location] password_file` says.
    pub location_password: Option<Password>,
    pub auth: Auth,
    /// In the order of the file: the first that matches wins.
    pub routes: Routes,
    pub trunks: Vec<Arc<Trunk>>,
    /// The files that their passwords were read from.
    pub password_files: Vec<PathBuf>,
    /// Files that earlier versions have left below the working directory, and that are not where the conf names them: a line each.
    pub left_behind: Vec<String>,
    /// What is legal and most likely a slip: a line each, with its place.
    pub warnings: Vec<String>,
    pub next_hop: NextHops,
    pub timers: Timers,
    pub limits: Limits,
    pub udp: Udp,
    pub dns: Dns,
    pub control: Control,
    pub metrics: Metrics,
    pub records: Records,
    pub trace: Trace,
    pub log: Log,
}

impl Conf {
    /// Every certificate with its key.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        let all = &self.certificates;
        let named = all.identities.iter().flat_map(|identity| &identity.pairs);
        let of_routes = all.client_identities.iter().flat_map(|(_, pairs)| pairs);
        let own = all.default_identity.iter().chain(&all.client_identity);
        own.chain(named).chain(of_routes)
    }

    /// Whether anybody is ever challenged: only then are users read.
    pub fn challenges(&self) -> bool {
        self.auth.challenge_register || self.challenges_calls()
    }

    /// Whether a request that is to be relayed is ever challenged.
    pub fn challenges_calls(&self) -> bool {
        self.auth.challenge_proxy || self.routes.challenge_some()
    }

    /// Whether a `[[listen]]` has this transport.
    pub fn listens_by(&self, transport: Transport) -> bool {
        self.listen.iter().any(|l| l.transport == transport)
    }
}

/// The listeners: never empty, no address twice for one transport, nor for both TCP and TLS. If one speaks TLS,
/// [`Certificates::default_identity`] is not empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Listeners(pub(super) Vec<Listen>);

impl std::ops::Deref for Listeners {
    type Target = [Listen];

    fn deref(&self) -> &[Listen] {
        &self.0
    }
}

impl Default for Listeners {
    fn default() -> Listeners {
        let listen = |transport: Transport| Listen::new(transport, default_address(transport));
        Listeners(vec![listen(Transport::Udp), listen(Transport::Tcp)])
    }
}

/// One `[[listen]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    pub transport: Transport,
    pub address: SocketAddr,
    /// What Via and Record-Route say instead of the address (RFC 3261 §18.1.1 `sent-by`): `host:port`. Always given if the address
    /// is a wildcard.
    pub advertise: Option<String>,
    /// The networks of load balancers that begin each connection with a PROXY header; empty for UDP.
    pub proxy_protocol: Vec<Network>,
}

impl Listen {
    pub fn new(transport: Transport, address: SocketAddr) -> Listen {
        Listen { transport, address, advertise: None, proxy_protocol: Vec::new() }
    }
}

/// The address of a `[[listen]]` that names none.
pub fn default_address(transport: Transport) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), transport.default_port())
}
