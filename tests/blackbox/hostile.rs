//! Bad input through the real socket: the messages of RFC 4475 and RFC 5118 with their verdicts, every size of datagram, and a bombardment. The server
//! answers or keeps silent, goes on serving, and its memory stays where it was.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::agent::{Agent, response};
use crate::failures::assert_call_works;
use crate::message::{Message, find};
use crate::place::{CALLEE, CALLER, Place, STRANGER, wait_for};
use crate::server::{Conf, Server};

/// What becomes of a message at an element like ours.
enum Verdict {
    /// It is relayed: what is not ours to edit arrives bit for bit, and the answer comes back.
    Relayed,
    /// The server itself answers, with one of these.
    Answered(&'static [u16]),
    /// Nobody hears of it.
    Dropped,
    /// The RFC leaves the choice: relayed, or answered with one of these.
    Either(&'static [u16]),
}

use Verdict::{Answered, Dropped, Either, Relayed};

/// RFC 4475, in its order. The REGISTER requests are for our own domain, so the registrar's verdict is asked for.
const RFC_4475: &[(&str, Verdict)] = &[
    ("wsinv.dat", Relayed),
    ("intmeth.dat", Relayed),
    ("esc01.dat", Relayed),
    ("escnull.dat", Answered(&[200])),
    ("esc02.dat", Relayed),
    ("lwsdisp.dat", Relayed),
    ("longreq.dat", Relayed),
    ("dblreq.dat", Answered(&[200])),
    ("semiuri.dat", Relayed),
    ("transports.dat", Relayed),
    ("mpart01.dat", Relayed),
    ("unreason.dat", Dropped),
    ("noreason.dat", Dropped),
    ("badinv01.dat", Answered(&[400])),
    ("clerr.dat", Answered(&[400])),
    ("ncl.dat", Answered(&[400])),
    ("scalar02.dat", Answered(&[400])),
    ("scalarlg.dat", Dropped),
    ("quotbal.dat", Answered(&[400])),
    ("ltgtruri.dat", Answered(&[400])),
    ("lwsruri.dat", Answered(&[400])),
    ("lwsstart.dat", Either(&[400])),
    ("trws.dat", Either(&[400])),
    ("escruri.dat", Either(&[400])),
    ("baddate.dat", Relayed),
    ("regbadct.dat", Answered(&[400])),
    ("badaspec.dat", Either(&[400])),
    ("baddn.dat", Either(&[400])),
    ("badvers.dat", Answered(&[505])),
    ("mismatch01.dat", Answered(&[400])),
    ("mismatch02.dat", Answered(&[400, 501])),
    ("bigcode.dat", Dropped),
    ("badbranch.dat", Either(&[400])),
    ("insuf.dat", Answered(&[400])),
    ("unkscm.dat", Answered(&[416])),
    ("novelsc.dat", Answered(&[416])),
    ("unksm2.dat", Answered(&[400, 404])),
    ("bext01.dat", Answered(&[420])),
    ("invut.dat", Relayed),
    ("regaut01.dat", Answered(&[200])),
    ("multi01.dat", Answered(&[400])),
    ("mcl01.dat", Answered(&[400])),
    ("bcast.dat", Dropped),
    ("zeromf.dat", Answered(&[483])),
    ("cparam01.dat", Answered(&[200])),
    ("cparam02.dat", Answered(&[200])),
    ("regescrt.dat", Answered(&[200, 400])),
    ("sdp01.dat", Relayed),
    ("inv2543.dat", Relayed),
    // In the RFC's archive, but in none of its sections: a start line without a version, no Via.
    ("test.dat", Dropped),
];

/// RFC 5118, section 4.
const RFC_5118: &[(&str, Verdict)] = &[
    ("ipv6-good", Relayed),
    ("ipv6-bad", Answered(&[400])),
    ("port-ambiguous", Relayed),
    ("port-unambiguous", Relayed),
    ("via-received-param-with-delim", Relayed),
    ("via-received-param-no-delim", Relayed),
    ("ipv6-in-sdp", Relayed),
    ("mult-ip-in-header", Relayed),
    ("mult-ip-in-sdp", Relayed),
    ("ipv4-mapped-ipv6", Relayed),
    ("ipv6-bug-abnf-3-colons", Either(&[400])),
    ("ipv6-correct-abnf-2-colons", Relayed),
];

fn cases(rfc: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(rfc)
}

fn bytes(rfc: &str, name: &str) -> Vec<u8> {
    let path = cases(rfc).join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn rfc_4475() {
    every_case("rfc4475", RFC_4475);
}

#[test]
fn rfc_5118() {
    every_case("rfc5118", RFC_5118);
}

/// A new server for each message: several of them share branch, Call-ID and CSeq, and would be taken for retransmissions of each other.
fn every_case(rfc: &str, table: &[(&str, Verdict)]) {
    let mut there: Vec<String> = fs::read_dir(cases(rfc))
        .expect("the messages")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let mut here: Vec<String> = table.iter().map(|(name, _)| (*name).to_owned()).collect();
    there.sort();
    here.sort();
    assert_eq!(there, here, "every message has its verdict");
    let place = Place::new(rfc);
    let mut wrong = Vec::new();
    for (name, verdict) in table {
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| judge(&place, &bytes(rfc, name), verdict)));
        if let Err(panic) = judged {
            let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            wrong.push(format!("{name}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} messages:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

/// Sends one message and looks at both sides of the server.
fn judge(place: &Place, message: &[u8], verdict: &Verdict) {
    let mut server = torture_server(place);
    let callee = Agent::new(place.at(CALLEE), server.address);
    // Without `rport` an answer goes to the port that the topmost Via names (18.2.2): these do.
    let callers = [5060, 5050, 6050, 19823].map(|port| Agent::new(place.at_port(CALLER, port), server.address));
    callers[0].send_bytes(message);
    // A liveness probe behind it: what has not come when its answer is here, does not come.
    let alive = Agent::new(place.at_port(STRANGER, 5099), server.address);
    alive.ask(&alive.request("OPTIONS", &format!("sip:{}", server.address)));
    let arrived = callee.receive(Duration::from_millis(100));
    if let Some(arrived) = &arrived {
        callee.send_bytes(&response(arrived, 299, "callee", &["Contact: <sip:callee@192.0.2.1>"], b""));
    }
    let answer = if let Dropped = verdict {
        std::thread::sleep(Duration::from_millis(50));
        callers.iter().find_map(|caller| caller.receive(Duration::ZERO))
    } else {
        next_final(&callers)
    };
    let status = answer.as_ref().and_then(Message::status);
    match (verdict, &arrived, status) {
        (Relayed | Either(_), Some(arrived), Some(299)) => assert_untouched(message, arrived),
        (Answered(allowed) | Either(allowed), None, Some(status)) if allowed.contains(&status) => {
            let answer = answer.expect("an answer");
            if status == 400 {
                let reason = answer.start.splitn(3, ' ').nth(2).unwrap_or_default();
                assert!(!reason.is_empty() && reason != "Bad Request", "the reason phrase names the fault: {}", answer.start);
            }
            if status == 420 {
                assert!(
                    answer.lists("unsupported", "noProxiesSupportThis")
                        && answer.lists("unsupported", "norDoAnyProxiesSupportThis"),
                    "{answer:?}"
                );
            }
        }
        (Dropped, None, None) => {}
        _ => panic!(
            "wrong verdict: relayed {:?}, answered {:?}",
            arrived.map(|message| message.start),
            answer.map(|message| message.start)
        ),
    }
    server.assert_alive(place, 9);
}

/// The first final response that any of the caller's ports hears.
fn next_final(callers: &[Agent]) -> Option<Message> {
    wait_for(Duration::from_secs(3), || {
        callers.iter().find_map(|caller| caller.receive(Duration::ZERO).filter(|message| message.status() >= Some(200)))
    })
}

/// A server for `example.com` that relays what the caller sends, but for its registrations, to the callee.
fn torture_server(place: &Place) -> Server {
    let caller = format!("from_source = [\"{}\"]", place.ip(CALLER));
    let callee = place.at(CALLEE);
    Conf::new(place)
        .set("server", "domains", r#"["example.com", "services.example.com"]"#)
        .route(&format!("{caller}\nmethods = [\"REGISTER\"]\nto_host = \"example.com\"\naction = \"location\""))
        .route(&format!("{caller}\naction = \"relay\"\ntarget = [\"sip:{callee}\"]"))
        .start(place)
}

/// Every header line of the original that a proxy has no business with is there as it was, folding and all; so is the body.
fn assert_untouched(original: &[u8], relayed: &Message) {
    let end = find(original, b"\r\n\r\n").expect("an empty line");
    let head = &original[..end];
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            let last = lines.last_mut().expect("a line to fold");
            last.push(b'\n');
            last.extend(line);
        } else {
            lines.push(line.to_vec());
        }
    }
    for line in lines {
        let name = String::from_utf8_lossy(line.split(|byte| *byte == b':').next().unwrap_or_default()).trim().to_ascii_lowercase();
        if !["via", "v", "max-forwards", "route", "content-length", "l"].contains(&name.as_str()) {
            assert!(
                find(&relayed.raw, line.strip_suffix(b"\r").unwrap_or(&line)).is_some(),
                "{:?} has changed",
                String::from_utf8_lossy(&line)
            );
        }
    }
    assert_eq!(relayed.vias().len(), Message::read(original).map_or(0, |message| message.vias().len()) + 1);
    let body = &original[end + 4..];
    assert!(body.starts_with(&relayed.body), "the body has changed");
    let length: usize = relayed.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(body.len());
    assert_eq!(relayed.body.len(), length.min(body.len()), "octets beyond Content-Length go no further");
}

/// One server gets all of them, again and again, with whatever state they leave, and still serves.
#[test]
fn all_of_them_on_one_server() {
    let place = Place::new("torture");
    let mut server = torture_server(&place);
    let caller = Agent::new(place.at(CALLER), server.address);
    for _ in 0..5 {
        for (rfc, table) in [("rfc4475", RFC_4475), ("rfc5118", RFC_5118)] {
            for (name, _) in table {
                caller.send_bytes(&bytes(rfc, name));
            }
            server.assert_alive(&place, STRANGER);
        }
    }
}

/// What bombardments have found: each of these has stopped the server once.
const FOUND: &[&[u8]] = &[
    // The value of rport is a lone CR, and the line ends behind a comma.
    b"OPTIONS sip:example.com SIP/2.0\r\nTo: <sip:a@b>\r\nFrom: <sip:a@b>;tag=1\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa;rport=\r,\n\
      Call-ID: x\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
];

#[test]
fn what_was_found_before() {
    let place = Place::new("found");
    let mut server = torture_server(&place);
    for message in FOUND {
        let stranger = Agent::new(place.at(STRANGER), server.address);
        stranger.send_bytes(message);
        server.assert_alive(&place, 9);
    }
}

/// Datagrams of every kind of size: nonsense, and messages that are long in each place where one can be long.
#[test]
fn every_size() {
    let place = Place::new("sizes");
    let mut server = Conf::new(&place).start(&place);
    let stranger = Agent::new(place.at(STRANGER), server.address);
    let mut dice = Dice(7);
    let mut sizes: Vec<usize> = (1..=80).collect();
    for size in [128, 256, 512, 1024, 1400, 1472, 1500, 2048, 4096, 8192, 16_384, 32_768, 49_152, 65_000] {
        sizes.extend([size - 1, size, size + 1]);
    }
    sizes.extend([65_500, 65_505, 65_506, 65_507]);
    let address = server.address;
    let line = |name: &str, value: &str| {
        format!(
            "OPTIONS sip:{address} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKs{}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: s\r\nCSeq: 1 OPTIONS\r\n{name}: {value}",
            crate::agent::unique()
        )
    };
    for (n, size) in sizes.iter().copied().enumerate() {
        let mut datagrams: Vec<Vec<u8>> =
            vec![vec![0; size], vec![b'A'; size], b"\r\n".repeat(size / 2 + 1), (0..size).map(|_| dice.next() as u8).collect()];
        for (name, unit) in [
            ("Via", "SIP/2.0/UDP h;branch=z9hG4bKx,"),
            ("Route", "<sip:a@b;lr>,"),
            ("Contact", "<sip:a@b>,"),
            ("X", "\r\n "),
            ("Require", "x,"),
            ("To", "\"\\\""),
        ] {
            let mut text = line(name, "").into_bytes();
            while text.len() < size {
                text.extend(unit.bytes());
            }
            datagrams.push(text);
        }
        let mut many = line("X", "1").into_bytes();
        while many.len() < size {
            many.extend(b"\r\nV:h");
        }
        many.extend(b"\r\n\r\n");
        datagrams.push(many);
        for mut datagram in datagrams {
            datagram.truncate(size);
            stranger.send_bytes(&datagram);
        }
        if n % 8 == 0 {
            server.assert_alive(&place, CALLER);
        }
    }
    assert!(server.stat(&place, "strowger_dropped_total") > 100.0, "what nobody can answer is dropped and counted");
    server.assert_alive(&place, CALLER);
    assert_call_works(&place, &server, "bob", 5080);
}

#[test]
fn bombardment() {
    bombard("bombardment", 200_000);
}

/// Ten million messages: a matter of minutes.
#[test]
#[ignore = "takes minutes"]
fn bombardment_of_ten_million() {
    bombard("bombardment10m", 10_000_000);
}

/// Sends `count` random and mutated messages, a quarter of them again before to warm up, and compares the memory.
fn bombard(name: &str, count: usize) {
    const ROOM_KIB: u64 = 4096;
    let place = Place::new(name);
    let mut conf = Conf::new(&place).set("server", "domains", r#"["example.com"]"#);
    for (key, value) in [("t1", "20ms"), ("t2", "80ms"), ("t4", "100ms"), ("c", "1s"), ("linger", "1s")] {
        conf = conf.set("timers", key, &format!("\"{value}\""));
    }
    for key in ["min_expires", "default_expires", "max_expires"] {
        conf = conf.set("registrar", key, r#""1s""#);
    }
    // Tables made for millions would be touched page by page for the first time until long after any warm-up.
    let mut server = conf.set("limits", "transactions", "20000").start(&place);
    let seed = std::env::var("BOMBARDMENT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1961);
    let mut gun = Gun::new(&place, &server, seed);
    gun.fire(&place, count / 4);
    calm_down(&place, &server);
    let before = server.resident_kib();
    let began = Instant::now();
    gun.fire(&place, count);
    let took = began.elapsed();
    calm_down(&place, &server);
    let after = server.resident_kib();
    println!("{count} messages in {took:.1?}; resident memory {before} KiB before and {after} KiB after (seed {seed})");
    assert!(after <= before + ROOM_KIB, "memory stays: {before} KiB before, {after} KiB after");
    let received = server
        .stats(&place)
        .into_iter()
        .filter(|(name, _)| name.starts_with("strowger_messages_total") && name.contains("direction=\"in\""))
        .map(|(_, value)| value)
        .sum::<f64>()
        + server.stat(&place, "strowger_dropped_total");
    assert!(received > count as f64 * 0.9, "only {received} messages were read");
    server.assert_alive(&place, CALLER);
    assert_call_works(&place, &server, "dave", 5080);
}

/// Waits until nothing is under way any more. (Expired bindings leave the table with the sweep, which takes its time; they are few.)
fn calm_down(place: &Place, server: &Server) {
    let quiet = wait_for(Duration::from_secs(30), || (server.stat(place, "strowger_transactions") == 0.0).then_some(()));
    assert!(quiet.is_some(), "transactions stay: {:#?}", server.stats(place));
}

/// What shoots: sockets of a stranger, seeds, and dice.
struct Gun {
    sockets: Vec<UdpSocket>,
    target: SocketAddr,
    probe: Agent,
    seeds: Vec<Vec<u8>>,
    dice: Dice,
}

impl Gun {
    fn new(place: &Place, server: &Server, seed: u64) -> Gun {
        let sockets: Vec<UdpSocket> = (0..4).map(|_| UdpSocket::bind(place.at_port(STRANGER, 0)).expect("a socket")).collect();
        for socket in &sockets {
            socket.set_nonblocking(true).expect("a socket that does not wait");
        }
        let mut seeds: Vec<Vec<u8>> = Vec::new();
        for (rfc, table) in [("rfc4475", RFC_4475), ("rfc5118", RFC_5118)] {
            seeds.extend(table.iter().map(|(name, _)| bytes(rfc, name)));
        }
        let agent = Agent::new(place.at_port(STRANGER, 0), server.address);
        // A phone that exists but never answers: what is mutated little enough is relayed to it.
        let contact = format!("<sip:mute@{}>", place.at(CALLEE));
        for method in ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "MESSAGE", "SUBSCRIBE", "REGISTER", "STRANGE"] {
            for uri in [
                "sip:example.com",
                "sip:mute@example.com",
                "sip:nobody@example.com",
                "sip:someone@192.0.2.1",
                "sips:a@example.com",
                "tel:+49301234567",
            ] {
                let mut request = agent.request(method, uri);
                if method == "REGISTER" {
                    request.to = "<sip:mute@example.com>".to_owned();
                    request.contact = Some(contact.clone());
                }
                seeds.push(request.bytes());
                request.extra =
                    vec![format!("Route: <sip:{};lr>", server.address), "Proxy-Require: x".to_owned(), "Max-Breadth: 2".to_owned()];
                request.body = b"v=0\r\n".repeat(20);
                seeds.push(request.bytes());
            }
        }
        // Responses whose topmost Via claims to be ours, with branches that are not.
        for status in [100, 180, 200, 302, 404, 487, 503, 603] {
            for branch in ["z9hG4bK", "z9hG4bK0000000000000000000000000000", "z9hG4bKffffffffffffffffffffffffffffffffffffffffffff"]
            {
                let text = format!(
                    "SIP/2.0 {status} x\r\nVia: SIP/2.0/UDP {};branch={branch}\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n",
                    server.address
                );
                seeds.push(text.into_bytes());
            }
        }
        let probe = Agent::new(place.at_port(STRANGER, 0), server.address);
        Gun { sockets, target: server.address, probe, seeds, dice: Dice(seed) }
    }

    /// Fires in salvos and waits for the answer to a probe after each, so that the server has to read what is sent, and its death is noticed at once:
    /// the salvo that did it is left in the test's folder.
    fn fire(&mut self, place: &Place, count: usize) {
        let mut left = count;
        while left > 0 {
            let (mut salvo, mut bytes) = (Vec::new(), 0);
            while left > 0 && salvo.len() < 32 && bytes < 100_000 {
                let shot = self.shot();
                let socket = &self.sockets[self.dice.below(self.sockets.len())];
                let _ = socket.send_to(&shot, self.target);
                left -= 1;
                bytes += shot.len() + 1024;
                salvo.push(shot);
            }
            let mut drain = [0; 2048];
            for socket in &self.sockets {
                while socket.recv_from(&mut drain).is_ok() {}
            }
            if !self.answered() {
                for (n, shot) in salvo.iter().enumerate() {
                    let _ = fs::write(place.path(&format!("shot-{n}")), shot);
                }
                panic!(
                    "the server has stopped answering, {left} messages before the end; the last {} are shot-* in the test's folder",
                    salvo.len()
                );
            }
        }
    }

    /// Does the server answer an OPTIONS? A probe that the kernel lost is sent again.
    fn answered(&self) -> bool {
        let options = self.probe.request("OPTIONS", &format!("sip:{}", self.target));
        let answered = (0..4).any(|_| {
            self.probe.send(&options);
            let end = Instant::now() + Duration::from_secs(2);
            while let Some(answer) = self.probe.receive(end.saturating_duration_since(Instant::now())) {
                if answer.answers("OPTIONS", 200) && answer.call_id() == options.call_id {
                    return true;
                }
            }
            false
        });
        self.probe.forget();
        answered
    }

    fn shot(&mut self) -> Vec<u8> {
        let dice = &mut self.dice;
        if dice.below(20) == 0 {
            let most = if dice.below(50) == 0 { 65_507 } else { 600 };
            let size = 1 + dice.below(most);
            return (0..size).map(|_| dice.next() as u8).collect();
        }
        let mut message = self.seeds[dice.below(self.seeds.len())].clone();
        if dice.below(4) == 0 {
            // A transaction of its own, so that little-mutated requests are not all retransmissions.
            fresh_branch(&mut message, dice);
        }
        for _ in 0..dice.below(6) {
            self.mutate(&mut message);
        }
        message.truncate(65_507);
        message
    }

    fn mutate(&mut self, message: &mut Vec<u8>) {
        const WORDS: &[&[u8]] = &[
            b"\r\n",
            b"\r\n\r\n",
            b"\r\n ",
            b"\0",
            b"%00",
            b"%",
            b"\"",
            b"<",
            b">",
            b",",
            b";",
            b":",
            b"@",
            b"[::]",
            b"[",
            b"-1",
            b"4294967296",
            b"99999999999999999999",
            b"\xff\xfe",
            b";branch=z9hG4bK",
            b";received=",
            b";rport=",
            b";lr",
            b";maddr=224.0.0.1",
            b"SIP/2.0",
            b"Via: ",
            b"Route: ",
            b"Content-Length: 1\r\n",
            b"Max-Forwards: 0\r\n",
            b"REGISTER",
            b"INVITE",
            b"Contact: *\r\n",
            b"Expires: 0\r\n",
        ];
        let dice = &mut self.dice;
        if message.is_empty() {
            message.push(0);
        }
        let at = dice.below(message.len());
        let length = 1 + dice.below(message.len().min(64));
        let end = (at + length).min(message.len());
        match dice.below(8) {
            0 => message[at] ^= 1 << dice.below(8),
            1 => message[at] = dice.next() as u8,
            2 => drop(message.drain(at..end)),
            3 => {
                let piece = message[at..end].to_vec();
                message.splice(at..at, piece);
            }
            4 | 5 => {
                let word = WORDS[dice.below(WORDS.len())];
                message.splice(at..at, word.iter().copied());
            }
            6 => {
                let other = &self.seeds[dice.below(self.seeds.len())];
                let from = dice.below(other.len());
                message.truncate(at);
                message.extend(&other[from..]);
            }
            _ => message.truncate(at),
        }
    }
}

fn fresh_branch(message: &mut Vec<u8>, dice: &mut Dice) {
    if let Some(at) = find(message, b"branch=z9hG4bK") {
        let fresh = format!("{:x}", dice.next());
        message.splice(at + 14..at + 14, fresh.bytes());
    }
}

/// xorshift64*: good enough to shoot with, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
