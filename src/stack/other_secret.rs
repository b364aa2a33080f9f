//! A secret besides the first: nothing new is signed with it, but what it has signed is accepted, so that a secret can be replaced
//! while calls go on.

use crate::base::Key;
use crate::stack::branch::Signer;
use crate::stack::cookie::Cookies;
use crate::stack::identity::Identity;
use crate::stack::passage::Passages;
use crate::stack::relay::RelayTokens;

/// What recognises the tokens of one secret.
#[derive(Clone, Copy, Debug)]
pub struct OtherSecret {
    pub signer: Signer,
    pub identity: Identity,
    pub passages: Passages,
    pub cookies: Cookies,
    pub relay_tokens: RelayTokens,
}

impl OtherSecret {
    pub fn new(secret: Key) -> OtherSecret {
        OtherSecret {
            signer: Signer::new(secret),
            identity: Identity::new(secret),
            passages: Passages::new(secret),
            cookies: Cookies::new(secret),
            relay_tokens: RelayTokens::new(secret),
        }
    }
}
