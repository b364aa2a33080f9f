//! A request as the rules see it: the results of Route preprocessing (RFC 3261 §16.4) and the checks before it.

use crate::base::Flow;
use crate::sip::{Fault, Message, Name, Uri, Value, Via};
use crate::stack::auth::demand::Demand;
use crate::stack::branch::Mark;
use crate::stack::cookie::Recorded;
use crate::stack::identity::Dialog;
use crate::stack::passage::{Passed, Proof};
use crate::stack::token::TrunkUsed;
use std::net::SocketAddr;

/// A request after Route preprocessing (§16.4).
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub message: Message<'a>,
    /// Its server transaction, if it has or gets one (§17.2.3); 0 until known.
    pub key: u128,
    /// The flow that it arrived on.
    pub flow: Flow,
    pub via: Via<'a>,
    /// The effective Request-URI: the received one, or the last Route's after a strict router.
    pub uri: &'a [u8],
    pub parsed: Uri<'a>,
    /// Whether `uri` came from the last Route value, which is then removed.
    pub from_strict_router: bool,
    /// Whether `uri` names this server or one of its domains.
    pub is_own: bool,
    /// The number of leading Route values that name us and are removed.
    pub own_routes: usize,
    /// The first Route value that remains.
    pub next_route: Option<Value<'a>>,
    /// Where the server takes it that the first Route value names, if that goes by our names and shares our location table.
    pub node: Option<SocketAddr>,
    /// The listener that it leaves by, if our double Record-Route says so (RFC 5658).
    pub listener: Option<u16>,
    /// The flow by which a server that shares our location table wants it sent on ([`crate::stack::relay`]).
    pub relayed: Option<Flow>,
    /// What the dialog's Route says about the path to its other side.
    pub dialog: DialogRoute,
    /// It carries a Via of ours: its sender has received a request from us, and it may have passed here before with another
    /// Request-URI or Route (RFC 5393 §4.2).
    pub spiral: bool,
    /// Its topmost Via is ours: nobody has handled it since we sent it. Only known if a route depends on a request's source.
    pub is_returned: bool,
    /// What it had proved when it passed here before, if it did.
    pub passed: Option<Passed>,
    /// What it has proved on this pass.
    pub proof: Proof,
    /// The request shows the cookie of a dialog whose first request we let pass, and goes where the dialog's other side is.
    pub trusted: bool,
    /// It shows such a cookie but wants to go elsewhere: treated as a stranger's request.
    pub stranded: bool,
    /// The sender bears another name than the one the cookie was given to, and names may change.
    pub renamed: bool,
    /// The cookie of its dialog, if it shows one of ours.
    pub shown: Option<Recorded<'a>>,
    /// Its identity as a request of the side that opens a dialog; computed once for all copies.
    pub opening: Option<Dialog>,
    /// What it must prove to continue.
    pub demand: Demand,
    /// What our Via says about it; computed once for all copies.
    pub mark: Mark,
}

impl<'a> Request<'a> {
    /// Creates the request as received on `flow`, with nothing determined yet; `via` is its topmost Via.
    #[inline(always)]
    pub fn new(flow: Flow, message: &Message<'a>, via: &Via<'a>) -> Result<Request<'a>, Fault> {
        let parsed = message.uri()?;
        Ok(Request {
            message: *message,
            key: 0,
            flow,
            via: *via,
            uri: message.request_uri(),
            parsed,
            from_strict_router: false,
            is_own: false,
            own_routes: 0,
            next_route: None,
            node: None,
            listener: None,
            relayed: None,
            dialog: DialogRoute::default(),
            spiral: false,
            passed: None,
            proof: Proof::None,
            is_returned: false,
            trusted: false,
            stranded: false,
            renamed: false,
            shown: None,
            opening: None,
            demand: Demand::Nothing,
            mark: Mark::default(),
        })
    }

    /// Returns whether the request belongs to a dialog that we let pass and is for another place than this one, or has passed the
    /// routes of another server: then no route is consulted.
    pub fn is_past_routes(&self) -> bool {
        self.relayed.is_some() || self.trusted && (self.next_route.is_some() || !self.is_own)
    }
}

/// What our Record-Route retains about a dialog (RFC 5626 §5.3).
#[derive(Clone, Copy, Default)]
pub struct DialogRoute {
    /// The flow that this request's receiver has opened; it may be gone.
    pub flow: Option<Flow>,
    /// `flow` comes from the receiver's current bindings ([`crate::stack::callee`]).
    pub is_current: bool,
    /// The names in From and To are those that the dialog began with.
    pub is_named: bool,
    /// The flow that the sender had opened when the dialog began.
    pub sender: Option<Flow>,
    /// Whether the call has its connections to itself; `None` if unknown.
    pub per_call: Option<bool>,
    /// A hash of the name of the next hop that the dialog began with, if others share its address.
    pub name: Option<u64>,
    /// The trunk by which its receiver was called.
    pub trunk: Option<TrunkUsed>,
    /// One of its ends is a next hop for our users only, and was reached, or has called, as the rules allow.
    pub guarded: bool,
    /// One of its ends was on this machine when the dialog began.
    pub is_here: bool,
    /// We recorded a SIPS URI: TLS was promised on every hop.
    pub secure: bool,
}

/// Returns the message from its start line to the end of its body.
pub(in crate::stack) fn span_of<'a>(message: &Message<'a>) -> &'a [u8] {
    &message.bytes()[message.start()..message.end()]
}

/// Returns the options of Require or Proxy-Require that we do not support.
pub(in crate::stack) fn unsupported<'a>(message: &Message<'a>, name: Name) -> impl Iterator<Item = Value<'a>> + use<'a> {
    let known = move |option: &[u8]| name == Name::Require && option.eq_ignore_ascii_case(b"path");
    message.values(name).filter(move |value| !value.text.is_empty() && !known(value.text))
}
