//! What must never be sent to a next hop, whatever the message and however often it passes here: credentials for our realm (RFC
//! 3261 §22.3), and identities that nobody trusted has asserted (RFC 3325 §5 to §7).

use crate::base::Flow;
use crate::sip::{Credentials, Header, Host, Message, Method, Name};
use crate::stack::Settings;
use crate::stack::proxy::Proxy;
use crate::stack::turn::Turn;
use std::net::IpAddr;

/// Header fields that most messages do not have.
const SECRETS: [Name; 4] = [Name::ProxyAuthorization, Name::Authorization, Name::PAssertedIdentity, Name::PPreferredIdentity];

#[inline]
pub(super) fn has_secrets(message: &Message) -> bool {
    SECRETS.iter().any(|name| message.has(*name))
}

impl Proxy {
    /// Removes what the receiver may not get, through the rewriter. Separate from [`has_secrets`], the only check that other
    /// messages need.
    #[cold]
    pub fn withhold(&mut self, turn: &mut Turn, message: &Message, source: &Flow, receiver: &Flow) {
        self.withhold_credentials(turn, message);
        self.withhold_identity(turn, message, source.peer.ip(), receiver.peer.ip());
    }

    /// Removes the credentials meant for us. Those that others have asked for stay, each for its own realm.
    fn withhold_credentials(&mut self, turn: &mut Turn, message: &Message) {
        for name in [Name::ProxyAuthorization, Name::Authorization] {
            for header in message.all(name) {
                if turn.core.settings.is_for_us(message.method(), &header) {
                    self.rewrite.remove(header.line.range());
                }
            }
        }
    }

    /// Removes what the sender may not assert, or what its user wants hidden from this receiver.
    fn withhold_identity(&mut self, turn: &mut Turn, message: &Message, source: IpAddr, receiver: IpAddr) {
        if !message.has(Name::PAssertedIdentity) && !message.has(Name::PPreferredIdentity) {
            return;
        }
        let knows_source = turn.core.settings.is_trusted(source);
        let knows_receiver = turn.core.settings.is_trusted(receiver);
        // What a trusted peer has asserted goes to anybody, unless its user wants it to stay within the trust domain.
        if !knows_source || !knows_receiver && asks_privacy(message) {
            self.remove_all(turn, message, Name::PAssertedIdentity);
        }
        // A preference of the user is between the user and the trusted proxies.
        if !knows_source || !knows_receiver {
            self.remove_all(turn, message, Name::PPreferredIdentity);
        }
    }

    /// Tells a trusted next hop who has proved to have sent the request (RFC 3325 §5), unless a trusted peer has said so already.
    #[cold]
    pub fn assert(&mut self, turn: &mut Turn, message: &Message, user: &[u8], source: &Flow, receiver: &Flow) {
        let settings = &turn.core.settings;
        let is_trusted = |flow: &Flow| settings.is_trusted(flow.peer.ip());
        if !is_trusted(receiver) || is_trusted(source) && message.has(Name::PAssertedIdentity) {
            return;
        }
        // The preferred identity is of no use beyond the proxy that it is addressed to.
        if is_trusted(source) {
            self.remove_all(turn, message, Name::PPreferredIdentity);
        }
        self.rewrite.insert(message.headers_end(), |out| {
            out.extend_from_slice(b"P-Asserted-Identity: <");
            out.extend_from_slice(user);
            out.extend_from_slice(b">\r\n");
        });
    }

    fn remove_all(&mut self, _turn: &mut Turn, message: &Message, name: Name) {
        for header in message.all(name) {
            self.rewrite.remove(header.line.range());
        }
    }
}

impl Settings {
    pub(super) fn is_for_us(&self, method: Method, header: &Header) -> bool {
        // If we challenge no REGISTER, somebody else is the registrar, possibly in a realm with our name.
        let ours = header.name != Name::Authorization || method != Method::Register || self.auth.challenge_register;
        ours && Credentials::name_realm(header.value, |realm| self.is_our_realm(realm))
    }

    /// Whether we may have asked for credentials in this realm. If this server challenges nobody, another server has.
    fn is_our_realm(&self, realm: &[u8]) -> bool {
        let (register, calls) = (self.auth.challenge_register, self.auth.challenge_proxy);
        let asks = register || calls || self.routes.challenge_some();
        asks && match self.auth.realm.is_empty() {
            true => self.is_our_domain(Host::of(realm)),
            false => self.auth.realm.as_bytes().eq_ignore_ascii_case(realm),
        }
    }
}

/// Whether the user has asked that its asserted identity stay within the trust domain (RFC 3325 §7).
fn asks_privacy(message: &Message) -> bool {
    let is_id = |word: &[u8]| word.trim_ascii().eq_ignore_ascii_case(b"id");
    message.all(Name::Privacy).any(|header| {
        let mut words = header.value.split(|byte| matches!(byte, b';' | b','));
        words.any(is_id)
    })
}
