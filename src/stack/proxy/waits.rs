//! How waiting for a name ends (RFC 3263): by an answer, or the deadline.

use crate::base::Id;
use crate::base::dns::{Answer, Failure, Outcome};
use crate::sip::Message;
use crate::stack::counters::{Limit, Lookup};
use crate::stack::proxy::Proxy;
use crate::stack::proxy::hop::{Attempt, RequestCopy};
use crate::stack::proxy::locate::{Search, TOO_LATE};
use crate::stack::proxy::parked::{Held, Parked};
use crate::stack::proxy::proceed::More;
use crate::stack::turn::Turn;

impl Proxy {
    /// The resolver's answer to a question of the outbox: what waited for it goes on.
    pub fn handle_answer(&mut self, turn: &mut Turn, answer: Answer) {
        let outcome = match answer.outcome {
            Outcome::Found { .. } => Lookup::Found,
            Outcome::Nothing { .. } => Lookup::Nothing,
            Outcome::Failed(Failure::Silence) => Lookup::Silence,
            Outcome::Failed(Failure::Server) => Lookup::Refused,
            Outcome::Failed(Failure::Busy) => {
                turn.core.counters.hit(Limit::Questions);
                Lookup::Busy
            }
        };
        turn.core.counters.lookups[outcome as usize] += 1;
        let mut waiters = std::mem::take(&mut self.waiters);
        turn.core.names.learn(turn.now, answer, &mut waiters);
        for id in waiters.drain(..) {
            if let Some(parked) = self.parking.take(id) {
                self.end_wait(turn, id, parked, true);
            }
        }
        self.waiters = waiters;
    }

    /// Ends the waits whose deadline has passed.
    pub fn end_overdue_waits(&mut self, turn: &mut Turn) {
        while let Some((id, parked)) = self.parking.take_overdue(turn.now) {
            self.end_wait(turn, id, parked, false);
        }
    }

    /// `in_time`: more is known than before.
    fn end_wait(&mut self, turn: &mut Turn, id: Id, parked: Parked, in_time: bool) {
        match parked {
            Parked::Branch { server, attempt } => {
                self.end_branch_wait(turn, server, id, attempt, in_time);
            }
            Parked::Message(held) => self.end_message_wait(turn, *held, in_time),
        }
    }

    fn end_message_wait(&mut self, turn: &mut Turn, held: Held, in_time: bool) {
        let mut index = std::mem::take(&mut turn.core.second_index);
        if let Ok(message) = Message::parse(&held.bytes, &mut index)
            && let Ok(mut request) = turn.preprocess_route(held.flow, &message)
            && let Some(target) = held.target.targets.first()
        {
            (request.key, request.mark) = (held.key, held.mark);
            // A server that has failed, and is known, is better than none.
            let is_late = !in_time && !turn.core.health.is_all_well();
            let search = Search { is_late, ..Search::without_memory(held.since) };
            let copy = RequestCopy::new(&held.target, target, held.breadth, search);
            let sent = match in_time || is_late {
                false => Err(TOO_LATE),
                true => self.forward_or_hold(turn, &request, &held.target, &copy, held.number),
            };
            if let Err(refusal) = sent {
                turn.refuse_copy(&message, held.flow, refusal);
            }
        }
        turn.core.second_index = index;
    }

    /// A branch has waited for a name: it goes on, or its time is over.
    fn end_branch_wait(&mut self, turn: &mut Turn, server: Id, id: Id, attempt: Attempt, in_time: bool) {
        let Some(context_id) = turn.transactions.server(server).and_then(|s| s.context.get()) else {
            return;
        };
        let more = More::Parked { id, attempt, in_time };
        self.start_more(turn, server, context_id, more);
        self.go_on(turn, server);
    }
}
