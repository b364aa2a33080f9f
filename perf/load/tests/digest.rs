//! The generator against a server of this file that challenges it, and computes each digest with another library's hashes: what is answered,
//! with what, and how it is counted.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use openssl::hash::{MessageDigest, hash};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_strowger-load");

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

fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = message.split("\r\n").skip(1);
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
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
        let hex = |text: String| -> String {
            let digest = match wishes.algorithm {
                "MD5" => MessageDigest::md5(),
                _ => MessageDigest::sha256(),
            };
            let bytes = hash(digest, text.as_bytes()).expect("a hash");
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        };
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
}

fn reply(request: &str, status: &str, lines: &str) -> String {
    let copied: String = ["Via", "From", "Call-ID", "CSeq"]
        .iter()
        .map(|name| format!("{name}: {}\r\n", header(request, name).expect("it is there")))
        .collect();
    let to = header(request, "To").expect("a To");
    format!("SIP/2.0 {status}\r\n{copied}To: {to};tag=t\r\n{lines}Content-Length: 0\r\n\r\n")
}

fn register(seen: &Mutex<Seen>, request: &str, wishes: &Wishes) -> String {
    let mut seen = seen.lock().expect("whole");
    if let Some(challenge) = seen.look(request, false, wishes) {
        return challenge;
    }
    let contact = header(request, "Contact").expect("a Contact");
    reply(request, "200 OK", &format!("Contact: {contact}\r\n"))
}

struct Server {
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(work: impl FnOnce(&Mutex<Seen>, &AtomicBool) + Send + 'static) -> Server {
        let (seen, over) = (Arc::default(), Arc::default());
        let shared = (Arc::clone(&seen), Arc::clone(&over));
        let thread = std::thread::spawn(move || work(&shared.0, &shared.1));
        Server { seen, over, thread: Some(thread) }
    }

    /// Ends it, and gives what it saw.
    fn seen(mut self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("started once");
        thread.join().expect("it did not panic");
        let mut seen = self.seen.lock().expect("whole");
        std::mem::take(&mut *seen)
    }
}

fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("a free port");
    let patience = Some(Duration::from_millis(50));
    socket.set_read_timeout(patience).expect("a time-out");
    socket
}

/// The next datagram: None when it is over, and nothing is left of what came before.
fn next(socket: &UdpSocket, over: &AtomicBool, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    loop {
        let was_over = over.load(Ordering::Relaxed);
        match socket.recv_from(buffer) {
            Ok(found) => return Some(found),
            Err(_) if was_over => return None,
            Err(_) => {}
        }
    }
}

/// A registrar over UDP.
fn registrar(address: &str, wishes: Wishes) -> Server {
    let socket = socket(address);
    Server::start(move |seen, over| {
        let mut buffer = [0; 4096];
        while let Some((length, from)) = next(&socket, over, &mut buffer) {
            let request = std::str::from_utf8(&buffer[..length]).expect("text");
            let response = register(seen, request, &wishes);
            socket.send_to(response.as_bytes(), from).expect("sent");
        }
    })
}

/// The same over TCP, for one connection after the other.
fn tcp_registrar(address: &str, wishes: Wishes) -> Server {
    let listener = TcpListener::bind(address).expect("a free port");
    listener.set_nonblocking(true).expect("a listener");
    Server::start(move |seen, over| {
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
                    let response = register(seen, &request, &wishes);
                    stream.write_all(response.as_bytes()).expect("sent");
                }
            }
        }
    })
}

/// A relay between callers and answerers that challenges each INVITE.
fn proxy(host: &str, wishes: Wishes) -> Server {
    let socket = socket(&format!("{host}:25060"));
    let at = |port: u16| -> SocketAddr { format!("{host}:{port}").parse().expect("an address") };
    let (caller, answerer) = (at(15070), at(15570));
    Server::start(move |seen, over| {
        let mut buffer = [0; 4096];
        let mut challenged: HashMap<String, String> = HashMap::new();
        while let Some((length, from)) = next(&socket, over, &mut buffer) {
            let message = std::str::from_utf8(&buffer[..length]).expect("text");
            let mut seen = seen.lock().expect("whole");
            if message.starts_with("INVITE ")
                && let Some(challenge) = seen.look(message, true, &wishes)
            {
                challenged.insert(branch(message).to_owned(), message.to_owned());
                socket.send_to(challenge.as_bytes(), from).expect("sent");
                continue;
            }
            if message.starts_with("ACK ") {
                if let Some(asked) = challenged.get(branch(message)) {
                    seen.acknowledged += 1;
                    let target = |message: &str| message.split(' ').nth(1).map(str::to_owned);
                    if cseq(message) != cseq(asked) || target(message) != target(asked) {
                        seen.fault(format!("no ACK for this INVITE:\n{asked}\n{message}"));
                    }
                    continue;
                }
                if header(message, "Proxy-Authorization").is_none() {
                    seen.fault(format!("an ACK without its credentials:\n{message}"));
                }
            }
            let to = match from == caller {
                true => answerer,
                false => caller,
            };
            socket.send_to(&buffer[..length], to).expect("sent");
        }
    })
}

fn load(host: &str, line: &str) -> (Value, Option<i32>, String) {
    let output = Command::new(BINARY)
        .args(line.split_whitespace())
        .args(["--server", &format!("{host}:25060")])
        .args(["--local", &format!("{host}:0")])
        .args(["--password-prefix", "secret", "--settle", "0"])
        .args(["--wait", "sleep", "--json", "-", "--quiet"])
        .output()
        .expect("generator");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let results: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (results[0].clone(), output.status.code(), said)
}

fn count(result: &Value, name: &str) -> u64 {
    result["counts"][name].as_u64().expect("a count")
}

/// A clean run, of which the generator and the server say the same.
fn agree(host: &str, server: Server, line: &str) -> (Value, Seen) {
    let (result, code, said) = load(host, line);
    let seen = server.seen();
    assert_eq!(seen.faults, Vec::<String>::new());
    assert_eq!(result["clean"], true, "{result:#}\n{said}");
    assert_eq!(code, Some(0));
    assert_eq!(count(&result, "challenges_received"), seen.challenges);
    assert_eq!(count(&result, "challenges_stale"), seen.stale);
    assert_eq!(count(&result, "completed"), seen.accepted);
    assert_eq!(seen.refused, 0);
    (result, seen)
}

#[test]
fn each_request_is_challenged_and_answered() {
    for (last, algorithm, qop) in [(1, "MD5", true), (2, "SHA-256", true), (3, "MD5", false), (4, "SHA-256", false)] {
        let host = format!("127.1.2.{last}");
        let wishes = Wishes { algorithm, offers_qop: qop, gets_qop: qop, uses: 1 };
        let server = registrar(&format!("{host}:25060"), wishes);
        let line = format!("register --auth new --algorithm {} --window 8 --count 300 --users 50", algorithm.to_lowercase());
        let (result, seen) = agree(&host, server, &line);
        assert_eq!(count(&result, "completed"), 300);
        assert_eq!(seen.challenges, 300);
        assert_eq!(count(&result, "messages_sent"), 600);
    }
}

#[test]
fn a_client_may_do_without_the_qop_that_is_offered() {
    let host = "127.1.2.5";
    let wishes = Wishes { gets_qop: false, ..WISHES };
    let server = registrar(&format!("{host}:25060"), wishes);
    let line = "register --auth kept --qop none --rate 400 --count 200 --users 20";
    let (_, seen) = agree(host, server, line);
    assert_eq!(seen.challenges, 20);
}

#[test]
fn a_kept_nonce_serves_until_it_is_stale() {
    let host = "127.1.2.6";
    let wishes = Wishes { uses: 4, ..WISHES };
    let server = registrar(&format!("{host}:25060"), wishes);
    let line = "register --auth kept --window 8 --count 500 --users 50";
    let (result, seen) = agree(host, server, line);
    // Each user sends 10: one is challenged at first, and one as stale after each four.
    assert_eq!(count(&result, "completed"), 500);
    assert_eq!((seen.challenges, seen.stale), (150, 100));
    assert_eq!(count(&result, "messages_sent"), 650);
}

#[test]
fn digest_goes_over_tcp_too() {
    let host = "127.1.2.7";
    let server = tcp_registrar(&format!("{host}:25060"), WISHES);
    let line = "register --transport tcp --auth kept --window 8 --count 200 --users 20";
    let (result, seen) = agree(host, server, line);
    assert_eq!(count(&result, "completed"), 200);
    assert_eq!(seen.challenges, 20);
}

#[test]
fn a_wrong_password_is_refused_once_and_told() {
    let host = "127.1.2.8";
    let server = registrar(&format!("{host}:25060"), WISHES);
    let list = format!("{}/wrong-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    std::fs::write(&list, "alice:no\nbobby:no\n").expect("a file");
    let output = Command::new(BINARY)
        .args(["register", "--auth", "kept", "--accounts", &list])
        .args(["--server", &format!("{host}:25060")])
        .args(["--local", &format!("{host}:0"), "--settle", "0"])
        .args(["--window", "1", "--count", "4", "--wait", "sleep"])
        .args(["--json", "-", "--quiet"])
        .output()
        .expect("generator");
    let results: Value = serde_json::from_slice(&output.stdout).expect("results");
    let (result, seen) = (&results[0], server.seen());
    assert_eq!(output.status.code(), Some(1), "{result:#}");
    assert_eq!(result["clean"], false);
    assert_eq!(count(result, "completed"), 0);
    assert_eq!(count(result, "credentials_refused"), 4);
    assert_eq!(count(result, "refused"), 4);
    // The first request of each is asked, then refused; the second is refused, and its new nonce once more.
    assert_eq!(count(result, "messages_sent"), 8);
    assert_eq!(seen.accepted, 0);
}

#[test]
fn a_challenge_that_nobody_expects_is_an_error() {
    let host = "127.1.2.9";
    let server = registrar(&format!("{host}:25060"), WISHES);
    let (result, code, said) = load(host, "register --window 1 --count 2");
    drop(server.seen());
    assert_eq!(code, Some(1));
    assert_eq!(count(&result, "refused"), 2);
    assert_eq!(count(&result, "challenges_received"), 0);
    assert!(said.contains("401 Unauthorized"), "{said}");
}

#[test]
fn calls_answer_the_proxy() {
    for (last, line, challenges) in [
        (10, "--auth new --window 8 --count 300", 300),
        (11, "--auth new --rate 300 --count 300", 300),
        (12, "--auth kept --window 8 --count 300 --users 50", 50),
    ] {
        let host = format!("127.1.2.{last}");
        let server = proxy(&host, WISHES);
        let (result, seen) = agree(&host, server, &format!("call --floor {line}"));
        assert_eq!(count(&result, "completed"), 300);
        assert_eq!(seen.challenges, challenges);
        assert_eq!(seen.acknowledged, challenges);
        assert_eq!(count(&result, "messages_sent"), 6 * 300 + 2 * challenges);
    }
}

#[test]
fn a_call_that_is_not_let_through_ends() {
    let host = "127.1.2.13";
    let server = proxy(host, WISHES);
    let (result, code, _) = load(host, "call --floor --window 4 --count 20");
    let seen = server.seen();
    assert_eq!(code, Some(1));
    assert_eq!(count(&result, "refused"), 20);
    assert_eq!(count(&result, "completed"), 0);
    assert_eq!((seen.challenges, seen.acknowledged), (20, 20));
}

#[test]
fn users_are_listed_for_the_server() {
    let output = Command::new(BINARY)
        .args(["users", "--users", "3", "--password-prefix", "secret"])
        .args(["--realm", "tests", "--algorithm", "md5,sha-256"])
        .output()
        .expect("generator");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6);
    let whole = b"u00002:tests:secretu00002";
    for (line, digest) in [(lines[4], MessageDigest::md5()), (lines[5], MessageDigest::sha256())] {
        let bytes = hash(digest, whole).expect("a hash");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(line, format!("u00002:tests:{hex}"));
    }
}
