//! Hosts and SIP URIs as a conf writes them (RFC 3261 §19.1, §25.1): those that [`crate::sip`] reads, with names that the DNS
//! allows.

use super::values::string;
use super::wrong::{Parsed, Value, must_be};
use crate::sip::{Host, Scheme, Uri};

/// A host that stands alone. A bare IPv6 address is accepted too.
pub(super) fn read_host(text: &str) -> Option<Host<'_>> {
    let host = Host::of(text.as_bytes());
    is_known_to_dns(&host).then_some(host)
}

/// An address, or a name of labels of letters, digits and hyphens, the last of which begins with a letter.
fn is_known_to_dns(host: &Host) -> bool {
    let Host::Name(name) = host else {
        return true;
    };
    let name = name.strip_suffix(b".").unwrap_or(name);
    let good_label = |label: &[u8]| {
        label.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            && (1..=63).contains(&label.len())
            && !label.starts_with(b"-")
            && !label.ends_with(b"-")
    };
    let mut labels = name.rsplit(|b| *b == b'.');
    let top = labels.clone().next().and_then(<[u8]>::first);
    name.len() <= 253 && top.is_some_and(u8::is_ascii_alphabetic) && labels.all(good_label)
}

/// Returns the host in its canonical form: a name in lower case without a final dot, an IPv6 address in brackets.
pub(super) fn canonical(host: &Host) -> Vec<u8> {
    let mut text = Vec::new();
    host.write_canonical(&mut text);
    text
}

fn canonical_text(host: &Host) -> String {
    String::from_utf8_lossy(&canonical(host)).into_owned()
}

/// A SIP or SIPS URI without headers, which would have no place in a Request-URI or a Contact.
pub(super) fn read_uri(text: &str) -> Option<Uri<'_>> {
    let uri = Uri::parse(text.as_bytes()).ok()?;
    let is_good = matches!(uri.scheme, Scheme::Sip | Scheme::Sips) && uri.headers.is_none() && is_known_to_dns(&uri.host);
    is_good.then_some(uri)
}

/// Returns a parameter that appears twice (RFC 3261 §19.1.1 allows each once).
pub(super) fn repeated_param<'u>(uri: &Uri<'u>) -> Option<&'u str> {
    let names: Vec<&[u8]> = uri.params.map(|(name, _)| name).collect();
    let again = |at: &usize| {
        let mut before = names[..*at].iter();
        before.any(|name| name.eq_ignore_ascii_case(names[*at]))
    };
    let at = (1..names.len()).find(again)?;
    std::str::from_utf8(names[at]).ok()
}

pub(super) fn host(value: &Value<'_>) -> Parsed<String> {
    let what = "a host such as \"example.com\" or \"192.0.2.1\", without a port";
    let host = read_host(string(value, what)?).ok_or_else(|| must_be(value, what))?;
    Ok(canonical_text(&host))
}

pub(super) fn dns_name(value: &Value<'_>) -> Parsed<String> {
    let name = host(value)?;
    match Host::of(name.as_bytes()) {
        Host::Name(_) => Ok(name),
        _ => Err(must_be(value, "a host name, because a client asks for no address")),
    }
}

pub(super) fn host_port(value: &Value<'_>) -> Parsed<String> {
    let what = "a host with a port such as \"sip.example.com:5060\"";
    let text = format!("sip:{}", string(value, what)?);
    let uri = read_uri(&text).filter(|uri| uri.user.is_none() && uri.params.text().is_empty());
    match uri.map(|uri| (uri.host, uri.port)) {
        Some((host, _)) if host.ip().is_some_and(|ip| ip.is_unspecified()) => {
            Err(must_be(value, "a host by which peers reach this server"))
        }
        Some((host, Some(port))) => Ok(format!("{}:{port}", canonical_text(&host))),
        _ => Err(must_be(value, what)),
    }
}

/// `user` of RFC 3261 §25.1: letters, digits, marks and escapes.
pub(super) fn user_prefix(value: &Value<'_>) -> Parsed<Vec<u8>> {
    let what = "what the user part begins with, such as \"49\"";
    let text = string(value, what)?;
    let is_user = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*'()%&=+$,;?/".contains(&b);
    if text.is_empty() || !text.bytes().all(is_user) {
        return Err(must_be(value, what));
    }
    Ok(text.into())
}

/// Any SIP URI.
pub(super) fn uri(value: &Value<'_>) -> Parsed<Vec<u8>> {
    let what = "SIP URIs such as \"sip:bob@192.0.2.10:5060\"";
    let text = string(value, what)?;
    match read_uri(text) {
        Some(_) => Ok(text.into()),
        None => Err(must_be(value, what)),
    }
}
