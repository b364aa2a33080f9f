//! Protection of secrets: no crash dumps contain them, and there is a warning if others may read their files.

use std::time::SystemTime;
use strowger::config::{Conf, key};
use strowger::net::sys;
use strowger::net::tls::Contexts;

/// Forbids core dumps, unless the conf wants them. To be repeated after switching to another user.
pub fn forbid_dumps(conf: &Conf) {
    if !conf.server.core_dumps
        && let Err(error) = sys::dumps::forbid()
    {
        log::warn!("core dumps cannot be forbidden: {error}");
    }
}

/// Logs a line for each likely slip of the conf, and for each file that is not as it should be: secrets that others may read, users that
/// are elsewhere, certificates that have expired or soon will.
pub fn warn_of_files(conf: &Conf, contexts: Option<&Contexts>) {
    let certificates = contexts.map_or(&[][..], |contexts| contexts.certificates());
    let certificates = certificates.iter().filter_map(|certificate| certificate.warning(SystemTime::now()));
    let files = key::exposed_files(conf).into_iter().chain(conf.other_users_file()).chain(certificates);
    for line in conf.warnings.iter().cloned().chain(files) {
        log::warn!("{line}");
    }
}
