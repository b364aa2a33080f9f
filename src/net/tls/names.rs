//! Which names a certificate proves (RFC 5922 §7.1), and how they are compared (§7.2).

use std::net::IpAddr;

use openssl::nid::Nid;
use openssl::x509::X509Ref;

/// The SIP domain identities of a certificate, in lower case.
pub fn identities(certificate: &X509Ref) -> Vec<String> {
    let Some(alternatives) = certificate.subject_alt_names() else {
        // Only without any alternative name does the common name count.
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

/// Whether a certificate proves that its owner is `name`: a DNS name, or an address in figures.
///
/// An address is no SIP domain (RFC 5922 speaks of names only); it is proved by an iPAddress (RFC 5280 §4.2.1.6).
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

/// More names are nobody's honest certificate.
const OWNERS_MOST: usize = 64;

/// The names of a client by its certificate, as the certificate writes them: SIP URIs, with a user or without; DNS names only where there are none
/// (RFC 5922 §7.1), so that one user is not its whole domain besides. The common name proves nobody.
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

/// The address that a name is in truth, with or without the brackets of a URI.
pub fn address(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    bare.parse().ok()
}

/// In lower case and without the dot of the root.
pub fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The domain of a `sip` URI without a user, which alone is an identity.
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
