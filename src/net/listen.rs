//! A listening stream socket of one listener on one core: accepts a bounded number at a time.

use super::sys;
use super::udp::BindError;
use crate::base::{Network, Transport};
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

/// Connections that the kernel queues until we accept them.
const BACKLOG: i32 = 4096;

/// One non-blocking socket.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    transport: Transport,
    /// Where load balancers are that begin each connection with a PROXY header.
    balancers: Vec<Network>,
}

impl Listener {
    /// Opens `cores` sockets on one address, one for each worker; with port 0 the kernel chooses one port for all of them.
    ///
    /// As with datagrams, the first is bound exclusively, so that a socket of another process causes an error, and the others join
    /// it (SO_REUSEPORT): the kernel then spreads new connections over the cores.
    ///
    /// Connections from `balancers` begin with a PROXY header.
    pub fn bind(
        transport: Transport,
        address: SocketAddr,
        cores: usize,
        balancers: &[Network],
    ) -> Result<Vec<Listener>, BindError> {
        let mut listeners: Vec<Listener> = Vec::with_capacity(cores);
        let mut bound = address;
        for number in 0..cores.max(1) {
            let socket = open(bound, number > 0, cores > 1).map_err(|error| BindError { transport, address, error })?;
            bound = socket.local_addr().map_err(|error| BindError { transport, address, error })?;
            listeners.push(Listener { socket, address: bound, transport, balancers: balancers.to_vec() });
        }
        Ok(listeners)
    }

    /// Takes over the sockets that another process has bound to one address, with the connections that wait in them.
    pub fn inherit(transport: Transport, address: SocketAddr, inherited: Vec<OwnedFd>, balancers: &[Network]) -> Vec<Listener> {
        let adopt = |fd: OwnedFd| {
            let socket = TcpListener::from_std(fd.into());
            Listener { socket, address, transport, balancers: balancers.to_vec() }
        };
        inherited.into_iter().map(adopt).collect()
    }

    /// Returns another descriptor of the socket, for another process.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// Returns the bound address, with the port that the kernel chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// True if a connection from there must begin with a PROXY header.
    pub fn awaits_proxy_header(&self, ip: IpAddr) -> bool {
        self.balancers.iter().any(|network| network.contains(ip))
    }

    pub fn source(&mut self) -> &mut TcpListener {
        &mut self.socket
    }

    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.socket.accept()
    }
}

fn open(address: SocketAddr, joins: bool, is_shared: bool) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run that linger in TIME_WAIT must not delay the start.
    socket.set_reuse_address(true)?;
    if joins {
        socket.set_reuse_port(true)?;
    }
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    if is_shared && !joins {
        socket.set_reuse_port(true)?;
    }
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Begins to connect to `peer`. `from`: our address that it must see, if the listener has one.
pub fn connect(peer: SocketAddr, from: Option<SocketAddr>) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(peer), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(mut from) = from.filter(|from| from.is_ipv4() == peer.is_ipv4()) {
        from.set_port(0);
        sys::choose_port_when_connecting(socket.as_fd())?;
        socket.bind(&from.into())?;
    }
    match socket.connect(&peer.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}
