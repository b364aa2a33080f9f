//! Callers and answerers as two processes: what each sees of the same calls.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_strowger-load");

struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

fn common(host: &str) -> String {
    format!("--local {host}:0 --floor --wait sleep --quiet --json -")
}

/// Answerers that are ready.
fn answerers(host: &str, line: &str) -> Peer {
    let mut child = Command::new(BINARY)
        .args(words("call --role answerers"))
        .args(words(line))
        .args(words(&common(host)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("generator");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("answerers ready") {
        line.clear();
        assert!(said.read_line(&mut line).expect("text") > 0, "it ended");
    }
    // Somebody has to read what else it says.
    std::thread::spawn(move || {
        let mut rest = String::new();
        let _ = said.read_to_string(&mut rest);
        eprint!("{rest}");
    });
    Peer(child)
}

/// Asks it to end, and gives its result.
fn end(mut peer: Peer) -> Value {
    let killed = Command::new("kill").args(["-TERM", &peer.0.id().to_string()]).status();
    assert!(killed.expect("kill").success());
    let mut text = String::new();
    let mut output = peer.0.stdout.take().expect("piped");
    output.read_to_string(&mut text).expect("text");
    let results: Value = serde_json::from_str(&text).expect("results");
    results[0].clone()
}

fn callers(host: &str, line: &str) -> Value {
    let output = Command::new(BINARY)
        .args(words("call --role callers --settle 0"))
        .args(words(line))
        .args(words(&common(host)))
        .output()
        .expect("generator");
    let results: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    results[0].clone()
}

fn count(result: &Value, name: &str) -> u64 {
    result["counts"][name].as_u64().expect("a count")
}

#[test]
fn both_sides_count_the_same_calls_over_tcp() {
    let host = "127.1.4.1";
    let server = format!("--server {host}:15570");
    let peer = answerers(host, &format!("{server} --transport tcp"));
    let line = format!("{server} --transport tcp --connections per-call --window 8 --count 300");
    let caller = callers(host, &line);
    let answerer = end(peer);
    for result in [&caller, &answerer] {
        assert_eq!(result["clean"], true, "{result:#}");
        assert_eq!(count(result, "completed"), 300);
        assert_eq!(count(result, "started"), 300);
    }
    assert_eq!(caller["good"], 300);
    assert_eq!(answerer["phase"], "answer");
    assert_eq!(answerer["outstanding_at_end"], 0);
    assert_eq!(count(&answerer, "connections_accepted"), 300);
}

fn relay(host: &str, lose: &str) -> Peer {
    let server = format!("{host}:25060");
    let relay = Command::new(BINARY)
        .args(["relay", "--listen", &server, "--lose", lose])
        .stdout(Stdio::null())
        .spawn()
        .map(Peer)
        .expect("relay");
    while UdpSocket::bind(&server).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
    relay
}

#[test]
fn held_calls_over_udp() {
    let host = "127.1.4.2";
    let _relay = relay(host, "0");
    let server = format!("--server {host}:25060");
    let peer = answerers(host, &format!("{server} --ring 0.2"));
    let line = format!("{server} --rate 100 --duration 1 --hold 0.7");
    let caller = callers(host, &line);
    let answered = caller["latency_us"]["to_200"]["min"].as_f64().expect("µs");
    assert!(answered > 199_000.0, "{answered}");
    let answerer = end(peer);
    for result in [&caller, &answerer] {
        assert_eq!(result["clean"], true, "{result:#}");
    }
    assert_eq!(caller["good"], count(&caller, "scheduled"));
    assert_eq!(caller["good"], count(&answerer, "completed"));
}

#[test]
fn answerers_send_their_2xx_again_until_its_ack_comes() {
    let host = "127.1.4.3";
    let _relay = relay(host, "47");
    let server = format!("--server {host}:25060");
    let peer = answerers(host, &server);
    let caller = callers(host, &format!("{server} --window 64 --count 2000"));
    let answerer = end(peer);
    assert_eq!(count(&caller, "completed"), 2_000, "{caller:#}");
    assert_eq!(caller["failed_share"], 0.0);
    assert!(count(&answerer, "retransmitted_2xx") > 0, "{answerer:#}");
    for result in [&caller, &answerer] {
        assert_eq!(result["clean"], false);
        assert_eq!(count(result, "wrong"), 0, "{result:#}");
        assert_eq!(count(result, "timed_out"), 0, "{result:#}");
    }
}

#[test]
fn answerers_alone_see_what_a_server_does_to_a_call() {
    let host = "127.1.4.4";
    let relay = format!("{host}:25060");
    let server = UdpSocket::bind(&relay).expect("a free port");
    let patience = Some(Duration::from_secs(5));
    server.set_read_timeout(patience).expect("a time-out");
    let peer = answerers(host, &format!("--server {relay}"));
    let bye = |from: &str, forwards: u32| {
        format!(
            "BYE sip:u00001@{host}:15570 SIP/2.0\r\n\
             Via: SIP/2.0/UDP {relay};branch=z9hG4bKx\r\n\
             Max-Forwards: {forwards}\r\n\
             From: <sip:u00002@h>;tag={from}\r\n\
             To: <sip:u00001@h>;tag=0000000100000001\r\n\
             Call-ID: 0123abcd0000000100000001@load\r\n\
             CSeq: 2 BYE\r\n\
             Content-Length: 0\r\n\r\n"
        )
    };
    // A tag that is not the call's, a Max-Forwards that somebody has changed, and a BYE as it should be.
    for message in [bye("0000000100000002", 70), bye("0000000100000001", 68), bye("0000000100000001", 70)] {
        let to = format!("{host}:15570");
        server.send_to(message.as_bytes(), to).expect("sent");
    }
    let mut buffer = [0; 2048];
    let length = server.recv(&mut buffer).expect("an answer");
    assert!(buffer[..length].starts_with(b"SIP/2.0 200 OK\r\n"));
    let answerer = end(peer);
    assert_eq!(count(&answerer, "wrong"), 2);
    assert_eq!(count(&answerer, "completed"), 1);
}

#[test]
fn what_one_side_alone_cannot_do_is_refused() {
    for line in ["register --role callers", "call --role callers --register-first"] {
        let output = Command::new(BINARY).args(words(line)).output();
        assert_eq!(output.expect("generator").status.code(), Some(2), "{line}");
    }
}
