//! The TLS machine against another implementation, over real sockets: the command `openssl` as client and as server.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use strowger::net::tls::{By, Contexts, Failure, Pair, Settings, Tls, VerifyClient, Version};

/// Nothing here takes longer unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with the certificates of scripts/certs, made once for all tests here.
fn certs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("certs");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/certs");
        let status = Command::new(script).arg(&folder).status().unwrap();
        assert!(status.success());
        folder
    })
}

fn file(name: &str) -> String {
    certs().join(name).to_str().unwrap().to_string()
}

fn pair(name: &str) -> Pair {
    Pair { certificate: certs().join(format!("{name}.pem")), private_key: certs().join(format!("{name}.key")) }
}

fn server(change: impl FnOnce(&mut Settings)) -> Contexts {
    let mut settings = Settings::default();
    settings.certificates.default_identity = vec![pair("ecdsa"), pair("rsa")];
    settings.rules.trusted_ca = Some(certs().join("ca.pem"));
    change(&mut settings);
    Contexts::load(&settings, None).unwrap()
}

fn client(change: impl FnOnce(&mut Settings)) -> Contexts {
    server(|settings| {
        settings.certificates.default_identity.clear();
        change(settings);
    })
}

/// What became of a connection.
struct Outcome {
    tls: Tls,
    heard: Vec<u8>,
    failure: Option<Failure>,
}

/// Carries bytes between a socket and the machine until the connection ends, `until` has come, or time is up. A line that is
/// heard is answered by `answer`, and that is the end.
fn carry(mut stream: TcpStream, mut tls: Tls, until: Option<&[u8]>, answer: Option<&[u8]>) -> Outcome {
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let end = Instant::now() + PATIENCE;
    let mut heard = Vec::new();
    let mut failure = None;
    let mut closed = false;
    let mut buffer = [0; 16 * 1024];
    while Instant::now() < end {
        let output = std::mem::take(tls.output());
        if stream.write_all(&output).is_err() || failure.is_some() || closed {
            break;
        }
        let is_heard = |until: &[u8]| heard.windows(until.len()).any(|part| part == until);
        if until.is_some_and(is_heard) {
            // Without it a peer that keeps sessions in its memory would forget this one.
            tls.close();
            let _ = stream.write_all(tls.output());
            break;
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => match tls.receive(&buffer[..len], &mut heard) {
                Ok(progress) => {
                    let lines = heard.iter().filter(|byte| **byte == b'\n').count();
                    if let (Some(answer), true) = (answer, lines > 0) {
                        tls.send(answer).unwrap();
                        tls.close();
                    }
                    if progress.closed {
                        closed = true;
                        tls.close();
                    }
                }
                Err(error) => failure = Some(error),
            },
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
            Err(_) => break,
        }
    }
    Outcome { tls, heard, failure }
}

/// The connection that `child` makes; what it says if it ends without.
fn accept(listener: &TcpListener, child: &mut Child) -> (TcpStream, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let end = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(false).unwrap();
                return (stream, peer);
            }
            Err(_) if Instant::now() < end && child.try_wait().unwrap().is_none() => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => {
                let _ = child.kill();
                panic!("no connection: {error}");
            }
        }
    }
}

/// One connection of `openssl s_client` to our server: what the command printed, and what we saw.
fn s_client(contexts: &Contexts, input: &str, arguments: &[&str]) -> (String, Outcome) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(["-CAfile", &file("ca.pem"), "-verify_return_error"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its input stays open: it ends when we close the connection.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    let (stream, peer) = accept(&listener, &mut child);
    let tls = contexts.accept(peer).unwrap();
    let outcome = carry(stream, tls, None, Some(b"SIP/2.0 200 OK\r\n"));
    let Output { stdout, stderr, .. } = child.wait_with_output().unwrap();
    drop(stdin);
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (text, outcome)
}

/// `openssl s_server`, which answers each line with the same backwards.
struct Peer {
    child: Child,
    address: SocketAddr,
}

impl Peer {
    fn start(arguments: &[&str]) -> Peer {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-rev"])
            .args(["-CAfile", &file("ca.pem")])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("s_server ended").unwrap();
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                break address.parse().unwrap();
            }
        };
        // What is not read would stop it.
        thread::spawn(move || lines.for_each(drop));
        Peer { child, address }
    }

    fn talk(&self, contexts: &Contexts, name: &str) -> Outcome {
        let stream = TcpStream::connect(self.address).unwrap();
        let mut tls = contexts.connect(self.address, name).unwrap();
        tls.send(b"OPTIONS\n").unwrap();
        tls.start().unwrap();
        carry(stream, tls, Some(b"SNOITPO\n"), None)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const VERSIONS: [(Version, &str, &str); 2] = [(Version::Tls12, "-tls1_2", "TLSv1.2"), (Version::Tls13, "-tls1_3", "TLSv1.3")];

#[test]
fn s_client_connects_and_resumes_with_either_version_and_key() {
    let contexts = server(|_| {});
    for (version, option, name) in VERSIONS {
        for (key, algorithms) in [("ecdsa", "ECDSA+SHA256"), ("rsa", "RSA-PSS+SHA256:RSA+SHA256")] {
            let saved = certs().join(format!("session-{key}-{name}"));
            let saved = saved.to_str().unwrap();
            // The authority signs with ECDSA, so of TLS 1.2 the suite decides and of TLS 1.3 the client's algorithms.
            let choice: [&str; 2] = match (version, key) {
                (Version::Tls12, "ecdsa") => ["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
                (Version::Tls12, _) => ["-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
                (Version::Tls13, _) => ["-sigalgs", algorithms],
            };
            let mut arguments = vec![option, "-sess_out", saved, "-verify_hostname", "localhost"];
            arguments.extend(choice);
            if (version, key) == (Version::Tls13, "rsa") {
                // It will not have a chain with an algorithm that it did not offer, so it does not look at the chain.
                arguments.retain(|argument| *argument != "-verify_return_error");
                arguments = vec![option, "-sess_out", saved, "-sigalgs", algorithms];
                continue_unverified(&contexts, &arguments, key);
                continue;
            }
            let (text, outcome) = s_client(&contexts, "OPTIONS\n", &arguments);
            assert_eq!(outcome.failure, None, "{text}");
            assert!(text.contains("Verification: OK"), "{text}");
            assert!(text.contains(&format!("New, {name}")), "{text}");
            assert!(text.contains("SIP/2.0 200 OK"), "{text}");
            assert_eq!(outcome.heard, b"OPTIONS\n");
            assert_eq!(outcome.tls.handshake_calls(), 2);
            assert!(!outcome.tls.is_resumed());

            let mut again = arguments.clone();
            again.extend(["-sess_in", saved]);
            let (text, outcome) = s_client(&contexts, "OPTIONS\n", &again);
            assert_eq!(outcome.failure, None, "{text}");
            assert!(text.contains(&format!("Reused, {name}")), "{text}");
            assert!(outcome.tls.is_resumed());
            assert_eq!(outcome.tls.handshake_calls(), 2);
        }
    }
}

/// The same for a client that can check RSA signatures only.
fn continue_unverified(contexts: &Contexts, arguments: &[&str], key: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (stream, peer) = accept(&listener, &mut child);
    let outcome = carry(stream, contexts.accept(peer).unwrap(), None, None);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(outcome.failure, None, "{text}");
    assert!(text.contains(&format!("strowger development {key}")), "{text}");
}

#[test]
fn s_client_without_tickets_resumes_by_session_id() {
    let contexts = server(|_| {});
    let saved = certs().join("session-by-id");
    let saved = saved.to_str().unwrap();
    let arguments = ["-tls1_2", "-no_ticket", "-sess_out", saved];
    let (text, outcome) = s_client(&contexts, "OPTIONS\n", &arguments);
    assert_eq!(outcome.failure, None);
    assert!(text.contains("New, TLSv1.2"), "{text}");
    assert!(!fs::read_to_string(saved).unwrap().is_empty());
    let again = ["-tls1_2", "-no_ticket", "-sess_in", saved];
    let (text, outcome) = s_client(&contexts, "OPTIONS\n", &again);
    assert!(text.contains("Reused, TLSv1.2"), "{text}");
    assert!(outcome.tls.is_resumed());
}

#[test]
fn s_client_proves_itself_where_it_must() {
    let contexts = server(|settings| settings.rules.verify_client = VerifyClient::Required);
    let certificate = file("client.pem");
    let key = file("client.key");
    for (_, option, _) in VERSIONS {
        let arguments = [option, "-cert", &certificate, "-key", &key];
        let (text, outcome) = s_client(&contexts, "OPTIONS\n", &arguments);
        assert_eq!(outcome.failure, None, "{text}");
        assert!(text.contains("SIP/2.0 200 OK"), "{text}");
        assert!(outcome.tls.is_mutual());
        assert_eq!(outcome.tls.peer_names(), ["client.example.com"]);

        let (_, outcome) = s_client(&contexts, "OPTIONS\n", &[option]);
        let failure = outcome.failure.unwrap();
        assert_eq!(failure.by, By::Us);
        assert_eq!(failure.reason, "peer did not return a certificate");
    }
}

#[test]
fn s_client_may_not_renegotiate() {
    let contexts = server(|_| {});
    let (text, outcome) = s_client(&contexts, "R\n", &["-tls1_2"]);
    // AWS-LC ends the connection; OpenSSL says no by a warning, at which the client ends it.
    assert!(text.contains("RENEGOTIATING"), "{text}");
    let refused = ["no renegotiation", "no_renegotiation", "unexpected message"];
    let reason = outcome.failure.map(|failure| failure.reason);
    let said = format!("{text} {reason:?}").to_lowercase();
    assert!(refused.iter().any(|words| said.contains(words)), "{said}");
    assert!(!text.contains("SIP/2.0 200 OK"));
}

#[test]
fn the_mandatory_suite_of_sip_and_who_asks_for_it_by_conf() {
    let contexts = server(|settings| settings.rules.ciphers = "TLS_RSA_WITH_AES_128_CBC_SHA".into());
    let arguments = ["-tls1_2", "-cipher", "AES128-SHA"];
    let (text, outcome) = s_client(&contexts, "OPTIONS\n", &arguments);
    assert_eq!(outcome.failure, None, "{text}");
    assert_eq!(outcome.tls.cipher(), "AES128-SHA");
}

#[test]
fn a_client_that_trusts_others_tells_us_so() {
    let contexts = server(|_| {});
    for (_, option, _) in VERSIONS {
        // The client's own certificate is no authority.
        let (_, outcome) = s_client(&contexts, "", &[option, "-CAfile", &file("client.pem")]);
        let failure = outcome.failure.unwrap();
        assert_eq!((failure.by, failure.reason.as_str()), (By::Peer, "unknown ca"));
        let line = failure.to_string();
        assert_eq!(line, "handshake failed: peer sent alert: unknown ca");
    }
}

#[test]
fn s_server_is_resumed_by_ticket_and_by_session_id() {
    for (version, option, name) in VERSIONS {
        for key in ["ecdsa", "rsa"] {
            for without_tickets in [false, true] {
                let certificate = file(&format!("{key}.pem"));
                let private_key = file(&format!("{key}.key"));
                let mut arguments = vec![option, "-cert", &certificate, "-key", &private_key];
                if without_tickets {
                    arguments.push("-no_ticket");
                }
                let peer = Peer::start(&arguments);
                let contexts = client(|_| {});
                for round in 0..4 {
                    let outcome = peer.talk(&contexts, "localhost");
                    assert_eq!(outcome.failure, None);
                    assert_eq!(outcome.heard, b"SNOITPO\n");
                    let tls = &outcome.tls;
                    assert_eq!(tls.version(), name);
                    assert_eq!(tls.is_resumed(), round > 0, "{name} {key} {without_tickets}");
                    assert_eq!(tls.peer_names(), ["localhost", "example.com"]);
                    let flights = match (version, round) {
                        (Version::Tls12, 0) => 3,
                        _ => 2,
                    };
                    // The flight may come in several reads; never is there a call without a record.
                    assert!((flights..flights + 2).contains(&tls.handshake_calls()));
                }
            }
        }
    }
}

#[test]
fn s_server_gets_our_certificate_and_we_resume_with_it() {
    let certificate = file("rsa.pem");
    let key = file("rsa.key");
    for (_, option, _) in VERSIONS {
        let arguments = [option, "-cert", &certificate, "-key", &key, "-Verify", "2"];
        let peer = Peer::start(&[&arguments[..], &["-verify_return_error"]].concat());
        let contexts = client(|settings| settings.certificates.client_identity = vec![pair("client")]);
        for round in 0..3 {
            let outcome = peer.talk(&contexts, "127.0.0.1");
            assert_eq!(outcome.failure, None);
            assert_eq!(outcome.heard, b"SNOITPO\n");
            assert_eq!(outcome.tls.is_resumed(), round > 0);
            assert_eq!(outcome.tls.is_mutual(), round == 0);
        }
        let outcome = peer.talk(&client(|_| {}), "localhost");
        let failure = outcome.failure.unwrap();
        assert_eq!(failure.by, By::Peer);
        let expected = ["handshake failure", "certificate required"];
        assert!(expected.contains(&failure.reason.as_str()), "{failure}");
    }
}

#[test]
fn s_server_of_another_name_is_refused() {
    let certificate = file("ecdsa.pem");
    let key = file("ecdsa.key");
    let peer = Peer::start(&["-cert", &certificate, "-key", &key]);
    let outcome = peer.talk(&client(|_| {}), "sip.example.com");
    let failure = outcome.failure.unwrap();
    assert_eq!(failure.by, By::Us);
    let reason = "certificate verify failed: the certificate is for localhost, example.com, not \
                  sip.example.com";
    assert_eq!(failure.reason, reason);
    assert_eq!(peer.talk(&client(|_| {}), "example.com").failure, None);
}
