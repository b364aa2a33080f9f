//! Who may register and who may call (RFC 3261 §22): the registrar's 401, the proxy's 407, and whether a user acts as itself.
//!
//! A challenged request leaves no state behind: the nonce needs no memory, and the answer no transaction.

pub mod answering;
mod assert;
mod authenticate;
pub mod certificate;
mod claim;
pub mod demand;
pub mod digest;
mod failure;
mod guess;
pub mod nonce;
pub(in crate::stack) mod prove;
mod target;
pub mod users;
mod vouch;
