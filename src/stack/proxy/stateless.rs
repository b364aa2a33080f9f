//! The stateless proxy (RFC 3261 §16.11): a retransmission, a CANCEL and an ACK take the same way with the same branch, and
//! nothing is remembered. The ACK to a 2xx takes this way in the stateful mode too (§16.7 step 5).

use super::locate::Search;
use super::request::{Decision, check_secure};
use super::target::{Target, TargetSet};
use crate::base::{Errand, Flow, Instant, Outbox};
use crate::sip::{Message, Method};
use crate::stack::Endpoint;
use crate::stack::auth::demand::Demand;
use crate::stack::counters::{Drop, Limit};
use crate::stack::identity::TagKind;
use crate::stack::refusal::{Obstacle, Refusal};
use crate::stack::request::Request;
use crate::stack::settings::Mode;
use crate::stack::transaction::ServerEvent;

impl Endpoint {
    /// Sends the request to the best target. An ACK goes to all of them: only the phone that answered takes notice. Like the copies of
    /// any request they share Max-Breadth, and one that has been here before gets no more of them than that (RFC 5393 §5.3.3): nobody
    /// answers an ACK, so no breadth comes back.
    pub(in crate::stack) fn forward_stateless(
        &mut self,
        message: &Message,
        incoming: &Request,
        targets: &TargetSet,
        key: u128,
        outbox: &mut Outbox,
    ) {
        let stateful = self.settings.proxy.mode == Mode::Stateful;
        let all = message.method() == Method::Ack && stateful;
        let count = if all { targets.targets.len() } else { 1 };
        let breadth = self.incoming_breadth(message);
        if breadth == 0 || (incoming.spiral && count > breadth as usize) {
            let narrow = Refusal::new(440, "").because_of(Limit::MaxBreadth);
            return self.refuse_copy(message, incoming.flow, narrow, outbox);
        }
        let count = count.min(breadth as usize);
        for (number, target) in targets.targets.iter().take(count).enumerate() {
            let since = self.now;
            let share = (breadth as usize + number) / count;
            let sent = self.forward_or_hold(message, incoming, targets, target, number, share as u32, key, since, outbox);
            match sent {
                Ok(()) => {}
                Err(refusal) if message.method() == Method::Ack => {
                    self.refuse_copy(message, incoming.flow, refusal, outbox);
                }
                Err(refusal) => return self.refuse(message, incoming.flow, refusal, outbox),
            }
        }
    }

    /// One copy. Where the next hop's name leads to several servers it is the same one for all that shares the Call-ID, as
    /// RFC 3263 §4.4 wants it; whether that one answers is not known here.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn forward_copy(
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
    ) -> Result<(), Obstacle> {
        let (uri, path) = (targets.get(target.uri), targets.get(target.path));
        let hop_uri = target.hop_uri.map(|uri| targets.get(uri));
        let search = Search {
            since,
            target: 0,
            tried: &[],
            asked_by: None,
        };
        let hop = self.next_hop(message, incoming, target, uri, path, hop_uri, search, outbox)?;
        let (signer, mark) = (self.signer, incoming.mark);
        let seed = self.identity.stateless_seed(key, number);
        self.edit(message, incoming, uri, path, &hop, breadth, |out| {
            signer.write_stateless(seed, mark, out);
        });
        self.send_copy(message, &hop, outbox);
        self.counters.stateless += 1;
        Ok(())
    }

    /// An ACK. One that belongs to a non-2xx ends here; one to a 2xx goes on like any request (§16.6), without an answer
    /// whatever happens.
    pub(in crate::stack) fn process_ack(
        &mut self,
        now: Instant,
        flow: Flow,
        message: &Message,
        key: u128,
        tried: u8,
        outbox: &mut Outbox,
    ) {
        // To an answer of our own, which left no memory.
        let own = self.identity.own_tag(message);
        if own == Some(TagKind::Stateless) {
            return self.counters.drop(Drop::Absorbed);
        }
        let is_stateful = self.settings.proxy.mode == Mode::Stateful;
        let mut has_transaction = false;
        if is_stateful {
            if let Some(server) = self.transactions.find_server(key) {
                let event = ServerEvent::Ack;
                if !self.transactions.server_request(now, server, event, outbox) {
                    return;
                }
                has_transaction = true;
            } else if self.was_refused(message, key) {
                return self.counters.drop(Drop::Absorbed);
            } else if self.may_be_orphan(flow, message)
                && !self.was_accepted(message)
                && self.pass_on(Errand::Orphan { tried }, flow, message, outbox)
            {
                return;
            }
        }
        // The transaction that sent the answer is over.
        if own.is_some() {
            return self.counters.drop(Drop::Absorbed);
        }
        let Ok(mut incoming) = self.preprocess_route(flow, message) else {
            return self.discard(flow, Drop::StrayAck, "it shows the cookie of another dialog");
        };
        if message.max_forwards().is_ok_and(|hops| hops == Some(0)) {
            return self.counters.drop(Drop::StrayAck);
        }
        if let Err(refusal) = check_secure(&incoming) {
            return self.refuse_copy(message, flow, refusal, outbox);
        }
        // One that leaves for the other side of its dialog has no way to come back but that.
        if !incoming.trusted || self.is_own_uri(&incoming.parsed) {
            match self.check_loop(flow, message) {
                Ok((spiral, _)) => incoming.spiral = spiral,
                Err(_) => return self.discard(flow, Drop::StrayAck, "it goes round"),
            }
        }
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        // Of a dialog that we stay on the path of every ACK shows that, or belongs to a transaction: any other is nobody's call, and who
        // sends it could have as many copies of it made as a user has contacts.
        let is_known = has_transaction || !is_stateful || !self.settings.proxy.record_route;
        // A way for our users only is for the ACKs of their calls.
        let is_for_users = !incoming.trusted && self.demand(message, &incoming) == Demand::Users;
        let must_be_known = is_for_users && !has_transaction;
        match self.determine_targets(now, message, &incoming, &mut targets) {
            Ok(Decision::Forward) if must_be_known && !self.was_accepted_there(message) => {
                self.discard(flow, Drop::StrayAck, "of no call of our users");
            }
            Ok(Decision::Astray) if !is_known && !self.was_accepted(message) => {
                self.discard(flow, Drop::StrayAck, "of no transaction and no dialog");
            }
            Ok(Decision::Forward | Decision::Astray) => {
                self.mark(message, &mut incoming);
                self.forward_stateless(message, &incoming, &targets, key, outbox)
            }
            Ok(Decision::Drop) => self.drop_by_route(message, flow),
            _ => self.counters.drop(Drop::StrayAck),
        }
        self.targets = targets;
    }

    /// Whether the ACK is for an answer of our own that left no transaction, and whose To tag was not ours to give.
    fn was_refused(&self, message: &Message, key: u128) -> bool {
        let transactions = &self.transactions;
        !transactions.refused.is_empty()
            && (transactions.refused.knows(key) || transactions.refused.knows(self.identity.invite(message)))
    }

    /// An ACK that another core may wait for: one that does not come by a route which we recorded in a dialog. Those are the
    /// ACKs to 2xx, and there is no need to ask around for each of them. But who has lost the connection of before may have
    /// come to another core than its INVITE.
    fn may_be_orphan(&mut self, flow: Flow, message: &Message) -> bool {
        self.settings.cores > 1
            && self.preprocess_route(flow, message).is_ok_and(|incoming| {
                let sender = incoming.dialog.sender;
                !incoming.trusted
                    || sender.is_some_and(|way| (way.peer, way.core, way.channel) != (flow.peer, flow.core, flow.channel))
            })
    }

    /// A CANCEL without an INVITE of its own goes where the INVITE went (§16.10).
    pub(in crate::stack) fn forward_cancel_stateless(
        &mut self,
        now: Instant,
        flow: Flow,
        message: &Message,
        key: u128,
        outbox: &mut Outbox,
    ) {
        let checked = self.check_max_forwards(message);
        let looped = checked.and_then(|()| self.check_loop(flow, message));
        let routed = looped.and_then(|(spiral, passed)| {
            let mut incoming = self.preprocess_route(flow, message)?;
            (incoming.spiral, incoming.passed) = (spiral, passed);
            check_secure(&incoming)?;
            Ok(incoming)
        });
        let refused = match routed {
            Ok(mut incoming) => {
                let mut targets = std::mem::take(&mut self.targets);
                targets.clear();
                let mut decision = self.determine_targets(now, message, &incoming, &mut targets);
                if let Ok(Decision::Astray) = decision {
                    decision = self.check_astray(&incoming);
                }
                if let Ok(Decision::Forward) = decision {
                    self.mark(message, &mut incoming);
                    self.forward_stateless(message, &incoming, &targets, key, outbox);
                }
                self.targets = targets;
                if let Ok(Decision::Drop) = decision {
                    self.drop_by_route(message, flow);
                }
                decision.err()
            }
            Err(refusal) => Some(refusal),
        };
        if let Some(refusal) = refused {
            self.refuse(message, flow, refusal, outbox);
        }
    }
}
