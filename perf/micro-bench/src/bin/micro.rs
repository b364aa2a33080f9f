//! `micro [--rounds N]`: nanoseconds for each operation of the words, and for whole calls and registrations through
//! the endpoint in its steady state. Rounds of all operations alternate; the table shows the median and the range.

use clap::Parser;
use std::hint::black_box;
use strowger::base::Flow;
use strowger::sip::{Index, Message, Name, Rewrite, fill_received};
use strowger::stack::Element;
use strowger_micro::measure::{CpuTime, ns_each, spread};
use strowger_micro::traffic::{Agents, Batch, Calls, Kind, Server, register_all};

const USERS: u32 = 10_000;
/// 28,000 calls a second with a linger time of 5 s: 140,000 finished calls are remembered, so that memory is as cold as it
/// is in a server under that load.
const CALLS_PER_MS: u32 = 28;
const LINGER_MS: u64 = 5000;
const SEED: u64 = 7;

/// Times the parser, the rewriter, whole calls and registrations in memory, without a socket.
#[derive(Parser)]
#[command(name = "perf/micro")]
struct Options {
    /// Of all operations in turn; the figures are their medians
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

fn main() {
    let Options { rounds } = Options::parse();
    let mut table = Table::default();
    let mut words = Words::new();
    let mut transactions = Steady::new();
    for _ in 0..rounds {
        words.round(&mut table);
        transactions.round(&mut table);
    }
    table.print(rounds);
}

// ---- the words: one message, warm in the nearest cache -----------------------------------------------------------------

struct Words {
    invite: Vec<u8>,
    ok: Vec<u8>,
    flow: Flow,
    index: Index,
    rewrite: Rewrite,
    out: Vec<u8>,
}

const REPETITIONS: u32 = 50_000;

impl Words {
    /// The INVITE as the caller sends it, padded to 600 bytes as `perf/load` does; the 200 as the answerer sends it.
    fn new() -> Words {
        let mut server = Server::new(100, 1024);
        let mut agents = Agents::new(1);
        register_all(&mut server, &mut agents, 0);
        let mut batch = Batch::default();
        agents.invite(0, &mut batch);
        let (flow, invite) = batch.iter().next().expect("an INVITE");
        let invite = padded(invite, 600);
        server.measured_turn(&batch);
        let mut replies = Batch::default();
        agents.react(&server.outbox, &mut replies);
        let ok = replies.of(Kind::Answer).next().expect("a 200").1.to_vec();
        Words { invite, ok, flow, index: Index::default(), rewrite: Rewrite::default(), out: Vec::with_capacity(4096) }
    }

    fn round(&mut self, table: &mut Table) {
        let Words { invite, ok, flow, index, rewrite, out } = self;
        for (name, bytes) in [("INVITE", &*invite), ("200", &*ok)] {
            let label = |what: &str| format!("{what}, {name} of {} bytes", bytes.len());
            table.time(label("parse"), REPETITIONS, || {
                black_box(Message::parse(black_box(bytes), index).is_ok());
            });
            table.time(label("parse and check"), REPETITIONS, || {
                let message = Message::parse(black_box(bytes), index);
                black_box(message.is_ok_and(|message| message.check().is_ok()));
            });
        }
        let message = Message::parse(invite, index).expect("a message");
        table.time("rewrite, INVITE as it is forwarded".into(), REPETITIONS, || {
            out.clear();
            forward(black_box(&message), *flow, rewrite, out);
            black_box(out.len());
        });
        let message = Message::parse(ok, index).expect("a message");
        table.time("rewrite, 200 without its top Via".into(), REPETITIONS, || {
            out.clear();
            rewrite.clear();
            if let Some(top) = black_box(&message).values(Name::Via).next() {
                rewrite.remove_value(&top);
            }
            rewrite.render(message.bytes(), out);
            black_box(out.len());
        });
    }
}

/// The edits that the proxy core makes to an INVITE: Request-URI, Via, `received`, Record-Route, Max-Forwards, Max-Breadth.
fn forward(message: &Message, source: Flow, rewrite: &mut Rewrite, out: &mut Vec<u8>) {
    let Ok(via) = message.top_via() else {
        return;
    };
    let head = via.value.header.line.start as usize;
    rewrite.clear();
    rewrite.replace(message.request_uri_range(), |out| {
        out.extend_from_slice(b"sip:u00000@127.0.0.1:5080");
    });
    rewrite.insert(head, |out| {
        out.extend_from_slice(b"Via: SIP/2.0/UDP 127.0.0.1:5060;rport;branch=z9hG4bKs");
        out.extend_from_slice(b"00000000010000000123456789abcdef0123456789abcdef01\r\n");
    });
    fill_received(&via, source.peer, rewrite);
    rewrite.insert(head, |out| {
        out.extend_from_slice(b"Record-Route: <sip:127.0.0.1:5060;lr;sc=0123456789abcdef>\r\n");
    });
    if let Some(header) = message.header(Name::MaxForwards) {
        rewrite.replace(header.value_span.range(), |out| out.extend_from_slice(b"69"));
    }
    rewrite.insert(head, |out| out.extend_from_slice(b"Max-Breadth: 60\r\n"));
    rewrite.render(message.bytes(), out);
}

/// The message with a header that nobody reads in front of its Content-Type, `length` bytes long in all.
fn padded(message: &[u8], length: usize) -> Vec<u8> {
    let mark = b"Content-Type:";
    let at = message.windows(mark.len()).position(|window| window == mark).expect("a body");
    let (head, tail) = message.split_at(at);
    let missing = length.saturating_sub(message.len() + "X-Pad: \r\n".len());
    let pad = format!("X-Pad: {}\r\n", "p".repeat(missing));
    [head, pad.as_bytes(), tail].concat()
}

// ---- whole transactions, in the steady state ---------------------------------------------------------------------------

struct Steady {
    server: Server,
    calls: Calls,
    round: u32,
}

impl Steady {
    fn new() -> Steady {
        let mut server = Server::new(LINGER_MS, 1 << 20);
        let mut agents = Agents::new(USERS);
        register_all(&mut server, &mut agents, 0);
        let mut calls = Calls::new(agents, CALLS_PER_MS, SEED);
        for _ in 0..LINGER_MS + 1000 {
            calls.turn(&mut server, |server, batch| server.measured_turn(batch));
        }
        Steady { server, calls, round: 1 }
    }

    fn round(&mut self, table: &mut Table) {
        self.mixed(table);
        self.by_kind(table);
        self.registrations(table);
    }

    /// Calls at all stages, their messages mixed as they arrive at a server. One second of them.
    fn mixed(&mut self, table: &mut Table) {
        let before = self.calls.agents.seen;
        let mut elapsed_ns = 0.0;
        self.calls.is_mixed = true;
        for _ in 0..1000 {
            self.calls.turn(&mut self.server, |server, batch| {
                let start = CpuTime::now();
                server.measured_turn(batch);
                elapsed_ns += start.elapsed_ns();
            });
        }
        let seen = self.calls.agents.seen;
        let calls = seen.ended - before.ended;
        assert_eq!(seen.wrong, 0, "{seen:?}");
        assert_eq!(calls, u64::from(CALLS_PER_MS) * 1000, "{seen:?}");
        table.add("one call, 6 in 7 out".into(), elapsed_ns / calls as f64);
    }

    /// The same with the messages of one kind behind one another, so that each kind has its own time.
    fn by_kind(&mut self, table: &mut Table) {
        let mut elapsed_ns = [0.0; Kind::OF_A_CALL.len()];
        let mut counts = [0u32; Kind::OF_A_CALL.len()];
        let mut timers_ns = 0.0;
        let mut turns = 0;
        self.calls.is_mixed = false;
        for _ in 0..1000 {
            self.calls.turn(&mut self.server, |server, batch| {
                for (number, kind) in Kind::OF_A_CALL.into_iter().enumerate() {
                    let start = CpuTime::now();
                    for (flow, bytes) in batch.of(kind) {
                        let (now, outbox) = (server.now, &mut server.outbox);
                        server.endpoint.handle(now, flow, bytes, outbox);
                        counts[number] += 1;
                    }
                    elapsed_ns[number] += start.elapsed_ns();
                }
                let start = CpuTime::now();
                server.endpoint.handle_timers(server.now, &mut server.outbox);
                timers_ns += start.elapsed_ns();
                turns += CALLS_PER_MS;
            });
        }
        assert_eq!(self.calls.agents.seen.wrong, 0);
        for (number, kind) in Kind::OF_A_CALL.into_iter().enumerate() {
            let each = elapsed_ns[number] / f64::from(counts[number]);
            table.add(format!("  {}", kind.name()), each);
        }
        let each = timers_ns / f64::from(turns);
        table.add("  timers, for each call".into(), each);
    }

    /// Every user refreshes once, 84 in a turn.
    fn registrations(&mut self, table: &mut Table) {
        let (mut batch, mut none) = (Batch::default(), Batch::default());
        let mut elapsed_ns = 0.0;
        let agents = &mut self.calls.agents;
        let before = agents.seen.registered;
        let users: Vec<u32> = (0..USERS).collect();
        for some in users.chunks(84) {
            batch.clear();
            for user in some {
                agents.register(*user, self.round, &mut batch);
            }
            self.server.sleep_ms(1);
            let start = CpuTime::now();
            self.server.measured_turn(&batch);
            elapsed_ns += start.elapsed_ns();
            agents.react(&self.server.outbox, &mut none);
            self.server.outbox.clear();
        }
        self.round += 1;
        let seen = agents.seen;
        assert_eq!(seen.registered - before, u64::from(USERS));
        assert_eq!(seen.wrong, 0);
        table.add("one REGISTER refresh".into(), elapsed_ns / f64::from(USERS));
    }
}

// ---- the table ---------------------------------------------------------------------------------------------------------

/// In order of first appearance; nanoseconds, one for each round.
#[derive(Default)]
struct Table(Vec<(String, Vec<f64>)>);

impl Table {
    fn add(&mut self, name: String, ns: f64) {
        match self.0.iter_mut().find(|row| row.0 == name) {
            Some(row) => row.1.push(ns),
            None => self.0.push((name, vec![ns])),
        }
    }

    fn time(&mut self, name: String, repetitions: u32, mut work: impl FnMut()) {
        (0..repetitions / 10).for_each(|_| work());
        self.add(name, ns_each(repetitions, || (0..repetitions).for_each(|_| work())));
    }

    fn print(&self, rounds: u32) {
        println!("{:44} {:>9}   {:>9} … {:>9}", "ns", "median", "least", "most");
        for (name, values) in &self.0 {
            let [least, median, most] = spread(values);
            println!("{name:44} {median:9.1}   {least:9.1} … {most:9.1}");
        }
        println!("{rounds} rounds, alternating; {USERS} users, {} calls/s, {} s linger", CALLS_PER_MS * 1000, LINGER_MS / 1000);
    }
}
