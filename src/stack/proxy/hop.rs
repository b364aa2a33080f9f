//! One copy of a request that is to be sent (RFC 3261 §16.6), and the way that it takes.

use crate::base::{Flow, Id, Instant};
use crate::sip::NameAddr;
use crate::stack::proxy::locate::{Search, ServerAddress};
use crate::stack::proxy::target::{Target, TargetSet};
use crate::stack::request::Request;
use crate::stack::route::Edits;
use crate::stack::token::TrunkUsed;
use crate::stack::trunk::Trunk;

/// One copy that is to be sent to a target of its context.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The target's index in the context's set.
    pub target: usize,
    /// Its share of Max-Breadth (RFC 5393).
    pub breadth: u32,
    /// Since when it is ready: later answers about its name are valid for it.
    pub since: Instant,
    /// It has waited for its name until the deadline.
    pub is_late: bool,
}

impl Attempt {
    pub fn number(&self) -> u16 {
        u16::try_from(self.target).unwrap_or(u16::MAX)
    }
}

/// A copy that went over a connection because of its size, and is to go by UDP.
#[derive(Clone, Copy, Debug)]
pub struct ByUdp {
    /// The target's index.
    pub target: u16,
    /// The branch's share of Max-Breadth.
    pub breadth: u32,
    /// Challenges answered so far.
    pub answered: u8,
    /// The branch over the connection, if it is under way still.
    pub silent: Option<Id>,
}

/// One copy, after its target was decided.
#[derive(Clone, Copy, Debug)]
pub struct RequestCopy<'a> {
    pub target: &'a Target,
    /// The new Request-URI.
    pub uri: &'a [u8],
    /// Path of the target's binding (RFC 3327); empty if there is none.
    pub path: &'a [u8],
    /// The URI of the target's own next hop, if the conf gives it by name.
    pub hop_uri: Option<&'a [u8]>,
    /// Its share of Max-Breadth (RFC 5393 §5.3.3).
    pub breadth: u32,
    pub search: Search<'a>,
    /// What its route changes in the header fields.
    pub edits: Option<&'a Edits>,
    /// The URI of the user that the request has proved to be, for trusted receivers; empty: none.
    pub asserted: &'a [u8],
    /// The trunk that it goes by.
    pub trunk: Option<&'a Trunk>,
    /// How it was used when the dialog began that the request belongs to.
    pub trunk_used: Option<TrunkUsed>,
    /// The header line that answers the next hop's challenge for one of our trunks; empty if there is none.
    pub credentials: &'a [u8],
}

impl<'a> RequestCopy<'a> {
    #[inline]
    pub fn new(targets: &'a TargetSet, target: &'a Target, breadth: u32, search: Search<'a>) -> RequestCopy<'a> {
        RequestCopy {
            target,
            uri: targets.get(target.uri),
            path: targets.get(target.path),
            hop_uri: target.hop_uri.map(|uri| targets.get(uri)),
            breadth,
            search,
            edits: targets.edits.as_deref(),
            asserted: targets.asserted(),
            trunk: targets.trunk.as_deref(),
            trunk_used: targets.trunk_used,
            credentials: &targets.credentials,
        }
    }

    /// The URI that names the next hop: the conf's, the topmost Route's, or the new Request-URI.
    pub fn next_uri<'b>(&'b self, request: &'b Request<'b>) -> &'b [u8] {
        if let Some(uri) = self.hop_uri {
            return uri;
        }
        match self.first_route(request) {
            Some(route) => NameAddr::parse(route).map_or(route, |address| address.uri),
            None => self.uri,
        }
    }

    /// The Route value that will be on top.
    pub fn first_route<'b>(&'b self, request: &'b Request<'b>) -> Option<&'b [u8]> {
        if self.path.is_empty() {
            return request.next_route.map(|value| value.text);
        }
        Some(&self.path[..first_value_len(self.path)])
    }
}

/// The way of one copy.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    pub flow: Flow,
    /// The phone itself has opened this flow, and can only be reached by it: the requests of the dialog must use it too.
    pub fixed: bool,
    /// The conf says that the request goes there.
    pub by_conf: bool,
    /// Where the next hop's name has led, if it is one.
    pub server_address: Option<ServerAddress>,
}

/// Where the first value of a comma list ends.
pub fn first_value_len(list: &[u8]) -> usize {
    let (mut quoted, mut angle, mut escaped) = (false, false, false);
    for (at, byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted => angle = true,
            b'>' if !quoted => angle = false,
            b',' if !quoted && !angle => return at,
            _ => {}
        }
    }
    list.len()
}
