//! Who may register and who may call (RFC 3261 §22): the registrar's 401, the proxy's 407, and whether a user acts as itself.
//!
//! A request that is challenged leaves nothing behind: the nonce needs no memory, and the answer no transaction.

pub mod digest;
pub mod nonce;
pub mod users;

use crate::base::{Flow, Instant};
use crate::sip::{Credentials, Header, Message, Method, Name, NameAddr, Scheme, Uri};
use crate::stack::Endpoint;
use crate::stack::counters::AuthOutcome;
use crate::stack::proxy::condition::matches;
use crate::stack::proxy::{Extra, Incoming, Refusal};
use digest::{Algorithm, Hash};
use nonce::{Use, Verdict};

/// The `[auth]` section of the conf.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Empty: the domain of the request.
    pub realm: Vec<u8>,
    /// 401 to a REGISTER for one of our users.
    pub challenge_register: bool,
    /// 407 to a request from one of our users, outside of dialogs.
    pub challenge_proxy: bool,
    /// 407 to a BYE of a dialog, too.
    pub challenge_bye: bool,
    /// Offered in this order.
    pub algorithms: Vec<Algorithm>,
    /// Whether `qop` is offered. Without it a nonce is good for one request.
    pub qop: bool,
    pub nonce_lifetime_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            realm: Vec::new(),
            challenge_register: false,
            challenge_proxy: false,
            challenge_bye: false,
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            qop: true,
            nonce_lifetime_ms: 300_000,
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Challenger {
    /// 401, WWW-Authenticate, Authorization (§22.2).
    Registrar,
    /// 407, Proxy-Authenticate, Proxy-Authorization (§22.3).
    Proxy,
}

impl Challenger {
    fn status(self) -> u16 {
        match self {
            Challenger::Registrar => 401,
            Challenger::Proxy => 407,
        }
    }

    fn answer_in(self) -> Name {
        match self {
            Challenger::Registrar => Name::Authorization,
            Challenger::Proxy => Name::ProxyAuthorization,
        }
    }

    fn challenge_in(self) -> &'static [u8] {
        match self {
            Challenger::Registrar => b"WWW-Authenticate: ",
            Challenger::Proxy => b"Proxy-Authenticate: ",
        }
    }

    /// The address-of-record that the user must own: of the To of a REGISTER, else of the From.
    fn address<'a>(self, message: &Message<'a>) -> Option<Uri<'a>> {
        let address: NameAddr<'a> = match self {
            Challenger::Registrar => message.to().ok()?,
            Challenger::Proxy => message.from().ok()?,
        };
        Uri::parse(address.uri).ok()
    }
}

/// Why a request is challenged.
enum Failure {
    /// It brings no credentials for us.
    None,
    Malformed,
    /// The nonce is none of ours, or is for another realm.
    ForeignNonce,
    Stale,
    /// An algorithm or a qop that was not offered, or the hash that it needs is not known.
    NotOffered,
    UnknownUser,
    WrongResponse,
    Replayed,
}

impl Failure {
    fn outcome(&self) -> AuthOutcome {
        match self {
            Failure::None | Failure::ForeignNonce => AuthOutcome::Challenged,
            Failure::Malformed | Failure::NotOffered => AuthOutcome::Malformed,
            Failure::Stale => AuthOutcome::Stale,
            Failure::UnknownUser => AuthOutcome::UnknownUser,
            Failure::WrongResponse => AuthOutcome::WrongResponse,
            Failure::Replayed => AuthOutcome::Replayed,
        }
    }

    /// For the log; `None` for what happens to every honest client.
    fn words(&self) -> Option<&'static str> {
        match self {
            Failure::None | Failure::ForeignNonce | Failure::Stale => None,
            Failure::Malformed => Some("malformed credentials"),
            Failure::NotOffered => Some("an algorithm or qop that was not offered"),
            Failure::UnknownUser => Some("unknown user"),
            Failure::WrongResponse => Some("wrong password"),
            Failure::Replayed => Some("credentials used before"),
        }
    }
}

/// Credentials that are right.
struct Proved<'a> {
    name: &'a [u8],
    header: Header<'a>,
}

impl Endpoint {
    /// §22.2. A REGISTER passes when its user has proved to own the address-of-record.
    pub(in crate::stack) fn authenticate_registering(
        &mut self,
        now: Instant,
        message: &Message,
        incoming: &Incoming,
        transaction: u128,
    ) -> Result<(), Refusal> {
        if !self.settings.auth.challenge_register {
            return Ok(());
        }
        let who = Challenger::Registrar;
        self.authenticate(now, message, incoming.flow, who, transaction)
            .map(|_| ())
    }

    /// §22.3. A request from one of our users passes when that user has proved to be itself; what our own route let pass, and
    /// what comes from elsewhere, is not asked. `asked` is what a route wants instead of the conf's general word. The
    /// credentials go no further than here.
    pub(in crate::stack) fn authenticate_calling<'a>(
        &mut self,
        now: Instant,
        message: &Message<'a>,
        incoming: &mut Incoming<'a>,
        asked: Option<bool>,
        transaction: u128,
    ) -> Result<(), Refusal> {
        let auth = &self.settings.auth;
        let asks = asked.unwrap_or(auth.challenge_proxy);
        let exempt = incoming.trusted && !(auth.challenge_bye && message.method() == Method::Bye);
        if !asks || exempt || incoming.spiral {
            return Ok(());
        }
        let who = Challenger::Proxy;
        let ours = who
            .address(message)
            .is_some_and(|uri| uri.scheme != Scheme::Tel && self.is_own_uri(&uri));
        if !ours {
            return Ok(());
        }
        let proved = self.authenticate(now, message, incoming.flow, who, transaction)?;
        incoming.credentials = Some(proved.header);
        Ok(())
    }

    /// What the route that this request takes says of challenges.
    pub(in crate::stack) fn challenge_by_route(
        &self,
        message: &Message,
        incoming: &Incoming,
    ) -> Option<bool> {
        let routes = self.settings.routes.iter();
        routes
            .clone()
            .any(|route| route.challenge.is_some())
            .then(|| {
                routes
                    .clone()
                    .find(|route| matches(route, message, incoming))
            })
            .flatten()
            .and_then(|route| route.challenge)
    }

    fn authenticate<'a>(
        &mut self,
        now: Instant,
        message: &Message<'a>,
        flow: Flow,
        who: Challenger,
        transaction: u128,
    ) -> Result<Proved<'a>, Refusal> {
        match self.prove(now, message, who, transaction) {
            Ok(proved) if self.is_itself(message, who, proved.name) => {
                self.counters.auth[AuthOutcome::Accepted as usize] += 1;
                Ok(proved)
            }
            Ok(proved) => {
                self.counters.auth[AuthOutcome::Forbidden as usize] += 1;
                self.tell_user(message, flow, proved.name, "acts for another user");
                Err(Refusal::new(403, "Not Your Address-Of-Record").told())
            }
            Err((failure, name)) => {
                self.counters.auth[failure.outcome() as usize] += 1;
                if let Some(words) = failure.words() {
                    self.tell_user(message, flow, name, words);
                }
                let stale = matches!(failure, Failure::Stale);
                let challenge =
                    Refusal::new(who.status(), "").with(Extra::Challenge { who, stale });
                Err(challenge.told())
            }
        }
    }

    /// Finds the credentials that answer a challenge of ours, and checks them. An error comes with the name that was claimed.
    fn prove<'a>(
        &mut self,
        now: Instant,
        message: &Message<'a>,
        who: Challenger,
        transaction: u128,
    ) -> Result<Proved<'a>, (Failure, &'a [u8])> {
        let settings = self.settings.clone();
        let auth = &settings.auth;
        let mut room = [0; 256];
        let realm = realm(auth, message, who, &mut room);
        let mut found = None;
        // Others on the way may have asked too, each in its own realm.
        for header in message.all(who.answer_in()) {
            match Credentials::parse(header.value) {
                Ok(Some(credentials)) if credentials.realm.eq_ignore_ascii_case(realm) => {
                    found = Some((credentials, header));
                    break;
                }
                Ok(_) => {}
                Err(_) => return Err((Failure::Malformed, b"")),
            }
        }
        let Some((credentials, header)) = found else {
            return Err((Failure::None, b""));
        };
        let name = credentials.username;
        let fail = |failure| Err((failure, name));
        let (algorithm, session) = match credentials.algorithm {
            None => (Algorithm::Md5, false),
            Some(text) => match Algorithm::parse(text) {
                Some(algorithm) => algorithm,
                None => return fail(Failure::NotOffered),
            },
        };
        let wall_ms = settings.wall_ms + now.as_ms();
        let lifetime_ms = auth.nonce_lifetime_ms;
        let (nonce, stale) = match self
            .nonces
            .read(wall_ms, lifetime_ms, realm, credentials.nonce)
        {
            Verdict::Good(nonce) => (Some(nonce), false),
            Verdict::Stale => (None, true),
            Verdict::Foreign => return fail(Failure::ForeignNonce),
        };
        if !auth.algorithms.contains(&algorithm) {
            return fail(Failure::NotOffered);
        }
        let count = match (credentials.qop, credentials.nc) {
            (None, _) => Some(0),
            (Some(_), Some(digits)) => count(digits),
            (Some(_), None) => None,
        };
        let Some(count) = count else {
            return fail(Failure::Malformed);
        };
        let Some(user) = self.users.find(name, realm) else {
            return fail(Failure::UnknownUser);
        };
        let Some(ha1) = user.ha1(algorithm) else {
            return fail(Failure::NotOffered);
        };
        let (method, body) = (message.method_name(), message.body());
        let expected = digest::response(algorithm, session, &ha1, &credentials, method, body);
        let Some(expected) = expected else {
            return fail(Failure::NotOffered);
        };
        let said = Hash::from_hex(credentials.response);
        if !said.is_some_and(|said| said.equals(&expected)) {
            return fail(Failure::WrongResponse);
        }
        // Only who knows the password learns that the nonce alone was the fault (RFC 7616 §3.3).
        let Some(nonce) = nonce.filter(|_| !stale) else {
            return fail(Failure::Stale);
        };
        let request = transaction as u64;
        let repeats_ms = settings.timers.linger_ms;
        let nonces = &self.nonces;
        match nonces.note(wall_ms, lifetime_ms, nonce, count, request, repeats_ms) {
            Use::First | Use::Again => Ok(Proved { name, header }),
            // A client without a count may not know that a nonce serves once: it has expired.
            Use::Replayed if count == 0 => fail(Failure::Stale),
            Use::Replayed => fail(Failure::Replayed),
            Use::Forgotten => fail(Failure::Stale),
        }
    }

    /// Whether the user named by its credentials owns the address-of-record in From or To.
    fn is_itself(&mut self, message: &Message, who: Challenger, name: &[u8]) -> bool {
        let Some(uri) = who.address(message) else {
            return false;
        };
        self.aor.clear();
        uri.write_address_of_record(&mut self.aor);
        let user = match memchr::memrchr(b'@', name) {
            Some(at) => &name[..at],
            None => name,
        };
        let owned = memchr::memrchr(b'@', &self.aor).map(|at| &self.aor[..at]);
        owned == Some(user)
    }

    /// The challenges of a 401 or 407, one line for each algorithm (RFC 8760 §2.3).
    pub(in crate::stack) fn write_challenges(
        &mut self,
        message: &Message,
        who: Challenger,
        stale: bool,
        out: &mut Vec<u8>,
    ) {
        let settings = self.settings.clone();
        let auth = &settings.auth;
        let mut room = [0; 256];
        let realm = realm(auth, message, who, &mut room);
        let wall_ms = settings.wall_ms + self.now.as_ms();
        let users = self.users.clone();
        let usable = |algorithm: &&Algorithm| users.is_empty() || users.all_have(**algorithm);
        let some = auth.algorithms.iter().any(|algorithm| usable(&algorithm));
        for algorithm in auth.algorithms.iter().filter(|a| !some || usable(a)) {
            self.nonce_count = self.nonce_count.wrapping_add(1);
            out.extend_from_slice(who.challenge_in());
            out.extend_from_slice(b"Digest realm=\"");
            out.extend_from_slice(realm);
            out.extend_from_slice(b"\", nonce=\"");
            self.nonces
                .write(wall_ms, self.core, self.nonce_count, realm, out);
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

    fn tell_user(&mut self, message: &Message, flow: Flow, name: &[u8], what: &str) {
        let name = name.get(..NAME_SHOWN).unwrap_or(name);
        let name = String::from_utf8_lossy(name);
        self.tell(message, flow, format_args!("user {name:?}: {what}"));
    }
}

/// The realm of a challenge: the conf's, or the domain of the address-of-record. That in lower case, as users' hashes are made with it,
/// however the phone writes it; `room` holds it.
fn realm<'a>(
    auth: &'a Settings,
    message: &Message,
    who: Challenger,
    room: &'a mut Room,
) -> &'a [u8] {
    if !auth.realm.is_empty() {
        return &auth.realm;
    }
    let domain = who.address(message).map_or(&[][..], |uri| uri.host_text);
    // A longer one is nobody's domain.
    let room = room.get_mut(..domain.len()).unwrap_or_default();
    if !room.is_empty() {
        room.copy_from_slice(domain);
        room.make_ascii_lowercase();
    }
    room
}

type Room = [u8; 256];

/// Bytes of a name that a line of the log shows at most.
const NAME_SHOWN: usize = 100;

/// `nc-value`: eight hexadecimal digits, and not zero.
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
    fn counts_are_eight_digits() {
        assert_eq!(count(b"00000001"), Some(1));
        assert_eq!(count(b"fFfFfFfF"), Some(u32::MAX));
        for bad in [
            &b"00000000"[..],
            b"1",
            b"000000001",
            b"0000000g",
            b"+0000001",
            b"",
        ] {
            assert_eq!(count(bad), None);
        }
    }
}
