//! The journal of the bindings as configured: between the location service, the workers and the disk.

use super::lock::lock;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use strowger::base::Transport;
use strowger::config::Conf;
use strowger::net::sys;
use strowger::stack;
use strowger::stack::location::{Location, RowRules};
use strowger::store::journal::{Clocks, Hooks, Numbers, Settings, UnstartedJournal};
use strowger::store::{Journal, SharedDatabaseFile};
use strowger::worker::mailbox::PostOffice;
use strowger::worker::{Clock, WakeHandle};

/// How long shutdown waits for answers that wait for the disk.
const LAST_ROUND: Duration = Duration::from_secs(2);

/// Returns the kernel's identifier of this boot.
fn boot() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    name.map_or(String::new(), |name| name.trim().to_owned())
}

/// The disk before the workers serve. Empty without a database.
#[derive(Default)]
pub struct UnstartedDisk {
    shared_file: Arc<SharedDatabaseFile>,
    journal: Option<UnstartedJournal>,
}

impl UnstartedDisk {
    /// Reads back what the database holds and the rules accept. The error is one line: another server has it. `listeners` are those of the conf, by position.
    pub fn open(
        conf: &Conf,
        location: &Arc<Location>,
        listeners: Vec<(Transport, SocketAddr)>,
        rules: Arc<stack::Settings>,
        clock: Clock,
    ) -> Result<UnstartedDisk, String> {
        let open = UnstartedJournal::open;
        UnstartedDisk::with(conf, location, listeners, rules, clock, open)
    }

    /// Goes on where the process before this one leaves the database, as [`UnstartedDisk::was_left`] is told: nothing is read.
    pub fn follow(
        conf: &Conf,
        location: &Arc<Location>,
        listeners: Vec<(Transport, SocketAddr)>,
        rules: Arc<stack::Settings>,
        clock: Clock,
    ) -> Result<UnstartedDisk, String> {
        let open = |location, settings, clocks, file| Ok(UnstartedJournal::follow(location, settings, clocks, file));
        UnstartedDisk::with(conf, location, listeners, rules, clock, open)
    }

    fn with(
        conf: &Conf,
        location: &Arc<Location>,
        listeners: Vec<(Transport, SocketAddr)>,
        rules: Arc<stack::Settings>,
        clock: Clock,
        open: impl FnOnce(Arc<Location>, Settings, Clocks, Arc<SharedDatabaseFile>) -> Result<UnstartedJournal, String>,
    ) -> Result<UnstartedDisk, String> {
        let Some(path) = &conf.registrar.database else {
            return Ok(UnstartedDisk::default());
        };
        let settings =
            Settings { path: path.clone(), durability: conf.registrar.durability, listeners, rules: RowRules::new(rules) };
        let clocks = Clocks {
            now: Box::new(move || clock.now()),
            wall_ms: Box::new(move || clock.wall_ms()),
            up_ms: Box::new(sys::identity::up_ms),
            boot: boot(),
        };
        let shared_file: Arc<SharedDatabaseFile> = Arc::default();
        let journal = open(location.clone(), settings, clocks, shared_file.clone());
        let journal = journal.map_err(|what| format!("{}: {what}", path.display()))?;
        Ok(UnstartedDisk { journal: Some(journal), shared_file })
    }

    /// How the process before this one has left the database ([`UnstartedJournal::was_left`]).
    pub fn was_left(&mut self, is_restored: bool, is_stored: bool) {
        if let Some(journal) = &mut self.journal {
            journal.was_left(is_restored, is_stored);
        }
    }

    /// Returns the disk as the server sees it until [`Disk::start`].
    pub fn waiting(&self) -> Disk {
        Disk { shared_file: self.shared_file.clone(), ..Disk::default() }
    }

    /// For other users of the same file.
    pub fn shared_file(&self) -> Arc<SharedDatabaseFile> {
        self.shared_file.clone()
    }

    /// Returns what the workers call when an answer waits.
    pub fn ring(&self) -> Option<WakeHandle> {
        let bell = self.journal.as_ref()?.bell();
        Some(Arc::new(move || bell.ring()))
    }
}

/// The disk, as the rest of the running server sees it.
#[derive(Default)]
pub struct Disk {
    shared_file: Arc<SharedDatabaseFile>,
    journal: Mutex<Option<Journal>>,
}

impl Disk {
    /// Starts writing; wakes the workers when the disk has made progress.
    pub fn start(&self, disk: UnstartedDisk, server: Arc<PostOffice>) -> Result<(), String> {
        let Some(journal) = disk.journal else {
            return Ok(());
        };
        let prepare = || {
            // A worker on the same core takes precedence.
            if let Err(error) = sys::lower_priority() {
                log::warn!("the journal's thread keeps its priority: {error}");
            }
        };
        let hooks = Hooks { prepare: Box::new(prepare), progress: Box::new(move || server.wake_all()) };
        let journal = journal.start(hooks);
        let journal = journal.map_err(|error| format!("the journal's thread: {error}"))?;
        *self.journal() = Some(journal);
        Ok(())
    }

    /// Has what waits written soon, but does not wait longer than this. False if it is not on disk by then.
    pub fn settle_within(&self, patience: Duration) -> bool {
        self.journal().as_ref().is_none_or(|journal| journal.flush(patience))
    }

    /// Writes what is left, and ends. Returns whether the database has all of it, and whether it was read before; `None` without one.
    pub fn leave(&self) -> Option<(bool, bool)> {
        let journal = self.journal().take();
        journal.map(Journal::end)
    }

    /// For other users of the same file.
    pub fn shared_file(&self) -> Arc<SharedDatabaseFile> {
        self.shared_file.clone()
    }

    /// Writes what waits, so that its answers are sent while the workers still run.
    pub fn settle(&self) {
        if let Some(journal) = &*self.journal() {
            journal.flush(LAST_ROUND);
        }
    }

    /// Writes what is left, and ends.
    pub fn close(&self) {
        let journal = self.journal().take();
        drop(journal);
    }

    pub fn numbers(&self) -> Numbers {
        let journal = self.journal();
        journal.as_ref().map(Journal::numbers).unwrap_or_default()
    }

    fn journal(&self) -> MutexGuard<'_, Option<Journal>> {
        lock(&self.journal)
    }
}
