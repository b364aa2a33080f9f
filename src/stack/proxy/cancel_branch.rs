//! CANCEL for the branches of a request (RFC 3261 §9.1, §16.10).

use crate::base::Id;
use crate::stack::proxy::context::Context;
use crate::stack::transaction::{ClientKind, ack};
use crate::stack::turn::Turn;

impl Turn<'_> {
    /// Cancels every branch that is still pending.
    pub fn cancel_branches(&mut self, context: &Context) {
        for branch in context.all_branches() {
            self.cancel_branch(branch);
        }
    }

    /// Cancels one branch: now, if a provisional response has come, otherwise as soon as one comes (§9.1). A non-INVITE is never
    /// cancelled.
    pub fn cancel_branch(&mut self, id: Id) {
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
        let index = &mut self.core.second_index;
        let span = self.outbox.send(flow, |out| ack::write_cancel(request, index, out));
        let cancel = self.transactions.open_client(self.now, ClientKind::Cancel, server, flow, span, self.outbox);
        if let Some(client) = self.transactions.client_mut(id) {
            client.cancel = cancel.into();
        }
        self.transactions.limit_to_64_t1(self.now, id);
    }

    /// A provisional response has come for a branch that was to be cancelled.
    pub fn cancel_if_wanted(&mut self, id: Id) {
        if self.transactions.client(id).is_some_and(|client| client.cancel_wanted) {
            self.cancel_branch(id);
        }
    }
}
