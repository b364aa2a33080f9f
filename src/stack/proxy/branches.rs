//! The branches of a request (RFC 3261 §16.6): which targets are tried now, what waits for a name meanwhile, and which server of a
//! target is next after one has failed (RFC 3263 §4.3).

use crate::base::{Id, Transport};
use crate::sip::{Message, Method};
use crate::stack::counters::{Drop, Limit};
use crate::stack::log_event::{Shown, Subject, call_id};
use crate::stack::proxy::Proxy;
use crate::stack::proxy::context::Context;
use crate::stack::proxy::hop::{Attempt, ByUdp, RequestCopy};
use crate::stack::proxy::locate::{Search, ServerAddress};
use crate::stack::proxy::next_hop::LARGEST_BY_UDP;
use crate::stack::proxy::target::Target;
use crate::stack::refusal::{Obstacle, Refusal};
use crate::stack::request::Request;
use crate::stack::settings::Fork;
use crate::stack::transaction::{ClientKind, Ends};
use crate::stack::turn::Turn;

/// The largest payload of a UDP datagram over IPv4.
const MAX_DATAGRAM: usize = 65_507;

impl Proxy {
    /// Starts what may run now: in parallel mode all targets, in sequential mode those of the next q, a spare next hop only after
    /// the one before it has failed, and never more at once than Max-Breadth allows (RFC 5393 §5.3.3).
    pub fn start_branches(&mut self, turn: &mut Turn, server: Id, context: &mut Context, request: &Request) {
        while !context.closed && context.next_target < context.targets.targets.len() {
            let group = turn.next_group(context);
            let allowed = group.min(context.breadth as usize);
            if allowed == 0 {
                return;
            }
            if allowed < group {
                turn.core.counters.hit(Limit::MaxBreadth);
                let what = format_args!("{allowed} of {group} targets at a time: Max-Breadth");
                turn.log_event(Subject::Routing, &request.message, request.flow, what);
            }
            let mut started = 0;
            for number in 0..allowed {
                let target = context.next_target;
                context.next_target += 1;
                let sharers = match context.spiral {
                    true => context.targets.targets.len() + 1 - context.next_target,
                    false => allowed - number,
                };
                let attempt = Attempt { target, breadth: context.breadth / sharers as u32, since: turn.now, is_late: false };
                if self.start_branch(turn, server, context, request, attempt) {
                    started += 1;
                }
            }
            if started > 0 {
                return;
            }
        }
    }

    /// Sends one copy, or parks it until its next hop's name is known. False: it has failed, as in §16.9.
    pub fn start_branch(
        &mut self,
        turn: &mut Turn,
        server: Id,
        context: &mut Context,
        request: &Request,
        attempt: Attempt,
    ) -> bool {
        let Some(target) = context.targets.targets.get(attempt.target).copied() else {
            debug_assert!(false, "a branch has a target");
            return false;
        };
        match self.begin_branch(turn, server, context, request, attempt, &target) {
            Ok(()) => true,
            // §16.9: a target that cannot be reached counts as a 503; a message too long for it, as a 513.
            Err(refusal) => {
                turn.fail_branch(context, request, attempt.target, &refusal);
                false
            }
        }
    }

    fn begin_branch(
        &mut self,
        turn: &mut Turn,
        server: Id,
        context: &mut Context,
        request: &Request,
        attempt: Attempt,
        target: &Target,
    ) -> Result<(), Refusal> {
        match self.forward(turn, server, context, request, attempt, target) {
            Ok((id, server_address)) => {
                context.branches.push(id);
                context.breadth -= attempt.breadth;
                context.spend(turn.unproved_of(id));
                context.note_tried(attempt.number(), server_address);
                Ok(())
            }
            Err(Obstacle::Unknown(question)) => {
                let uri = Shown(context.targets.get(target.uri));
                let what = format_args!("branch to {uri}: waits for the name of its next hop");
                turn.outbox.note(call_id(&request.message), what);
                let id = self.park_branch(turn, server, attempt, question);
                context.parked.push(id);
                context.breadth -= attempt.breadth;
                Ok(())
            }
            Err(Obstacle::Refused(refusal)) => Err(refusal),
        }
    }

    /// One server of a target is silent: the copy goes to the next that the target's name leads to, if there is one, in its place.
    pub fn try_beside(
        &mut self,
        turn: &mut Turn,
        server: Id,
        context: &mut Context,
        request: &Request,
        silent: Id,
        attempt: Attempt,
    ) {
        let Some(target) = context.targets.targets.get(attempt.target).copied() else {
            debug_assert!(false, "a branch has a target");
            return;
        };
        // Its successor, if there is one, inherits its share of Max-Breadth.
        let before = context.breadth;
        context.reclaim(attempt.breadth);
        let breadth = attempt.breadth.min(context.breadth);
        let attempt = Attempt { breadth, ..attempt };
        let begun = breadth > 0 && self.begin_branch(turn, server, context, request, attempt, &target).is_ok();
        if !begun {
            context.breadth = before;
            return;
        }
        if let Some(client) = turn.transactions.client_mut(silent) {
            client.breadth = 0;
        }
        turn.give_up_replaced(context, attempt.number());
    }

    /// A branch has waited for its name, and may go on. If the one it was to replace has been heard meanwhile, it does not start.
    pub fn start_parked(&mut self, turn: &mut Turn, server: Id, context: &mut Context, request: &Request, attempt: Attempt) {
        if turn.is_awaited(context, attempt.number()) {
            return;
        }
        self.start_branch(turn, server, context, request, attempt);
        turn.give_up_replaced(context, attempt.number());
    }

    fn park_branch(&mut self, turn: &mut Turn, server: Id, attempt: Attempt, question: u128) -> Id {
        let deadline = attempt.since.after_ms(turn.core.settings.dns.timeout);
        let id = self.parking.park(server, attempt, deadline);
        turn.core.names.wait(question, id);
        id
    }

    /// One server of a target has failed: the copy goes to the next that the target's name leads to, if there is one.
    pub fn try_next_server(&mut self, turn: &mut Turn, server: Id, context: &mut Context, request: &Request, mut attempt: Attempt) {
        attempt.breadth = attempt.breadth.min(context.breadth);
        if attempt.breadth > 0 && !context.closed {
            self.start_branch(turn, server, context, request, attempt);
        }
    }

    /// A copy that was too large for UDP, but could not be sent over a connection, or has no answer over one, goes by UDP after all
    /// (§18.1.1): the same copy, with what answers a challenge.
    pub fn try_by_udp(&mut self, turn: &mut Turn, server: Id, context: &mut Context, request: &Request, by_udp: ByUdp) {
        let ByUdp { target: number, breadth, answered, silent } = by_udp;
        let Some(target) = context.targets.targets.get(usize::from(number)) else {
            debug_assert!(false, "a branch has a target");
            return;
        };
        let target = Target { transport: Some(Transport::Udp), server_address: context.last_tried(number), ..*target };
        let before = context.breadth;
        if silent.is_some() {
            context.reclaim(breadth);
        }
        let breadth = breadth.min(context.breadth);
        let attempt = Attempt { target: usize::from(number), breadth, since: turn.now, is_late: false };
        if let Some(sent) = context.sent_answer.as_ref().filter(|sent| sent.target == number && answered > 0) {
            context.targets.credentials.clone_from(&sent.lines);
        }
        let outcome = match attempt.breadth {
            0 => Err(503),
            _ => self.forward(turn, server, context, request, attempt, &target).map_err(|obstacle| match obstacle {
                Obstacle::Refused(refusal) => refusal.status,
                Obstacle::Unknown(_) => 503,
            }),
        };
        context.targets.credentials.clear();
        match outcome {
            Ok((id, _)) => {
                context.branches.push(id);
                context.breadth -= attempt.breadth;
                context.spend(turn.unproved_of(id));
                if let Some(client) = turn.transactions.client_mut(id) {
                    client.answered = answered;
                }
                if let Some(client) = silent.and_then(|silent| turn.transactions.client_mut(silent)) {
                    client.breadth = 0;
                }
                turn.give_up_replaced(context, number);
            }
            Err(_) if silent.is_some() => context.breadth = before,
            Err(status) => context.note_failure(status, &mut turn.transactions.pool),
        }
    }

    /// Steps 1 to 10 for one target: renders the received bytes with edits into the outbox. Returns the branch, and where the next
    /// hop's name has led, if it is one.
    pub(super) fn forward(
        &mut self,
        turn: &mut Turn,
        server: Id,
        context: &Context,
        request: &Request,
        attempt: Attempt,
        target: &Target,
    ) -> Result<(Id, Option<ServerAddress>), Obstacle> {
        let search = Search { since: attempt.since, target: attempt.number(), tried: &context.tried, is_late: attempt.is_late };
        let copy = RequestCopy::new(&context.targets, target, attempt.breadth, search);
        let mut hop = self.next_hop(turn, request, &copy)?;
        let client = turn.transactions.next_client_id();
        let (signer, core) = (turn.core.signer, turn.core.number);
        let mark = request.mark;
        let write_branch = |out: &mut Vec<u8>| {
            signer.write_stateful(core, client, mark, out);
        };
        let mut span = self.send_copy(turn, request, &copy, &hop, write_branch);
        let mut by_size = false;
        if span.len() > LARGEST_BY_UDP
            && hop.flow.transport == Transport::Udp
            && let Some(tcp) = self.by_size(turn, request, &copy, &hop, span.len() > MAX_DATAGRAM)
        {
            turn.outbox.unsend();
            (hop, by_size) = (tcp, true);
            span = self.send_copy(turn, request, &copy, &hop, write_branch);
        }
        let flow = hop.flow;
        if span.len() > MAX_DATAGRAM && flow.transport == Transport::Udp {
            turn.outbox.unsend();
            turn.core.counters.drop(Drop::TooLong);
            return Err(Refusal::new(513, "Too Long For A Datagram").into());
        }
        let copies = match turn.copies(context, request, target, &hop, span.len()) {
            Ok(copies) => copies,
            Err(refusal) => {
                turn.outbox.unsend();
                turn.core.counters.hit(Limit::AnswerSize);
                return Err(refusal.into());
            }
        };
        let kind = match request.message.method() {
            Method::Invite => ClientKind::Invite,
            _ => ClientKind::NonInvite,
        };
        let id = turn.transactions.open_client(turn.now, kind, server, flow, span, turn.outbox);
        let row = turn.branch_sent(context, request, target, &flow);
        if let Some(client) = turn.transactions.client_mut(id) {
            client.breadth = attempt.breadth;
            if flow.transport.is_reliable() || request.flow.transport.is_reliable() {
                client.ends = ends(&request.message);
            }
            client.target = attempt.number();
            client.by_size = by_size;
            client.opening = request.opening;
            client.row = row;
            client.named_by = target.named_by();
            if let Some(copies) = copies {
                client.bound_repeats(copies - 1);
                client.unproved = (copies * span.len()) as u32;
            }
        }
        turn.expect_response(id, context.targets.patience);
        Ok((id, hop.server_address))
    }
}

impl Turn<'_> {
    /// Returns how many of the remaining targets may run alongside those that run.
    fn next_group(&self, context: &Context) -> usize {
        let rest = &context.targets.targets[context.next_target..];
        let Some(first) = rest.first() else {
            return 0;
        };
        let sequential = self.core.settings.proxy.fork == Fork::Sequential;
        let together = rest.iter().take_while(|target| !target.spare && (!sequential || target.q == first.q)).count();
        match (together, context.is_idle()) {
            // A spare waits until all before it have failed.
            (0, true) => 1,
            (0, false) => 0,
            // In sequential mode a lower q waits; targets of the same q that Max-Breadth held back do not.
            (_, false) if sequential && !self.same_q_as_before(context) => 0,
            (together, _) => together,
        }
    }

    fn same_q_as_before(&self, context: &Context) -> bool {
        let targets = &context.targets.targets;
        let before = context.next_target.checked_sub(1).map(|n| targets[n].q);
        before.is_none_or(|q| targets[context.next_target].q == q)
    }

    /// Returns how many bytes a branch may send to a place that has proved nothing.
    fn unproved_of(&self, id: Id) -> u32 {
        self.transactions.client(id).map_or(0, |client| client.unproved)
    }

    /// Logs one line about a copy that could not be sent: the sender, the request, the destination, and the reason.
    pub fn fail_branch(&mut self, context: &mut Context, request: &Request, target: usize, refusal: &Refusal) {
        context.note_failure(refusal.status, &mut self.transactions.pool);
        let Some(target) = context.targets.targets.get(target) else {
            debug_assert!(false, "a branch has a target");
            return;
        };
        if refusal.is_logged {
            return;
        }
        let copy = RequestCopy::new(&context.targets, target, 0, Search::without_memory(self.now));
        let (hop, why, uri) = (copy.next_uri(request), refusal.reason, Shown(copy.uri));
        match hop == uri.0 {
            true => {
                self.log_event(Subject::Routing, &request.message, request.flow, format_args!("branch to {uri} not started: {why}"))
            }
            false => self.log_event(
                Subject::Routing,
                &request.message,
                request.flow,
                format_args!("branch to {uri} by {} not started: {why}", Shown(hop)),
            ),
        }
    }
}

/// What the final response to a request ends.
fn ends(message: &Message) -> Ends {
    match message.method() {
        Method::Bye => Ends::Call,
        _ if message.to_tag().is_some() => Ends::Nothing,
        Method::Invite | Method::Subscribe | Method::Refer => Ends::Attempt,
        _ => Ends::Request,
    }
}
