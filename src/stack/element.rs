//! The interface between a worker and a SIP element: everything that can happen to an element, and everything it is asked.

use crate::base::dns::Answer;
use crate::base::{Errand, Flow, Instant, Load, Outbox, Question, Shed};
use crate::sip::Fault;
use crate::stack::auth::users::Users;
use crate::stack::counterpart::{Bequest, Counterpart};
use crate::stack::location::Progress;
use crate::stack::{Counters, Occupancy, Settings};
use std::sync::Arc;

/// The SIP element behind the wires. [`crate::stack::Endpoint`] is the real one; a test may use another.
pub trait Element: Send + 'static {
    /// Handles a message. Returns false if nobody will be answered because of it.
    fn handle(&mut self, now: Instant, flow: Flow, bytes: &[u8], outbox: &mut Outbox) -> bool;
    /// Handles the next of the messages that [`Element::handle`] has put aside. Returns false if there is none.
    fn handle_waiting(&mut self, _now: Instant, _outbox: &mut Outbox) -> bool {
        false
    }
    /// Returns whether messages wait for [`Element::handle_waiting`].
    fn has_waiting(&self) -> bool {
        false
    }
    fn handle_mail(&mut self, now: Instant, errand: Errand, flow: Flow, bytes: &[u8], outbox: &mut Outbox);
    /// Returns whether a datagram carries what the question asks for, before it is handled.
    fn bears(&mut self, _now: Instant, _flow: Flow, _bytes: &[u8], _question: Question) -> bool {
        false
    }
    /// Handles stream data in which no boundary can be found; the stream is closed. Returns false if there was nothing to answer.
    fn handle_unframed(&mut self, now: Instant, flow: Flow, bytes: &[u8], fault: Fault, outbox: &mut Outbox) -> bool;
    /// Notes that `sent`, or as much of it as came back, was not delivered (RFC 3261 §18.4).
    fn handle_undelivered(&mut self, now: Instant, sent: &[u8], outbox: &mut Outbox);
    /// Notes that nothing can be sent or received on this flow any more.
    fn handle_flow_lost(&mut self, now: Instant, flow: Flow, outbox: &mut Outbox);
    /// Handles the answer to a question in the outbox. An element that asks nothing gets none.
    fn handle_answer(&mut self, _now: Instant, _answer: Answer, _outbox: &mut Outbox) {}
    fn handle_timers(&mut self, now: Instant, outbox: &mut Outbox);
    /// Returns whether enough memory was freed since the last call to make returning it to the system worthwhile.
    fn take_freed(&mut self) -> bool {
        false
    }
    /// Notes what the machine's clock shows: the time since 1970 at [`Instant`] zero, in milliseconds. Told every second or so.
    fn handle_clock(&mut self, _wall_ms: u64) {}
    fn next_timeout(&self) -> Option<Instant>;
    fn handle_config(&mut self, settings: Arc<Settings>);
    /// The server is about to stop.
    fn handle_drain(&mut self);
    /// Notes that the other process of a restart is there, or is there no more.
    fn handle_counterpart(&mut self, _counterpart: Option<Counterpart>) {}
    /// Adds what a successor has to know of this core.
    fn bequeath(&self, _now: Instant, _bequest: &mut Bequest) {}
    /// Notes, once per turn, how far this core is behind.
    fn handle_load(&mut self, _now: Instant, _load: Load) {}
    /// Returns the latest time for the next load report even if nothing arrives.
    fn next_load(&self) -> Option<Instant> {
        None
    }
    /// Returns what the kernel is to drop before it reaches us.
    fn shed(&self) -> Option<Shed> {
        None
    }
    /// Installs new users for what comes next. Returns the previous ones.
    fn handle_users(&mut self, users: Arc<Users>) -> Arc<Users>;
    /// Returns how far writing to disk has progressed; [`Outbox::held`] waits for it.
    fn progress(&self) -> Progress {
        Progress::default()
    }
    /// Returns whether a held answer may be sent as it is once its round is over; otherwise it becomes a refusal.
    fn stands_by(&self, answer: &[u8]) -> bool {
        let _ = answer;
        true
    }
    fn counters(&self) -> Counters;
    fn occupancy(&self) -> Occupancy;
}
