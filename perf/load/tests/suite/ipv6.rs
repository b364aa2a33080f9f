//! The generator over ::1: UDP through its own relay, TCP and TLS to its own answerer.

use crate::programs::{Peer, Run, run};

fn load(line: &str) -> Run {
    run(&format!("{line} --window 8 --count 300 --settle 0 --floor --wait sleep --json -")).clean(300)
}

#[test]
fn calls_and_registrations_over_udp() {
    let _relay = Peer::relay("--listen [::1]:25160 --caller-port 15170 --answerer-port 15670");
    let ports = "--server [::1]:25160 --caller-port 15170 --answerer-port 15670";
    // The answerer checks that the BYE's target is its contact, in brackets.
    assert_eq!(load(&format!("call {ports}")).count("messages_received"), 300 * 7);
    load(&format!("register {ports} --users 100"));
    load(&format!("call {ports} --domain [::1] --local [::1]:0"));
}

#[test]
fn calls_over_tcp() {
    load("call --transport tcp --connections per-call --server [::1]:15770 --caller-port 15270 --answerer-port 15770");
}

#[test]
fn calls_over_tls_to_a_certificate_for_the_address() {
    let run = load(
        "call --transport tls --server [::1]:15870 --caller-port 15370 --answerer-port 15870 \
         --ca @/root.pem --callee-cert @/ec.pem --callee-key @/ec.key",
    );
    assert!(run.result()["tls"].as_str().expect("agreed").starts_with("TLSv1"));
}

#[test]
fn two_families_in_one_run_are_refused() {
    run("call --server [::1]:5060 --local 127.0.0.1:0").refused("IPv6");
}
