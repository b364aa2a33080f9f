//! A request as the rules see it: what Route preprocessing (RFC 3261 §16.4) and the checks before it have found.

use crate::base::Flow;
use crate::sip::{Message, Name, Uri, Value, Via};
use crate::stack::auth::demand::Demand;
use crate::stack::branch::Mark;
use crate::stack::cookie::Recorded;
use crate::stack::identity::Dialog;
use crate::stack::passage::{Passed, Proof};

/// A request after Route preprocessing (§16.4).
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub message: Message<'a>,
    /// Its server transaction, if it has one or gets one (§17.2.3); 0 before that is known.
    pub key: u128,
    /// By which way it came.
    pub flow: Flow,
    pub via: Via<'a>,
    /// The Request-URI that counts: the received one, or the last Route's behind a strict router.
    pub uri: &'a [u8],
    pub parsed: Uri<'a>,
    /// True when `uri` came from the last Route value, which is then removed.
    pub from_strict_router: bool,
    /// How many Route values in front name us and are removed.
    pub own_routes: usize,
    /// The first Route value that remains.
    pub next_route: Option<Value<'a>>,
    /// The listener by which it leaves, where a double Record-Route of ours says so (RFC 5658).
    pub listener: Option<u16>,
    /// What the dialog's Route says of the way to its other side.
    pub dialog: DialogRoute,
    /// A Via of ours is in it: its sender has got a request from us, and it may have been here before, with another
    /// Request-URI or Route (RFC 5393 §4.2).
    pub spiral: bool,
    /// It has been here before, and this is what it had proved then.
    pub passed: Option<Passed>,
    /// What it has proved on this pass.
    pub proof: Proof,
    /// The request shows the cookie of a dialog whose first request we let pass, and goes where the dialog's other side is.
    pub trusted: bool,
    /// It shows such a cookie, and wants to go elsewhere: as any stranger.
    pub stranded: bool,
    /// The sender bears another name than that which the cookie was given to, where names may change.
    pub renamed: bool,
    /// The cookie of its dialog, where it shows one of ours.
    pub shown: Option<Recorded<'a>>,
    /// What it is known by as a request of the side that opens a dialog; worked out once for all copies.
    pub opening: Option<Dialog>,
    /// What it must prove to take its way.
    pub demand: Demand,
    /// What our Via says of it; worked out once for all copies.
    pub mark: Mark,
}

impl<'a> Request<'a> {
    /// As it came by `flow`: nothing has been found out.
    #[inline]
    pub fn new(flow: Flow, message: Message<'a>, via: Via<'a>, parsed: Uri<'a>) -> Request<'a> {
        Request {
            message,
            key: 0,
            flow,
            via,
            uri: message.request_uri(),
            parsed,
            from_strict_router: false,
            own_routes: 0,
            next_route: None,
            listener: None,
            dialog: DialogRoute::default(),
            spiral: false,
            passed: None,
            proof: Proof::None,
            trusted: false,
            stranded: false,
            renamed: false,
            shown: None,
            opening: None,
            demand: Demand::Nothing,
            mark: Mark::default(),
        }
    }
}

/// What our Record-Route has kept of a dialog (RFC 5626 §5.3).
#[derive(Clone, Copy, Default)]
pub struct DialogRoute {
    /// The way that the receiver of this request has opened; it may be gone.
    pub flow: Option<Flow>,
    /// `flow` is what the receiver's bindings say of it now ([`crate::stack::callee`]).
    pub is_current: bool,
    /// The names in From and To are those that the dialog began with.
    pub is_named: bool,
    /// The way that the sender had opened when the dialog began.
    pub sender: Option<Flow>,
    /// The call has its connections to itself; `None` if nothing is known of that.
    pub per_call: Option<bool>,
    /// What stands for the name of the next hop that the dialog began with, where others are at its address.
    pub name: Option<u64>,
    /// One of its ends is a next hop for our users only, which was reached, or has called, by the rules.
    pub guarded: bool,
    /// One of its ends was on this machine when it began.
    pub is_here: bool,
    /// We have recorded a SIPS URI: TLS was promised on every hop.
    pub secure: bool,
}

/// The message from its start line to the end of its body.
pub(in crate::stack) fn span_of<'a>(message: &Message<'a>) -> &'a [u8] {
    &message.bytes()[message.start()..message.end()]
}

/// Options of Require or Proxy-Require that we do not know.
pub(in crate::stack) fn unsupported<'a>(message: &Message<'a>, name: Name) -> impl Iterator<Item = Value<'a>> + use<'a> {
    let known = move |option: &[u8]| name == Name::Require && option.eq_ignore_ascii_case(b"path");
    message.values(name).filter(move |value| !value.text.is_empty() && !known(value.text))
}
