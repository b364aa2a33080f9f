//! What a datagram can show that a forger of its source address cannot. Checked once that address has used up its share of
//! requests.

use crate::base::hash::read_hex;
use crate::base::{Flow, Instant, Question};
use crate::sip::{Credentials, Index, Message, Method, Name, NameAddr, Uri};
use crate::stack::auth::claim::Claim;
use crate::stack::auth::demand::Challenger;
use crate::stack::auth::nonce::Verdict;
use crate::stack::cookie;
use crate::stack::core::Core;
use crate::stack::turn::Turn;

/// A challenge is answered within this many milliseconds, even if the first answer is lost.
const AT_ONCE_MS: u64 = 5_000;

impl Turn<'_> {
    /// Returns whether a request promptly answers a challenge: it was let in when it was challenged. Later requests with the same
    /// nonce have higher counts, and are new ones. Nothing is concluded for a request that will not be challenged: its credentials
    /// may be anything.
    pub fn has_been_let_in(&self, flow: Flow, message: &Message) -> bool {
        let (auth, routes) = (&self.core.settings.auth, &self.core.settings.routes);
        let (who, asks) = match message.method() {
            Method::Register => (Challenger::Registrar, auth.challenge_register),
            _ => (Challenger::Proxy, auth.challenge_proxy),
        };
        if !asks || routes.have_a_say() || Claim::of(who, message, &self.core.settings).whose.is_none() {
            return false;
        }
        let counts_one = |line: &Credentials| line.nc.is_none_or(|nc| read_hex(nc) == Some(1));
        self.core.answers(self.now, flow, message, AT_ONCE_MS, counts_one)
    }
}

impl Core {
    /// Returns whether a request carries what the question asks for. Nothing is counted and nothing changes.
    pub fn bears(&mut self, now: Instant, flow: Flow, bytes: &[u8], question: Question, index: &mut Index) -> bool {
        // A flood that carries neither is not parsed for it.
        let word: &[u8] = match question {
            Question::IsRegister => b"REGISTER",
            Question::BearsNonce => b"nonce",
            Question::BearsCookie => b";sc=",
        };
        if memchr::memmem::find(bytes, word).is_none() {
            return false;
        }
        Message::parse(bytes, index).is_ok_and(|message| match question {
            Question::IsRegister => message.method() == Method::Register,
            Question::BearsNonce => self.bears_nonce(now, flow, &message),
            Question::BearsCookie => self.bears_cookie(&message),
        })
    }

    fn bears_nonce(&self, now: Instant, flow: Flow, message: &Message) -> bool {
        let lifetime_ms = self.settings.auth.nonce_lifetime;
        self.answers(now, flow, message, lifetime_ms, |_| true)
    }

    /// Returns whether its credentials answer a recent challenge that was sent to this very address. Whether they are right is not
    /// checked: that costs more, and proves no more about the source.
    fn answers(&self, now: Instant, flow: Flow, message: &Message, lifetime_ms: u64, fits: impl Fn(&Credentials) -> bool) -> bool {
        let lines = [Name::Authorization, Name::ProxyAuthorization];
        let lines = lines.into_iter().flat_map(|name| message.all(name));
        lines.filter_map(|line| Credentials::parse(line.value).ok().flatten()).filter(fits).any(|line| {
            let read = self.nonces.read(now.as_ms(), lifetime_ms, line.realm, line.nonce, flow.peer.ip());
            matches!(read, Verdict::Good(nonce) if self.nonces.is_from(nonce, flow.peer.ip()))
        })
    }

    fn bears_cookie(&mut self, message: &Message) -> bool {
        let route = message.values(Name::Route).next();
        let route = route.and_then(|value| NameAddr::parse(value.text).ok());
        let uri = route.and_then(|route| Uri::parse(route.uri).ok());
        uri.is_some_and(|uri| matches!(self.read_cookie(message, &uri), cookie::Verdict::Ours(_)))
    }
}
