//! The wire under a flow: sockets of one side or both, each connected to the server. Today UDP; a stream would give the same two faces,
//! received messages with the number of their socket, and an outbox.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::{self, Inbox, Outbox};

/// A datagram at 600 bytes is charged about 1,280 bytes: this holds some 6,000.
const RECEIVE_BUFFER: usize = 4 << 20;
const BATCH: usize = 32;

/// Which of the two ends a socket belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Caller,
    Answerer,
}

/// One end's address on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    pub side: Side,
    pub address: SocketAddrV4,
}

pub struct Wire {
    sockets: Vec<Socket>,
    pub locals: Vec<Local>,
    fds: Vec<RawFd>,
    pub inbox: Inbox,
}

impl Wire {
    /// Opens `count` sockets for callers from `caller_port` on and as many for answerers from `answerer_port` on. The callers come first.
    pub fn udp(
        server: SocketAddrV4,
        local: SocketAddrV4,
        caller_port: u16,
        answerer_port: u16,
        count: u16,
    ) -> io::Result<(Wire, Outbox)> {
        let mut sockets = Vec::new();
        let mut locals = Vec::new();
        for (side, base) in [(Side::Caller, caller_port), (Side::Answerer, answerer_port)] {
            for offset in 0..count {
                let address = sys::with_port(local, base + offset);
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
                sys::enlarge_receive_buffer(socket.as_raw_fd(), RECEIVE_BUFFER);
                socket
                    .bind(&SocketAddr::V4(address).into())
                    .map_err(|error| {
                        io::Error::new(error.kind(), format!("cannot bind {address}: {error}"))
                    })?;
                socket.connect(&SocketAddr::V4(server).into())?;
                socket.set_nonblocking(true)?;
                sockets.push(socket);
                locals.push(Local { side, address });
            }
        }
        let fds: Vec<RawFd> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
        let outbox = Outbox::new(fds.clone(), 4 * BATCH);
        let wire = Wire {
            sockets,
            locals,
            fds,
            inbox: Inbox::new(BATCH),
        };
        Ok((wire, outbox))
    }

    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Takes a batch from one socket into the inbox.
    pub fn receive(&mut self, socket: usize) -> io::Result<usize> {
        self.inbox.receive(self.fds[socket])
    }

    pub fn wait(&self, nanoseconds: u64) {
        sys::wait_readable(&self.fds, nanoseconds);
    }
}
