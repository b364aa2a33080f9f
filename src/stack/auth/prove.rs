//! Whether credentials are right (RFC 3261 §22.4, RFC 7616, RFC 8760), and whose they are.

use crate::sip::{Credentials, Host, Message};
use crate::stack::auth::claim::{Claim, Room, realm};
use crate::stack::auth::digest::{self, Algorithm, Hash};
use crate::stack::auth::failure::Failure;
use crate::stack::auth::nonce::{Nonce, Use, Verdict};
use crate::stack::recognise::cookies_of;
use crate::stack::request::{Request, span_of};
use crate::stack::turn::Turn;
use crate::stack::whose::Whose;
use std::net::IpAddr;

impl Turn<'_> {
    /// Finds the credentials that answer a challenge of ours, and checks them. An error carries the name that was claimed.
    pub(super) fn prove<'a>(&mut self, request: &Request<'a>, claim: &Claim<'a>) -> Result<Nonce, (Failure, &'a [u8])> {
        let settings = self.core.settings.clone();
        let mut room = [0; 256];
        let realm = realm(&settings, &request.message, claim, &mut room);
        let (credentials, read) = self.find_credentials(request, claim, realm).map_err(|failure| (failure, &b""[..]))?;
        self.check_credentials(request, claim, realm, &credentials, read).map_err(|failure| (failure, credentials.username))
    }

    /// Returns the credentials that answer a challenge of ours, and their nonce. Other proxies on the path may have challenged too,
    /// each in its own realm. A line that can't be read may be for them. If several are for us, the first that answers a still
    /// valid challenge counts.
    fn find_credentials<'a>(
        &self,
        request: &Request<'a>,
        claim: &Claim,
        realm: &[u8],
    ) -> Result<(Credentials<'a>, Verdict), Failure> {
        let (now_ms, lifetime_ms) = (self.now.as_ms(), self.core.settings.auth.nonce_lifetime);
        let (mut found, mut failure) = (None, Failure::None);
        for header in request.message.all(claim.who.answer_in()) {
            match Credentials::parse(header.value) {
                Ok(Some(credentials)) if credentials.realm.eq_ignore_ascii_case(realm) => {
                    let read = self.core.nonces.read(now_ms, lifetime_ms, realm, credentials.nonce, request.flow.peer.ip());
                    let holds = matches!(read, Verdict::Good(_));
                    if found.is_none() || holds {
                        found = Some((credentials, read));
                    }
                    if holds {
                        break;
                    }
                }
                Ok(_) => {}
                Err(_) => failure = Failure::Malformed,
            }
        }
        found.ok_or(failure)
    }

    fn check_credentials(
        &mut self,
        request: &Request,
        claim: &Claim,
        realm: &[u8],
        credentials: &Credentials,
        read: Verdict,
    ) -> Result<Nonce, Failure> {
        let settings = self.core.settings.clone();
        let (algorithm, session) = match credentials.algorithm {
            None => (Algorithm::Md5, false),
            Some(text) => Algorithm::parse(text).ok_or(Failure::NotOffered)?,
        };
        let (nonce, stale) = match read {
            Verdict::Good(nonce) => (Some(nonce), false),
            Verdict::Stale => (None, true),
            Verdict::Foreign => return Err(Failure::ForeignNonce),
        };
        if !settings.auth.algorithms.contains(&algorithm) {
            return Err(Failure::NotOffered);
        }
        let count = match (credentials.qop, credentials.nc) {
            (None, _) => Some(0),
            (Some(_), Some(digits)) => count(digits),
            (Some(_), None) => None,
        };
        let count = count.ok_or(Failure::Malformed)?;
        let mut name_room = [0; 256];
        let login = unquoted(credentials.username, &mut name_room);
        let guess = self.guess(login, realm, request.flow, &read);
        self.check_guess(guess.as_ref())?;
        let name = match self.check_password(&request.message, credentials, (algorithm, session), login) {
            Ok(name) => name,
            Err(failure) => {
                if let Some(guess) = &guess {
                    self.count_guess(guess, request.flow, login, realm);
                }
                return Err(failure);
            }
        };
        let mut uri_room = [0; 256];
        let uri = unquoted(credentials.uri, &mut uri_room);
        if !settings.is_made_for(uri, request) {
            return Err(Failure::OtherUri);
        }
        // Only a client that knows the password learns that only the nonce was wrong (RFC 7616 §3.3).
        let nonce = nonce.filter(|_| !stale).ok_or(Failure::Stale)?;
        self.note_use(request, nonce, count)?;
        let limited = self.note_user(guess.as_ref(), request.flow, login, realm);
        limited.map_err(Failure::Limited)?;
        let is_itself = |whose: Whose| whose.is_login(name) || self.is_called_within(request, name, whose.domain());
        match claim.whose.is_none_or(is_itself) {
            true => {
                if settings.asserts_identities() {
                    settings.identity_of_login(name, claim.whose, realm, &mut self.core.proved_user);
                }
                Ok(nonce)
            }
            false => Err(Failure::OtherUser),
        }
    }

    /// Accepts each count of a nonce once.
    fn note_use(&self, request: &Request, nonce: Nonce, count: u32) -> Result<(), Failure> {
        let settings = &self.core.settings;
        let nonces = &self.core.nonces;
        let (now_ms, lifetime_ms) = (self.now.as_ms(), settings.auth.nonce_lifetime);
        let print = nonces.request(span_of(&request.message), request.flow.peer.ip());
        match nonces.note(now_ms, lifetime_ms, nonce, count, print, settings.timers.linger) {
            Use::First | Use::Again => Ok(()),
            // A client without a count may not know that a nonce can be used only once: it counts as expired.
            Use::Replayed if count == 0 => Err(Failure::Stale),
            Use::Replayed => Err(Failure::Replayed),
            Use::Forgotten => Err(Failure::Stale),
        }
    }

    /// Checks the password. Returns the name of the user that it belongs to.
    fn check_password<'l>(
        &self,
        message: &Message,
        credentials: &Credentials,
        (algorithm, session): (Algorithm, bool),
        login: &'l [u8],
    ) -> Result<&'l [u8], Failure> {
        let user = self.core.users.find(login, credentials.realm);
        let user = user.ok_or(Failure::UnknownUser)?;
        let ha1 = user.ha1(algorithm).ok_or_else(|| Failure::NoHash(algorithm, user.known_here()))?;
        let (method, body) = (message.method_name(), message.body());
        let expected = digest::response(algorithm, session, &ha1, credentials, method, body);
        let expected = expected.ok_or(Failure::Malformed)?;
        let said = Hash::from_hex(credentials.response);
        match said.is_some_and(|said| said.equals(&expected)) {
            true => Ok(user.name(login)),
            false => Err(Failure::WrongResponse),
        }
    }

    /// Returns whether a user was called into the request's dialog by a caller that wrote another name in To: then it answers by
    /// that name.
    fn is_called_within(&mut self, request: &Request, login: &[u8], domain: Host) -> bool {
        let shown = request.shown.filter(|_| request.trusted);
        let (Some(shown), Ok(from)) = (shown, request.message.from()) else {
            return false;
        };
        let mut uri = b"sip:".to_vec();
        for byte in login {
            match byte {
                b'@' | b'%' => uri.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                byte if byte.is_ascii_graphic() => uri.push(*byte),
                byte => uri.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            }
        }
        uri.push(b'@');
        let settings = self.core.settings.clone();
        // With a realm set in the conf, a user has its name at each of our domains and at our addresses.
        let everywhere = match settings.auth.realm.is_empty() {
            true => &[][..],
            false => &settings.domains[..],
        };
        let domains = everywhere.iter().map(|domain| Host::of(domain));
        let addresses = settings.listeners.iter().map(|listener| match listener.address.ip() {
            IpAddr::V4(ip) => Host::V4(ip),
            IpAddr::V6(ip) => Host::V6(ip),
        });
        let len = uri.len();
        std::iter::once(domain).chain(domains).chain(addresses).any(|host| {
            uri.truncate(len);
            host.write_canonical(&mut uri);
            let core = &mut *self.core;
            cookies_of(&core.cookies, &core.others, &shown).is_called(&shown, &uri, from.uri, &mut core.facts)
        })
    }
}

/// Returns the content of a quoted string: a backslash makes the byte after it stand for itself (RFC 3261 §25.1). `room` holds it
/// if there is a backslash; if it does not fit there, it is nobody's name.
pub(in crate::stack) fn unquoted<'a>(text: &'a [u8], room: &'a mut Room) -> &'a [u8] {
    if memchr::memchr(b'\\', text).is_none() {
        return text;
    }
    let mut len = 0;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'\\' => bytes.next().unwrap_or(byte),
            byte => byte,
        };
        let Some(place) = room.get_mut(len) else {
            return b"";
        };
        *place = *byte;
        len += 1;
    }
    &room[..len]
}

/// Parses `nc-value`: eight hexadecimal digits, not zero.
fn count(digits: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok()?;
    let is_hex = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let count = u32::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_strings_are_read_as_they_are_meant() {
        let read = |text: &[u8]| unquoted(text, &mut [0; 256]).to_vec();
        assert_eq!(read(b"john doe"), b"john doe");
        assert_eq!(read(b"a\\\"b\\\\c\\d\\"), b"a\"b\\cd\\");
        assert_eq!(read(&b"\\x".repeat(256)), b"x".repeat(256));
        assert_eq!(read(&b"\\x".repeat(257)), b"");
        assert_eq!(read(&b"x".repeat(1000)), b"x".repeat(1000));
    }

    #[test]
    fn counts_are_eight_digits() {
        assert_eq!(count(b"00000001"), Some(1));
        assert_eq!(count(b"fFfFfFfF"), Some(u32::MAX));
        for bad in [&b"00000000"[..], b"1", b"000000001", b"0000000g", b"+0000001", b""] {
            assert_eq!(count(bad), None);
        }
    }
}
