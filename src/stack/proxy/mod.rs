//! The proxy core (RFC 3261 §16): requests in [`request`], responses in [`response`], one function for each step.

pub mod bounds;
pub mod branches;
pub mod callee;
pub mod cancel;
pub mod condition;
pub mod context;
pub mod forward;
pub mod guard;
pub mod locate;
pub mod next_hop;
pub mod parked;
pub mod record_route;
pub mod redirect;
pub mod request;
pub mod response;
pub mod stateless;
pub mod target;
pub mod unproved;
pub mod withhold;

use crate::base::Flow;
use crate::sip::{Uri, Value, Via};
use crate::stack::auth::Challenger;
use crate::stack::branch::Mark;
use crate::stack::cookie::Recorded;
use crate::stack::counters::Limit;
use crate::stack::identity::Dialog as Known;
use crate::stack::passage::{Passed, Proof};

/// Why a request is answered with an error instead of being forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    pub status: u16,
    /// Empty for the default phrase of the status.
    pub reason: &'static str,
    pub extra: Extra,
    /// The limit that was hit, where one was.
    pub limit: Option<Limit>,
    /// The log has it already, or need not have it.
    pub is_told: bool,
}

/// A header that goes with a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extra {
    None,
    /// Unsupported: the options of Require or Proxy-Require that we do not know (§8.2.2.3).
    Unsupported,
    /// Warning 380 (RFC 5630 §5.3).
    SipsNotAllowed,
    MinExpires(u32),
    /// WWW-Authenticate or Proxy-Authenticate (§22).
    Challenge {
        who: Challenger,
        stale: bool,
    },
    RetryAfter(u32),
}

impl Refusal {
    pub const fn new(status: u16, reason: &'static str) -> Refusal {
        Refusal {
            status,
            reason,
            extra: Extra::None,
            limit: None,
            is_told: false,
        }
    }

    pub const fn with(self, extra: Extra) -> Refusal {
        Refusal { extra, ..self }
    }

    /// No line of the log is wanted for it any more.
    pub const fn told(self) -> Refusal {
        Refusal { is_told: true, ..self }
    }

    pub const fn because_of(self, limit: Limit) -> Refusal {
        Refusal {
            limit: Some(limit),
            ..self
        }
    }
}

/// Why a request does not leave for a target now.
#[derive(Clone, Copy, Debug)]
pub enum Obstacle {
    /// It never will.
    Refused(Refusal),
    /// The next hop's name is not known yet; the number is that of the question whose answer says more.
    Unknown(u128),
}

impl From<Refusal> for Obstacle {
    fn from(refusal: Refusal) -> Obstacle {
        Obstacle::Refused(refusal)
    }
}

/// What our Record-Route has kept of a dialog (RFC 5626 §5.3).
#[derive(Clone, Copy, Default)]
pub struct Dialog {
    /// The way that the receiver of this request has opened; it may be gone.
    pub flow: Option<Flow>,
    /// `flow` is what the receiver's bindings say of it now ([`callee`]).
    pub is_current: bool,
    /// The names in From and To are those that the dialog began with.
    pub is_named: bool,
    /// The way that the sender had opened when the dialog began.
    pub sender: Option<Flow>,
    /// The call has its connections to itself; `None` where nothing is known of that.
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

/// A request after Route preprocessing (§16.4).
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
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
    pub dialog: Dialog,
    /// A Via of ours is in it: it comes from whom a request of ours has reached, and may have been here before, with another
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
    /// What it is known by as a request of whoever opens a dialog; worked out once for all copies.
    pub opening: Option<Known>,
    /// What our Via says of it; worked out once for all copies.
    pub mark: Mark,
}
