//! CANCEL (RFC 3261 §9, §16.10): what came from the caller, and what goes to the branches.

use super::context::Context;
use crate::base::{Errand, Flow, Id, Instant, Outbox};
use crate::sip::{Fault, Message, NameAddr, Uri};
use crate::stack::Endpoint;
use crate::stack::settings::Mode;
use crate::stack::transaction::{ClientKind, ack};

impl Endpoint {
    /// A CANCEL from upstream. `tried`: how many other cores have looked for its INVITE already.
    pub(in crate::stack) fn process_cancel(
        &mut self,
        now: Instant,
        flow: Flow,
        message: &Message,
        key: u128,
        tried: u8,
        outbox: &mut Outbox,
    ) {
        if self.settings.proxy.mode == Mode::Stateless {
            return self.forward_cancel_stateless(now, flow, message, key, outbox);
        }
        let server = self.transactions.find_server(key);
        let Some(server) = server.filter(|server| self.is_cancelled_by(*server, message)) else {
            // To a request other than INVITE it makes no difference (§9.2).
            if self.is_under_way(message) {
                return self.answer(message, flow, 200, "", outbox, |_| ());
            }
            if self.pass_on(Errand::Orphan { tried }, flow, message, outbox) {
                return;
            }
            if self.is_dropped(flow, message) {
                return self.drop_by_route(message, flow);
            }
            // §16.10 would have it forwarded, in case the INVITE was forwarded without state. In this mode none ever is, and
            // forwarding would let a stranger cancel other people's calls.
            return self.answer(message, flow, 481, "", outbox, |_| ());
        };
        self.answer(message, flow, 200, "", outbox, |_| ());
        let Some(id) = self.transactions.server(server).and_then(|s| s.context) else {
            return;
        };
        let Some(mut context) = self.lend_context(id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        if !context.cancelled {
            (context.cancelled, context.closed) = (true, true);
            self.cancel_branches(now, &context, outbox);
            self.forget_parked(&mut context);
        }
        let idle = context.is_idle();
        self.return_context(id, context);
        // All of it waited for names: nothing has left, and nothing will.
        if idle {
            self.finish(now, server, outbox);
        }
    }

    /// True when the CANCEL names in From and To whom its INVITE names (§9.1); the key covers all else. One that has its final
    /// response is not cancelled by anybody. Where from the CANCEL comes says nothing: a NAT or a new connection gives an honest caller
    /// another address.
    fn is_cancelled_by(&mut self, server: Id, message: &Message) -> bool {
        let server = self.transactions.server(server);
        let Some(context) = server.and_then(|server| self.contexts.get(server.context?)) else {
            return true;
        };
        let bytes = self.transactions.pool.get(&context.request);
        Message::parse(bytes, &mut self.second_index)
            .is_ok_and(|invite| same_address(invite.from(), message.from()) && same_address(invite.to(), message.to()))
    }

    /// True when the CANCEL is for a request other than INVITE that has a transaction here.
    fn is_under_way(&self, message: &Message) -> bool {
        const METHODS: [&[u8]; 10] = [
            b"BYE",
            b"OPTIONS",
            b"MESSAGE",
            b"SUBSCRIBE",
            b"NOTIFY",
            b"INFO",
            b"UPDATE",
            b"PRACK",
            b"REFER",
            b"PUBLISH",
        ];
        let Ok(via) = message.top_via() else {
            return false;
        };
        METHODS.iter().any(|method| {
            let key = self.identity.transaction(message, &via, method);
            self.transactions.find_server(key).is_some()
        })
    }

    /// CANCEL for every branch that is still pending.
    pub(in crate::stack) fn cancel_branches(&mut self, now: Instant, context: &Context, outbox: &mut Outbox) {
        for branch in &context.branches {
            self.cancel_branch(now, *branch, outbox);
        }
    }

    /// CANCEL for one branch: now, if a provisional response has come, else as soon as one comes (§9.1). A non-INVITE is
    /// never cancelled.
    pub(in crate::stack) fn cancel_branch(&mut self, now: Instant, id: Id, outbox: &mut Outbox) {
        if !self.transactions.is_pending(id) {
            return;
        }
        let proceeding = self.transactions.is_proceeding(id);
        let Some(client) = self.transactions.client_mut(id) else {
            debug_assert!(false, "a branch that is pending is there");
            return;
        };
        if client.kind != ClientKind::Invite || client.cancel.is_some() {
            return;
        }
        client.cancel_wanted = !proceeding;
        if !proceeding {
            return;
        }
        let (flow, server) = (client.flow, client.server);
        let Some(client) = self.transactions.client(id) else {
            debug_assert!(false, "a branch that is pending is there");
            return;
        };
        let request = self.transactions.sent(client);
        let index = &mut self.second_index;
        let span = outbox.send(flow, |out| ack::write_cancel(request, index, out));
        let cancel = self
            .transactions
            .open_client(now, ClientKind::Cancel, server, flow, span, outbox);
        if let Some(client) = self.transactions.client_mut(id) {
            client.cancel = Some(cancel);
        }
        self.transactions.limit_to_64_t1(now, id);
    }

    /// A provisional response has come for a branch that was to be cancelled.
    pub(in crate::stack) fn cancel_if_wanted(&mut self, now: Instant, id: Id, outbox: &mut Outbox) {
        if self.transactions.client(id).is_some_and(|client| client.cancel_wanted) {
            self.cancel_branch(now, id, outbox);
        }
    }
}

/// True when both name one URI, whatever their tags. What can't be read is nobody's.
fn same_address(one: Result<NameAddr<'_>, Fault>, other: Result<NameAddr<'_>, Fault>) -> bool {
    let (Ok(one), Ok(other)) = (one, other) else {
        return false;
    };
    one.uri == other.uri || matches!((Uri::parse(one.uri), Uri::parse(other.uri)), (Ok(one), Ok(other)) if one.equals(&other))
}
