//! What the conf says of secrets, as the wires take it: certificates and keys with all that handshakes are made from, who may read their
//! files, and that no crash leaves them behind.

use std::sync::Arc;
use strowger::base::Transport;
use strowger::config::{Conf, key};
use strowger::net::sys;
use strowger::net::tls::Contexts;

/// What handshakes are made from: certificates, keys, sessions. `None` where nothing of the conf needs TLS.
pub fn contexts(conf: &Conf, previous: Option<&Contexts>) -> Result<Option<Arc<Contexts>>, String> {
    if !conf.listens_by(Transport::Tls) {
        return Ok(None);
    }
    let contexts = Contexts::load(&conf.tls_settings(), previous);
    contexts
        .map(|contexts| Some(Arc::new(contexts)))
        .map_err(|error| error.to_string())
}

/// Where the conf wants it, as almost always. To be repeated when the process has become another user.
pub(crate) fn forbid_dumps(conf: &Conf) {
    if !conf.server.core_dumps
        && let Err(error) = sys::dumps::forbid()
    {
        log::warn!("core dumps cannot be forbidden: {error}");
    }
}

/// A line for each file whose secrets others may read.
pub(crate) fn warn_of_exposed(conf: &Conf) {
    for line in key::exposed_files(conf) {
        log::warn!("{line}");
    }
}
