//! The sockets of the generator and of its relays.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use socket2::{Domain, Protocol, Socket, Type};
use strowger::net::sys::choose_port_when_connecting;

use crate::sys;

/// A datagram at 600 bytes is charged about 1,280 bytes: this holds some 6,000.
const RECEIVE_BUFFER: usize = 4 << 20;

fn bind(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    socket.bind(&address.into()).map_err(|error| io::Error::new(error.kind(), format!("cannot bind {address}: {error}")))
}

pub fn udp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    sys::enlarge_receive_buffer(socket.as_raw_fd(), RECEIVE_BUFFER);
    bind(&socket, address)?;
    Ok(socket)
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

pub fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(address)?;
    socket.set_reuse_address(true)?;
    bind(&socket, address)?;
    socket.listen(4_096)?;
    Ok(socket)
}

/// Begins a connection, from this address if one is named.
pub fn connect(from: Option<IpAddr>, to: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(to)?;
    if let Some(from) = from {
        choose_port_when_connecting(socket.as_fd())?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Sends what the socket takes; returns how much that was.
pub fn write_some(mut socket: impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Not yet connected, or the peer reads slowly.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
