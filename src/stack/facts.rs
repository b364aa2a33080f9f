//! The facts that keyed values cover, written so that what means the same is the same: whose name a URI is, and which place it
//! leads to. Each fact begins with its length, so that no two rows of facts are one text.

use crate::sip::{Message, Name, NameAddr, Uri};

/// Appends one fact, which `write` appends.
pub fn fact(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let len = (out.len() - start - 4) as u32;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&len.to_le_bytes());
    }
}

/// Whose name it is: the user as §19.1.4 compares it, at the domain. Port, parameters and password say nothing of that, nor does it
/// matter whether the scheme is SIP or SIPS.
pub fn write_name(uri: &[u8], out: &mut Vec<u8>) {
    if let Some(name) = plain_name(uri) {
        return out.extend_from_slice(name);
    }
    match Uri::parse(uri) {
        Ok(uri) => uri.write_address_of_record(out),
        Err(_) => out.extend_from_slice(uri),
    }
}

/// The name where it stands in the URI as [`Uri::write_address_of_record`] would write it: nearly everybody writes it so.
fn plain_name(uri: &[u8]) -> Option<&[u8]> {
    let text = uri.strip_prefix(b"sip:")?;
    let at = memchr::memchr(b'@', text).filter(|at| *at > 0)?;
    let is_user = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+');
    if !text[..at].iter().all(is_user) {
        return None;
    }
    let host = &text[at + 1..];
    let (mut len, mut before) = (0, b'.');
    for b in host {
        match b {
            b'a'..=b'z' | b'-' => {}
            // An address may be written with zeros in front of a number.
            b'0'..=b'9' if before == b'0' && !follows_digit(host, len) => return None,
            b'0'..=b'9' => {}
            b'.' => {}
            b':' | b';' | b'?' => break,
            _ => return None,
        }
        before = *b;
        len += 1;
    }
    (before != b'.').then(|| &text[..at + 1 + len])
}

/// Whether a digit stands before the one that stands before this place.
fn follows_digit(host: &[u8], place: usize) -> bool {
    place > 1 && host[place - 2].is_ascii_digit()
}

/// Which place it is: user, host, port and `maddr`. Whoever keeps a contact or a route may order its parameters anew, leave out
/// those that it does not know, or write its user in another way: that is the same place.
pub fn write_place(uri: &[u8], out: &mut Vec<u8>) {
    let name = plain_name(uri);
    // With nothing behind the name there is no more to read.
    if let Some(name) = name.filter(|name| name.len() + b"sip:".len() == uri.len()) {
        out.extend_from_slice(name);
        return out.extend_from_slice(&[0; 2]);
    }
    let Ok(uri) = Uri::parse(uri) else {
        return out.extend_from_slice(uri);
    };
    match name {
        Some(name) => out.extend_from_slice(name),
        None => uri.write_address_of_record(out),
    }
    // A port that is the default is left out by some.
    let port = uri.port.filter(|port| !matches!(port, 5060 | 5061));
    out.extend_from_slice(&port.unwrap_or(0).to_be_bytes());
    if !uri.params.text().is_empty()
        && let Some(maddr) = uri.maddr()
    {
        out.extend_from_slice(maddr);
    }
}

/// The URI of the first Contact; `None` without one, and where it is `*` or can't be read.
pub fn contact<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let value = message.values(Name::Contact).next()?;
    let address = NameAddr::parse(value.text).ok()?;
    Some(address.uri)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for other in [
            "sip:Alice@example.com",
            "sip:alice@example.co",
            "sip:example.com",
            "sip:alic@eexample.com",
            "tel:+49",
        ] {
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
            "sip:b%6fb@10.0.1.2;transport=udp;ob",
            "sip:bob@10.0.1.2;x=y;lr",
        ] {
            assert_eq!(written(write_place, same), place, "{same}");
        }
        for other in [
            "sip:bob@10.0.1.2:5070",
            "sip:bob@10.0.1.3",
            "sip:bo@10.0.1.2",
            "sip:bob@10.0.1.2;maddr=10.0.9.9",
            "sip:10.0.1.2",
        ] {
            assert_ne!(written(write_place, other), place, "{other}");
        }
    }

    #[test]
    fn the_short_way_says_what_the_long_one_does() {
        let mut taken = 0;
        for uri in [
            "sip:alice@example.com",
            "sip:a.b-c_d+1@10.0.1.2:5060;x=y",
            "sip:alice@127.0.0.1",
            "sip:alice@127.0.0.01",
            "sip:alice@100.20.0.200",
            "sip:a@h00t.example",
            "sip:alice@010.0.0.1",
            "sip:alice@Example.com",
            "sip:alice@example.com.",
            "sip:alice@[2001:db8::1]",
            "sip:al%69ce@example.com",
            "sip:alice:pw@example.com",
            "sip:alice@example.com?a=b",
            "sip:example.com",
            "sips:alice@example.com",
        ] {
            let mut long = Vec::new();
            Uri::parse(uri.as_bytes())
                .unwrap()
                .write_address_of_record(&mut long);
            if let Some(short) = plain_name(uri.as_bytes()) {
                taken += 1;
                assert_eq!(short, long, "{uri}");
            }
        }
        assert_eq!(taken, 5);
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
