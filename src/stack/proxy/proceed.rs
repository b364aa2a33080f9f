//! What comes next for a request when one of its branches has ended, or may go on: the stored request is read again.

use crate::base::Id;
use crate::sip::Message;
use crate::stack::proxy::Proxy;
use crate::stack::proxy::hop::{Attempt, ByUdp};
use crate::stack::proxy::locate::TOO_LATE;
use crate::stack::proxy::trunk_answer::Answer;
use crate::stack::turn::Turn;

/// Why the stored request of a context is read again.
pub(super) enum More<'c> {
    /// The remaining targets that may run.
    Targets,
    /// A copy that could not be sent over a connection goes by UDP (§18.1.1).
    ByUdp(ByUdp),
    /// One server of a target has failed.
    Elsewhere(Attempt),
    /// A challenge of the next hop is answered for a trunk.
    ForTrunk(&'c Answer<'c>),
    /// One server of a target, in this branch, is silent.
    Silent { id: Id, attempt: Attempt },
    /// A branch has waited for a name; `in_time`: more is known than before.
    Parked { id: Id, attempt: Attempt, in_time: bool },
}

impl Proxy {
    /// After a branch has ended: the next targets, or the end.
    pub fn go_on(&mut self, turn: &mut Turn, server: Id) {
        let Some(context_id) = turn.transactions.server(server).and_then(|s| s.context.get()) else {
            return;
        };
        let Some(context) = self.contexts.get_mut(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        if !context.closed && context.next_target < context.targets.targets.len() {
            // The remaining targets are tried in place of the silent ones, if Max-Breadth has room for them then.
            if context.is_idle() && (context.breadth > 0 || !context.spiral) {
                turn.replace_silent(context);
            }
            turn.order_spares_by_health(context);
            self.start_more(turn, server, context_id, More::Targets);
        }
        if self.contexts.get(context_id).is_some_and(|context| context.is_over()) {
            self.finish(turn, server);
        }
    }

    /// RFC 3263 §4.3: one server of a target that a name led to has failed: tries the next one, if there is one.
    pub fn try_elsewhere(&mut self, turn: &mut Turn, server: Id, context_id: Id, target: u16, breadth: u32) {
        let Some(context) = self.contexts.get(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        if context.closed || context.last_tried(target).is_none() {
            return;
        }
        let attempt = Attempt { target: usize::from(target), breadth, since: turn.now, is_late: false };
        self.start_more(turn, server, context_id, More::Elsewhere(attempt));
    }

    /// Reads the stored request again and starts what `more` says.
    pub(super) fn start_more(&mut self, turn: &mut Turn, server: Id, context_id: Id, more: More) {
        let Some(mut context) = self.contexts.lend(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        let mut bytes = std::mem::take(&mut self.request_copy);
        bytes.clear();
        bytes.extend_from_slice(turn.transactions.pool.get(&context.request));
        let mut index = std::mem::take(&mut turn.core.second_index);
        if let More::Parked { id, attempt, .. } = more {
            context.parked.retain(|parked| *parked != id);
            context.breadth += attempt.breadth;
        }
        if let (Ok(message), Some(source)) = (Message::parse(&bytes, &mut index), context.source)
            && let Ok(mut request) = turn.preprocess_route(source, &message)
        {
            (request.mark, request.opening) = (context.mark, context.opening);
            let (_message, request, c) = (&message, &request, &mut context);
            match more {
                More::Targets => self.start_branches(turn, server, c, request),
                More::ByUdp(by_udp) => self.try_by_udp(turn, server, c, request, by_udp),
                More::ForTrunk(answer) => self.try_with_password(turn, server, c, request, answer),
                More::Elsewhere(attempt) => {
                    self.try_next_server(turn, server, c, request, attempt);
                }
                More::Silent { id, attempt } => self.try_beside(turn, server, c, request, id, attempt),
                More::Parked { attempt, in_time: true, .. } => {
                    self.start_parked(turn, server, c, request, attempt);
                }
                // A server that has failed, and is known, is better than none.
                More::Parked { attempt, .. } if !turn.core.health.is_all_well() => {
                    let attempt = Attempt { is_late: true, ..attempt };
                    self.start_parked(turn, server, c, request, attempt);
                }
                More::Parked { attempt, .. } => {
                    turn.fail_branch(c, request, attempt.target, &TOO_LATE);
                }
            }
        }
        turn.core.second_index = index;
        self.request_copy = bytes;
        self.contexts.put_back(context_id, context);
    }
}
