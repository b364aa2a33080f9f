//! Callers and answerers as two processes: what each sees of the same calls.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::programs::{Peer, Run, count, generator, run};

fn common(host: &str) -> String {
    format!("--local {host}:0 --floor --wait sleep --json -")
}

/// Answerers that are ready.
fn answerers(host: &str, line: &str) -> Peer {
    let mut peer = Peer::start(&mut generator(&format!("call --role answerers --quiet {line} {}", common(host))));
    let mut stderr = BufReader::new(peer.0.stderr.take().expect("piped"));
    let mut said = String::new();
    stderr.read_line(&mut said).expect("text");
    assert!(said.contains("answerers ready"), "{said}");
    // Somebody has to read what else it says.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    peer
}

/// Asks it to end, and gives its result.
fn end(mut peer: Peer) -> Value {
    let killed = Command::new("kill").args(["-TERM", &peer.0.id().to_string()]).status();
    assert!(killed.expect("kill").success());
    let mut text = String::new();
    peer.0.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    let results: Vec<Value> = serde_json::from_str(&text).expect("results");
    results[0].clone()
}

fn callers(host: &str, line: &str) -> Run {
    run(&format!("call --role callers --settle 0 {line} {}", common(host)))
}

#[test]
fn both_sides_count_the_same_calls_over_tcp() {
    let host = "127.1.4.1";
    let line = format!("--server {host}:15570 --transport tcp");
    let peer = answerers(host, &line);
    let caller = callers(host, &format!("{line} --connections per-call --window 8 --count 300")).clean(300);
    let answerer = end(peer);
    assert_eq!(answerer["clean"], true, "{answerer:#}");
    assert_eq!((count(&answerer, "started"), count(&answerer, "completed")), (300, 300));
    assert_eq!(caller.result()["good"], 300);
    assert_eq!(answerer["phase"], "answer");
    assert_eq!(answerer["outstanding_at_end"], 0);
    assert_eq!(count(&answerer, "connections_accepted"), 300);
}

#[test]
fn held_calls_over_udp() {
    let host = "127.1.4.2";
    let server = format!("{host}:25060");
    let _relay = Peer::relay(&format!("--listen {server}"));
    let peer = answerers(host, &format!("--server {server} --ring 0.2"));
    let caller = callers(host, &format!("--server {server} --rate 100 --duration 1 --hold 0.7"));
    let answered = caller.result()["latency_us"]["to_200"]["min"].as_f64().expect("µs");
    assert!(answered > 199_000.0, "{answered}");
    let (caller, answerer) = (caller.result(), end(peer));
    for result in [caller, &answerer] {
        assert_eq!(result["clean"], true, "{result:#}");
    }
    assert_eq!(caller["good"], count(caller, "scheduled"));
    assert_eq!(caller["good"], count(&answerer, "completed"));
}

#[test]
fn answerers_send_their_2xx_again_until_its_ack_comes() {
    let host = "127.1.4.3";
    let server = format!("{host}:25060");
    let _relay = Peer::relay(&format!("--listen {server} --lose 47"));
    let peer = answerers(host, &format!("--server {server}"));
    let caller = callers(host, &format!("--server {server} --window 64 --count 2000"));
    let (caller, answerer) = (caller.result(), end(peer));
    assert_eq!(count(caller, "completed"), 2_000, "{caller:#}");
    assert_eq!(caller["failed_share"], 0.0);
    assert!(count(&answerer, "retransmitted_2xx") > 0, "{answerer:#}");
    for result in [caller, &answerer] {
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
        run(line).refused("");
    }
}
