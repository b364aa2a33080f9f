//! Fuzz target: any bytes in front of a connection as a PROXY header. What is read does not depend on how the bytes are cut nor on what follows, the
//! header has its bounds, and a client that is named comes back from a header that names it.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use strowger::net::proxy_header::{Header, MAX, Origin, read};

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes);
    // The first length at which anything is known. Nothing changes from there on.
    let known = (0..=bytes.len()).find(|length| read(&bytes[..*length]) != Ok(None));
    for length in known.into_iter().flat_map(|known| known..=bytes.len()) {
        assert_eq!(read(&bytes[..length]), whole, "{length} bytes");
    }
    assert_eq!(known.is_none(), whole == Ok(None));
    assert!(whole != Ok(None) || bytes.len() < MAX, "it is known what it is");
    if let Err(fault) = whole {
        assert!(!fault.to_string().is_empty());
    }
    let Ok(Some(header)) = whole else {
        return;
    };
    assert_eq!(Some(header.length), known, "it ends where it ends");
    assert!(header.length <= MAX);
    if let Origin::Client { client, destination } = header.origin {
        assert_eq!(client.ip(), client.ip().to_canonical());
        for written in [line(client, destination), binary(client, destination)] {
            let length = written.len();
            assert_eq!(read(&written), Ok(Some(Header { length, ..header })), "{written:?}");
        }
    }
});

/// Both as addresses of one family, as a header must have them.
fn of_one_family(client: SocketAddr, destination: SocketAddr) -> [IpAddr; 2] {
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        ip => ip,
    };
    match client.is_ipv4() && destination.is_ipv4() {
        true => [client.ip(), destination.ip()],
        false => [mapped(client.ip()), mapped(destination.ip())],
    }
}

/// Version 1.
fn line(client: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let [from, to] = of_one_family(client, destination);
    let family = if from.is_ipv4() { 4 } else { 6 };
    format!("PROXY TCP{family} {from} {to} {} {}\r\n", client.port(), destination.port()).into_bytes()
}

/// Version 2.
fn binary(client: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    let octets = |ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let [from, to] = of_one_family(client, destination).map(octets);
    bytes.push(if from.len() == 4 { 0x11 } else { 0x21 });
    bytes.extend((2 * from.len() as u16 + 4).to_be_bytes());
    bytes.extend([from, to].concat());
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes
}
