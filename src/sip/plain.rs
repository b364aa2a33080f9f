//! Fast paths for the forms in which nearly all senders write a Via, an address and a SIP URI: one pass, no backtracking. Any other
//! form, valid or not, is left to the full parsers; if a fast path accepts, they return the same.

use std::net::Ipv4Addr;

use super::cursor::{self, HOST, TOKEN, VALUE};

/// `host [":" port]` without white space, the host being a name or an IPv4 address.
#[derive(Clone, Copy)]
pub(super) struct HostPort {
    /// `None` for a name.
    pub(super) ip: Option<Ipv4Addr>,
    /// Offset after the host.
    pub(super) host_end: usize,
    pub(super) port: Option<u16>,
    /// Offset after the whole.
    pub(super) end: usize,
}

#[inline(always)]
pub(super) fn host_port(text: &[u8], start: usize) -> Option<HostPort> {
    let first = *text.get(start)?;
    let (ip, host_end) = if first.is_ascii_digit() {
        let (ip, end) = ipv4(text, start)?;
        (Some(ip), end)
    } else if first.is_ascii_alphabetic() {
        (None, cursor::skip(text, start, HOST))
    } else {
        return None;
    };
    if text.get(host_end) != Some(&b':') {
        return Some(HostPort { ip, host_end, port: None, end: host_end });
    }
    let mut end = host_end + 1;
    let mut port = 0u32;
    while let Some(digit) = digit(text, end) {
        port = port * 10 + digit;
        end += 1;
        if end > host_end + 6 {
            return None;
        }
    }
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    Some(HostPort { ip, host_end, port: Some(port), end })
}

/// Four numbers up to 255 separated by dots, not followed by another byte of a host.
#[inline(always)]
fn ipv4(text: &[u8], mut at: usize) -> Option<(Ipv4Addr, usize)> {
    let mut address = 0u32;
    for octet in 0..4 {
        if octet > 0 {
            if text.get(at) != Some(&b'.') {
                return None;
            }
            at += 1;
        }
        let mut value = digit(text, at)?;
        at += 1;
        if let Some(second) = digit(text, at) {
            value = value * 10 + second;
            at += 1;
            if let Some(third) = digit(text, at) {
                value = value * 10 + third;
                at += 1;
            }
        }
        if value > 255 {
            return None;
        }
        address = address << 8 | value;
    }
    match text.get(at) {
        Some(&b) if cursor::is(b, HOST) => None,
        _ => Some((Ipv4Addr::from_bits(address), at)),
    }
}

#[inline(always)]
fn digit(text: &[u8], at: usize) -> Option<u32> {
    let digit = text.get(at)?.wrapping_sub(b'0');
    (digit <= 9).then_some(u32::from(digit))
}

/// `sip:user@host[:port]`, the user made of letters, digits and marks that need no escape.
#[derive(Clone, Copy)]
pub(super) struct UserAt {
    /// Offsets of the user; the host begins after the `@`.
    pub(super) user: (usize, usize),
    pub(super) host: HostPort,
}

/// Reads it at `start`. What may follow (parameters, headers, a bracket) is not checked.
#[inline(always)]
pub(super) fn user_at(text: &[u8], start: usize) -> Option<UserAt> {
    if text.get(start..start + 4) != Some(b"sip:") {
        return None;
    }
    let user_start = start + 4;
    let mut at = user_start;
    while let Some(&b) = text.get(at) {
        // Escapes are left to the full parser.
        if !cursor::is(b, TOKEN) || b == b'%' {
            break;
        }
        at += 1;
    }
    if at == user_start || text.get(at) != Some(&b'@') {
        return None;
    }
    Some(UserAt { user: (user_start, at), host: host_port(text, at + 1)? })
}

/// `sip:host[:port]`, if no more than parameters follow, which the caller checks: what follows could make it the user of another
/// host.
#[inline(always)]
pub(super) fn host_alone(text: &[u8]) -> Option<HostPort> {
    text.strip_prefix(b"sip:")?;
    let host = host_port(text, 4)?;
    matches!(text.get(host.end), None | Some(b';')).then_some(host)
}

/// `<sip:user@host[:port]>` alone or followed by `;tag=`.
#[derive(Clone, Copy)]
pub(super) struct Address {
    /// Offset after the URI, which begins at 1.
    pub(super) uri_end: usize,
    /// The tag's value.
    pub(super) tag: Option<(usize, usize)>,
}

#[inline(always)]
pub(super) fn address(text: &[u8]) -> Option<Address> {
    if text.first() != Some(&b'<') {
        return None;
    }
    let uri_end = user_at(text, 1)?.host.end;
    let behind = text.get(uri_end..)?.strip_prefix(b">")?;
    if behind.is_empty() {
        return Some(Address { uri_end, tag: None });
    }
    behind.strip_prefix(b";tag=")?;
    let start = uri_end + 6;
    let end = cursor::skip(text, start, VALUE);
    (start < end && end == text.len()).then_some(Address { uri_end, tag: Some((start, end)) })
}

/// `SIP/2.0/TRANSPORT host[:port]` and any of `branch`, `rport` and `received`, each once, to the end of the text.
#[derive(Clone, Copy)]
pub(super) struct Via {
    pub(super) transport: (usize, usize),
    pub(super) host: HostPort,
    pub(super) branch: Option<Param>,
    pub(super) rport: Option<Param>,
    pub(super) received: Option<Param>,
}

/// A parameter: where its name begins, where its value begins (0 without one), and where it ends.
#[derive(Clone, Copy)]
pub(super) struct Param {
    pub(super) name: usize,
    pub(super) value: usize,
    pub(super) end: usize,
}

#[inline(always)]
pub(super) fn via(text: &[u8]) -> Option<Via> {
    text.strip_prefix(b"SIP/2.0/")?;
    let transport = (8, cursor::skip_few(text, 8, TOKEN));
    if transport.1 == 8 || text.get(transport.1) != Some(&b' ') {
        return None;
    }
    let host = host_port(text, transport.1 + 1)?;
    let mut via = Via { transport, host, branch: None, rport: None, received: None };
    let mut at = host.end;
    while at < text.len() {
        let name = at + 1;
        let rest = text.get(at..)?;
        let (place, value) = if rest.starts_with(b";branch=") {
            (&mut via.branch, at + 8)
        } else if rest.starts_with(b";received=") {
            (&mut via.received, at + 10)
        } else if rest.starts_with(b";rport") {
            match rest.get(6) {
                Some(b'=') => (&mut via.rport, at + 7),
                Some(b';') | None => (&mut via.rport, 0),
                Some(_) => return None,
            }
        } else {
            return None;
        };
        at = match value {
            0 => at + 6,
            value => cursor::skip(text, value, VALUE),
        };
        let sound = at != value && (at == text.len() || text[at] == b';');
        if place.is_some() || !sound {
            return None;
        }
        *place = Some(Param { name, value, end: at });
    }
    Some(via)
}

#[cfg(test)]
mod tests {
    use crate::sip::name_addr::AddressParts;
    use crate::sip::via::ViaParts;
    use crate::sip::{Uri, Value};
    use proptest::prelude::*;

    /// A host with a port, valid or nearly so.
    const HOST: &str =
        "(127\\.0\\.0\\.1|h|a-b.example.com|[0-9]{1,4}(\\.[0-9]{1,3}){2,4}|[0-9a-z.-]{0,4}|\\[::1\\])(:[0-9]{0,6}| : 5060)?";

    fn host() -> impl Strategy<Value = String> {
        proptest::string::string_regex(HOST).expect("a pattern")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_via_reads_the_same(
            start in "(SIP/2\\.0/|sip/2\\.0/|SIP / 2\\.0 / )(UDP|TCP|x|)(  ? ?|\r\n )?",
            host in host(),
            params in proptest::collection::vec("( ?; ?)(branch|Branch|rport|received|ttl|maddr|x|)(=| = |)([0-9a-zA-Z%\\[:.-]{0,9}|\"a;b\"|<|,| )", 0..5),
        ) {
            let text = format!("{start}{host}{}", params.concat());
            let text = text.trim_end().as_bytes();
            let quick = super::via(text);
            let full = ViaParts::parse_fully(text);
            if let Some(quick) = quick {
                let quick = ViaParts::plain(&quick, text);
                let full = full.expect("the full parser takes what the shortcut takes");
                let read = |parts: ViaParts| format!("{:?}", parts.in_list(text, Value::default()));
                prop_assert_eq!(read(quick), read(full));
            }
        }

        #[test]
        fn an_address_reads_the_same(
            start in "(A |\"a\" |)(<|)(sip:|SIP:|sips:|tel:)(u[a-z0-9%;:&+_-]{0,6}@|@|)",
            host in host(),
            end in "(;lr|\\?a=b|)(>|)( ?;(tag|Tag|x)=?[0-9a-z%,\"-]{0,4}){0,2}",
        ) {
            let text = format!("{start}{host}{end}");
            let text = text.as_bytes();
            if let Some(quick) = super::address(text) {
                let quick = AddressParts::plain(&quick, text).in_text(text);
                let full = AddressParts::parse_fully(text);
                let full = full.expect("the full parser takes what the shortcut takes");
                prop_assert!(Uri::parse_fully(quick.uri).is_ok());
                prop_assert_eq!(format!("{quick:?}"), format!("{:?}", full.in_text(text)));
            }
        }

        #[test]
        fn a_uri_reads_the_same(
            start in "(sip:|Sip:|sips:|tel:)(u[a-z0-9%;:&+_-]{0,6}@|@|)",
            host in host(),
            end in "(;[a-z=;%0-9]{0,6}){0,2}(\\?a=b|)",
        ) {
            let text = format!("{start}{host}{end}");
            let text = text.as_bytes();
            match (Uri::parse(text), Uri::parse_fully(text)) {
                (Ok(quick), Ok(full)) => {
                    prop_assert_eq!(format!("{quick:?}"), format!("{full:?}"));
                }
                (quick, full) => prop_assert_eq!(quick.is_ok(), full.is_ok()),
            }
        }
    }

    /// The properties above would also hold if the fast paths never applied.
    #[test]
    fn the_usual_forms_are_taken() {
        for text in [
            "SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKabc;rport",
            "SIP/2.0/UDP h.example.com;rport=5060;branch=z9hG4bK;received=192.0.2.1",
            "SIP/2.0/TLS h",
        ] {
            assert!(super::via(text.as_bytes()).is_some(), "{text}");
        }
        for text in ["<sip:a@127.0.0.1>", "<sip:+49-30@example.com:5070>;tag=1-2"] {
            assert!(super::address(text.as_bytes()).is_some(), "{text}");
        }
        for text in ["sip:a@127.0.0.1:5060", "sip:a_b@h;transport=udp"] {
            assert!(super::user_at(text.as_bytes(), 0).is_some(), "{text}");
        }
        for text in ["sip:127.0.0.1", "sip:h.example.com", "sip:127.0.0.1:5060;lr;sc=0f"] {
            assert!(super::host_alone(text.as_bytes()).is_some(), "{text}");
        }
        for text in ["sip:alice@h", "sip:alice:1234@h", "sip:1001@h", "sip:[::1]", "sips:h", "sip:h?a=b"] {
            assert!(super::host_alone(text.as_bytes()).is_none(), "{text}");
        }
    }
}
