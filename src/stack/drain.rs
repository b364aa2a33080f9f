//! A server that is about to stop (RFC 3261 §21.5.4): what would begin a dialog is answered 503; what has begun goes on.

use crate::sip::{Message, Method};
use crate::stack::Endpoint;
use crate::stack::passage::Passed;
use crate::stack::refusal::{Extra, Refusal};

/// When the caller may ask again: by then another server, or the next run of this one, is there. Seconds.
const RETRY_AFTER_S: u32 = 10;

impl Endpoint {
    /// From now on no dialog begins here.
    pub fn handle_drain(&mut self) {
        self.is_draining = true;
    }

    /// Refuses the first request of a dialog. All others pass: those in a dialog, or it could not end; REGISTER, or the phone
    /// could not be called when the server is back; OPTIONS and MESSAGE, which are over with their answer; and what has been here
    /// before ([`crate::stack::passage`]), for it has begun already.
    pub(in crate::stack) fn check_drain(&self, message: &Message, passed: Option<Passed>) -> Result<(), Refusal> {
        let begins = matches!(message.method(), Method::Invite | Method::Subscribe | Method::Refer);
        match self.is_draining && begins && passed.is_none() && message.to_tag().is_none() {
            true => {
                let leaving = Refusal::new(503, "Going Out Of Service");
                Err(leaving.with(Extra::RetryAfter(RETRY_AFTER_S)))
            }
            false => Ok(()),
        }
    }
}
