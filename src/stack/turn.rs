//! Everything that the current message may touch, and what is known only about it.

use crate::base::{Id, Instant, Outbox};
use crate::sip::Feedback;
use crate::stack::core::Core;
use crate::stack::identity::Dialog;
use crate::stack::transaction::Transactions;

/// What a sender has proved about its location, besides the source address of its packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SourceProof {
    /// It was not challenged.
    #[default]
    Unknown,
    /// It has the right password, but for a challenge that was sent to another address.
    Elsewhere,
    /// It has answered a challenge that was sent to this address.
    Here,
}

/// The handling of one message, or of the timers once.
pub(in crate::stack) struct Turn<'a> {
    /// When the message is handled.
    pub now: Instant,
    pub core: &'a mut Core,
    pub transactions: &'a mut Transactions,
    pub outbox: &'a mut Outbox,
    /// What the sender has proved about its location.
    pub source_proof: SourceProof,
    /// The dialog of the request that this response answers.
    pub answered: Option<Dialog>,
    /// The message gets no answer.
    pub is_passed_over: bool,
}

impl<'a> Turn<'a> {
    #[inline]
    pub fn new(now: Instant, core: &'a mut Core, transactions: &'a mut Transactions, outbox: &'a mut Outbox) -> Turn<'a> {
        Turn { now, core, transactions, outbox, source_proof: SourceProof::Unknown, answered: None, is_passed_over: false }
    }

    /// Returns the milliseconds since 1970: servers that share a secret recognise each other's passages.
    #[inline]
    pub fn wall_ms(&self) -> u64 {
        self.core.wall_ms + self.now.as_ms()
    }

    /// Returns the load reported to the element before us, if it supports that (RFC 7339 §5.2).
    #[inline]
    pub fn feedback(&self) -> Feedback {
        self.core.overload.feedback(self.wall_ms())
    }

    /// Sends a response in a server transaction if the transaction allows it; `write` appends its bytes. Returns true if it was
    /// sent.
    #[inline]
    pub fn respond(&mut self, server: Id, status: u16, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.transactions.respond(self.now, server, status, self.outbox, write)
    }
}
