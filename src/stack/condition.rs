//! Whether the conditions of a route hold for a request.

use crate::base::Flow;
use crate::sip::{Message, Method, Name, Scheme, Uri, unescaped};
use crate::stack::request::Request;
use crate::stack::route::Route;
use crate::stack::whose::{is_same_host, is_separator};

/// Returns whether every condition that the route names holds.
pub fn matches(route: &Route, request: &Request) -> bool {
    meets(route, &request.message, &request.flow, Some(&request.parsed))
}

/// The same if the Request-URI may be unreadable: then it meets no condition on it.
pub fn meets(route: &Route, message: &Message, flow: &Flow, uri: Option<&Uri>) -> bool {
    let any = |list: &[Vec<u8>], item: &[u8]| list.is_empty() || list.iter().any(|m| m == item);
    // An ACK and a CANCEL follow their INVITE (§9.1, §16.10).
    let methods = any(&route.methods, message.method_name())
        || (matches!(message.method(), Method::Ack | Method::Cancel) && any(&route.methods, b"INVITE"));
    methods
        && (route.from_source.is_empty() || route.from_source.iter().any(|network| network.contains(flow.peer.ip())))
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
/// ignored. Otherwise a number could be written so that no route recognises it.
fn user_starts_with(uri: &Uri, prefix: &[u8]) -> bool {
    let number = uri.scheme == Scheme::Tel || uri.param(b"user").flatten().is_some_and(|user| user.eq_ignore_ascii_case(b"phone"));
    let mut plain = unescaped(uri.user.unwrap_or_default()).filter(|byte| !(number && is_separator(*byte)));
    prefix.iter().all(|byte| plain.next() == Some(*byte))
}
