//! Listeners while another process reads them: a restart leaves them to the successor, which has the same sockets.

use super::wires::{PortKind, Wires, follow_interest};
use crate::base::{Flow, ProvedNames};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::io;
use std::os::fd::OwnedFd;

impl Wires {
    /// Returns another descriptor of each listener's socket, for another process.
    pub fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        let duplicate = |kind: &PortKind| match kind {
            PortKind::Datagrams(wire) => wire.udp.duplicate(),
            PortKind::Connections(Some(listener)) => listener.duplicate(),
            PortKind::Connections(None) => Err(io::Error::other("it is closed")),
        };
        self.ports.iter().map(|port| duplicate(&port.kind)).collect()
    }

    /// Leaves all listeners to another process: datagrams are still sent from here, and connections served. What the sockets hold
    /// stays in them.
    pub fn rest(&mut self) -> io::Result<()> {
        // Closing would not do: the poll watches a socket for as long as any process has it.
        self.set_shed(None).map_err(|(_, error)| error)?;
        self.is_resting = true;
        self.ready.clear();
        for port in &mut self.ports {
            (port.is_ready, port.is_held) = (false, false);
            match &mut port.kind {
                PortKind::Datagrams(wire) => {
                    wire.has_icmp_errors = false;
                    if std::mem::take(&mut wire.is_read) {
                        self.registry.deregister(&mut SourceFd(&wire.udp.fd()))?;
                    }
                    // A sender of its own is still watched while it has no room.
                    if wire.udp.sender_fd().is_none() {
                        wire.awaits_room = false;
                    }
                }
                PortKind::Connections(Some(listener)) => self.registry.deregister(listener.source())?,
                PortKind::Connections(None) => {}
            }
        }
        self.follow_all();
        Ok(())
    }

    pub fn is_resting(&self) -> bool {
        self.is_resting
    }

    /// Reads all listeners again. The poll reports what they hold.
    pub fn resume(&mut self) -> io::Result<()> {
        self.is_resting = false;
        for number in 0..self.ports.len() {
            self.read_again(number)?;
        }
        self.follow_all();
        Ok(())
    }

    /// Another process serves the listeners in `taken`, for good: those for connections are closed. Datagrams for the others are
    /// read here until the end.
    pub fn release(&mut self, taken: &[u16]) -> io::Result<()> {
        for number in 0..self.ports.len() {
            let is_taken = taken.iter().any(|taken| usize::from(*taken) == number);
            match &mut self.ports[number].kind {
                PortKind::Connections(listener) => drop(listener.take()),
                PortKind::Datagrams(_) if is_taken => {}
                PortKind::Datagrams(_) => self.read_again(number)?,
            }
        }
        self.follow_all();
        Ok(())
    }

    fn read_again(&mut self, number: usize) -> io::Result<()> {
        let token = Token(number);
        match &mut self.ports[number].kind {
            PortKind::Datagrams(wire) if !wire.is_read => {
                if wire.udp.sender_fd().is_none() && std::mem::take(&mut wire.awaits_room) {
                    self.registry.deregister(&mut SourceFd(&wire.udp.fd()))?;
                }
                wire.is_read = true;
                self.registry.register(&mut SourceFd(&wire.udp.fd()), token, Interest::READABLE)
            }
            PortKind::Connections(Some(listener)) => self.registry.register(listener.source(), token, Interest::READABLE),
            _ => Ok(()),
        }
    }

    fn follow_all(&mut self) {
        for (number, port) in self.ports.iter_mut().enumerate() {
            if let PortKind::Datagrams(wire) = &mut port.kind {
                follow_interest(&self.registry, wire, number);
            }
        }
    }

    /// Returns the connections on which messages may be sent, and what the peers of some have proved.
    pub fn living(&self) -> (Vec<Flow>, Vec<(Flow, ProvedNames)>) {
        self.streams.living()
    }
}
