//! Connections in the laboratory (RFC 3261 §18): bytes in order and whole, but cut anywhere, delayed, refused and reset. The
//! real framer stands at both ends.

use super::air::{Air, What};
use super::intent::Intent;
use super::link::{Link, Pipe, Port, State};
use super::reading::Reading;
use std::net::SocketAddr;
use std::rc::Rc;
use strowger::base::Flow;
use strowger::sip::Frame;

/// Bytes that wait for a slow reader, at most.
const QUEUE: usize = 24_000;
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

    /// Bytes arrived: the messages that they complete. An error if they are not those that were sent.
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
