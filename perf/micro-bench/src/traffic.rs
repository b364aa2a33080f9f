//! Callers, answerers and phones around one endpoint in memory. A call is INVITE, 100, 180, 200, ACK, BYE, 200: six messages
//! in, seven out; a registration is one REGISTER and its 200. The messages are those of `perf/load`.

use std::net::SocketAddr;
use std::sync::Arc;
use strowger::base::{Flow, Instant, Key, Outbox, Rng, Span, Transport};
use strowger::sip::{Index, Message, Method, Name};
use strowger::stack::settings::{Listener, Settings};
use strowger::stack::{Element, Endpoint, Location};

const SERVER: &str = "127.0.0.1:5060";
const CALLER: &str = "127.0.0.1:5070";
const ANSWERER: &str = "127.0.0.1:5080";
const DOMAIN: &str = "127.0.0.1";

const SDP: &str = "v=0\r\n\
    o=user1 53655765 2353687637 IN IP4 127.0.0.1\r\n\
    s=-\r\n\
    c=IN IP4 127.0.0.1\r\n\
    t=0 0\r\n\
    m=audio 6000 RTP/AVP 0\r\n\
    a=rtpmap:0 PCMU/8000\r\n";

/// What a message is in a call or a registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Register,
    Invite,
    Ringing,
    Answer,
    Ack,
    Bye,
    End,
}

impl Kind {
    pub const OF_A_CALL: [Kind; 6] = [Kind::Invite, Kind::Ringing, Kind::Answer, Kind::Ack, Kind::Bye, Kind::End];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Register => "REGISTER",
            Kind::Invite => "INVITE",
            Kind::Ringing => "180 to INVITE",
            Kind::Answer => "200 to INVITE",
            Kind::Ack => "ACK",
            Kind::Bye => "BYE",
            Kind::End => "200 to BYE",
        }
    }
}

#[derive(Clone, Copy)]
struct Item {
    kind: Kind,
    flow: Flow,
    span: Span,
    /// Sent together with the one before it, and so arrives behind it.
    follows: bool,
}

/// Messages that arrive in one turn, in the order in which the server reads them.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    items: Vec<Item>,
    // Kept, so that what mixes them does not move what the server allocates.
    mixed: Vec<Item>,
    order: Vec<u32>,
}

impl Batch {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = (Flow, &[u8])> {
        let bytes = &self.bytes;
        self.items.iter().map(move |item| (item.flow, &bytes[item.span.range()]))
    }

    /// Those of one kind, in order.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (Flow, &[u8])> {
        let bytes = &self.bytes;
        self.items.iter().filter(move |item| item.kind == kind).map(move |item| (item.flow, &bytes[item.span.range()]))
    }

    /// Messages of different calls at different stages arrive mixed; those that were sent together stay together.
    pub fn shuffle(&mut self, rng: &mut Rng) {
        let firsts = (0..self.items.len()).filter(|&at| !self.items[at].follows);
        self.order.clear();
        self.order.extend(firsts.map(|at| at as u32));
        for last in (1..self.order.len()).rev() {
            let other = rng.below(last as u64 + 1) as usize;
            self.order.swap(last, other);
        }
        self.mixed.clear();
        for &first in &self.order {
            let rest = &self.items[first as usize..];
            self.mixed.push(rest[0]);
            self.mixed.extend(rest[1..].iter().take_while(|item| item.follows));
        }
        std::mem::swap(&mut self.items, &mut self.mixed);
    }

    /// Appends one message; `write` puts its bytes behind those that are there.
    fn push(&mut self, kind: Kind, flow: Flow, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.items.push(Item {
            kind,
            flow,
            span: Span::new(start, self.bytes.len()),
            follows: matches!(kind, Kind::Answer | Kind::Bye),
        });
    }
}

/// A server with its settings as those of the measured ones (`perf/bench/servers.py`), its output, and its time.
pub struct Server {
    pub endpoint: Endpoint,
    pub outbox: Outbox,
    pub now: Instant,
}

impl Server {
    /// `linger_ms`: how long a finished transaction is remembered. `transactions`: the limit of server transactions.
    pub fn new(linger_ms: u64, transactions: usize) -> Server {
        let mut settings = Settings {
            domains: vec![DOMAIN.into()],
            listeners: vec![Listener { transport: Transport::Udp, address: address(SERVER), advertise: SERVER.into() }],
            ..Settings::default()
        };
        settings.timers.linger = linger_ms;
        settings.per_core.transactions = transactions;
        settings.registrar.max_contacts = 1;
        let key = Key::new(0x5772_6f77_6765_7221, 0x416c_6d6f_6e20_4221);
        let location = Arc::new(Location::new(key, usize::MAX));
        Server {
            endpoint: Endpoint::new(Arc::new(settings), location, Arc::default(), 0, key),
            outbox: Outbox::default(),
            now: Instant::from_ms(1),
        }
    }

    /// Calls leave records from now on: lines in the outbox.
    pub fn record_calls(&mut self) {
        self.endpoint.share_calls(Some(Arc::new(strowger::stack::calls::Calls::new(usize::MAX))));
    }

    /// Hands every message to the endpoint, and fires what is due: what one turn of the loop does between its sockets. The
    /// name stands in the profiles: it is what is measured.
    #[inline(never)]
    pub fn measured_turn(&mut self, batch: &Batch) {
        for (flow, bytes) in batch.iter() {
            self.endpoint.handle(self.now, flow, bytes, &mut self.outbox);
        }
        self.endpoint.handle_timers(self.now, &mut self.outbox);
    }

    pub fn sleep_ms(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
    }
}

/// What the agents have seen.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Seen {
    pub registered: u64,
    /// Calls whose BYE was answered.
    pub ended: u64,
    /// Anything that a call or a registration has no place for.
    pub wrong: u64,
}

/// All the other ends. They remember nothing: every message says what comes next.
pub struct Agents {
    caller: Flow,
    answerer: Flow,
    pub users: u32,
    index: Index,
    pub seen: Seen,
}

impl Agents {
    pub fn new(users: u32) -> Agents {
        Agents {
            caller: Flow::datagram(0, address(CALLER)),
            answerer: Flow::datagram(0, address(ANSWERER)),
            users,
            index: Index::default(),
            seen: Seen::default(),
        }
    }

    /// The `round`-th REGISTER of a user's phone; CSeq rises with the round.
    pub fn register(&self, user: u32, round: u32, batch: &mut Batch) {
        let token = u64::from(round) << 32 | u64::from(user);
        batch.push(Kind::Register, self.answerer, |out| {
            write(
                out,
                format_args!(
                    "REGISTER sip:{DOMAIN} SIP/2.0\r\n\
                     Via: SIP/2.0/UDP {ANSWERER};branch=z9hG4bK{token:016x}i;rport\r\n\
                     Max-Forwards: 70\r\n\
                     From: <sip:u{user:05}@{DOMAIN}>;tag={token:08x}\r\n\
                     To: <sip:u{user:05}@{DOMAIN}>\r\n\
                     Call-ID: u{user:05}-5f3a77@load\r\n\
                     CSeq: {} REGISTER\r\n\
                     Contact: <sip:u{user:05}@{ANSWERER}>\r\n\
                     Expires: 3600\r\n\
                     User-Agent: strowger-load\r\n\
                     Content-Length: 0\r\n\r\n",
                    100_000_000 + round,
                ),
            );
        });
    }

    /// The INVITE that begins call number `call`: callees in turn, as a load generator takes them.
    pub fn invite(&self, call: u64, batch: &mut Batch) {
        let users = u64::from(self.users);
        let (callee, caller) = (call % users, (call * 7 + 1) % users);
        let token = token(call);
        batch.push(Kind::Invite, self.caller, |out| {
            write(
                out,
                format_args!(
                    "INVITE sip:u{callee:05}@{DOMAIN} SIP/2.0\r\n\
                     Via: SIP/2.0/UDP {CALLER};branch=z9hG4bK{token:016x}i;rport\r\n\
                     Max-Forwards: 70\r\n\
                     From: <sip:u{caller:05}@{DOMAIN}>;tag={token:016x}\r\n\
                     To: <sip:u{callee:05}@{DOMAIN}>\r\n\
                     Call-ID: {token:016x}@load\r\n\
                     CSeq: 1 INVITE\r\n\
                     Contact: <sip:u{caller:05}@{CALLER}>\r\n\
                     User-Agent: strowger-load\r\n\
                     Content-Type: application/sdp\r\n\
                     Content-Length: {}\r\n\r\n{SDP}",
                    SDP.len(),
                ),
            );
        });
    }

    /// Reads what the server has sent, and appends what the agents send to that.
    pub fn react(&mut self, outbox: &Outbox, replies: &mut Batch) {
        for transmit in &outbox.transmits {
            self.react_to(transmit.flow, outbox.get(transmit.span), replies);
        }
    }

    fn react_to(&mut self, flow: Flow, bytes: &[u8], replies: &mut Batch) {
        let mut index = std::mem::take(&mut self.index);
        let to_caller = flow.peer == self.caller.peer;
        match Message::parse(bytes, &mut index) {
            Ok(message) if message.check().is_ok() => match (message.method(), message.status()) {
                (Method::Invite, 0) if !to_caller => {
                    answer(&message, 180, self.answerer, replies);
                    answer(&message, 200, self.answerer, replies);
                }
                (Method::Invite, 100 | 180) if to_caller => {}
                (Method::Invite, 200) if to_caller => {
                    follow_up(&message, Kind::Ack, 1, self.caller, replies);
                    follow_up(&message, Kind::Bye, 2, self.caller, replies);
                }
                (Method::Ack, 0) if !to_caller => {}
                (Method::Bye, 0) if !to_caller => answer(&message, 200, self.answerer, replies),
                (Method::Bye, 200) if to_caller => self.seen.ended += 1,
                (Method::Register, 200) => self.seen.registered += 1,
                _ => self.seen.wrong += 1,
            },
            _ => self.seen.wrong += 1,
        }
        self.index = index;
    }
}

/// A response of the answerer (RFC 3261 §8.2.6); to an INVITE it makes a dialog (§12.1.1).
fn answer(request: &Message, status: u16, flow: Flow, replies: &mut Batch) {
    let invite = request.method() == Method::Invite;
    let kind = match (invite, status) {
        (true, 180) => Kind::Ringing,
        (true, _) => Kind::Answer,
        (false, _) => Kind::End,
    };
    replies.push(kind, flow, |out| {
        let reason = if status == 180 { "Ringing" } else { "OK" };
        write(out, format_args!("SIP/2.0 {status} {reason}\r\n"));
        copy(request, Name::Via, out);
        if invite {
            copy(request, Name::RecordRoute, out);
            let tag = request.from().ok().and_then(|from| from.tag());
            line("To: ", value(request, Name::To), out);
            out.truncate(out.len() - 2);
            line(";tag=", tag.unwrap_or_default(), out);
        } else {
            copy(request, Name::To, out);
        }
        for name in [Name::From, Name::CallId, Name::CSeq] {
            copy(request, name, out);
        }
        if invite {
            out.extend_from_slice(b"Contact: <");
            out.extend_from_slice(request.request_uri());
            out.extend_from_slice(b">\r\n");
        }
        if invite && status == 200 {
            let length = SDP.len();
            write(out, format_args!("Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{SDP}"));
        } else {
            out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        }
    });
}

/// The caller's ACK or BYE in the dialog that a 200 has made (§12.2.1.1): to its Contact, by its Record-Route in reverse.
fn follow_up(ok: &Message, kind: Kind, sequence: u32, flow: Flow, replies: &mut Batch) {
    let method = kind.name();
    replies.push(kind, flow, |out| {
        out.extend_from_slice(method.as_bytes());
        out.push(b' ');
        let contact = value(ok, Name::Contact);
        out.extend_from_slice(&contact[1..contact.len() - 1]);
        out.extend_from_slice(b" SIP/2.0\r\n");
        let call_id = value(ok, Name::CallId);
        let token = &call_id[..call_id.len() - "@load".len()];
        let end = method.as_bytes()[0].to_ascii_lowercase();
        write(out, format_args!("Via: SIP/2.0/UDP {CALLER};branch=z9hG4bK"));
        out.extend_from_slice(token);
        out.push(end);
        out.extend_from_slice(b";rport\r\n");
        let routes: Vec<_> = ok.values(Name::RecordRoute).collect();
        for route in routes.iter().rev() {
            line("Route: ", route.text, out);
        }
        out.extend_from_slice(b"Max-Forwards: 70\r\n");
        for name in [Name::From, Name::To, Name::CallId] {
            copy(ok, name, out);
        }
        write(out, format_args!("CSeq: {sequence} {method}\r\nContent-Length: 0\r\n\r\n"));
    });
}

/// A call's number as text that differs in every part, as the tokens of real callers do.
fn token(call: u64) -> u64 {
    (call + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn copy(from: &Message, name: Name, out: &mut Vec<u8>) {
    for header in from.all(name) {
        out.extend_from_slice(name.canonical().as_bytes());
        line(": ", header.value, out);
    }
}

fn line(prefix: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn value<'a>(message: &Message<'a>, name: Name) -> &'a [u8] {
    message.header(name).map_or(b"", |header| header.value)
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments) {
    use std::io::Write;
    out.write_fmt(text).expect("a vector takes every byte");
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Registers every user once, and checks that each was answered.
pub fn register_all(server: &mut Server, agents: &mut Agents, round: u32) {
    let (mut batch, mut none) = (Batch::default(), Batch::default());
    let before = agents.seen.registered;
    for user in 0..agents.users {
        batch.clear();
        agents.register(user, round, &mut batch);
        server.measured_turn(&batch);
        agents.react(&server.outbox, &mut none);
        server.outbox.clear();
    }
    let users = u64::from(agents.users);
    assert_eq!(agents.seen.registered - before, users, "{:?}", agents.seen);
}

/// Calls that begin at a steady rate, each one's messages a turn of one millisecond apart.
pub struct Calls {
    pub agents: Agents,
    rng: Rng,
    /// What arrives in the next turn.
    arriving: Batch,
    replies: Batch,
    /// New calls in each turn.
    per_ms: u32,
    pub begun: u64,
    /// Whether messages of one kind follow one another, or all are mixed.
    pub is_mixed: bool,
}

impl Calls {
    pub fn new(agents: Agents, per_ms: u32, seed: u64) -> Calls {
        Calls {
            agents,
            rng: Rng::new(seed),
            arriving: Batch::default(),
            replies: Batch::default(),
            per_ms,
            begun: 0,
            is_mixed: true,
        }
    }

    /// One millisecond: new calls join what is on its way, `turn` hands it all to the server, and the agents react.
    pub fn turn(&mut self, server: &mut Server, turn: impl FnOnce(&mut Server, &Batch)) {
        for _ in 0..self.per_ms {
            self.agents.invite(self.begun, &mut self.arriving);
            self.begun += 1;
        }
        if self.is_mixed {
            self.arriving.shuffle(&mut self.rng);
        }
        server.sleep_ms(1);
        turn(server, &self.arriving);
        self.replies.clear();
        self.agents.react(&server.outbox, &mut self.replies);
        server.outbox.clear();
        std::mem::swap(&mut self.arriving, &mut self.replies);
    }
}
