//! What a URI says about its next hop (RFC 3261 §16.6 step 7, §19.1.1; RFC 5630).

use crate::base::Transport;
use crate::sip::{Scheme, Uri};
use crate::stack::refusal::Refusal;
use crate::stack::settings::Settings;
use std::net::IpAddr;

/// What a URI says about its next hop.
#[derive(Clone, Copy, Debug)]
pub struct HopQuery<'a> {
    /// TARGET of RFC 3263 §4: a name.
    pub host: &'a [u8],
    pub port: Option<u16>,
    /// As given in the URI; TLS for SIPS.
    pub transport: Option<Transport>,
    /// TLS is required.
    pub secure: bool,
}

/// Returns the query for a URI's host (RFC 3263 §4).
pub fn hop_query_of<'a>(uri: &Uri<'a>, secure: bool) -> HopQuery<'a> {
    let transport = transport_of(uri).ok().flatten();
    HopQuery {
        host: uri.maddr().unwrap_or(uri.host_text),
        port: uri.port,
        transport: transport.filter(|_| uri.transport().is_some()),
        secure,
    }
}

pub fn is_sips(uri: &[u8]) -> bool {
    uri.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"sips:"))
}

/// Returns the transport that a URI names, if any; `sips` means TLS over whatever it names (RFC 3261 §26.2.2).
pub fn transport_of(uri: &Uri) -> Result<Option<Transport>, Refusal> {
    let Some(text) = uri.transport() else {
        return Ok((uri.scheme == Scheme::Sips).then_some(Transport::Tls));
    };
    let named = [Transport::Udp, Transport::Tcp, Transport::Tls]
        .into_iter()
        .find(|transport| text.eq_ignore_ascii_case(transport.name().as_bytes()));
    match (named, uri.scheme) {
        (Some(Transport::Tcp), Scheme::Sips) => Ok(Some(Transport::Tls)),
        (Some(transport), _) => Ok(Some(transport)),
        (None, _) => Err(Refusal::new(503, "No Such Transport To The Next Hop")),
    }
}

/// Returns the address of a next hop, from its `maddr` or its host. `None`: it is a name.
pub fn numeric(uri: &Uri) -> Result<Option<IpAddr>, Refusal> {
    if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
        return Err(Refusal::new(503, "Next Hop Has No Host"));
    }
    let ip = match uri.maddr() {
        Some(maddr) => Settings::ip(maddr),
        None => uri.host.ip(),
    };
    match ip {
        Some(ip) if ip.is_unspecified() || ip.is_multicast() || uri.port == Some(0) => {
            Err(Refusal::new(503, "Next Hop Is Not A Unicast Address"))
        }
        ip => Ok(ip),
    }
}
