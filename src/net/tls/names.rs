//! Which names a certificate proves (RFC 5922 §7.1), and how they are compared (§7.2).

use std::net::IpAddr;

use openssl::nid::Nid;
use openssl::x509::X509Ref;

/// Returns the SIP domain identities of a certificate, in lower case.
pub fn identities(certificate: &X509Ref) -> Vec<String> {
    let Some(alternatives) = certificate.subject_alt_names() else {
        // The common name counts only if there is no alternative name at all.
        return certificate
            .subject_name()
            .entries_by_nid(Nid::COMMONNAME)
            .filter_map(|entry| entry.data().to_string().ok())
            .filter(|name| is_dns_name(name))
            .map(|name| normal(&name))
            .collect();
    };
    let mut names: Vec<String> = alternatives.iter().filter_map(|name| sip_domain(name.uri()?)).collect();
    if names.is_empty() {
        names = alternatives.iter().filter_map(|name| name.dnsname()).map(normal).collect();
    }
    names
}

/// True if a certificate proves that its owner is `name`: a DNS name, or an IP address literal.
///
/// An address is not a SIP domain (RFC 5922 covers names only); it is proved by an iPAddress (RFC 5280 §4.2.1.6).
pub fn proves(certificate: &X509Ref, name: &str) -> bool {
    match address(name) {
        Some(ip) => certificate.subject_alt_names().is_some_and(|names| {
            names.iter().any(|name| match (name.ipaddress(), ip) {
                (Some(bytes), IpAddr::V4(ip)) => bytes == ip.octets(),
                (Some(bytes), IpAddr::V6(ip)) => bytes == ip.octets(),
                (None, _) => false,
            })
        }),
        None => {
            let name = normal(name);
            identities(certificate).contains(&name)
        }
    }
}

/// No honest certificate has more names.
const OWNERS_MOST: usize = 64;

/// Returns the names of a client's certificate, as written there: SIP URIs, with or without a user; DNS names only if there are no
/// URIs (RFC 5922 §7.1), so that a user is not also its whole domain. The common name proves nothing.
pub fn owners(certificate: &X509Ref) -> Vec<Box<str>> {
    let Some(alternatives) = certificate.subject_alt_names() else {
        return Vec::new();
    };
    let is_sip = |uri: &&str| {
        let scheme = uri.split_once(':').map(|(scheme, _)| scheme);
        scheme.is_some_and(|it| it.eq_ignore_ascii_case("sip") || it.eq_ignore_ascii_case("sips"))
    };
    let uris = alternatives.iter().filter_map(|name| name.uri().filter(is_sip));
    let mut owners: Vec<Box<str>> = uris.take(OWNERS_MOST).map(Into::into).collect();
    if owners.is_empty() {
        let names = alternatives.iter().filter_map(|name| name.dnsname());
        let names = names.filter(|name| is_dns_name(name));
        owners.extend(names.take(OWNERS_MOST).map(Into::into));
    }
    owners
}

/// Returns the address if the name is an IP literal, with or without the brackets of a URI.
pub fn address(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    bare.parse().ok()
}

/// Returns the name in lower case and without the dot of the root.
pub fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Returns the domain of a `sip` URI without a user; only such a URI is an identity.
fn sip_domain(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") || rest.contains('@') {
        return None;
    }
    let end = rest.find([':', ';', '?']).unwrap_or(rest.len());
    Some(&rest[..end]).filter(|host| is_dns_name(host)).map(normal)
}

pub fn is_dns_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && text.parse::<IpAddr>().is_err()
}
