//! The generator against its own answerer over TCP and TLS: every connection, handshake and message of a call is counted once. And against
//! OpenSSL's own client and server, which have no code in common with it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_strowger-load");

/// A CA, and certificates of it for 127.1.1.x.
fn certificates() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("certificates");
        std::fs::create_dir_all(&directory).expect("directory");
        let hosts: Vec<String> = (1..40).map(|last| format!("IP:127.1.1.{last}")).collect();
        let names = format!("subjectAltName={}", hosts.join(","));
        let openssl = |arguments: &str, names: &str| {
            let mut command = Command::new("openssl");
            command.current_dir(&directory).args(arguments.split(' '));
            if !names.is_empty() {
                command.args(["-addext", names]);
            }
            let output = command.output().expect("the openssl command");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let p256 = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
        openssl(&format!("req -x509 {p256} -nodes -subj /CN=CA -days 30 -keyout ca.key -out ca.pem"), "");
        for (name, key) in [("ec", p256), ("rsa", "-newkey rsa:2048")] {
            openssl(&format!("req -new {key} -nodes -subj /CN=end -keyout {name}.key -out {name}.csr"), &names);
            openssl(
                &format!(
                    "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -set_serial 7 -days 30 -copy_extensions copy -out {name}.pem"
                ),
                "",
            );
        }
        directory
    })
}

/// Options with `@` for the directory of certificates.
fn options(line: &str) -> Vec<String> {
    let directory = certificates().to_str().expect("a plain path");
    line.split_whitespace().map(|word| word.replace('@', directory)).collect()
}

fn load(host: &str, line: &str) -> (Value, Output) {
    let output = Command::new(BINARY)
        .arg("call")
        .args(options(line))
        .args(["--local", &format!("{host}:0")])
        .args(["--settle", "0", "--wait", "sleep", "--json", "-", "--quiet"])
        .output()
        .expect("generator");
    let result = serde_json::from_slice::<Value>(&output.stdout).map(|results| results[0].clone()).unwrap_or_default();
    (result, output)
}

/// Calls to the generator's own answerer.
fn direct(last: u8, line: &str) -> Value {
    let host = format!("127.1.1.{last}");
    let line = format!("--floor --server {host}:15570 --window 8 --count 300 {line}");
    let (result, output) = load(&host, &line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(result["clean"], true, "{result:#}\n{said}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(count(&result, "completed"), 300);
    assert_eq!(count(&result, "messages_sent"), 300 * 6);
    assert_eq!(count(&result, "messages_received"), 300 * 6);
    result
}

fn count(result: &Value, name: &str) -> u64 {
    result["counts"][name].as_u64().unwrap_or_else(|| panic!("{name} in {result:#}"))
}

#[test]
fn persistent_connections_carry_all_calls() {
    let result = direct(1, "--transport tcp --connections 3");
    // All were open before the measuring began.
    assert_eq!(count(&result, "connections_opened"), 0);
    assert_eq!(result["connections_open"], 6);
}

#[test]
fn a_connection_for_each_call_is_opened_and_closed() {
    let result = direct(2, "--transport tcp --connections per-call");
    assert_eq!(count(&result, "connections_opened"), 300);
    assert_eq!(count(&result, "connections_accepted"), 300);
    // Those of the last window may not have seen the end of the other side.
    assert!(result["connections_open"].as_u64().expect("a number") <= 16);
}

#[test]
fn the_answerer_can_close_after_each_call() {
    let result = direct(3, "--transport tcp --connections per-call --callee-connections per-call");
    assert_eq!(count(&result, "connections_accepted"), 300);
}

#[test]
fn a_full_handshake_for_each_call_takes_as_many_calls_as_flights() {
    for (last, version, name, client_calls) in [(4, "1.2", "rsa", 3), (5, "1.3", "ec", 2)] {
        let result = direct(
            last,
            &format!(
                "--transport tls --connections per-call --tls-version {version} --ca @/ca.pem \
                 --callee-cert @/{name}.pem --callee-key @/{name}.key"
            ),
        );
        assert_eq!(count(&result, "tls_client_full"), 300);
        assert_eq!(count(&result, "tls_server_full"), 300);
        assert_eq!(count(&result, "tls_client_handshake_calls"), 300 * client_calls);
        assert_eq!(count(&result, "tls_server_handshake_calls"), 600);
        assert_eq!(result["tls"].as_str().expect("agreed").split(' ').next(), Some(format!("TLSv{version}").as_str()));
    }
}

#[test]
fn sessions_are_resumed_with_and_without_client_certificates() {
    for (last, version, mutual) in [(6, "1.2", ""), (7, "1.3", ""), (8, "1.2", "--callee-verify"), (9, "1.3", "--callee-verify")] {
        let result = direct(
            last,
            &format!(
                "--transport tls --connections per-call --tls-version {version} --ca @/ca.pem --cert @/ec.pem \
                 --key @/ec.key --resume --callee-resume {mutual}"
            ),
        );
        // Each of the eight first calls may find no session yet.
        let full = count(&result, "tls_client_full");
        assert!((1..=8).contains(&full), "{version} {mutual}: {full}");
        assert_eq!(count(&result, "tls_client_resumed"), 300 - full);
        assert_eq!(count(&result, "tls_server_resumed"), 300 - full);
        assert_eq!(count(&result, "tls_server_full"), full);
    }
}

#[test]
fn without_tickets_nothing_is_resumed() {
    for (last, version) in [(10, "1.2"), (11, "1.3")] {
        let result = direct(
            last,
            &format!(
                "--transport tls --connections per-call --tls-version {version} --callee-cert @/ec.pem --callee-key @/ec.key --resume"
            ),
        );
        assert_eq!(count(&result, "tls_client_full"), 300);
        assert_eq!(count(&result, "tls_server_full"), 300);
    }
}

#[test]
fn a_chosen_cipher_is_the_one_agreed_on() {
    let result =
        direct(12, "--transport tls --tls-version 1.2 --ciphers AES128-SHA --callee-cert @/rsa.pem --callee-key @/rsa.key");
    assert_eq!(result["tls"], "TLSv1.2 AES128-SHA");
}

/// A run that must fail: the server's certificate is not for this address, or a certificate is missing.
fn fails(last: u8, line: &str) -> (Value, String) {
    let host = format!("127.1.1.{last}");
    let line = format!(
        "--floor --server {host}:15570 --transport tls --connections per-call --window 1 --count 3 --duration 1 --drain 0 {line}"
    );
    let (result, output) = load(&host, &line);
    assert_eq!(output.status.code(), Some(1), "{result:#}");
    assert_eq!(count(&result, "completed"), 0);
    assert_eq!(count(&result, "cut_off"), 3);
    (result, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_certificate_for_another_address_is_refused() {
    let (result, said) = fails(77, "--ca @/ca.pem --callee-cert @/ec.pem --callee-key @/ec.key");
    assert_eq!(count(&result, "tls_client_failed"), 3);
    assert!(said.contains("IP address mismatch"), "{said}");
}

#[test]
fn a_caller_without_a_certificate_is_refused_where_one_is_required() {
    let (result, _) = fails(13, "--tls-version 1.2 --ca @/ca.pem --callee-cert @/ec.pem --callee-key @/ec.key --callee-verify");
    assert_eq!(count(&result, "tls_server_failed"), 3);
}

#[test]
fn a_server_that_hangs_up_is_told_as_such() {
    let listener = TcpListener::bind("127.1.1.14:15570").expect("port");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut bytes = [0; 100];
            let _ = (&stream).read(&mut bytes);
        }
    });
    let (result, output) = load(
        "127.1.1.14",
        "--server 127.1.1.14:15570 --transport tcp --connections per-call --callee-transport udp \
         --callee-server 127.1.1.14:15571 --window 1 --count 5 --drain 0",
    );
    assert_eq!(output.status.code(), Some(1), "{result:#}");
    assert_eq!(count(&result, "cut_off"), 5);
}

struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_listening(address: &str) {
    let start = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "no {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn openssls_own_server_resumes_our_sessions() {
    for (address, version) in [("127.1.1.15:15600", "1.2"), ("127.1.1.16:15600", "1.3")] {
        let _peer = Peer(
            Command::new("openssl")
                .args(["s_server", "-accept", address, "-quiet"])
                .args(options("-cert @/ec.pem -key @/ec.key"))
                .stdin(Stdio::piped()) // at the end of its input it hangs up
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("openssl s_server"),
        );
        wait_listening(address);
        // It serves one connection after the other, so each closes before the next.
        let output = Command::new(BINARY)
            .args(["idle", "--transport", "tls", "--server", address])
            .args(["--close", "0.05", "--connections", "8", "--at-once", "1", "--settle", "0.2"])
            .args(["--local", "127.0.0.1", "--sources", "1", "--json", "-"])
            .args(options("--ca @/ca.pem --resume --tls-version"))
            .arg(version)
            .output()
            .expect("generator");
        let result: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let resumed = result["tls_client_resumed"].as_u64().expect("a count");
        assert!(resumed >= 1, "{version}: {result:#}");
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
    let host = "127.1.1.17";
    let mut generator = Command::new(BINARY)
        .args(["call", "--local", "127.1.1.17:0", "--transport", "udp"])
        .args(["--callee-transport", "tls", "--callee-resume", "--rate", "0.01"])
        .args(["--duration", "20", "--settle", "0", "--drain", "0", "--quiet", "--wait", "sleep"])
        .args(options("--callee-cert @/rsa.pem --callee-key @/rsa.key"))
        .spawn()
        .map(Peer)
        .expect("generator");
    let address = format!("{host}:15570");
    wait_listening(&address);
    for version in ["-tls1_2", "-tls1_3"] {
        let session = certificates().join(format!("session{version}"));
        let session = session.to_str().expect("a plain path");
        for (option, word) in [("-sess_out", "New, "), ("-sess_in", "Reused, ")] {
            let mut client = Command::new("openssl")
                .args(["s_client", "-connect", &address, version, option, session])
                .args(options("-CAfile @/ca.pem -verify_return_error"))
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
