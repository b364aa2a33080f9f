//! The generator against its relay with connections: every message and every connection of a call is counted once, whichever side has them.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_strowger-load");

struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Relay {
    fn start(line: &str) -> Relay {
        let command = Command::new(BINARY).arg("relay").args(line.split_whitespace()).stdout(Stdio::piped()).spawn();
        let mut relay = Relay(command.expect("relay"));
        let mut said = String::new();
        let stdout = relay.0.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut said).expect("a line");
        assert!(said.starts_with("relay ready"), "{said}");
        relay
    }

    /// The process's open files.
    fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0.id())).expect("it lives").count()
    }
}

fn load(line: &str) -> (Value, Option<i32>, String) {
    let output = Command::new(BINARY)
        .args(line.split_whitespace())
        .args(["--floor", "--settle", "0", "--wait", "sleep", "--quiet", "--json", "-"])
        .output()
        .expect("generator");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let results: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (results[0].clone(), output.status.code(), said)
}

fn count(result: &Value, name: &str) -> u64 {
    result["counts"][name].as_u64().unwrap_or_else(|| panic!("{name} in {result:#}"))
}

/// Calls through a relay at this address: 6 messages out and 7 in, and so many connections opened and accepted for all of them.
fn calls(host: &str, relay: &str, load_line: &str, (opened, accepted): (u64, u64)) -> Value {
    let server = format!("{host}:25060");
    let relay = Relay::start(&format!("--listen {server} {relay}"));
    let idle = relay.files();
    let (result, code, said) =
        load(&format!("call --server {server} --register-server {server} --local {host}:0 --window 8 --count 300 {load_line}"));
    assert_eq!(result["clean"], true, "{result:#}\n{said}");
    assert_eq!(code, Some(0));
    for name in ["started", "completed", "trying_received", "ringing_received"] {
        assert_eq!(count(&result, name), 300, "{name}");
    }
    assert_eq!(count(&result, "messages_sent"), 300 * 6);
    assert_eq!(count(&result, "messages_received"), 300 * 7);
    assert_eq!(count(&result, "connections_opened"), opened);
    assert_eq!(count(&result, "connections_accepted"), accepted);
    // What the generator opened and accepted is closed again.
    let end = Instant::now() + Duration::from_secs(5);
    while relay.files() > idle + 1 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(relay.files() <= idle + 1, "{} files are open, {idle} were at first", relay.files());
    result
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
        "--transport tcp --answerers per-call --spread 8 --answerer 127.1.8.3:15573",
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
        "--transport udp --callee-transport tcp --answerers per-call --answerer 127.1.8.6:15576",
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
    let host = "127.1.8.8";
    let _relay = Relay::start(&format!("--listen {host}:25060 --transport tcp --no-trying"));
    let (result, _, said) = load(&format!("call --server {host}:25060 --local {host}:0 --transport tcp --window 8 --count 300"));
    assert_eq!(result["clean"], true, "{result:#}\n{said}");
    assert_eq!(count(&result, "trying_received"), 0);
    assert_eq!(count(&result, "messages_received"), 300 * 6);
}

#[test]
fn registrations_and_options_come_back_by_their_connection() {
    let host = "127.1.8.9";
    let _relay = Relay::start(&format!("--listen {host}:25060 --transport tcp"));
    for method in ["register", "options"] {
        for connections in ["2", "per-call"] {
            let line = format!("{method} --transport tcp --connections {connections} --callee-transport udp --users 50");
            let (result, _, said) = load(&format!("{line} --server {host}:25060 --local {host}:0 --window 8 --count 300"));
            assert_eq!(result["clean"], true, "{result:#}\n{said}");
            assert_eq!(count(&result, "completed"), 300);
            assert_eq!(count(&result, "messages_sent"), 300);
            assert_eq!(count(&result, "messages_received"), 300);
        }
    }
}

#[test]
fn large_messages_that_do_not_fit_one_read_come_through() {
    // 64 calls of 1,500 bytes at once, by one connection.
    let line = "--transport tcp --window 64 --count 2000 --pad 1000";
    let host = "127.1.8.10";
    let _relay = Relay::start(&format!("--listen {host}:25060 --transport tcp"));
    let (result, _, said) = load(&format!("call --server {host}:25060 --local {host}:0 {line}"));
    assert_eq!(result["clean"], true, "{result:#}\n{said}");
    assert_eq!(count(&result, "completed"), 2_000);
}

#[test]
fn what_is_not_marked_is_told_and_closed() {
    let address: SocketAddr = "127.1.8.11:25060".parse().expect("address");
    let _relay = Relay::start(&format!("--listen {address} --transport tcp"));
    let mut stream = TcpStream::connect(address).expect("connected");
    std::io::Write::write_all(&mut stream, b"OPTIONS sip:a SIP/2.0\r\n\r\n").expect("room");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    assert_eq!(std::io::Read::read(&mut stream, &mut [0; 10]).expect("closed"), 0);
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
        let output = Command::new(BINARY).arg("relay").args(line.split_whitespace()).output().expect("relay");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert!(said.contains(why), "{line}: {said}");
    }
}
