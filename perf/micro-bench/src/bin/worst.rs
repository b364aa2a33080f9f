//! `worst`: what messages cost that are made to be dear, in nanoseconds of CPU for each byte, beside the usual ones. Prints one line for each
//! input: bytes, answer, microseconds, nanoseconds for each byte, and how many times the median's that is.

use std::sync::Arc;
use strowger::base::{Flow, Instant, Key, LiveConnections, Outbox, Transport};
use strowger::stack::settings::Listener;
use strowger::stack::{Element, Endpoint, Location, Settings};
use strowger_micro::measure::{CpuTime, median};

const ROUNDS: u32 = 200;

fn main() {
    let mut bench = Bench::new();
    let wide = |n: usize| {
        let many: String = (0..31).map(|p| format!(";p{p}=v")).collect();
        format!("<sip:u@192.0.2.1{many};last={n}>")
    };
    let long = |n: usize| {
        let many: String = (0..30).map(|p| format!(";{}{p}=v", "n".repeat(24))).collect();
        format!("<sip:u@192.0.2.1{many};last={n}>")
    };
    let list = |of: &dyn Fn(usize) -> String, range: std::ops::Range<usize>| range.map(of).collect::<Vec<_>>().join(",");
    let short = |n: usize| format!("<sip:{n}@h>");
    // Ten that live and thirty that are remembered, which nothing but the last parameter tells apart.
    for n in 0..40 {
        for (user, contact) in [("wide", wide(n)), ("long", long(n))] {
            bench.send(user, &contact, 600);
            if n < 30 {
                bench.send(user, &contact, 0);
            }
        }
    }
    let inputs = [
        ("REGISTER, usual", "usual", "<sip:u@192.0.2.1:5060>".to_owned(), 600),
        ("refresh beside 40 wide", "wide", wide(39), 600),
        ("one contact, 40 wide", "wide", "<sip:u@192.0.2.1;last=x>".to_owned(), 0),
        ("one contact, 40 long", "long", "<sip:u@192.0.2.1;last=x>".to_owned(), 0),
        ("10 wide, 40 wide", "wide", list(&wide, 100..110), 0),
        ("10 long, 40 long", "long", list(&long, 100..110), 0),
        ("10 short of one place, 40 long", "long", list(&|n| format!("<sip:u@192.0.2.1;last={n}>"), 100..110), 0),
        ("280 wide", "wide", list(&wide, 100..380), 0),
        ("5,000 short", "long", list(&short, 0..5000), 0),
        ("60 kB in one contact", "long", format!("<sip:u@h;x={}>", "y".repeat(60_000)), 0),
    ];
    let costs: Vec<_> =
        inputs.iter().map(|(name, user, contacts, expires)| (*name, bench.measure(user, contacts, *expires))).collect();
    let usual = costs[0].1.ns_per_byte();
    println!("{:<34} {:>7} {:>6} {:>9} {:>8} {:>7}", "input", "bytes", "answer", "µs", "ns/byte", "times");
    for (name, cost) in costs {
        println!(
            "{name:<34} {:>7} {:>6} {:>9.2} {:>8.2} {:>7.2}",
            cost.bytes,
            cost.status,
            cost.ns / 1000.0,
            cost.ns_per_byte(),
            cost.ns_per_byte() / usual
        );
    }
}

struct Cost {
    bytes: usize,
    status: u16,
    ns: f64,
}

impl Cost {
    fn ns_per_byte(&self) -> f64 {
        self.ns / self.bytes as f64
    }
}

struct Bench {
    endpoint: Endpoint,
    outbox: Outbox,
    flow: Flow,
    number: u32,
}

impl Bench {
    fn new() -> Bench {
        let settings = Settings {
            domains: vec![b"example.com".to_vec()],
            listeners: vec![Listener {
                transport: Transport::Udp,
                address: "10.0.0.1:5060".parse().expect("an address"),
                advertise: b"10.0.0.1:5060".to_vec(),
            }],
            ..Settings::default()
        };
        let secret = Key::new(7, 7);
        let location = Arc::new(Location::new(secret, 1_000_000));
        Bench {
            endpoint: Endpoint::new(Arc::new(settings), location, Arc::new(LiveConnections::new(1, 1)), 0, secret),
            outbox: Outbox::default(),
            flow: Flow::datagram(0, "10.0.1.2:5060".parse().expect("an address")),
            number: 0,
        }
    }

    fn register(&mut self, user: &str, contacts: &str, expires: u32) -> Vec<u8> {
        self.number += 1;
        let n = self.number;
        format!(
            "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.1.2:5060;branch=z9hG4bKworst{n};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@example.com>;tag=worst{n}\r\nTo: <sip:{user}@example.com>\r\n\
             Call-ID: worst-{user}@10.0.1.2\r\nCSeq: {n} REGISTER\r\nContact: {contacts}\r\nExpires: {expires}\r\n\
             User-Agent: a phone of some maker, version 1.2.3\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    fn send(&mut self, user: &str, contacts: &str, expires: u32) {
        let message = self.register(user, contacts, expires);
        self.handle(&message);
    }

    /// The status of the answer.
    fn handle(&mut self, message: &[u8]) -> u16 {
        let now = Instant::from_ms(1000);
        self.outbox.clear();
        self.endpoint.handle(now, self.flow, message, &mut self.outbox);
        let answer = self.outbox.transmits.first().map(|sent| self.outbox.get(sent.span));
        let status = answer.and_then(|answer| std::str::from_utf8(answer.get(8..11)?).ok());
        status.and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    fn measure(&mut self, user: &str, contacts: &str, expires: u32) -> Cost {
        let messages: Vec<_> = (0..ROUNDS).map(|_| self.register(user, contacts, expires)).collect();
        let mut ns: Vec<f64> = Vec::new();
        let mut status = 0;
        for message in &messages {
            let start = CpuTime::now();
            status = self.handle(message);
            ns.push(start.elapsed_ns());
        }
        Cost { bytes: messages[0].len(), status, ns: median(&ns) }
    }
}
