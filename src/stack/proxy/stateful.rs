//! The stateful proxy (RFC 3261 §16.6): a request gets a transaction, a context and its first branches.

use crate::base::{Flow, Id, Pool, ShareHolder};
use crate::sip::{Message, Method, reply};
use crate::stack::counters::Limit;
use crate::stack::peer_flows::reply_flow;
use crate::stack::proxy::Proxy;
use crate::stack::proxy::target::TargetSet;
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::request::{Request, span_of};
use crate::stack::transaction::Holders;
use crate::stack::turn::Turn;

impl Proxy {
    /// Applies §16.6 to the targets. A request for which there is no room, or no breadth, is refused.
    pub fn forward_stateful(&mut self, turn: &mut Turn, request: &Request) -> Result<(), Refusal> {
        let breadth = turn.core.incoming_breadth(&request.message);
        if breadth == 0 {
            return Err(Refusal::new(440, "").because_of(Limit::MaxBreadth));
        }
        // With serial search, breadth that is returned limits the branches at one time, not their total: two users that forward to
        // each other would keep one request busy for ever. A request that has been here before gets each share only once.
        if request.spiral && self.targets.targets.len() > breadth as usize {
            return Err(Refusal::new(440, "").because_of(Limit::MaxBreadth));
        }
        let holders = turn.holders(request, &self.targets);
        if let Some(limit) = turn.transactions.is_full_for(holders) {
            return Err(too_much(limit));
        }
        let Some(stored) = turn.transactions.pool.store(span_of(&request.message)) else {
            return Err(match span_of(&request.message).len() > Pool::MAX {
                true => Refusal::new(513, ""),
                false => too_much(Limit::TransactionBytes),
            });
        };
        let mut context = self.contexts.begin();
        context.request = stored;
        (context.holder, context.held_bytes) = (holders.source, span_of(&request.message).len());
        turn.transactions.hold_bytes(holders.source, context.held_bytes);
        context.source = Some(request.flow);
        context.breadth = breadth;
        context.spiral = request.spiral;
        context.unproved_room = turn.room_for_strangers(request, breadth);
        (context.mark, context.opening) = (request.mark, request.opening);
        context.begun = turn.now;
        turn.record_request(&mut context, request, self.targets.route);
        std::mem::swap(&mut context.targets, &mut self.targets);

        let invite = request.message.method() == Method::Invite;
        if invite && !turn.transactions.refused.is_empty() && request.message.to_tag().is_some() {
            let key = turn.core.identity.invite(&request.message);
            turn.transactions.refused.forget(key);
        }
        let server = turn.open_server(request, invite, holders);
        if request.via.offers_control()
            && let Some(server) = turn.transactions.server_mut(server)
        {
            server.offers_control = true;
        }
        if invite {
            turn.send_trying(server, &request.message, request.flow);
        }
        self.start_branches(turn, server, &mut context, request);
        let finished = context.is_idle();
        let id = self.contexts.insert(context);
        if let Some(server) = turn.transactions.server_mut(server) {
            server.context = id.into();
        }
        if finished {
            self.finish(turn, server);
        }
        Ok(())
    }
}

impl Turn<'_> {
    /// Whose share this request uses: its source's, and if a user's bindings are called, that user's.
    pub fn holders(&self, request: &Request, targets: &TargetSet) -> Holders {
        let ip = request.flow.peer.ip();
        let shares = &self.transactions.shares;
        let is_bound = targets.targets.first().is_some_and(|target| target.source.is_some() || target.by_operator);
        Holders {
            source: match self.core.settings.is_trusted(ip) {
                true => ShareHolder::NOBODY,
                false => shares.of_source(ip),
            },
            aor: match is_bound {
                true => shares.of_name(&self.core.aor),
                false => ShareHolder::NOBODY,
            },
        }
    }

    /// Gives the request a server transaction, which takes a share of `holders`, and whose answers are bounded.
    #[inline]
    pub fn open_server(&mut self, request: &Request, invite: bool, holders: Holders) -> Id {
        let upstream = reply_flow(request.flow, &request.via);
        let server = self.transactions.open_server(self.now, invite, request.key, upstream);
        self.transactions.hold(server, holders);
        if let Some(room) = self.room_for_answers(&request.message, &upstream) {
            self.transactions.bound_answers(server, room);
        }
        server
    }

    /// §16.2, §17.2.1: sends 100 at once.
    pub fn send_trying(&mut self, server: Id, message: &Message, source: Flow) {
        let trying =
            reply::Reply { status: 100, received: Some(source.peer), feedback: Some(self.feedback()), ..reply::Reply::default() };
        self.respond(server, 100, |out| {
            reply::write(message, &trying, |_| (), out);
        });
    }
}

/// There is no room for another transaction.
fn too_much(limit: Limit) -> Refusal {
    let reason = match limit {
        Limit::TransactionBytes => "Transactions Hold Too Much Memory",
        Limit::TransactionsOfSource => "Too Many Transactions Of One Source",
        Limit::TransactionsOfAor => "Too Many Transactions For One Address",
        _ => "Too Many Transactions",
    };
    let refusal = Refusal::new(503, reason).with(Extra::RetryAfter(5));
    refusal.because_of(limit)
}
