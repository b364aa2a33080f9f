//! The journal's thread: writes changes of the location service to the disk, round by round, and reads them back at the start.
//!
//! Memory is authoritative; the disk follows. While it does not, nothing is lost in memory and nothing piles up: changes stay on
//! the lists of the location service, which are no longer than its number of addresses, and the round in progress is retried. A
//! file that is torn, or somebody else's, is neither served nor written into; if another takes its place, all bindings are written
//! there.

mod file;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use super::error::StoreError;
use super::shared_file::SharedDatabaseFile;
use crate::stack::location::Location;
use shared::State;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{self, Duration};
use writer::WriterThread;

pub use shared::{Bell, Clocks, Hooks, Settings};

/// How long a process that was killed may take to let go of the database.
const PARTING: Duration = Duration::from_secs(1);

/// What the journal counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Numbers {
    /// Addresses-of-record that have changed and are not on disk.
    pub unstored: usize,
    /// Attempts to open, read or write that failed.
    pub failures: u64,
    /// Changes of the database, and the seconds that they took together.
    pub batches: u64,
    pub batch_seconds: f64,
    /// Rows that were read but not accepted.
    pub unusable: u64,
}

/// The running journal. Dropping it writes what has changed, and ends the thread.
pub struct Journal {
    location: Arc<Location>,
    bell: Arc<Bell>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    pub fn numbers(&self) -> Numbers {
        let state = &self.state;
        Numbers {
            unstored: state.unstored(&self.location),
            failures: state.failures.load(Ordering::Relaxed),
            batches: state.batches.load(Ordering::Relaxed),
            unusable: state.unusable.load(Ordering::Relaxed),
            batch_seconds: state.batch_ns.load(Ordering::Relaxed) as f64 / 1e9,
        }
    }

    /// Writes what has changed, and ends. Returns whether the database has all of it, and whether it was read before.
    pub fn end(mut self) -> (bool, bool) {
        self.stop();
        let is_stored = self.state.unstored(&self.location) == 0 && !self.location.disk_progress().is_failing;
        (is_stored, self.state.is_restored.load(Ordering::SeqCst))
    }

    fn stop(&mut self) {
        self.state.is_stopping.store(true, Ordering::SeqCst);
        self.bell.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the journal's thread panicked");
        }
    }

    /// Has all changes so far written, and waits for that. False if they are not on disk in time.
    pub fn flush(&self, patience: Duration) -> bool {
        let end = time::Instant::now() + patience;
        let round = self.location.last_round();
        while self.location.disk_progress().durable < round {
            if time::Instant::now() >= end || self.location.disk_progress().is_failing {
                return false;
            }
            self.bell.ring();
            thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The journal before its thread runs, with what the disk had read back.
pub struct UnstartedJournal(WriterThread);

impl UnstartedJournal {
    /// Takes the database's lock ([`DatabaseLock`](super::database_lock::DatabaseLock)), opens it and reads the bindings back. The
    /// error is one line, without the name of the file: another server has it. If anything else fails, the reason is logged and the
    /// journal keeps retrying: calls go on with what memory has. The lock is held until the journal, or what this returns, is dropped.
    pub fn open(
        location: Arc<Location>,
        settings: Settings,
        clocks: Clocks,
        door: Arc<SharedDatabaseFile>,
    ) -> Result<UnstartedJournal, String> {
        let mut desk = WriterThread::new(location, settings, clocks, door);
        let end = time::Instant::now() + PARTING;
        loop {
            match desk.look() {
                Ok(()) => break,
                Err(StoreError::Held(_)) if time::Instant::now() < end => thread::sleep(Duration::from_millis(20)),
                Err(StoreError::Held(what)) => return Err(what),
                Err(trouble) => {
                    desk.suffer(&trouble);
                    break;
                }
            }
        }
        Ok(UnstartedJournal(desk))
    }

    /// Goes on where another process has left the database: nothing is opened before the journal starts.
    pub fn follow(location: Arc<Location>, settings: Settings, clocks: Clocks, door: Arc<SharedDatabaseFile>) -> UnstartedJournal {
        UnstartedJournal(WriterThread::new(location, settings, clocks, door))
    }

    /// Notes how that process has left it, before the journal starts. `is_restored`: memory has what was in the database. `is_stored`:
    /// the database has what is in memory, but for what has changed since; otherwise all of it is written again.
    pub fn was_left(&mut self, is_restored: bool, is_stored: bool) {
        self.0.set_restored(is_restored);
        if is_restored && !is_stored {
            self.0.replace_all();
        }
    }

    /// Rung by code that waits for the disk.
    pub fn bell(&self) -> Arc<Bell> {
        self.0.bell.clone()
    }

    pub fn start(self, hooks: Hooks) -> io::Result<Journal> {
        let desk = self.0;
        let mut journal =
            Journal { location: desk.location.clone(), bell: desk.bell.clone(), state: desk.state.clone(), thread: None };
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || desk.run(hooks))?;
        journal.thread = Some(thread);
        Ok(journal)
    }
}
