//! Challenges of a carrier to requests that go by a trunk: answered here with the trunk's password, without the caller noticing.

use crate::base::Id;
use crate::sip::{Credentials, Message, Name};
use crate::stack::auth::answering::Chosen;
use crate::stack::proxy::Proxy;
use crate::stack::proxy::context::{Context, INVALID_RESPONSE};
use crate::stack::proxy::guard::is_same_machine;
use crate::stack::proxy::proceed::More;
use crate::stack::proxy::target::Target;
use crate::stack::proxy::trunk_answer::Answer;
use crate::stack::transaction::Hope;
use crate::stack::trunk::Trunk;
use crate::stack::turn::Turn;
use std::net::SocketAddr;

/// What is done with a challenge.
enum Verdict<'m> {
    /// It is answered.
    Answered(Chosen<'m>),
    /// It is left to the caller.
    Callers,
    /// The carrier refuses what it is given, or asks for credentials that nobody here has.
    Refused(&'static str),
    /// The caller no longer waits for an answer.
    TooLate,
}

impl Proxy {
    /// A 401 or 407 has come for a branch of this context. True: it was meant for a trunk, and was handled.
    pub(super) fn meets_trunk(
        &mut self,
        turn: &mut Turn,
        id: Id,
        server: Id,
        context_id: Id,
        message: &Message,
        from: SocketAddr,
    ) -> bool {
        let Some(context) = self.contexts.get(context_id) else {
            return false;
        };
        let Some(trunk) = context.targets.trunk.clone() else {
            if context.targets.trunk_used.is_some() {
                let why =
                    "asks for credentials, and the trunk by which the call began is no longer in the conf: left to the caller";
                self.log_request(turn, server, format_args!("{from} {why}"));
            }
            return false;
        };
        let Some(client) = turn.transactions.client(id) else {
            return false;
        };
        // Another next hop has its place and its breadth, and the caller must not see the challenge.
        if client.hope == Hope::GivenUp {
            self.release_branch(turn, server, id);
            return true;
        }
        let (target, breadth, unproved, peer) = (client.target, client.breadth, client.unproved, client.flow.peer);
        if !(is_same_machine(from, peer) || turn.is_at_carrier(&trunk, from)) || !turn.is_of_carrier(context, &trunk, target, peer)
        {
            let why = "asks for credentials, and is not known as a target of a route of the trunk: left to the caller";
            self.log_request(turn, server, format_args!("trunk {:?}: {from} {why}", trunk.name));
            return false;
        }
        let (before, is_cancelled) = (client.answered, client.cancel.is_some() || client.cancel_wanted);
        let verdict = match is_cancelled || context.closed {
            true => Verdict::TooLate,
            false => judge(turn, context, &trunk, message, before),
        };
        if matches!(verdict, Verdict::Callers) {
            return false;
        }
        let Some(context) = self.contexts.get_mut(context_id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return false;
        };
        context.take_out(id);
        // The same branch goes on, with what it was given.
        context.breadth += breadth;
        context.refund(unproved);
        match &verdict {
            Verdict::Answered(chosen) => {
                let answer = Answer { trunk: &trunk, chosen, target, breadth, answered: before + 1 };
                self.start_more(turn, server, context_id, More::ForTrunk(&answer));
            }
            Verdict::Refused(why) => {
                context.note_failure(INVALID_RESPONSE, &mut turn.transactions.pool);
                context.is_trunk_refused = true;
                context.drop_spares();
                self.log_request(turn, server, format_args!("trunk {:?}: {peer} {why}", trunk.name));
            }
            Verdict::TooLate | Verdict::Callers => context.note_failure(503, &mut turn.transactions.pool),
        }
        self.go_on(turn, server);
        self.release_branch(turn, server, id);
        true
    }
}

impl Turn<'_> {
    /// Whether the request has gone to the carrier: to a target of one of the trunk's routes, or within its dialog to where such a target
    /// was when it began. A dialog's other side says itself where it is, and must not be given what answers its own challenge.
    fn is_of_carrier(&self, context: &Context, trunk: &Trunk, target: u16, peer: SocketAddr) -> bool {
        let targets = &context.targets;
        match targets.trunk_used {
            None => targets.targets.get(usize::from(target)).is_some_and(Target::is_by_conf),
            Some(used) => used.door == self.core.cookies.door(trunk, peer.ip()) || self.is_at_carrier(trunk, peer),
        }
    }
}

fn judge<'m>(turn: &mut Turn, context: &Context, trunk: &Trunk, message: &Message<'m>, before: u8) -> Verdict<'m> {
    let Some(chosen) = Chosen::of(message, trunk) else {
        return match trunk.realm {
            // An element behind the carrier may challenge the caller.
            Some(_) => Verdict::Callers,
            None => Verdict::Refused("asks for no Digest that is known here"),
        };
    };
    if bears_its_own(turn, context, chosen.challenge.realm) {
        return Verdict::Callers;
    }
    match before {
        0 => Verdict::Answered(chosen),
        1 if chosen.challenge.stale => Verdict::Answered(chosen),
        1 if context.sent_answer.as_ref().is_some_and(|sent| sent.realm != chosen.challenge.realm) => Verdict::Answered(chosen),
        _ => Verdict::Refused("refuses its password"),
    }
}

/// Whether the caller has sent credentials for this realm, which are not for us.
fn bears_its_own(turn: &mut Turn, context: &Context, realm: &[u8]) -> bool {
    let bytes = turn.transactions.pool.get(&context.request);
    let Ok(request) = Message::parse(bytes, &mut turn.core.second_index) else {
        return false;
    };
    let settings = &turn.core.settings;
    [Name::Authorization, Name::ProxyAuthorization].into_iter().any(|name| {
        let is_its = |header: &crate::sip::Header| {
            Credentials::name_realm(header.value, |named| named == realm) && !settings.is_for_us(request.method(), header)
        };
        request.all(name).any(|header| is_its(&header))
    })
}
