//! Hosts, ports and SIP URIs as a conf writes them (RFC 3261 §19.1, §25.1).

use std::net::IpAddr;

use super::document::Value;
use super::values::{Parsed, must_be, string};
use crate::config::model::Host;

pub(super) fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// `host` of RFC 3261 §25.1; a bare IPv6 address is taken too. A name is put in lower case, without the dot at its end.
pub(super) fn parse_host(text: &str) -> Option<Host> {
    if let Some(inside) = text.strip_prefix('[') {
        let address = inside.strip_suffix(']')?.parse().ok()?;
        return Some(Host::Address(IpAddr::V6(address)));
    }
    if let Ok(address) = text.parse() {
        return Some(Host::Address(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let good_label = |label: &str| {
        let inner = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inner
            && !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let top = name.rsplit('.').next()?;
    let good = name.len() <= 253
        && name.split('.').all(good_label)
        && top.starts_with(|c: char| c.is_ascii_alphabetic());
    good.then(|| Host::Name(name.to_ascii_lowercase()))
}

/// `user` of RFC 3261 §25.1: letters, digits, marks and escapes.
pub(super) fn is_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()%&=+$,;?/".contains(&byte)
}

pub(super) fn user_prefix(value: &Value<'_>) -> Parsed<String> {
    let what = "what the user part begins with, such as \"49\"";
    let text = string(value, what)?;
    if text.is_empty() || !text.bytes().all(is_user) {
        return Err(must_be(value, what));
    }
    Ok(text.to_owned())
}

/// A SIP or SIPS URI taken apart as far as a next hop needs it.
pub(super) struct Uri<'u> {
    pub(super) secure: bool,
    pub(super) host: Host,
    pub(super) port: Option<u16>,
    params: &'u str,
}

impl<'u> Uri<'u> {
    /// The value of a parameter, empty where it has none.
    pub(super) fn param(&self, name: &str) -> Option<&'u str> {
        self.params()
            .find(|(named, _)| named.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// A parameter that stands twice (RFC 3261 §19.1.1 lets each stand once).
    pub(super) fn repeated_param(&self) -> Option<&'u str> {
        let names: Vec<&str> = self.params().map(|(name, _)| name).collect();
        let again = |at: usize| {
            names[..at]
                .iter()
                .any(|n| n.eq_ignore_ascii_case(names[at]))
        };
        (1..names.len()).find(|at| again(*at)).map(|at| names[at])
    }

    fn params(&self) -> impl Iterator<Item = (&'u str, &'u str)> {
        self.params
            .split(';')
            .filter(|param| !param.is_empty())
            .map(|param| param.split_once('=').unwrap_or((param, "")))
    }
}

pub(super) fn parse_uri(text: &str) -> Option<Uri<'_>> {
    // What would end the URI in a header field has no place in it.
    if text
        .bytes()
        .any(|b| !b.is_ascii_graphic() || b"<>\"`{}|\\^".contains(&b))
    {
        return None;
    }
    let (scheme, rest) = text.split_once(':')?;
    let secure = match scheme.to_ascii_lowercase().as_str() {
        "sip" => false,
        "sips" => true,
        _ => return None,
    };
    let rest = match rest.split_once('@') {
        Some((user, rest)) => {
            let name = user.split(':').next()?;
            if name.is_empty() || !user.bytes().all(|b| is_user(b) || b == b':') {
                return None;
            }
            rest
        }
        None => rest,
    };
    let (hop, params) = rest.split_once(';').unwrap_or((rest, ""));
    let (host, port) = match hop.rfind(':') {
        Some(colon) if !hop.ends_with(']') => {
            let (host, port) = hop.split_at(colon);
            (host, Some(parse_port(port.strip_prefix(':')?)?))
        }
        _ => (hop, None),
    };
    if host.contains(':') && !host.starts_with('[') {
        return None;
    }
    Some(Uri {
        secure,
        host: parse_host(host)?,
        port,
        params,
    })
}

/// Any SIP URI.
pub(super) fn uri(value: &Value<'_>) -> Parsed<String> {
    let what = "SIP URIs such as \"sip:bob@192.0.2.10:5060\"";
    let text = string(value, what)?;
    match parse_uri(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(must_be(value, what)),
    }
}
