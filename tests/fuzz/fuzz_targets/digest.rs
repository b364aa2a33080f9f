//! Fuzz target: any bytes as the value of an Authorization header field, and its parts as nonce, hash and algorithm. What is read lies in the
//! value, says the same when it is written again, and names the realm that it was read with.
#![no_main]

use std::net::Ipv4Addr;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use strowger::base::Key;
use strowger::sip::Credentials;
use strowger::stack::auth::digest::{Algorithm, Hash};
use strowger::stack::auth::nonce::{Nonces, Verdict};

fuzz_target!(|value: &[u8]| {
    Credentials::name_realm(value, |realm| realm.starts_with(b"x"));
    hash_is_its_digits(value);
    nonces_are_our_own(value);
    let Ok(Some(read)) = Credentials::parse(value) else {
        return;
    };
    for part in parts(&read) {
        within(value, part.1);
    }
    let again = written(value, &read);
    assert_eq!(Credentials::parse(&again), Ok(Some(read)));
    // With the escapes as they stand, or without them.
    let plain = |realm: &[u8]| realm == read.realm;
    if !read.realm.contains(&b'\\') {
        assert!(Credentials::name_realm(value, plain));
    }
    let mut calls = 0;
    Credentials::name_realm(value, |_| {
        calls += 1;
        false
    });
    assert_eq!(calls, 1, "a Digest that can be read has one realm");
    hash_is_its_digits(read.response);
    nonces_are_our_own(read.nonce);
    if let Some((algorithm, _)) = read.algorithm.and_then(Algorithm::parse) {
        assert!(matches!(algorithm.hash_len(), 16 | 32));
    }
});

/// Each parameter that is there.
fn parts<'a>(read: &Credentials<'a>) -> Vec<(&'static str, &'a [u8])> {
    let some = |name, value: Option<&'a [u8]>| value.map(|value| (name, value));
    let all = [
        Some(("username", read.username)),
        Some(("realm", read.realm)),
        Some(("nonce", read.nonce)),
        Some(("uri", read.uri)),
        Some(("response", read.response)),
        some("algorithm", read.algorithm),
        some("cnonce", read.cnonce),
        some("qop", read.qop),
        some("nc", read.nc),
    ];
    all.into_iter().flatten().collect()
}

/// The same parameters in another form. What had quotes keeps them.
fn written(value: &[u8], read: &Credentials) -> Vec<u8> {
    let mut out = b"Digest ".to_vec();
    for (name, part) in parts(read) {
        let at = part.as_ptr() as usize - value.as_ptr() as usize;
        let quote = &b"\""[..usize::from(at > 0 && value[at - 1] == b'"')];
        for piece in [name.as_bytes(), b"=", quote, part, quote, b" , "] {
            out.extend_from_slice(piece);
        }
    }
    out
}

fn within(whole: &[u8], part: &[u8]) {
    let (outer, inner) = (whole.as_ptr_range(), part.as_ptr_range());
    assert!(part.is_empty() || (outer.start <= inner.start && inner.end <= outer.end));
}

fn hash_is_its_digits(text: &[u8]) {
    if let Some(hash) = Hash::from_hex(text) {
        assert!(hash.hex().bytes().eq_ignore_ascii_case(text));
        assert!(hash.equals(&Hash::new(hash.bytes()).unwrap()));
    }
}

fn nonces_are_our_own(text: &[u8]) {
    static NONCES: OnceLock<(Nonces, Vec<u8>)> = OnceLock::new();
    let (nonces, own) = NONCES.get_or_init(|| {
        let (nonces, mut own) = (Nonces::new(Key::new(1, 2), 3, 16), Vec::new());
        nonces.write(1000, 0, 7, b"realm", Ipv4Addr::LOCALHOST.into(), &mut own);
        (nonces, own)
    });
    let verdict = nonces.read(1000, 60_000, b"realm", text, Ipv4Addr::LOCALHOST.into());
    assert_eq!(matches!(verdict, Verdict::Good(_)), text == own);
}
