//! Silent branches: another next hop is tried in place of one, if there is another, and the caller does not wait for one once
//! others have answered.

use crate::base::{Flow, Id, Instant};
use crate::settings::Millis;
use crate::stack::proxy::Proxy;
use crate::stack::proxy::context::Context;
use crate::stack::proxy::hop::{Attempt, ByUdp};
use crate::stack::proxy::neighbours::Seconds;
use crate::stack::proxy::proceed::More;
use crate::stack::transaction::{ClientKind, Hope};
use crate::stack::turn::Turn;

impl Proxy {
    /// Nothing was heard of a branch until its patience ended. Its transaction goes on.
    pub fn branch_is_silent(&mut self, turn: &mut Turn, id: Id) {
        let Some(client) = turn.transactions.client_mut(id) else {
            debug_assert!(false, "a branch that is silent is there");
            return;
        };
        // A CANCEL was requested, or the caller has its answer: nobody waits.
        if client.hope != Hope::Awaited {
            return;
        }
        let (server, target, breadth) = (client.server, client.target, client.breadth);
        let by_udp = client.by_size.then_some(ByUdp { target, breadth, answered: client.answered, silent: Some(id) });
        let (neighbour, sent_at, flow) = (client.neighbour(), client.sent_at, client.flow);
        // One unanswered request proves nothing while the next hop answers others.
        if !turn.core.health.has_answered_since(sent_at, &neighbour) {
            turn.note_silence(neighbour, sent_at);
        }
        let Some(context_id) = turn.transactions.server(server).and_then(|server| server.context.get()) else {
            return;
        };
        let Some(context) = self.contexts.get_mut(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        if !context.take_out(id) {
            debug_assert!(false, "a branch that is awaited stands in its context");
            return;
        }
        context.silent.push(id);
        if let Some(client) = turn.transactions.client_mut(id) {
            client.hope = Hope::Silent;
        }
        let is_open = !context.closed;
        let is_by_name = context.last_tried(target).is_some();
        self.log_silence(turn, server, flow, sent_at);
        if let Some(by_udp) = by_udp.filter(|_| is_open) {
            // The same server may well hear datagrams.
            self.start_more(turn, server, context_id, More::ByUdp(by_udp));
        } else if is_open && is_by_name {
            let attempt = Attempt { target: usize::from(target), breadth, since: turn.now, is_late: false };
            self.start_more(turn, server, context_id, More::Silent { id, attempt });
        }
        self.go_on(turn, server);
    }

    fn log_silence(&self, turn: &mut Turn, server: Id, flow: Flow, sent_at: Instant) {
        let (peer, transport, waited) = (flow.peer, flow.transport.name(), Seconds(turn.now.ms_since(sent_at)));
        self.log_request(turn, server, format_args!("branch to {peer} over {transport}: no response in {waited}"));
    }

    /// A provisional response has come for a silent branch: it is waited for again, unless another is tried in its place.
    pub fn hear(&mut self, turn: &mut Turn, id: Id) {
        let Some(client) = turn.transactions.client_mut(id) else {
            return;
        };
        if client.hope != Hope::Silent {
            return;
        }
        client.hope = Hope::Awaited;
        let server = client.server;
        let context = turn.transactions.server(server).and_then(|server| server.context.get());
        if let Some(context) = context.and_then(|context| self.contexts.get_mut(context)) {
            context.silent.retain(|branch| *branch != id);
            context.branches.push(id);
        }
    }
}

impl Turn<'_> {
    /// A copy was sent: `patience` is how long its next hop may be silent, by default as long as the conf says.
    #[inline]
    pub fn expect_response(&mut self, id: Id, patience: Option<Millis>) {
        let Some(client) = self.transactions.client(id) else {
            return;
        };
        let neighbour = client.neighbour();
        self.core.health.note_attempt(self.now, &neighbour);
        let patience_ms = patience.unwrap_or(self.core.settings.next_hop.patience);
        self.transactions.start_patience(self.now, id, patience_ms);
    }

    /// The silent branches are not waited for: the answer of another leaves.
    pub fn give_up_silent(&mut self, context: &mut Context) {
        while let Some(id) = context.silent.last().copied() {
            self.give_up_branch(context, id);
        }
    }

    /// Tries the remaining targets in place of the silent branches.
    pub fn replace_silent(&mut self, context: &mut Context) {
        // A spare next hop stands for the same destination: what it answers is the answer. Another phone is another destination.
        let is_by_spare = context.targets.targets.get(context.next_target).is_some_and(|next| next.spare);
        while let Some(id) = context.silent.last().copied() {
            if !is_by_spare {
                self.count_time_out(context, id);
            }
            self.give_up_branch(context, id);
        }
    }

    /// For the best response the branch counts as timed out (§16.8). A 408 is never sent to a request other than INVITE (RFC 4320),
    /// so there it must not take precedence over other answers.
    fn count_time_out(&mut self, context: &mut Context, id: Id) {
        let kind = self.transactions.client(id).map(|client| client.kind);
        if kind == Some(ClientKind::Invite) {
            context.note_failure(408, &mut self.transactions.pool);
        }
    }

    /// Whether a branch to this target is under way and its answer is waited for.
    pub fn is_awaited(&self, context: &Context, target: u16) -> bool {
        context.branches.iter().any(|branch| self.is_branch_to(*branch, target))
    }

    /// A silent branch is given up once another to the same target was sent, but not while that one waits for a name.
    pub fn give_up_replaced(&mut self, context: &mut Context, target: u16) {
        if !self.is_awaited(context, target) {
            return;
        }
        while let Some(id) = context.silent.iter().copied().find(|id| self.is_branch_to(*id, target)) {
            self.give_up_branch(context, id);
        }
    }

    fn is_branch_to(&self, branch: Id, target: u16) -> bool {
        self.transactions.client(branch).is_some_and(|client| client.target == target)
    }

    /// Its request is no longer retransmitted, and is cancelled as soon as a provisional response comes (§9.1). If a 2xx comes, the
    /// caller gets it, unless it has another answer by then.
    fn give_up_branch(&mut self, context: &mut Context, id: Id) {
        context.take_out(id);
        self.record_giving_up(id);
        let breadth = self.transactions.give_up(id);
        context.reclaim(breadth);
        self.cancel_branch(id);
    }
}
