//! What a worker turns: the SIP element behind the wires.

use crate::base::dns::Answer;
use crate::base::{Errand, Flow, Instant, Load, Outbox, Question, Shed};
use crate::sip::Fault;
use crate::stack::auth::users::Users;
use crate::stack::location::Progress;
use crate::stack::{Counters, Endpoint, Occupancy, Settings};
use std::sync::Arc;

/// The SIP element. [`Endpoint`] is the one; a test may have another.
pub trait Element: Send + 'static {
    /// False: nobody will be answered because of this message.
    fn handle(&mut self, now: Instant, flow: Flow, bytes: &[u8], outbox: &mut Outbox) -> bool;
    fn handle_mail(&mut self, now: Instant, errand: Errand, flow: Flow, bytes: &[u8], outbox: &mut Outbox);
    /// Whether a datagram bears what is asked for, before it is handled.
    fn bears(&mut self, _now: Instant, _flow: Flow, _bytes: &[u8], _question: Question) -> bool {
        false
    }
    /// A stream brought `bytes`, in which no boundary can be found; it is closed. False: there was nothing to answer.
    fn handle_unframed(&mut self, now: Instant, flow: Flow, bytes: &[u8], fault: Fault, outbox: &mut Outbox) -> bool;
    /// `sent`, or as much of it as came back, was not delivered (RFC 3261 §18.4).
    fn handle_undelivered(&mut self, now: Instant, sent: &[u8], outbox: &mut Outbox);
    /// Nothing can be sent on this flow any more, and nothing will come.
    fn handle_flow_lost(&mut self, now: Instant, flow: Flow, outbox: &mut Outbox);
    /// What came of a question that the outbox had. Who asks nothing gets no answer.
    fn handle_answer(&mut self, _now: Instant, _answer: Answer, _outbox: &mut Outbox) {}
    fn handle_timers(&mut self, now: Instant, outbox: &mut Outbox);
    /// Whether so much memory was freed since the last time that it pays to return it to the system.
    fn take_freed(&mut self) -> bool {
        false
    }
    fn next_timeout(&self) -> Option<Instant>;
    fn handle_config(&mut self, settings: Arc<Settings>);
    /// The server is about to stop.
    fn handle_drain(&mut self);
    /// Once a turn: how far this core is behind.
    fn handle_load(&mut self, _now: Instant, _load: Load) {}
    /// When that is to be said at the latest, though nothing comes.
    fn next_load(&self) -> Option<Instant> {
        None
    }
    /// What the kernel is to drop before it reaches us.
    fn shed(&self) -> Option<Shed> {
        None
    }
    /// Other users, valid for what comes next. Returns those of before.
    fn handle_users(&mut self, users: Arc<Users>) -> Arc<Users>;
    /// How far the disk is that [`Outbox::held`] waits for.
    fn progress(&self) -> Progress {
        Progress::default()
    }
    fn counters(&self) -> Counters;
    fn occupancy(&self) -> Occupancy;
}

impl Element for Endpoint {
    fn handle(&mut self, now: Instant, flow: Flow, bytes: &[u8], outbox: &mut Outbox) -> bool {
        Endpoint::handle(self, now, flow, bytes, outbox)
    }

    fn handle_mail(&mut self, now: Instant, errand: Errand, flow: Flow, bytes: &[u8], outbox: &mut Outbox) {
        Endpoint::handle_mail(self, now, errand, flow, bytes, outbox);
    }

    fn bears(&mut self, now: Instant, flow: Flow, bytes: &[u8], question: Question) -> bool {
        Endpoint::bears(self, now, flow, bytes, question)
    }

    fn handle_unframed(&mut self, now: Instant, flow: Flow, bytes: &[u8], fault: Fault, outbox: &mut Outbox) -> bool {
        Endpoint::handle_unframed(self, now, flow, bytes, fault, outbox)
    }

    fn handle_undelivered(&mut self, now: Instant, sent: &[u8], outbox: &mut Outbox) {
        Endpoint::handle_undelivered(self, now, sent, outbox);
    }

    fn handle_flow_lost(&mut self, now: Instant, flow: Flow, outbox: &mut Outbox) {
        Endpoint::handle_flow_lost(self, now, flow, outbox);
    }

    fn handle_answer(&mut self, now: Instant, answer: Answer, outbox: &mut Outbox) {
        Endpoint::handle_answer(self, now, answer, outbox);
    }

    fn handle_timers(&mut self, now: Instant, outbox: &mut Outbox) {
        Endpoint::handle_timers(self, now, outbox);
    }

    fn take_freed(&mut self) -> bool {
        Endpoint::take_freed(self)
    }

    fn next_timeout(&self) -> Option<Instant> {
        Endpoint::next_timeout(self)
    }

    fn handle_config(&mut self, settings: Arc<Settings>) {
        Endpoint::handle_config(self, settings);
    }

    fn handle_drain(&mut self) {
        Endpoint::handle_drain(self);
    }

    fn handle_load(&mut self, now: Instant, load: Load) {
        Endpoint::handle_load(self, now, load);
    }

    fn next_load(&self) -> Option<Instant> {
        Endpoint::next_load(self)
    }

    fn shed(&self) -> Option<Shed> {
        Endpoint::shed(self)
    }

    fn handle_users(&mut self, users: Arc<Users>) -> Arc<Users> {
        Endpoint::handle_users(self, users)
    }

    fn progress(&self) -> Progress {
        Endpoint::progress(self)
    }

    fn counters(&self) -> Counters {
        Endpoint::counters(self)
    }

    fn occupancy(&self) -> Occupancy {
        Endpoint::occupancy(self)
    }
}
