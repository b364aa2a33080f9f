//! What is admitted: nothing new while the server is about to stop (RFC 3261 §21.5.4), and a share of it during overload
//! ([`super::overload`]).

use crate::base::{Flow, Transport};
use crate::sip::{Message, Method};
use crate::stack::counters::Limit;
use crate::stack::passage::Passed;
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::turn::Turn;

/// When the caller may retry: by then another server, or the next run of this one, is up. In seconds.
const LEAVING_RETRY_AFTER_S: u32 = 10;

/// Callers refused for overload retry after 1 to this many seconds, so not all at once (RFC 3261 §20.33).
const RETRY_AFTER_S: u32 = 5;

impl Turn<'_> {
    /// Refuses the first request of a dialog if the server is about to stop. All others pass: those in a dialog, or it could not
    /// end; REGISTER, or the phone could not be called when the server is back; OPTIONS and MESSAGE, which are over once answered;
    /// and what has passed here before ([`crate::stack::passage`]), because it has already begun.
    pub fn check_drain(&self, message: &Message, passed: Option<Passed>) -> Result<(), Refusal> {
        let begins = matches!(message.method(), Method::Invite | Method::Subscribe | Method::Refer);
        match self.core.is_draining && begins && passed.is_none() && message.to_tag().is_none() {
            true => {
                let leaving = Refusal::new(503, "Going Out Of Service");
                Err(leaving.with(Extra::RetryAfter(LEAVING_RETRY_AFTER_S)))
            }
            false => Ok(()),
        }
    }

    /// Refuses a share of the new requests during overload. All others pass: those in a dialog, or the call could not end; and what
    /// has passed here before, or was challenged, because it has already begun.
    pub fn check_overload(&mut self, flow: Flow, message: &Message, passed: Option<Passed>, key: u128) -> Result<(), Refusal> {
        let is_new = passed.is_none() && message.to_tag().is_none() && message.method() != Method::Bye;
        let is_call = message.method() == Method::Invite && flow.transport == Transport::Udp;
        if !is_new || self.core.overload.admits(is_call) || self.has_been_let_in(flow, message) {
            return Ok(());
        }
        self.core.overload.refuse(self.now);
        let later = 1 + (key % u128::from(RETRY_AFTER_S)) as u32;
        let busy = Refusal::new(503, "Overloaded").with(Extra::RetryAfter(later));
        Err(busy.because_of(Limit::Overload).logged())
    }
}
