//! Connections dedicated to one call, closed when what they were opened for is over.

use crate::base::{Flow, Id};
use crate::sip::{Message, Method};
use crate::stack::proxy::Proxy;
use crate::stack::proxy::context::Context;
use crate::stack::transaction::Ends;
use crate::stack::turn::Turn;

impl Proxy {
    /// A branch has ended otherwise than by a 2xx, and with it the purpose of its connection.
    pub fn release_branch(&mut self, turn: &mut Turn, server: Id, id: Id) {
        if let Some(client) = turn.transactions.client(id) {
            let (flow, ends) = (client.flow, client.ends);
            self.release(turn, server, flow, ends);
        }
    }

    /// Releases the connection of a branch that has ended, if it had one, unless another branch of the same request uses it; after
    /// a BYE also the one that the BYE came by. The wires keep those that serve more than one call.
    pub fn release(&mut self, turn: &mut Turn, server: Id, flow: Flow, ends: Ends) {
        if ends == Ends::Nothing {
            return;
        }
        let server = turn.transactions.server(server);
        let context = server.and_then(|server| server.context.get()).and_then(|id| self.contexts.get(id));
        let uses = |branch: Id| turn.transactions.client(branch).is_some_and(|client| client.flow == flow);
        if flow.transport.is_reliable() && !context.is_some_and(|context| context.all_branches().any(uses)) {
            turn.outbox.release(flow);
        }
        if let Some(server) = server
            && ends == Ends::Call
            && context.is_none()
            && server.flow.transport.is_reliable()
        {
            turn.outbox.release(server.flow);
        }
    }
}

impl Turn<'_> {
    /// The call uses `flow`: none of the branches that are cancelled now may release it.
    pub fn keep(&mut self, flow: &Flow, context: &Context) {
        for branch in context.all_branches() {
            if let Some(client) = self.transactions.client_mut(branch)
                && client.flow == *flow
            {
                client.ends = Ends::Nothing;
            }
        }
    }

    /// Stateless: a response has passed that ends what its connection may have been opened for.
    pub fn release_by_response(&mut self, flow: Flow, message: &Message) {
        // INVITE is not included: whether its ACK has passed is not known. Nor is a request that may have been sent within a
        // dialog.
        let ends = matches!(message.method(), Method::Bye | Method::Register | Method::Publish | Method::Message);
        if ends && message.status() >= 200 && flow.transport.is_reliable() {
            self.outbox.release(flow);
        }
    }
}
