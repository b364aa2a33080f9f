//! Whether credentials were made for the request that carries them: their `uri` against the Request-URI (RFC 7616 §3.4.6). A digest
//! covers its `uri`, but nothing else of where the request goes.

use crate::settings::UriCheck;
use crate::sip::{Method, Scheme, Uri, is_separator, unescaped};
use crate::stack::Settings;
use crate::stack::request::Request;
use crate::stack::whose::is_same_host;

impl Settings {
    pub(super) fn is_made_for(&self, said: &[u8], request: &Request) -> bool {
        let check = self.auth.check_uri;
        // After a strict router, the URI that the client requested is the last Route.
        let is_text = said == request.message.request_uri() || said == request.uri;
        if is_text || check == UriCheck::Off {
            return true;
        }
        let Ok(said) = Uri::parse(said) else {
            return false;
        };
        let received = request.message.uri().ok();
        let mut asked = received.iter().chain([&request.parsed]);
        if check == UriCheck::Strict {
            return asked.any(|asked| asked.equals(&said));
        }
        let names_server = said.user.is_none() && said.scheme != Scheme::Other && self.is_our_domain(said.host);
        names_server
            || asked.any(|asked| self.is_same_address(asked, &said))
            || (request.message.method() == Method::Register
                && request.parsed.user.is_none()
                && request.message.to().and_then(|to| Uri::parse(to.uri)).is_ok_and(|to| self.is_same_address(&to, &said)))
    }

    /// Returns whether two URIs name the same user at the same host, or at a domain of ours and an address of ours.
    pub(in crate::stack) fn is_same_address(&self, a: &Uri, b: &Uri) -> bool {
        if a.scheme == Scheme::Other || b.scheme == Scheme::Other {
            return false;
        }
        let is_tel = a.scheme == Scheme::Tel || b.scheme == Scheme::Tel;
        let characters = |user| unescaped(user).filter(move |byte| !(is_tel && is_separator(*byte)));
        let same_user = match (a.user, b.user) {
            (Some(a), Some(b)) => characters(a).eq(characters(b)),
            (None, None) => true,
            _ => false,
        };
        let ours = |uri: &Uri| self.is_our_domain(uri.host);
        let by_address = |uri: &Uri| self.is_our_listener(uri.host);
        same_user && (is_tel || is_same_host(a.host, b.host) || (ours(a) && ours(b) && (by_address(a) || by_address(b))))
    }
}
