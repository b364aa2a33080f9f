//! The generator against its own relay on loopback: every datagram of a call is sent and counted once, and losses are made good and told.

use std::net::UdpSocket;
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

/// Runs the relay and the generator on an address of their own, so that tests do not meet.
fn run(host: &str, relay: &[&str], load: &[&str]) -> (Value, Option<i32>) {
    let server = format!("{host}:25060");
    let _relay =
        Relay(Command::new(BINARY).args(["relay", "--listen", &server]).args(relay).stdout(Stdio::null()).spawn().expect("relay"));
    let start = Instant::now();
    while UdpSocket::bind(&server).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10), "no relay");
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = Command::new(BINARY)
        .args(load)
        .args(["--server", &server, "--local", &format!("{host}:0")])
        .args(["--floor", "--settle", "0", "--wait", "sleep", "--json", "-"])
        .output()
        .expect("generator");
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    let results: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {complaints}"));
    (results[0].clone(), output.status.code())
}

fn count(result: &Value, name: &str) -> u64 {
    result["counts"][name].as_u64().expect("a count")
}

#[test]
fn a_call_is_six_datagrams_out_and_seven_in() {
    let load = ["call", "--window", "8", "--count", "500"];
    let (result, code) = run("127.1.0.1", &[], &load);
    assert_eq!(result["clean"], true, "{result:#}");
    assert_eq!(code, Some(0));
    for name in ["started", "completed", "trying_received", "ringing_received"] {
        assert_eq!(count(&result, name), 500, "{name}");
    }
    assert_eq!(count(&result, "messages_sent"), 3_000);
    assert_eq!(count(&result, "messages_received"), 3_500);
}

#[test]
fn without_the_100_it_is_six_and_six() {
    let load = ["call", "--window", "8", "--count", "500"];
    let (result, _) = run("127.1.0.2", &["--no-trying"], &load);
    assert_eq!(result["clean"], true, "{result:#}");
    assert_eq!(count(&result, "trying_received"), 0);
    assert_eq!(count(&result, "messages_received"), 3_000);
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let load = ["call", "--rate", "500", "--duration", "2"];
    let (result, _) = run("127.1.0.3", &[], &load);
    let scheduled = count(&result, "scheduled");
    assert!((995..=1_005).contains(&scheduled), "{scheduled}");
    assert_eq!(count(&result, "started"), scheduled);
}

#[test]
fn lost_datagrams_are_sent_again_and_counted() {
    // Every call loses something of its thirteen datagrams now and then; a prime number hits each kind in turn.
    let load = ["call", "--window", "64", "--count", "2000"];
    let (result, code) = run("127.1.0.4", &["--lose", "47"], &load);
    assert_eq!(count(&result, "completed"), 2_000, "{result:#}");
    assert_eq!(result["clean"], false);
    assert_eq!(code, Some(1));
    for name in ["retransmitted_invite", "retransmitted_2xx", "retransmitted_request"] {
        assert!(count(&result, name) > 0, "{name}: {result:#}");
    }
    for name in ["timed_out", "refused", "wrong", "skipped"] {
        assert_eq!(count(&result, name), 0, "{name}: {result:#}");
    }
}

#[test]
fn registrations_are_one_and_one() {
    let load = ["register", "--window", "8", "--count", "500", "--users", "100"];
    let (result, _) = run("127.1.0.5", &[], &load);
    assert_eq!(result["clean"], true, "{result:#}");
    assert_eq!(count(&result, "completed"), 500);
    assert_eq!(count(&result, "messages_sent"), 500);
}

#[test]
fn sockets_on_each_side_are_all_used() {
    let load = ["call", "--window", "8", "--count", "200", "--sockets", "4"];
    let (result, _) = run("127.1.0.6", &["--sockets", "4"], &load);
    assert_eq!(result["clean"], true, "{result:#}");
    assert_eq!(count(&result, "completed"), 200);
}

#[test]
fn a_silent_server_is_told_as_such() {
    // Everything is lost: nothing may be counted as done.
    let load = ["call", "--window", "4", "--duration", "1.2", "--drain", "0"];
    let (result, code) = run("127.1.0.7", &["--lose", "1"], &load);
    assert_eq!(code, Some(1));
    assert_eq!(count(&result, "completed"), 0);
    assert_eq!(count(&result, "started"), 4);
    assert_eq!(count(&result, "retransmitted_invite"), 4);
}
