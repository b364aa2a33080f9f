//! Fuzz target: any lines as URIs, addresses, hosts and Vias. Equality is reflexive and symmetric, the canonical forms are their own canonical
//! forms, and what is read lies where it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strowger::sip::{Host, Index, Message, Name, NameAddr, Scheme, Uri, Via, same_name, unescaped, write_escaped};

fuzz_target!(|bytes: &[u8]| {
    let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').take(8).collect();
    let uris: Vec<Uri> = lines.iter().filter_map(|l| Uri::parse(l).ok()).collect();
    for a in &uris {
        lies_within(a);
        assert!(a.equals(a));
        address_is_canonical(a);
        for b in &uris {
            assert_eq!(a.equals(b), b.equals(a));
            if a.equals(b) && a.scheme != Scheme::Other {
                assert_eq!(address_of(a), address_of(b));
            }
        }
    }
    for line in &lines {
        host(line);
        name_addr(line);
        via(line);
        let mut escaped = Vec::new();
        write_escaped(unescaped(line), &mut escaped);
        assert!(unescaped(&escaped).eq(unescaped(line)));
        for other in &lines {
            assert_eq!(same_name(line, other), same_name(other, line));
        }
    }
});

fn address_of(uri: &Uri) -> Vec<u8> {
    let mut key = Vec::new();
    uri.write_address_of_record(&mut key);
    key
}

/// The address-of-record of `sip:` and an address-of-record is the same.
fn address_is_canonical(uri: &Uri) {
    let prefix: &[u8] = match uri.scheme {
        Scheme::Sip | Scheme::Sips => b"sip:",
        Scheme::Tel => b"tel:",
        Scheme::Other => b"",
    };
    let (key, again) = (address_of(uri), [prefix, &address_of(uri)].concat());
    match Uri::parse(&again) {
        Ok(again) => assert_eq!(address_of(&again), key),
        Err(fault) => panic!("{again:?} is no URI any more: {fault:?}"),
    }
}

fn lies_within(uri: &Uri) {
    let parts = [uri.user, uri.password, Some(uri.host_text), uri.headers];
    for part in parts.into_iter().flatten() {
        within(uri.text, part);
    }
    for (name, value) in uri.params {
        within(uri.text, name);
        within(uri.text, value.unwrap_or_default());
        assert!(uri.param(name).is_some());
    }
    let _ = (uri.transport(), uri.maddr(), uri.is_loose());
}

fn host(text: &[u8]) {
    let canonical = |host: Host| {
        let mut out = Vec::new();
        host.write_canonical(&mut out);
        out
    };
    let host = Host::of(text);
    let once = canonical(host);
    // One dot at the end goes; of two, none is left to stand for a name.
    if !text.ends_with(b"..") {
        assert_eq!(canonical(Host::of(&once)), once);
        let same = host.ip().map(|ip| ip.to_canonical());
        assert_eq!(Host::of(&once).ip(), same);
    }
    let _ = host.to_string();
}

fn name_addr(text: &[u8]) {
    let Ok(address) = NameAddr::parse(text) else {
        return;
    };
    assert_eq!(&text[address.uri_span.range()], address.uri);
    within(text, address.display.unwrap_or_default());
    for (name, value) in address.params {
        within(text, name);
        within(text, value.unwrap_or_default());
    }
    let _ = (address.tag(), address.expires());
    assert!(!matches!(address.q(), Ok(Some(q)) if q > 1000));
}

/// A response, whose lines may be anything.
fn via(text: &[u8]) {
    let message = [b"SIP/2.0 200 OK\r\nVia: ", text, b"\r\n\r\n"].concat();
    let mut index = Index::default();
    let Ok(message) = Message::parse(&message, &mut index) else {
        return;
    };
    for value in message.values(Name::Via) {
        let Ok(via) = Via::parse(value) else {
            continue;
        };
        within(value.text, via.branch().unwrap_or_default());
        within(value.text, via.maddr().unwrap_or_default());
        assert!(via.params_end() <= message.bytes().len());
        let _ = (via.received(), via.rport(), via.ttl());
    }
}

fn within(whole: &[u8], part: &[u8]) {
    let (outer, inner) = (whole.as_ptr_range(), part.as_ptr_range());
    assert!(part.is_empty() || (outer.start <= inner.start && inner.end <= outer.end));
}
