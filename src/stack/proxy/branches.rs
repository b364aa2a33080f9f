//! The branches of a request (RFC 3261 §16.6): which targets are tried now, what waits for a name meanwhile, and which server of a
//! target is next when one has failed (RFC 3263 §4.3).

use super::context::Context;
use super::locate::{Search, ServerAddress};
use super::next_hop::{LARGEST_BY_UDP, uri_of};
use super::target::Target;
use crate::base::{Id, Instant, Outbox, Transport};
use crate::sip::{Message, Method};
use crate::stack::Endpoint;
use crate::stack::counters::{Drop, Limit};
use crate::stack::log_event::Shown;
use crate::stack::refusal::{Obstacle, Refusal};
use crate::stack::request::Request;
use crate::stack::settings::Fork;
use crate::stack::transaction::{Client, ClientKind, Ends};

/// The largest payload of a UDP datagram over IPv4.
const MAX_DATAGRAM: usize = 65_507;

/// One copy of a request that is to leave.
#[derive(Clone, Copy, Debug)]
pub(in crate::stack) struct Attempt {
    /// The target's index in the context's set.
    pub target: usize,
    /// Its share of Max-Breadth (RFC 5393).
    pub breadth: u32,
    /// Since when it wants to leave: answers about its name that have come later are good for it.
    pub since: Instant,
}

impl Attempt {
    pub(in crate::stack) fn place(&self) -> u16 {
        u16::try_from(self.target).unwrap_or(u16::MAX)
    }
}

impl Endpoint {
    /// Starts what may run now: in parallel mode all targets, in sequential mode those of the next q, a spare next hop only
    /// when the one before it has failed, and never more at once than Max-Breadth allows (RFC 5393 §5.3.3).
    pub(in crate::stack) fn start_branches(
        &mut self,
        now: Instant,
        server: Id,
        context: &mut Context,
        message: &Message,
        incoming: &Request,
        outbox: &mut Outbox,
    ) {
        while !context.closed && context.next_target < context.targets.targets.len() {
            let group = self.next_group(context);
            let allowed = group.min(context.breadth as usize);
            if allowed == 0 {
                return;
            }
            if allowed < group {
                self.counters.hit(Limit::MaxBreadth);
                let what = format_args!("{allowed} of {group} targets at a time: Max-Breadth");
                self.log_event(message, incoming.flow, what);
            }
            let mut started = 0;
            for place in 0..allowed {
                let target = context.next_target;
                context.next_target += 1;
                let sharers = match context.spiral {
                    true => context.targets.targets.len() + 1 - context.next_target,
                    false => allowed - place,
                };
                let attempt = Attempt {
                    target,
                    breadth: context.breadth / sharers as u32,
                    since: now,
                };
                if self.start_branch(now, server, context, message, incoming, attempt, outbox) {
                    started += 1;
                }
            }
            if started > 0 {
                return;
            }
        }
    }

    /// How many of the targets that are left may run side by side with what runs.
    fn next_group(&self, context: &Context) -> usize {
        let rest = &context.targets.targets[context.next_target..];
        let Some(first) = rest.first() else {
            return 0;
        };
        let sequential = self.settings.proxy.fork == Fork::Sequential;
        let together = rest
            .iter()
            .take_while(|target| !target.spare && (!sequential || target.q == first.q))
            .count();
        match (together, context.is_idle()) {
            // A spare waits for the failure of all before it.
            (0, true) => 1,
            (0, false) => 0,
            // In sequential mode a lower q waits; what is left of the same q (kept back by Max-Breadth) does not.
            (_, false) if sequential && !self.same_q_as_before(context) => 0,
            (together, _) => together,
        }
    }

    fn same_q_as_before(&self, context: &Context) -> bool {
        let targets = &context.targets.targets;
        let before = context.next_target.checked_sub(1).map(|n| targets[n].q);
        before.is_none_or(|q| targets[context.next_target].q == q)
    }

    /// Sends one copy, or parks it until its next hop's name is known. False: it has failed, as §16.9 has it.
    #[allow(clippy::too_many_arguments)]
    pub(in crate::stack) fn start_branch(
        &mut self,
        now: Instant,
        server: Id,
        context: &mut Context,
        message: &Message,
        incoming: &Request,
        attempt: Attempt,
        outbox: &mut Outbox,
    ) -> bool {
        let Some(target) = context.targets.targets.get(attempt.target).copied() else {
            debug_assert!(false, "a branch has a target");
            return false;
        };
        let branch = self.forward(now, server, context, message, incoming, attempt, &target, outbox);
        match branch {
            Ok((id, place)) => {
                context.branches.push(id);
                context.breadth -= attempt.breadth;
                context.spend(self.unproved_of(id));
                context.note_tried(attempt.place(), place);
                true
            }
            Err(Obstacle::Unknown(question)) => {
                let id = self.park_branch(server, attempt, question);
                context.parked.push(id);
                context.breadth -= attempt.breadth;
                true
            }
            // §16.9: a target that cannot be reached is a 503 of its own; what is too long for it, a 513.
            Err(Obstacle::Refused(refusal)) => {
                self.fail_branch(context, message, incoming, attempt.target, &refusal);
                false
            }
        }
    }

    /// One server of a target has failed: the copy goes to the next that the target's name leads to, if there is one.
    #[allow(clippy::too_many_arguments)]
    pub(in crate::stack) fn try_next_place(
        &mut self,
        now: Instant,
        server: Id,
        context: &mut Context,
        message: &Message,
        incoming: &Request,
        mut attempt: Attempt,
        outbox: &mut Outbox,
    ) {
        attempt.breadth = attempt.breadth.min(context.breadth);
        if attempt.breadth > 0 && !context.closed {
            self.start_branch(now, server, context, message, incoming, attempt, outbox);
        }
    }

    /// A copy that was too large for UDP, and which no connection takes, goes by UDP after all (§18.1.1).
    pub(in crate::stack) fn try_by_udp(
        &mut self,
        now: Instant,
        client: &Client,
        context: &mut Context,
        message: &Message,
        incoming: &Request,
        outbox: &mut Outbox,
    ) {
        let number = client.target;
        let Some(target) = context.targets.targets.get(usize::from(number)) else {
            debug_assert!(false, "a branch has a target");
            return;
        };
        let target = Target {
            transport: Some(Transport::Udp),
            place: context.last_tried(number),
            ..*target
        };
        let attempt = Attempt {
            target: usize::from(number),
            breadth: client.breadth.min(context.breadth),
            since: now,
        };
        if attempt.breadth == 0 {
            return self.note_failure(context, 503);
        }
        let server = client.server;
        match self.forward(now, server, context, message, incoming, attempt, &target, outbox) {
            Ok((id, _)) => {
                context.branches.push(id);
                context.breadth -= attempt.breadth;
                context.spend(self.unproved_of(id));
            }
            Err(Obstacle::Refused(refusal)) => self.note_failure(context, refusal.status),
            Err(Obstacle::Unknown(_)) => self.note_failure(context, 503),
        }
    }

    /// Steps 1 to 10 for one target: the copy is the received bytes with edits, rendered into the outbox. Returns the branch, and
    /// where the next hop's name has led, if it is one.
    #[allow(clippy::too_many_arguments)]
    fn forward(
        &mut self,
        now: Instant,
        server: Id,
        context: &Context,
        message: &Message,
        incoming: &Request,
        attempt: Attempt,
        target: &Target,
        outbox: &mut Outbox,
    ) -> Result<(Id, Option<ServerAddress>), Obstacle> {
        let uri = context.targets.get(target.uri);
        let path = context.targets.get(target.path);
        let hop_uri = target.hop_uri.map(|uri| context.targets.get(uri));
        let search = Search {
            since: attempt.since,
            target: attempt.place(),
            tried: &context.tried,
            asked_by: None,
        };
        let mut hop = self.next_hop(message, incoming, target, uri, path, hop_uri, search, outbox)?;
        let client = self.transactions.next_client_id();
        let (signer, core) = (self.signer, self.core);
        let mark = incoming.mark;
        let write_branch = |out: &mut Vec<u8>| {
            signer.write_stateful(core, client, mark, out);
        };
        let breadth = attempt.breadth;
        self.edit(message, incoming, uri, path, &hop, breadth, write_branch);
        let mut span = self.send_copy(message, &hop, outbox);
        let mut by_size = false;
        if span.len() > LARGEST_BY_UDP
            && hop.flow.transport == Transport::Udp
            && let Some(tcp) = self.by_size(message, incoming, target, uri, path, hop_uri, &hop, search, outbox)
        {
            outbox.unsend();
            (hop, by_size) = (tcp, true);
            self.edit(message, incoming, uri, path, &hop, breadth, write_branch);
            span = self.send_copy(message, &hop, outbox);
        }
        let flow = hop.flow;
        if span.len() > MAX_DATAGRAM && flow.transport == Transport::Udp {
            outbox.unsend();
            self.counters.drop(Drop::TooLong);
            return Err(Refusal::new(513, "Too Long For A Datagram").into());
        }
        let copies = match self.copies(context, incoming, target, &hop, span.len()) {
            Ok(copies) => copies,
            Err(refusal) => {
                outbox.unsend();
                self.counters.hit(Limit::AnswerSize);
                return Err(refusal.into());
            }
        };
        let kind = match message.method() {
            Method::Invite => ClientKind::Invite,
            _ => ClientKind::NonInvite,
        };
        let id = self.transactions.open_client(now, kind, server, flow, span, outbox);
        if let Some(client) = self.transactions.client_mut(id) {
            client.breadth = breadth;
            if flow.transport.is_reliable() || incoming.flow.transport.is_reliable() {
                client.ends = ends(message);
            }
            client.target = attempt.place();
            client.by_size = by_size;
            client.opening = incoming.opening;
            if let Some(copies) = copies {
                client.bound_repeats(copies - 1);
                client.unproved = (copies * span.len()) as u32;
            }
        }
        Ok((id, hop.place))
    }

    /// Bytes that a branch may send to a place that has proved nothing.
    fn unproved_of(&self, id: Id) -> u32 {
        self.transactions.client(id).map_or(0, |client| client.unproved)
    }

    /// A copy could not be sent: one line says who wanted what, where it was to go, and why it cannot.
    pub(in crate::stack) fn fail_branch(
        &mut self,
        context: &mut Context,
        message: &Message,
        incoming: &Request,
        target: usize,
        refusal: &Refusal,
    ) {
        self.note_failure(context, refusal.status);
        let Some(target) = context.targets.targets.get(target) else {
            debug_assert!(false, "a branch has a target");
            return;
        };
        if refusal.is_logged {
            return;
        }
        let (uri, path) = (context.targets.get(target.uri), context.targets.get(target.path));
        let hop_uri = target.hop_uri.map(|uri| context.targets.get(uri));
        let hop = uri_of(incoming, uri, path, hop_uri);
        let (why, uri) = (refusal.reason, Shown(uri));
        match hop == uri.0 {
            true => self.log_event(message, incoming.flow, format_args!("branch to {uri} not started: {why}")),
            false => self.log_event(
                message,
                incoming.flow,
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
