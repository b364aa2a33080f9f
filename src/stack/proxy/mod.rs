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
mod hop;
pub mod locate;
mod neighbours;
mod next_hop;
mod notices;
mod parked;
mod proceed;
mod record_route;
pub mod redirect;
mod release;
pub mod request;
mod response;
mod silence;
mod stateful;
mod stateless;
mod target;
pub mod targets;
mod unproved;
pub mod validate;
mod waits;
mod withhold;

use crate::base::{Flow, Id};
use crate::sip::{Message, Rewrite};
use crate::stack::log_event::About;
use crate::stack::turn::Turn;
use context::{Context, Contexts};
use parked::Parking;
use target::TargetSet;

/// One core's proxy: the requests that wait for their answers, what waits for names, and what it uses again for each message.
#[derive(Default)]
pub(in crate::stack) struct Proxy {
    pub contexts: Contexts,
    pub parking: Parking,
    targets: TargetSet,
    rewrite: Rewrite,
    /// A request that was kept, while it is read again.
    request_copy: Vec<u8>,
    /// What the certificate of the next hop must prove; empty where nothing is asked.
    peer_host: Vec<u8>,
    /// The certificate that it is shown ([`crate::stack::route::NextHop::identity`]).
    peer_identity: u64,
    /// The flow token of the Record-Route at hand.
    token: Vec<u8>,
    /// What has waited for the answer at hand.
    waiters: Vec<Id>,
}

impl Proxy {
    /// The request of this context has its final response.
    fn retire(&mut self, turn: &mut Turn, mut context: Box<Context>) {
        self.parking.forget(&mut context);
        self.contexts.recycle(context, turn.transactions);
    }

    /// A branch of what `server` was asked has ended without a final response.
    pub fn log_branch(&self, turn: &mut Turn, server: Id, flow: Flow, why: &str) {
        let (peer, transport) = (flow.peer, flow.transport.name());
        let what = format_args!("branch to {peer} over {transport} failed: {why}");
        self.log_request(turn, server, what);
    }

    /// Something is to be said of the request of a server transaction.
    fn log_request(&self, turn: &mut Turn, server: Id, what: std::fmt::Arguments<'_>) {
        if !turn.core.log.may_say() {
            return;
        }
        let server = turn.transactions.server(server);
        let context = server.and_then(|server| self.contexts.get(server.context?));
        let request = context.map(|context| turn.transactions.pool.get(&context.request));
        let index = &mut turn.core.second_index;
        match request.and_then(|bytes| Message::parse(bytes, index).ok()) {
            Some(request) => log::info!("{}: {what}", About(&request)),
            None => log::info!("{what}"),
        }
    }
}
