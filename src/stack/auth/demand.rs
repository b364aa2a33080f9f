//! Who asks for credentials, and what a request must prove to take its way.

use crate::sip::{Message, Name, NameAddr, Uri};

/// Who asks.
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

    /// The address-of-record that the user must own: of the To of a REGISTER, else of the From.
    pub fn address<'a>(self, message: &Message<'a>) -> Option<Uri<'a>> {
        let address: NameAddr<'a> = match self {
            Challenger::Registrar => message.to().ok()?,
            Challenger::Proxy => message.from().ok()?,
        };
        Uri::parse(address.uri).ok()
    }
}

/// What a request must prove to take its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demand {
    Nothing,
    /// Whoever bears the name of one of our users must be that user; others are not asked.
    Ours,
    /// Nobody but one of our users, proved.
    Users,
}
