//! The generator over ::1: UDP through its own relay, TCP and TLS to its own answerer.

use std::net::UdpSocket;
use std::path::Path;
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

fn load(line: &str) -> Value {
    let output = Command::new(BINARY)
        .args(line.split_whitespace())
        .args(["--window", "8", "--count", "300", "--settle", "0"])
        .args(["--floor", "--wait", "sleep", "--json", "-", "--quiet"])
        .output()
        .expect("generator");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let results: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let result = results[0].clone();
    assert_eq!(result["clean"], true, "{result:#}\n{said}");
    assert_eq!(result["good"], 300);
    result
}

#[test]
fn calls_and_registrations_over_udp() {
    let relay = ["relay", "--listen", "[::1]:25160"];
    let _relay = Relay(
        Command::new(BINARY)
            .args(relay)
            .args(["--caller-port", "15170", "--answerer-port", "15670"])
            .stdout(Stdio::null())
            .spawn()
            .expect("relay"),
    );
    let start = Instant::now();
    while UdpSocket::bind("[::1]:25160").is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10), "no relay");
        std::thread::sleep(Duration::from_millis(10));
    }
    let ports = "--server [::1]:25160 --caller-port 15170 --answerer-port 15670";
    // The answerer checks that the BYE's target is its contact, in brackets.
    let result = load(&format!("call {ports}"));
    assert_eq!(result["counts"]["messages_received"], 300 * 7);
    load(&format!("register {ports} --users 100"));
    load(&format!("call {ports} --domain [::1] --local [::1]:0"));
}

#[test]
fn calls_over_tcp() {
    load("call --transport tcp --connections per-call --server [::1]:15770 --caller-port 15270 --answerer-port 15770");
}

#[test]
fn calls_over_tls_to_a_certificate_for_the_address() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("certificates-ipv6");
    std::fs::create_dir_all(&directory).expect("directory");
    let output = Command::new("openssl")
        .current_dir(&directory)
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=end".split(' '))
        .args("-days 30 -keyout key.pem -out cert.pem -addext subjectAltName=IP:::1".split(' '))
        .output()
        .expect("the openssl command");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let at = directory.to_str().expect("a plain path");
    let result = load(&format!(
        "call --transport tls --server [::1]:15870 --caller-port 15370 --answerer-port 15870 \
         --ca {at}/cert.pem --callee-cert {at}/cert.pem --callee-key {at}/key.pem"
    ));
    assert!(result["tls"].as_str().expect("agreed").starts_with("TLSv1"));
}

#[test]
fn two_families_in_one_run_are_refused() {
    let output =
        Command::new(BINARY).args(["call", "--server", "[::1]:5060", "--local", "127.0.0.1:0"]).output().expect("generator");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("IPv6"));
}
