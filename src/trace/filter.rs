//! Which messages start a trace of their call: by Call-ID, by user, by the peer's address. All given criteria must match.

use super::reading::Reading;
use crate::sip::{Scheme, Uri, unescaped};
use std::net::{IpAddr, SocketAddr};

/// What to trace; everything if no criterion is given.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Wanted {
    call_id: Option<Vec<u8>>,
    user: Option<User>,
    peer: Option<(IpAddr, Option<u16>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    /// Without escapes.
    name: Vec<u8>,
    /// Canonical.
    host: Option<Vec<u8>>,
}

impl Wanted {
    /// Parses what an operator typed. The error says what would be right.
    pub fn new(call_id: Option<&str>, user: Option<&str>, peer: Option<&str>) -> Result<Wanted, String> {
        if call_id.is_some_and(|call_id| call_id.trim().is_empty()) {
            return Err("call is empty: it must be a whole Call-ID".to_owned());
        }
        Ok(Wanted {
            call_id: call_id.map(|call_id| call_id.trim().into()),
            user: user.map(User::typed).transpose()?,
            peer: peer.map(peer_typed).transpose()?,
        })
    }

    pub fn is_everything(&self) -> bool {
        *self == Wanted::default()
    }

    /// True if this message matches.
    pub fn fits(&self, message: &Reading<'_>, peer: SocketAddr) -> bool {
        let fits_call = self.call_id.as_ref().is_none_or(|wanted| wanted == message.call_id);
        let fits_peer = self.peer.is_none_or(|(ip, port)| {
            let is_port = port.is_none_or(|port| port == peer.port());
            is_port && ip == peer.ip().to_canonical()
        });
        let fits_user = |user: &User| message.uris().iter().any(|uri| user.is_in(uri));
        fits_call && fits_peer && self.user.as_ref().is_none_or(fits_user)
    }
}

fn peer_typed(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().map(|ip: IpAddr| (ip, None));
    let whole = || text.parse().ok().map(|address: SocketAddr| (address.ip(), Some(address.port())));
    let (ip, port) = ip.or_else(whole).ok_or_else(|| {
        format!("peer {text:?} is no address: it must be one such as 192.0.2.1, 192.0.2.1:5060 or [2001:db8::1]:5060")
    })?;
    Ok((ip.to_canonical(), port))
}

impl User {
    fn typed(text: &str) -> Result<User, String> {
        let wrong = || format!("user {text:?} is no user: it must be one such as 1003, 1003@example.com or sip:1003@example.com");
        let text = text.trim();
        let scheme = ["sip:", "sips:", "tel:"].into_iter().find(|scheme| {
            let start = text.get(..scheme.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        let bare = &text[scheme.map_or(0, str::len)..];
        // A user name alone: its text would parse as the host of a URI.
        if !bare.contains('@') {
            let name = bare.split(';').next().unwrap_or("");
            return match name.is_empty() {
                true => Err(wrong()),
                false => Ok(User { name: unescaped(name.as_bytes()).collect(), host: None }),
            };
        }
        let uri = format!("sip:{bare}");
        let uri = Uri::parse(uri.as_bytes()).map_err(|_| wrong())?;
        let mut host = Vec::new();
        uri.host.write_canonical(&mut host);
        match uri.user {
            Some(user) if !user.is_empty() => Ok(User { name: unescaped(user).collect(), host: Some(host) }),
            _ => Err(wrong()),
        }
    }

    /// RFC 3261 §19.1.4: the user part is case-sensitive and compared unescaped; the host is case-insensitive. What follows a
    /// semicolon in it (`+4930;phone-context=…`) need not be typed.
    fn is_in(&self, uri: &[u8]) -> bool {
        let Ok(uri) = Uri::parse(uri) else {
            return false;
        };
        match uri.scheme {
            Scheme::Sip | Scheme::Sips => {
                let is_name = |user: &[u8]| {
                    let bare = user.split(|byte| *byte == b';').next().unwrap_or(user);
                    [user, bare].iter().any(|user| unescaped(user).eq(self.name.iter().copied()))
                };
                uri.user.is_some_and(is_name)
                    && self.host.as_ref().is_none_or(|wanted| {
                        let mut host = Vec::new();
                        uri.host.write_canonical(&mut host);
                        host == *wanted
                    })
            }
            Scheme::Tel => self.host.is_none() && uri.user.is_some_and(|number| digits(number).eq(digits(&self.name))),
            Scheme::Other => false,
        }
    }
}

/// A number without its visual separators (RFC 3966 §5.1.1).
fn digits(number: &[u8]) -> impl Iterator<Item = u8> {
    let is_visual = |byte: &&u8| matches!(byte, b'-' | b'.' | b'(' | b')');
    number.iter().filter(move |byte| !is_visual(byte)).map(u8::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Reading<'_> = Reading {
        call_id: b"Ab@c",
        from: b"<sip:alice@Example.COM:5080;x=y>;tag=1",
        to: b"\"B, b\" <sips:b%6Fb@[2001:DB8::1]>",
        request_uri: b"tel:+49-(0)30.1",
    };

    fn fits(call: Option<&str>, user: Option<&str>, peer: Option<&str>) -> bool {
        let wanted = Wanted::new(call, user, peer).unwrap();
        wanted.fits(&MESSAGE, "[::ffff:192.0.2.1]:5060".parse().unwrap())
    }

    #[test]
    fn calls() {
        assert!(fits(Some("Ab@c"), None, None));
        assert!(!fits(Some("ab@c"), None, None), "a Call-ID has case");
        assert!(!fits(Some("Ab"), None, None));
        assert!(Wanted::new(Some(" "), None, None).is_err());
        assert!(Wanted::new(None, None, None).unwrap().is_everything());
    }

    #[test]
    fn users() {
        for user in [
            "alice",
            "al%69ce",
            "sip:alice",
            "SIP:alice@example.com",
            "sips:alice@EXAMPLE.com.",
            "alice@example.com:5999",
            "bob",
            "bob@[2001:db8:0::1]",
            "+490301",
            "tel:+49-0-30-1",
            " alice ",
        ] {
            assert!(fits(None, Some(user), None), "{user}");
        }
        for user in ["Alice", "alic", "alicee", "alice@example.org", "bob@example.com", "490301", "+490301@example.com"] {
            assert!(!fits(None, Some(user), None), "{user}");
        }
        for user in ["", "sip:", "@example.com", "a@", "a@b c", "a@[1"] {
            let why = Wanted::new(None, Some(user), None).unwrap_err();
            assert!(why.contains("must be one such as 1003"), "{why}");
        }
        let number = Reading { from: b"<sip:+4930;phone-context=x@h;user=phone>", ..MESSAGE };
        for (user, is_it) in [("+4930", true), ("+4930@h", true), ("+49", false), ("phone-context=x", false)] {
            let wanted = Wanted::new(None, Some(user), None).unwrap();
            assert_eq!(wanted.fits(&number, "192.0.2.1:1".parse().unwrap()), is_it, "{user}");
        }
        let nobody = Wanted::new(None, Some("alice"), None).unwrap();
        assert!(!nobody.fits(&Reading::default(), "192.0.2.1:1".parse().unwrap()));
    }

    #[test]
    fn peers() {
        for peer in ["192.0.2.1", "192.0.2.1:5060", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:5060"] {
            assert!(fits(None, None, Some(peer)), "{peer}");
        }
        for peer in ["192.0.2.2", "192.0.2.1:5061", "[2001:db8::1]"] {
            assert!(!fits(None, None, Some(peer)), "{peer}");
        }
        for peer in ["", "example.com", "192.0.2.1:", "192.0.2.1:70000", "[::1"] {
            assert!(Wanted::new(None, None, Some(peer)).is_err(), "{peer}");
        }
    }

    #[test]
    fn all_that_is_named_must_fit() {
        assert!(fits(Some("Ab@c"), Some("alice"), Some("192.0.2.1")));
        assert!(!fits(Some("Ab@c"), Some("carol"), Some("192.0.2.1")));
        assert!(!fits(Some("other"), Some("alice"), Some("192.0.2.1")));
    }
}
