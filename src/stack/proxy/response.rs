//! Response processing (RFC 3261 §16.7): one function for each step, in the order of the text; and what §16.8 and §16.9 make
//! of a branch that brings no response at all.

use super::branches::Attempt;
use super::context::{Context, is_better};
use super::forward::source_port;
use super::parked::TOO_LATE;
use crate::base::{Channel, Flow, Id, Instant, Outbox, Transport};
use crate::sip::{Message, Method, Name, Value, Via, reply};
use crate::stack::Endpoint;
use crate::stack::counters::{Drop, Limit};
use crate::stack::identity::TagKind;
use crate::stack::transaction::{Client, ClientKind, Ends, Notice};
use std::net::SocketAddr;

/// What a final response counts for that is no answer to the request (§21.5.3).
const INVALID_RESPONSE: u16 = 502;

/// Why the stored request of a context is read again.
enum More<'c> {
    /// What may run of the targets that are left.
    Targets,
    /// A copy that no connection takes goes by UDP (§18.1.1).
    ByUdp(&'c Client),
    /// One server of a target has failed.
    Elsewhere(Attempt),
    /// A branch has waited for a name; `in_time`: more is known than before.
    Parked { id: Id, attempt: Attempt, in_time: bool },
}

impl Endpoint {
    /// A response whose topmost Via names the client transaction `id` of this core, by a branch whose check is right.
    pub(in crate::stack) fn process_response(&mut self, now: Instant, id: Id, flow: Flow, message: &Message, outbox: &mut Outbox) {
        // Step 1: the context.
        let Some(client) = self.transactions.client(id) else {
            return self.counters.drop(Drop::StrayResponse);
        };
        let (kind, server, cancel) = (client.kind, client.server, client.cancel);
        self.answered = client.opening;
        // Nobody knows the branch but who hears what is sent there.
        if client.flow.peer == flow.peer && message.status() >= 200 {
            self.sources.proved.note(now, flow.peer);
        }
        // §17.1.3: the method in CSeq is that of the request. Who answers in lower case has answered.
        let method = message.method_name();
        match (message.method(), kind) {
            (_, ClientKind::Invite) if method.eq_ignore_ascii_case(b"CANCEL") => {
                // Our CANCEL shares the branch of the INVITE (§9.1).
                match cancel {
                    Some(cancel) => {
                        self.transactions.client_response(now, cancel, message, outbox);
                    }
                    None => self.counters.drop(Drop::StrayResponse),
                }
                return;
            }
            (_, ClientKind::Invite) if method.eq_ignore_ascii_case(b"INVITE") => {}
            (Method::Invite | Method::Ack | Method::Cancel, _) | (_, ClientKind::Invite) => {
                return self.counters.drop(Drop::BadResponse);
            }
            // Once a final response has come, nothing is left to compare.
            _ => {
                let sent = self.transactions.client(id).map(|client| self.transactions.sent(client));
                if !begins_with(sent.unwrap_or_default(), method) {
                    return self.counters.drop(Drop::BadResponse);
                }
            }
        }
        let is_first = kind == ClientKind::Invite && self.transactions.is_pending(id);
        let deliver = self.transactions.client_response(now, id, message, outbox);
        if !deliver {
            return self.counters.drop(Drop::Absorbed);
        }
        // Step 3 looks ahead: with no Via left the response is for this element, which asked nothing. It is not forwarded.
        if !message.has_second_via() {
            return self.process_addressed_to_us(now, id, server, message.status(), outbox);
        }
        match message.status() {
            100 => self.cancel_if_wanted(now, id, outbox),
            // RFC 4320 §4.1: no provisional response but 100 to a non-INVITE, and that one is ours.
            ..200 if kind == ClientKind::NonInvite => self.counters.drop(Drop::Absorbed),
            ..200 => {
                // Step 2: timer C.
                self.transactions.reset_timer_c(now, id);
                self.forward_at_once(now, server, &flow, message, outbox);
                self.cancel_if_wanted(now, id, outbox);
            }
            200..300 => {
                // The first of each callee passes (step 5), whoever the caller is.
                if is_first {
                    self.transactions.allow_another_success(server, message.bytes().len());
                }
                self.forward_success(now, id, server, kind, flow, message, outbox);
            }
            _ => self.add_final(now, id, server, flow, message, outbox),
        }
    }

    /// A response whose only Via is ours: its transaction has done what is done hop by hop, the ACK to a non-2xx too (§17.1.1.2). Who
    /// was meant it doesn't say, so a final one ends the branch as an invalid answer does (§21.5.3), whatever its status: the caller hears
    /// at once that this next hop is of no use. A provisional one says nothing, of timer C neither.
    fn process_addressed_to_us(&mut self, now: Instant, id: Id, server: Id, status: u16, outbox: &mut Outbox) {
        self.counters.drop(Drop::BadResponse);
        if status < 200 {
            return self.cancel_if_wanted(now, id, outbox);
        }
        let (Some(client), Some(context_id)) = (
            self.transactions.client(id),
            self.transactions.server(server).and_then(|s| s.context),
        ) else {
            return;
        };
        let (flow, target, breadth) = (client.flow, client.target, client.breadth);
        let is_wanted = client.cancel.is_none() && !client.cancel_wanted;
        let Some(context) = self.contexts.get(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        // A 2xx comes again until somebody acknowledges it.
        if !context.branches.contains(&id) {
            return;
        }
        self.log_branch(server, flow, "the only Via of its final response is ours");
        if let Some(mut context) = self.lend_context(context_id) {
            context.branches.retain(|branch| *branch != id);
            context.reclaim(breadth);
            self.note_failure(&mut context, INVALID_RESPONSE);
            self.return_context(context_id, context);
        }
        if is_wanted {
            self.try_elsewhere(now, server, context_id, target, breadth, outbox);
        }
        self.go_on(now, server, outbox);
        self.release_branch(server, id, outbox);
    }

    /// Steps 3, 5 and 9: without our Via, to the server transaction.
    fn forward_at_once(&mut self, now: Instant, server: Id, source: &Flow, message: &Message, outbox: &mut Outbox) -> bool {
        let server_of = self.transactions.server(server);
        let Some((receiver, offers)) = server_of.map(|server| (server.flow, server.offers_control)) else {
            return false;
        };
        self.edit_response(message, source, &receiver);
        if offers {
            self.notify_load(message);
        }
        let rewrite = &mut self.rewrite;
        self.transactions.respond(now, server, message.status(), outbox, |out| {
            rewrite.render(&message.bytes()[..message.end()], out);
        })
    }

    /// Step 5: every 2xx to an INVITE passes, the first 2xx to anything else; then step 10, CANCEL for the branches that are left.
    #[allow(clippy::too_many_arguments)]
    fn forward_success(
        &mut self,
        now: Instant,
        id: Id,
        server: Id,
        kind: ClientKind,
        flow: Flow,
        message: &Message,
        outbox: &mut Outbox,
    ) {
        let alive = self.transactions.server(server).is_some();
        if alive {
            self.forward_at_once(now, server, &flow, message, outbox);
        } else if kind == ClientKind::Invite {
            // The server transaction is over and the branch was not: the Via below ours knows the way (RFC 6026 §8.4).
            self.forward_by_via(&flow, message, outbox);
        }
        let used = self.transactions.client(id).map(|client| client.flow);
        let ends = self.transactions.client(id).map(|client| client.ends);
        let Some(mut context) = self.take_context(server) else {
            return;
        };
        context.branches.retain(|branch| *branch != id);
        self.cancel_branches(now, &context, outbox);
        match (used, ends) {
            (Some(flow), Some(ends @ (Ends::Request | Ends::Call))) => {
                self.release(server, flow, ends, outbox);
            }
            // The call goes on by this connection: a branch that shared it no longer ends it.
            (Some(flow), Some(Ends::Attempt)) => self.keep(&flow, &context),
            _ => {}
        }
        self.retire_context(context);
    }

    /// Steps 4 and 6: a final response other than 2xx joins the context; when it was the last, the best one leaves.
    fn add_final(&mut self, now: Instant, id: Id, server: Id, flow: Flow, message: &Message, outbox: &mut Outbox) {
        let status = message.status();
        let branch = self.transactions.client(id);
        let (breadth, target, unproved) = branch.map_or((0, 0, 0), |branch| (branch.breadth, branch.target, branch.unproved));
        let invite = self.transactions.server(server).is_some_and(|server| server.is_invite());
        let Some(context_id) = self.transactions.server(server).and_then(|s| s.context) else {
            return;
        };
        // A next hop that answers of the request itself has not failed: no spare is asked.
        if status != 503
            && let Some(context) = self.contexts.get_mut(context_id)
        {
            context.drop_spares();
        }
        // The usual case needs no memory: the only branch there ever was has its answer.
        if let Some(context) = self.contexts.get(context_id) {
            let only = context.branches == [id]
                && context.parked.is_empty()
                && context.next_target >= context.targets.targets.len()
                && context.best_status == 0
                && context.challenged == 0;
            if only && status != 503 && (invite || status != 408) {
                self.forward_at_once(now, server, &flow, message, outbox);
                if let Some(context) = self.take_context(server) {
                    self.retire_context(context);
                }
                self.release_branch(server, id, outbox);
                return;
            }
        }
        self.keep_if_best(context_id, server, &flow, message);
        let Some(context) = self.contexts.get_mut(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        context.branches.retain(|branch| *branch != id);
        context.reclaim(breadth);
        context.refund(unproved);
        // 6xx: nobody else is to be asked (§16.7 step 5).
        if status >= 600 && !context.closed {
            context.closed = true;
            if let Some(mut context) = self.lend_context(context_id) {
                self.cancel_branches(now, &context, outbox);
                self.forget_parked(&mut context);
                self.return_context(context_id, context);
            }
        }
        if status == 503 {
            self.try_elsewhere(now, server, context_id, target, breadth, outbox);
        }
        self.go_on(now, server, outbox);
        self.release_branch(server, id, outbox);
    }

    // ---- connections of one call -----------------------------------------------------------------------------------------

    /// A branch has ended otherwise than by a 2xx, and with it what it had a connection for.
    fn release_branch(&mut self, server: Id, id: Id, outbox: &mut Outbox) {
        if let Some(client) = self.transactions.client(id) {
            let (flow, ends) = (client.flow, client.ends);
            self.release(server, flow, ends, outbox);
        }
    }

    /// Gives back the connection of a branch that has ended, if it had one, unless another one of the same request uses it; after a BYE also
    /// the one that the BYE came by. Of those that serve more than one call the wires know better.
    fn release(&mut self, server: Id, flow: Flow, ends: Ends, outbox: &mut Outbox) {
        if ends == Ends::Nothing {
            return;
        }
        let server = self.transactions.server(server);
        let context = server.and_then(|server| server.context).and_then(|id| self.contexts.get(id));
        let branches = context.map_or(&[][..], |context| &context.branches);
        let uses = |branch: &Id| self.transactions.client(*branch).is_some_and(|client| client.flow == flow);
        if flow.transport.is_reliable() && !branches.iter().any(uses) {
            outbox.release(flow);
        }
        if let Some(server) = server
            && ends == Ends::Call
            && context.is_none()
            && server.flow.transport.is_reliable()
        {
            outbox.release(server.flow);
        }
    }

    /// The call is held by `flow`: none of the branches that are cancelled now may give it back.
    fn keep(&mut self, flow: &Flow, context: &Context) {
        for branch in &context.branches {
            if let Some(client) = self.transactions.client_mut(*branch)
                && client.flow == *flow
            {
                client.ends = Ends::Nothing;
            }
        }
    }

    /// Without memory: a response that ends what its connection may have been opened for has passed.
    pub(in crate::stack) fn release_by_response(&mut self, flow: Flow, message: &Message, outbox: &mut Outbox) {
        // INVITE is not among them: whether its ACK has passed is not known. Nor is what may have been sent within a dialog.
        let ends = matches!(
            message.method(),
            Method::Bye | Method::Register | Method::Publish | Method::Message
        );
        if ends && message.status() >= 200 && flow.transport.is_reliable() {
            outbox.release(flow);
        }
    }

    // ---- the end of a request --------------------------------------------------------------------------------------------

    /// Steps 6 and 7: keeps the response if it is the best so far, ready to be sent, and every challenge.
    fn keep_if_best(&mut self, context_id: Id, server: Id, source: &Flow, message: &Message) {
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
            self.counters.hit(Limit::AnswerSize);
            let what = format_args!("{left_out} challenges of a branch left out: too long together");
            self.log_request(server, what);
        }
        if !is_best {
            return;
        }
        let server = self.transactions.server(server);
        let receiver = server.map_or(*source, |server| server.flow);
        let offers = server.is_some_and(|server| server.offers_control);
        self.edit_response(message, source, &receiver);
        if offers {
            self.notify_load(message);
        }
        self.scratch.clear();
        self.rewrite.render(&message.bytes()[..message.end()], &mut self.scratch);
        if let Some(context) = self.contexts.get_mut(context_id) {
            self.transactions.pool.release(&mut context.best);
            context.best = self.transactions.pool.store(&self.scratch).unwrap_or_default();
        }
    }

    /// A branch that failed without a response counts as one with `status` (§16.8: 408, §16.9: 503).
    pub(in crate::stack) fn note_failure(&mut self, context: &mut Context, status: u16) {
        if is_better(status, context.best_status) {
            context.best_status = status;
            self.transactions.pool.release(&mut context.best);
        }
    }

    /// After a branch has ended: the next targets, or the end.
    fn go_on(&mut self, now: Instant, server: Id, outbox: &mut Outbox) {
        let Some(context_id) = self.transactions.server(server).and_then(|s| s.context) else {
            return;
        };
        let Some(context) = self.contexts.get_mut(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        if !context.closed && context.next_target < context.targets.targets.len() {
            self.start_more(now, server, context_id, More::Targets, outbox);
        }
        if self.contexts.get(context_id).is_some_and(|context| context.is_idle()) {
            self.finish(now, server, outbox);
        }
    }

    /// RFC 3263 §4.3: one server of a target has failed, where a name has led to it: the next one, if there is.
    fn try_elsewhere(&mut self, now: Instant, server: Id, context_id: Id, target: u16, breadth: u32, outbox: &mut Outbox) {
        let Some(context) = self.contexts.get(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        if context.closed || context.last_tried(target).is_none() {
            return;
        }
        let attempt = Attempt {
            target: usize::from(target),
            breadth,
            since: now,
        };
        self.start_more(now, server, context_id, More::Elsewhere(attempt), outbox);
    }

    /// Reads the stored request again and starts what `more` says.
    fn start_more(&mut self, now: Instant, server: Id, context_id: Id, more: More, outbox: &mut Outbox) {
        let Some(mut context) = self.lend_context(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        let mut bytes = std::mem::take(&mut self.request_copy);
        bytes.clear();
        bytes.extend_from_slice(self.transactions.pool.get(&context.request));
        let mut index = std::mem::take(&mut self.second_index);
        if let More::Parked { id, attempt, .. } = more {
            context.parked.retain(|parked| *parked != id);
            context.breadth += attempt.breadth;
        }
        if let (Ok(message), Some(source)) = (Message::parse(&bytes, &mut index), context.source)
            && let Ok(mut incoming) = self.preprocess_route(source, &message)
        {
            (incoming.mark, incoming.opening) = (context.mark, context.opening);
            let (message, incoming, c) = (&message, &incoming, &mut context);
            match more {
                More::Targets => self.start_branches(now, server, c, message, incoming, outbox),
                More::ByUdp(client) => {
                    self.try_by_udp(now, client, c, message, incoming, outbox);
                }
                More::Elsewhere(attempt) => {
                    self.try_next_place(now, server, c, message, incoming, attempt, outbox);
                }
                More::Parked {
                    attempt, in_time: true, ..
                } => {
                    self.start_branch(now, server, c, message, incoming, attempt, outbox);
                }
                More::Parked { attempt, .. } => {
                    self.fail_branch(c, message, incoming, attempt.target, &TOO_LATE);
                }
            }
        }
        self.second_index = index;
        self.request_copy = bytes;
        self.return_context(context_id, context);
    }

    /// A branch has waited for a name: it goes on, or its time is over.
    pub(in crate::stack) fn end_branch_wait(
        &mut self,
        now: Instant,
        server: Id,
        id: Id,
        attempt: Attempt,
        in_time: bool,
        outbox: &mut Outbox,
    ) {
        let Some(context_id) = self.transactions.server(server).and_then(|s| s.context) else {
            return;
        };
        let more = More::Parked { id, attempt, in_time };
        self.start_more(now, server, context_id, more, outbox);
        self.go_on(now, server, outbox);
    }

    /// Steps 6, 7 and 9: no branch is left; the best response goes upstream, or one of our own.
    pub(in crate::stack) fn finish(&mut self, now: Instant, server: Id, outbox: &mut Outbox) {
        let Some(mut context) = self.take_context(server) else {
            return;
        };
        let invite = self.transactions.server(server).is_some_and(|server| server.is_invite());
        let best = std::mem::take(&mut context.best);
        match context.best_status {
            // RFC 4320 §4.2: no 408 and no late answer to a non-INVITE.
            0 | 408 if !invite => {}
            // Nothing was heard after a CANCEL: the caller is told that it worked.
            0 | 408 | 503 if context.cancelled => self.respond_own(now, server, &context, 487, "", outbox),
            INVALID_RESPONSE if context.cancelled && best.is_empty() => self.respond_own(now, server, &context, 487, "", outbox),
            // A 503 says something of one next hop, not of us (step 6); nor did a dead next hop say anything.
            0 | 503 => {
                self.respond_own(now, server, &context, 500, "No Next Hop Reached", outbox);
            }
            status if best.is_empty() => {
                self.respond_own(now, server, &context, status, "", outbox);
            }
            status @ (401 | 407) if context.challenged > 1 => {
                self.respond_aggregated(now, server, &context, status, &best, outbox);
            }
            status => {
                let mut bytes = std::mem::take(&mut self.scratch);
                bytes.clear();
                bytes.extend_from_slice(self.transactions.pool.get(&best));
                self.transactions.respond(now, server, status, outbox, |out| {
                    out.extend_from_slice(&bytes);
                });
                self.scratch = bytes;
            }
        }
        context.best = best;
        self.retire_context(context);
    }

    /// Step 7: the challenges of all branches in the best 401 or 407.
    fn respond_aggregated(
        &mut self,
        now: Instant,
        server: Id,
        context: &Context,
        status: u16,
        best: &crate::base::Blob,
        outbox: &mut Outbox,
    ) {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.extend_from_slice(self.transactions.pool.get(best));
        let mut index = std::mem::take(&mut self.second_index);
        if let Ok(message) = Message::parse(&bytes, &mut index) {
            self.rewrite.clear();
            for name in [Name::WwwAuthenticate, Name::ProxyAuthenticate] {
                for header in message.all(name) {
                    self.rewrite.remove(header.line.range());
                }
            }
            self.rewrite.insert(message.headers_end(), |out| {
                out.extend_from_slice(&context.challenges);
            });
            let rewrite = &mut self.rewrite;
            self.transactions.respond(now, server, status, outbox, |out| {
                rewrite.render(&bytes, out);
            });
        }
        self.second_index = index;
        self.scratch = bytes;
    }

    /// A final (or 100) answer of our own to a request that was forwarded.
    fn respond_own(&mut self, now: Instant, server: Id, context: &Context, status: u16, reason: &str, outbox: &mut Outbox) {
        let mut bytes = std::mem::take(&mut self.request_copy);
        bytes.clear();
        bytes.extend_from_slice(self.transactions.pool.get(&context.request));
        let mut index = std::mem::take(&mut self.second_index);
        let mut tag = std::mem::take(&mut self.scratch);
        tag.clear();
        if let Ok(message) = Message::parse(&bytes, &mut index) {
            if status > 100 {
                self.identity.write_tag(&message, TagKind::Transaction, &mut tag);
            }
            let settings = &self.settings;
            let extra = |out: &mut Vec<u8>| {
                // No branch was as secure as the request demands.
                if let (480, Some(source)) = (status, context.source) {
                    settings.write_sips_not_allowed(source.listener, out);
                }
            };
            let feedback = self.feedback();
            let answer = reply::Reply {
                status,
                reason: reason.as_bytes(),
                to_tag: &tag,
                received: context.source.map(|flow| flow.peer),
                feedback: Some(feedback),
            };
            self.transactions.respond(now, server, status, outbox, |out| {
                reply::write(&message, &answer, extra, out);
            });
        }
        self.scratch = tag;
        self.second_index = index;
        self.request_copy = bytes;
    }

    /// A response without a transaction goes where the Via below ours says (§16.11).
    pub(in crate::stack) fn forward_by_via(&mut self, source: &Flow, message: &Message, outbox: &mut Outbox) {
        let next = message.values(Name::Via).nth(1);
        let port = source_port(message);
        let Some(flow) = next.and_then(|value| self.via_flow(&Via::parse(value).ok()?, port)) else {
            return self.counters.drop(Drop::BadResponse);
        };
        if self.goes_round(message, &flow) {
            return self.discard(*source, Drop::BadResponse, "more Vias of ours than passes");
        }
        self.edit_response(message, source, &flow);
        self.notify_load(message);
        let rewrite = &mut self.rewrite;
        outbox.send(flow, |out| {
            rewrite.render(&message.bytes()[..message.end()], out);
        });
    }

    /// Whether a response comes back to this very server more often than any request passes here. Whoever holds one Via of ours can
    /// write it down a thousand times.
    fn goes_round(&self, message: &Message, to: &Flow) -> bool {
        const MOST_PASSES: usize = 10;
        let settings = &self.settings;
        let is_here = settings.listeners.iter().any(|listener| {
            listener.address.port() == to.peer.port() && listener.answers_on(to.peer.ip(), &settings.local_addresses)
        });
        let is_ours = |value: &Value| {
            let via = Via::parse(*value).ok();
            let branch = via.and_then(|via| via.branch());
            branch.is_some_and(|branch| self.signer.read(branch).is_some())
        };
        is_here && message.values(Name::Via).filter(is_ours).count() > MOST_PASSES
    }

    /// §18.2.2: `received` and `rport`, else sent-by; over a stream the connection that was opened from there, or from `port`.
    fn via_flow(&self, via: &Via, port: Option<u16>) -> Option<Flow> {
        let transport = [Transport::Udp, Transport::Tcp, Transport::Tls]
            .into_iter()
            .find(|transport| via.transport.eq_ignore_ascii_case(transport.name().as_bytes()))
            .unwrap_or(Transport::Udp);
        let ip = via.received().or_else(|| via.host.ip())?;
        let port = match via.rport() {
            Some(Some(port)) => port,
            _ => port
                .filter(|_| transport.is_reliable())
                .or(via.port)
                .unwrap_or(transport.default_port()),
        };
        let peer = SocketAddr::new(ip, port);
        let listener = self.settings.listener_towards(transport, peer, 0)?;
        Some(match transport {
            Transport::Udp => Flow::datagram(listener, peer),
            Transport::Tcp | Transport::Tls => Flow {
                channel: Channel::Back,
                ..Flow::towards(transport, listener, self.core, peer, 0, 0)
            },
        })
    }

    // ---- §16.8 and §16.9: what timers and the transport report ---------------------------------------------------------

    pub(in crate::stack) fn handle_notice(&mut self, now: Instant, notice: Notice, outbox: &mut Outbox) {
        match notice {
            Notice::ClientTimeout(client) => {
                if client.kind != ClientKind::Cancel {
                    self.log_branch(client.server, client.flow, "no final response");
                }
                self.branch_ended(now, &client, 408, outbox);
            }
            Notice::ClientFailure(client) => self.branch_ended(now, &client, 503, outbox),
            Notice::TimerC(id) => {
                if let Some(client) = self.transactions.client(id) {
                    let (server, flow) = (client.server, client.flow);
                    self.log_branch(server, flow, "rings for too long (timer C), cancelled");
                }
                self.cancel_branch(now, id, outbox);
            }
            Notice::Expired(id) => {
                let Some(context) = self.contexts.remove(id) else {
                    debug_assert!(false, "a transaction that waited had a context");
                    return;
                };
                for branch in &context.branches {
                    if let Some(client) = self.transactions.abandon_client(now, *branch, outbox)
                        && client.flow.transport.is_reliable()
                        && client.ends != Ends::Nothing
                    {
                        outbox.release(client.flow);
                    }
                }
                self.retire_context(context);
            }
            Notice::Late(server) => {
                let Some(id) = self.transactions.server(server).and_then(|s| s.context) else {
                    return;
                };
                if let Some(context) = self.lend_context(id) {
                    self.respond_own(now, server, &context, 100, "", outbox);
                    self.return_context(id, context);
                }
            }
        }
    }

    /// A branch has ended without a final response.
    fn branch_ended(&mut self, now: Instant, client: &Client, status: u16, outbox: &mut Outbox) {
        if client.kind == ClientKind::Cancel {
            return;
        }
        let Some(id) = self.transactions.server(client.server).and_then(|server| server.context) else {
            return;
        };
        let Some(mut context) = self.lend_context(id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        // The record is gone, and with it the name: what no longer lives is no branch.
        let transactions = &self.transactions;
        context.branches.retain(|branch| transactions.client(*branch).is_some());
        context.reclaim(client.breadth);
        if status == 503 {
            context.refund(client.unproved);
        }
        let again = status == 503 && client.by_size && !context.closed;
        if !again {
            self.note_failure(&mut context, status);
        }
        self.return_context(id, context);
        if again {
            self.start_more(now, client.server, id, More::ByUdp(client), outbox);
        } else if client.cancel.is_none() && !client.cancel_wanted {
            let (server, target, breadth) = (client.server, client.target, client.breadth);
            self.try_elsewhere(now, server, id, target, breadth, outbox);
        }
        self.go_on(now, client.server, outbox);
        if status != 503 {
            self.release(client.server, client.flow, client.ends, outbox);
        }
    }

    // ---- contexts ------------------------------------------------------------------------------------------------------

    /// Takes the context out for a while; a spare one keeps its place until [`Endpoint::return_context`].
    pub(in crate::stack) fn lend_context(&mut self, id: Id) -> Option<Box<Context>> {
        let slot = self.contexts.get_mut(id)?;
        let spare = self.spare_contexts.pop().unwrap_or_default();
        Some(std::mem::replace(slot, spare))
    }

    pub(in crate::stack) fn return_context(&mut self, id: Id, context: Box<Context>) {
        let spare = match self.contexts.get_mut(id) {
            Some(slot) => std::mem::replace(slot, context),
            None => context,
        };
        self.retire_context(spare);
    }

    /// Takes the context out of its server transaction, which then waits for nothing.
    fn take_context(&mut self, server: Id) -> Option<Box<Context>> {
        let id = self.transactions.server_mut(server)?.context.take()?;
        self.contexts.remove(id)
    }

    /// Gives a context's bytes back and keeps its memory for the next.
    fn retire_context(&mut self, mut context: Box<Context>) {
        self.forget_parked(&mut context);
        self.transactions.give_back_bytes(context.holder, context.held_bytes);
        self.transactions.pool.release(&mut context.request);
        self.transactions.pool.release(&mut context.best);
        context.clear();
        self.spare_contexts.push(context);
    }
}

/// True when the request as it was sent has this method, in any case, and when it is not kept any more.
fn begins_with(request: &[u8], method: &[u8]) -> bool {
    let Some((word, rest)) = request.split_at_checked(method.len()) else {
        return request.is_empty();
    };
    request.is_empty() || (word.eq_ignore_ascii_case(method) && rest.first() == Some(&b' '))
}
