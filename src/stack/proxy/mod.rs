//! The proxy core (RFC 3261 §16): requests in [`request`], responses in [`response`], one function for each step.

mod ack;
mod branches;
mod by_via;
mod cancel;
mod cancel_branch;
pub mod context;
mod finish;
mod forward;
mod guard;
pub mod hop;
pub mod locate;
mod neighbours;
mod next_hop;
mod notices;
mod parked;
mod proceed;
mod record_route;
mod recording;
pub mod redirect;
mod release;
pub mod request;
mod response;
mod silence;
mod stateful;
mod stateless;
pub mod target;
pub mod targets;
mod trunk_answer;
mod trunks;
mod unproved;
pub mod validate;
mod waits;
mod withhold;

use crate::base::{Flow, Id};
use crate::sip::{Message, Rewrite};
use crate::stack::log_event::{About, ShownId, Subject, call_id};
use crate::stack::turn::Turn;
use context::{Context, Contexts};
use parked::Parking;
use target::TargetSet;

/// One core's proxy: the requests that wait for answers, what waits for names, and the buffers reused for each message.
#[derive(Default)]
pub(in crate::stack) struct Proxy {
    pub contexts: Contexts,
    pub parking: Parking,
    targets: TargetSet,
    rewrite: Rewrite,
    /// A request that was kept, while it is read again.
    request_copy: Vec<u8>,
    /// The name that the certificate of the next hop must prove; empty if none is required.
    peer_host: Vec<u8>,
    /// The certificate shown to it ([`crate::stack::route::NextHop::identity`]).
    peer_identity: u64,
    /// The flow token of the current Record-Route.
    token: Vec<u8>,
    /// What waited for the current answer.
    waiters: Vec<Id>,
}

impl Proxy {
    /// The request of this context has this final response; 0: it gets none.
    fn retire(&mut self, turn: &mut Turn, mut context: Box<Context>, status: u16) {
        turn.record_final(&context, status);
        self.parking.forget(&mut context);
        self.contexts.recycle(context, turn.transactions);
    }

    /// A branch of the request of `server` has ended without a final response.
    pub fn log_branch(&self, turn: &mut Turn, server: Id, flow: Flow, why: impl std::fmt::Display) {
        let (peer, transport) = (flow.peer, flow.transport.name());
        let what = format_args!("branch to {peer} over {transport} failed: {why}");
        self.log_request(turn, server, what);
    }

    /// Reports something about the request of a server transaction.
    fn log_request(&self, turn: &mut Turn, server: Id, what: std::fmt::Arguments<'_>) {
        let server = turn.transactions.server(server);
        let Some(context) = server.and_then(|server| self.contexts.get(server.context.get()?)) else {
            // The request has its final response already: what becomes of its other branches makes no difference.
            return log::debug!(target: Subject::Routing.word(), "{what}");
        };
        let may_say = turn.core.log.may_say();
        if !may_say && !turn.outbox.is_traced {
            return;
        }
        let request = turn.transactions.pool.get(&context.request);
        let Ok(request) = Message::parse(request, &mut turn.core.second_index) else {
            debug_assert!(false, "a request that was kept can be read again");
            return;
        };
        turn.outbox.note(call_id(&request), what);
        if may_say {
            log::info!(
                target: Subject::Routing.word(), call_id:% = ShownId(call_id(&request));
                "{}: {what}", About(&request)
            );
        }
    }

    /// A timer of a request has fired: traced.
    fn note_timer(&self, turn: &mut Turn, server: Id, what: std::fmt::Arguments<'_>) {
        if !turn.outbox.is_traced {
            return;
        }
        let server = turn.transactions.server(server);
        let context = server.and_then(|server| self.contexts.get(server.context.get()?));
        let request = context.map(|context| turn.transactions.pool.get(&context.request));
        let index = &mut turn.core.second_index;
        if let Some(request) = request.and_then(|bytes| Message::parse(bytes, index).ok()) {
            turn.outbox.note_timer(call_id(&request), what);
        }
    }
}
