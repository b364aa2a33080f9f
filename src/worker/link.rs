//! The link of one worker with the same worker of the other process of a restart: a pair of sockets that keep packets whole and in
//! order. What is written in one turn leaves in as few packets as it fits in. What the kernel does not take waits here; while much
//! waits, its worker takes nothing new from its sockets, so that nothing need be dropped.
//!
//! A letter names flows as the predecessor does: only the successor, which knows the listeners of both, translates.

use super::legacy::Legacy;
use crate::base::pack::{Pack, Unpack};
use crate::base::{Channel, Errand, Flow, LiveConnections};
use crate::stack::counterpart::Predecessor;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// Letters are put into one packet up to this size. The longest message is as long again.
const PACKET: usize = 64 << 10;

/// No packet is larger than this.
const LARGEST: usize = 256 << 10;

/// Packets read in one turn; more wait for the next.
const PACKETS_PER_TURN: usize = 16;

/// While more than this waits, nothing new is taken from the sockets.
const CONGESTED: usize = 4 << 20;

/// What a link may hold at most: everything that a turn may still bring while it is congested, and much more.
const MOST: usize = 64 << 20;

/// What one worker sends to a worker of the other process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dispatch<'a> {
    /// A message for the other to handle, and the flow on which it arrived.
    Message(Errand, Flow, &'a [u8]),
    /// A message that was not delivered.
    Undelivered(&'a [u8]),
    /// A message for a connection of the other process.
    Transmit(Flow, &'a [u8]),
    /// A connection has ended, or, if it takes answers, its peer sends nothing more.
    Lost(Flow, bool),
    /// Listeners of the predecessor that the successor serves, as pairs of bytes.
    Taken(&'a [u8]),
}

/// How the predecessor numbers cores and listeners.
#[derive(Debug)]
pub struct Numbering {
    /// Cores of either process.
    pub cores: u8,
    /// By the predecessor's listener.
    pub ours: Vec<Option<u16>>,
    /// By our listener.
    pub theirs: Vec<u16>,
}

impl Numbering {
    /// Returns a flow of a letter of the predecessor as it is named here; `None` if no listener here could be its own.
    fn incoming(&self, flow: Flow) -> Option<Flow> {
        let listener = self.ours.get(usize::from(flow.listener)).copied().flatten()?;
        Some(Flow { listener, core: self.flip(&flow), ..flow })
    }

    fn outgoing(&self, flow: Flow) -> Flow {
        let listener = self.theirs.get(usize::from(flow.listener)).copied().unwrap_or(0);
        Flow { listener, core: self.flip(&flow), ..flow }
    }

    /// To either process its own cores are the first.
    fn flip(&self, flow: &Flow) -> u8 {
        match flow.channel {
            Channel::Datagram { .. } => flow.core,
            _ if flow.core >= self.cores => flow.core - self.cores,
            _ => flow.core + self.cores,
        }
    }
}

/// The successor's part of a handover, before its workers start.
pub struct Following {
    pub legacy: Legacy,
    pub predecessor: Arc<Predecessor>,
    pub numbering: Arc<Numbering>,
    /// By core.
    pub links: Vec<OwnedFd>,
    /// The predecessor's listeners that are served here, as pairs of bytes.
    pub taken: Vec<u8>,
}

impl Following {
    /// Returns the link of one worker, which tells the predecessor first what is served here.
    pub fn link(
        &mut self,
        core: usize,
        live: &Arc<LiveConnections>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Option<Link>> {
        if self.links.is_empty() {
            return Ok(None);
        }
        let numbering = Some(self.numbering.clone());
        let mut link = Link::new(self.links.remove(0), live.clone(), numbering, registry, token)?;
        link.write(core as u8, Dispatch::Taken(&self.taken));
        link.deliver(registry);
        Ok(Some(link))
    }
}

/// One end of a link.
pub struct Link {
    socket: Socket,
    token: Token,
    live: Arc<LiveConnections>,
    /// Present at the successor.
    numbering: Option<Arc<Numbering>>,
    /// Packets that have not left, the last of which may still grow, and their lengths.
    unsent: Vec<u8>,
    lengths: VecDeque<usize>,
    /// The first byte of those that has not left.
    start: usize,
    is_open_packet: bool,
    asks_room: bool,
    may_hold_more: bool,
    has_ended: bool,
    buffer: Vec<u8>,
    dropped: u64,
}

/// Opens the links between two processes with this many workers each: one end of each for either process, by core.
pub fn links(cores: usize) -> io::Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..cores {
        let (one, other) = Socket::pair(Domain::UNIX, Type::from(libc::SOCK_SEQPACKET), None)?;
        for end in [&one, &other] {
            end.set_nonblocking(true)?;
            end.set_send_buffer_size(PACKETS_PER_TURN * PACKET)?;
        }
        ones.push(one.into());
        others.push(other.into());
    }
    Ok((ones, others))
}

impl Link {
    /// Takes one end, and registers it with a poll under `token`.
    pub fn new(
        end: OwnedFd,
        live: Arc<LiveConnections>,
        numbering: Option<Arc<Numbering>>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Link> {
        let link = Link { token, ..Link::unregistered(end, live, numbering) };
        registry.register(&mut SourceFd(&link.socket.as_raw_fd()), token, Interest::READABLE)?;
        Ok(link)
    }

    fn unregistered(end: OwnedFd, live: Arc<LiveConnections>, numbering: Option<Arc<Numbering>>) -> Link {
        Link {
            socket: Socket::from(end),
            token: Token(0),
            live,
            numbering,
            unsent: Vec::new(),
            lengths: VecDeque::new(),
            start: 0,
            is_open_packet: false,
            asks_room: false,
            may_hold_more: true,
            has_ended: false,
            buffer: vec![0; LARGEST],
            dropped: 0,
        }
    }

    /// True at the successor.
    pub fn leads_to_predecessor(&self) -> bool {
        self.numbering.is_some()
    }

    /// Processes a poll event. Room is used by the next [`Link::deliver`].
    pub fn note(&mut self, event: &Event) {
        self.may_hold_more |= event.is_readable() || event.is_read_closed() || event.is_error();
    }

    /// True if there is something to read before the next event.
    pub fn has_more(&self) -> bool {
        self.may_hold_more
    }

    /// True if so much waits that nothing new is to be taken.
    pub fn is_congested(&self) -> bool {
        self.waiting() > CONGESTED
    }

    fn waiting(&self) -> usize {
        self.unsent.len() - self.start
    }

    /// True once the other process has closed its end.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns how many letters have been dropped, because the other process takes nothing.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Writes one letter for core `to` of the other process; it leaves with [`Link::deliver`].
    pub fn write(&mut self, to: u8, letter: Dispatch) {
        if let Dispatch::Message(_, flow, _) = letter
            && let Some(names) = self.live.proved(&flow)
            && !self.is_theirs(&flow)
        {
            let flow = self.outgoing(flow);
            self.append(|out| {
                out.extend_from_slice(&[PROVED, to]);
                flow.pack(out);
                out.put_names(&names);
            });
        }
        let translate = |flow: Flow| self.numbering.as_ref().map_or(flow, |numbering| numbering.outgoing(flow));
        let letter = match letter {
            Dispatch::Message(errand, flow, bytes) => Dispatch::Message(errand, translate(flow), bytes),
            Dispatch::Transmit(flow, bytes) => Dispatch::Transmit(translate(flow), bytes),
            Dispatch::Lost(flow, takes_answers) => Dispatch::Lost(translate(flow), takes_answers),
            other => other,
        };
        self.append(|out| pack(to, letter, out));
    }

    fn outgoing(&self, flow: Flow) -> Flow {
        self.numbering.as_ref().map_or(flow, |numbering| numbering.outgoing(flow))
    }

    /// True for a connection of the other process.
    fn is_theirs(&self, flow: &Flow) -> bool {
        self.live.is_of_others(flow)
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.has_ended {
            self.dropped += 1;
            return;
        }
        let before = self.unsent.len();
        write(&mut self.unsent);
        let grown = self.unsent.len() - before;
        if self.waiting() > MOST {
            self.unsent.truncate(before);
            self.dropped += 1;
            return;
        }
        match self.lengths.back_mut() {
            Some(last) if self.is_open_packet && *last + grown <= PACKET => *last += grown,
            _ => self.lengths.push_back(grown),
        }
        self.is_open_packet = true;
    }

    /// Hands over what was written, as far as the kernel takes it.
    pub fn deliver(&mut self, registry: &Registry) {
        while let Some(length) = self.lengths.front().copied() {
            let packet = &self.unsent[self.start..self.start + length];
            match self.socket.send_with_flags(packet, libc::MSG_NOSIGNAL) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    Some(libc::EAGAIN | libc::ENOBUFS) => break,
                    Some(libc::EMSGSIZE) => {
                        self.dropped += 1;
                        log::error!("a message of {length} bytes is too long for the other process");
                    }
                    // It has gone: what it had sent before is still read.
                    _ => {
                        self.may_hold_more = true;
                        self.dropped += self.lengths.len() as u64;
                        self.lengths.clear();
                        break;
                    }
                },
            }
            self.start += length;
            self.lengths.pop_front();
        }
        self.cut();
        self.is_open_packet = false;
        self.follow_room(registry);
    }

    fn cut(&mut self) {
        if self.lengths.is_empty() {
            self.unsent.clear();
            self.start = 0;
        } else if self.start > self.unsent.len() / 2 {
            self.unsent.drain(..self.start);
            self.start = 0;
        }
    }

    /// Asks the poll for room only while something waits.
    fn follow_room(&mut self, registry: &Registry) {
        let awaits = !self.lengths.is_empty();
        if awaits == self.asks_room {
            return;
        }
        let interest = match awaits {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        match registry.reregister(&mut SourceFd(&self.socket.as_raw_fd()), self.token, interest) {
            Ok(()) => self.asks_room = awaits,
            Err(error) => log::warn!("the link with the other process: interest not changed: {error}"),
        }
    }

    /// Reads a bounded number of packets; `on` gets each letter and the core here that it is for.
    pub fn read(&mut self, on: impl FnMut(u8, Dispatch)) {
        self.read_packets(PACKETS_PER_TURN, on);
    }

    fn read_packets(&mut self, most: usize, mut on: impl FnMut(u8, Dispatch)) {
        for _ in 0..most {
            let mut buffer = std::mem::take(&mut self.buffer);
            let received = (&self.socket).read(&mut buffer);
            if let Ok(length) = received {
                self.unpack(&buffer[..length], &mut on);
            }
            self.buffer = buffer;
            match received {
                Ok(0) => self.has_ended = true,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    log::debug!("the link with the other process: {error}");
                    self.has_ended = true;
                }
            }
            self.may_hold_more = false;
            return;
        }
    }

    fn unpack(&self, packet: &[u8], on: &mut impl FnMut(u8, Dispatch)) {
        let mut from = Unpack::new(packet);
        while !from.is_empty() {
            let Some((to, letter)) = unpack(&mut from, &self.live, self.numbering.as_deref()) else {
                log::error!("a packet of the other process cannot be read");
                return;
            };
            let Some(letter) = letter.and_then(|letter| self.note_flow(letter)) else {
                continue;
            };
            on(to, letter);
        }
    }

    /// Notes what a letter says of the other process's connections; its flow becomes one of this process. `None`: it has no listener
    /// here.
    fn note_flow<'b>(&self, letter: Dispatch<'b>) -> Option<Dispatch<'b>> {
        let translate = |flow: Flow| match &self.numbering {
            Some(numbering) => numbering.incoming(flow),
            None => Some(flow),
        };
        Some(match letter {
            Dispatch::Message(errand, flow, bytes) => {
                let flow = translate(flow)?;
                self.live.enter_other(&flow);
                Dispatch::Message(errand, flow, bytes)
            }
            Dispatch::Transmit(flow, bytes) => Dispatch::Transmit(translate(flow)?, bytes),
            Dispatch::Lost(flow, takes_answers) => {
                let flow = translate(flow)?;
                self.live.end_other(&flow, takes_answers);
                Dispatch::Lost(flow, takes_answers)
            }
            other => other,
        })
    }

    /// Reads back what has not been taken from the other end, and then what has not left this one.
    pub fn read_back(mut self, other_end: OwnedFd, mut on: impl FnMut(u8, Dispatch)) {
        let mut other = Link::unregistered(other_end, self.live.clone(), None);
        other.read_packets(usize::MAX, &mut on);
        while let Some(length) = self.lengths.pop_front() {
            let packet = &self.unsent[self.start..self.start + length];
            other.unpack(packet, &mut on);
            self.start += length;
        }
    }
}

const MESSAGE: u8 = 1;
const UNDELIVERED: u8 = 2;
const TRANSMIT: u8 = 3;
const LOST: u8 = 4;
const PROVED: u8 = 5;
const TAKEN: u8 = 6;

const RESPONSE: u8 = 1;
const ORPHAN: u8 = 2;
const REPETITION: u8 = 3;
const REQUEST: u8 = 4;

fn pack(to: u8, letter: Dispatch, out: &mut Vec<u8>) {
    match letter {
        Dispatch::Message(errand, flow, bytes) => {
            let (errand, tried) = match errand {
                Errand::Response { .. } => (RESPONSE, 0),
                Errand::Orphan { tried, .. } => (ORPHAN, tried),
                Errand::Repetition => (REPETITION, 0),
                Errand::Request => (REQUEST, 0),
            };
            out.extend_from_slice(&[MESSAGE, to, errand, tried]);
            flow.pack(out);
            out.put_bytes(bytes);
        }
        Dispatch::Undelivered(bytes) => {
            out.extend_from_slice(&[UNDELIVERED, to]);
            out.put_bytes(bytes);
        }
        Dispatch::Transmit(flow, bytes) => {
            out.extend_from_slice(&[TRANSMIT, to]);
            flow.pack(out);
            out.put_bytes(bytes);
        }
        Dispatch::Lost(flow, takes_answers) => {
            out.extend_from_slice(&[LOST, to, takes_answers.into()]);
            flow.pack(out);
        }
        Dispatch::Taken(listeners) => {
            out.extend_from_slice(&[TAKEN, to]);
            out.put_bytes(listeners);
        }
    }
}

/// Reads one letter; one that only says what a peer has proved is carried out, and none is returned.
fn unpack<'a>(from: &mut Unpack<'a>, live: &LiveConnections, numbering: Option<&Numbering>) -> Option<(u8, Option<Dispatch<'a>>)> {
    let (kind, to) = (from.u8()?, from.u8()?);
    let letter = match kind {
        MESSAGE => {
            let (errand, tried) = (from.u8()?, from.u8()?);
            let errand = match errand {
                RESPONSE => Errand::Response { crossed: true },
                ORPHAN => Errand::Orphan { tried, crossed: true },
                REPETITION => Errand::Repetition,
                REQUEST => Errand::Request,
                _ => return None,
            };
            Dispatch::Message(errand, Flow::unpack(from)?, from.bytes()?)
        }
        UNDELIVERED => Dispatch::Undelivered(from.bytes()?),
        TRANSMIT => Dispatch::Transmit(Flow::unpack(from)?, from.bytes()?),
        LOST => {
            let takes_answers = from.u8()? != 0;
            Dispatch::Lost(Flow::unpack(from)?, takes_answers)
        }
        PROVED => {
            let (flow, names) = (Flow::unpack(from)?, from.names()?);
            let flow = match numbering {
                Some(numbering) => numbering.incoming(flow),
                None => Some(flow),
            };
            if let Some(flow) = flow {
                live.prove_other(&flow, names);
            }
            return Some((to, None));
        }
        TAKEN => Dispatch::Taken(from.bytes()?),
        _ => return None,
    };
    Some((to, Some(letter)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transport;

    fn connection(core: u8, listener: u16) -> Flow {
        let channel = Channel::Connection { slot: 5, generation: 6 };
        Flow { transport: Transport::Tls, core, channel, ..Flow::datagram(listener, "198.51.100.7:40123".parse().unwrap()) }
    }

    #[test]
    fn only_the_successor_translates_and_both_ways() {
        let numbering = Numbering { cores: 2, ours: vec![Some(1), None], theirs: vec![0, 0] };
        // The predecessor's first core, and the successor's first as the predecessor numbers it.
        assert_eq!(numbering.incoming(connection(0, 0)), Some(connection(2, 1)));
        assert_eq!(numbering.incoming(connection(2, 0)), Some(connection(0, 1)));
        assert_eq!(numbering.incoming(connection(0, 1)), None);
        assert_eq!(numbering.incoming(connection(0, 9)), None);
        for flow in [connection(0, 1), connection(3, 1)] {
            assert_eq!(numbering.incoming(numbering.outgoing(flow)), Some(flow));
        }
        let datagram = Flow::datagram(0, "198.51.100.7:40123".parse().unwrap());
        assert_eq!(numbering.incoming(datagram), Some(Flow { listener: 1, ..datagram }));
    }

    #[test]
    fn letters_arrive_in_order_with_what_they_say_of_connections() {
        let poll = mio::Poll::new().unwrap();
        let live = || Arc::new(LiveConnections::new(2, 16));
        let (of_old, of_new) = (live(), live());
        let (mut ones, mut others) = links(1).unwrap();
        let numbering = Arc::new(Numbering { cores: 2, ours: vec![Some(4)], theirs: vec![0; 5] });
        let mut old = Link::new(ones.remove(0), of_old.clone(), None, poll.registry(), Token(1)).unwrap();
        let mut new = Link::new(others.remove(0), of_new.clone(), Some(numbering), poll.registry(), Token(2)).unwrap();
        let (own, theirs) = (connection(1, 0), connection(3, 4));
        of_old.enter(1, 5, 6);
        of_old.prove(1, 5, 6, vec!["sip:alice@example.com".into()].into());
        let long = vec![b'x'; PACKET + 10];
        old.write(1, Dispatch::Message(Errand::Request, own, b"one"));
        old.write(0, Dispatch::Message(Errand::Orphan { tried: 3, crossed: true }, own, &long));
        old.write(1, Dispatch::Undelivered(b"two"));
        old.write(1, Dispatch::Lost(own, true));
        old.deliver(poll.registry());
        let mut got = Vec::new();
        let is_alive = |flow: &Flow| (of_new.is_alive(flow), of_new.takes_answers(flow), of_new.proved(flow).is_some());
        new.read(|to, letter| {
            match letter {
                Dispatch::Message(_, flow, _) => assert_eq!((flow, is_alive(&flow)), (theirs, (true, true, true))),
                Dispatch::Lost(flow, takes_answers) => assert_eq!((flow, takes_answers), (theirs, true)),
                _ => {}
            }
            let what = match letter {
                Dispatch::Message(errand, _, bytes) => format!("{errand:?} {}", bytes.len()),
                Dispatch::Undelivered(bytes) => format!("undelivered {}", bytes.len()),
                other => format!("{other:?}").split('(').next().unwrap().to_owned(),
            };
            got.push((to, what));
        });
        let expected = [(1, "Request 3"), (0, "Orphan { tried: 3, crossed: true } 65546"), (1, "undelivered 3"), (1, "Lost")];
        assert_eq!(got, expected.map(|(to, what)| (to, what.to_owned())));
        assert_eq!(is_alive(&theirs), (false, true, true));
        // An answer for the connection, named as its owner names it.
        new.write(1, Dispatch::Transmit(theirs, b"answer"));
        new.deliver(poll.registry());
        let mut answers = 0;
        old.read(|to, letter| {
            assert_eq!((to, letter), (1, Dispatch::Transmit(own, b"answer")));
            answers += 1;
        });
        assert_eq!((answers, old.has_more(), old.has_ended()), (1, false, false));
        drop(new);
        old.read(|_, _| panic!("nobody writes"));
        assert!(old.has_ended());
        old.write(0, Dispatch::Undelivered(b"lost"));
        assert_eq!(old.dropped(), 1);
    }

    #[test]
    fn what_is_no_letter_is_dropped() {
        let live = LiveConnections::new(1, 1);
        let mut packet = Vec::new();
        pack(1, Dispatch::Transmit(connection(0, 0), b"answer"), &mut packet);
        for cut in 0..packet.len() {
            assert!(unpack(&mut Unpack::new(&packet[..cut]), &live, None).is_none());
        }
        assert!(unpack(&mut Unpack::new(&[99, 0, 0]), &live, None).is_none());
    }
}
