//! Our Record-Route (RFC 3261 §16.6 step 4): two of them where the sides differ (RFC 5658 §3), SIPS where the request is (RFC 5630),
//! and the flow token in it (RFC 5626 §5.3).

use super::next_hop::{Hop, first_route, is_per_call, is_sips};
use super::{Dialog, Incoming};
use crate::base::{Channel, Transport};
use crate::sip::{Message, Name, NameAddr, Uri};
use crate::stack::Endpoint;
use crate::stack::identity::{COOKIE_PARAM, Recorded};
use crate::stack::token::{self, Side};
use std::net::{IpAddr, SocketAddr};

impl Endpoint {
    /// Step 4, into the rewriter. `uri` and `path` are the Request-URI and the Route that the copy will have.
    pub(in crate::stack) fn record_route(
        &mut self,
        message: &Message,
        incoming: &Incoming,
        uri: &[u8],
        path: &[u8],
        hop: &Hop,
    ) {
        let split = self.write_token(message, incoming, hop);
        let (out, back) = (hop.flow.listener, incoming.flow.listener);
        // Above those that came, which may stand above the Via.
        let top = message.headers_start();
        let (rewrite, identity) = (&mut self.rewrite, self.identity);
        let sips = is_sips(uri)
            || first_route(incoming, path)
                .and_then(|route| NameAddr::parse(route).ok())
                .is_some_and(|route| is_sips(route.uri));
        let mut record = |listener: u16, token: &[u8]| {
            let Some(listener) = self.settings.listeners.get(listener as usize) else {
                return; // gone with the conf of before
            };
            rewrite.insert(top, |out| {
                out.extend_from_slice(match (listener.transport, sips) {
                    (Transport::Tls, true) => b"Record-Route: <sips:",
                    _ => b"Record-Route: <sip:",
                });
                out.extend_from_slice(&listener.advertise);
                out.extend_from_slice(match (listener.transport, sips) {
                    (Transport::Udp, _) | (Transport::Tls, true) => b"",
                    (Transport::Tcp, _) => b";transport=tcp",
                    (Transport::Tls, false) => b";transport=tls",
                });
                out.extend_from_slice(b";lr;");
                out.extend_from_slice(COOKIE_PARAM);
                out.push(b'=');
                identity.write_cookie(message, token, out);
                out.extend_from_slice(b">\r\n");
            });
        };
        if out == back {
            record(out, &self.token);
        } else {
            let (caller, callee) = self.token.split_at(split);
            record(out, callee);
            record(back, caller);
        }
    }

    /// The flow token of this request's Record-Route, into `self.token`: how to reach the caller, who may have come from behind a
    /// NAT or by a connection, and the phone that has opened the way on which it is called. Where the second part begins.
    fn write_token(&mut self, message: &Message, incoming: &Incoming, hop: &Hop) -> usize {
        let token = &mut self.token;
        token.clear();
        if is_first_hop(message, incoming) && needs_flow(message, incoming) {
            token::write(Side::Caller, &incoming.flow, token);
        }
        let split = token.len();
        if hop.fixed {
            token::write(Side::Callee, &hop.flow, token);
        }
        if is_per_call(&hop.flow) {
            token::write_per_call(token);
        }
        if let Channel::Peer { name, .. } = hop.flow.channel
            && name != 0
            && self.shares_address(hop.flow.peer)
        {
            token::write_name(name, &mut self.token);
        }
        split
    }

    /// What one of our Record-Routes says of the way to the receiver. Each of two says it of its own side (RFC 5658 §3).
    pub(in crate::stack) fn read_token(&self, recorded: &Recorded, dialog: &mut Dialog) {
        if recorded.towards == Side::Callee {
            let per_call = dialog.per_call.unwrap_or_default();
            dialog.per_call = Some(per_call || token::is_per_call(recorded.token));
            dialog.name = dialog.name.or_else(|| token::read_name(recorded.token));
        }
        if recorded.token.is_empty() {
            return;
        }
        if dialog.flow.is_none() {
            dialog.flow = token::read(recorded.towards, recorded.token);
        }
        if dialog.sender.is_none() {
            dialog.sender = token::read(recorded.towards.other(), recorded.token);
        }
    }
}

/// True when the request comes from where it was made: no proxy has touched it.
fn is_first_hop(message: &Message, incoming: &Incoming) -> bool {
    // A proxy that is one more hop away leaves its Via; looking for it costs more than the other question.
    (incoming.flow.transport.is_reliable() || !names_source(incoming))
        && message.values(Name::Via).nth(1).is_none()
}

/// True when the sender cannot be reached by what it says of itself: it came by a connection, or from behind a NAT.
fn needs_flow(message: &Message, incoming: &Incoming) -> bool {
    if incoming.flow.transport.is_reliable() {
        return true;
    }
    // Who does not ask for answers by the way of the request need not listen there (RFC 3581 §3).
    if incoming.via.rport().is_none() {
        return false;
    }
    let contact = message.values(Name::Contact).next();
    let contact = contact.and_then(|value| NameAddr::parse(value.text).ok());
    let Some(uri) = contact.and_then(|contact| Uri::parse(contact.uri).ok()) else {
        return false;
    };
    // A public address of a host with several is reached as any other: to follow the source instead would hand the dialog to
    // whoever repeats a stranger's request. So is who knows the address that the NAT gives, and says so.
    let port = uri.port.unwrap_or(Transport::Udp.default_port());
    match uri.host.ip() {
        Some(ip) => is_private(ip) && SocketAddr::new(ip, port) != incoming.flow.peer,
        None => true,
    }
}

/// An address that means nothing on the other side of a NAT (RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291).
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let shared = u32::from(ip) >> 22 == u32::from_be_bytes([100, 64, 0, 0]) >> 22;
            ip.is_private() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// True when the topmost Via names the address from which the request came.
fn names_source(incoming: &Incoming) -> bool {
    let (via, peer) = (&incoming.via, incoming.flow.peer);
    via.host.ip() == Some(peer.ip()) && via.port.unwrap_or(5060) == peer.port()
}
