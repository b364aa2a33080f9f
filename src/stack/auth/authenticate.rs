//! Whether a request may pass as its sender's (RFC 3261 §22.2, §22.3): what it must prove, and the challenge if it has not.

use crate::base::Flow;
use crate::sip::{Message, Method, Uri};
use crate::stack::auth::claim::{Claim, NAME_SHOWN, realm};
use crate::stack::auth::demand::{Challenger, Demand};
use crate::stack::auth::digest::Algorithm;
use crate::stack::condition::matches;
use crate::stack::counters::AuthOutcome;
use crate::stack::log_event::{Subject, call_id};
use crate::stack::passage::Proof;
use crate::stack::refusal::Refusal;
use crate::stack::request::Request;
use crate::stack::turn::{SourceProof, Turn};
use std::net::IpAddr;

impl Turn<'_> {
    /// §22.2. A REGISTER passes if its user has proved to own the address-of-record. One for an address that is not ours is not
    /// challenged: the registrar has nothing for it.
    pub fn authenticate_registering(&mut self, request: &Request) -> Result<(), Refusal> {
        let who = Challenger::Registrar;
        if self.certify(request, who)? {
            return Ok(());
        }
        if !self.core.settings.auth.challenge_register && request.demand != Demand::Users {
            return Ok(());
        }
        let claim = Claim::of(who, &request.message, &self.core.settings);
        match claim.whose {
            Some(_) => self.authenticate(request, &claim),
            None => Ok(()),
        }
    }

    /// §22.3. A request in the name of one of our users passes if that user has proved its identity. A request that our own Route
    /// lets pass is not challenged; one in a foreign name is only checked if the route is for our users alone. There it is refused,
    /// unless the caller withholds its name (RFC 3323 §4.1.1.3) and proves to be any of them.
    pub fn authenticate_calling(&mut self, request: &mut Request) -> Result<(), Refusal> {
        let has_proved = self.has_proved(request);
        let ends = request.message.method() == Method::Bye;
        // A party to the dialog that bears the name by which it was called may end it.
        let bears = |shown| !self.core.cookies.lets_names_change(&shown);
        let is_trusted = request.trusted && (!request.renamed || ends && request.shown.is_some_and(bears));
        let demand = request.demand;
        if (demand == Demand::Users || !(has_proved || is_trusted)) && self.certify(request, Challenger::Proxy)? {
            request.proof = Proof::Credentials;
            return Ok(());
        }
        let auth = &self.core.settings.auth;
        let exempt = match demand {
            Demand::Nothing => true,
            Demand::Ours => has_proved || (is_trusted && !(auth.challenge_bye && ends && self.claims_a_user(&request.message))),
            Demand::Users => false,
        };
        if exempt {
            return Ok(());
        }
        let claim = Claim::of(Challenger::Proxy, &request.message, &self.core.settings);
        match (demand, claim.whose) {
            // It was challenged on its first pass, for the callee that it named then. That callee may forward it to others, but not
            // to a next hop that the caller would have to pay for.
            (Demand::Users, Some(_)) if has_proved => {
                return Err(Refusal::new(403, "Forwarded To A Route For Our Users Only"));
            }
            (_, Some(_)) => {}
            (Demand::Users, None) if self.may_withhold_its_name(&request.message, &claim) => {}
            (Demand::Users, None) => return Err(Refusal::new(403, "For Our Users Only")),
            (_, None) => return Ok(()),
        }
        self.authenticate(request, &claim)?;
        request.proof = Proof::Credentials;
        Ok(())
    }

    /// Returns whether the request was challenged on an earlier pass and proved what was demanded ([`crate::stack::passage`]); its
    /// credentials went no further than that pass. Unknown for a request that passed without a transaction.
    fn has_proved(&self, request: &Request) -> bool {
        request.passed.is_some_and(|passed| passed.proof == Proof::Credentials)
    }

    /// Returns what the route that this request takes demands, or otherwise the conf in general.
    pub fn demand(&self, request: &Request) -> Demand {
        let settings = &self.core.settings;
        let general = settings.auth.challenge_proxy;
        let mut route = None;
        if settings.routes.have_a_say() {
            route = settings.routes.iter().find(|route| matches(route, request));
        }
        let (asks, users_only) = match route {
            Some(route) => (route.challenge.unwrap_or(general), route.users_only && !request.is_past_routes()),
            None => (general, false),
        };
        match (users_only, asks) {
            (true, _) => Demand::Users,
            (false, true) => Demand::Ours,
            (false, false) => Demand::Nothing,
        }
    }

    /// Returns whether the From is anonymous and it is known which users may be behind it.
    fn may_withhold_its_name(&self, message: &Message, claim: &Claim) -> bool {
        let mut room = [0; 256];
        claim.is_anonymous() && !realm(&self.core.settings, message, claim, &mut room).is_empty()
    }

    /// Demands credentials, and checks whether they are those of the claimed user.
    fn authenticate(&mut self, request: &Request, claim: &Claim) -> Result<(), Refusal> {
        match self.prove(request, claim) {
            Ok(nonce) => {
                let peer = request.flow.peer;
                self.source_proof = SourceProof::Elsewhere;
                if self.core.nonces.is_from(nonce, peer.ip()) {
                    self.source_proof = SourceProof::Here;
                    self.core.sources.proved.note(self.now, peer);
                }
                self.core.counters.auth[AuthOutcome::Accepted as usize] += 1;
                self.outbox.note(call_id(&request.message), format_args!("the password is right"));
                Ok(())
            }
            Err((failure, name)) => {
                self.core.counters.auth[failure.outcome() as usize] += 1;
                if let Some(words) = failure.words() {
                    self.log_user(&request.message, request.flow, name, &words);
                }
                Err(failure.refusal(claim.who).logged())
            }
        }
    }

    /// Returns whether the request bears the name of one of our users that has a password: nobody else could answer a challenge.
    fn claims_a_user(&self, message: &Message) -> bool {
        let from = message.from().and_then(|from| Uri::parse(from.uri));
        from.is_ok_and(|from| self.core.has_password(&from))
    }

    /// Appends the challenges of a 401 or 407, one line for each algorithm (RFC 8760 §2.3): those of the conf, and of these what
    /// the user that the request names has hashes for. No other user has a say in it. For one that does not exist, or could answer
    /// none of them, it is all that the conf says.
    pub fn write_challenges(&mut self, message: &Message, who: Challenger, stale: bool, to: IpAddr, out: &mut Vec<u8>) {
        let settings = self.core.settings.clone();
        let auth = &settings.auth;
        let mut room = [0; 256];
        let claim = Claim::of(who, message, &settings);
        let realm = realm(&settings, message, &claim, &mut room);
        let user = claim.whose.and_then(|whose| self.core.user(whose, realm));
        let known = user.map(|user| user.known());
        let has = |algorithm: &Algorithm| known.is_some_and(|known| known.has(*algorithm));
        let some = auth.algorithms.iter().any(has);
        for algorithm in auth.algorithms.iter().filter(|algorithm| !some || has(algorithm)) {
            self.core.nonce_count = self.core.nonce_count.wrapping_add(1);
            out.extend_from_slice(who.challenge_in());
            out.extend_from_slice(b"Digest realm=\"");
            out.extend_from_slice(realm);
            out.extend_from_slice(b"\", nonce=\"");
            self.core.nonces.write(self.now.as_ms(), self.core.number, self.core.nonce_count, realm, to, out);
            out.extend_from_slice(b"\", algorithm=");
            out.extend_from_slice(algorithm.name().as_bytes());
            if auth.qop {
                out.extend_from_slice(b", qop=\"auth,auth-int\"");
            }
            if stale {
                out.extend_from_slice(b", stale=true");
            }
            out.extend_from_slice(b"\r\n");
        }
    }

    fn log_user(&mut self, message: &Message, flow: Flow, name: &[u8], what: &str) {
        let name = name.get(..NAME_SHOWN).unwrap_or(name);
        let name = String::from_utf8_lossy(name);
        self.log_event(Subject::Auth, message, flow, format_args!("user {name:?}: {what}"));
    }
}
