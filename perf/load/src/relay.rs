//! The floor: a relay that receives and sends as many datagrams for a call as the proxy does, and does nothing else.
//!
//! A call through a stateful proxy is 6 datagrams in (INVITE, 180, 200, ACK, BYE, 200) and 7 out (those six, and the 100). The relay looks at
//! the first byte of a datagram and at no other: an INVITE goes to the other side and its beginning goes back as the 100; a REGISTER goes back to
//! its sender; everything else goes to the other side.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use crate::sockets;
use crate::sys::RelayBatch;
use crate::wire::BATCH;

/// About the size of a 100 (Trying).
pub const TRYING: usize = 320;

pub struct Sides {
    pub caller_port: u16,
    pub answerer_port: u16,
    /// Sockets on each side.
    pub count: u16,
}

impl Sides {
    /// The port across the relay.
    fn across(&self, port: u16) -> u16 {
        if (self.caller_port..self.caller_port + self.count).contains(&port) {
            port - self.caller_port + self.answerer_port
        } else {
            port.wrapping_sub(self.answerer_port).wrapping_add(self.caller_port)
        }
    }
}

/// What the relay does beside relaying.
pub struct Manner {
    /// Send the beginning of an INVITE back.
    pub trying: bool,
    /// Lose each datagram of this number; 0 for none.
    pub lose: u64,
}

/// Relays until the process is ended.
pub fn run(listen: SocketAddr, sides: &Sides, manner: &Manner) -> io::Result<()> {
    let socket = sockets::udp(listen)?;
    let fd = socket.as_raw_fd();
    println!("relay ready on udp:{listen}");
    let mut batch = RelayBatch::new(BATCH);
    let mut number = 0;
    loop {
        let count = match batch.receive(fd) {
            Ok(count) => count,
            // An ICMP answer from a generator that has gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for index in 0..count {
            if manner.lose != 0 {
                number += 1;
                if number % manner.lose == 0 {
                    continue;
                }
            }
            let port = batch.source_port(index);
            match batch.datagram(index).first() {
                Some(b'R') => batch.send_to(index, usize::MAX, port),
                Some(b'I') => {
                    if manner.trying {
                        batch.send_to(index, TRYING, port);
                    }
                    batch.send_to(index, usize::MAX, sides.across(port));
                }
                _ => batch.send_to(index, usize::MAX, sides.across(port)),
            }
        }
        batch.flush(fd);
    }
}
