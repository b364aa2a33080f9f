//! TCP and TLS connections of both sides: opened or accepted, written once a turn, read in whole messages, closed, and counted.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::Socket;
use strowger::net::tls::Tls;

use crate::frame::LONGEST;
use crate::sockets;
use crate::stats::{Count, Counts};
use crate::tls::{Agreed, Endpoint};
use crate::wire::{Link, Opening};

/// Room for what one read brings after what the last one left.
pub const READ_BUFFER: usize = LONGEST + 128 * 1024;
/// What one read takes of a TLS connection.
const CIPHERTEXT: usize = 64 * 1024;
const LISTENERS: usize = usize::MAX / 2;
const EVENTS: usize = 1_024;
const ACCEPTED_AT_ONCE: usize = 64;
/// How long a closed TLS connection waits for the peer to close it too.
const LINGER: Duration = Duration::from_secs(1);
const COMPLAINTS: u32 = 5;

struct Stream {
    socket: Socket,
    end: u32,
    tls: Option<Tls>,
    handshaking: bool,
    /// Plaintext that waits for the handshake or for the end of the turn.
    queue: Vec<u8>,
    /// Bytes for the socket that it did not take.
    unsent: Vec<u8>,
    /// The beginning of a message whose rest has not come.
    partial: Vec<u8>,
    accepted: bool,
    dirty: bool,
    /// We are done with it: it closes when all is sent.
    closing: bool,
    /// Our side is closed, and so will theirs be.
    closed: bool,
    /// The last event said that the peer has closed its side: nothing will wake us again.
    hung_up: bool,
}

struct Slot {
    generation: u32,
    stream: Option<Stream>,
}

struct Listener {
    socket: Socket,
    end: u32,
    opening: Rc<Opening>,
    /// It may have more to accept than the last turn took.
    ready: bool,
}

/// What a read came to.
pub struct Reading {
    /// Bytes in the buffer, from its beginning.
    pub length: usize,
    /// There may be more.
    pub more: bool,
    /// The peer has closed, or the connection is broken.
    pub over: bool,
}

pub struct Streams {
    poll: Poll,
    events: Events,
    slots: Vec<Slot>,
    free: Vec<u32>,
    dirty: Vec<Link>,
    listeners: Vec<Listener>,
    /// Slots that can be read, and whether they can be written, from the last look.
    ready: Vec<(u32, bool)>,
    /// Connections that are gone and of which nobody has been told yet.
    lost: Vec<Link>,
    lingering: VecDeque<(Instant, Link)>,
    ciphertext: Box<[u8]>,
    plaintext: Vec<u8>,
    pub counts: Counts,
    pub open: u32,
    complaints: u32,
    /// What the first finished handshake agreed on.
    pub agreed: Option<String>,
}

impl Streams {
    pub fn new() -> io::Result<Streams> {
        Ok(Streams {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            slots: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            listeners: Vec::new(),
            ready: Vec::new(),
            lost: Vec::new(),
            lingering: VecDeque::new(),
            ciphertext: vec![0; CIPHERTEXT].into_boxed_slice(),
            plaintext: Vec::new(),
            counts: Counts::default(),
            open: 0,
            complaints: 0,
            agreed: None,
        })
    }

    pub fn fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// A listener for this end, on all addresses where `address` is 0.0.0.0 or ::.
    pub fn listen(&mut self, end: u32, address: SocketAddr, opening: Rc<Opening>) -> io::Result<()> {
        let socket = sockets::listen(address)?;
        self.poll.registry().register(
            &mut SourceFd(&socket.as_raw_fd()),
            Token(LISTENERS + self.listeners.len()),
            Interest::READABLE,
        )?;
        self.listeners.push(Listener { socket, end, opening, ready: true });
        Ok(())
    }

    /// Begins a connection. What is sent on it waits until it is open. Returns it with its own address.
    pub fn connect(&mut self, end: u32, from: IpAddr, to: SocketAddr, tls: Option<&Endpoint>) -> io::Result<(Link, SocketAddr)> {
        let socket = sockets::connect(Some(from), to)?;
        let own = match socket.local_addr()?.as_socket() {
            Some(own) => own,
            None => return Err(io::Error::other("not an IP connection")),
        };
        let link = self.adopt(socket, end, open(tls, to)?, false)?;
        self.counts.add(Count::Opened);
        // The first flight of a handshake.
        self.write_out(link);
        Ok((link, own))
    }

    fn adopt(&mut self, socket: Socket, end: u32, tls: Option<Tls>, accepted: bool) -> io::Result<Link> {
        let slot = self.free.pop().unwrap_or_else(|| {
            // 0 is that of links that are no connection.
            self.slots.push(Slot { generation: 1, stream: None });
            self.slots.len() as u32 - 1
        });
        // Edge-triggered: both interests at once, and never changed.
        let registered = self.poll.registry().register(
            &mut SourceFd(&socket.as_raw_fd()),
            Token(slot as usize),
            Interest::READABLE | Interest::WRITABLE,
        );
        if let Err(error) = registered {
            self.free.push(slot);
            return Err(error);
        }
        let place = &mut self.slots[slot as usize];
        place.stream = Some(Stream {
            socket,
            end,
            handshaking: tls.is_some(),
            tls,
            queue: Vec::new(),
            unsent: Vec::new(),
            partial: Vec::new(),
            accepted,
            dirty: false,
            closing: false,
            closed: false,
            hung_up: false,
        });
        self.open += 1;
        Ok(Link { end, slot, generation: place.generation })
    }

    fn get(&self, link: Link) -> Option<&Stream> {
        let slot = self.slots.get(link.slot as usize)?;
        slot.stream.as_ref().filter(|_| slot.generation == link.generation)
    }

    fn stream(&mut self, link: Link) -> Option<&mut Stream> {
        let slot = self.slots.get_mut(link.slot as usize)?;
        slot.stream.as_mut().filter(|_| slot.generation == link.generation)
    }

    pub fn is_live(&self, link: Link) -> bool {
        self.get(link).is_some()
    }

    /// Whether the connection can carry messages: connected, and its handshake done.
    pub fn is_open(&self, link: Link) -> bool {
        self.get(link).is_some_and(|stream| !stream.handshaking && stream.unsent.is_empty())
    }

    /// Queues a message.
    pub fn send(&mut self, link: Link, message: &[u8]) {
        let Some(stream) = self.stream(link).filter(|stream| !stream.closing && !stream.closed) else {
            return self.counts.add(Count::SendErrors);
        };
        stream.queue.extend_from_slice(message);
        self.mark_dirty(link);
        self.counts.add(Count::Sent);
        self.counts.add_many(Count::SentBytes, message.len() as u64);
    }

    /// Closes the connection when what is queued has left. Nobody is told that it is gone.
    pub fn close(&mut self, link: Link) {
        if let Some(stream) = self.stream(link) {
            stream.closing = true;
            self.mark_dirty(link);
        }
    }

    fn mark_dirty(&mut self, link: Link) {
        if let Some(stream) = self.stream(link).filter(|stream| !stream.dirty) {
            stream.dirty = true;
            self.dirty.push(link);
        }
    }

    /// One write for each connection that has something to say.
    pub fn flush(&mut self) {
        while let Some(link) = self.dirty.pop() {
            if let Some(stream) = self.stream(link) {
                stream.dirty = false;
                self.write_out(link);
            }
        }
    }

    fn write_out(&mut self, link: Link) {
        let Some(stream) = self.stream(link) else {
            return;
        };
        let mut outcome = Ok(());
        let made = match &mut stream.tls {
            None => &mut stream.queue,
            Some(tls) => {
                if !stream.handshaking {
                    outcome = tls.send(&stream.queue);
                    stream.queue.clear();
                    if stream.closing {
                        tls.close();
                    }
                }
                tls.output()
            }
        };
        if stream.unsent.is_empty() {
            mem::swap(&mut stream.unsent, made);
        } else {
            stream.unsent.append(made);
        }
        if let Err(failure) = outcome {
            return self.fail(link, &failure.to_string());
        }
        match sockets::write_some(&stream.socket, &stream.unsent) {
            Ok(sent) if sent == stream.unsent.len() && stream.unsent.capacity() > KEPT_CAPACITY => stream.unsent = Vec::new(),
            Ok(sent) => _ = stream.unsent.drain(..sent),
            Err(error) => return self.fail(link, &format!("write: {error}")),
        }
        if stream.closing && !stream.closed && stream.unsent.is_empty() && stream.queue.is_empty() {
            if stream.tls.is_none() {
                self.remove(link);
            } else {
                // A close_notify that the peer sends to a socket already closed would be answered by a reset.
                stream.closed = true;
                let _ = stream.socket.shutdown(std::net::Shutdown::Write);
                self.lingering.push_back((Instant::now() + LINGER, link));
            }
        }
    }

    /// Looks what can be read, written or accepted, without waiting. Returns whether there is anything.
    pub fn look(&mut self) -> bool {
        if self.slots.is_empty() && self.listeners.is_empty() {
            // UDP alone: not even a look.
            return false;
        }
        self.ready.clear();
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => self.complain(&format!("poll: {error}")),
        }
        for event in &self.events {
            match event.token().0 {
                token if token >= LISTENERS => self.listeners[token - LISTENERS].ready = true,
                token => {
                    self.ready.push((token as u32, event.is_writable()));
                    if let Some(stream) = self.slots[token].stream.as_mut() {
                        stream.hung_up |= event.is_read_closed() || event.is_error();
                    }
                }
            }
        }
        for at in 0..self.listeners.len() {
            if self.listeners[at].ready {
                self.accept(at);
            }
        }
        if let Some((until, link)) = self.lingering.front().copied()
            && Instant::now() >= until
        {
            self.lingering.pop_front();
            self.remove(link);
        }
        !self.ready.is_empty()
    }

    fn accept(&mut self, at: usize) {
        for _ in 0..ACCEPTED_AT_ONCE {
            let (socket, peer) = match self.listeners[at].socket.accept() {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.listeners[at].ready = false;
                    if error.kind() != ErrorKind::WouldBlock {
                        self.complain(&format!("accept: {error}"));
                    }
                    return;
                }
            };
            let Some(peer) = peer.as_socket() else {
                continue;
            };
            let Listener { end, ref opening, .. } = self.listeners[at];
            let adopted = open(opening.tls.as_ref(), peer).and_then(|tls| {
                socket.set_nonblocking(true)?;
                self.adopt(socket, end, tls, true)
            });
            match adopted {
                Ok(_) => self.counts.add(Count::Accepted),
                Err(error) => self.complain(&format!("accept: {error}")),
            }
        }
    }

    pub fn next_ready(&mut self) -> Option<Link> {
        while let Some((slot, is_writable)) = self.ready.pop() {
            let Slot { generation, stream: Some(stream) } = &self.slots[slot as usize] else {
                continue;
            };
            let link = Link { end: stream.end, slot, generation: *generation };
            if is_writable && !stream.unsent.is_empty() {
                self.write_out(link);
            }
            if self.is_live(link) {
                return Some(link);
            }
        }
        None
    }

    /// A connection that ended without our having closed it.
    pub fn next_lost(&mut self) -> Option<Link> {
        self.lost.pop()
    }

    /// Reads what has come into `buffer`, after what was kept from the last time.
    pub fn read(&mut self, link: Link, buffer: &mut [u8]) -> Reading {
        let nothing = Reading { length: 0, more: false, over: false };
        let Some(stream) = self.stream(link) else {
            return nothing;
        };
        let start = stream.partial.len();
        buffer[..start].copy_from_slice(&stream.partial);
        stream.partial = Vec::new();
        let hung_up = stream.hung_up;
        let outcome = match stream.tls {
            None => read_plain(&stream.socket, buffer, start),
            Some(_) => self.read_tls(link, buffer, start),
        };
        match outcome {
            Ok(mut reading) => {
                reading.more |= hung_up && !reading.over && self.is_live(link);
                reading
            }
            Err(why) => {
                self.fail(link, &why);
                nothing
            }
        }
    }

    fn read_tls(&mut self, link: Link, buffer: &mut [u8], start: usize) -> Result<Reading, String> {
        let slot = &mut self.slots[link.slot as usize];
        let Some(Stream { socket, tls: Some(tls), handshaking, accepted, .. }) = &mut slot.stream else {
            return Err("gone".into());
        };
        let raw = read_plain(socket, &mut self.ciphertext, 0)?;
        let mut reading = Reading { length: start, ..raw };
        if raw.length > 0 {
            self.plaintext.clear();
            let outcome = tls.receive(&self.ciphertext[..raw.length], &mut self.plaintext);
            // A flight, a key update, an alert; or what waited for the handshake.
            let speaks = *handshaking || !tls.output().is_empty();
            if let Ok(progress) = &outcome {
                reading.over |= progress.closed;
                if progress.established_now {
                    *handshaking = false;
                    self.agreed.get_or_insert_with(|| Agreed::of(tls.ssl()).to_string());
                    count_handshake(&mut self.counts, tls, *accepted, false);
                }
            }
            if speaks {
                self.write_out(link);
            }
            outcome.map_err(|failure| failure.to_string())?;
            reading.length += self.plaintext.len();
            let room = buffer.get_mut(start..reading.length).ok_or("a message out of all proportion")?;
            room.copy_from_slice(&self.plaintext);
        }
        match self.stream(link) {
            Some(stream) if stream.handshaking && reading.over => Err("closed during the handshake".into()),
            _ => Ok(reading),
        }
    }

    /// Keeps the beginning of a message for the next read.
    pub fn keep(&mut self, link: Link, bytes: &[u8]) {
        if let Some(stream) = self.stream(link) {
            stream.partial = bytes.to_vec();
        }
    }

    /// The peer closed it.
    pub fn ended(&mut self, link: Link) {
        let Some(stream) = self.stream(link) else {
            return;
        };
        let ours = stream.closing || stream.closed;
        if let Some(tls) = stream.tls.as_mut()
            && !stream.closed
        {
            tls.close();
            self.write_out(link);
        }
        if !self.is_live(link) {
            return;
        }
        if !ours {
            self.counts.add(Count::ClosedByPeer);
            self.lost.push(link);
        }
        self.remove(link);
    }

    /// Something is wrong with the connection itself.
    pub fn fail(&mut self, link: Link, why: &str) {
        let slot = &mut self.slots[link.slot as usize];
        let Some(stream) = slot.stream.as_ref().filter(|_| slot.generation == link.generation) else {
            return;
        };
        if !stream.closing && !stream.closed {
            match &stream.tls {
                Some(tls) if stream.handshaking => count_handshake(&mut self.counts, tls, stream.accepted, true),
                _ => self.counts.add(Count::Broken),
            }
            let side = match stream.accepted {
                true => "accepted",
                false => "our own",
            };
            self.complain(&format!("{side} connection: {why}"));
            self.lost.push(link);
        }
        self.remove(link);
    }

    fn remove(&mut self, link: Link) {
        let slot = &mut self.slots[link.slot as usize];
        if slot.generation == link.generation && slot.stream.take().is_some() {
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(link.slot);
            self.open -= 1;
        }
    }

    fn complain(&mut self, why: &str) {
        if self.complaints < COMPLAINTS {
            self.complaints += 1;
            eprintln!("strowger-load: {why}");
        }
    }
}

fn open(endpoint: Option<&Endpoint>, peer: SocketAddr) -> io::Result<Option<Tls>> {
    endpoint.map(|endpoint| endpoint.open(peer)).transpose().map_err(io::Error::other)
}

/// A handshake is over.
fn count_handshake(counts: &mut Counts, tls: &Tls, accepted: bool, failed: bool) {
    let (calls, [full, resumed, failure]) = match accepted {
        true => (Count::ServerHandshakeCalls, [Count::ServerFull, Count::ServerResumed, Count::ServerFailed]),
        false => (Count::ClientHandshakeCalls, [Count::ClientFull, Count::ClientResumed, Count::ClientFailed]),
    };
    counts.add_many(calls, tls.handshake_calls().into());
    counts.add(match tls.is_resumed() {
        _ if failed => failure,
        true => resumed,
        false => full,
    });
}

/// A longer queue gives its memory back when it is empty.
const KEPT_CAPACITY: usize = 8 * 1024;

fn read_plain(mut socket: &Socket, buffer: &mut [u8], start: usize) -> Result<Reading, String> {
    let room = buffer.len() - start;
    loop {
        return match socket.read(&mut buffer[start..]) {
            Ok(count) => Ok(Reading { length: start + count, more: count == room, over: count == 0 }),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Reading { length: start, more: false, over: false }),
            Err(error) => Err(format!("read: {error}")),
        };
    }
}
