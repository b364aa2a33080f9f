//! The floor with connections: a relay that reads, writes, accepts, opens and closes for a call as much as the proxy does, and does nothing
//! else. The generator's marks tell it where a message ends and which call it belongs to.
//!
//! It accepts what the callers open, one connection for all calls or one for each, and opens towards the answerers one for all, or one for
//! each call, which it closes when the BYE is answered. Either side can be UDP. What arrives in one turn for a connection leaves in one write.

use std::io::{self, ErrorKind, Read};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use clap::ValueEnum;
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::Socket;
use strowger::base::Span;
use strowger::net::sys::{Datagram, Inbound, Outbound};

use crate::frame::{self, Frame, LONGEST};
use crate::identity::Identity;
use crate::mark::{self, Mark};
use crate::relay::TRYING;
use crate::sockets;
use crate::wire::{BATCH, spread_host};

const LISTENER: Token = Token(usize::MAX);
const DATAGRAMS: Token = Token(usize::MAX - 1);
const EVENTS: usize = 1_024;
/// What one read takes at most, as in the proxy.
const BITE: usize = 64 << 10;

/// The connections to the answerers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Answerers {
    /// One for all calls
    One,
    /// One for each, which is closed when its BYE is answered
    PerCall,
}

pub struct Manner {
    /// Send the beginning of an INVITE back.
    pub trying: bool,
    /// `None`: over UDP.
    pub answerers: Option<Answerers>,
    /// Where the answerers are.
    pub answerer: SocketAddr,
    /// Connect to so many addresses of 127.0.0.0/8 in turn instead, at the answerers' port; 0 for none.
    pub spread: u32,
}

/// Names a connection while it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    fn token(self) -> Token {
        Token((self.generation as usize) << 32 | self.slot as usize)
    }

    fn of(token: Token) -> Key {
        Key { slot: token.0 as u32, generation: (token.0 >> 32) as u32 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Caller,
    Answerer,
}

struct Connection {
    stream: TcpStream,
    side: Side,
    /// The beginning of a message whose rest has not come.
    partial: Vec<u8>,
    /// What leaves at the end of the turn.
    out: Vec<u8>,
    dirty: bool,
    /// The kernel has not taken everything: registered for WRITABLE.
    awaits_room: bool,
}

#[derive(Default)]
struct Place {
    generation: u32,
    connection: Option<Connection>,
}

/// Where a message came from, and its answers go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Connection(Key),
    Datagram(SocketAddr),
}

/// A call, by the number of its slot in the generator.
struct Call {
    generation: u32,
    caller: Way,
    /// Its own connection to the answerers.
    answerer: Option<Key>,
    /// The BYE has passed.
    ending: bool,
}

struct Udp {
    socket: Socket,
    outbound: Outbound,
    /// What leaves at the end of the turn: for whom, and where its bytes are.
    queue: Vec<(SocketAddr, Span)>,
    bytes: Vec<u8>,
}

struct Relay {
    manner: Manner,
    poll: Poll,
    listener: TcpListener,
    udp: Udp,
    /// Away while what it holds is relayed.
    inbound: Option<Inbound>,
    places: Vec<Place>,
    free: Vec<u32>,
    dirty: Vec<Key>,
    calls: Vec<Option<Call>>,
    /// The connection to the answerers that all calls share.
    shared: Option<Key>,
    opened: u32,
    scratch: Box<[u8]>,
}

/// Relays until the process is ended.
pub fn run(listen: SocketAddr, manner: Manner) -> io::Result<()> {
    let mut relay = Relay::new(listen, manner)?;
    println!("relay ready on tcp:{listen} and udp:{listen}");
    let mut events = Events::with_capacity(EVENTS);
    loop {
        match relay.poll.poll(&mut events, None) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        for event in &events {
            match event.token() {
                LISTENER => relay.accept()?,
                DATAGRAMS => relay.receive_datagrams()?,
                token => {
                    let key = Key::of(token);
                    if event.is_writable() {
                        relay.mark_dirty(key);
                    }
                    if event.is_readable() || event.is_read_closed() {
                        relay.read(key, event.is_read_closed());
                    }
                }
            }
        }
        relay.flush();
    }
}

impl Udp {
    /// Sends what waits, as many in one system call as there is room for.
    fn flush(&mut self) {
        let mut rest = &self.queue[..];
        while !rest.is_empty() {
            let datagrams = rest.iter().map(|(peer, span)| Datagram { peer: *peer, local: None, bytes: span.in_text(&self.bytes) });
            // A datagram that cannot leave is lost, as a datagram may be; the generator counts it.
            let done = self.outbound.send(self.socket.as_fd(), datagrams).unwrap_or(0).max(1);
            rest = &rest[done..];
        }
        self.queue.clear();
        self.bytes.clear();
    }
}

impl Relay {
    fn new(listen: SocketAddr, manner: Manner) -> io::Result<Relay> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::from_std(sockets::listen(listen)?.into());
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let socket = sockets::udp(listen)?;
        socket.set_nonblocking(true)?;
        poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), DATAGRAMS, Interest::READABLE)?;
        let udp = Udp { socket, outbound: Outbound::new(2 * BATCH), queue: Vec::new(), bytes: Vec::new() };
        Ok(Relay {
            inbound: Some(Inbound::new(BATCH)),
            manner,
            poll,
            listener,
            udp,
            places: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            calls: Vec::new(),
            shared: None,
            opened: 0,
            scratch: vec![0; LONGEST + mark::LENGTH + BITE].into_boxed_slice(),
        })
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let key = self.admit(stream, Side::Caller)?;
                    // The first message is often there already.
                    self.read(key, false);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn admit(&mut self, mut stream: TcpStream, side: Side) -> io::Result<Key> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[slot as usize];
        let key = Key { slot, generation: place.generation };
        self.poll.registry().register(&mut stream, key.token(), Interest::READABLE)?;
        place.connection =
            Some(Connection { stream, side, partial: Vec::new(), out: Vec::new(), dirty: false, awaits_room: false });
        Ok(key)
    }

    fn connection(&mut self, key: Key) -> Option<&mut Connection> {
        let place = self.places.get_mut(key.slot as usize)?;
        place.connection.as_mut().filter(|_| place.generation == key.generation)
    }

    fn close(&mut self, key: Key) {
        if self.connection(key).is_some() {
            let place = &mut self.places[key.slot as usize];
            place.connection = None;
            place.generation = place.generation.wrapping_add(1) & (u32::MAX >> 1);
            self.free.push(key.slot);
        }
    }

    fn mark_dirty(&mut self, key: Key) {
        if let Some(connection) = self.connection(key)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Reads all that has come by a connection, and relays what is whole. `ended`: nothing will wake us for it again.
    fn read(&mut self, key: Key, ended: bool) {
        let mut scratch = mem::take(&mut self.scratch);
        while let Some(connection) = self.connection(key) {
            let start = connection.partial.len();
            scratch[..start].copy_from_slice(&connection.partial);
            connection.partial.clear();
            let side = connection.side;
            let count = match connection.stream.read(&mut scratch[start..start + BITE]) {
                Ok(0) => {
                    self.close(key);
                    break;
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.partial.extend_from_slice(&scratch[..start]);
                    break;
                }
                Err(_) => {
                    self.close(key);
                    break;
                }
            };
            let mut rest = &scratch[..start + count];
            while let Frame::Message { skip, length } = frame::next_marked(rest) {
                let (whole, after) = rest.split_at(skip + length);
                self.relay(Way::Connection(key), side, whole);
                rest = after;
            }
            if let Frame::Broken(why) = frame::next_marked(rest) {
                eprintln!("strowger-load: {why}: run the generator with --floor");
                self.close(key);
                break;
            }
            if let Some(connection) = self.connection(key) {
                connection.partial.extend_from_slice(rest);
            }
            if !ended && count > 0 && count < BITE {
                break;
            }
        }
        self.scratch = scratch;
    }

    fn receive_datagrams(&mut self) -> io::Result<()> {
        let Some(mut inbound) = self.inbound.take() else {
            return Ok(());
        };
        let outcome = loop {
            let count = match inbound.receive(self.udp.socket.as_fd(), false) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                // An ICMP answer from a generator that has gone.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::Interrupted) => continue,
                Err(error) => break Err(error),
            };
            for Datagram { peer, bytes, .. } in (0..count).filter_map(|number| inbound.get(number)) {
                let is_answerers = self.manner.answerers.is_none() && peer == self.manner.answerer;
                let side = match is_answerers {
                    true => Side::Answerer,
                    false => Side::Caller,
                };
                if let Frame::Message { skip, length } = frame::next_marked(bytes) {
                    self.relay(Way::Datagram(peer), side, &bytes[..skip + length]);
                }
            }
            if count < inbound.capacity() {
                break Ok(());
            }
        };
        self.inbound = Some(inbound);
        outcome
    }

    /// Passes on one message with its mark.
    fn relay(&mut self, from: Way, side: Side, whole: &[u8]) {
        let Some(mark) = Mark::read(whole) else {
            return;
        };
        let slot = mark.call.slot as usize;
        match (side, whole.get(mark::LENGTH)) {
            // A REGISTER goes back to its sender.
            (_, Some(b'R')) => self.send(from, whole),
            (Side::Caller, Some(kind)) => {
                if *kind == b'I' {
                    self.begin(mark.call, from);
                    if self.manner.trying {
                        let length = TRYING.min(whole.len()) - mark::LENGTH;
                        self.send_parts(from, &[&Mark { length, ..mark }.bytes(), &whole[mark::LENGTH..][..length]]);
                    }
                }
                if let Some(call) = self.call(mark.call) {
                    call.ending |= *kind == b'B';
                    self.send_to_answerer(slot, whole);
                }
            }
            (Side::Answerer, Some(_)) => {
                let Some(call) = self.call(mark.call) else {
                    return;
                };
                let caller = call.caller;
                let answerer = match call.ending {
                    true => call.answerer.take(),
                    false => None,
                };
                self.send(caller, whole);
                if let Some(own) = answerer {
                    // Nothing waits on it: the answer to the BYE was the last.
                    self.close(own);
                }
            }
            (_, None) => {}
        }
    }

    fn begin(&mut self, call: Identity, caller: Way) {
        let slot = call.slot as usize;
        if slot >= self.calls.len() {
            if call.slot == u32::MAX {
                return;
            }
            self.calls.resize_with(slot + 1, || None);
        }
        let begun = Call { generation: call.generation, caller, answerer: None, ending: false };
        if let Some(Call { answerer: Some(own), .. }) = self.calls[slot].replace(begun) {
            // A call that the generator gave up.
            self.close(own);
        }
    }

    fn call(&mut self, call: Identity) -> Option<&mut Call> {
        self.calls.get_mut(call.slot as usize)?.as_mut().filter(|known| known.generation == call.generation)
    }

    fn send_to_answerer(&mut self, slot: usize, whole: &[u8]) {
        let known = match self.manner.answerers {
            None => return self.send(Way::Datagram(self.manner.answerer), whole),
            Some(Answerers::One) => self.shared,
            Some(Answerers::PerCall) => self.calls[slot].as_ref().and_then(|call| call.answerer),
        };
        let key = match known.filter(|key| self.connection(*key).is_some()) {
            Some(key) => key,
            None => match self.open() {
                Ok(key) => key,
                Err(error) => return eprintln!("strowger-load: relay: cannot connect to {}: {error}", self.manner.answerer),
            },
        };
        match self.manner.answerers {
            Some(Answerers::One) => self.shared = Some(key),
            _ => {
                if let Some(call) = &mut self.calls[slot] {
                    call.answerer = Some(key);
                }
            }
        }
        self.send(Way::Connection(key), whole);
    }

    fn open(&mut self) -> io::Result<Key> {
        let mut to = self.manner.answerer;
        if self.manner.spread > 0 {
            let host = spread_host(self.opened, self.manner.spread);
            to.set_ip(host.parse().map_err(io::Error::other)?);
        }
        self.opened = self.opened.wrapping_add(1);
        self.admit(TcpStream::from_std(sockets::connect(None, to)?.into()), Side::Answerer)
    }

    /// Queues a message for the end of the turn.
    fn send(&mut self, to: Way, whole: &[u8]) {
        self.send_parts(to, &[whole]);
    }

    fn send_parts(&mut self, to: Way, parts: &[&[u8]]) {
        match to {
            Way::Connection(key) => {
                self.mark_dirty(key);
                if let Some(connection) = self.connection(key) {
                    parts.iter().for_each(|part| connection.out.extend_from_slice(part));
                }
            }
            Way::Datagram(peer) => {
                let span = Span::written(&mut self.udp.bytes, |bytes| parts.iter().for_each(|part| bytes.extend_from_slice(part)));
                self.udp.queue.push((peer, span));
            }
        }
    }

    /// One write for each connection that has something to say, and one call for the datagrams.
    fn flush(&mut self) {
        let mut dirty = mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if self.write(key).is_err() {
                self.close(key);
            }
        }
        self.dirty = dirty;
        self.udp.flush();
    }

    fn write(&mut self, key: Key) -> io::Result<()> {
        let place = &mut self.places[key.slot as usize];
        let Some(connection) = place.connection.as_mut().filter(|_| place.generation == key.generation) else {
            return Ok(());
        };
        connection.dirty = false;
        let sent = sockets::write_some(&connection.stream, &connection.out)?;
        connection.out.drain(..sent);
        let awaits_room = !connection.out.is_empty();
        if awaits_room != connection.awaits_room {
            connection.awaits_room = awaits_room;
            let interest = match awaits_room {
                true => Interest::READABLE | Interest::WRITABLE,
                false => Interest::READABLE,
            };
            self.poll.registry().reregister(&mut connection.stream, key.token(), interest)?;
        }
        Ok(())
    }
}
