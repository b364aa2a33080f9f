//! Whether the conditions of a route hold for a request.

use super::Incoming;
use crate::sip::{Host, Message, Method, Scheme, Uri, unescaped};
use crate::stack::route::Route;
use crate::stack::whose::{is_same_host, is_separator};

/// True when every condition that the route names holds.
pub fn matches(route: &Route, message: &Message, incoming: &Incoming) -> bool {
    let any = |list: &[Vec<u8>], item: &[u8]| list.is_empty() || list.iter().any(|m| m == item);
    // An ACK and a CANCEL take the way of their INVITE (§9.1, §16.10).
    let methods = any(&route.methods, message.method_name())
        || (matches!(message.method(), Method::Ack | Method::Cancel)
            && any(&route.methods, b"INVITE"));
    methods
        && (route.from_source.is_empty()
            || route
                .from_source
                .iter()
                .any(|network| network.contains(incoming.flow.peer.ip())))
        && route
            .to_host
            .as_ref()
            .is_none_or(|host| is_same_host(Host::of(host), incoming.parsed.host))
        && route
            .to_user_prefix
            .as_ref()
            .is_none_or(|prefix| user_starts_with(&incoming.parsed, prefix))
}

/// Compares as §19.1.4 and RFC 3966 §4 do: an escape is the byte it stands for, and a visual separator in a telephone number
/// is nothing. Else a number could be written so that no route knows it.
fn user_starts_with(uri: &Uri, prefix: &[u8]) -> bool {
    let number = uri.scheme == Scheme::Tel
        || uri
            .param(b"user")
            .flatten()
            .is_some_and(|user| user.eq_ignore_ascii_case(b"phone"));
    let mut plain =
        unescaped(uri.user.unwrap_or_default()).filter(|byte| !(number && is_separator(*byte)));
    prefix.iter().all(|byte| plain.next() == Some(*byte))
}
