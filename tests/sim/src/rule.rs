//! The rules that the auditor holds a server to, each with its name.

use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// At most one final response for one request; a repetition is the same bytes (RFC 3261 §16.7, §17.2).
    OneFinal,
    /// A final response within Timer C + 64·T1 of the last sign of life.
    FinalInTime,
    /// Every 2xx and every 101–199 to an INVITE that reaches the server goes upstream (§16.7 step 5).
    EveryAnswer,
    /// A response that leaves is one that came, less the top Via, or the server's own.
    NothingInvented,
    /// The best of the responses was chosen (§16.7 step 6).
    BestResponse,
    /// An ACK for a non-2xx ends at the hop that it was sent to (§17.1.1.3).
    AckStaysOnHop,
    /// A non-2xx to an INVITE is acknowledged by the server itself, each time it comes.
    OwnAck,
    /// An ACK for a 2xx goes on (§16.10, RFC 6026).
    AckForwarded,
    NoAnswerToAck,
    /// One Via more on a request, one less on a response, the others as they were (§16.6 step 8, §16.7 step 3).
    ViaStack,
    /// Max-Forwards falls by one (§16.6 step 3).
    MaxForwards,
    /// Max-Breadth is there and its sum is not exceeded (RFC 5393 §5.3.3).
    MaxBreadth,
    /// What is not to be edited leaves bit for bit.
    BitForBit,
    /// The SIP-Version leaves in upper case, however it came (§7.1).
    Version,
    /// Record-Route is added if the conf says so, above those that are there, and can be reached.
    RecordRoute,
    /// Route loses the server's own values and nothing else (§16.4, §16.12).
    Route,
    /// CANCEL goes to all pending branches that had a provisional response, and to no others (§9.1, §16.10).
    CancelReach,
    /// A CANCEL ends at the hop (§9.2, §16.10).
    CancelStaysOnHop,
    /// An honest request is answered or forwarded.
    NoSilence,
    /// 100 at once for an INVITE (§16.2).
    TryingAtOnce,
    /// A retransmission on a branch is the same bytes to the same place; no second branch for one target.
    OneBranch,
    /// Nothing begins after the end: no new branch after a final or a CANCEL.
    NoForkAfterEnd,
    /// All contacts are tried in parallel mode, in the order of q in sequential mode (§16.6).
    TargetSet,
    /// Nothing goes to an address where nobody could expect it.
    NoStranger,
    /// A response goes to where its request came from (§18.2.2, RFC 3581).
    Misdirected,
    /// 100 not too early, no other 1xx and no 408 for a non-INVITE (RFC 4320 §4).
    NonInvite,
    /// What was not heard is said again: requests without a response, refusals without an ACK, answers to a request that comes
    /// again (§17.1, §17.2).
    Repetition,
    /// What has been here before with nothing changed is not forwarded again (RFC 5393 §4.2).
    Loop,
    /// A retransmission meets a stateless proxy's same branch (§16.11).
    StatelessBranch,
    /// Bindings equal a naive model of §10.3.
    Bindings,
    /// What is written on a stream is what the framer finds there (§18.3).
    Framing,
    /// Nothing is written on a connection that is gone.
    DeadFlow,
    /// No request is repeated over a reliable transport (§17.1.1.2, §17.1.2.2).
    ReliableRepetition,
    /// The top Via names the transport that carries the request (§18.1.1).
    ViaTransport,
    /// A connection of one call carries that call alone.
    PrivateConnection,
    /// Nobody acts for a user that it has not proved to be: a request with a From of ours that leaves a server which asks, and a
    /// binding that is made there, go back to credentials for this very request, or to a dialog with these parties.
    Identity,
    /// A spiral is a spiral: who shows a Via of ours has shown it with the request that left with it (RFC 5393 §4).
    Spiral,
    /// The cookie of a dialog speaks for the two who are in it, and for nobody else.
    Dialog,
    /// No credentials for a realm of ours leave (§22.3).
    Credentials,
    /// No message leaves on a stream without Content-Length (§18.3, §20.14).
    Length,
    /// P-Asserted-Identity leaves only where a trusted source has written it, or towards one that is trusted with the name that the sender has
    /// proved (RFC 3325 §5).
    AssertedIdentity,
    /// One request that comes makes few that leave, an ACK too.
    Copies,
    /// An ACK leaves only for a call that has passed here.
    StrayAck,
    /// An answer of the server's own over UDP, to somebody who has proved nothing, is at most three times what it answers.
    AnswerSize,
    /// When all is quiet, nothing is left.
    Quiet,
}

/// Rules that the server does not keep yet.
const AWAITED: &[Rule] = &[];

impl Rule {
    pub fn is_awaited(self) -> bool {
        AWAITED.contains(&self)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: Rule,
    pub server: usize,
    pub detail: String,
    /// The call that it is about, if it is about one.
    pub call_id: Vec<u8>,
}
