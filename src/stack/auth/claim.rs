//! Who must answer a challenge, and in which realm.

use crate::sip::{Host, Message, Uri, same_name, without_dot};
use crate::stack::auth::demand::Challenger;
use crate::stack::auth::users::User;
use crate::stack::core::Core;
use crate::stack::settings;
use crate::stack::whose::Whose;
use std::io::Write as _;

/// Who must answer a challenge.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub who: Challenger,
    /// See [`Challenger::address`].
    pub address: Option<Uri<'a>>,
    /// The user of ours that it names; `None`: any user may answer.
    pub whose: Option<Whose<'a>>,
}

impl<'a> Claim<'a> {
    pub fn of(who: Challenger, message: &Message<'a>, settings: &settings::Settings) -> Claim<'a> {
        let address = who.address(message);
        Claim { who, address, whose: address.and_then(|uri| settings.whose(&uri)) }
    }

    /// Returns whether the caller withholds its name as in RFC 3323 §4.1.1.3.
    pub fn is_anonymous(&self) -> bool {
        self.who == Challenger::Proxy && self.address.is_some_and(|uri| same_name(uri.host_text, b"anonymous.invalid"))
    }
}

/// Returns the realm of a challenge: the conf's, or the domain of the address-of-record as used for the users' hashes, however the
/// phone writes it. An anonymous caller most likely belongs to the domain that it calls in; otherwise the first domain is used.
/// `room` holds the realm, which is empty if there is none.
pub(super) fn realm<'a>(settings: &'a settings::Settings, message: &Message, claim: &Claim, room: &'a mut Room) -> &'a [u8] {
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
    host.map_or(&b""[..], |host| written(host, room))
}

impl Core {
    /// Returns whether this names one of our users that has a password.
    pub fn has_password(&self, uri: &Uri) -> bool {
        let Some(whose) = self.settings.whose(uri) else {
            return false;
        };
        let mut room = [0; 256];
        let realm = match self.settings.auth.realm.as_bytes() {
            b"" => written(whose.domain(), &mut room),
            realm => realm,
        };
        self.user(whose, realm).is_some()
    }

    /// Returns the user of ours that a request names, if it is known in this realm: by its bare name, or by name and domain.
    pub(super) fn user(&self, whose: Whose, realm: &[u8]) -> Option<User<'_>> {
        // As long as the longest name, an "@", and the longest domain.
        let mut room = [0; 512];
        let mut len = 0;
        for byte in whose.name() {
            *room.get_mut(len).filter(|_| len < NAME_LONGEST)? = byte;
            len += 1;
        }
        self.users.find(&room[..len], realm).or_else(|| {
            let mut domain_room = [0; 256];
            let domain = written(whose.domain(), &mut domain_room);
            let end = len + 1 + domain.len();
            room[len] = b'@';
            room.get_mut(len + 1..end)?.copy_from_slice(domain);
            self.users.find(&room[..end], realm)
        })
    }
}

/// Returns a host as users' hashes were made with it: a name in lower case and without its dot. Empty if it is longer than any.
fn written<'a>(host: Host, room: &'a mut Room) -> &'a [u8] {
    let len = match host {
        Host::Name(name) => {
            let name = without_dot(name);
            match room.get_mut(..name.len()) {
                // No domain is longer.
                None => 0,
                Some(room) => {
                    room.copy_from_slice(name);
                    room.make_ascii_lowercase();
                    name.len()
                }
            }
        }
        address => {
            let mut rest = &mut room[..];
            // The buffer is larger than any address.
            let _ = write!(rest, "{address}");
            256 - rest.len()
        }
    };
    &room[..len]
}

/// A buffer for a name as long as any of ours.
pub(super) type Room = [u8; 256];

/// No name of ours is longer, bytes.
const NAME_LONGEST: usize = 255;

/// Maximum bytes of a name in a log line.
pub(super) const NAME_SHOWN: usize = 100;
