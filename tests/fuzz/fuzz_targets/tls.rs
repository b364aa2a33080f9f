//! Fuzz target: the TLS machine over memory. Any bytes come to a server or a client that waits for its handshake, into a handshake under way, or
//! over a connection that is open, in pieces of any size. It fails in words; what it holds and says stays within what came.
#![no_main]

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use strowger::net::tls::{Contexts, Pair, Settings, Tls};

/// What is said in a handshake by us, alerts and tickets included.
const HANDSHAKE: usize = 16 << 10;

fuzz_target!(|bytes: &[u8]| {
    let [mode, cut, at, rest @ ..] = bytes else {
        return;
    };
    let contexts = contexts();
    let (us, them) = ("127.0.0.1:5061".parse().unwrap(), "127.0.0.1:50000".parse().unwrap());
    let mut server = contexts.accept(them).unwrap();
    let mut client = contexts.connect(us, "sip.example.com").unwrap();
    client.start().unwrap();
    let cut = usize::from(*cut) + 1;
    match mode % 4 {
        // Nobody but a stranger speaks.
        0 => drop(hear(&mut server, rest, cut)),
        1 => {
            client.output().clear();
            hear(&mut client, rest, cut);
        }
        // The bytes come into the client's words, at a place that they name.
        2 => {
            let mut flight = std::mem::take(client.output());
            let from = usize::from(*at) * 2 % flight.len();
            let until = (from + rest.len()).min(flight.len());
            if rest.first().is_some_and(|first| first & 1 == 0) {
                flight.splice(from..from, rest.iter().copied());
            } else {
                flight[from..until].copy_from_slice(&rest[..until - from]);
            }
            hear(&mut server, &flight, cut);
            let back = std::mem::take(server.output());
            hear(&mut client, &back, cut);
        }
        // The connection is open; then the bytes, behind or instead of what the client says.
        _ => {
            shake_hands(&mut client, &mut server);
            client.send(b"OPTIONS sip:a SIP/2.0\r\n\r\n").unwrap();
            let mut said = std::mem::take(client.output());
            let place = usize::from(*at) % (said.len() + 1);
            said.truncate(place.max(said.len() * usize::from(at & 1)));
            said.extend_from_slice(rest);
            let heard = hear(&mut server, &said, cut);
            assert!(heard.is_empty() || heard == b"OPTIONS sip:a SIP/2.0\r\n\r\n");
        }
    }
});

/// Hands the bytes over in pieces; what they say.
fn hear(tls: &mut Tls, bytes: &[u8], cut: usize) -> Vec<u8> {
    let (mut plaintext, mut failures) = (Vec::new(), 0);
    for piece in bytes.chunks(cut) {
        match tls.receive(piece, &mut plaintext) {
            Ok(progress) => assert!(failures == 0 || progress.closed),
            Err(failure) => {
                failures += 1;
                assert!(!failure.reason.is_empty());
            }
        }
    }
    assert!(failures <= 1, "it fails once");
    assert!(plaintext.len() <= bytes.len());
    assert!(tls.output().len() <= HANDSHAKE + bytes.len());
    assert!(failures == 0 || !tls.is_established());
    tls.send(b"SIP/2.0 200 OK\r\n\r\n").unwrap();
    tls.close();
    plaintext
}

fn shake_hands(client: &mut Tls, server: &mut Tls) {
    let mut nothing = Vec::new();
    for _ in 0..4 {
        let there = std::mem::take(client.output());
        server.receive(&there, &mut nothing).unwrap();
        let back = std::mem::take(server.output());
        client.receive(&back, &mut nothing).unwrap();
    }
    assert!(client.is_established() && server.is_established());
}

/// With a certificate that the openssl tool makes once for each process.
fn contexts() -> &'static Contexts {
    static CONTEXTS: OnceLock<Contexts> = OnceLock::new();
    CONTEXTS.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("strowger-fuzz-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let contexts = Contexts::load(&settings(&folder), None).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        contexts
    })
}

fn settings(folder: &Path) -> Settings {
    let pair = Pair { certificate: folder.join("cert.pem"), private_key: folder.join("key.pem") };
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 7 -subj /CN=sip.example.com \
                 -addext subjectAltName=DNS:sip.example.com -keyout";
    let made = Command::new("openssl")
        .args(words.split_whitespace())
        .arg(&pair.private_key)
        .arg("-out")
        .arg(&pair.certificate)
        .output()
        .expect("the openssl tool");
    assert!(made.status.success(), "{made:?}");
    let mut settings = Settings::default();
    settings.rules.trusted_ca = Some(pair.certificate.clone());
    settings.certificates.default_identity.push(pair);
    settings
}
