//! The generator against a server of this file that challenges it, and computes each digest with another library's hashes: what is answered,
//! with what, and how it is counted.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openssl::hash::{MessageDigest, hash};

use crate::programs::{Run, generator, load};
use crate::server::{Server, across, header, reply};

/// What the server wants.
#[derive(Clone, Copy)]
struct Wishes {
    algorithm: &'static str,
    offers_qop: bool,
    gets_qop: bool,
    /// A nonce is stale after so many uses.
    uses: u32,
}

const WISHES: Wishes = Wishes { algorithm: "MD5", offers_qop: true, gets_qop: true, uses: u32::MAX };

/// What it saw.
#[derive(Default)]
struct Seen {
    challenges: u64,
    stale: u64,
    accepted: u64,
    refused: u64,
    /// ACKs for a 407.
    acknowledged: u64,
    faults: Vec<String>,
    nonces: HashMap<String, Nonce>,
}

struct Nonce {
    uses: u32,
    /// The request that was challenged with it.
    asked: String,
}

/// A parameter of credentials, without its quotes.
fn parameter<'a>(credentials: &'a str, name: &str) -> Option<&'a str> {
    let parts = credentials.strip_prefix("Digest ")?.split(',');
    let found = parts.map(str::trim).find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
    Some(found.trim_matches('"'))
}

fn branch(message: &str) -> &str {
    let via = header(message, "Via").expect("a Via");
    let start = via.find("branch=").expect("a branch") + 7;
    via[start..].split(';').next().expect("something")
}

fn cseq(message: &str) -> u32 {
    let value = header(message, "CSeq").expect("a CSeq");
    let number = value.split(' ').next().expect("something");
    number.parse().expect("a number")
}

fn hex(digest: MessageDigest, text: &str) -> String {
    let bytes = hash(digest, text.as_bytes()).expect("a hash");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Seen {
    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// The response to a request that has to prove its user; `None` where it is let pass.
    fn look(&mut self, request: &str, proxy: bool, wishes: &Wishes) -> Option<String> {
        let answer_in = match proxy {
            true => "Proxy-Authorization",
            false => "Authorization",
        };
        let Some(credentials) = header(request, answer_in) else {
            return Some(self.challenge(request, proxy, false, wishes));
        };
        let nonce = parameter(credentials, "nonce").expect("a nonce").to_owned();
        let Some(known) = self.nonces.get_mut(&nonce) else {
            self.fault(format!("nobody gave the nonce {nonce}"));
            return None;
        };
        if known.uses >= wishes.uses {
            return Some(self.challenge(request, proxy, true, wishes));
        }
        known.uses += 1;
        let uses = known.uses;
        if uses == 1 {
            let asked = known.asked.clone();
            for name in ["From", "Call-ID"] {
                if header(&asked, name) != header(request, name) {
                    self.fault(format!("another {name}:\n{asked}\n{request}"));
                }
            }
            if cseq(request) != cseq(&asked) + 1 || branch(request) == branch(&asked) {
                self.fault(format!("not a new transaction:\n{asked}\n{request}"));
            }
        }
        match self.is_right(request, credentials, uses, wishes) {
            true => {
                self.accepted += 1;
                None
            }
            false => {
                self.refused += 1;
                Some(self.challenge(request, proxy, false, wishes))
            }
        }
    }

    fn is_right(&mut self, request: &str, credentials: &str, uses: u32, wishes: &Wishes) -> bool {
        let digest = match wishes.algorithm {
            "MD5" => MessageDigest::md5(),
            _ => MessageDigest::sha256(),
        };
        let hex = |text: String| hex(digest, &text);
        let get = |name| parameter(credentials, name);
        let user = get("username").expect("a username");
        let (nonce, uri) = (get("nonce").expect("a nonce"), get("uri").expect("a uri"));
        let mut line = request.split(' ');
        let (method, target) = (line.next().expect("it"), line.next().expect("it"));
        if uri != target || get("realm") != Some("tests") || get("opaque") != Some("o:p") {
            self.fault(format!("not what was asked for: {credentials}"));
        }
        if get("algorithm") != Some(wishes.algorithm) {
            self.fault(format!("another algorithm: {credentials}"));
        }
        let ha1 = hex(format!("{user}:tests:secret{user}"));
        let ha2 = hex(format!("{method}:{uri}"));
        let expected = match wishes.gets_qop {
            false => {
                if get("qop").is_some() || get("nc").is_some() || get("cnonce").is_some() {
                    self.fault(format!("a qop: {credentials}"));
                }
                hex(format!("{ha1}:{nonce}:{ha2}"))
            }
            true => {
                let (nc, cnonce) = (get("nc").expect("a count"), get("cnonce").expect("a cnonce"));
                if nc != format!("{uses:08x}") || get("qop") != Some("auth") {
                    self.fault(format!("use {uses} of the nonce: {credentials}"));
                }
                hex(format!("{ha1}:{nonce}:{nc}:{cnonce}:auth:{ha2}"))
            }
        };
        get("response") == Some(&expected)
    }

    fn challenge(&mut self, request: &str, proxy: bool, stale: bool, wishes: &Wishes) -> String {
        self.challenges += 1;
        self.stale += u64::from(stale);
        let nonce = format!("nonce-{}==", self.challenges);
        let asked = Nonce { uses: 0, asked: request.to_owned() };
        self.nonces.insert(nonce.clone(), asked);
        let (status, asks_in) = match proxy {
            true => ("407 Proxy Authentication Required", "Proxy-Authenticate"),
            false => ("401 Unauthorized", "WWW-Authenticate"),
        };
        let qop = match wishes.offers_qop {
            true => ", qop=\"auth,auth-int\"",
            false => "",
        };
        let stale = match stale {
            true => ", stale=true",
            false => "",
        };
        let algorithm = wishes.algorithm;
        let line =
            format!("{asks_in}: Digest realm=\"tests\", nonce=\"{nonce}\", opaque=\"o:p\", algorithm={algorithm}{qop}{stale}\r\n");
        reply(request, status, &line)
    }

    fn register(&mut self, request: &str, wishes: &Wishes) -> String {
        self.look(request, false, wishes).unwrap_or_else(|| {
            let contact = header(request, "Contact").expect("a Contact");
            reply(request, "200 OK", &format!("Contact: {contact}\r\n"))
        })
    }
}

/// A server, and what it sees.
struct Watched {
    server: Server,
    seen: Arc<Mutex<Seen>>,
}

impl Watched {
    fn start(start: impl FnOnce(Arc<Mutex<Seen>>) -> Server) -> Watched {
        let seen = Arc::default();
        Watched { server: start(Arc::clone(&seen)), seen }
    }

    /// Ends it, and gives what it saw.
    fn seen(self) -> Seen {
        self.server.end();
        std::mem::take(&mut *self.seen.lock().expect("whole"))
    }
}

/// A registrar over UDP.
fn registrar(host: &str, wishes: Wishes) -> Watched {
    Watched::start(|seen| {
        Server::udp(host, move |request, from| vec![(from, seen.lock().expect("whole").register(request, &wishes))])
    })
}

/// The same over TCP, for one connection after the other.
fn tcp_registrar(host: &str, wishes: Wishes) -> Watched {
    let listener = TcpListener::bind(format!("{host}:25060")).expect("a free port");
    listener.set_nonblocking(true).expect("a listener");
    let serve = move |seen: Arc<Mutex<Seen>>| {
        Server::start(move |over| {
            while !over.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                stream.set_nonblocking(false).expect("a stream");
                let (mut kept, mut buffer) = (Vec::new(), [0; 65536]);
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    kept.extend_from_slice(&buffer[..count]);
                    // No request here has a body.
                    while let Some(end) = kept.windows(4).position(|four| four == b"\r\n\r\n") {
                        let rest = kept.split_off(end + 4);
                        let request = String::from_utf8(kept).expect("text");
                        kept = rest;
                        let response = seen.lock().expect("whole").register(&request, &wishes);
                        stream.write_all(response.as_bytes()).expect("sent");
                    }
                }
            }
        })
    };
    Watched::start(serve)
}

/// A relay between callers and answerers that challenges each INVITE.
fn proxy(host: &'static str, wishes: Wishes) -> Watched {
    let mut challenged: HashMap<String, String> = HashMap::new();
    let relay = move |seen: Arc<Mutex<Seen>>| {
        Server::udp(host, move |message, from| {
            let mut seen = seen.lock().expect("whole");
            if message.starts_with("INVITE ")
                && let Some(challenge) = seen.look(message, true, &wishes)
            {
                challenged.insert(branch(message).to_owned(), message.to_owned());
                return vec![(from, challenge)];
            }
            if message.starts_with("ACK ") {
                if let Some(asked) = challenged.get(branch(message)) {
                    seen.acknowledged += 1;
                    let target = |message: &str| message.split(' ').nth(1).map(str::to_owned);
                    if cseq(message) != cseq(asked) || target(message) != target(asked) {
                        seen.fault(format!("no ACK for this INVITE:\n{asked}\n{message}"));
                    }
                    return Vec::new();
                }
                if header(message, "Proxy-Authorization").is_none() {
                    seen.fault(format!("an ACK without its credentials:\n{message}"));
                }
            }
            vec![(across(host, from), message.to_owned())]
        })
    };
    Watched::start(relay)
}

/// A clean run, of which the generator and the server say the same.
fn agree(host: &str, server: Watched, number: u64, line: &str) -> (Run, Seen) {
    let run = load(host, &format!("{line} --password-prefix secret --count {number}"));
    let seen = server.seen();
    assert_eq!(seen.faults, Vec::<String>::new());
    let run = run.clean(number);
    assert_eq!(run.count("challenges_received"), seen.challenges);
    assert_eq!(run.count("challenges_stale"), seen.stale);
    assert_eq!((seen.accepted, seen.refused), (number, 0));
    (run, seen)
}

#[test]
fn each_request_is_challenged_and_answered() {
    for (last, algorithm, qop) in [(1, "MD5", true), (2, "SHA-256", true), (3, "MD5", false), (4, "SHA-256", false)] {
        let host = format!("127.1.2.{last}");
        let server = registrar(&host, Wishes { algorithm, offers_qop: qop, gets_qop: qop, uses: 1 });
        let line = format!("register --auth new --algorithm {} --window 8 --users 50", algorithm.to_lowercase());
        let (run, seen) = agree(&host, server, 300, &line);
        assert_eq!(seen.challenges, 300);
        assert_eq!(run.count("messages_sent"), 600);
    }
}

#[test]
fn a_client_may_do_without_the_qop_that_is_offered() {
    let host = "127.1.2.5";
    let server = registrar(host, Wishes { gets_qop: false, ..WISHES });
    let (_, seen) = agree(host, server, 200, "register --auth kept --qop none --rate 400 --users 20");
    assert_eq!(seen.challenges, 20);
}

#[test]
fn a_kept_nonce_serves_until_it_is_stale() {
    let host = "127.1.2.6";
    let server = registrar(host, Wishes { uses: 4, ..WISHES });
    let (run, seen) = agree(host, server, 500, "register --auth kept --window 8 --users 50");
    // Each user sends 10: one is challenged at first, and one as stale after each four.
    assert_eq!((seen.challenges, seen.stale), (150, 100));
    assert_eq!(run.count("messages_sent"), 650);
}

#[test]
fn digest_goes_over_tcp_too() {
    let host = "127.1.2.7";
    let server = tcp_registrar(host, WISHES);
    let (_, seen) = agree(host, server, 200, "register --transport tcp --auth kept --window 8 --users 20");
    assert_eq!(seen.challenges, 20);
}

#[test]
fn a_wrong_password_is_refused_once_and_told() {
    let host = "127.1.2.8";
    let server = registrar(host, WISHES);
    let run = load(host, "register --auth kept --users 2 --password-prefix wrong --window 1 --count 4");
    let seen = server.seen();
    assert_eq!(run.code, Some(1), "{:#}", run.result());
    assert_eq!(run.result()["clean"], false);
    let counts = ["completed", "credentials_refused", "refused"].map(|name| run.count(name));
    assert_eq!(counts, [0, 4, 4]);
    // The first request of each is asked, then refused; the second is refused, and its new nonce once more.
    assert_eq!(run.count("messages_sent"), 8);
    assert_eq!(seen.accepted, 0);
}

#[test]
fn a_challenge_that_nobody_expects_is_an_error() {
    let host = "127.1.2.9";
    let server = registrar(host, WISHES);
    let run = load(host, "register --window 1 --count 2");
    server.seen();
    assert_eq!(run.code, Some(1));
    assert_eq!((run.count("refused"), run.count("challenges_received")), (2, 0));
    assert!(run.said.contains("401 Unauthorized"), "{}", run.said);
}

#[test]
fn calls_answer_the_proxy() {
    for (host, line, challenges) in [
        ("127.1.2.10", "--auth new --window 8", 300),
        ("127.1.2.11", "--auth new --rate 300", 300),
        ("127.1.2.12", "--auth kept --window 8 --users 50", 50),
    ] {
        let (run, seen) = agree(host, proxy(host, WISHES), 300, &format!("call --floor {line}"));
        assert_eq!((seen.challenges, seen.acknowledged), (challenges, challenges));
        assert_eq!(run.count("messages_sent"), 6 * 300 + 2 * challenges);
    }
}

#[test]
fn a_call_that_is_not_let_through_ends() {
    let host = "127.1.2.13";
    let server = proxy(host, WISHES);
    let run = load(host, "call --floor --window 4 --count 20");
    let seen = server.seen();
    assert_eq!(run.code, Some(1));
    assert_eq!((run.count("refused"), run.count("completed")), (20, 0));
    assert_eq!((seen.challenges, seen.acknowledged), (20, 20));
}

#[test]
fn users_are_listed_for_the_server() {
    let line = "users --users 3 --password-prefix secret --realm tests --algorithm md5,sha-256";
    let output = generator(line).output().expect("generator");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6);
    for (line, digest) in [(lines[4], MessageDigest::md5()), (lines[5], MessageDigest::sha256())] {
        assert_eq!(line, format!("u00002:tests:{}", hex(digest, "u00002:tests:secretu00002")));
    }
}
