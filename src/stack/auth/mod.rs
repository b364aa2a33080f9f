//! Who may register and who may call (RFC 3261 §22): the registrar's 401, the proxy's 407, and whether a user acts as itself.
//!
//! A request that is challenged leaves nothing behind: the nonce needs no memory, and the answer no transaction.

pub mod certificate;
pub mod demand;
pub mod digest;
mod guess;
pub mod nonce;
mod target;
pub mod users;
mod vouch;

use crate::base::Flow;
use crate::base::guesses::Bound;
use crate::sip::{Credentials, Host, Message, Method, Uri, same_name, without_dot};
use crate::stack::auth::demand::{Challenger, Demand};
use crate::stack::condition::matches;
use crate::stack::core::Core;
use crate::stack::counters::AuthOutcome;
use crate::stack::passage::Proof;
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::request::{Request, span_of};
use crate::stack::settings;
use crate::stack::turn::SourceProof;
use crate::stack::turn::Turn;
use crate::stack::whose::Whose;
use digest::{Algorithm, Hash};
use nonce::{Nonce, Use, Verdict};
use std::io::Write as _;
use std::net::IpAddr;

/// Who must answer a challenge.
#[derive(Clone, Copy)]
struct Claim<'a> {
    who: Challenger,
    /// See [`Challenger::address`].
    address: Option<Uri<'a>>,
    /// The one of our users that it names; `None`: any may answer.
    whose: Option<Whose<'a>>,
}

impl<'a> Claim<'a> {
    fn of(who: Challenger, message: &Message<'a>, settings: &settings::Settings) -> Claim<'a> {
        let address = who.address(message);
        Claim {
            who,
            address,
            whose: address.and_then(|uri| settings.whose(&uri)),
        }
    }

    /// Whether the caller withholds its name as RFC 3323 §4.1.1.3 has it.
    fn is_anonymous(&self) -> bool {
        self.who == Challenger::Proxy && self.address.is_some_and(|uri| same_name(uri.host_text, b"anonymous.invalid"))
    }
}

/// Why a request is challenged or refused.
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
    /// The user has no hash for the algorithm.
    NoHash,
    WrongResponse,
    /// It was not looked at: too many had been wrong.
    TooMany(Bound),
    /// The user's requests are too many.
    Limited(Refusal),
    Replayed,
    /// The right password, for another Request-URI.
    OtherUri,
    /// The right password of another user.
    OtherUser,
}

impl Failure {
    fn outcome(&self) -> AuthOutcome {
        match self {
            Failure::None | Failure::ForeignNonce => AuthOutcome::Challenged,
            Failure::Malformed | Failure::NotOffered | Failure::NoHash => AuthOutcome::Malformed,
            Failure::Stale => AuthOutcome::Stale,
            Failure::UnknownUser => AuthOutcome::UnknownUser,
            Failure::TooMany(_) => AuthOutcome::TooMany,
            Failure::Limited(_) => AuthOutcome::Accepted,
            Failure::WrongResponse => AuthOutcome::WrongResponse,
            Failure::Replayed => AuthOutcome::Replayed,
            Failure::OtherUri => AuthOutcome::OtherUri,
            Failure::OtherUser => AuthOutcome::Forbidden,
        }
    }

    /// For the log; `None` for what happens to every honest client.
    fn words(&self) -> Option<&'static str> {
        match self {
            Failure::None | Failure::ForeignNonce | Failure::Stale => None,
            Failure::TooMany(_) => Some("too many wrong passwords ([auth] guesses)"),
            Failure::Limited(_) => Some("too many requests ([limits] requests_per_user)"),
            Failure::Malformed => Some("malformed credentials"),
            Failure::NotOffered => Some("an algorithm or qop that was not offered"),
            Failure::NoHash => Some("an algorithm that no hash is known of"),
            Failure::UnknownUser => Some("unknown user"),
            Failure::WrongResponse => Some("wrong password"),
            Failure::Replayed => Some("credentials used before"),
            Failure::OtherUri => Some("credentials for another Request-URI"),
            Failure::OtherUser => Some("acts for another user"),
        }
    }

    fn refusal(&self, who: Challenger) -> Refusal {
        match self {
            Failure::OtherUri => Refusal::new(400, "Credentials For Another URI"),
            Failure::OtherUser => Refusal::new(403, "Not Your Address-Of-Record"),
            Failure::Limited(refusal) => *refusal,
            Failure::TooMany(bound) => guess::refusal(*bound, || {
                // Nothing was looked at: with a nonce of its own the same answer may be right.
                let stale = true;
                Refusal::new(who.status(), "").with(Extra::Challenge { who, stale })
            }),
            _ => {
                // Who gets here with a count that has come before knows the password: with another nonce it is let in, unasked by its user
                // (RFC 7616 §3.3).
                let stale = matches!(self, Failure::Stale | Failure::Replayed);
                Refusal::new(who.status(), "").with(Extra::Challenge { who, stale })
            }
        }
    }
}

impl Turn<'_> {
    /// §22.2. A REGISTER passes when its user has proved to own the address-of-record. One for an address that is not ours is not asked: the
    /// registrar has nothing for it.
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

    /// §22.3. A request in the name of one of our users passes when that user has proved to be itself. What our own route let pass is not
    /// asked, and what comes from elsewhere is only where the way is for our users alone: it is refused there, but for the caller who
    /// withholds its name (RFC 3323 §4.1.1.3) and proves to be any of them.
    pub fn authenticate_calling(&mut self, request: &mut Request) -> Result<(), Refusal> {
        let has_proved = self.has_proved(request);
        let ends = request.message.method() == Method::Bye;
        // Whoever may send within the dialog, and bears the name by which it was called, may end it.
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
            // It was asked when it came here first, and has said then whom it wants to call. Whom it has reached may forward it to others,
            // and to nobody whom the caller would have to pay for.
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

    /// Whether the request has been asked on a pass before this one, and has proved what it was asked ([`crate::stack::passage`]). Its
    /// credentials went no further than there. Of one that has passed without a transaction that is not known.
    fn has_proved(&self, request: &Request) -> bool {
        request.passed.is_some_and(|passed| passed.proof == Proof::Credentials)
    }

    /// What the route that this request takes demands, or else the conf in general.
    pub fn demand(&self, request: &Request) -> Demand {
        let settings = &self.core.settings;
        let general = settings.auth.challenge_proxy;
        let mut route = None;
        if settings.routes.have_a_say() {
            route = settings.routes.iter().find(|route| matches(route, request));
        }
        let (asks, users_only) = match route {
            Some(route) => (
                route.challenge.unwrap_or(general),
                route.users_only && !self.core.is_past_routes(request),
            ),
            None => (general, false),
        };
        match (users_only, asks) {
            (true, _) => Demand::Users,
            (false, true) => Demand::Ours,
            (false, false) => Demand::Nothing,
        }
    }

    /// Whether the From is an anonymous one, and it is known which users may stand behind it.
    fn may_withhold_its_name(&self, message: &Message, claim: &Claim) -> bool {
        let mut room = [0; 256];
        claim.is_anonymous() && !realm(&self.core.settings, message, claim, &mut room).is_empty()
    }

    /// Asks for credentials, and whether they are those of the user that is claimed to be here.
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
                Ok(())
            }
            Err((failure, name)) => {
                self.core.counters.auth[failure.outcome() as usize] += 1;
                if let Some(words) = failure.words() {
                    self.log_user(&request.message, request.flow, name, words);
                }
                Err(failure.refusal(claim.who).logged())
            }
        }
    }

    /// Finds the credentials that answer a challenge of ours, and checks them. An error comes with the name that was claimed.
    fn prove<'a>(&mut self, request: &Request<'a>, claim: &Claim<'a>) -> Result<Nonce, (Failure, &'a [u8])> {
        let settings = self.core.settings.clone();
        let auth = &settings.auth;
        let mut room = [0; 256];
        let realm = realm(&settings, &request.message, claim, &mut room);
        let (now_ms, lifetime_ms) = (self.now.as_ms(), auth.nonce_lifetime);
        let (mut found, mut failure) = (None, Failure::None);
        // Others on the way may have asked too, each in its own realm. A line that can't be read may be theirs. Of several for ours the
        // first one counts that answers a challenge which still holds.
        for header in request.message.all(claim.who.answer_in()) {
            match Credentials::parse(header.value) {
                Ok(Some(credentials)) if credentials.realm.eq_ignore_ascii_case(realm) => {
                    let read = self.core.nonces.read(now_ms, lifetime_ms, realm, credentials.nonce);
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
        let Some((credentials, read)) = found else {
            return Err((failure, b""));
        };
        let fail = |failure| Err((failure, credentials.username));
        let (algorithm, session) = match credentials.algorithm {
            None => (Algorithm::Md5, false),
            Some(text) => match Algorithm::parse(text) {
                Some(algorithm) => algorithm,
                None => return fail(Failure::NotOffered),
            },
        };
        let (nonce, stale) = match read {
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
        let mut name_room = [0; 256];
        let login = unquoted(credentials.username, &mut name_room);
        let guess = self.guess(login, realm, request.flow, &read);
        if let Err(failure) = self.check_guess(guess.as_ref()) {
            return fail(failure);
        }
        let checked = self.check_password(&request.message, &credentials, (algorithm, session), login);
        let name = match checked {
            Ok(name) => name,
            Err(failure) => {
                if let Some(guess) = &guess {
                    self.count_guess(guess, request.flow, login, realm);
                }
                return fail(failure);
            }
        };
        let mut uri_room = [0; 256];
        let uri = unquoted(credentials.uri, &mut uri_room);
        if !settings.is_made_for(uri, request) {
            return fail(Failure::OtherUri);
        }
        // Only who knows the password learns that the nonce alone was the fault (RFC 7616 §3.3).
        let Some(nonce) = nonce.filter(|_| !stale) else {
            return fail(Failure::Stale);
        };
        let text = span_of(&request.message);
        let print = self.core.nonces.request(text, request.flow.peer.ip());
        let repeats_ms = settings.timers.linger;
        let nonces = &self.core.nonces;
        match nonces.note(now_ms, lifetime_ms, nonce, count, print, repeats_ms) {
            Use::First | Use::Again => {}
            // A client without a count may not know that a nonce serves once: it has expired.
            Use::Replayed if count == 0 => return fail(Failure::Stale),
            Use::Replayed => return fail(Failure::Replayed),
            Use::Forgotten => return fail(Failure::Stale),
        }
        if let Err(refusal) = self.note_user(guess.as_ref(), request.flow, login, realm) {
            return fail(Failure::Limited(refusal));
        }
        let is_itself = |whose: Whose| whose.is_login(name) || self.is_called_within(request, name, whose.domain());
        match claim.whose.is_none_or(is_itself) {
            true => Ok(nonce),
            false => fail(Failure::OtherUser),
        }
    }

    /// Whether the password is right. Returned is the name of the user whose it is.
    fn check_password<'l>(
        &self,
        message: &Message,
        credentials: &Credentials,
        (algorithm, session): (Algorithm, bool),
        login: &'l [u8],
    ) -> Result<&'l [u8], Failure> {
        let user = self.core.users.find(login, credentials.realm);
        let user = user.ok_or(Failure::UnknownUser)?;
        let ha1 = user.ha1(algorithm).ok_or(Failure::NoHash)?;
        let (method, body) = (message.method_name(), message.body());
        let expected = digest::response(algorithm, session, &ha1, credentials, method, body);
        let expected = expected.ok_or(Failure::NoHash)?;
        let said = Hash::from_hex(credentials.response);
        match said.is_some_and(|said| said.equals(&expected)) {
            true => Ok(user.name(login)),
            false => Err(Failure::WrongResponse),
        }
    }

    /// Whether a user has been called into the dialog to which the request belongs, by a caller who has written another name in To: then it
    /// answers by that name.
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
        // In a realm of the conf's own a user has its name at each of our domains, and at our addresses.
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
            self.core.cookies.is_called(&shown, &uri, from.uri, &mut self.core.facts)
        })
    }

    /// Whether the request bears the name of one of our users who has a password: nobody else could answer a challenge.
    fn claims_a_user(&self, message: &Message) -> bool {
        let from = message.from().and_then(|from| Uri::parse(from.uri));
        from.is_ok_and(|from| self.core.has_password(&from))
    }

    /// The challenges of a 401 or 407, one line for each algorithm (RFC 8760 §2.3).
    pub fn write_challenges(&mut self, message: &Message, who: Challenger, stale: bool, to: IpAddr, out: &mut Vec<u8>) {
        let settings = self.core.settings.clone();
        let auth = &settings.auth;
        let mut room = [0; 256];
        let claim = Claim::of(who, message, &settings);
        let realm = realm(&settings, message, &claim, &mut room);
        let users = self.core.users.clone();
        let usable = |algorithm: &&Algorithm| users.all_have(realm, **algorithm, &auth.algorithms);
        let some = auth.algorithms.iter().any(|algorithm| usable(&algorithm));
        for algorithm in auth.algorithms.iter().filter(|a| !some || usable(a)) {
            self.core.nonce_count = self.core.nonce_count.wrapping_add(1);
            out.extend_from_slice(who.challenge_in());
            out.extend_from_slice(b"Digest realm=\"");
            out.extend_from_slice(realm);
            out.extend_from_slice(b"\", nonce=\"");
            self.core
                .nonces
                .write(self.now.as_ms(), self.core.number, self.core.nonce_count, realm, to, out);
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
        self.core.log_event(message, flow, format_args!("user {name:?}: {what}"));
    }
}

impl Core {
    /// Whether this names one of our users who has a password.
    pub fn has_password(&self, uri: &Uri) -> bool {
        let Some(whose) = self.settings.whose(uri) else {
            return false;
        };
        let mut domain = Vec::new();
        whose.domain().write_canonical(&mut domain);
        let realm = match self.settings.auth.realm.is_empty() {
            true => &domain[..],
            false => self.settings.auth.realm.as_bytes(),
        };
        let mut name: Vec<u8> = whose.name().collect();
        if self.users.find(&name, realm).is_some() {
            return true;
        }
        name.push(b'@');
        name.extend_from_slice(&domain);
        self.users.find(&name, realm).is_some()
    }
}

/// The realm of a challenge: the conf's, or the domain of the address-of-record as users' hashes are made with it, however the phone writes
/// it. Who withholds its name is most likely of the domain that it calls in, else of the first that there is. `room` holds it; empty where
/// there is none.
fn realm<'a>(settings: &'a settings::Settings, message: &Message, claim: &Claim, room: &'a mut Room) -> &'a [u8] {
    if !settings.auth.realm.is_empty() {
        return settings.auth.realm.as_bytes();
    }
    let host = match claim.is_anonymous() {
        false => claim.whose.map(|whose| whose.domain()),
        true => {
            let called = message.uri().ok().map(|uri| uri.host);
            match called.filter(|host| settings.is_our_domain(*host)) {
                None => settings.domains.first().map(|domain| Host::of(domain)),
                called => called,
            }
        }
    };
    let len = match host {
        None => 0,
        Some(Host::Name(name)) => {
            let name = without_dot(name);
            match room.get_mut(..name.len()) {
                // A longer one is nobody's domain.
                None => 0,
                Some(room) => {
                    room.copy_from_slice(name);
                    room.make_ascii_lowercase();
                    name.len()
                }
            }
        }
        Some(address) => {
            let mut rest = &mut room[..];
            // The room is larger than any address.
            let _ = write!(rest, "{address}");
            256 - rest.len()
        }
    };
    &room[..len]
}

type Room = [u8; 256];

/// What stands in a quoted string: a backslash makes the byte behind it stand for itself (RFC 3261 §25.1). `room` holds it where there is one;
/// what does not fit there is the name of nobody.
fn unquoted<'a>(text: &'a [u8], room: &'a mut Room) -> &'a [u8] {
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
