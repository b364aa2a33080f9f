//! The header of the PROXY protocol, versions 1 and 2 (haproxy, doc/proxy-protocol.txt): what a load balancer writes in front of a
//! connection that it passes on, and which tells whose it is. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest line of version 1 (section 2.1), its line end included.
const LINE: usize = 107;

/// The longest header that is accepted. Balancers add some hundred bytes of TLVs to the 52 that the longest addresses take.
pub const MAX: usize = 4096;

/// What version 2 begins with (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What version 1 begins with.
const WORD: &[u8; 6] = b"PROXY ";

/// The signature, version and command, family, and the length of what follows.
const FIXED: usize = 16;

/// The type of the TLV that holds a CRC32c of the whole header (section 2.2.4).
const CRC32C: u8 = 0x03;

/// A whole header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Its length in bytes; what follows belongs to the connection.
    pub length: usize,
    pub origin: Origin,
}

/// Whose connection it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The balancer's own, or one about which it knows nothing: its addresses are those of the connection itself.
    Own,
    /// It was passed on for this client, which had connected to `destination`.
    Client { client: SocketAddr, destination: SocketAddr },
}

/// Why a header is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderFault {
    /// The first bytes are those of neither version.
    Missing,
    /// A line of version 1 that is longer than the protocol allows.
    LongLine,
    /// Version 1: the line is not made as the protocol has it.
    Line,
    /// Version 1: neither TCP4, TCP6 nor UNKNOWN.
    Protocol,
    /// A version that is not 1 or 2.
    Version(u8),
    /// Neither LOCAL nor PROXY.
    Command(u8),
    /// Version 2: more bytes than are accepted.
    Long(usize),
    /// It passes on datagrams.
    Datagram,
    /// It passes on a connection of a UNIX socket.
    Unix,
    /// A family and a protocol that the protocol does not define.
    Family(u8),
    /// Version 2: it has no room for the addresses of its family.
    Short(usize),
    /// A TLV does not end within the header.
    Tlv,
    /// The header was changed on its way.
    Checksum,
    /// The connection ended within the header.
    Truncated,
}

impl fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderFault::Missing => f.write_str("the connection begins with something else"),
            HeaderFault::LongLine => write!(f, "its line is longer than {LINE} bytes"),
            HeaderFault::Line => {
                f.write_str("its line is not PROXY, protocol, two addresses and two ports, with one space between")
            }
            HeaderFault::Protocol => f.write_str("it is for neither TCP4, TCP6 nor UNKNOWN"),
            HeaderFault::Version(version) => write!(f, "it has version {version}, and not 1 or 2"),
            HeaderFault::Command(command) => write!(f, "its command is {command}, and not LOCAL (0) or PROXY (1)"),
            HeaderFault::Long(length) => write!(f, "it has {length} bytes, and at most {MAX} are accepted"),
            HeaderFault::Datagram => f.write_str("it is for UDP, and this connection is TCP"),
            HeaderFault::Unix => f.write_str("it is for a UNIX socket, which has no address and port"),
            HeaderFault::Family(byte) => write!(f, "it has the unknown family and protocol {byte:#04x}"),
            HeaderFault::Short(length) => write!(f, "its {length} bytes of addresses are too few for its family"),
            HeaderFault::Tlv => f.write_str("one of its TLVs does not end within it"),
            HeaderFault::Checksum => f.write_str("its CRC32c is wrong"),
            HeaderFault::Truncated => f.write_str("the connection ended within it"),
        }
    }
}

/// Reads the header at the beginning of `bytes`, of which more may follow; `None`: it is right so far, and not complete. A result
/// that is not `None` does not change with more bytes.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, HeaderFault> {
    if is_beginning(bytes, SIGNATURE) {
        return read_binary(bytes);
    }
    match is_beginning(bytes, WORD) {
        true => read_line(bytes),
        false => Err(HeaderFault::Missing),
    }
}

/// True if `bytes` begins with `word`, or is the beginning of it.
fn is_beginning(bytes: &[u8], word: &[u8]) -> bool {
    bytes.iter().zip(word).all(|(byte, wanted)| byte == wanted)
}

// ---- version 1 -------------------------------------------------------------------------------------------------------------

fn read_line(bytes: &[u8]) -> Result<Option<Header>, HeaderFault> {
    let start = bytes.get(..bytes.len().min(LINE)).unwrap_or_default();
    let Some(end) = memchr::memchr2(b'\r', b'\n', start) else {
        return match bytes.len() < LINE {
            true => Ok(None),
            false => Err(HeaderFault::LongLine),
        };
    };
    match start.get(end..).unwrap_or_default() {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if end + 1 < LINE => return Ok(None),
        [b'\r'] => return Err(HeaderFault::LongLine),
        _ => return Err(HeaderFault::Line),
    }
    let line = start.get(WORD.len()..end).ok_or(HeaderFault::Line)?;
    // Anything may follow UNKNOWN, and is ignored.
    let (protocol, rest) = match memchr::memchr(b' ', line) {
        Some(at) => line.split_at(at),
        None => (line, &[][..]),
    };
    let origin = match protocol {
        b"UNKNOWN" => Origin::Own,
        b"TCP4" => addresses_of_line::<Ipv4Addr>(rest)?,
        b"TCP6" => addresses_of_line::<Ipv6Addr>(rest)?,
        _ => return Err(HeaderFault::Protocol),
    };
    Ok(Some(Header { length: end + 2, origin }))
}

/// Reads the addresses and ports of source and destination, with a space before each.
fn addresses_of_line<T: FromStr + Into<IpAddr>>(line: &[u8]) -> Result<Origin, HeaderFault> {
    let line = std::str::from_utf8(line).map_err(|_| HeaderFault::Line)?;
    let mut words = line.split(' ');
    let mut next = || words.next().ok_or(HeaderFault::Line);
    if !next()?.is_empty() {
        return Err(HeaderFault::Line);
    }
    let address = |word: &str| word.parse::<T>().map(Into::into).map_err(|_| HeaderFault::Line);
    let (client, destination) = (address(next()?)?, address(next()?)?);
    let (client_port, destination_port) = (port(next()?)?, port(next()?)?);
    match words.next() {
        Some(_) => Err(HeaderFault::Line),
        None => Ok(client_of((client, client_port), (destination, destination_port))),
    }
}

/// A port in decimal digits, without a zero in front.
fn port(word: &str) -> Result<u16, HeaderFault> {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    let number = is_number.then(|| word.parse().ok());
    number.flatten().ok_or(HeaderFault::Line)
}

/// An IPv4-mapped IPv6 address is the IPv4 address: the networks and limits of the conf mean that.
fn client_of(client: (IpAddr, u16), destination: (IpAddr, u16)) -> Origin {
    let canonical = |(ip, port): (IpAddr, u16)| SocketAddr::new(ip.to_canonical(), port);
    Origin::Client { client: canonical(client), destination: canonical(destination) }
}

// ---- version 2 -------------------------------------------------------------------------------------------------------------

fn read_binary(bytes: &[u8]) -> Result<Option<Header>, HeaderFault> {
    if let Some(byte) = bytes.get(12) {
        check_command(*byte)?;
    }
    let Some(&[command, family, high, low]) = bytes.get(12..FIXED) else {
        return Ok(None);
    };
    let behind = usize::from(u16::from_be_bytes([high, low]));
    let length = FIXED + behind;
    if length > MAX {
        return Err(HeaderFault::Long(length));
    }
    let is_local = command & 0x0f == 0;
    let address_length = match (is_local, family) {
        // What follows is skipped, whatever it is.
        (true, _) | (false, 0x00) => None,
        (false, 0x11) => Some(12),
        (false, 0x21) => Some(36),
        (false, 0x12 | 0x22) => return Err(HeaderFault::Datagram),
        (false, 0x31 | 0x32) => return Err(HeaderFault::Unix),
        (false, other) => return Err(HeaderFault::Family(other)),
    };
    if address_length.is_some_and(|needed| needed > behind) {
        return Err(HeaderFault::Short(behind));
    }
    let Some(header) = bytes.get(..length) else {
        return Ok(None);
    };
    let Some(address_length) = address_length else {
        return Ok(Some(Header { length, origin: Origin::Own }));
    };
    let (addresses, tlvs) = header.get(FIXED..).unwrap_or_default().split_at(address_length);
    check_tlvs(header, tlvs)?;
    let origin = addresses_of(addresses).ok_or(HeaderFault::Short(behind))?;
    Ok(Some(Header { length, origin }))
}

/// The version in the high half of the byte, the command in the low one.
fn check_command(byte: u8) -> Result<(), HeaderFault> {
    match (byte >> 4, byte & 0x0f) {
        (2, 0 | 1) => Ok(()),
        (2, command) => Err(HeaderFault::Command(command)),
        (version, _) => Err(HeaderFault::Version(version)),
    }
}

/// Reads two addresses, then two ports.
fn addresses_of(bytes: &[u8]) -> Option<Origin> {
    let (hosts, ports) = bytes.split_at_checked(bytes.len() - 4)?;
    let (client, destination) = hosts.split_at_checked(hosts.len() / 2)?;
    let ip = |bytes: &[u8]| match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    let &[a, b, c, d] = ports else {
        return None;
    };
    Some(client_of((ip(client)?, u16::from_be_bytes([a, b])), (ip(destination)?, u16::from_be_bytes([c, d]))))
}

/// Walks over the TLVs, of which only the checksum has a meaning here.
fn check_tlvs(header: &[u8], mut tlvs: &[u8]) -> Result<(), HeaderFault> {
    let mut checksum = None;
    while let [kind, rest @ ..] = tlvs {
        let &[high, low, ref rest @ ..] = rest else {
            return Err(HeaderFault::Tlv);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(HeaderFault::Tlv)?;
        if *kind == CRC32C {
            let sum: [u8; 4] = value.try_into().map_err(|_| HeaderFault::Tlv)?;
            checksum = Some((header.len() - rest.len() - sum.len(), u32::from_be_bytes(sum)));
        }
        tlvs = rest;
    }
    match checksum {
        Some((at, sum)) if crc32c(header, at) != sum => Err(HeaderFault::Checksum),
        _ => Ok(()),
    }
}

/// The CRC32c (RFC 9260, appendix A) of a header, in which the four bytes from `at` on, its own, count as zero.
fn crc32c(header: &[u8], at: usize) -> u32 {
    let sum = header.iter().enumerate().fold(u32::MAX, |sum, (place, byte)| {
        let byte = if (at..at + 4).contains(&place) { 0 } else { *byte };
        sum >> 8 ^ CASTAGNOLI[(sum as u8 ^ byte) as usize]
    });
    !sum
}

/// What each byte adds to the sum, by the polynomial of Castagnoli with its bits reversed.
const CASTAGNOLI: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn client(client: &str, destination: &str) -> Origin {
        Origin::Client { client: client.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// A header of version 2.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xc3, 0x50, 0x13, 0xc4];

    fn ipv6(client: &str, destination: &str) -> Vec<u8> {
        let octets = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        [&octets(client)[..], &octets(destination), &[0xc3, 0x50, 0x13, 0xc5]].concat()
    }

    /// Reads it however it is cut, with and without bytes behind it.
    #[track_caller]
    fn read_all(bytes: &[u8]) -> Result<Header, HeaderFault> {
        let whole = read(bytes);
        let first = (0..=bytes.len()).find(|length| read(&bytes[..*length]) != Ok(None));
        let first = first.expect("it ends");
        for length in first..=bytes.len() {
            assert_eq!(read(&bytes[..length]), whole, "{length} bytes");
        }
        assert_eq!(read(&[bytes, b"\x16\x03\x01"].concat()), whole);
        let header = whole?.expect("it is whole");
        assert_eq!((header.length, first), (bytes.len(), bytes.len()), "it ends where it ends");
        Ok(header)
    }

    #[test]
    fn version_1() {
        for (line, origin) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 50000 5060\r\n", client("192.0.2.7:50000", "198.51.100.1:5060")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n", client("255.255.255.255:65535", "255.255.255.255:0")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 50000 5061\r\n", client("[2001:db8::7]:50000", "[2001:db8::1]:5061")),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 1 2\r\n", client("192.0.2.7:1", "198.51.100.1:2")),
            ("PROXY UNKNOWN\r\n", Origin::Own),
            ("PROXY UNKNOWN ffff:f...f:ffff whatever it is\r\n", Origin::Own),
        ] {
            assert_eq!(read_all(line.as_bytes()), Ok(Header { length: line.len(), origin }), "{line:?}");
        }
    }

    #[test]
    fn the_longest_line() {
        let line = |rest: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(rest)).into_bytes();
        assert_eq!(line(91).len(), LINE);
        assert_eq!(read_all(&line(91)), Ok(Header { length: LINE, origin: Origin::Own }));
        for rest in [92, 93, 500] {
            assert_eq!(read_all(&line(rest)), Err(HeaderFault::LongLine));
        }
        let v6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("PROXY TCP6 {v6} {v6} 65535 65535\r\n");
        assert!(read_all(longest.as_bytes()).is_ok() && longest.len() <= LINE);
    }

    #[test]
    fn lines_that_are_wrong() {
        for (line, fault) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 50000\r\n", HeaderFault::Line),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 50000 5060 \r\n", HeaderFault::Line),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 50000 5060 1\r\n", HeaderFault::Line),
            ("PROXY TCP4  192.0.2.7 198.51.100.1 50000 5060\r\n", HeaderFault::Line),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 50000 65536\r\n", HeaderFault::Line),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 +5000 5060\r\n", HeaderFault::Line),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 05000 5060\r\n", HeaderFault::Line),
            ("PROXY TCP4 192.0.2.7 198.51.100.1  5060\r\n", HeaderFault::Line),
            ("PROXY TCP4 192.0.2.07 198.51.100.1 50000 5060\r\n", HeaderFault::Line),
            ("PROXY TCP4 192.0.2 198.51.100.1 50000 5060\r\n", HeaderFault::Line),
            ("PROXY TCP4 2001:db8::7 2001:db8::1 50000 5060\r\n", HeaderFault::Line),
            ("PROXY TCP6 192.0.2.7 198.51.100.1 50000 5060\r\n", HeaderFault::Line),
            ("PROXY TCP4 192.0.2.7 198.51.100.\u{e9} 50000 5060\r\n", HeaderFault::Line),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 50000 5060\n", HeaderFault::Line),
            ("PROXY TCP4 192.0.2.7\r198.51.100.1 50000 5060\r\n", HeaderFault::Line),
            ("PROXY TCP4\r\n", HeaderFault::Line),
            ("PROXY \r\n", HeaderFault::Protocol),
            ("PROXY UDP4 192.0.2.7 198.51.100.1 50000 5060\r\n", HeaderFault::Protocol),
            ("PROXY tcp4 192.0.2.7 198.51.100.1 50000 5060\r\n", HeaderFault::Protocol),
            ("PROXY UNKNOWNS\r\n", HeaderFault::Protocol),
            ("PROXY\r\n", HeaderFault::Missing),
            ("proxy TCP4 192.0.2.7 198.51.100.1 50000 5060\r\n", HeaderFault::Missing),
            ("OPTIONS sip:a SIP/2.0\r\n", HeaderFault::Missing),
            ("PUBLISH sip:a SIP/2.0\r\n", HeaderFault::Missing),
            ("\u{16}\u{3}\u{1}", HeaderFault::Missing),
            ("\r\n\r\n\r\n", HeaderFault::Missing),
        ] {
            assert_eq!(read_all(line.as_bytes()), Err(fault), "{line:?}");
        }
    }

    #[test]
    fn version_2() {
        let mapped = ipv6("::ffff:192.0.2.7", "::ffff:198.51.100.1");
        for (bytes, origin) in [
            (binary(0x21, 0x11, &IPV4), client("192.0.2.7:50000", "198.51.100.1:5060")),
            (binary(0x21, 0x21, &ipv6("2001:db8::7", "2001:db8::1")), client("[2001:db8::7]:50000", "[2001:db8::1]:5061")),
            (binary(0x21, 0x21, &mapped), client("192.0.2.7:50000", "198.51.100.1:5061")),
            (
                binary(0x21, 0x11, &[&IPV4[..], &tlv(1, b"sip"), &tlv(4, &[0; 300])].concat()),
                client("192.0.2.7:50000", "198.51.100.1:5060"),
            ),
            // Unspecified, and the balancer's own: what follows is skipped.
            (binary(0x21, 0x00, b""), Origin::Own),
            (binary(0x21, 0x00, b"\x03whatever it is"), Origin::Own),
            (binary(0x20, 0x00, b""), Origin::Own),
            (binary(0x20, 0x11, &IPV4), Origin::Own),
            (binary(0x20, 0x31, b"short"), Origin::Own),
            (binary(0x20, 0x00, &[0; MAX - FIXED]), Origin::Own),
        ] {
            assert_eq!(read_all(&bytes), Ok(Header { length: bytes.len(), origin }), "{bytes:?}");
        }
    }

    #[test]
    fn headers_that_are_wrong() {
        let mut changed = *SIGNATURE;
        changed[11] = b'\r';
        for (bytes, fault) in [
            (changed.to_vec(), HeaderFault::Missing),
            (binary(0x11, 0x11, &IPV4), HeaderFault::Version(1)),
            (binary(0x31, 0x11, &IPV4), HeaderFault::Version(3)),
            (binary(0x22, 0x11, &IPV4), HeaderFault::Command(2)),
            (binary(0x21, 0x12, &IPV4), HeaderFault::Datagram),
            (binary(0x21, 0x22, &ipv6("::1", "::1")), HeaderFault::Datagram),
            (binary(0x21, 0x31, &[0; 216]), HeaderFault::Unix),
            (binary(0x21, 0x32, &[0; 216]), HeaderFault::Unix),
            (binary(0x21, 0x10, &IPV4), HeaderFault::Family(0x10)),
            (binary(0x21, 0x01, &IPV4), HeaderFault::Family(0x01)),
            (binary(0x21, 0x41, &IPV4), HeaderFault::Family(0x41)),
            (binary(0x21, 0x11, &IPV4[..11]), HeaderFault::Short(11)),
            (binary(0x21, 0x21, &[0; 35]), HeaderFault::Short(35)),
            (binary(0x21, 0x11, &[&IPV4[..], b"\x01"].concat()), HeaderFault::Tlv),
            (binary(0x21, 0x11, &[&IPV4[..], b"\x01\0\x02a"].concat()), HeaderFault::Tlv),
            (binary(0x21, 0x11, &[&IPV4[..], &tlv(CRC32C, b"abc")].concat()), HeaderFault::Tlv),
            (binary(0x20, 0x00, &[0; MAX - FIXED + 1]), HeaderFault::Long(MAX + 1)),
            (binary(0x21, 0x11, &[0; 0xffff]), HeaderFault::Long(FIXED + 0xffff)),
        ] {
            assert_eq!(read_all(&bytes), Err(fault), "{bytes:?}");
            assert!(!fault.to_string().is_empty());
        }
    }

    #[test]
    fn the_checksum() {
        // The check value of the algorithm.
        assert_eq!(crc32c(b"123456789", 100), 0xe306_9283);
        let rest = [&IPV4[..], &tlv(CRC32C, &[0; 4]), &tlv(1, b"sip")].concat();
        let mut bytes = binary(0x21, 0x11, &rest);
        let at = FIXED + IPV4.len() + 3;
        let sum = crc32c(&bytes, at).to_be_bytes();
        bytes[at..at + 4].copy_from_slice(&sum);
        assert!(read_all(&bytes).is_ok());
        // Without its type it is no checksum.
        for place in (FIXED..bytes.len()).filter(|place| *place != at - 3) {
            let mut other = bytes.clone();
            other[place] ^= 1;
            assert!(read(&other).is_err(), "byte {place} was changed");
        }
    }
}
