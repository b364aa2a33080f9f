//! Response processing (RFC 3261 §16.7): one function for each step, in the order of the text. The end of a request is
//! [`super::finish`].

use crate::base::{Flow, Id};
use crate::sip::{Message, Method, Name, status};
use crate::stack::counters::{Drop, Limit};
use crate::stack::proxy::Proxy;
use crate::stack::proxy::context::{INVALID_RESPONSE, is_better};
use crate::stack::transaction::{ClientKind, Ends, Hope};
use crate::stack::turn::Turn;

impl Proxy {
    /// A response whose topmost Via names the client transaction `id` of this core, by a branch whose check is right.
    pub fn process_response(&mut self, turn: &mut Turn, id: Id, flow: Flow, message: &Message) {
        // Step 1: the context.
        let Some(client) = turn.transactions.client(id) else {
            return turn.core.counters.drop(Drop::StrayResponse);
        };
        let (kind, server, cancel, hope, row) = (client.kind, client.server, client.cancel, client.hope, client.row);
        turn.answered = client.opening;
        turn.note_source(client.neighbour(), &flow, message);
        match turn.answered_by(id, kind, message) {
            Answered::Request => {}
            // Our CANCEL shares the branch of the INVITE (§9.1).
            Answered::Cancel => {
                match cancel.get() {
                    Some(cancel) => {
                        turn.transactions.client_response(turn.now, cancel, message, turn.outbox);
                    }
                    None => turn.core.counters.drop(Drop::StrayResponse),
                }
                return;
            }
            Answered::Nothing => {
                let why = "the method in CSeq is not that of the request";
                return turn.discard_message(message, flow, Drop::BadResponse, why);
            }
        }
        let is_first = kind == ClientKind::Invite && turn.transactions.is_pending(id);
        let deliver = turn.transactions.client_response(turn.now, id, message, turn.outbox);
        if !deliver {
            return turn.core.counters.drop(Drop::Absorbed);
        }
        // Step 3 looks ahead: with no Via left the response is for this element, which sent no such request. It is not forwarded.
        if !message.has_second_via() {
            turn.tell_dropped(Some(message), flow, Drop::BadResponse, "its only Via is ours");
            return self.process_addressed_to_us(turn, id, server, message.status());
        }
        if is_first && message.status() >= 200 {
            turn.count_answer(row, message.status(), hope);
        }
        turn.record_response(id, message);
        if message.status() < 200 && hope == Hope::Silent {
            self.hear(turn, id);
        }
        match message.status() {
            100 => turn.cancel_if_wanted(id),
            // Another next hop is tried in its place.
            ..200 if hope == Hope::GivenUp => turn.cancel_if_wanted(id),
            // RFC 4320 §4.1: no provisional response to a non-INVITE except 100, and we send that ourselves.
            ..200 if kind == ClientKind::NonInvite => turn.core.counters.drop(Drop::Absorbed),
            ..200 => {
                // Step 2: timer C.
                turn.transactions.reset_timer_c(turn.now, id);
                self.forward_at_once(turn, server, &flow, message);
                turn.cancel_if_wanted(id);
            }
            200..300 => {
                // The first of each callee passes (step 5), whoever the caller is.
                if is_first {
                    turn.transactions.allow_another_success(server, message.bytes().len());
                }
                self.forward_success(turn, id, server, kind, flow, message);
            }
            _ => self.add_final(turn, id, server, flow, message),
        }
    }

    /// A response whose only Via is ours: its transaction has done the hop-by-hop part, including the ACK to a non-2xx (§17.1.1.2).
    /// It does not say whose answer it was meant to be, so a final one ends the branch as an invalid answer does (§21.5.3),
    /// whatever its status: the caller learns at once that this next hop is of no use. A provisional one has no effect, not even on
    /// timer C.
    fn process_addressed_to_us(&mut self, turn: &mut Turn, id: Id, server: Id, status: u16) {
        turn.core.counters.drop(Drop::BadResponse);
        if status < 200 {
            return turn.cancel_if_wanted(id);
        }
        let (Some(client), Some(context_id)) =
            (turn.transactions.client(id), turn.transactions.server(server).and_then(|s| s.context.get()))
        else {
            return;
        };
        let (flow, target, breadth) = (client.flow, client.target, client.breadth);
        let is_wanted = client.cancel.is_none() && !client.cancel_wanted;
        turn.record_outcome(id, status);
        turn.count_end(id, INVALID_RESPONSE);
        let Some(context) = self.contexts.get(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        // A 2xx is retransmitted until it is acknowledged.
        if !context.all_branches().any(|branch| branch == id) {
            return;
        }
        self.log_branch(turn, server, flow, "the only Via of its final response is ours");
        if let Some(mut context) = self.contexts.lend(context_id) {
            context.take_out(id);
            context.reclaim(breadth);
            context.note_failure(INVALID_RESPONSE, &mut turn.transactions.pool);
            self.contexts.put_back(context_id, context);
        }
        if is_wanted {
            self.try_elsewhere(turn, server, context_id, target, breadth);
        }
        self.go_on(turn, server);
        self.release_branch(turn, server, id);
    }

    /// Steps 3, 5 and 9: passes it, without our Via, to the server transaction.
    fn forward_at_once(&mut self, turn: &mut Turn, server: Id, source: &Flow, message: &Message) -> bool {
        let server_of = turn.transactions.server(server);
        let Some((receiver, offers)) = server_of.map(|server| (server.flow, server.offers_control)) else {
            return false;
        };
        self.edit_response(turn, message, source, &receiver);
        if offers {
            self.notify_load(turn, message);
        }
        let rewrite = &mut self.rewrite;
        turn.respond(server, message.status(), |out| {
            rewrite.render(&message.bytes()[..message.end()], out);
        })
    }

    /// Step 5: every 2xx to an INVITE passes, the first 2xx to anything else; then step 10, CANCEL for the remaining branches.
    fn forward_success(&mut self, turn: &mut Turn, id: Id, server: Id, kind: ClientKind, flow: Flow, message: &Message) {
        let alive = turn.transactions.server(server).is_some();
        if alive {
            self.forward_at_once(turn, server, &flow, message);
        } else if turn.transactions.client(id).is_some_and(|client| client.hope == Hope::GivenUp) {
            // The caller has had another answer long ago.
            turn.core.counters.drop(Drop::StrayResponse);
        } else if kind == ClientKind::Invite {
            // The server transaction ended before the branch did: the Via below ours knows the way (RFC 6026 §8.4).
            self.forward_by_via(turn, &flow, message);
        }
        let branch = turn.transactions.client(id).map(|client| (client.flow, client.ends));
        let Some(mut context) = self.contexts.take(server, turn.transactions) else {
            return;
        };
        context.take_out(id);
        turn.count_answered(id, context.begun);
        turn.cancel_branches(&context);
        match branch {
            Some((flow, ends @ (Ends::Request | Ends::Call))) => {
                self.release(turn, server, flow, ends);
            }
            // The call continues on this connection: a branch that shared it no longer closes it.
            Some((flow, Ends::Attempt)) => turn.keep(&flow, &context),
            _ => {}
        }
        self.retire(turn, context, message.status());
    }

    /// Steps 4 and 6: a final response other than 2xx joins the context; if it was the last, the best one leaves.
    fn add_final(&mut self, turn: &mut Turn, id: Id, server: Id, flow: Flow, message: &Message) {
        let status = message.status();
        let branch = turn.transactions.client(id);
        let (breadth, target, unproved) = branch.map_or((0, 0, 0), |branch| (branch.breadth, branch.target, branch.unproved));
        let is_given_up = branch.is_some_and(|branch| branch.hope == Hope::GivenUp);
        let invite = turn.transactions.server(server).is_some_and(|server| server.is_invite());
        let Some(context_id) = turn.transactions.server(server).and_then(|s| s.context.get()) else {
            return;
        };
        if matches!(status, 401 | 407) && self.meets_trunk(turn, id, server, context_id, message, flow.peer) {
            return;
        }
        let Some(context) = self.contexts.get_mut(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        if status == 430
            && let Some(target) = context.targets.targets.get(usize::from(target))
            && let Some(cseq) = target.relayed
        {
            turn.core.lost_ways.add(target.path.in_text(&context.targets.text), cseq);
            return self.lose_relayed(turn, id, server, context_id);
        }
        let is_failure = context.is_failure(target, status);
        // A next hop that answers about the request itself has not failed: no spare is tried, unless one is under way in its place.
        if !is_failure && !is_given_up {
            context.drop_spares();
        }
        // The usual case needs no memory: the only branch has its answer.
        if let Some(context) = self.contexts.get(context_id) {
            let only = context.branches == [id]
                && context.parked.is_empty()
                && context.silent.is_empty()
                && context.next_target >= context.targets.targets.len()
                && context.best_status == 0
                && context.challenged == 0;
            if only && !is_failure && status != 503 && (invite || status != 408) {
                self.forward_at_once(turn, server, &flow, message);
                if let Some(context) = self.contexts.take(server, turn.transactions) {
                    self.retire(turn, context, status);
                }
                self.release_branch(turn, server, id);
                return;
            }
        }
        self.keep_if_best(turn, context_id, server, &flow, message);
        let Some(context) = self.contexts.get_mut(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        context.take_out(id);
        context.reclaim(breadth);
        context.refund(unproved);
        // 6xx: no other target may be tried (§16.7 step 5), unless the conf says otherwise.
        if status >= 600 && !is_failure && !context.closed {
            context.closed = true;
            if let Some(mut context) = self.contexts.lend(context_id) {
                turn.cancel_branches(&context);
                self.parking.forget(&mut context);
                self.contexts.put_back(context_id, context);
            }
        }
        if is_failure && !is_given_up {
            self.log_branch(turn, server, flow, format_args!("answered {status} {}", status::reason(status)));
            self.try_elsewhere(turn, server, context_id, target, breadth);
        }
        self.go_on(turn, server);
        self.release_branch(turn, server, id);
    }

    /// The server that holds the phone's connection says that it is gone: as if it had been ours.
    fn lose_relayed(&mut self, turn: &mut Turn, id: Id, server: Id, context_id: Id) {
        turn.core.counters.dead_flows += 1;
        let (breadth, unproved) = turn.transactions.client(id).map_or((0, 0), |branch| (branch.breadth, branch.unproved));
        if let Some(context) = self.contexts.get_mut(context_id) {
            context.take_out(id);
            context.reclaim(breadth);
            context.refund(unproved);
            // It says nothing beside what others say.
            let is_last = context.is_idle() && context.next_target >= context.targets.targets.len();
            if is_last && context.best_status == 0 {
                context.note_failure(480, &mut turn.transactions.pool);
            }
        }
        self.go_on(turn, server);
        self.release_branch(turn, server, id);
    }

    /// Steps 6 and 7: keeps the response if it is the best so far, ready to be sent, and every challenge.
    fn keep_if_best(&mut self, turn: &mut Turn, context_id: Id, server: Id, source: &Flow, message: &Message) {
        let status = message.status();
        let challenge = matches!(status, 401 | 407);
        let mut left_out = 0;
        let Some(context) = self.contexts.get_mut(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        if challenge {
            let lines = [Name::WwwAuthenticate, Name::ProxyAuthenticate]
                .into_iter()
                .flat_map(|name| message.all(name))
                .map(|header| &message.bytes()[header.line.range()]);
            left_out = context.add_challenges(message.bytes().len(), lines);
        }
        let is_best = is_better(status, context.best_status);
        if is_best {
            context.best_status = status;
        }
        if left_out > 0 {
            turn.core.counters.hit(Limit::AnswerSize);
            let what = format_args!("{left_out} challenges of a branch left out: too long together");
            self.log_request(turn, server, what);
        }
        if !is_best {
            return;
        }
        let server = turn.transactions.server(server);
        let receiver = server.map_or(*source, |server| server.flow);
        let offers = server.is_some_and(|server| server.offers_control);
        self.edit_response(turn, message, source, &receiver);
        if offers {
            self.notify_load(turn, message);
        }
        turn.core.scratch.clear();
        self.rewrite.render(&message.bytes()[..message.end()], &mut turn.core.scratch);
        if let Some(context) = self.contexts.get_mut(context_id) {
            turn.transactions.pool.release(&mut context.best);
            context.best = turn.transactions.pool.store(&turn.core.scratch).unwrap_or_default();
        }
    }
}

/// Which request of ours a response answers.
enum Answered {
    Request,
    Cancel,
    Nothing,
}

impl Turn<'_> {
    /// §17.1.3: the method in CSeq must be that of the request. Lower case is accepted.
    #[inline]
    fn answered_by(&self, id: Id, kind: ClientKind, message: &Message) -> Answered {
        let method = message.method_name();
        match (message.method(), kind) {
            (_, ClientKind::Invite) if method.eq_ignore_ascii_case(b"CANCEL") => Answered::Cancel,
            (_, ClientKind::Invite) if method.eq_ignore_ascii_case(b"INVITE") => Answered::Request,
            (Method::Invite | Method::Ack | Method::Cancel, _) | (_, ClientKind::Invite) => Answered::Nothing,
            // Once a final response has come, nothing is kept to compare with.
            _ => {
                let sent = self.transactions.client(id).map(|client| self.transactions.sent(client));
                match begins_with(sent.unwrap_or_default(), method) {
                    true => Answered::Request,
                    false => Answered::Nothing,
                }
            }
        }
    }
}

/// True if the request as it was sent has this method, in any case, or if it is not kept any more.
fn begins_with(request: &[u8], method: &[u8]) -> bool {
    let Some((word, rest)) = request.split_at_checked(method.len()) else {
        return request.is_empty();
    };
    request.is_empty() || (word.eq_ignore_ascii_case(method) && rest.first() == Some(&b' '))
}
