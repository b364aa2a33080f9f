//! The generator against its own answerer over TCP and TLS: every connection, handshake and message of a call is counted once. And against
//! OpenSSL's own client and server, which have no code in common with it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::programs::{Peer, Run, certificates, generator, load, run, words};

/// Runs calls to the generator's own answerer.
fn to_itself(last: u8, line: &str) -> Run {
    run(&format!("call --floor --server 127.1.1.{last}:15570 --local 127.1.1.{last}:0 --settle 0 --wait sleep --json - {line}"))
}

/// So many of them that all end well.
fn direct(last: u8, line: &str) -> Run {
    let run = to_itself(last, &format!("--window 8 --count 300 {line}")).clean(300);
    assert_eq!(run.count("messages_sent"), 300 * 6);
    assert_eq!(run.count("messages_received"), 300 * 6);
    run
}

#[test]
fn persistent_connections_carry_all_calls() {
    let run = direct(1, "--transport tcp --connections 3");
    // All were open before the measuring began.
    assert_eq!(run.count("connections_opened"), 0);
    assert_eq!(run.result()["connections_open"], 6);
}

#[test]
fn a_connection_for_each_call_is_opened_and_closed() {
    let run = direct(2, "--transport tcp --connections per-call");
    assert_eq!(run.count("connections_opened"), 300);
    assert_eq!(run.count("connections_accepted"), 300);
    // Those of the last window may not have seen the end of the other side.
    assert!(run.result()["connections_open"].as_u64().expect("a number") <= 16);
}

#[test]
fn the_answerer_can_close_after_each_call() {
    let run = direct(3, "--transport tcp --connections per-call --callee-connections per-call");
    assert_eq!(run.count("connections_accepted"), 300);
}

#[test]
fn a_full_handshake_for_each_call_takes_as_many_calls_as_flights() {
    for (last, version, name, client_calls) in [(4, "1.2", "rsa", 3), (5, "1.3", "ec", 2)] {
        let run = direct(
            last,
            &format!(
                "--transport tls --connections per-call --tls-version {version} --ca @/root.pem \
                 --callee-cert @/{name}.pem --callee-key @/{name}.key"
            ),
        );
        assert_eq!(run.count("tls_client_full"), 300);
        assert_eq!(run.count("tls_server_full"), 300);
        assert_eq!(run.count("tls_client_handshake_calls"), 300 * client_calls);
        assert_eq!(run.count("tls_server_handshake_calls"), 600);
        assert_eq!(run.result()["tls"].as_str().expect("agreed").split(' ').next(), Some(format!("TLSv{version}").as_str()));
    }
}

#[test]
fn sessions_are_resumed_with_and_without_client_certificates() {
    for (last, version, mutual) in [(6, "1.2", ""), (7, "1.3", ""), (8, "1.2", "--callee-verify"), (9, "1.3", "--callee-verify")] {
        let run = direct(
            last,
            &format!(
                "--transport tls --connections per-call --tls-version {version} --ca @/root.pem --cert @/ec.pem \
                 --key @/ec.key --resume --callee-resume {mutual}"
            ),
        );
        // Each of the eight first calls may find no session yet.
        let full = run.count("tls_client_full");
        assert!((1..=8).contains(&full), "{version} {mutual}: {full}");
        assert_eq!(run.count("tls_client_resumed"), 300 - full);
        assert_eq!(run.count("tls_server_resumed"), 300 - full);
        assert_eq!(run.count("tls_server_full"), full);
    }
}

#[test]
fn without_tickets_nothing_is_resumed() {
    for (last, version) in [(10, "1.2"), (11, "1.3")] {
        let run = direct(
            last,
            &format!(
                "--transport tls --connections per-call --tls-version {version} --callee-cert @/ec.pem --callee-key @/ec.key --resume"
            ),
        );
        assert_eq!(run.count("tls_client_full"), 300);
        assert_eq!(run.count("tls_server_full"), 300);
    }
}

#[test]
fn a_chosen_cipher_is_the_one_agreed_on() {
    let run = direct(12, "--transport tls --tls-version 1.2 --ciphers AES128-SHA --callee-cert @/rsa.pem --callee-key @/rsa.key");
    assert_eq!(run.result()["tls"], "TLSv1.2 AES128-SHA");
}

/// A run that must fail: the server's certificate is not for this address, or a certificate is missing.
fn fails(last: u8, line: &str) -> Run {
    let run = to_itself(last, &format!("--transport tls --connections per-call --window 1 --count 3 --drain 0 {line}"));
    assert_eq!(run.code, Some(1), "{:#}", run.result());
    assert_eq!(run.count("completed"), 0);
    assert_eq!(run.count("cut_off"), 3);
    run
}

#[test]
fn a_certificate_for_another_address_is_refused() {
    let run = fails(77, "--ca @/root.pem --callee-cert @/ec.pem --callee-key @/ec.key");
    assert_eq!(run.count("tls_client_failed"), 3);
    assert!(run.said.contains("IP address mismatch"), "{}", run.said);
}

#[test]
fn a_caller_without_a_certificate_is_refused_where_one_is_required() {
    let run = fails(13, "--tls-version 1.2 --ca @/root.pem --callee-cert @/ec.pem --callee-key @/ec.key --callee-verify");
    assert_eq!(run.count("tls_server_failed"), 3);
}

#[test]
fn a_server_that_hangs_up_is_told_as_such() {
    let listener = TcpListener::bind("127.1.1.14:25060").expect("port");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = (&stream).read(&mut [0; 100]);
        }
    });
    let run =
        load("127.1.1.14", "call --transport tcp --connections per-call --callee-transport udp --window 1 --count 5 --drain 0");
    assert_eq!(run.code, Some(1), "{:#}", run.result());
    assert_eq!(run.count("cut_off"), 5);
}

fn wait_listening(address: &str) {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "no {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn openssls_own_server_resumes_our_sessions() {
    for (address, version) in [("127.1.1.15:15600", "1.2"), ("127.1.1.16:15600", "1.3")] {
        // At the end of its input it hangs up.
        let line = format!("s_server -accept {address} -quiet -cert @/ec.pem -cert_chain @/ec.pem -key @/ec.key");
        let _peer = Peer::start(Command::new("openssl").args(words(&line)));
        wait_listening(address);
        // It serves one connection after the other, so each closes before the next.
        let run = run(&format!(
            "idle --transport tls --server {address} --close 0.05 --connections 8 --at-once 1 --settle 0.2 --local 127.0.0.1 \
             --sources 1 --json - --ca @/root.pem --resume --tls-version {version}"
        ));
        let resumed = run.result()["tls_client_resumed"].as_u64().expect("a count");
        assert!(resumed >= 1, "{version}: {:#}", run.result());
    }
}

/// Of no call that there is: it is answered all the same.
const STRANGE_BYE: &[u8] = b"BYE sip:u00001@127.1.1.17 SIP/2.0\r\n\
    Via: SIP/2.0/TLS 127.0.0.1:1;branch=z9hG4bKstrange\r\n\
    From: <sip:a@127.0.0.1>;tag=1\r\n\
    To: <sip:b@127.0.0.1>;tag=2\r\n\
    Call-ID: strange\r\n\
    CSeq: 2 BYE\r\n\
    Content-Length: 0\r\n\r\n";

#[test]
fn openssls_own_client_resumes_with_our_listener() {
    let mut generator = Peer::start(&mut generator(
        "call --local 127.1.1.17:0 --transport udp --callee-transport tls --callee-resume --callee-cert @/rsa.pem \
         --callee-key @/rsa.key --rate 0.01 --duration 20 --settle 0 --drain 0 --quiet --wait sleep",
    ));
    let address = "127.1.1.17:15570";
    wait_listening(address);
    for version in ["-tls1_2", "-tls1_3"] {
        let session = certificates().join(format!("session{version}"));
        for (option, word) in [("-sess_out", "New, "), ("-sess_in", "Reused, ")] {
            let mut client = Command::new("openssl")
                .args(["s_client", "-connect", address, version, option])
                .arg(&session)
                .args(words("-CAfile @/root.pem -verify_return_error"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("openssl s_client");
            // AWS-LC sends the tickets of 1.3 with the first answer: ask for one.
            let mut stdin = client.stdin.take().expect("its input");
            stdin.write_all(STRANGE_BYE).expect("room");
            std::thread::sleep(Duration::from_millis(500));
            // By now the listener may have closed it.
            let _ = stdin.write_all(b"Q\n");
            drop(stdin);
            let output = client.wait_with_output().expect("output");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains(word), "{version} {option}: {said}");
            assert!(said.contains("SIP/2.0 200 OK"), "{version} {option}: {said}");
        }
    }
    assert!(matches!(generator.0.try_wait(), Ok(None)));
}
