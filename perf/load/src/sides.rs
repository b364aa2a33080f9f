//! The options that say how each side reaches the server, and what ends they make.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::{Args, ValueEnum};

use crate::tls::{Endpoint, TlsArguments};
use crate::wire::{Local, Manner, Opening, Side, Transport};

/// `8` connections for all calls, or `per-call`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connections {
    Persistent(u32),
    PerCall,
}

impl std::str::FromStr for Connections {
    type Err = String;

    fn from_str(text: &str) -> Result<Connections, String> {
        match text.parse() {
            Ok(0) => Err("at least one connection is needed".into()),
            Ok(number) => Ok(Connections::Persistent(number)),
            Err(_) if text == "per-call" => Ok(Connections::PerCall),
            Err(_) => Err("neither a number nor per-call".into()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Callee {
    /// The server connects to us
    Listen,
    /// We connect to the server and register there; calls come by the same connection
    Flow,
}

/// Which side of the calls this process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Role {
    Both,
    /// The answerers are another process
    Callers,
    /// Answers until SIGTERM, SIGINT or the end of --duration
    Answerers,
}

#[derive(Args)]
pub struct Ports {
    /// First port of the callers
    #[arg(long, default_value_t = 15070)]
    pub caller_port: u16,
    /// First port of the answerers; the users' contacts name it
    #[arg(long, default_value_t = 15570)]
    pub answerer_port: u16,
    /// Sockets on each side; more than one where the server has several sockets under one port
    #[arg(long, default_value_t = 1)]
    pub sockets: u16,
}

#[derive(Args)]
pub struct SideArguments {
    /// Which side of the calls this process is
    #[arg(long, value_enum, default_value_t = Role::Both)]
    pub role: Role,
    /// The callers' transport
    #[arg(long, value_enum, default_value_t = Transport::Udp)]
    pub transport: Transport,
    /// The callers' connections: a number for all calls, or per-call for one each, closed when its BYE is answered
    #[arg(long, default_value = "1")]
    pub connections: Connections,
    /// The answerers' transport [default: the callers']
    #[arg(long, value_enum)]
    callee_transport: Option<Transport>,
    /// Who opens the answerers' connections
    #[arg(long, value_enum, default_value_t = Callee::Listen)]
    callee: Callee,
    /// With --callee flow, how many. With listen, per-call: we close each when we have answered its BYE; otherwise they are the server's to close
    #[arg(long, default_value = "1")]
    callee_connections: Connections,
    /// The server, for the answerers [default: --server, or the usual port of the answerers' transport at the same address]
    #[arg(long)]
    callee_server: Option<SocketAddr>,
    /// Where users are registered over UDP whose contacts name our listener [default: port 5060 at the server's address]
    #[arg(long)]
    register_server: Option<SocketAddr>,
    /// The contacts of the users name this many addresses of 127.0.0.0/8 in turn: a server that keeps a connection for each address then opens one
    /// for each user
    #[arg(long, default_value_t = 0)]
    spread: u32,
    /// The callers' connections leave from this many addresses in turn, from --local upwards
    #[arg(long, default_value_t = 1)]
    sources: u32,
    /// The answerer is a next hop of the server's conf: its calls keep their Request-URI, and nobody is registered
    #[arg(long)]
    pub routed: bool,
    /// So many proxies stand between the callers and the answerers at most
    #[arg(long, default_value_t = 1)]
    pub hops: usize,
}

/// This machine's own address of a family.
pub fn loopback(is_ipv6: bool) -> IpAddr {
    match is_ipv6 {
        true => Ipv6Addr::LOCALHOST.into(),
        false => Ipv4Addr::LOCALHOST.into(),
    }
}

/// The usual port of a transport, at this address or at 127.0.0.1.
pub fn default_server(transport: Transport, host: Option<IpAddr>) -> SocketAddr {
    let port = match transport {
        Transport::Tls => 5061,
        Transport::Udp | Transport::Tcp => 5060,
    };
    SocketAddr::new(host.unwrap_or(Ipv4Addr::LOCALHOST.into()), port)
}

impl SideArguments {
    fn callee_transport(&self) -> Transport {
        self.callee_transport.unwrap_or(self.transport)
    }

    fn callee_listens(&self) -> bool {
        self.callee_transport().is_reliable() && self.callee == Callee::Listen
    }

    /// Who sends the users' REGISTERs: those whose way the calls will take where there is one.
    pub fn registrar(&self, only_registers: bool) -> Side {
        let (caller, callee) = (self.transport, self.callee_transport());
        match self.callee {
            Callee::Flow if callee.is_reliable() => Side::Answerer,
            _ if only_registers => Side::Caller,
            _ if self.callee_listens() => Side::Registrar,
            _ if self.role == Role::Answerers => Side::Answerer,
            _ if caller == Transport::Udp => Side::Caller,
            _ => Side::Answerer,
        }
    }

    /// The ends to open: the callers' first, then the answerers'.
    pub fn openings(
        &self,
        server: SocketAddr,
        local: SocketAddr,
        ports: &Ports,
        tls: &TlsArguments,
    ) -> Result<Vec<Opening>, String> {
        let callee = self.callee_transport();
        let callee_server = self.callee_server.unwrap_or(match callee == self.transport {
            true => server,
            false => default_server(callee, Some(server.ip())),
        });
        if self.spread > 0 && !self.callee_listens() {
            return Err("only a listener's contacts can be spread".into());
        }
        if self.spread > 0 && local.is_ipv6() {
            return Err("contacts can be spread over 127.0.0.0/8 only".into());
        }
        if [server, callee_server].iter().any(|server| server.is_ipv6() != local.is_ipv6()) {
            return Err("one of our address and the server's is IPv6, the other IPv4".into());
        }
        let mut openings = Vec::new();
        if self.role != Role::Answerers {
            openings.push(self.callers(server, local.ip(), ports, tls)?);
        }
        if self.role != Role::Callers {
            // The listener opens before anybody connects, so that callers without a server between can connect to it.
            openings.push(self.answerers(callee_server, local.ip(), ports, tls)?);
            if self.callee_listens() {
                let (transport, manner, address) = (Transport::Udp, Manner::Socket, SocketAddr::new(local.ip(), 0));
                let local = Local { side: Side::Registrar, transport, manner, address, spread: 0 };
                let server = self.register_server.unwrap_or(default_server(transport, Some(server.ip())));
                openings.push(Opening { local, count: 1, server, tls: None, sources: 1 });
            }
        }
        Ok(openings)
    }

    fn callers(&self, server: SocketAddr, ip: IpAddr, ports: &Ports, tls: &TlsArguments) -> Result<Opening, String> {
        let (manner, count) = match (self.transport, self.connections) {
            (Transport::Udp, _) => (Manner::Socket, ports.sockets.into()),
            (_, Connections::Persistent(number)) => (Manner::Persistent, number),
            (_, Connections::PerCall) => (Manner::PerCall, 1),
        };
        let (transport, address) = (self.transport, SocketAddr::new(ip, ports.caller_port));
        let local = Local { side: Side::Caller, transport, manner, address, spread: 0 };
        let tls = match transport {
            Transport::Tls => Some(Endpoint::client(&tls.caller())?),
            Transport::Udp | Transport::Tcp => None,
        };
        Ok(Opening { local, count, server, tls, sources: self.sources })
    }

    fn answerers(&self, server: SocketAddr, ip: IpAddr, ports: &Ports, tls: &TlsArguments) -> Result<Opening, String> {
        let transport = self.callee_transport();
        let (manner, count) = match (transport, self.callee, self.callee_connections) {
            (Transport::Udp, _, _) => (Manner::Socket, ports.sockets.into()),
            (_, Callee::Flow, Connections::Persistent(number)) => (Manner::Persistent, number),
            (_, Callee::Flow, Connections::PerCall) => {
                return Err("calls come by the answerers' connections: they cannot be per call".into());
            }
            (_, Callee::Listen, Connections::PerCall) => (Manner::ListeningPerCall, 1),
            (_, Callee::Listen, Connections::Persistent(_)) => (Manner::Listening, 1),
        };
        let address = SocketAddr::new(ip, ports.answerer_port);
        let local = Local { side: Side::Answerer, transport, manner, address, spread: self.spread };
        let tls = match (transport, self.callee) {
            (Transport::Tls, Callee::Listen) => Some(Endpoint::server(&tls.callee())?),
            (Transport::Tls, Callee::Flow) => Some(Endpoint::client(&tls.callee())?),
            (Transport::Udp | Transport::Tcp, _) => None,
        };
        Ok(Opening { local, count, server, tls, sources: 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Both {
        #[command(flatten)]
        sides: SideArguments,
        #[command(flatten)]
        ports: Ports,
        #[command(flatten)]
        tls: TlsArguments,
    }

    fn openings(line: &str) -> Result<(SideArguments, Vec<Opening>), String> {
        let both = Both::parse_from(["x"].into_iter().chain(line.split_whitespace()));
        let server = default_server(both.sides.transport, None);
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let openings = both.sides.openings(server, local, &both.ports, &both.tls)?;
        Ok((both.sides, openings))
    }

    #[test]
    fn udp_alone_is_two_rows_of_sockets() {
        let (sides, openings) = openings("--sockets 2").expect("options");
        let kinds: Vec<_> = openings.iter().map(|o| (o.local.side, o.local.manner, o.count)).collect();
        assert_eq!(kinds, [(Side::Caller, Manner::Socket, 2), (Side::Answerer, Manner::Socket, 2)]);
        assert_eq!(sides.registrar(false), Side::Caller);
    }

    #[test]
    fn each_side_has_its_transport_and_its_server() {
        let (sides, openings) = openings("--transport tls --connections per-call --callee-transport tcp").expect("options");
        assert_eq!(openings[0].local.manner, Manner::PerCall);
        assert_eq!(openings[0].server.port(), 5061);
        assert!(openings[0].tls.is_some());
        assert_eq!(openings[1].local.manner, Manner::Listening);
        assert!(openings[1].tls.is_none());
        // Contacts that name a listener are registered from elsewhere.
        assert_eq!(openings[2].local.side, Side::Registrar);
        assert_eq!(openings[2].server.port(), 5060);
        assert_eq!(sides.registrar(false), Side::Registrar);
        assert_eq!(sides.registrar(true), Side::Caller);
    }

    #[test]
    fn each_side_has_its_address() {
        let (_, openings) = openings("--transport tcp --callee-server 127.0.0.8:99").expect("options");
        assert_eq!(openings[0].local.address.to_string(), "127.0.0.1:15070");
        assert_eq!(openings[1].local.address.to_string(), "127.0.0.1:15570");
        assert_eq!(openings[1].server.to_string(), "127.0.0.8:99");
    }

    #[test]
    fn flows_register_themselves() {
        let (sides, openings) = openings("--transport tcp --callee flow --callee-connections 8").expect("options");
        assert_eq!(openings[1].local.manner, Manner::Persistent);
        assert_eq!(openings[1].count, 8);
        assert_eq!(openings[1].server.port(), 5060);
        assert_eq!(openings.len(), 2);
        assert_eq!(sides.registrar(false), Side::Answerer);
    }

    #[test]
    fn each_side_can_be_a_process_of_its_own() {
        let sides_of = |line| -> (SideArguments, Vec<Side>) {
            let (sides, openings) = openings(line).expect("options");
            (sides, openings.iter().map(|opening| opening.local.side).collect())
        };
        // Callers alone need no certificate for the answerers' listener.
        let (_, callers) = sides_of("--role callers --transport tls");
        assert_eq!(callers, [Side::Caller]);
        let (sides, answerers) = sides_of("--role answerers");
        assert_eq!(answerers, [Side::Answerer]);
        assert_eq!(sides.registrar(false), Side::Answerer);
        let (sides, answerers) = sides_of("--role answerers --transport tcp");
        assert_eq!(answerers, [Side::Answerer, Side::Registrar]);
        assert_eq!(sides.registrar(false), Side::Registrar);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--transport tls",
            "--callee-server [::1]:5060",
            "--transport tcp --callee flow --callee-connections per-call",
            "--callee-transport udp --spread 10",
        ] {
            assert!(openings(line).is_err(), "{line}");
        }
        assert!("0".parse::<Connections>().is_err());
        assert!("per-cal".parse::<Connections>().is_err());
    }
}
