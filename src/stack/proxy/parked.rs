//! What waits for a name (RFC 3263): branches of requests that have a transaction, and messages without one, as they came. An answer
//! or the deadline ends the wait.

use super::branches::Attempt;
use super::context::Context;
use super::target::{Target, TargetSet};
use crate::base::dns::{Answer, Failure, Outcome};
use crate::base::{Arena, Flow, Id, Instant, Outbox};
use crate::sip::{Message, Method};
use crate::stack::Endpoint;
use crate::stack::branch::Mark;
use crate::stack::counters::{Drop, Limit, Lookup};
use crate::stack::refusal::{Obstacle, Refusal};
use crate::stack::request::Request;
use crate::stack::source_proof::SourceProof;
use std::collections::VecDeque;

/// The deadline has passed.
pub(super) const TOO_LATE: Refusal = Refusal::new(503, "Next Hop Name Not Answered In Time");

/// Everything of one core that waits for a name.
#[derive(Default)]
pub struct Parking {
    list: Arena<Parked>,
    /// The earliest first. What has ended before its deadline stays until it would come to the front.
    deadlines: VecDeque<(Instant, Id)>,
    /// Of the messages that have no transaction.
    held_bytes: usize,
}

enum Parked {
    /// A branch of the request of this server transaction.
    Branch {
        server: Id,
        attempt: Attempt,
    },
    Message(Box<Held>),
}

/// A message that goes on without a transaction: an ACK to a 2xx, or any in the stateless mode.
struct Held {
    flow: Flow,
    /// As it came.
    bytes: Vec<u8>,
    /// Its server transaction, if it had one (§17.2.3).
    key: u128,
    /// The number among its targets, and this one alone.
    number: usize,
    target: TargetSet,
    /// Its share of Max-Breadth.
    breadth: u32,
    mark: Mark,
    since: Instant,
}

impl Held {
    fn weight(&self) -> usize {
        size_of::<Held>() + self.bytes.len() + self.target.text.len()
    }
}

impl Parking {
    /// Branches and messages that wait.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whatever waits has a deadline, in order, and the bytes that wait are counted.
    #[cfg(debug_assertions)]
    pub fn check(&self) {
        self.list.check();
        let in_order = |pair: (&(Instant, Id), &(Instant, Id))| pair.0.0 <= pair.1.0;
        let mut pairs = self.deadlines.iter().zip(self.deadlines.iter().skip(1));
        assert!(pairs.all(in_order), "deadlines of what waits for names");
        let mut bytes = 0;
        for (id, parked) in self.list.iter() {
            let has_deadline = self.deadlines.iter().any(|(_, waits)| *waits == id);
            assert!(has_deadline, "{id:?} waits for a name without a deadline");
            if let Parked::Message(held) = parked {
                bytes += held.weight();
            }
        }
        assert_eq!(bytes, self.held_bytes, "bytes of messages that wait for names");
    }

    /// Whose branch waits under this name.
    #[cfg(debug_assertions)]
    pub fn server_of(&self, id: Id) -> Option<Id> {
        match self.list.get(id)? {
            Parked::Branch { server, .. } => Some(*server),
            Parked::Message(_) => None,
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    fn put(&mut self, parked: Parked, deadline: Instant) -> Id {
        if let Parked::Message(held) = &parked {
            self.held_bytes += held.weight();
        }
        let id = self.list.insert(parked);
        // Nearly always the last: who waits for a second name keeps the deadline of the first.
        let place = self.deadlines.partition_point(|(at, _)| *at <= deadline);
        self.deadlines.insert(place, (deadline, id));
        id
    }

    /// Takes out what waits under this name, if it still does.
    fn take(&mut self, id: Id) -> Option<Parked> {
        let parked = self.list.remove(id)?;
        if let Parked::Message(held) = &parked {
            self.held_bytes -= held.weight();
        }
        while let Some((_, first)) = self.deadlines.front()
            && self.list.get(*first).is_none()
        {
            self.deadlines.pop_front();
        }
        Some(parked)
    }

    fn overdue(&mut self, now: Instant) -> Option<Parked> {
        let (deadline, id) = *self.deadlines.front()?;
        match deadline <= now {
            true => self.take(id),
            false => None,
        }
    }
}

impl Endpoint {
    /// The resolver's answer to a question of the outbox. Those who have waited for it go on.
    pub fn handle_answer(&mut self, now: Instant, answer: Answer, outbox: &mut Outbox) {
        self.now = now;
        self.whence = SourceProof::Unknown;
        let outcome = match answer.outcome {
            Outcome::Found { .. } => Lookup::Found,
            Outcome::Nothing { .. } => Lookup::Nothing,
            Outcome::Failed(Failure::Silence) => Lookup::Silence,
            Outcome::Failed(Failure::Server) => Lookup::Refused,
            Outcome::Failed(Failure::Busy) => {
                self.counters.hit(Limit::Questions);
                Lookup::Busy
            }
        };
        self.counters.lookups[outcome as usize] += 1;
        let mut waiters = std::mem::take(&mut self.waiters);
        self.names.learn(now, answer, &mut waiters);
        for id in waiters.drain(..) {
            if let Some(parked) = self.parking.take(id) {
                self.end_wait(now, id, parked, true, outbox);
            }
        }
        self.waiters = waiters;
    }

    /// Ends the waits that have lasted too long.
    pub(in crate::stack) fn end_overdue_waits(&mut self, now: Instant, outbox: &mut Outbox) {
        while let Some((_, id)) = self.parking.deadlines.front().copied()
            && let Some(parked) = self.parking.overdue(now)
        {
            self.end_wait(now, id, parked, false, outbox);
        }
    }

    /// `in_time`: more is known than before.
    fn end_wait(&mut self, now: Instant, id: Id, parked: Parked, in_time: bool, outbox: &mut Outbox) {
        match parked {
            Parked::Branch { server, attempt } => {
                self.end_branch_wait(now, server, id, attempt, in_time, outbox);
            }
            Parked::Message(held) => self.end_message_wait(*held, in_time, outbox),
        }
    }

    // ---- branches ------------------------------------------------------------------------------------------------------

    pub(super) fn park_branch(&mut self, server: Id, attempt: Attempt, question: u128) -> Id {
        let deadline = attempt.since.after_ms(self.settings.dns.timeout);
        let id = self.parking.put(Parked::Branch { server, attempt }, deadline);
        self.names.wait(question, id);
        id
    }

    /// Nobody waits for these branches any longer.
    pub(in crate::stack) fn forget_parked(&mut self, context: &mut Context) {
        for id in context.parked.drain(..) {
            if let Some(Parked::Branch { attempt, .. }) = self.parking.take(id) {
                context.breadth += attempt.breadth;
            }
        }
    }

    // ---- messages without a transaction --------------------------------------------------------------------------------

    /// Sends a copy to one target, or keeps the message until the next hop's name is known.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn forward_or_hold(
        &mut self,
        message: &Message,
        incoming: &Request,
        targets: &TargetSet,
        target: &Target,
        number: usize,
        breadth: u32,
        key: u128,
        since: Instant,
        outbox: &mut Outbox,
    ) -> Result<(), Refusal> {
        let sent = self.forward_copy(message, incoming, targets, target, number, breadth, key, since, outbox);
        let question = match sent {
            Ok(()) => return Ok(()),
            Err(Obstacle::Refused(refusal)) => return Err(refusal),
            Err(Obstacle::Unknown(question)) => question,
        };
        let mut held = Box::new(Held {
            flow: incoming.flow,
            bytes: message.bytes().to_vec(),
            key,
            number,
            breadth,
            mark: incoming.mark,
            target: TargetSet::default(),
            since,
        });
        held.target.copy_one(targets, target);
        if self.parking.held_bytes + held.weight() > self.settings.dns.held {
            return Err(Refusal::new(503, "Too Many Requests Wait For DNS").because_of(Limit::Held));
        }
        let deadline = since.after_ms(self.settings.dns.timeout);
        let id = self.parking.put(Parked::Message(held), deadline);
        self.names.wait(question, id);
        Ok(())
    }

    fn end_message_wait(&mut self, held: Held, in_time: bool, outbox: &mut Outbox) {
        let mut index = std::mem::take(&mut self.second_index);
        if let Ok(message) = Message::parse(&held.bytes, &mut index)
            && let Ok(mut incoming) = self.preprocess_route(held.flow, &message)
            && let Some(target) = held.target.targets.first()
        {
            incoming.mark = held.mark;
            let sent = match in_time {
                false => Err(TOO_LATE),
                true => self.forward_or_hold(
                    &message,
                    &incoming,
                    &held.target,
                    target,
                    held.number,
                    held.breadth,
                    held.key,
                    held.since,
                    outbox,
                ),
            };
            if let Err(refusal) = sent {
                self.refuse_copy(&message, held.flow, refusal, outbox);
            }
        }
        self.second_index = index;
    }

    /// A message without a transaction does not leave. An ACK is answered by nobody.
    pub(super) fn refuse_copy(&mut self, message: &Message, flow: Flow, refusal: Refusal, outbox: &mut Outbox) {
        if message.method() != Method::Ack {
            return self.refuse(message, flow, refusal, outbox);
        }
        self.counters.drop(Drop::StrayAck);
        if let Some(limit) = refusal.limit {
            self.counters.hit(limit);
        }
        self.log_event(message, flow, format_args!("not forwarded: {}", refusal.reason));
    }
}
