//! Request validation (RFC 3261 §16.3); step 1, the syntax, is [`crate::sip::Message::check`].

use crate::base::{Flow, Transport};
use crate::sip::{Message, Name, Scheme, Via};
use crate::stack::branch;
use crate::stack::counters::Limit;
use crate::stack::passage::{Passed, Possible, Proof};
use crate::stack::proxy::targets::Decision;
use crate::stack::recognise::EarlierPass;
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::request::{Request, unsupported};
use crate::stack::settings::InDialog;
use crate::stack::token::Side;
use crate::stack::turn::Turn;

pub(super) const ASTRAY: Refusal = Refusal::new(403, "Not On The Route Of The Dialog");

impl Turn<'_> {
    /// The result of [`Turn::check_loop`].
    pub fn validate(&mut self, flow: Flow, message: &Message, key: u128) -> Result<(bool, Option<Passed>), Refusal> {
        self.check_uri_scheme(message)?;
        let (spiral, passed) = self.check_loop(flow, message)?;
        self.check_drain(message, passed)?;
        self.check_overload(flow, message, passed, key)?;
        self.check_proxy_require(message)?;
        Ok((spiral, passed))
    }

    /// Step 2.
    fn check_uri_scheme(&self, message: &Message) -> Result<(), Refusal> {
        match message.uri_scheme() {
            Ok(Scheme::Other) => Err(Refusal::new(416, "")),
            Ok(_) => Ok(()),
            Err(fault) => Err(Refusal::new(400, fault.reason())),
        }
    }

    /// Step 3. It forbids forwarding, not answering: it is checked once it is known that the request is not for this server itself.
    pub fn check_max_forwards(&self, message: &Message) -> Result<(), Refusal> {
        match message.max_forwards() {
            Ok(Some(0)) => Err(Refusal::new(483, "").because_of(Limit::MaxForwards)),
            _ => Ok(()),
        }
    }

    /// Step 4, as RFC 5393 §4.2.2 has it: looks for a Via of ours whose second part says that nothing has changed since. Returns
    /// whether there is a Via of ours at all, as in a spiral, and what the request had proved if it is the one for which that Via
    /// was written.
    pub fn check_loop(&mut self, flow: Flow, message: &Message) -> Result<(bool, Option<Passed>), Refusal> {
        let mut loop_hash = None;
        let mut possible = None;
        let mut passed: Option<Passed> = None;
        let mut is_spiral = false;
        for (number, value) in message.values(Name::Via).enumerate() {
            if value.text.len() < branch::SHORTEST {
                continue;
            }
            let text = match number {
                0 => message.top_branch(),
                _ => Via::parse(value).ok().and_then(|via| via.branch()),
            };
            let Some(branch) = text.and_then(|text| self.core.signer.read(text)) else {
                if !self.core.others.is_empty()
                    && let Some(text) = text
                {
                    is_spiral |= self.check_loop_of_others(flow, message, text, &mut passed)?;
                }
                continue;
            };
            let mark = branch.mark();
            let now = *loop_hash.get_or_insert_with(|| self.core.loop_hash(flow, message));
            if mark.loop_hash == now {
                return Err(Refusal::new(482, ""));
            }
            let possible = possible.get_or_insert_with(|| self.possible_passages(message));
            if let Some(now) = possible.passed(mark.passage) {
                passed = Some(both(passed, now));
            }
        }
        Ok((is_spiral | loop_hash.is_some(), passed))
    }

    /// The same for one Via that the first secret has not signed. Returns whether it is ours.
    fn check_loop_of_others(
        &mut self,
        flow: Flow,
        message: &Message,
        branch: &[u8],
        passed: &mut Option<Passed>,
    ) -> Result<bool, Refusal> {
        let wall_ms = self.wall_ms();
        match self.core.pass_of_others(flow, message, branch, wall_ms) {
            None => Ok(false),
            Some(EarlierPass::Loop) => Err(Refusal::new(482, "")),
            Some(EarlierPass::Spiral(then)) => {
                *passed = then.map(|then| both(*passed, then)).or(*passed);
                Ok(true)
            }
        }
    }

    /// What our Via would say of this request if it has passed here. In a dialog either side may have opened the dialog.
    fn possible_passages(&mut self, message: &Message) -> Possible {
        let (identity, facts) = (self.core.identity, &mut self.core.facts);
        let dialogs = [Side::Caller, Side::Callee].map(|opener| identity.dialog(message, opener, facts).whole);
        let count = if message.to_tag().is_some() { 2 } else { 1 };
        self.core.passages.possible(message, &dialogs[..count], self.wall_ms())
    }

    /// A request within a dialog for one of our users that shows none of our routes: the conf says whether it is relayed although
    /// we stay on the path of dialogs. A sender that has proved its name may call that user anyway.
    pub fn check_astray(&self, request: &Request) -> Result<Decision, Refusal> {
        let proxy = &self.core.settings.proxy;
        let is_refused = proxy.record_route
            && proxy.in_dialog_without_route == InDialog::Refuse
            && request.proof == Proof::None
            && request.passed.is_none_or(|passed| passed.proof != Proof::Credentials);
        match is_refused {
            true => Err(ASTRAY),
            false => Ok(Decision::Forward),
        }
    }

    /// Step 5: we know no extension that a proxy would have to understand.
    fn check_proxy_require(&self, message: &Message) -> Result<(), Refusal> {
        if unsupported(message, Name::ProxyRequire).next().is_some() {
            return Err(Refusal::new(420, "").with(Extra::Unsupported));
        }
        Ok(())
    }
}

/// What was proved on either of two passes.
fn both(before: Option<Passed>, now: Passed) -> Passed {
    let before = before.unwrap_or_default();
    Passed { proof: before.proof.max(now.proof), named: before.named | now.named }
}

/// A SIPS request must have come over TLS on every hop (RFC 5630 §3.1.3, §5.3): the rule is the same for every method, including an
/// ACK and a CANCEL without a transaction. The exception is a dialog in which our own Route says `sip:`. It began with a SIP
/// request, so TLS was not promised on this side of us; the other side has given a SIPS contact all the same, and its peer must be
/// able to hang up. From here on the request goes by TLS.
pub(in crate::stack) fn check_secure(request: &Request) -> Result<(), Refusal> {
    let is_plain = request.flow.transport != Transport::Tls;
    let in_plain_dialog = request.trusted && !request.dialog.secure;
    match request.parsed.scheme {
        Scheme::Sips if is_plain && !in_plain_dialog => Err(Refusal::new(400, "SIPS Request Not Over TLS")),
        _ => Ok(()),
    }
}
