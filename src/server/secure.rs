//! What the conf says of secrets: that no crash leaves them behind, and a warning if others may read their files.

use strowger::config::{Conf, key};
use strowger::net::sys;

/// Forbids core dumps, unless the conf wants them. To be repeated when the process has become another user.
pub fn forbid_dumps(conf: &Conf) {
    if !conf.server.core_dumps
        && let Err(error) = sys::dumps::forbid()
    {
        log::warn!("core dumps cannot be forbidden: {error}");
    }
}

/// A line for each file whose secrets others may read.
pub fn warn_of_exposed(conf: &Conf) {
    for line in key::exposed_files(conf) {
        log::warn!("{line}");
    }
}
