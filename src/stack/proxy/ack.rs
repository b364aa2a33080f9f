//! ACK (RFC 3261 §16.7 step 5, §17.2.1): one to a non-2xx ends here, one to a 2xx goes on like any request.

use crate::base::{Errand, Flow};
use crate::sip::{Message, Via};
use crate::stack::auth::demand::Demand;
use crate::stack::counters::Drop;
use crate::stack::identity::TagKind;
use crate::stack::proxy::Proxy;
use crate::stack::proxy::targets::Decision;
use crate::stack::proxy::validate::check_secure;
use crate::stack::request::Request;
use crate::stack::settings::Mode;
use crate::stack::transaction::ServerEvent;
use crate::stack::turn::Turn;

impl Proxy {
    /// Handles an ACK. One to a non-2xx ends here; one to a 2xx goes on like any request (§16.6), and is never answered. `errand` says
    /// which other cores have already looked for its transaction.
    pub fn process_ack(&mut self, turn: &mut Turn, flow: Flow, message: &Message, via: &Via, key: u128, errand: Errand) {
        // To an answer of our own, which left no state.
        let own = turn.core.own_tag(message);
        if own == Some(TagKind::Stateless) {
            return turn.core.counters.drop(Drop::Absorbed);
        }
        let is_stateful = turn.core.settings.proxy.mode == Mode::Stateful;
        let mut has_transaction = false;
        if is_stateful {
            if let Some(server) = turn.transactions.find_server(key) {
                let event = ServerEvent::Ack;
                if !turn.transactions.server_request(turn.now, server, event, turn.outbox) {
                    return;
                }
                has_transaction = true;
            } else if turn.was_refused(message, key) {
                return turn.core.counters.drop(Drop::Absorbed);
            } else if (turn.may_be_orphan(flow, message) && !turn.was_accepted(message) && turn.pass_on(errand, flow, message))
                || (turn.core.counterpart.is_some() && turn.is_ack_for_successor(errand, flow, message))
            {
                return;
            }
        }
        // The transaction that sent the answer is over.
        if own.is_some() {
            return turn.core.counters.drop(Drop::Absorbed);
        }
        let Ok(mut request) = Request::new(flow, message, via) else {
            return turn.discard_message(message, flow, Drop::StrayAck, "its Request-URI cannot be read");
        };
        if turn.take_routes(&mut request).is_err() {
            return turn.discard_message(message, flow, Drop::StrayAck, "it shows the cookie of another dialog");
        }
        request.key = key;
        if message.max_forwards().is_ok_and(|hops| hops == Some(0)) {
            return turn.discard_message(message, flow, Drop::StrayAck, "its Max-Forwards is 0");
        }
        if let Err(refusal) = check_secure(&request) {
            return turn.refuse_copy(message, flow, refusal);
        }
        // One that goes to the other side of its dialog comes back only if that is our own URI.
        if !request.trusted || request.is_own {
            match turn.check_loop(flow, message) {
                Ok((spiral, _)) => request.spiral = spiral,
                Err(_) => return turn.discard_message(message, flow, Drop::StrayAck, "it goes round"),
            }
        }
        // If we stay on the path of dialogs, an ACK shows our route or belongs to a transaction. Any other belongs to no call, and
        // its sender could have as many copies of it made as a user has contacts.
        let is_known = has_transaction || !is_stateful || !turn.core.settings.proxy.record_route;
        // A route for our users only is for the ACKs of their calls.
        let is_for_users = !request.trusted && turn.demand(&request) == Demand::Users;
        let must_be_known = is_for_users && !has_transaction;
        match turn.determine_targets(&request, &mut self.targets) {
            Ok(Decision::Forward) if must_be_known && !turn.was_accepted_there(message) => {
                turn.discard_message(message, flow, Drop::StrayAck, "of no call of our users");
            }
            Ok(Decision::Astray) if !is_known && !turn.was_accepted(message) => {
                turn.discard_message(message, flow, Drop::StrayAck, "of no transaction and no dialog");
            }
            Ok(Decision::Forward | Decision::Astray) => {
                turn.mark(&mut request);
                self.forward_stateless(turn, &request);
            }
            Ok(Decision::Drop) => turn.drop_by_route(message, flow),
            Ok(_) => turn.discard_message(message, flow, Drop::StrayAck, "for this server itself"),
            Err(refusal) => turn.discard_message(message, flow, Drop::StrayAck, refusal.phrase()),
        }
    }
}

impl Turn<'_> {
    /// Whether the ACK is for an answer of our own that left no transaction, and whose To tag was not ours to give.
    fn was_refused(&self, message: &Message, key: u128) -> bool {
        let transactions = &self.transactions;
        !transactions.refused.is_empty()
            && (transactions.refused.knows(key) || transactions.refused.knows(self.core.identity.invite(message)))
    }

    /// Whether another core may wait for the ACK: it does if the ACK does not come by a route that we recorded in a dialog. Those
    /// that do are ACKs to 2xx, and other cores need not be asked about them. But after a lost connection a client may have come to
    /// another core than with its INVITE.
    fn may_be_orphan(&mut self, flow: Flow, message: &Message) -> bool {
        (self.core.settings.cores > 1 || self.core.counterpart.is_some())
            && self.preprocess_route(flow, message).is_ok_and(|request| {
                let sender = request.dialog.sender;
                !request.trusted
                    || sender.is_some_and(|way| (way.peer, way.core, way.channel) != (flow.peer, flow.core, flow.channel))
            })
    }
}
