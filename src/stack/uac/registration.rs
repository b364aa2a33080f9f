//! A registration with a carrier (RFC 3261 §10.2): what an answer means, and when the next request is due.

use crate::base::Instant;
use crate::settings::Seconds;
use crate::sip::{Message, Name, NameAddr, Uri, unescaped, write_escaped};
use crate::stack::auth::answering::{Answering, Asked, Chosen};
use crate::stack::proxy::locate::{ServerAddress, Tried};
use crate::stack::trunk::Trunk;
use std::sync::Arc;

/// The first wait after a failure, in milliseconds; each consecutive failure doubles it, up to the longest.
const FIRST_WAIT_MS: u64 = 30_000;
const LONGEST_WAIT_MS: u64 = 600_000;

/// The longest time that a carrier's Retry-After can keep us away, in milliseconds.
const LONGEST_RETRY_AFTER_MS: u64 = 3_600_000;

/// The shortest time before a refresh, in milliseconds, however little is granted.
const SOONEST_MS: u64 = 10_000;

/// The longest registration that is believed, and that a registrar may demand: as long as the conf may ask for.
const LONGEST: Seconds = 7 * 86_400;

/// How a registration continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same request is sent again at once, with what the answer demanded.
    Again,
    /// The carrier has granted it; it is refreshed after this many milliseconds.
    Granted(u64),
    /// It has failed, and is retried after this many milliseconds.
    Failed(u64, String),
    /// It has been removed, or its removal was not answered.
    Gone { is_answered: bool },
    /// Nothing was granted, so nothing is removed.
    Unneeded,
}

/// One trunk's registration.
pub struct Registration {
    pub trunk: Arc<Trunk>,
    /// When the granted time ends.
    pub until: Instant,
    /// The server of the registrar's name that has granted it.
    pub granted_by: Option<ServerAddress>,
    /// The header line that answers the carrier's challenge; empty if there is none.
    pub authorization: Vec<u8>,
    /// It is to be removed at the carrier and then forgotten.
    pub is_leaving: bool,
    /// The shortest interval that the carrier accepts.
    least: Seconds,
    /// The challenge answered last, kept for the next request, and whether it was a proxy's.
    kept: Option<(Vec<u8>, bool)>,
    /// Challenges answered since the last response of another kind.
    answered: u8,
    is_raised: bool,
    failures: u32,
    /// What the last server said that has no time, while others of the registrar's name are tried, and its Retry-After.
    busy: Option<(String, Option<u64>)>,
}

impl Registration {
    pub fn new(trunk: Arc<Trunk>) -> Registration {
        Registration {
            trunk,
            until: Instant::default(),
            granted_by: None,
            authorization: Vec::new(),
            is_leaving: false,
            least: 0,
            kept: None,
            answered: 0,
            is_raised: false,
            failures: 0,
            busy: None,
        }
    }

    /// Returns the address-of-record at the carrier.
    pub fn address(&self) -> Vec<u8> {
        let mut address = b"sip:".to_vec();
        write_escaped(self.trunk.user.iter().copied(), &mut address);
        address.push(b'@');
        address.extend_from_slice(self.trunk.registrar.uri.uri().host_text);
        address
    }

    /// Returns the requested duration, in seconds.
    pub fn wanted(&self) -> Seconds {
        match self.is_leaving {
            true => 0,
            false => self.asked(),
        }
    }

    /// What is asked for as long as it is not to be removed, in seconds.
    fn asked(&self) -> Seconds {
        self.trunk.expires.max(self.least)
    }

    /// Prepares a request: a challenge that was answered before is answered again, with its next count.
    pub fn prepare(&mut self, answering: &mut Answering, uri: &[u8]) {
        if self.answered > 0 {
            return;
        }
        self.authorization.clear();
        if let Some((value, is_proxys)) = &self.kept
            && let Some(chosen) = Chosen::read(value, *is_proxys, &self.trunk)
        {
            answering.write(&self.trunk, &chosen, asking(uri), &mut self.authorization);
        }
    }

    /// Processes a final response to a REGISTER. `chance` is a random number.
    pub fn answered(&mut self, now: Instant, message: &Message, reply: Reply, answering: &mut Answering, chance: u64) -> Next {
        match message.status() {
            200..300 if self.is_leaving => return Next::Gone { is_answered: true },
            200..300 => match self.granted(message, reply.own) {
                Ok(seconds) => {
                    self.begin_anew();
                    (self.failures, self.busy) = (0, None);
                    self.note_grant(now, seconds, reply.server);
                    // Between half and three quarters, so that not all trunks of all servers refresh at once; and as often as the
                    // conf wants it, however long it stands.
                    let lasting_ms = u64::from(seconds.min(self.asked())) * 1000;
                    return Next::Granted((lasting_ms * (50 + chance % 26) / 100).max(SOONEST_MS));
                }
                Err(why) => return self.fail(format!("{} {why}", shown(message)), retry_after(message), chance),
            },
            401 | 407 => return self.challenged(message, answering, reply.uri, chance),
            423 if !self.is_raised && !self.is_leaving => {
                if let Ok(Some(least)) = message.number(Name::MinExpires)
                    && (self.wanted() + 1..=LONGEST).contains(&least)
                {
                    (self.least, self.is_raised) = (least, true);
                    return Next::Again;
                }
            }
            _ => {}
        }
        self.fail(shown(message), retry_after(message), chance)
    }

    /// Processes the final response to a REGISTER that was on its way when the registration was to be removed. True: there is something
    /// to remove.
    pub fn answered_at_last(&mut self, now: Instant, message: &Message, reply: Reply) -> bool {
        if let (200..300, Ok(seconds)) = (message.status(), self.granted(message, reply.own)) {
            self.note_grant(now, seconds, reply.server);
        }
        self.until > now
    }

    fn note_grant(&mut self, now: Instant, seconds: Seconds, server: Option<ServerAddress>) {
        self.until = now.after_ms(u64::from(seconds) * 1000);
        self.granted_by = server;
    }

    /// Another account for the same address takes this one's place: what was granted still stands there, and is its to give back.
    pub fn inherit(&mut self, other: &Registration) {
        if other.until > self.until {
            (self.until, self.granted_by) = (other.until, other.granted_by);
        }
    }

    /// Returns whether another server of the registrar's name may be tried, after those in `tried`.
    pub fn may_go_elsewhere(&self, tried: &[Tried]) -> bool {
        !tried.is_empty() && !self.is_leaving
    }

    /// Another server is about to be asked, which knows nothing of the challenges so far.
    pub fn begin_anew(&mut self) {
        (self.answered, self.is_raised) = (0, false);
    }

    /// A server has no time, and another is about to be asked.
    pub fn note_busy(&mut self, message: &Message) {
        self.busy = Some((shown(message), retry_after(message)));
        self.begin_anew();
    }

    /// No server of the registrar's name is left to be asked.
    pub fn fail_everywhere(&mut self, chance: u64) -> Next {
        let silent = || ("no server of the registrar's name has answered".to_owned(), None);
        let (why, asked_ms) = self.busy.take().unwrap_or_else(silent);
        self.fail(why, asked_ms, chance)
    }

    /// Notes that no answer has arrived, or none that settles it.
    pub fn fail(&mut self, why: String, asked_ms: Option<u64>, chance: u64) -> Next {
        if self.is_leaving {
            return Next::Gone { is_answered: false };
        }
        self.begin_anew();
        self.busy = None;
        let plain = FIRST_WAIT_MS << self.failures.min(8);
        self.failures += 1;
        let wait = match asked_ms {
            Some(asked) => asked.clamp(FIRST_WAIT_MS, LONGEST_RETRY_AFTER_MS),
            None => plain.min(LONGEST_WAIT_MS) / 1000 * (900 + chance % 101),
        };
        Next::Failed(wait, why)
    }

    fn challenged(&mut self, message: &Message, answering: &mut Answering, uri: &[u8], chance: u64) -> Next {
        let Some(chosen) = Chosen::of(message, &self.trunk) else {
            self.kept = None;
            let why = "the registrar asks for no Digest that is known here, or in another realm".to_owned();
            return self.fail(why, None, chance);
        };
        if self.answered > 0 && !(self.answered == 1 && chosen.challenge.stale) {
            self.kept = None;
            return self.fail("the password is refused".to_owned(), retry_after(message), chance);
        }
        self.answered += 1;
        self.kept = Some((chosen.value.to_vec(), chosen.is_proxys));
        self.authorization.clear();
        answering.write(&self.trunk, &chosen, asking(uri), &mut self.authorization);
        Next::Again
    }

    /// Returns the duration granted to our Contact, in seconds: from its parameter, from Expires, or as requested. A registrar lists all Contacts of the address (RFC 3261 §10.3), and those of others do not count; one that lists none
    /// is taken at its word. A gateway between may have changed our host, but not our user.
    fn granted(&self, message: &Message, own: &[u8]) -> Result<Seconds, &'static str> {
        let has_our_user = |uri: &Uri| uri.user.is_some_and(|user| unescaped(user).eq(self.trunk.user.iter().copied()));
        let has_our_host = |uri: &Uri| {
            let rest = own.strip_prefix(uri.host_text).and_then(|rest| rest.strip_prefix(b":"));
            let number = rest.and_then(|rest| std::str::from_utf8(rest).ok()?.parse().ok());
            own == uri.host_text || number == Some(uri.port.unwrap_or(5060))
        };
        let (mut ours, mut is_exact, mut is_empty) = (None, false, true);
        for contact in message.values(Name::Contact).filter_map(|value| NameAddr::parse(value.text).ok()) {
            is_empty = false;
            if let Ok(uri) = Uri::parse(contact.uri)
                && has_our_user(&uri)
                && (ours.is_none() || !is_exact && has_our_host(&uri))
            {
                (ours, is_exact) = (Some(contact.expires().ok().flatten()), has_our_host(&uri));
            }
        }
        let said = match (ours, is_empty) {
            (None, false) => return Err("without our Contact"),
            (ours, _) => ours.flatten(),
        };
        let general = || message.number(Name::Expires).ok().flatten();
        match said.or_else(general).unwrap_or(self.asked()).min(LONGEST) {
            0 => Err("for no time at all"),
            seconds => Ok(seconds),
        }
    }
}

/// What is known of the request that a response answers.
#[derive(Clone, Copy)]
pub struct Reply<'r> {
    /// Its Request-URI.
    pub uri: &'r [u8],
    /// Host and port of its Contact.
    pub own: &'r [u8],
    /// The server that it went to, if that was found by a name.
    pub server: Option<ServerAddress>,
}

fn asking(uri: &[u8]) -> Asked<'_> {
    Asked { method: b"REGISTER", uri, body: b"" }
}

/// Returns the status and the reason phrase, to be shown.
fn shown(message: &Message) -> String {
    let reason = String::from_utf8_lossy(message.reason_phrase());
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(60).collect();
    format!("{} {reason}", message.status())
}

/// Returns Retry-After, in milliseconds.
fn retry_after(message: &Message) -> Option<u64> {
    let seconds = message.number(Name::RetryAfter).ok().flatten()?;
    Some(u64::from(seconds) * 1000)
}
