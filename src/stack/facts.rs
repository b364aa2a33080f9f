//! The facts that keyed values cover, written so that equal meanings give equal bytes: whose name a URI is, and which place it
//! leads to. Each fact is prefixed with its length, so different lists of facts never give the same bytes.

use crate::base::Transport;
use crate::sip::{Message, Name, NameAddr, Scheme, Uri};

/// Appends one fact, whose bytes `write` appends.
pub fn fact(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let len = (out.len() - start - 4) as u32;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&len.to_le_bytes());
    }
}

/// Appends the name that a URI bears: the user, compared as in §19.1.4, at the domain. Port, parameters and password do not matter,
/// nor does whether the scheme is SIP or SIPS.
pub fn write_name(uri: &[u8], out: &mut Vec<u8>) {
    if let Some(name) = plain_name(uri) {
        return out.extend_from_slice(name);
    }
    match Uri::parse(uri) {
        Ok(uri) => uri.write_address_of_record(out),
        Err(_) => out.extend_from_slice(uri),
    }
}

/// Returns the name if the URI already has it as [`Uri::write_address_of_record`] would write it, as almost all do.
#[inline]
fn plain_name(uri: &[u8]) -> Option<&[u8]> {
    let text = uri.strip_prefix(b"sip:")?;
    let at = run(text, USER);
    if at == 0 || text.get(at) != Some(&b'@') {
        return None;
    }
    let host = text.get(at + 1..)?;
    let len = plain_v4(host).or_else(|| plain_host_name(host))?;
    Some(&text[..at + 1 + len])
}

/// Returns whether the host at the start of the text ends there.
#[inline(always)]
fn ends_at(text: &[u8], at: usize) -> bool {
    matches!(text.get(at), None | Some(b':' | b';' | b'?'))
}

/// Returns the length of a host name that is already in its compared form.
#[inline(always)]
fn plain_host_name(text: &[u8]) -> Option<usize> {
    let len = run(text, HOST);
    let name = text.get(..len)?;
    let sound = match (name.first()?, name.last()?) {
        (b'a'..=b'z', last) => *last != b'.',
        (b'0'..=b'9', b'a'..=b'z') => true,
        _ => false,
    };
    (sound && ends_at(text, len)).then_some(len)
}

/// Returns the length of an IPv4 address without leading zeros in its numbers.
#[inline(always)]
fn plain_v4(text: &[u8]) -> Option<usize> {
    let mut rest = text;
    for octet in 0..4 {
        if octet > 0 {
            rest = rest.strip_prefix(b".")?;
        }
        rest = match rest {
            [b'2', b'5', b'0'..=b'5', behind @ ..]
            | [b'2', b'0'..=b'4', b'0'..=b'9', behind @ ..]
            | [b'1', b'0'..=b'9', b'0'..=b'9', behind @ ..]
            | [b'1'..=b'9', b'0'..=b'9', behind @ ..]
            | [b'0'..=b'9', behind @ ..] => behind,
            _ => return None,
        };
    }
    let len = text.len() - rest.len();
    ends_at(text, len).then_some(len)
}

/// Bytes that stand for themselves in a user.
const USER: u8 = 1;
/// Bytes that stand for themselves in a compared host.
const HOST: u8 = 2;

static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' => USER | HOST,
            b'A'..=b'Z' | b'_' | b'+' => USER,
            _ => 0,
        };
        byte += 1;
    }
    table
};

/// Returns how many leading bytes of `text` are of one class.
#[inline(always)]
fn run(text: &[u8], class: u8) -> usize {
    let mut len = 0;
    while let Some(byte) = text.get(len)
        && CLASS[*byte as usize] & class != 0
    {
        len += 1;
    }
    len
}

/// Appends which place a URI leads to: user, host, `maddr`, and the port, or the default for scheme and transport if none is given.
/// An element that stores a contact or a route may reorder its parameters, drop those it does not know, or write its user
/// differently: it is still the same place.
pub fn write_place(uri: &[u8], out: &mut Vec<u8>) {
    if let Some((name, port)) = plain_place(uri) {
        out.extend_from_slice(&port.to_be_bytes());
        return out.extend_from_slice(name);
    }
    let Ok(parsed) = Uri::parse(uri) else {
        // Not a valid port in a URI.
        out.extend_from_slice(&[0; 2]);
        return out.extend_from_slice(uri);
    };
    let port = parsed.port.unwrap_or_else(|| default_port(&parsed));
    out.extend_from_slice(&port.to_be_bytes());
    parsed.write_address_of_record(out);
    if let Some(maddr) = parsed.maddr() {
        out.push(0);
        out.extend_from_slice(maddr);
    }
}

/// Appends name and port if nothing else needs to be read.
#[inline]
fn plain_place(uri: &[u8]) -> Option<(&[u8], u16)> {
    let name = plain_name(uri)?;
    let port = match uri.get(b"sip:".len() + name.len()..)? {
        [] => Transport::Udp.default_port(),
        [b':', digits @ ..] if digits.len() <= 5 => {
            let mut port = 0;
            for digit in digits.iter().map(|b| b.wrapping_sub(b'0')) {
                if digit > 9 {
                    return None;
                }
                port = port * 10 + u32::from(digit);
            }
            u16::try_from(port).ok().filter(|port| *port != 0)?
        }
        _ => return None,
    };
    Some((name, port))
}

/// Returns the default port of a URI without one (RFC 3261 §19.1.2).
fn default_port(uri: &Uri) -> u16 {
    let is_tls = || uri.transport().is_some_and(|name| name.eq_ignore_ascii_case(b"tls"));
    match uri.scheme == Scheme::Sips || is_tls() {
        true => Transport::Tls.default_port(),
        false => Transport::Udp.default_port(),
    }
}

/// Returns the URI of the first Contact; `None` if there is none, or it is `*` or can't be read.
pub fn contact<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let value = message.values(Name::Contact).next()?;
    let address = NameAddr::parse(value.text).ok()?;
    Some(address.uri)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: fn(&[u8], &mut Vec<u8>), uri: &str) -> Vec<u8> {
        let mut out = Vec::new();
        write(uri.as_bytes(), &mut out);
        out
    }

    #[test]
    fn a_name_is_user_and_domain_however_they_are_written() {
        let alice = written(write_name, "sip:alice@example.com");
        for same in [
            "sip:alice@EXAMPLE.com",
            "sips:alice@example.com",
            "sip:alice@example.com.",
            "sip:alice@example.com:5070",
            "sip:alice:secret@example.com;maddr=192.0.2.1;transport=tcp?a=b",
            "sip:%61lice@example.com",
            "sip:ali%63e@Example.Com.:5060",
        ] {
            assert_eq!(written(write_name, same), alice, "{same}");
        }
        for other in ["sip:Alice@example.com", "sip:alice@example.co", "sip:example.com", "sip:alic@eexample.com", "tel:+49"] {
            assert_ne!(written(write_name, other), alice, "{other}");
        }
        let number = written(write_name, "tel:+49-30-1");
        assert_eq!(written(write_name, "tel:+49301"), number);
        assert_ne!(written(write_name, "tel:+49302"), number);
        let host = written(write_name, "sip:a@[2001:db8::1]");
        assert_eq!(written(write_name, "sip:a@[2001:DB8:0::1]"), host);
    }

    #[test]
    fn a_place_has_a_port_and_parameters_of_no_weight() {
        let place = written(write_place, "sip:bob@10.0.1.2");
        for same in [
            "sip:bob@10.0.1.2:5060",
            "sip:bob@10.0.1.2:05060",
            "sip:b%6fb@10.0.1.2;transport=udp;ob",
            "sip:bob@10.0.1.2;transport=tcp",
            "sip:bob@10.0.1.2;x=y;lr",
            "sip:bob@10.0.1.2:5060;x=y;lr",
            "sip:bob@10.0.1.2?a=b",
            "sips:bob@10.0.1.2:5060",
            "sip:bob@10.0.1.2:5060;transport=tls",
        ] {
            assert_eq!(written(write_place, same), place, "{same}");
        }
        for other in [
            "sip:bob@10.0.1.2:5070",
            "sip:bob@10.0.1.2:5061",
            "sip:bob@10.0.1.2:0",
            "sips:bob@10.0.1.2",
            "sip:bob@10.0.1.2;transport=tls",
            "sip:bob@10.0.1.3",
            "sip:bo@10.0.1.2",
            "sip:bob@10.0.1.2;maddr=10.0.9.9",
            "sip:10.0.1.2",
        ] {
            assert_ne!(written(write_place, other), place, "{other}");
        }
    }

    #[test]
    fn the_default_port_is_by_scheme_and_transport() {
        let place = written(write_place, "sip:bob@example.com:5061");
        for same in [
            "sips:bob@example.com",
            "sips:bob@example.com:5061",
            "sips:bob@example.com;transport=tcp",
            "sip:bob@example.com;transport=tls",
            "sip:bob@Example.com.;ob;Transport=TLS",
            "sip:bob@example.com:5061;transport=udp",
        ] {
            assert_eq!(written(write_place, same), place, "{same}");
        }
        for other in [
            "sip:bob@example.com",
            "sip:bob@example.com;transport=tcp",
            "sip:bob@example.com;transport=",
            "sip:bob@example.com;x=tls",
            "sips:bob@example.com:5060",
        ] {
            assert_ne!(written(write_place, other), place, "{other}");
        }
    }

    /// Without a separator, the port (here `19`) and the end of a host would look like the start of a `maddr`.
    #[test]
    fn what_a_place_consists_of_is_separated() {
        let place = written(write_place, "sip:bob@phone.example.com:12601");
        for other in [
            "sip:bob@phone.example.co:27953;maddr=9",
            "sip:bob@phone.example:11875;maddr=om19",
            "sip:bob@phone.example:12601;maddr=.com",
        ] {
            assert_ne!(written(write_place, other), place, "{other}");
        }
    }

    #[test]
    fn the_short_way_is_for_what_nearly_everybody_writes() {
        for (uri, is_taken) in [
            ("sip:alice@example.com", true),
            ("sip:a.b-c_d+1@10.0.1.2:5060;x=y", true),
            ("sip:alice@127.0.0.1", true),
            ("sip:alice@127.0.0.01", false),
            ("sip:alice@100.20.0.200", true),
            ("sip:alice@100.20.0.256", false),
            ("sip:a@h00t.example", true),
            ("sip:a@h00", true),
            ("sip:a@1und1.example", true),
            ("sip:alice@010.0.0.1", false),
            ("sip:alice@Example.com", false),
            ("sip:alice@example.com.", false),
            ("sip:alice@[2001:db8::1]", false),
            ("sip:al%69ce@example.com", false),
            ("sip:alice:pw@example.com", false),
            ("sip:alice@example.com?a=b", true),
            ("sip:example.com", false),
            ("sips:alice@example.com", false),
        ] {
            assert_eq!(plain_name(uri.as_bytes()).is_some(), is_taken, "{uri}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn the_short_way_says_what_the_long_one_does(
            start in "(sip:|sip:|sip:|Sip:|sips:)(u[a-zA-Z0-9%;:&+_.-]{0,6}@|@|)",
            host in "(127\\.0\\.0\\.1|h|a-b.example.com|[0-9]{1,3}(\\.[0-9]{1,3}){2,4}|[0-9a-zA-Z_.-]{0,4}|\\[::1\\])",
            port in "(:[0-9]{0,6}|)",
            end in "(;[a-z=;%0-9]{0,6}|;maddr=h|;transport=tls|)(\\?a=b|)",
        ) {
            let uri = format!("{start}{host}{port}{end}");
            let parsed = Uri::parse(uri.as_bytes());
            if let (Some(short), Ok(parsed)) = (plain_name(uri.as_bytes()), parsed) {
                let mut long = Vec::new();
                parsed.write_address_of_record(&mut long);
                prop_assert_eq!(short, long);
            }
            if let Some((name, port)) = plain_place(uri.as_bytes()) {
                let parsed = parsed.expect("a URI");
                let mut long = Vec::new();
                parsed.write_address_of_record(&mut long);
                prop_assert_eq!(name, long);
                prop_assert_eq!(port, parsed.port.unwrap_or(default_port(&parsed)));
                prop_assert!(parsed.params.text().is_empty());
            }
        }
    }

    #[test]
    fn facts_are_separated() {
        let row = |parts: &[&[u8]]| {
            let mut out = Vec::new();
            for part in parts {
                fact(&mut out, |out| out.extend_from_slice(part));
            }
            out
        };
        assert_ne!(row(&[b"ab", b"c"]), row(&[b"a", b"bc"]));
        assert_ne!(row(&[b"ab"]), row(&[b"ab", b""]));
    }
}
