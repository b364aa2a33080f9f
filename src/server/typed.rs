//! Addresses as operators type them, for the commands that show and change bindings.

use std::net::IpAddr;
use strowger::control::Refusal;
use strowger::sip::{Uri, write_escaped};
use strowger::stack::Settings;

/// Converts what an operator typed to the canonical address that bindings are stored under.
pub fn address_of_record(typed: &str, settings: &Settings) -> Result<Vec<u8>, Refusal> {
    let refused = |why: &str| Refusal::Refused(format!("{typed}: {why}"));
    if typed.chars().any(char::is_control) {
        return Err(refused("a name has no control characters"));
    }
    let mut text = typed.to_owned();
    if !text.contains('@') && !text.starts_with("sip:") && !text.starts_with("sips:") {
        let domain = match settings.domains.first() {
            Some(domain) => String::from_utf8_lossy(domain).into_owned(),
            None => match settings.listeners.first() {
                Some(listener) => host_text(listener.address.ip()),
                None => return Err(refused("no domain to complete it with")),
            },
        };
        text = format!("{text}@{domain}");
    }
    if !text.starts_with("sip:") && !text.starts_with("sips:") {
        text = format!("sip:{text}");
    }
    let mut text = text.into_bytes();
    if Uri::parse(&text).is_err() {
        text = with_user_escaped(text);
    }
    let uri = Uri::parse(&text).map_err(|fault| refused(fault.reason()))?;
    if uri.user.is_none_or(<[u8]>::is_empty) {
        return Err(refused("an address-of-record needs a user part"));
    }
    let mut aor = Vec::new();
    uri.write_address_of_record(&mut aor);
    Ok(aor)
}

/// Returns a URI whose user contained characters that a URI does not allow: `sip:john doe@example.com`.
fn with_user_escaped(uri: Vec<u8>) -> Vec<u8> {
    let scheme_end = memchr::memchr(b':', &uri).map_or(0, |colon| colon + 1);
    let Some(at) = memchr::memrchr(b'@', &uri) else {
        return uri;
    };
    let mut escaped = uri[..scheme_end].to_vec();
    let user = uri.get(scheme_end..at).unwrap_or_default();
    write_escaped(user.iter().copied(), &mut escaped);
    escaped.extend_from_slice(&uri[at..]);
    escaped
}

fn host_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}
