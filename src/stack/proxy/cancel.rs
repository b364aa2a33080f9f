//! CANCEL (RFC 3261 §9, §16.10): what came from the caller, and what goes to the branches.

use crate::base::{Errand, Flow, Id};
use crate::sip::{Fault, Message, NameAddr, Uri};
use crate::stack::proxy::Proxy;
use crate::stack::proxy::targets::Decision;
use crate::stack::proxy::validate::check_secure;
use crate::stack::settings::Mode;
use crate::stack::turn::Turn;

impl Proxy {
    /// A CANCEL from upstream. `errand` says which other cores have already looked for its INVITE.
    pub fn process_cancel(&mut self, turn: &mut Turn, flow: Flow, message: &Message, key: u128, errand: Errand) {
        if turn.core.settings.proxy.mode == Mode::Stateless {
            return self.forward_cancel_stateless(turn, flow, message, key);
        }
        let server = turn.transactions.find_server(key);
        let Some(server) = server.filter(|server| self.is_cancelled_by(turn, *server, message)) else {
            // To a request other than INVITE it makes no difference (§9.2).
            if turn.is_under_way(message) {
                return turn.answer(message, flow, 200, "", |_| ());
            }
            if turn.pass_on(errand, flow, message) {
                return;
            }
            if turn.is_dropped(flow, message) {
                return turn.drop_by_route(message, flow);
            }
            // §16.10 would have it forwarded, in case the INVITE was forwarded statelessly. In this mode none ever is, and
            // forwarding would let a stranger cancel other people's calls.
            return turn.answer(message, flow, 481, "", |_| ());
        };
        turn.answer(message, flow, 200, "", |_| ());
        let Some(id) = turn.transactions.server(server).and_then(|s| s.context.get()) else {
            return;
        };
        let Some(mut context) = self.contexts.lend(id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        if !context.cancelled {
            (context.cancelled, context.closed) = (true, true);
            turn.cancel_branches(&context);
            self.parking.forget(&mut context);
        }
        let is_over = context.is_over();
        self.contexts.put_back(id, context);
        // All of it waited for names: nothing was sent, and nothing will be.
        if is_over {
            self.finish(turn, server);
        }
    }

    /// True if the CANCEL has the same From and To as its INVITE (§9.1); the key covers all else. An INVITE that has its final
    /// response cannot be cancelled. The source of the CANCEL does not matter: an honest caller gets another address from a NAT or
    /// a new connection.
    fn is_cancelled_by(&mut self, turn: &mut Turn, server: Id, message: &Message) -> bool {
        let server = turn.transactions.server(server);
        let Some(context) = server.and_then(|server| self.contexts.get(server.context.get()?)) else {
            return true;
        };
        let bytes = turn.transactions.pool.get(&context.request);
        Message::parse(bytes, &mut turn.core.second_index)
            .is_ok_and(|invite| same_address(invite.from(), message.from()) && same_address(invite.to(), message.to()))
    }

    /// A CANCEL without an INVITE of its own goes where the INVITE went (§16.10).
    pub fn forward_cancel_stateless(&mut self, turn: &mut Turn, flow: Flow, message: &Message, key: u128) {
        let checked = turn.check_max_forwards(message);
        let looped = checked.and_then(|()| turn.check_loop(flow, message));
        let routed = looped.and_then(|(spiral, passed)| {
            let mut request = turn.preprocess_route(flow, message)?;
            (request.key, request.spiral, request.passed) = (key, spiral, passed);
            check_secure(&request)?;
            Ok(request)
        });
        let refused = match routed {
            Ok(mut request) => {
                let mut decision = turn.determine_targets(&request, &mut self.targets);
                if let Ok(Decision::Astray) = decision {
                    decision = turn.check_astray(&request);
                }
                if let Ok(Decision::Forward) = decision {
                    turn.mark(&mut request);
                    self.forward_stateless(turn, &request);
                }
                if let Ok(Decision::Drop) = decision {
                    turn.drop_by_route(message, flow);
                }
                decision.err()
            }
            Err(refusal) => Some(refusal),
        };
        if let Some(refusal) = refused {
            turn.refuse(message, flow, refusal);
        }
    }
}

impl Turn<'_> {
    /// True when the CANCEL is for a request other than INVITE that has a transaction here.
    fn is_under_way(&self, message: &Message) -> bool {
        const METHODS: [&[u8]; 10] =
            [b"BYE", b"OPTIONS", b"MESSAGE", b"SUBSCRIBE", b"NOTIFY", b"INFO", b"UPDATE", b"PRACK", b"REFER", b"PUBLISH"];
        let Ok(via) = message.top_via() else {
            return false;
        };
        METHODS.iter().any(|method| {
            let key = self.core.identity.transaction(message, &via, method);
            self.transactions.find_server(key).is_some()
        })
    }
}

/// True if both name one URI, whatever their tags. An unreadable one matches nothing.
fn same_address(one: Result<NameAddr<'_>, Fault>, other: Result<NameAddr<'_>, Fault>) -> bool {
    let (Ok(one), Ok(other)) = (one, other) else {
        return false;
    };
    one.uri == other.uri || matches!((Uri::parse(one.uri), Uri::parse(other.uri)), (Ok(one), Ok(other)) if one.equals(&other))
}
