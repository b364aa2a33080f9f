//! What a client's certificate proves: one identity only (RFC 5922 §7). A user's certificate stands for that user, a domain's for
//! all of its users; the connection on which it was shown stands for nobody else.

use crate::settings::Certificate;
use crate::sip::{Host, Scheme, Uri};
use crate::stack::auth::assert::write_identity;
use crate::stack::auth::claim::{Claim, NAME_SHOWN};
use crate::stack::auth::demand::{Challenger, Demand};
use crate::stack::counters::AuthOutcome;
use crate::stack::log_event::{Subject, call_id};
use crate::stack::refusal::Refusal;
use crate::stack::request::Request;
use crate::stack::turn::Turn;
use crate::stack::whose::is_wildcard;

impl Turn<'_> {
    /// Returns true if the connection's certificate has proved the sender's identity, so that no password is needed. Refuses a
    /// sender that acts for another of our users or domains than its certificate names; foreign names are not ours to give. A
    /// client that has shown no certificate has proved nothing, and is challenged like any other.
    pub fn certify(&mut self, request: &Request, who: Challenger) -> Result<bool, Refusal> {
        let rule = self.core.settings.auth.certificate;
        if rule == Certificate::Off {
            return Ok(false);
        }
        let Some(names) = self.core.peer_flows.proved(&request.flow) else {
            return Ok(false);
        };
        let claim = Claim::of(who, &request.message, &self.core.settings);
        let is_proved = match claim.whose {
            Some(whose) => names.iter().any(|name| whose.is_certified_by(name.as_bytes())),
            // The caller withholds its name, and has to be one of our users.
            None if request.demand == Demand::Users && claim.is_anonymous() => {
                if !names.iter().any(|name| self.is_of_ours(name.as_bytes())) {
                    return Ok(false);
                }
                true
            }
            None => return Ok(false),
        };
        if !is_proved {
            self.core.counters.auth[AuthOutcome::Forbidden as usize] += 1;
            let shown = names.first().map_or("", |name| name);
            let shown = shown.get(..NAME_SHOWN).unwrap_or(shown);
            let reason = format_args!("certificate of {shown:?}: acts for another user");
            self.log_event(Subject::Auth, &request.message, request.flow, reason);
            return Err(Refusal::new(403, "Not Your Certificate's Identity").logged());
        }
        let is_enough = rule == Certificate::Identity;
        if is_enough {
            if let Some(whose) = claim.whose
                && self.core.settings.asserts_identities()
            {
                write_identity(whose, &mut self.core.proved_user);
            }
            self.core.counters.auth[AuthOutcome::Accepted as usize] += 1;
            let what = format_args!("the certificate of the connection proves who sends it");
            self.outbox.note(call_id(&request.message), what);
        }
        Ok(is_enough)
    }

    /// Returns whether a name of a certificate is that of one of our users or domains.
    fn is_of_ours(&self, name: &[u8]) -> bool {
        match Uri::parse(name) {
            Ok(uri) => {
                matches!(uri.scheme, Scheme::Sip | Scheme::Sips)
                    && !uri.user.is_some_and(is_wildcard)
                    && self.core.settings.whose(&uri).is_some()
            }
            Err(_) => self.core.settings.is_our_domain(Host::of(name)),
        }
    }
}
