//! Whose name a URI bears, naively: a user and a domain, whatever port, transport, escape, case or dot it is written with (RFC 3261
//! §19.1.1, §19.1.4).

use super::address::Address;
use super::text::address_spec;

/// Whose name a URI bears.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    pub user: Vec<u8>,
    pub host: Vec<u8>,
}

impl Name {
    /// Of the URI in a From or To value.
    pub fn of(value: &[u8]) -> Option<Name> {
        let uri = address_spec(behind_display_name(value));
        let scheme = uri.iter().position(|b| *b == b':')?;
        if !matches!(&uri[..scheme].to_ascii_lowercase()[..], b"sip" | b"sips") {
            return None;
        }
        let plain = [b"sip:", &uri[scheme + 1..]].concat();
        let address = Address::of(&plain)?;
        let user = address.user.split(|b| *b == b':').next().unwrap_or(b"");
        let host = without_dot(address.host).to_ascii_lowercase();
        Some(Name { user: unescaped(user), host })
    }

    pub fn in_words(&self) -> String {
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        format!("{}@{}", text(&self.user), text(&self.host))
    }
}

/// What stands behind a quoted display name, in which brackets mean nothing.
fn behind_display_name(value: &[u8]) -> &[u8] {
    let Some(rest) = value.strip_prefix(b"\"") else {
        return value;
    };
    let mut escaped = false;
    let end = rest.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    });
    end.map_or(value, |end| &rest[end + 1..])
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let hex = |byte: &u8| char::from(*byte).to_digit(16);
        match after {
            [a, b, tail @ ..] if *first == b'%' && hex(a).is_some() && hex(b).is_some() => {
                out.push((hex(a).unwrap_or(0) * 16 + hex(b).unwrap_or(0)) as u8);
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// A host's name without the dot that only says that it is complete.
pub fn without_dot(host: &[u8]) -> &[u8] {
    let end = host.iter().rposition(|b| *b != b'.');
    &host[..end.map_or(0, |end| end + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_user_and_a_domain() {
        let name = Name::of(b"<sip:boss@a.example>;tag=1").unwrap();
        for same in [
            &b"<sip:boss@A.Example:9999>;tag=1"[..],
            b"<sip:boss@a.example.;maddr=192.0.2.9>",
            b"\"x <sip:other@b.example> \\\" \" <sips:%62oss:secret@a.example;transport=tls?x=y>",
            b"sip:bos%73@a.example",
        ] {
            assert_eq!(Name::of(same), Some(name.clone()));
        }
        for other in [&b"<sip:Boss@a.example>"[..], b"<sip:boss@b.example>", b"<sip:boss@a.example.b>"] {
            assert_ne!(Name::of(other), Some(name.clone()));
        }
        assert_eq!(Name::of(b"<tel:+4930123>"), None);
    }
}
