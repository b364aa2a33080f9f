//! The generator against its relay with connections: every message and every connection of a call is counted once, whichever side has them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::programs::{Peer, load, run};

/// The process's open files.
fn files(relay: &Peer) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", relay.0.id())).expect("it lives").count()
}

/// Calls through a relay at this address: 6 messages out and 7 in, and so many connections opened and accepted for all of them.
fn calls(host: &str, relay: &str, line: &str, (opened, accepted): (u64, u64)) {
    let relay = Peer::relay(&format!("--listen {host}:25060 {relay}"));
    let idle = files(&relay);
    let run = load(host, &format!("call --floor --register-server {host}:25060 --window 8 --count 300 {line}")).clean(300);
    for name in ["started", "trying_received", "ringing_received"] {
        assert_eq!(run.count(name), 300, "{name}");
    }
    assert_eq!(run.count("messages_sent"), 300 * 6);
    assert_eq!(run.count("messages_received"), 300 * 7);
    assert_eq!(run.count("connections_opened"), opened);
    assert_eq!(run.count("connections_accepted"), accepted);
    // What the generator opened and accepted is closed again.
    let end = Instant::now() + Duration::from_secs(5);
    while files(&relay) > idle + 1 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(files(&relay) <= idle + 1, "{} files are open, {idle} were at first", files(&relay));
}

#[test]
fn one_connection_on_each_side() {
    // The relay connects for the first call.
    calls("127.1.8.1", "--transport tcp", "--transport tcp", (0, 1));
}

#[test]
fn a_connection_for_each_call_towards_udp() {
    calls(
        "127.1.8.2",
        "--transport tcp --callee-transport udp",
        "--transport tcp --callee-transport udp --connections per-call --callee-server 127.1.8.2:25060 --register-first --users 50",
        (300, 0),
    );
}

#[test]
fn a_connection_for_each_call_on_both_sides() {
    calls(
        "127.1.8.3",
        "--transport tcp --answerers per-call --spread 8 --answerer-port 15573",
        "--transport tcp --connections per-call --spread 8 --sources 4 --answerer-port 15573 --register-first --users 50",
        (300, 300),
    );
}

#[test]
fn one_connection_for_all_towards_one_for_each() {
    calls("127.1.8.4", "--transport tcp --answerers per-call", "--transport tcp", (0, 300));
}

#[test]
fn a_connection_for_each_call_towards_one_for_all() {
    calls("127.1.8.5", "--transport tcp", "--transport tcp --connections per-call", (300, 1));
}

#[test]
fn udp_towards_a_connection_for_each_call() {
    calls(
        "127.1.8.6",
        "--transport udp --callee-transport tcp --answerers per-call --answerer-port 15576",
        "--transport udp --callee-transport tcp --answerer-port 15576 --register-first --users 50",
        (0, 300),
    );
}

#[test]
fn udp_towards_one_connection() {
    calls("127.1.8.7", "--transport udp --callee-transport tcp", "--transport udp --callee-transport tcp", (0, 1));
}

#[test]
fn without_the_100_it_is_six_and_six() {
    let _relay = Peer::relay("--listen 127.1.8.8:25060 --transport tcp --no-trying");
    let run = load("127.1.8.8", "call --floor --transport tcp --window 8 --count 300").clean(300);
    assert_eq!(run.count("trying_received"), 0);
    assert_eq!(run.count("messages_received"), 300 * 6);
}

#[test]
fn registrations_come_back_by_their_connection() {
    let _relay = Peer::relay("--listen 127.1.8.9:25060 --transport tcp");
    for connections in ["2", "per-call"] {
        let line = format!("register --floor --transport tcp --connections {connections} --callee-transport udp --users 50");
        let run = load("127.1.8.9", &format!("{line} --window 8 --count 300")).clean(300);
        assert_eq!(run.count("messages_sent"), 300);
        assert_eq!(run.count("messages_received"), 300);
    }
}

#[test]
fn large_messages_that_do_not_fit_one_read_come_through() {
    // 64 calls of 1,500 bytes at once, by one connection.
    let _relay = Peer::relay("--listen 127.1.8.10:25060 --transport tcp");
    load("127.1.8.10", "call --floor --transport tcp --window 64 --count 2000 --pad 1000").clean(2_000);
}

#[test]
fn what_is_not_marked_is_told_and_closed() {
    let _relay = Peer::relay("--listen 127.1.8.11:25060 --transport tcp");
    let mut stream = TcpStream::connect("127.1.8.11:25060").expect("connected");
    stream.write_all(b"OPTIONS sip:a SIP/2.0\r\n\r\n").expect("room");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    assert_eq!(stream.read(&mut [0; 10]).expect("closed"), 0);
}

#[test]
fn options_that_cannot_be_are_refused() {
    for (line, why) in [
        ("--transport tls", "no TLS"),
        ("--transport tcp --lose 5", "UDP on both sides"),
        ("--transport tcp --sockets 2", "UDP on both sides"),
        ("--answerers per-call", "connects to nobody"),
        ("--transport tcp --callee-transport udp --spread 8", "connects to nobody"),
    ] {
        run(&format!("relay {line}")).refused(why);
    }
}
