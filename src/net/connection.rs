//! One stream to one peer (RFC 3261 §18, RFC 5626 §4.4): the part of a message received so far, and what waits to be sent.
//! [`step`](super::state::step) decides what it does next.

use super::age_list::{Age, Aging};
use super::pool::Buffers;
use super::state::{State, Why};
use super::tls::Tls;
use crate::base::{Channel, Flow, Id, Instant, ProvedNames, Transport};
use crate::sip::{Fault, Frame, Framer};
use mio::net::TcpStream;
use socket2::SockRef;
use std::ffi::c_int;
use std::io::{self, Read};
use std::net::SocketAddr;

/// The count of bytes between two messages restarts after this time.
const BLANKS_MS: u64 = 60_000;

/// What a stream delivered; the receiver of an arrival returns whether it will be answered.
pub enum Arrival<'a> {
    /// One whole message.
    Message(&'a [u8]),
    /// A ping of RFC 5626 (two CRLFs); its answer is a pong.
    KeepAlive,
    /// Bytes in which no message boundary can be found, and why: to be answered if possible. The stream ends here.
    Unframed(&'a [u8], Fault),
}

pub struct Connection {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub listener: u16,
    pub transport: Transport,
    pub state: State,
    /// For connections that we opened: the names under which the rules know this one ([`Channel::Peer`]).
    names: Option<Box<(u64, u64)>>,
    pub age: Age,
    pub tls: Option<Box<Tls>>,
    framer: Framer,
    /// The beginning of a message whose rest has not arrived.
    partial: Vec<u8>,
    /// Messages of this turn; on a connection that is not open yet, everything queued so far.
    pub plain: Vec<u8>,
    // Sizes within one connection are 32 bits: the limits of the conf keep them far below that.
    //
    // Bytes that the kernel has not taken, from `written` on.
    queue: Vec<u8>,
    written: u32,
    /// Bytes of incomplete messages that were counted for this connection.
    pub weight: u32,
    /// Bytes that wait to be sent, as counted for this connection.
    pub unsent: u32,
    /// Bytes between messages since the last message or since this time, and the most allowed.
    blanks: u32,
    blanks_since: Instant,
    blanks_most: u32,
    /// Requests received that have not had their final response from us.
    owed: u32,
    /// Requests of ours that have not had their final response.
    awaited: u32,
    /// The lists that contain this connection, besides that of its state.
    pub read_queue: ReadQueue,
    pub is_dirty: bool,
    pub flags: Flags,
}

/// The list of a connection that may hold unread bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadQueue {
    /// It holds none, as far as is known, or is being served.
    Nowhere,
    /// Among the holders, waiting for its turn to begin its handshake.
    Turn,
    /// Among those whose handshakes are in progress.
    Handshake,
    Ready,
    /// Among those that hold more than was read from them.
    Hungry,
    /// In no list: it is not read from until its peer takes what it is sent.
    Parked,
}

/// What is known about a connection besides its state, and why it is not part of the state.
#[derive(Clone, Copy, Default, Debug)]
pub struct Flags {
    /// The poll was asked for writability too. Never reset.
    pub asks_room: bool,
    /// The poll has reported that the peer sends no more, possibly together with its last messages: then a short read does not mean
    /// that the socket is drained.
    pub is_half_closed: bool,
    /// The only call that it served is over, possibly before the connection was open.
    pub is_released: bool,
    /// Something arrived on it that will be answered, or that we had waited for. Never reset.
    pub is_proved: bool,
    /// A load balancer's own connection, by its PROXY header: it looks whether this server is there, and may leave as it likes.
    pub is_balancers: bool,
}

/// How a message relates to answers.
enum Expected {
    /// It expects one.
    Answer,
    /// It is a final one.
    Answers,
    Nothing,
}

impl Expected {
    fn of(message: &[u8]) -> Expected {
        match message {
            [s, i, p, b'/', _, _, _, b' ', class, ..] if is_sip([*s, *i, *p]) => match class {
                b'2'..=b'6' => Expected::Answers,
                _ => Expected::Nothing,
            },
            [s, i, p, b'/', ..] if is_sip([*s, *i, *p]) => Expected::Nothing,
            [b'A', b'C', b'K', b' ', ..] | [b'\r', ..] => Expected::Nothing,
            _ => Expected::Answer,
        }
    }
}

/// True for the word that begins a response.
fn is_sip(word: [u8; 3]) -> bool {
    word.eq_ignore_ascii_case(b"SIP")
}

/// The result of a read.
pub struct Reading {
    /// Bytes read.
    pub count: usize,
    /// A message or record has begun or become complete.
    pub is_news: bool,
    /// The TLS handshake is done.
    pub is_established: bool,
    pub next: Next,
}

/// How reading continues.
pub enum Next {
    /// There may be more to read.
    More,
    /// The kernel holds nothing more now.
    Drained,
    /// The peer sends no more.
    End,
    Failed(Why),
}

/// Buffers for reading, lent by the owner of all connections.
pub struct ReadBuffers<'a> {
    /// Receives what is read; its size bounds the read.
    pub scratch: &'a mut [u8],
    /// Receives the decrypted bytes.
    pub plaintext: &'a mut Vec<u8>,
    pub buffers: &'a mut Buffers,
}

impl Aging for Connection {
    fn age(&self) -> &Age {
        &self.age
    }
    fn age_mut(&mut self) -> &mut Age {
        &mut self.age
    }
}

impl Connection {
    pub fn new(
        stream: TcpStream,
        flow: &Flow,
        state: State,
        tls: Option<Box<Tls>>,
        message_size: usize,
        now: Instant,
    ) -> Connection {
        Connection {
            stream,
            peer: flow.peer,
            listener: flow.listener,
            transport: flow.transport,
            state,
            names: match flow.channel {
                Channel::Peer { name, call } => Some(Box::new((name, call))),
                _ => None,
            },
            age: Age::new(now),
            tls,
            framer: Framer::new(message_size),
            partial: Vec::new(),
            plain: Vec::new(),
            queue: Vec::new(),
            written: 0,
            weight: 0,
            unsent: 0,
            blanks: 0,
            blanks_since: now,
            blanks_most: u32::MAX,
            owed: 0,
            awaited: 0,
            read_queue: ReadQueue::Nowhere,
            is_dirty: false,
            flags: Flags::default(),
        }
    }

    /// For connections that we opened: returns the names under which the rules know this one ([`Channel::Peer`]).
    pub fn names(&self) -> Option<(u64, u64)> {
        self.names.as_deref().copied()
    }

    /// Returns the flow of messages that arrive on it.
    pub fn flow(&self, core: u8, id: Id) -> Flow {
        Flow {
            channel: Channel::Connection { slot: id.slot, generation: id.generation },
            peer: self.peer,
            listener: self.listener,
            transport: self.transport,
            core,
        }
    }

    /// True if a single call has the connection to itself.
    pub fn is_private(&self) -> bool {
        self.names().is_some_and(|(_, call)| call != 0)
    }

    /// Returns the number of bytes that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.plain.len() + self.queue.len() - self.written as usize
    }

    pub fn owes_nothing(&self) -> bool {
        self.owed == 0
    }

    /// Returns whether either side still has to answer the other, and forgets it: an answer that never comes is not waited for
    /// twice.
    pub fn forget_expected(&mut self) -> bool {
        std::mem::take(&mut self.owed) > 0 || std::mem::take(&mut self.awaited) > 0
    }

    /// Reads and discards what arrives after the end of all messages.
    pub fn discard(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        match (&self.stream).read(scratch) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Queues one message of the rules.
    pub fn take(&mut self, message: &[u8], buffers: &mut Buffers) {
        match Expected::of(message) {
            Expected::Answer => self.awaited = self.awaited.saturating_add(1),
            Expected::Answers => self.owed = self.owed.saturating_sub(1),
            Expected::Nothing => {}
        }
        if self.plain.capacity() == 0 {
            self.plain = buffers.take();
        }
        self.plain.extend_from_slice(message);
    }

    /// `most`: the most bytes allowed between two messages, or within a minute.
    pub fn allow_blanks(&mut self, most: usize, now: Instant) {
        self.blanks_most = u32::try_from(most).unwrap_or(u32::MAX);
        if now.ms_since(self.blanks_since) >= BLANKS_MS {
            self.blanks = 0;
            self.blanks_since = now;
        }
    }

    /// Returns the memory of messages that have begun and are incomplete.
    pub fn unfinished_bytes(&self) -> usize {
        let record = self.tls.as_ref().map_or(0, |tls| tls.held_bytes());
        self.partial.capacity() + record
    }

    /// Reads once and hands over the complete messages. If the peer has just proved its names, `prove` gets them before `on` gets
    /// any message; `on` returns for each whether it will be answered.
    pub fn read(&mut self, with: ReadBuffers<'_>, prove: impl FnOnce(ProvedNames), on: impl FnMut(Arrival<'_>) -> bool) -> Reading {
        let mut reading = Reading { count: 0, is_news: false, is_established: false, next: Next::End };
        let ReadBuffers { scratch, plaintext, buffers } = with;
        match (&self.stream).read(scratch) {
            Ok(0) => {}
            Ok(count) => {
                // A short read has emptied the socket; only the end of the stream may follow.
                let is_drained = count < scratch.len() && !self.flags.is_half_closed;
                let came = scratch.get(..count).unwrap_or_default();
                reading.count = count;
                reading.is_news = self.state != State::Receiving;
                let digested = self.digest(came, plaintext, buffers, &mut reading, prove, on);
                reading.next = match digested {
                    Ok(true) => Next::End,
                    Ok(false) if is_drained => Next::Drained,
                    Ok(false) => Next::More,
                    Err(why) => Next::Failed(why),
                };
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => reading.next = Next::Drained,
                io::ErrorKind::Interrupted => reading.next = Next::More,
                _ => reading.next = Next::Failed(Why::Error(error)),
            },
        }
        reading
    }

    /// Processes the result of a read. Returns whether the peer has signalled that it sends no more.
    fn digest(
        &mut self,
        came: &[u8],
        plaintext: &mut Vec<u8>,
        buffers: &mut Buffers,
        reading: &mut Reading,
        prove: impl FnOnce(ProvedNames),
        mut on: impl FnMut(Arrival<'_>) -> bool,
    ) -> Result<bool, Why> {
        let Some(tls) = &mut self.tls else {
            self.take_in(came, buffers, &mut reading.is_news, &mut on)?;
            return Ok(false);
        };
        plaintext.clear();
        let progress = tls.receive(came, plaintext).map_err(Why::Tls)?;
        reading.is_established = progress.established_now;
        if progress.established_now
            && let Some(names) = tls.client_names()
        {
            prove(names);
        }
        self.take_in(plaintext, buffers, &mut reading.is_news, &mut on)?;
        Ok(progress.closed)
    }

    /// Frames `bytes`, which follow what was received before.
    fn take_in(
        &mut self,
        bytes: &[u8],
        buffers: &mut Buffers,
        is_news: &mut bool,
        on: &mut impl FnMut(Arrival<'_>) -> bool,
    ) -> Result<(), Why> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut partial = std::mem::take(&mut self.partial);
        let result = if partial.is_empty() {
            self.hand_over(bytes, buffers, is_news, on).map(|done| {
                let rest = bytes.get(done..).unwrap_or_default();
                if !rest.is_empty() {
                    if partial.capacity() == 0 {
                        partial = buffers.take();
                    }
                    partial.extend_from_slice(rest);
                }
            })
        } else {
            partial.extend_from_slice(bytes);
            self.hand_over(&partial, buffers, is_news, on).map(|done| {
                partial.drain(..done);
            })
        };
        if partial.is_empty() {
            buffers.give(partial);
        } else if self.framer.is_inside_message() {
            self.partial = partial;
        } else {
            // Half of a line end, which may remain for as long as the connection is open, must not keep a large buffer.
            self.partial = partial.as_slice().into();
            buffers.give(partial);
        }
        result
    }

    /// Hands over the complete messages at the front of `bytes`; returns where the rest begins.
    fn hand_over(
        &mut self,
        bytes: &[u8],
        buffers: &mut Buffers,
        is_news: &mut bool,
        on: &mut impl FnMut(Arrival<'_>) -> bool,
    ) -> Result<usize, Why> {
        let mut done = 0;
        loop {
            let rest = bytes.get(done..).unwrap_or_default();
            let frame = self.framer.next(rest);
            *is_news |= frame != Frame::More;
            done += match frame {
                Frame::More => return Ok(done),
                Frame::Message(length) => {
                    let message = rest.get(..length).unwrap_or_default();
                    // What is discarded is never answered: waiting for that would keep the slot of a peer that is long gone.
                    let is_answered = on(Arrival::Message(message));
                    self.blanks = 0;
                    match Expected::of(message) {
                        Expected::Answer => {
                            self.flags.is_proved |= is_answered;
                            self.owed = self.owed.saturating_add(is_answered.into());
                        }
                        Expected::Answers => {
                            self.flags.is_proved |= self.awaited > 0;
                            self.awaited = self.awaited.saturating_sub(1);
                        }
                        Expected::Nothing => {}
                    }
                    length
                }
                Frame::KeepAlive => self.count_blanks(2)?,
                Frame::Noise(length) => self.count_blanks(length)?,
                Frame::Ping => {
                    if on(Arrival::KeepAlive) {
                        self.take(b"\r\n", buffers);
                    }
                    self.count_blanks(2)?
                }
                Frame::Bad(fault) => {
                    let is_answered = on(Arrival::Unframed(rest, fault));
                    self.owed = self.owed.saturating_add(is_answered.into());
                    return Err(Why::Garbage(fault));
                }
            };
        }
    }

    /// Counts the bytes between two messages.
    fn count_blanks(&mut self, length: usize) -> Result<usize, Why> {
        self.blanks = self.blanks.saturating_add(length as u32);
        match self.blanks > self.blanks_most {
            true => Err(Why::Blank(self.blanks_most as usize)),
            false => Ok(length),
        }
    }

    /// True if a message has begun and is incomplete.
    pub fn is_inside_message(&self) -> bool {
        self.framer.is_inside_message()
    }

    /// The same, or a TLS record has.
    pub fn is_inside(&self) -> bool {
        self.is_inside_message() || self.tls.as_ref().is_some_and(|tls| tls.is_inside_record())
    }

    /// Gives back the memory of a message that will not become whole.
    pub fn drop_partial(&mut self, buffers: &mut Buffers) {
        buffers.give(std::mem::take(&mut self.partial));
    }

    /// True when something waits that the kernel has not been offered.
    pub fn speaks(&mut self) -> bool {
        let tls = self.tls.as_mut();
        !self.plain.is_empty() || tls.is_some_and(|tls| !tls.output().is_empty())
    }

    /// Makes the turn's messages ready for the kernel: one TLS record, or as few as they fit in.
    fn seal(&mut self, buffers: &mut Buffers) -> Result<(), Why> {
        if self.state.may_speak() && !self.plain.is_empty() {
            let plain = std::mem::take(&mut self.plain);
            match &mut self.tls {
                Some(tls) => {
                    let sent = tls.send(&plain);
                    buffers.give(plain);
                    sent.map_err(Why::Tls)?;
                }
                None => self.append(plain, buffers),
            }
        }
        if let Some(tls) = &mut self.tls
            && !tls.output().is_empty()
        {
            let sealed = std::mem::take(tls.output());
            self.append(sealed, buffers);
        }
        Ok(())
    }

    fn append(&mut self, bytes: Vec<u8>, buffers: &mut Buffers) {
        if self.queue.is_empty() {
            buffers.give(std::mem::replace(&mut self.queue, bytes));
        } else {
            self.queue.extend_from_slice(&bytes);
            buffers.give(bytes);
        }
    }

    /// Writes what waits, in one call where the kernel takes it all.
    pub fn write(&mut self, buffers: &mut Buffers) -> Result<(), Why> {
        self.write_with(buffers, 0)
    }

    fn write_with(&mut self, buffers: &mut Buffers, flags: c_int) -> Result<(), Why> {
        if self.state == State::Connecting {
            return Ok(());
        }
        self.seal(buffers)?;
        let socket = SockRef::from(&self.stream);
        while (self.written as usize) < self.queue.len() {
            match socket.send_with_flags(&self.queue[self.written as usize..], flags | libc::MSG_NOSIGNAL) {
                Ok(0) => return Err(Why::Error(io::ErrorKind::WriteZero.into())),
                Ok(count) => self.written += count as u32,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Why::Error(error)),
            }
        }
        let written = self.written as usize;
        if written == self.queue.len() {
            self.written = 0;
            let mut queue = std::mem::take(&mut self.queue);
            queue.clear();
            buffers.give(queue);
        } else if written > self.queue.len() / 2 {
            self.queue.drain(..written);
            self.written = 0;
        }
        Ok(())
    }

    /// True while the kernel has not taken everything: the only time when writability is of interest.
    pub fn awaits_room(&self) -> bool {
        self.state == State::Connecting || (self.written as usize) < self.queue.len()
    }

    /// True when nothing waits to leave.
    pub fn is_silent(&self) -> bool {
        self.plain.is_empty() && self.queue.is_empty()
    }

    /// Says goodbye as the transport has it; what it takes is written as far as the kernel takes it. The socket is to be closed next:
    /// the kernel holds a close_notify back until then, so that it and the end of the stream are one segment. An alert that says why
    /// we refuse is sent at once: a reset, if the peer has sent more meanwhile, would overtake it.
    pub fn say_goodbye(&mut self, buffers: &mut Buffers) {
        let is_friendly = self.tls.as_ref().is_some_and(|tls| tls.is_established());
        if let Some(tls) = &mut self.tls {
            tls.close();
        }
        let _ = self.write_with(buffers, if is_friendly { libc::MSG_MORE } else { 0 });
    }
}
