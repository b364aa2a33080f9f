//! What a client's connection remembers for the library's callbacks, and where the library keeps it.

use std::sync::{Arc, OnceLock};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::Ssl;

use super::sessions::PeerName;

/// What a client's connection remembers for the callbacks.
pub(super) struct ClientNotes {
    pub peer: Arc<PeerName>,
    /// We have a certificate to show.
    pub has_certificate: bool,
    /// The server requested one.
    pub was_asked: bool,
    /// Why the name check failed.
    pub refusal: OnceLock<String>,
}

pub(super) fn notes_index() -> Result<Index<Ssl, ClientNotes>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, ClientNotes>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = Ssl::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}
