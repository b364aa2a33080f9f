//! TLS over memory (RFC 3261 §26.2.1, RFC 5246, RFC 8446): ciphertext in, plaintext out, and the other way round; no socket.
//!
//! ```text
//!   Settings ──load──▶ Contexts ──accept, connect──▶ Tls ── receive(ciphertext, &mut plaintext)
//!   (paths,            (shared by                     │     send(plaintext)
//!    numbers)           all workers)                  └──── output(): ciphertext to write
//! ```
//!
//! The library never touches a socket, so it never asks for one to be writable, and it is called when bytes have come and never
//! otherwise: `flights` holds bytes back until the peer's flight is whole as far as can be seen from outside.

#[cfg(not(any(feature = "aws-lc", feature = "system-openssl")))]
compile_error!("choose a TLS library: the feature aws-lc (the default) or system-openssl");

mod certificate;
mod contexts;
mod failure;
mod flights;
mod machine;
mod material;
mod names;
mod notes;
mod recent;
mod sessions;
mod settings;
mod shared_tickets;
mod tickets;
mod verify;
mod wire;

#[cfg(test)]
mod tests;

/// For contexts that a caller makes for [`Tls::from_ssl`], as the load generator does.
pub use super::sys::ssl::{accept_ed25519, offer_session, set_ciphersuites};
pub use crate::settings::{Purpose, VerifyClient, Version};
pub use certificate::{Certificate, Role};
pub use contexts::Contexts;
pub use failure::{By, Failure};
pub use machine::{Progress, Tls};
pub use settings::{Certificates, Identity, Pair, Settings, Side, TicketLegacy, TicketSecrets};
pub use wire::Wire;

/// The TLS library that is linked in and its version, as in "AWS-LC 1.73.0" or "OpenSSL 3.0.19 27 Jan 2026".
pub fn library_version() -> &'static str {
    openssl::version::version()
}
