//! What a datagram shows that whoever forges its source address cannot show. Looked for where that address has used up its share of requests.

use super::nonce::Verdict;
use crate::base::{Flow, Instant, Question};
use crate::sip::{Credentials, Message, Method, Name, NameAddr, Uri};
use crate::stack::{Endpoint, cookie};

impl Endpoint {
    /// Whether a request bears what is asked for. Nothing is counted, and nothing changes.
    pub fn bears(&mut self, now: Instant, flow: Flow, bytes: &[u8], question: Question) -> bool {
        let mut index = self.index.take().unwrap_or_default();
        let bears = Message::parse(bytes, &mut index).is_ok_and(|message| match question {
            Question::IsRegister => message.method() == Method::Register,
            Question::BearsNonce => self.bears_nonce(now, flow, &message),
            Question::BearsCookie => self.bears_cookie(&message),
        });
        self.index = Some(index);
        bears
    }

    /// Whether its credentials answer a challenge that was sent to this very address. Not whether they are right: that costs more, and proves no more
    /// of where it comes from.
    fn bears_nonce(&self, now: Instant, flow: Flow, message: &Message) -> bool {
        let lifetime_ms = self.settings.auth.nonce_lifetime_ms;
        let lines = [Name::Authorization, Name::ProxyAuthorization];
        let lines = lines.into_iter().flat_map(|name| message.all(name));
        lines
            .filter_map(|line| Credentials::parse(line.value).ok().flatten())
            .any(|line| {
                let read = self
                    .nonces
                    .read(now.as_ms(), lifetime_ms, line.realm, line.nonce);
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
