//! The Homer Encapsulation Protocol, version 3 (EEP): a copy of a message as a collector takes it, one datagram each.
//!
//! `HEP3`, the whole length in 16 bits, then chunks: vendor, type and length in 16 bits each, and the value. Vendor 0 has the types below. Over TLS and
//! TCP the protocol is 6.

use super::event::Event;
use crate::base::Transport;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const FAMILY: u16 = 1;
const PROTOCOL: u16 = 2;
const SOURCE_V4: u16 = 3;
const DESTINATION_V4: u16 = 4;
const SOURCE_V6: u16 = 5;
const DESTINATION_V6: u16 = 6;
const SOURCE_PORT: u16 = 7;
const DESTINATION_PORT: u16 = 8;
const SECONDS: u16 = 9;
const MICROSECONDS: u16 = 10;
const KIND: u16 = 11;
const AGENT: u16 = 12;
const PAYLOAD: u16 = 15;
const CORRELATION: u16 = 17;

/// The size of a chunk's header.
const CHUNK_HEAD: usize = 6;

/// The payload type of SIP.
const SIP: u8 = 1;

/// The longest datagram: what UDP over IPv4 carries.
pub const LONGEST: usize = 65_507;

/// A Call-ID longer than this is useless for correlation.
const CORRELATION_LONGEST: usize = 4096;

/// Writes the datagram of a message; returns false if the event is not a message. A message that does not fit is truncated.
pub fn write(event: &Event, agent: u32, out: &mut Vec<u8>) -> bool {
    out.clear();
    let (Some((from, to)), Some(way)) = (event.ends(), event.way) else {
        return false;
    };
    out.extend_from_slice(b"HEP3\0\0");
    addresses(from, to, out);
    let protocol = match way.transport {
        Transport::Udp => 17,
        Transport::Tcp | Transport::Tls => 6,
    };
    chunk(PROTOCOL, &[protocol], out);
    let (seconds, ns) = (event.time_ns / 1_000_000_000, event.time_ns % 1_000_000_000);
    chunk(SECONDS, &(seconds as u32).to_be_bytes(), out);
    chunk(MICROSECONDS, &((ns / 1000) as u32).to_be_bytes(), out);
    chunk(KIND, &[SIP], out);
    chunk(AGENT, &agent.to_be_bytes(), out);
    let call_id = event.call_id.get(..CORRELATION_LONGEST).unwrap_or(&event.call_id);
    if !call_id.is_empty() {
        chunk(CORRELATION, call_id, out);
    }
    let room = LONGEST - CHUNK_HEAD - out.len();
    chunk(PAYLOAD, event.bytes.get(..room).unwrap_or(&event.bytes), out);
    let length = (out.len() as u16).to_be_bytes();
    out[4..6].copy_from_slice(&length);
    true
}

fn addresses(from: SocketAddr, to: SocketAddr, out: &mut Vec<u8>) {
    match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => addresses_v4(from, to, out),
        // Our own address is only known as "any": that of the other family means the same.
        (IpAddr::V4(from), IpAddr::V6(to)) if to.is_unspecified() => addresses_v4(from, Ipv4Addr::UNSPECIFIED, out),
        (IpAddr::V6(from), IpAddr::V4(to)) if from.is_unspecified() => addresses_v4(Ipv4Addr::UNSPECIFIED, to, out),
        (from, to) => {
            let wide = |ip: IpAddr| match ip {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv6Addr::UNSPECIFIED,
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            chunk(FAMILY, &[10], out);
            chunk(SOURCE_V6, &wide(from).octets(), out);
            chunk(DESTINATION_V6, &wide(to).octets(), out);
        }
    }
    chunk(SOURCE_PORT, &from.port().to_be_bytes(), out);
    chunk(DESTINATION_PORT, &to.port().to_be_bytes(), out);
}

fn addresses_v4(from: Ipv4Addr, to: Ipv4Addr, out: &mut Vec<u8>) {
    chunk(FAMILY, &[2], out);
    chunk(SOURCE_V4, &from.octets(), out);
    chunk(DESTINATION_V4, &to.octets(), out);
}

fn chunk(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let length = (CHUNK_HEAD + value.len()) as u16;
    for number in [0, kind, length] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::event::{Kind, tests::message};
    use std::collections::BTreeMap;

    /// Parses the chunks of a datagram by its own lengths.
    fn chunks(datagram: &[u8]) -> BTreeMap<u16, Vec<u8>> {
        assert_eq!(&datagram[..4], b"HEP3");
        let word = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
        assert_eq!(usize::from(word(4)), datagram.len());
        let (mut at, mut chunks) = (6, BTreeMap::new());
        while at < datagram.len() {
            assert_eq!(word(at), 0, "vendor");
            let length = usize::from(word(at + 4));
            let before = chunks.insert(word(at + 2), datagram[at + 6..at + length].to_vec());
            assert_eq!(before, None);
            at += length;
        }
        assert_eq!(at, datagram.len());
        chunks
    }

    fn encoded(kind: Kind, transport: Transport, peer: &str, own: &str, text: &str) -> BTreeMap<u16, Vec<u8>> {
        let mut out = b"old".to_vec();
        assert!(write(&message(kind, transport, peer, own, text), 0x0102_0304, &mut out));
        chunks(&out)
    }

    #[test]
    fn bytes_of_one() {
        let mut out = Vec::new();
        let event = message(Kind::Received, Transport::Udp, "192.0.2.1:5062", "192.0.2.9:5060", "x\r\ni: a@b\r\n");
        assert!(write(&event, 7, &mut out));
        let expected: [&[u8]; 14] = [
            b"HEP3\0\x77",
            b"\0\0\0\x01\0\x07\x02",
            b"\0\0\0\x03\0\x0a\xc0\0\x02\x01",
            b"\0\0\0\x04\0\x0a\xc0\0\x02\x09",
            b"\0\0\0\x07\0\x08\x13\xc6",
            b"\0\0\0\x08\0\x08\x13\xc4",
            b"\0\0\0\x02\0\x07\x11",
            b"\0\0\0\x09\0\x0a\x6a\x44\x58\x80",
            b"\0\0\0\x0a\0\x0a\0\x01\xe2\x40",
            b"\0\0\0\x0b\0\x07\x01",
            b"\0\0\0\x0c\0\x0a\0\0\0\x07",
            b"\0\0\0\x11\0\x09a@b",
            b"\0\0\0\x0f\0\x11",
            b"x\r\ni: a@b\r\n",
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn directions_families_and_transports() {
        let sent = encoded(Kind::Sent, Transport::Tls, "192.0.2.1:5062", "192.0.2.9:5061", "x");
        assert_eq!((&*sent[&3], &*sent[&4]), (&[192, 0, 2, 9][..], &[192, 0, 2, 1][..]));
        assert_eq!((&*sent[&7], &*sent[&8]), (&5061u16.to_be_bytes()[..], &5062u16.to_be_bytes()[..]));
        assert_eq!(sent[&2], [6]);
        assert_eq!(sent[&12], [1, 2, 3, 4]);
        assert!(!sent.contains_key(&17), "no Call-ID");
        let wide = encoded(Kind::Received, Transport::Tcp, "[2001:db8::1]:1", "[::]:5060", "x");
        assert_eq!((&*wide[&1], wide[&5].len(), &*wide[&6]), (&[10][..], 16, &[0; 16][..]));
        let mapped = encoded(Kind::Received, Transport::Udp, "[::ffff:192.0.2.1]:1", "[::]:5060", "x");
        assert_eq!((&*mapped[&1], &*mapped[&3], &*mapped[&4]), (&[2][..], &[192, 0, 2, 1][..], &[0; 4][..]));
        assert!(!mapped.contains_key(&5));
    }

    #[test]
    fn the_longest_message_is_cut_and_others_are_none() {
        let long = format!("x\r\nCall-ID: {}\r\n\r\n{}", "c".repeat(5000), "b".repeat(65_000));
        let chunks = encoded(Kind::Sent, Transport::Udp, "192.0.2.1:1", "192.0.2.2:2", &long);
        assert_eq!(chunks[&17].len(), CORRELATION_LONGEST);
        assert!(long.as_bytes().starts_with(&chunks[&15]) && chunks[&15].len() > 61_000);
        let mut out = Vec::new();
        let words =
            Event { kind: Kind::Decision, way: None, ..message(Kind::Sent, Transport::Udp, "192.0.2.1:1", "192.0.2.2:2", "") };
        assert!(!write(&words, 0, &mut out));
    }
}
