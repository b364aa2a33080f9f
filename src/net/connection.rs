//! One stream to one peer (RFC 3261 §18, RFC 5626 §4.4): its state, what has come of a message, and what waits to leave.

use super::age_list::{Age, Aging};
use super::pool::Buffers;
use super::tls::Tls;
use crate::base::{Channel, Flow, Id, Instant, ProvedNames, Transport};
use crate::sip::{Fault, Frame, Framer};
use mio::net::TcpStream;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

/// What stands between two messages is counted anew after so long.
const BLANKS_MS: u64 = 60_000;

/// Each state but Open has a deadline of its own; a closed connection is no entry of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Waits for the peer to accept.
    Connecting,
    /// A peer has opened it for TLS. Its handshake has not begun: nothing has come yet, or it is not its turn.
    Accepted,
    /// Waits for the peer's part of the TLS handshake.
    Handshaking,
    /// Carries messages. Its deadline is the idle time-out.
    Open,
    /// Nothing more comes; it closes as soon as what is owed and what waits has left.
    Draining,
}

impl State {
    pub const ALL: [State; 5] = [
        State::Connecting,
        State::Accepted,
        State::Handshaking,
        State::Open,
        State::Draining,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::Accepted => "accepted",
            State::Handshaking => "handshaking",
            State::Open => "open",
            State::Draining => "draining",
        }
    }
}

/// What a stream brought; who gets it says whether it will be answered.
pub enum Arrival<'a> {
    /// One whole message.
    Message(&'a [u8]),
    /// A ping of RFC 5626 (two CRLFs); its answer is a pong.
    KeepAlive,
    /// Bytes in which no boundary can be found, and why: to be answered where that is possible. The stream ends here.
    Unframed(&'a [u8], Fault),
}

pub struct Connection {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub listener: u16,
    pub transport: Transport,
    pub state: State,
    /// For one that we opened: the names under which the rules know it ([`Channel::Peer`]).
    pub names: Option<(u64, u64)>,
    pub age: Age,
    pub tls: Option<Box<Tls>>,
    framer: Framer,
    /// The beginning of a message whose rest has not come.
    partial: Vec<u8>,
    /// Messages of this turn; in a connection that is not open yet, all that came before.
    pub plain: Vec<u8>,
    /// Bytes that the kernel has not taken, from `written` on.
    queue: Vec<u8>,
    written: usize,
    /// Bytes of messages not whole that were counted for it.
    pub weight: usize,
    /// Bytes that wait to leave, as far as they were counted for it.
    pub unsent: usize,
    /// Bytes between messages since the last one, or since this time; and how many may come.
    blanks: usize,
    blanks_since: Instant,
    blanks_most: usize,
    /// Requests that came and have not had their final response from us.
    owed: u32,
    /// Requests of ours that have not had their final response.
    awaited: u32,
    pub flags: Flags,
}

/// What is known about a connection besides its state.
#[derive(Clone, Copy, Default, Debug)]
pub struct Flags {
    /// It stands on a list of those that may hold bytes.
    pub is_ready: bool,
    /// On that of those that hold more than was taken of them.
    pub is_hungry: bool,
    /// Bytes wait to be sent at the end of this turn.
    pub is_dirty: bool,
    /// The poll tells us when the kernel takes bytes again.
    pub awaits_room: bool,
    /// The peer sends no more.
    pub is_half_closed: bool,
    /// The call that it served alone is over.
    pub is_released: bool,
    /// Not read from: the peer does not take what it is sent.
    pub is_held: bool,
    /// A message or a TLS record has begun and is not whole: until it is, nothing makes the connection younger.
    pub is_amid: bool,
    /// It stands among those that are.
    pub is_listed_amid: bool,
    /// Something came by it that will be answered, or that we had waited for; and that was noted.
    pub is_proved: bool,
    pub is_known_proved: bool,
    /// The last read brought something whole, or the beginning of something.
    pub is_fresh: bool,
}

/// What a message has to do with answers.
enum Expected {
    /// It wants one.
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

/// The word that begins a response.
fn is_sip(word: [u8; 3]) -> bool {
    word.eq_ignore_ascii_case(b"SIP")
}

/// What came of reading.
pub enum Taken {
    /// There may be more to read.
    More,
    /// The kernel holds nothing more now.
    Drained,
    /// The peer sends no more.
    End,
    Failed(Why),
}

/// Why a connection ended.
#[derive(Debug)]
pub enum Why {
    /// Nothing more was to be said, by either side.
    Done,
    Error(io::Error),
    Tls(super::tls::Failure),
    /// The stream could not be framed.
    Garbage(Fault),
    /// The deadline of the state it was in.
    Overdue(State),
    /// The peer left messages half sent.
    Truncated,
    /// A message has begun, and was not whole in its time.
    Unfinished,
    /// It only waited for what is owed to it, and another needs its place.
    Displaced,
    /// Another needs its place, and its source holds so many.
    Yields(usize),
    /// Its TLS handshake has stalled, and others wait; so many may be in hand.
    Stalled(usize),
    /// More came between messages than may: so many bytes.
    Blank(usize),
    /// Messages not whole hold too many bytes: more than so many.
    Crowded(usize),
    /// Its source is not heard any more.
    Banned,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Done => f.write_str("done"),
            Why::Error(error) => write!(f, "{error}"),
            Why::Tls(failure) => write!(f, "{failure}"),
            Why::Garbage(fault) => write!(f, "not SIP: {}", fault.reason()),
            Why::Overdue(State::Connecting) => f.write_str("no answer in connect_timeout"),
            Why::Overdue(State::Accepted | State::Handshaking) => {
                f.write_str("no TLS handshake in handshake_timeout")
            }
            Why::Overdue(State::Open) => f.write_str("idle for idle_timeout"),
            Why::Overdue(State::Draining) => f.write_str("the peer does not take what it is sent"),
            Why::Truncated => f.write_str("ended in the middle of a message"),
            Why::Unfinished => f.write_str("a message began and was not whole in message_timeout"),
            Why::Banned => f.write_str("its source is banned ([limits] ban)"),
            Why::Displaced => f.write_str("it sends no more, and its place is needed"),
            Why::Yields(held) => write!(
                f,
                "all places for connections are taken, and its source holds {held} of them ([connections] max; [limits] trusted_sources \
                 exempts a network)"
            ),
            Why::Stalled(most) => write!(
                f,
                "its TLS handshake has stalled and others wait: {most} may be in hand ([connections] handshakes)"
            ),
            Why::Blank(most) => write!(
                f,
                "more than {most} bytes of keep-alives and blank lines in a minute ([connections] keep_alive_bytes)"
            ),
            Why::Crowded(most) => write!(
                f,
                "messages that have begun and are not whole hold more than {most} bytes on this core, and its is among the oldest \
                 ([connections] unfinished_bytes)"
            ),
        }
    }
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
                Channel::Peer { name, call } => Some((name, call)),
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
            blanks_most: usize::MAX,
            owed: 0,
            awaited: 0,
            flags: Flags::default(),
        }
    }

    /// How messages that come on it are named.
    pub fn flow(&self, core: u8, id: Id) -> Flow {
        Flow {
            channel: Channel::Connection {
                slot: id.slot,
                generation: id.generation,
            },
            peer: self.peer,
            listener: self.listener,
            transport: self.transport,
            core,
        }
    }

    /// True for one that a single call has to itself.
    pub fn is_private(&self) -> bool {
        self.names.is_some_and(|(_, call)| call != 0)
    }

    /// Bytes that wait to leave.
    pub fn waiting(&self) -> usize {
        self.plain.len() + self.queue.len() - self.written
    }

    pub fn owes_nothing(&self) -> bool {
        self.owed == 0
    }

    /// True when one side still has to answer the other. It is asked once: who never answers is not waited for twice.
    pub fn forget_expected(&mut self) -> bool {
        std::mem::take(&mut self.owed) > 0 || std::mem::take(&mut self.awaited) > 0
    }

    /// Reads what comes after the end of all messages, and throws it away.
    pub fn discard(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        match (&self.stream).read(scratch) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes one message of the rules.
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

    /// `most`: how many bytes may come between two messages, or within a minute.
    pub fn allow_blanks(&mut self, most: usize, now: Instant) {
        self.blanks_most = most;
        if now.ms_since(self.blanks_since) >= BLANKS_MS {
            self.blanks = 0;
            self.blanks_since = now;
        }
    }

    /// Memory of messages that have begun and are not whole.
    pub fn unfinished_bytes(&self) -> usize {
        let record = self.tls.as_ref().map_or(0, |tls| tls.held_bytes());
        self.partial.capacity() + record
    }

    /// Reads once, and says how many bytes; hands over the messages that are whole: `prove` gets who the client is, where it has proved that now, before `on`
    /// gets what it says; `on` says whether that will be answered. `scratch` holds what comes, `plaintext` what it means.
    pub fn read(
        &mut self,
        scratch: &mut [u8],
        plaintext: &mut Vec<u8>,
        buffers: &mut Buffers,
        prove: impl FnOnce(ProvedNames),
        on: impl FnMut(Arrival<'_>) -> bool,
    ) -> (usize, Taken) {
        self.flags.is_fresh = false;
        match (&self.stream).read(scratch) {
            Ok(0) => (0, Taken::End),
            Ok(count) => {
                // A short read has emptied the socket; only the end may stand behind it.
                let drained = count < scratch.len() && !self.flags.is_half_closed;
                let came = scratch.get(..count).unwrap_or_default();
                let taken = self.digest(came, drained, plaintext, buffers, prove, on);
                (count, taken)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => (0, Taken::Drained),
                io::ErrorKind::Interrupted => (0, Taken::More),
                _ => (0, Taken::Failed(Why::Error(error))),
            },
        }
    }

    /// Takes in what `came`; `drained`: nothing more waits.
    fn digest(
        &mut self,
        came: &[u8],
        drained: bool,
        plaintext: &mut Vec<u8>,
        buffers: &mut Buffers,
        prove: impl FnOnce(ProvedNames),
        mut on: impl FnMut(Arrival<'_>) -> bool,
    ) -> Taken {
        let (bytes, ends) = match &mut self.tls {
            None => (came, false),
            Some(tls) => {
                plaintext.clear();
                match tls.receive(came, plaintext) {
                    Ok(progress) => {
                        if progress.established_now
                            && let Some(names) = tls.client_names()
                        {
                            prove(names);
                        }
                        (plaintext.as_slice(), progress.closed)
                    }
                    Err(failure) => return Taken::Failed(Why::Tls(failure)),
                }
            }
        };
        if let Err(why) = self.take_in(bytes, buffers, &mut on) {
            return Taken::Failed(why);
        }
        let begins = !self.flags.is_amid;
        self.flags.is_amid = self.is_inside_message()
            || (self.tls.as_ref()).is_some_and(|tls| tls.is_inside_record());
        self.flags.is_fresh |= begins;
        match (ends, drained) {
            (true, _) => Taken::End,
            (false, true) => Taken::Drained,
            (false, false) => Taken::More,
        }
    }

    /// Frames `bytes`, which follow what came before.
    fn take_in(
        &mut self,
        bytes: &[u8],
        buffers: &mut Buffers,
        on: &mut impl FnMut(Arrival<'_>) -> bool,
    ) -> Result<(), Why> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut partial = std::mem::take(&mut self.partial);
        let result = if partial.is_empty() {
            self.hand_over(bytes, buffers, on).map(|done| {
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
            self.hand_over(&partial, buffers, on).map(|done| {
                partial.drain(..done);
            })
        };
        match partial.is_empty() {
            true => buffers.give(partial),
            false => self.partial = partial,
        }
        result
    }

    /// Hands over the whole messages at the front of `bytes`; returns where the rest begins.
    fn hand_over(
        &mut self,
        bytes: &[u8],
        buffers: &mut Buffers,
        on: &mut impl FnMut(Arrival<'_>) -> bool,
    ) -> Result<usize, Why> {
        let mut done = 0;
        loop {
            let rest = bytes.get(done..).unwrap_or_default();
            let frame = self.framer.next(rest);
            self.flags.is_fresh |= frame != Frame::More;
            done += match frame {
                Frame::More => return Ok(done),
                Frame::Message(length) => {
                    let message = rest.get(..length).unwrap_or_default();
                    // What is thrown away is never answered: to wait for that would keep the place of who has long gone.
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

    /// Counts what stands between two messages.
    fn count_blanks(&mut self, length: usize) -> Result<usize, Why> {
        self.blanks = self.blanks.saturating_add(length);
        match self.blanks > self.blanks_most {
            true => Err(Why::Blank(self.blanks_most)),
            false => Ok(length),
        }
    }

    /// True when a message has begun and not ended.
    pub fn is_inside_message(&self) -> bool {
        self.framer.is_inside_message()
    }

    /// Makes the turn's messages ready for the kernel: one TLS record, or as few as they fit in.
    fn seal(&mut self, buffers: &mut Buffers) -> Result<(), Why> {
        let may_speak = matches!(self.state, State::Open | State::Draining);
        if may_speak && !self.plain.is_empty() {
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
        if self.state == State::Connecting {
            return Ok(());
        }
        self.seal(buffers)?;
        while self.written < self.queue.len() {
            match (&self.stream).write(&self.queue[self.written..]) {
                Ok(0) => return Err(Why::Error(io::ErrorKind::WriteZero.into())),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Why::Error(error)),
            }
        }
        if self.written == self.queue.len() {
            self.written = 0;
            let mut queue = std::mem::take(&mut self.queue);
            queue.clear();
            buffers.give(queue);
        } else if self.written > self.queue.len() / 2 {
            self.queue.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// True while the kernel has not taken everything: the only time when writability is of interest.
    pub fn awaits_room(&self) -> bool {
        self.state == State::Connecting || self.written < self.queue.len()
    }

    /// True when nothing waits to leave.
    pub fn is_silent(&self) -> bool {
        self.plain.is_empty() && self.queue.is_empty()
    }

    /// Says goodbye as the transport has it; what it takes is written as far as the kernel takes it.
    pub fn say_goodbye(&mut self, buffers: &mut Buffers) {
        if let Some(tls) = &mut self.tls {
            tls.close();
        }
        if self.state != State::Connecting {
            let _ = self.write(buffers);
        }
    }
}
