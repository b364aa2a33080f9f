//! A SIP URI taken apart and compared (RFC 3261 §19.1), sharing nothing with the server's parser.

use super::text::{number, param};
use std::net::{IpAddr, SocketAddr};

/// A sip: URI taken apart, naively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    pub user: &'a [u8],
    pub host: &'a [u8],
    pub port: Option<u16>,
    /// Behind the host and port, with its first `;`.
    pub params: &'a [u8],
}

impl<'a> Address<'a> {
    pub fn of(uri: &'a [u8]) -> Option<Address<'a>> {
        if uri.len() < 5 || !uri[..4].eq_ignore_ascii_case(b"sip:") {
            return None;
        }
        let rest = &uri[4..];
        let (user, rest) = match rest.iter().position(|b| *b == b'@') {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (&b""[..], rest),
        };
        let end = rest.iter().position(|b| matches!(b, b';' | b'?')).unwrap_or(rest.len());
        let (place, params) = rest.split_at(end);
        let colon = match place.iter().position(|b| *b == b']') {
            Some(bracket) => bracket + 1,
            None => place.iter().position(|b| *b == b':').unwrap_or(place.len()),
        };
        let (host, port) = place.split_at(colon);
        let port = match port.strip_prefix(b":") {
            Some(digits) => Some(u16::try_from(number(digits)?).ok()?),
            None if port.is_empty() => None,
            None => return None,
        };
        Some(Address { user, host, port, params })
    }

    pub fn ip(&self) -> Option<IpAddr> {
        let text = std::str::from_utf8(self.host).ok()?;
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        match bare {
            Some(v6) => v6.parse().map(IpAddr::V6).ok(),
            // §25.1: one to three digits each, so that 01 is 1.
            None => {
                let mut octets = [0; 4];
                let mut parts = text.split('.');
                for octet in &mut octets {
                    let part = parts.next().filter(|p| p.len() <= 3)?;
                    *octet = u8::try_from(number(part.as_bytes())?).ok()?;
                }
                let over = parts.next().is_none();
                over.then(|| IpAddr::from(octets))
            }
        }
    }

    /// Where a datagram for it would go, if it names a number and no name.
    pub fn socket(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip()?, self.port.unwrap_or(5060)))
    }

    pub fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        param(self.params, name)
    }

    /// RFC 3261 §19.1.4, in the parts that can differ here.
    pub fn equals(&self, other: &Address) -> bool {
        let must = [&b"transport"[..], b"user", b"ttl", b"method", b"maddr"];
        let same = |name: &[u8]| match (self.param(name), other.param(name)) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            (None, None) => true,
            _ => !must.contains(&name),
        };
        let mut names = Vec::new();
        for params in [self.params, other.params] {
            for part in params.split(|b| *b == b';').skip(1) {
                let end = part.iter().position(|b| *b == b'=').unwrap_or(part.len());
                names.push(part[..end].to_ascii_lowercase());
            }
        }
        self.user == other.user
            && self.host.eq_ignore_ascii_case(other.host)
            && self.port == other.port
            && names.iter().all(|name| same(name))
    }
}

pub fn same_uri(a: &[u8], b: &[u8]) -> bool {
    match (Address::of(a), Address::of(b)) {
        (Some(a), Some(b)) => a.equals(&b),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_compare() {
        let a = b"sip:u@H.example:5060;transport=udp;x=1";
        assert!(same_uri(a, b"sip:u@h.example:5060;transport=udp"));
        assert!(!same_uri(a, b"sip:u@h.example:5060"));
        assert!(!same_uri(a, b"sip:u@h.example;transport=udp"));
        assert!(!same_uri(a, b"sip:u@h.example:5060;transport=udp;x=2"));
        assert_eq!(Address::of(b"sip:u@[2001:db8::1]:70;lr").unwrap().socket(), Some("[2001:db8::1]:70".parse().unwrap()));
    }
}
