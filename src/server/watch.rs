//! Replaced certificates, keys and authorities take effect automatically: like those of the users, the files are checked
//! periodically, and read again when they have changed and match each other.

use super::running::{Current, RunningServer};
use super::secure;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, TryLockError};
use std::time::{Duration, Instant};
use strowger::config::Conf;
use strowger::worker::Change;

/// How often the files are checked. A change is read once it has stayed the same from one check to the next: a file may be half
/// written.
const INTERVAL: Duration = Duration::from_millis(500);

/// What identifies a file's version: another file, other content, another owner or another mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    file: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let data = fs::metadata(path).ok()?;
        Some(Stamp {
            device: data.dev(),
            file: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

type Stamps = HashMap<PathBuf, Option<Stamp>>;

/// The files that TLS is made from, as last seen.
pub(crate) struct Files {
    /// When they were last read, or refused.
    read: Stamps,
    /// At the last check.
    seen: Stamps,
    next_look: Instant,
    /// What is wrong with them, as logged once.
    fault: Option<String>,
}

impl Files {
    /// To be called before they are read, so that changes made meanwhile are noticed.
    pub(crate) fn look(conf: &Conf) -> Files {
        let stamps = stamps(conf);
        Files { read: stamps.clone(), seen: stamps, next_look: Instant::now() + INTERVAL, fault: None }
    }

    /// True if they have changed since they were read, but not since the last check.
    fn have_changed(&mut self, conf: &Conf) -> bool {
        let stamps = stamps(conf);
        let is_settled = stamps == self.seen;
        let has_changed = stamps != self.read;
        self.seen = stamps;
        is_settled && has_changed
    }

    fn are_read(&mut self) {
        self.read = self.seen.clone();
    }
}

fn stamps(conf: &Conf) -> Stamps {
    let pairs = conf.pairs();
    let paths = pairs.flat_map(|pair| [&pair.certificate, &pair.private_key]);
    let paths = paths.chain(&conf.tls.trusted_ca);
    paths.map(|path| (path.clone(), Stamp::of(path))).collect()
}

impl RunningServer {
    /// Checks the files if it is time to. Files that do not match change nothing: a certificate and its key are replaced one after
    /// the other.
    pub(crate) fn look_at_files(self: &Arc<RunningServer>, files: &mut Files) {
        let now = Instant::now();
        if now < files.next_look {
            return;
        }
        files.next_look = now + INTERVAL;
        let current = self.current();
        if current.contexts.is_none() || !files.have_changed(&current.conf) {
            return;
        }
        // A reload reads them itself: afterwards there is nothing to do until the next check.
        let _turn = match self.reloading.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(fault)) => fault.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let current = self.current();
        let before = current.contexts.as_deref();
        let contexts = match current.conf.contexts(before, &self.start.tickets) {
            Ok(contexts) => contexts,
            Err(fault) => {
                files.are_read();
                if files.fault.as_ref() != Some(&fault) {
                    log::error!("certificates and keys are unchanged: {fault}");
                }
                files.fault = Some(fault);
                return;
            }
        };
        files.are_read();
        let was_wrong = files.fault.take().is_some();
        let is_same = match (&contexts, before) {
            (Some(contexts), Some(before)) => contexts.is_same(before),
            _ => true,
        };
        if is_same {
            if was_wrong {
                log::info!("certificates and keys can be read again, and have not changed");
            }
            return;
        }
        let change = Change {
            settings: current.settings.clone(),
            connections: current.conf.connection_limits(self.start.files),
            tls: contexts.clone(),
        };
        self.crew().reload(&change);
        log::info!("certificates and keys have changed, and were read again");
        secure::warn_of_files(&current.conf, contexts.as_deref());
        self.set_current(Current { conf: current.conf.clone(), settings: current.settings.clone(), contexts });
    }
}
