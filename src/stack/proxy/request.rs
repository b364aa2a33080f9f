//! Request processing (RFC 3261 §16.3 to §16.6): one function for each step, in the order of the text.

use crate::base::Flow;
use crate::sip::{Message, Name};
use crate::stack::auth::demand::Demand;
use crate::stack::log_event::{Shown, call_id};
use crate::stack::proxy::Proxy;
use crate::stack::proxy::targets::Decision;
use crate::stack::proxy::validate::ASTRAY;
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::request::{Request, unsupported};
use crate::stack::settings::Mode;
use crate::stack::turn::Turn;

impl Proxy {
    /// §16.5, and whether the request is allowed. The targets are kept for [`Proxy::carry_out`].
    pub fn decide(&mut self, turn: &mut Turn, request: &mut Request) -> Result<Decision, Refusal> {
        let mut decision = turn.determine_targets(request, &mut self.targets);
        if let Ok(Decision::Drop) = decision {
            return decision;
        }
        // An unauthenticated sender must not learn which users exist.
        // A server that shares our table has asked already.
        request.demand = match request.relayed {
            Some(_) => Demand::Nothing,
            None => turn.demand(request),
        };
        turn.core.proved_user.clear();
        if !matches!(decision, Ok(Decision::Register)) {
            decision = turn.authenticate_calling(request).and(decision);
        }
        if !matches!(decision, Ok(Decision::Options | Decision::Register)) {
            decision = turn.check_max_forwards(&request.message).and(decision);
        }
        if let Ok(Decision::Astray) = decision {
            decision = turn.check_astray(request);
        }
        if turn.core.settings.limits.requests_per_aor > 0 && decision.is_ok() {
            decision = turn.check_callee(request).and(decision);
        }
        if let Ok(Decision::Forward) = decision {
            request.proof = request.proof.max(request.passed.unwrap_or_default().proof);
            turn.mark(request);
            turn.foresee_record(request);
            turn.note_refresh(request);
            self.targets.assert(&turn.core.proved_user);
        }
        if turn.outbox.is_traced {
            self.note_decision(turn, request, &decision);
        }
        decision
    }

    /// Forwards the request to the targets of [`Proxy::decide`], or answers it.
    pub fn carry_out(&mut self, turn: &mut Turn, request: &Request, decision: Decision) -> Result<(), Refusal> {
        match decision {
            Decision::Forward if turn.core.settings.proxy.mode == Mode::Stateless => {
                self.forward_stateless(turn, request);
                Ok(())
            }
            Decision::Forward => self.forward_stateful(turn, request),
            // §8.3: never to the Request-URI itself.
            Decision::Redirect if !self.targets.keep_other_than(&request.parsed) => Err(Refusal::new(404, "Redirected To Itself")),
            Decision::Redirect => {
                turn.redirect(request, &self.targets);
                Ok(())
            }
            Decision::Options => turn.answer_options(&request.message, request.flow),
            Decision::Drop => {
                turn.drop_by_route(&request.message, request.flow);
                Ok(())
            }
            Decision::Astray => Err(ASTRAY),
            Decision::Register => {
                debug_assert!(false, "a REGISTER is the registrar's");
                Ok(())
            }
        }
    }
}

impl Proxy {
    /// Traces where the request goes, and by what rule. The reason of a refusal is traced with its answer.
    fn note_decision(&self, turn: &mut Turn, request: &Request, decision: &Result<Decision, Refusal>) {
        let Ok(decision) = decision else {
            return;
        };
        let count = self.targets.targets.len();
        let what = match decision {
            Decision::Forward => "forwarded",
            Decision::Redirect => "redirected",
            Decision::Astray => "of no dialog that passed here",
            Decision::Options | Decision::Register => "for this server itself",
            Decision::Drop => "dropped",
        };
        let id = call_id(&request.message);
        let uri = Shown(request.uri);
        match self.targets.route {
            Some(route) => {
                let number = route + 1;
                turn.outbox.note(id, format_args!("{uri}: [[route]] {number}: {what}, targets: {count}"));
            }
            None if request.is_past_routes() => {
                turn.outbox.note(id, format_args!("{uri}: within its dialog: {what}"));
            }
            None => turn.outbox.note(id, format_args!("{uri}: no [[route]]: {what}, targets: {count}")),
        }
    }
}

impl Turn<'_> {
    fn answer_options(&mut self, message: &Message, flow: Flow) -> Result<(), Refusal> {
        if unsupported(message, Name::Require).next().is_some() {
            return Err(Refusal::new(420, "").with(Extra::Unsupported));
        }
        self.answer(message, flow, 200, "", |out| {
            out.extend_from_slice(
                b"Allow: INVITE, ACK, BYE, CANCEL, REGISTER, OPTIONS, PRACK, UPDATE, INFO, REFER, SUBSCRIBE, NOTIFY, \
                  MESSAGE, PUBLISH\r\nAccept: */*\r\nAccept-Encoding: identity\r\nAccept-Language: en\r\nSupported: path\r\n",
            );
        });
        Ok(())
    }
}
