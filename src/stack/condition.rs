//! Whether the conditions of a route hold for a request.

use crate::sip::{Message, Method, Name, Scheme, Uri, is_separator, unescaped};
use crate::stack::request::Request;
use crate::stack::route::{Action, Route};
use crate::stack::whose::is_same_host;
use std::net::IpAddr;

/// Returns whether every condition that the route names holds.
pub fn matches(route: &Route, request: &Request) -> bool {
    let origin = Origin { ip: request.flow.peer.ip(), is_returned: request.is_returned };
    meets(route, &request.message, origin, Some(&request.parsed))
}

/// Where a request comes from.
#[derive(Clone, Copy)]
pub struct Origin {
    pub ip: IpAddr,
    /// This server has sent it to itself, or to another that shares its secret.
    pub is_returned: bool,
}

impl Origin {
    /// Returns whether the route is for requests from there. What we send to ourselves comes from our own address: the contact that
    /// leads to us must not lend that to whoever calls it. A route that turns requests away is for all that come from there, for
    /// anybody can write a Via that looks like ours.
    fn is_of(self, route: &Route) -> bool {
        let turns_away = matches!(route.action, Action::Reject(_) | Action::Drop);
        route.from_source.is_empty()
            || ((turns_away || !self.is_returned) && route.from_source.iter().any(|network| network.contains(self.ip)))
    }
}

/// The same if the Request-URI may be unreadable: then it meets no condition on it.
pub fn meets(route: &Route, message: &Message, origin: Origin, uri: Option<&Uri>) -> bool {
    let any = |list: &[Vec<u8>], item: &[u8]| list.is_empty() || list.iter().any(|m| m == item);
    // An ACK and a CANCEL follow their INVITE (§9.1, §16.10).
    let methods = any(&route.methods, message.method_name())
        || (matches!(message.method(), Method::Ack | Method::Cancel) && any(&route.methods, b"INVITE"));
    methods
        && origin.is_of(route)
        && route.to_host.as_ref().is_none_or(|host| uri.is_some_and(|uri| is_same_host(host.host(), uri.host)))
        && route.to_user_prefix.as_ref().is_none_or(|prefix| uri.is_some_and(|uri| user_starts_with(uri, prefix)))
        && (route.user_agent.is_empty() || names_agent(&route.user_agent, message))
}

/// Returns whether the User-Agent contains one of these, ignoring case.
fn names_agent(agents: &[Vec<u8>], message: &Message) -> bool {
    message.all(Name::UserAgent).any(|header| {
        let has = |agent: &Vec<u8>| {
            let mut places = header.value.windows(agent.len().max(1));
            places.any(|place| place.eq_ignore_ascii_case(agent))
        };
        agents.iter().any(has)
    })
}

/// Compares as in §19.1.4 and RFC 3966 §4: an escape is the byte it stands for, and visual separators in a telephone number are
/// ignored. Otherwise a number could be written so that no route recognises it. Gateways dial what is written as a number whether the URI
/// says that it is one or not, and leave out whatever they do not know: so where the prefix is a number, nothing but letters, digits and
/// what can be dialled counts, up to the number's own parameters.
fn user_starts_with(uri: &Uri, prefix: &[u8]) -> bool {
    let user = uri.user.unwrap_or_default();
    let is_dialled = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'*' | b'#');
    if prefix.iter().all(|byte| is_dialled(*byte)) {
        let end = memchr::memchr(b';', user).unwrap_or(user.len());
        let counts = |byte: &u8| is_dialled(*byte) || byte.is_ascii_alphabetic();
        let mut plain = unescaped(&user[..end]).filter(counts);
        return prefix.iter().all(|byte| plain.next() == Some(*byte));
    }
    let number = uri.scheme == Scheme::Tel || uri.param(b"user").flatten().is_some_and(|user| user.eq_ignore_ascii_case(b"phone"));
    let mut plain = unescaped(user).filter(|byte| !(number && is_separator(*byte)));
    prefix.iter().all(|byte| plain.next() == Some(*byte))
}
