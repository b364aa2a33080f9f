//! Protection of secrets: no crash dumps contain them, and there is a warning if others may read their files.

use strowger::config::{Conf, key};
use strowger::net::sys;

/// Forbids core dumps, unless the conf wants them. To be repeated after switching to another user.
pub fn forbid_dumps(conf: &Conf) {
    if !conf.server.core_dumps
        && let Err(error) = sys::dumps::forbid()
    {
        log::warn!("core dumps cannot be forbidden: {error}");
    }
}

/// Logs a line for each likely slip of the conf, and for each file whose secrets others may read.
pub fn warn_of_exposed(conf: &Conf) {
    for line in &conf.warnings {
        log::warn!("{line}");
    }
    for line in key::exposed_files(conf) {
        log::warn!("{line}");
    }
}
