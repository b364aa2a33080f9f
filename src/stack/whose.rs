//! Whose name a URI bears: which user at which of our domains, if any (RFC 3261 §19.1.1, §19.1.4). This is about identity, that is,
//! user and domain only. Where a request for the URI goes is a separate question, answered by [`Settings::is_own`]: neither
//! replaces the other.

use crate::sip::{Host, Scheme, Uri, is_separator, same_name, unescaped};
use crate::stack::Settings;
use crate::stack::settings::host_of;

/// A name at a domain of ours. Port, password, parameters, header fields, and the choice of `sip:` or `sips:` are not part of it.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// As written, including escapes; `None`: the domain itself.
    user: Option<&'a [u8]>,
    /// Whether it is a telephone number, in which visual separators do not count.
    number: bool,
    domain: Host<'a>,
}

impl<'a> Whose<'a> {
    /// Returns the unescaped user name; empty if the URI names no user.
    pub fn name(&self) -> impl Iterator<Item = u8> + use<'a> {
        let number = self.number;
        unescaped(self.user.unwrap_or_default()).filter(move |byte| !(number && is_separator(*byte)))
    }

    /// Returns whether this is the user called `name`, byte for byte.
    pub fn is_user(&self, name: &[u8]) -> bool {
        self.user.is_some() && self.name().eq(name.iter().copied())
    }

    pub fn domain(&self) -> Host<'a> {
        self.domain
    }

    /// Returns whether the login `login` belongs to this user. A bare login is the user of that name at the domain that the request
    /// names. A login with an `@` is either the user before the `@` at the domain after it, or the user with the `@` in the name,
    /// which a URI writes as `%40`.
    pub fn is_login(&self, login: &[u8]) -> bool {
        if self.is_user(login) {
            return true;
        }
        let Some(at) = memchr::memrchr(b'@', login) else {
            return false;
        };
        self.is_user(&login[..at]) && is_same_host(self.domain, Host::of(&login[at + 1..]))
    }

    /// Returns whether a client whose certificate proves `name` may register and call as this user. `name` is one of the
    /// certificate's subject alternative names (RFC 5922 §7.1): a URI with a user stands for that user; a URI without one, or a DNS
    /// name, for everybody at that domain. A wildcard stands for nobody (§7.2).
    pub fn is_certified_by(&self, name: &[u8]) -> bool {
        let Ok(uri) = Uri::parse(name) else {
            return !name.is_empty() && is_same_host(self.domain, Host::of(name));
        };
        matches!(uri.scheme, Scheme::Sip | Scheme::Sips)
            && is_same_host(self.domain, uri.host)
            && match uri.user {
                None => true,
                Some(user) => !is_wildcard(user) && self.user.is_some() && self.name().eq(unescaped(user)),
            }
    }
}

impl Settings {
    /// Returns which user at which of our domains `uri` names; `None` if it is none of ours. A tel URI belongs to no domain, and so
    /// to nobody, unless its context is a domain of ours (RFC 3966 §5.1.5). Other schemes that name a user as `sip:` does (`im:`,
    /// `pres:`) are read like it, because people who see such a name believe it.
    pub fn whose<'a>(&self, uri: &Uri<'a>) -> Option<Whose<'a>> {
        let (user, domain) = match uri.scheme {
            Scheme::Sip | Scheme::Sips => (uri.user, uri.host),
            Scheme::Tel => {
                let context = uri.param(b"phone-context").flatten()?;
                (uri.user, Host::of(context))
            }
            Scheme::Other => {
                let (_, rest) = uri.text.split_at(memchr::memchr(b':', uri.text)? + 1);
                let at = memchr::memchr(b'@', rest)?;
                let host = &rest[at + 1..];
                let end = host.iter().position(|byte| b";?/:".contains(byte));
                let host = match host.first() {
                    Some(b'[') => &host[..memchr::memchr(b']', host)? + 1],
                    _ => &host[..end.unwrap_or(host.len())],
                };
                (Some(&rest[..at]), Host::of(host))
            }
        };
        let number = uri.scheme == Scheme::Tel;
        self.is_our_domain(domain).then_some(Whose { user: user.filter(|user| !user.is_empty()), number, domain })
    }

    /// Returns whether `host` is a domain of ours, a name that we advertise, or an address that a listener answers on, in any
    /// spelling and with any port.
    pub fn is_our_domain(&self, host: Host) -> bool {
        self.domains.iter().any(|domain| is_same_text(domain, host)) || self.is_our_listener(host)
    }

    /// The same without the domains: returns whether `host` names this machine.
    pub fn is_our_listener(&self, host: Host) -> bool {
        self.listeners.iter().any(|listener| {
            host.ip().is_some_and(|ip| listener.answers_on(ip, &self.local_addresses))
                || is_same_text(host_of(&listener.advertise), host)
        })
    }
}

fn is_same_text(text: &[u8], host: Host) -> bool {
    match host {
        Host::Name(name) => same_name(text, name),
        Host::V4(_) | Host::V6(_) => is_same_host(Host::of(text), host),
    }
}

/// Returns whether a certificate's user stands for nobody: a wildcard (RFC 5922 §7.2), or no name at all.
pub fn is_wildcard(user: &[u8]) -> bool {
    let mut name = unescaped(user);
    matches!((name.next(), name.next()), (None, _) | (Some(b'*'), None))
}

/// Compares names without case and trailing dot, and addresses by value.
pub fn is_same_host(a: Host, b: Host) -> bool {
    match (a, b) {
        (Host::Name(a), Host::Name(b)) => same_name(a, b),
        (a, b) => a.ip().zip(b.ip()).is_some_and(|(a, b)| a.to_canonical() == b.to_canonical()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transport;
    use crate::stack::settings::Listener;

    /// example.test and 203.0.113.9 on 192.0.2.1, which is known outside as gw.example.test, and on any IPv6 address.
    fn settings() -> Settings {
        let listener = |address: &str, advertise: &str| Listener {
            transport: Transport::Udp,
            address: address.parse().unwrap(),
            advertise: advertise.into(),
        };
        Settings {
            domains: vec![b"example.test".to_vec(), b"203.0.113.9".to_vec()],
            listeners: vec![listener("192.0.2.1:5060", "gw.example.test:5080"), listener("[::]:5060", "[2001:db8::5]:5060")],
            local_addresses: vec!["2001:db8::7".parse().unwrap()],
            ..Settings::default()
        }
    }

    /// Returns `user@domain` of the user that a URI names, unescaped.
    fn named(uri: &str) -> Option<String> {
        let settings = settings();
        let whose = settings.whose(&Uri::parse(uri.as_bytes()).unwrap())?;
        let mut text: Vec<u8> = whose.name().collect();
        text.push(b'@');
        whose.domain().write_canonical(&mut text);
        Some(String::from_utf8(text).unwrap())
    }

    #[test]
    fn user_and_domain_say_whose_name_it_is_and_nothing_else_does() {
        for spelled in [
            "sip:ceo@example.test",
            "sips:ceo@example.test",
            "SIP:ceo@EXAMPLE.Test",
            "sip:ceo@example.test.",
            "sip:ceo@example.test..:5060",
            "sip:ceo@example.test:9999",
            "sip:%63e%6f@example.test",
            "sip:ceo:secret@example.test",
            "sip:ceo@example.test;maddr=198.51.100.1",
            "sip:ceo@example.test:1;transport=tls;user=phone;x?Subject=y",
            "im:ceo@example.test",
            "pres:c%65o@example.test.;x",
        ] {
            assert_eq!(named(spelled).as_deref(), Some("ceo@example.test"), "{spelled}");
        }
        for (spelled, who) in [
            ("sip:ceo@192.0.2.1:9999", "ceo@192.0.2.1"),
            ("sip:ceo@192.0.2.001", "ceo@192.0.2.1"),
            ("sip:ceo@[::ffff:192.0.2.1]:7", "ceo@192.0.2.1"),
            ("sip:ceo@203.0.113.9:7", "ceo@203.0.113.9"),
            ("sip:ceo@Gw.Example.Test.:1", "ceo@gw.example.test"),
            ("sip:ceo@[2001:DB8:0::7]:1", "ceo@[2001:db8::7]"),
            ("sip:ceo@[2001:db8:0:0::5]", "ceo@[2001:db8::5]"),
            ("sip:ceo@[::1]:1", "ceo@[::1]"),
            ("tel:1-0(03);phone-context=Example.test", "1003@example.test"),
            ("sip:CEO@example.test", "CEO@example.test"),
            ("sip:9901%231@example.test", "9901#1@example.test"),
            ("sip:example.test", "@example.test"),
        ] {
            assert_eq!(named(spelled).as_deref(), Some(who), "{spelled}");
        }
        for foreign in [
            "sip:ceo@example.test.example.org",
            "sip:ceo@xexample.test",
            "sip:ceo@192.0.2.2",
            "sip:ceo@[2001:db8::8]",
            "sip:ceo@127.0.0.1",
            "sip:anonymous@anonymous.invalid",
            "tel:+4930123456",
            "tel:1003;phone-context=+4930",
            "urn:service:sos",
            "mailto:ceo@example.org",
            "sip:example.test@example.org",
        ] {
            assert_eq!(named(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_login_is_its_own_user_and_no_other() {
        let settings = settings();
        let is = |uri: &str, login: &str| {
            let uri = Uri::parse(uri.as_bytes()).unwrap();
            settings.whose(&uri).unwrap().is_login(login.as_bytes())
        };
        for (uri, login) in [
            ("sip:bob@example.test", "bob"),
            ("sip:bob@example.test", "bob@example.test"),
            ("sip:bob@example.test:99", "bob@Example.TEST."),
            ("sip:bob%40partner.test@example.test", "bob@partner.test"),
            ("sip:bob@203.0.113.9", "bob@203.0.113.9"),
            ("sip:john%20doe@example.test", "john doe"),
            ("sip:caf%C3%A9@example.test", "café"),
            ("sip:50%25@example.test", "50%"),
            ("sip:a%22b%5Cc@example.test", "a\"b\\c"),
        ] {
            assert!(is(uri, login), "{login} is {uri}");
        }
        for (uri, login) in [
            ("sip:bob@example.test", "bob@partner.test"),
            ("sip:bob@example.test", "Bob"),
            ("sip:bob@example.test", ""),
            ("sip:example.test", ""),
            ("sip:example.test", "@example.test"),
            ("sip:50%25@example.test", "50%25"),
            ("sip:bob@example.test", "bob@"),
        ] {
            assert!(!is(uri, login), "{login} is not {uri}");
        }
    }

    #[test]
    fn a_certificate_speaks_for_its_user_or_its_domain() {
        let settings = settings();
        let is = |name: &str| {
            let uri = Uri::parse(b"sip:bo%62@example.test:5070").unwrap();
            let whose = settings.whose(&uri).unwrap();
            whose.is_certified_by(name.as_bytes())
        };
        for name in ["sip:bob@example.test", "sips:b%6fb@EXAMPLE.test", "sip:example.test", "example.test", "EXAMPLE.test."] {
            assert!(is(name), "{name}");
        }
        for name in [
            "sip:alice@example.test",
            "sip:Bob@example.test",
            "sip:bob@example.org",
            "example.org",
            "*.test",
            "*.example.test",
            "xexample.test",
            "urn:example.test",
            "im:bob@example.test",
            "sip:*@example.test",
            "sip:%2a@example.test",
            "",
            ".",
        ] {
            assert!(!is(name), "{name}");
        }
    }
}
