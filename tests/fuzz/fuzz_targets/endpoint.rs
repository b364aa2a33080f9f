//! Fuzz target: whole dialogs as an endpoint sees them, and whatever a stranger makes of them. The input is a program: a line is a step, and the
//! steps write, answer, change and repeat the messages of a call. Nothing panics, what leaves is bounded by what came, and in the end nothing
//! is left over.
//!
//! A step is a letter, three figures that choose (who, which, what), and the text that it adds:
//! `m` a method with the text as further lines, `i` within the last dialog; `a` an answer to what we sent; `x` what we sent, with the text over it;
//! `r` what came before, with the text over it; `w` the text as it is; `u` undelivered; `l` a connection is lost; `t` time goes by.
#![no_main]

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use strowger::base::dns::{Answer, Failure, Outcome};
use strowger::base::{Channel, Flow, Instant, Key, LiveConnections, Outbox, Sources, Transport};
use strowger::sip::reply::{self, Reply};
use strowger::sip::{Fault, Index, Message, Name};
use strowger::stack::auth::nonce::Nonces;
use strowger::stack::settings::Listener;
use strowger::stack::{Element, Endpoint, Location, Settings};

const STEPS: usize = 48;
const TRANSACTIONS: usize = 32;
const MAX_CONTACTS: usize = 4;
/// Of one step: a branch to each contact, with the CANCELs of others and an answer.
const MOST_SENT: usize = 8 * MAX_CONTACTS;
const SECRET: Key = Key::new(0x5eed, 0xcafe);
const METHODS: [&str; 10] = ["INVITE", "ACK", "BYE", "CANCEL", "REGISTER", "OPTIONS", "MESSAGE", "PRACK", "UPDATE", "X"];
const STATUSES: [u16; 10] = [100, 180, 183, 200, 302, 401, 487, 503, 600, 699];

fuzz_target!(|bytes: &[u8]| {
    let mut bench = Bench::new();
    for (call, contact) in ["10.0.1.2", "10.0.1.3:5070"].into_iter().enumerate() {
        let lines = format!("Contact: <sip:bob@{contact}>\r\n");
        let register = request("REGISTER", 2, call, lines.as_bytes(), b"");
        bench.handle(2, &register);
    }
    assert_eq!(bench.location.bindings(), 2);
    for step in bytes.split(|b| *b == b'\n').take(STEPS) {
        bench.step(step);
    }
    // The longest that anything may wait: timer C and what comes behind it.
    bench.pass(1000 * 1000);
    let left = bench.endpoint.occupancy();
    assert_eq!((left.server_transactions, left.client_transactions), (0, 0));
});

struct Bench {
    endpoint: Endpoint,
    location: Arc<Location>,
    live: Arc<LiveConnections>,
    outbox: Outbox,
    now: Instant,
    came: Vec<Vec<u8>>,
    sent: Vec<(Flow, Vec<u8>)>,
}

impl Bench {
    fn new() -> Bench {
        static SHARED: OnceLock<(Arc<Settings>, Arc<Nonces>, Arc<Sources>)> = OnceLock::new();
        let (settings, nonces, sources) = SHARED.get_or_init(|| {
            let nonces = Arc::new(Nonces::new(SECRET, 0, 16));
            (Arc::new(settings()), nonces, Arc::new(Sources::new(SECRET, 0)))
        });
        let location = Arc::new(Location::new(SECRET, 100));
        let live = Arc::new(LiveConnections::new(1, 8));
        let mut endpoint = Endpoint::new(settings.clone(), location.clone(), live.clone(), 0, SECRET);
        endpoint.share_nonces(nonces.clone());
        endpoint.share_sources(sources.clone());
        Bench {
            endpoint,
            location,
            live,
            outbox: Outbox::default(),
            now: Instant::from_ms(1000),
            came: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn step(&mut self, step: &[u8]) {
        let [letter, who, which, what, text @ ..] = step else {
            return;
        };
        let [who, which, what] = [who, which, what].map(|b| usize::from(b.wrapping_sub(b'0')));
        let text = unescaped(text);
        let sent = self.sent.len().checked_sub(1 + which);
        let sent = sent.and_then(|at| self.sent.get(at)).cloned();
        match (letter, sent) {
            (b'm', _) => {
                let method = METHODS[what % METHODS.len()];
                self.handle(who, &request(method, who, which, &text, b""));
            }
            // Within the dialog that what we sent last has made: its tags and routes.
            (b'i', Some((_, last))) => {
                let mut index = Index::default();
                let Ok(last) = Message::parse(&last, &mut index) else {
                    return;
                };
                let mut lines = text;
                for route in last.all(Name::RecordRoute) {
                    lines.extend_from_slice(b"Route: ");
                    lines.extend_from_slice(route.value);
                    lines.extend_from_slice(b"\r\n");
                }
                let to = last.header(Name::To).map_or(&b""[..], |to| to.value);
                let method = METHODS[what % METHODS.len()];
                self.handle(who, &request(method, who, which, &lines, to));
            }
            (b'a', Some((flow, sent))) => self.answer(flow, &sent, STATUSES[what % 10], &text),
            (b'x', Some((_, sent))) => self.handle(who, &patched(&sent, which * what, &text)),
            (b'r', _) => {
                let before = self.came.len().checked_sub(1 + which);
                if let Some(before) = before.and_then(|at| self.came.get(at)).cloned() {
                    self.handle(who, &patched(&before, which * what, &text));
                }
            }
            (b'w', _) => self.handle(who, &text),
            (b'u', Some((_, sent))) => {
                self.endpoint.handle_undelivered(self.now, &sent, &mut self.outbox);
                self.collect();
            }
            (b'l', _) => {
                let flow = self.flow(5 + who % 3);
                if what % 2 == 0 {
                    let (now, outbox) = (self.now, &mut self.outbox);
                    self.endpoint.handle_unframed(now, flow, &text, Fault::BareLf, outbox);
                } else {
                    self.live.enter(0, (who % 3) as u32, 0);
                    self.endpoint.handle_flow_lost(self.now, flow, &mut self.outbox);
                }
                self.collect();
            }
            (b't', _) => self.pass(1 << (who % 20)),
            _ => {}
        }
    }

    /// Numbers below 5 are places of the network, the others connections.
    fn flow(&self, who: usize) -> Flow {
        let peer: SocketAddr = ([10, 0, 1, (who % 10) as u8], 5060).into();
        if who % 10 < 5 {
            return Flow::datagram(0, peer);
        }
        let slot = (who % 10 - 5) as u32 % 3;
        Flow { transport: Transport::Tcp, channel: Channel::Connection { slot, generation: 7 }, ..Flow::datagram(1, peer) }
    }

    fn handle(&mut self, who: usize, bytes: &[u8]) {
        let flow = self.flow(who);
        if let Channel::Connection { slot, generation } = flow.channel {
            self.live.enter(0, slot, generation);
        }
        self.came.push(bytes.to_vec());
        self.endpoint.handle(self.now, flow, bytes, &mut self.outbox);
        self.collect();
    }

    /// Whoever got `sent` answers it.
    fn answer(&mut self, flow: Flow, sent: &[u8], status: u16, lines: &[u8]) {
        let mut index = Index::default();
        let Ok(request) = Message::parse(sent, &mut index) else {
            return;
        };
        if !request.is_request() || request.check().is_err() {
            return;
        }
        let answer = Reply { status, to_tag: b"callee", ..Reply::default() };
        let mut bytes = Vec::new();
        reply::write(&request, &answer, |out| out.extend_from_slice(lines), &mut bytes);
        self.came.push(bytes.clone());
        self.endpoint.handle(self.now, flow, &bytes, &mut self.outbox);
        self.collect();
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now.after_ms(ms);
        let mut turns = 0;
        while let Some(due) = self.endpoint.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.endpoint.handle_timers(self.now, &mut self.outbox);
            self.collect();
            turns += 1;
            assert!(turns < 100_000, "timers without end");
        }
        self.now = end;
    }

    /// Takes out what leaves. Names are asked in vain.
    fn collect(&mut self) {
        loop {
            assert!(self.outbox.transmits.len() <= MOST_SENT * TRANSACTIONS);
            for transmit in &self.outbox.transmits {
                let bytes = self.outbox.get(transmit.span).to_vec();
                self.sent.push((transmit.flow, bytes));
            }
            let surplus = self.sent.len().saturating_sub(64);
            self.sent.drain(..surplus);
            let asked = std::mem::take(&mut self.outbox.questions);
            self.outbox.clear();
            let occupancy = self.endpoint.occupancy();
            assert!(occupancy.server_transactions <= TRANSACTIONS);
            if asked.is_empty() {
                return;
            }
            for question in asked {
                let outcome = Outcome::Failed(Failure::Silence);
                let answer = Answer { question, outcome };
                self.endpoint.handle_answer(self.now, answer, &mut self.outbox);
            }
        }
    }
}

fn settings() -> Settings {
    let listener =
        |transport| Listener { transport, address: "10.0.0.1:5060".parse().unwrap(), advertise: b"10.0.0.1:5060".to_vec() };
    let mut settings = Settings {
        domains: vec![b"x.example".to_vec()],
        listeners: vec![listener(Transport::Udp), listener(Transport::Tcp)],
        ..Settings::default()
    };
    settings.per_core.transactions = TRANSACTIONS;
    settings.limits.answer_factor = 0;
    settings.registrar.max_contacts = MAX_CONTACTS;
    settings
}

/// A request for bob; `which` tells calls apart.
fn request(method: &str, who: usize, which: usize, lines: &[u8], to: &[u8]) -> Vec<u8> {
    let (uri, default_to) = match method {
        "REGISTER" => ("sip:x.example", "<sip:bob@x.example>"),
        _ => ("sip:bob@x.example", "<sip:bob@x.example>"),
    };
    let to = match to {
        [] => default_to.as_bytes(),
        to => to,
    };
    let via = match who % 10 {
        0..5 => "UDP",
        _ => "TCP",
    };
    // CANCEL and ACK have the branch of the request that they are for.
    let of = match method {
        "CANCEL" | "ACK" => "INVITE",
        other => other,
    };
    let who = who % 10;
    let head = format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{via} 10.0.1.{who}:5060;branch=z9hG4bK{of}{which}\r\n\
         From: <sip:bob@x.example>;tag=f\r\nCall-ID: c{which}\r\nCSeq: 1 {method}\r\nMax-Forwards: 9\r\nContent-Length: 0\r\nTo: "
    );
    [head.as_bytes(), to, b"\r\n", lines, b"\r\n"].concat()
}

/// The text over what stands at `at`.
fn patched(bytes: &[u8], at: usize, text: &[u8]) -> Vec<u8> {
    let at = at % (bytes.len() + 1);
    let end = (at + text.len()).min(bytes.len());
    [&bytes[..at], text, &bytes[end..]].concat()
}

/// A line of the program has no line feeds of its own: `|` stands for the end of one of the message's.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in text {
        match byte {
            b'|' => out.extend_from_slice(b"\r\n"),
            byte => out.push(*byte),
        }
    }
    out
}
