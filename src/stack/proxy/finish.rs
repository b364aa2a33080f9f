//! The end of a request (RFC 3261 §16.7 steps 6, 7 and 9): no branch is left; the best response leaves, or one of our own.

use crate::base::Id;
use crate::sip::{Message, Name, reply, status};
use crate::stack::identity::TagKind;
use crate::stack::log_event::Subject;
use crate::stack::proxy::Proxy;
use crate::stack::proxy::context::{Context, INVALID_RESPONSE};
use crate::stack::turn::Turn;

impl Proxy {
    /// Steps 6, 7 and 9: no branch is left; the best response goes upstream, or one of our own.
    pub fn finish(&mut self, turn: &mut Turn, server: Id) {
        let Some(mut context) = self.contexts.take(server, turn.transactions) else {
            return;
        };
        turn.give_up_silent(&mut context);
        let invite = turn.transactions.server(server).is_some_and(|server| server.is_invite());
        let best = std::mem::take(&mut context.best);
        let (own, reason) = match context.best_status {
            // RFC 4320 §4.2: no 408 and no late answer to a non-INVITE.
            0 | 408 if !invite => (0, ""),
            // Nothing was heard after a CANCEL: the caller is told that it worked.
            0 | 408 | 503 if context.cancelled => (487, ""),
            INVALID_RESPONSE if context.cancelled && best.is_empty() => (487, ""),
            INVALID_RESPONSE if context.is_trunk_refused && best.is_empty() => (INVALID_RESPONSE, "Trunk Password Refused"),
            // A 503 is about one next hop, not about us (step 6); and a dead next hop has said nothing at all.
            0 | 503 => (500, "No Next Hop Reached"),
            status if best.is_empty() => (status, ""),
            _ => (0, ""),
        };
        match context.best_status {
            _ if own > 0 => self.respond_own(turn, server, &context, own, reason),
            0 | 408 if !invite => {}
            status @ (401 | 407) if context.challenged > 1 => {
                self.respond_aggregated(turn, server, &context, status, &best);
            }
            status => {
                let mut bytes = std::mem::take(&mut turn.core.scratch);
                bytes.clear();
                bytes.extend_from_slice(turn.transactions.pool.get(&best));
                turn.respond(server, status, |out| {
                    out.extend_from_slice(&bytes);
                });
                turn.core.scratch = bytes;
            }
        }
        let status = if own > 0 { own } else { context.best_status };
        context.best = best;
        self.retire(turn, context, status);
    }

    /// Step 7: adds the challenges of all branches to the best 401 or 407.
    fn respond_aggregated(&mut self, turn: &mut Turn, server: Id, context: &Context, status: u16, best: &crate::base::Blob) {
        let mut bytes = std::mem::take(&mut turn.core.scratch);
        bytes.clear();
        bytes.extend_from_slice(turn.transactions.pool.get(best));
        let mut index = std::mem::take(&mut turn.core.second_index);
        if let Ok(message) = Message::parse(&bytes, &mut index) {
            self.rewrite.clear();
            for name in [Name::WwwAuthenticate, Name::ProxyAuthenticate] {
                for header in message.all(name) {
                    self.rewrite.remove(header.line.range());
                }
            }
            self.rewrite.insert(message.headers_end(), |out| {
                out.extend_from_slice(&context.challenges);
            });
            let rewrite = &mut self.rewrite;
            turn.respond(server, status, |out| {
                rewrite.render(&bytes, out);
            });
        }
        turn.core.second_index = index;
        turn.core.scratch = bytes;
    }

    /// Sends a final (or 100) answer of our own to a request that was forwarded.
    pub fn respond_own(&mut self, turn: &mut Turn, server: Id, context: &Context, status: u16, reason: &str) {
        let mut bytes = std::mem::take(&mut self.request_copy);
        bytes.clear();
        bytes.extend_from_slice(turn.transactions.pool.get(&context.request));
        let mut index = std::mem::take(&mut turn.core.second_index);
        let mut tag = std::mem::take(&mut turn.core.scratch);
        tag.clear();
        if let Ok(message) = Message::parse(&bytes, &mut index) {
            if let (300.., Some(source)) = (status, context.source) {
                let phrase = if reason.is_empty() { status::reason(status) } else { reason };
                let what = format_args!("no branch is left, answered {status} {phrase}");
                turn.log_event(Subject::Routing, &message, source, what);
            }
            if status > 100 {
                turn.core.identity.write_tag(&message, TagKind::Transaction, &mut tag);
            }
            let settings = &turn.core.settings;
            let extra = |out: &mut Vec<u8>| {
                // No branch was as secure as the request demands.
                if let (480, Some(source)) = (status, context.source) {
                    settings.write_sips_not_allowed(source.listener, out);
                }
            };
            let feedback = turn.feedback();
            let answer = reply::Reply {
                status,
                reason: reason.as_bytes(),
                to_tag: &tag,
                received: context.source.map(|flow| flow.peer),
                feedback: Some(feedback),
            };
            turn.transactions.respond(turn.now, server, status, turn.outbox, |out| {
                reply::write(&message, &answer, extra, out);
            });
        }
        turn.core.scratch = tag;
        turn.core.second_index = index;
        self.request_copy = bytes;
    }
}
