//! A connection between a phone and a server, and where servers listen for them.

use super::intent::Intent;
use super::reading::Reading;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use strowger::base::{Channel, Flow, Instant, Transport};
use strowger::sip::Framer;

/// Connections of one core that can be named at a time.
pub const PLACES: usize = 8192;
const LARGEST: usize = 65_536;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Opening,
    Open,
    Lost,
}

/// One direction.
pub struct Pipe {
    /// When the last byte that was sent arrives.
    pub until: Instant,
    pub framer: Framer,
    pub buffer: Vec<u8>,
    /// What was sent and has not arrived whole.
    pub sent: VecDeque<(Rc<Reading>, Intent)>,
}

impl Pipe {
    pub fn new(until: Instant) -> Pipe {
        Pipe { until, framer: Framer::new(LARGEST), buffer: Vec::new(), sent: VecDeque::new() }
    }
}

pub struct Link {
    pub phone: SocketAddr,
    pub server_at: SocketAddr,
    pub server: usize,
    pub core: u8,
    pub listener: u16,
    /// The server's two names for it if the server has opened it.
    pub names: Option<(u64, u64)>,
    /// The call that has it to itself.
    pub call_id: Option<Vec<u8>>,
    pub state: State,
    pub up: Pipe,
    pub down: Pipe,
}

impl Link {
    pub fn is_private(&self) -> bool {
        self.names.is_some_and(|(_, call)| call != 0)
    }

    /// As the server names it while it is open.
    pub fn flow(&self, number: usize) -> Flow {
        Flow {
            peer: self.phone,
            listener: self.listener,
            transport: Transport::Tcp,
            core: self.core,
            channel: Channel::Connection { slot: (number % PLACES) as u32, generation: (number / PLACES) as u32 + 1 },
        }
    }

    /// As the server named it when it wanted it.
    pub fn wanted(&self) -> Option<Flow> {
        let (name, call) = self.names?;
        let (listener, core) = (self.listener, self.core);
        Some(Flow::towards(Transport::Tcp, listener, core, self.phone, name, call))
    }

    /// What never reached the phone.
    pub fn unsent(&mut self) -> Vec<Rc<Reading>> {
        self.down.sent.drain(..).map(|(message, _)| message).collect()
    }

    /// When the server's last byte has arrived.
    pub fn drained(&self) -> Instant {
        self.down.until
    }
}

/// Where a server listens for connections.
pub struct Port {
    pub at: SocketAddr,
    pub server: usize,
    pub listener: u16,
    pub cores: u8,
}

/// Which connection a flow names.
pub fn number(flow: &Flow) -> Option<usize> {
    match flow.channel {
        Channel::Connection { slot, generation } => Some((generation as usize).checked_sub(1)? * PLACES + slot as usize),
        _ => None,
    }
}

/// True for a message whose hop is a stream.
pub fn is_stream(message: &Reading) -> bool {
    message.via(0).starts_with(b"SIP/2.0/TCP")
}
