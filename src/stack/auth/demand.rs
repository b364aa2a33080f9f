//! Which role demands credentials, and what a request must prove to continue.

use crate::sip::{Message, Name, NameAddr, Uri};

/// The role that demands credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Challenger {
    /// 401, WWW-Authenticate, Authorization (§22.2).
    Registrar,
    /// 407, Proxy-Authenticate, Proxy-Authorization (§22.3).
    Proxy,
}

impl Challenger {
    pub fn status(self) -> u16 {
        match self {
            Challenger::Registrar => 401,
            Challenger::Proxy => 407,
        }
    }

    pub fn answer_in(self) -> Name {
        match self {
            Challenger::Registrar => Name::Authorization,
            Challenger::Proxy => Name::ProxyAuthorization,
        }
    }

    pub fn challenge_in(self) -> &'static [u8] {
        match self {
            Challenger::Registrar => b"WWW-Authenticate: ",
            Challenger::Proxy => b"Proxy-Authenticate: ",
        }
    }

    /// Returns the address-of-record that the user must own: the To of a REGISTER, otherwise the From.
    pub fn address<'a>(self, message: &Message<'a>) -> Option<Uri<'a>> {
        let address: NameAddr<'a> = match self {
            Challenger::Registrar => message.to().ok()?,
            Challenger::Proxy => message.from().ok()?,
        };
        Uri::parse(address.uri).ok()
    }
}

/// What a request must prove to continue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demand {
    Nothing,
    /// A sender that bears the name of one of our users must be that user; others are not challenged.
    Ours,
    /// Only our own users, authenticated.
    Users,
}
