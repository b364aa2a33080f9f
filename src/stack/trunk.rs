//! A `[[trunk]]`: an account with a carrier. This server registers for it, and answers the carrier's challenges with its password.

use crate::base::Key;
use crate::settings::Seconds;
use crate::stack::hop_of_conf::NextHop;
use std::fmt;

/// One `[[trunk]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Trunk {
    pub name: String,
    /// The server that it registers with.
    pub registrar: NextHop,
    /// As in the carrier's address-of-record and our Contact, without escapes.
    pub user: Vec<u8>,
    /// The user name for answering challenges.
    pub auth_user: Vec<u8>,
    /// Only challenges in this realm are answered; `None`: in any.
    pub realm: Option<Vec<u8>>,
    pub password: Password,
    /// False: it is only for calls.
    pub register: bool,
    /// The requested duration of the registration.
    pub expires: Seconds,
}

impl Trunk {
    /// Returns a number for its name, the same on every server and after a restart: it stands in what our Record-Route remembers.
    pub fn mark(&self) -> u32 {
        Key::new(0, 0).hash(&[self.name.as_bytes()]) as u32
    }

    /// Returns what makes it this account: name, registrar, login, realm and password.
    pub fn account(&self) -> [&[u8]; 5] {
        let realm = self.realm.as_deref().unwrap_or_default();
        [self.name.as_bytes(), self.registrar.uri.text(), &self.auth_user, realm, self.password.reveal()]
    }
}

/// A cleartext password, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl From<Vec<u8>> for Password {
    fn from(text: Vec<u8>) -> Password {
        Password(text)
    }
}

impl Password {
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
