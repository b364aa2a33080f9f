//! Connections in the laboratory (RFC 3261 §18): bytes in order and whole, but cut anywhere, delayed, refused and reset. The
//! real framer stands at both ends.

use super::air::{Air, Intent, What};
use super::reading::Reading;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use strowger::base::{Channel, Flow, Instant, Transport};
use strowger::sip::{Frame, Framer};

/// Connections of one core that can be named at a time.
pub const PLACES: usize = 8192;
/// Bytes that wait for a slow reader, at most.
const QUEUE: usize = 24_000;
const LARGEST: usize = 65_536;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Opening,
    Open,
    Lost,
}

/// One direction.
struct Pipe {
    /// When the last byte that was sent arrives.
    until: Instant,
    framer: Framer,
    buffer: Vec<u8>,
    /// What was sent and has not arrived whole.
    sent: VecDeque<(Rc<Reading>, Intent)>,
}

impl Pipe {
    fn new(until: Instant) -> Pipe {
        Pipe {
            until,
            framer: Framer::new(LARGEST),
            buffer: Vec::new(),
            sent: VecDeque::new(),
        }
    }
}

pub struct Link {
    pub phone: SocketAddr,
    pub server_at: SocketAddr,
    pub server: usize,
    pub core: u8,
    pub listener: u16,
    /// The server's two names for it when the server has opened it.
    pub names: Option<(u64, u64)>,
    /// The call that has it to itself.
    pub call_id: Option<Vec<u8>>,
    pub state: State,
    up: Pipe,
    down: Pipe,
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
            channel: Channel::Connection {
                slot: (number % PLACES) as u32,
                generation: (number / PLACES) as u32 + 1,
            },
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

impl Air {
    fn add_link(&mut self, port: &Port, phone: SocketAddr) -> usize {
        self.links.push(Link {
            phone,
            server_at: port.at,
            server: port.server,
            core: (self.links.len() % usize::from(port.cores)) as u8,
            listener: port.listener,
            names: None,
            call_id: None,
            state: State::Opening,
            up: Pipe::new(self.now),
            down: Pipe::new(self.now),
        });
        self.statistics.connections += 1;
        self.links.len() - 1
    }

    fn open_later(&mut self, link: usize, ms: u64) {
        self.later(ms, What::Opened { link });
        let at = self.now.after_ms(ms);
        self.links[link].up.until = at;
        self.links[link].down.until = at;
    }

    /// A phone's message, by a connection that there is or a new one. False: the address takes no connections.
    pub fn by_stream(&mut self, from: SocketAddr, to: SocketAddr, message: &Rc<Reading>) -> bool {
        let Some(place) = self.ports.iter().position(|port| port.at == to) else {
            return false;
        };
        let call_id = message.call_id();
        let usable = |link: &&(usize, &Link)| {
            let link = link.1;
            link.state != State::Lost
                && (link.phone, link.server_at) == (from, to)
                && link.call_id.as_deref().is_none_or(|own| own == call_id)
        };
        let all: Vec<(usize, &Link)> = self.links.iter().enumerate().collect();
        let found = all.iter().filter(usable);
        let best = found.max_by_key(|(n, link)| (link.call_id.is_some(), *n));
        let link = match best {
            Some((link, _)) => *link,
            None => {
                let port = self.ports.swap_remove(place);
                let link = self.add_link(&port, from);
                self.ports.push(port);
                let delay = self.between(1, 60);
                self.open_later(link, delay);
                link
            }
        };
        self.pour(link, true, message, Intent::Honest);
        true
    }

    /// The connection that a server's core has, or opens, to a peer under two names.
    pub fn towards(&mut self, server: usize, flow: &Flow, names: (u64, u64)) -> Option<usize> {
        let same = |link: &Link| {
            link.state != State::Lost
                && link.names == Some(names)
                && (link.server, link.core, link.phone) == (server, flow.core, flow.peer)
        };
        if let Some(link) = self.links.iter().rposition(same) {
            return Some(link);
        }
        let listener = |port: &Port| port.server == server && port.listener == flow.listener;
        let place = self.ports.iter().position(listener)?;
        let port = self.ports.swap_remove(place);
        let link = self.add_link(&port, flow.peer);
        self.ports.push(port);
        self.links[link].core = flow.core;
        self.links[link].names = Some(names);
        let home = self.homes.contains(&flow.peer);
        match self.rng.below(20) {
            _ if !home => self.later(4, What::LinkLost { link }),
            0 => self.later(10, What::LinkLost { link }),
            1 => self.later(5000, What::LinkLost { link }),
            _ => {
                let delay = self.between(1, 60);
                self.open_later(link, delay);
            }
        }
        Some(link)
    }

    /// Writes a message on a connection, cut into pieces. False: the queue to a slow reader is full.
    pub fn pour(&mut self, link: usize, up: bool, message: &Rc<Reading>, intent: Intent) -> bool {
        let pipe = match up {
            true => &self.links[link].up,
            false => &self.links[link].down,
        };
        let waiting: usize = pipe.sent.iter().map(|(message, _)| message.bytes.len()).sum();
        if !up && waiting > QUEUE {
            return false;
        }
        let mut until = pipe.until.max(self.now);
        let mut rest = &message.bytes[..];
        while !rest.is_empty() {
            let most = [4, 100, 1000, 100_000][self.rng.below(4) as usize];
            let length = (1 + self.rng.below(most) as usize).min(rest.len());
            let (chunk, after) = rest.split_at(length);
            rest = after;
            let pause = if self.rng.one_in(400) { 2500 } else { 4 };
            until = until.max(self.now.after_ms(1 + self.rng.below(pause)));
            self.statistics.chunks += 1;
            let bytes = chunk.to_vec();
            self.at(until, What::Chunk { link, up, bytes });
        }
        self.statistics.stream_messages += 1;
        let pipe = match up {
            true => &mut self.links[link].up,
            false => &mut self.links[link].down,
        };
        pipe.until = until;
        pipe.sent.push_back((Rc::clone(message), intent));
        true
    }

    /// Bytes arrived: the messages that they complete. An error when they are not those that were sent.
    pub fn arrive(&mut self, link: usize, up: bool, bytes: &[u8]) -> Result<Vec<(Rc<Reading>, Intent)>, Intent> {
        let link = &mut self.links[link];
        let mut out = Vec::new();
        if link.state != State::Open {
            return Ok(out);
        }
        let pipe = if up { &mut link.up } else { &mut link.down };
        pipe.buffer.extend_from_slice(bytes);
        loop {
            let wrong = pipe.sent.front().map_or(Intent::Honest, |(_, intent)| *intent);
            match pipe.framer.next(&pipe.buffer) {
                Frame::More => return Ok(out),
                Frame::Message(length) => {
                    let (message, intent) = pipe.sent.pop_front().ok_or(wrong)?;
                    if pipe.buffer.get(..length) != Some(&message.bytes[..]) {
                        return Err(intent);
                    }
                    pipe.buffer.drain(..length);
                    out.push((message, intent));
                }
                _ => return Err(wrong),
            }
        }
    }
}
