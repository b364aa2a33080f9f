//! The journal's thread: it writes one round after another, and retries on failure.

use super::shared::{Bell, Clocks, Hooks, Settings, State};
use crate::stack::location::Round;
use crate::stack::location::journal::Taken;
use crate::stack::location::{Durability, Location};
use crate::store::bindings::Table;
use crate::store::database_lock::DatabaseLock;
use crate::store::error::StoreError;
use crate::store::round_log::{self as binding_log, Folding, Pending};
use crate::store::shared_file::{FileId, SharedDatabaseFile};
use crate::store::stored::Terms;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{self, Duration};

/// How often a round begins if no answer waits for one: the most that a crash can lose. Phones refresh minutes apart, so a longer
/// period would hardly merge more changes into fewer rows.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// If answers wait for the disk, the least time from the beginning of one round to that of the next. A phone that registers alone
/// waits only for the disk; if many register, they gather while the previous round is written, and at least this long, which is far
/// below the half second after which a phone asks again (T1).
const SPACING: Duration = Duration::from_millis(5);

/// Delay after a failure, doubled with each consecutive one.
const RETRY_LEAST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(8);

/// How many times in a row another program may have the database locked before it is logged, if no answer waits.
const BUSY_TIMES: u32 = 3;

/// Bytes of memory that a round copies at a time.
pub(super) const BITE: usize = 4 << 20;

/// Addresses that go from the log into the table with one round.
const FOLDED: usize = 1000;

/// The same while no answer waits: one that arrives meanwhile waits some tens of milliseconds.
const FOLDED_AT_REST: usize = 10_000;

/// If what is only in the log takes more bytes of memory than this, it goes into the table at once.
const PENDING_MOST: usize = 64 << 20;

/// The state of the thread.
pub(super) struct WriterThread {
    pub(super) location: Arc<Location>,
    pub(super) settings: Settings,
    pub(super) clocks: Clocks,
    /// The time since 1970 at time 0 that all times on disk are based on. The clock's own may differ by less than a step.
    pub(super) wall_ms: u64,
    /// When all bindings were last written because the clock was set.
    pub(super) settled: Option<time::Instant>,
    /// When the clock was last noted on disk.
    pub(super) seen: Option<time::Instant>,
    pub(super) door: Arc<SharedDatabaseFile>,
    pub(super) bell: Arc<Bell>,
    pub(super) state: Arc<State>,
    pub(super) table: Option<(Table, FileId)>,
    /// Keeps other servers off the database from when it was first there to when the thread ends, whatever happens to the file.
    pub(super) lock: Option<DatabaseLock>,
    /// Identity of the log file beside the database.
    pub(super) log: Option<FileId>,
    /// A file that nothing is written into, and why.
    pub(super) refused: Option<(Stamp, StoreError)>,
    /// Memory has taken in what was on disk.
    pub(super) is_restored: bool,
    /// The file that was open last is the one to go on with, as far as is known.
    pub(super) is_home: bool,
    /// Everything in memory is to be written.
    pub(super) is_replaced: bool,
    /// The log has pieces of an earlier run.
    pub(super) has_old_log: bool,
    /// A round that is not on disk yet, and the addresses it holds.
    pub(super) round: Option<Round>,
    pub(super) taken: Taken,
    /// A round as a piece of the log; kept to reuse its allocation.
    pub(super) piece: Vec<u8>,
    /// What is in the log but not yet in the table, and what is on its way there.
    pub(super) pending: Pending,
    pub(super) folding: Option<Folding>,
    pub(super) folded: time::Instant,
    /// When readers of the same file were last told of changes by other programs.
    pub(super) noted: time::Instant,
    pub(super) retry_at: Option<time::Instant>,
    /// Failures in a row.
    pub(super) troubles: u32,
    /// The failure was logged, and is not over.
    pub(super) is_ill: bool,
}

/// Identity of a file, to tell whether it is still the same, as far as can be seen from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    place: FileId,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(file: &Metadata) -> Stamp {
        Stamp { place: FileId::of(file), size: file.size(), changed: (file.mtime(), file.mtime_nsec()) }
    }
}

impl WriterThread {
    pub(super) fn new(location: Arc<Location>, settings: Settings, clocks: Clocks, door: Arc<SharedDatabaseFile>) -> WriterThread {
        WriterThread {
            location,
            settings,
            wall_ms: (clocks.wall_ms)(),
            clocks,
            settled: None,
            seen: None,
            door,
            bell: Arc::default(),
            state: Arc::default(),
            table: None,
            lock: None,
            log: None,
            refused: None,
            is_restored: false,
            is_home: true,
            is_replaced: false,
            has_old_log: false,
            round: None,
            taken: Taken::default(),
            piece: Vec::new(),
            pending: Pending::default(),
            folding: None,
            folded: time::Instant::now(),
            noted: time::Instant::now(),
            retry_at: None,
            troubles: 0,
            is_ill: false,
        }
    }

    pub(super) fn run(mut self, hooks: Hooks) {
        let Hooks { prepare, progress } = hooks;
        prepare();
        let _ = self.bell.thread.set(thread::current());
        let acknowledged = self.is_acknowledged();
        let mut began = time::Instant::now();
        let is_stopping = |desk: &WriterThread| desk.state.is_stopping.load(Ordering::SeqCst);
        while !is_stopping(&self) {
            let now = time::Instant::now();
            let until_retry = |at: time::Instant| at.saturating_duration_since(now);
            let patience = match self.folding {
                Some(_) => Duration::ZERO,
                None => INTERVAL,
            };
            self.bell.wait(self.retry_at.map_or(patience, until_retry));
            if is_stopping(&self) {
                break;
            }
            if self.retry_at.is_some_and(|at| time::Instant::now() < at) {
                // Requests that arrive meanwhile wait for the same round.
                thread::sleep(Duration::from_millis(2));
                continue;
            }
            if acknowledged {
                thread::sleep(SPACING.saturating_sub(began.elapsed()));
            }
            began = time::Instant::now();
            self.attempt(&progress);
        }
        self.attempt(&progress);
        self.empty_log();
        let left = self.state.unstored(&self.location);
        if left > 0 {
            let path = self.settings.path.display();
            log::error!("{path}: the bindings of {left} addresses-of-record are not stored");
        }
        self.close();
    }

    fn attempt(&mut self, progress: &dyn Fn()) {
        match self.work() {
            Ok(()) => self.recover(),
            Err(trouble) => self.suffer(&trouble),
        }
        progress();
    }

    fn is_acknowledged(&self) -> bool {
        self.settings.durability == Durability::Acknowledged
    }

    fn work(&mut self) -> Result<(), StoreError> {
        self.look()?;
        self.watch_clock();
        self.begin_folding(INTERVAL);
        let number = match self.is_replaced {
            true => self.write_all()?,
            false => match self.write_changes()? {
                Some(number) => number,
                // No answer waits.
                None => return self.tidy(),
            },
        };
        self.location.finish_round(number);
        Ok(())
    }

    /// Writes what has changed, and returns the number of the round; `None` if nothing has.
    fn write_changes(&mut self) -> Result<Option<u64>, StoreError> {
        if self.round.is_none() && !self.location.has_changes() {
            return Ok(None);
        }
        let begin = || self.location.begin_round(false);
        let mut round = self.round.take().unwrap_or_else(begin);
        let outcome = self.write_round(&mut round);
        let number = round.number;
        if outcome.is_err() {
            self.round = Some(round);
        }
        outcome.map(|()| Some(number))
    }

    fn write_round(&mut self, round: &mut Round) -> Result<(), StoreError> {
        loop {
            let mut in_hand = self.state.in_hand();
            while self.taken.size() < BITE
                && let Some(shard) = round.next_shard()
            {
                self.location.take_changed(shard, false, &mut self.taken);
            }
            *in_hand = self.taken.len();
            drop(in_hand);
            if self.taken.is_empty() {
                return Ok(());
            }
            let start = time::Instant::now();
            match self.is_acknowledged() {
                true => self.append()?,
                false => {
                    let terms = terms(&self.settings, self.wall_ms);
                    open(&mut self.table)?.write(&self.taken, terms)?;
                    self.taken.clear();
                }
            }
            self.count_batch(start);
            self.note_in_hand();
        }
    }

    // ---- the log -------------------------------------------------------------------------------------------------------

    /// Appends what was taken to the log, and moves a batch of what is already there into the table.
    fn append(&mut self) -> Result<(), StoreError> {
        let terms = terms(&self.settings, self.wall_ms);
        binding_log::write(&self.taken, terms, &mut self.piece);
        let most = match self.pending.size() < PENDING_MOST {
            true => FOLDED,
            false => usize::MAX,
        };
        let folding = &self.folding;
        let (id, next) = open(&mut self.table)?.append(&self.piece, |writing| match folding {
            Some(folding) => folding.write(writing, terms, most),
            None => Ok(0),
        })?;
        self.pending.push(id, std::mem::take(&mut self.taken));
        self.advance_folding(next);
        if !self.has_old_log {
            self.begin_folding(INTERVAL);
        }
        Ok(())
    }

    /// Moves the content of the log into the table, at most `most` addresses of it.
    fn fold(&mut self, most: usize) -> Result<(), StoreError> {
        let Some(folding) = &self.folding else {
            return Ok(());
        };
        let terms = terms(&self.settings, self.wall_ms);
        let table = open(&mut self.table)?;
        let next = table.rewrite(false, |writing| folding.write(writing, terms, most))?;
        self.advance_folding(next);
        Ok(())
    }

    /// Everything that has changed is on disk: there is time for other work on it.
    fn tidy(&mut self) -> Result<(), StoreError> {
        self.fold(FOLDED_AT_REST)?;
        if self.has_old_log && self.folding.is_none() && self.pending.is_empty() {
            open(&mut self.table)?.rewrite(false, |writing| writing.cut_log(i64::MAX))?;
            self.has_old_log = false;
        }
        Ok(())
    }

    /// What an earlier run left in the log may be cut only when all of it was written again: after a whole round.
    fn begin_folding(&mut self, interval: Duration) {
        if self.has_old_log && self.round.is_some() {
            return;
        }
        let is_due = || self.folded.elapsed() >= interval || self.pending.size() >= PENDING_MOST;
        if self.folding.is_none() && !self.pending.is_empty() && is_due() {
            self.folding = Some(Folding::begin(std::mem::take(&mut self.pending)));
            self.folded = time::Instant::now();
        }
    }

    fn advance_folding(&mut self, next: usize) {
        if let Some(folding) = &mut self.folding {
            folding.advance(next);
            if folding.is_done() {
                self.folding = None;
                self.has_old_log = false;
            }
        }
    }

    /// At the end everything is moved into the table, where others can read it.
    fn empty_log(&mut self) {
        for _ in 0..2 {
            let outcome = self.fold(usize::MAX);
            if let Err(trouble) = outcome {
                // It remains in the log, and is read from there.
                let path = self.settings.path.display();
                log::warn!("{path}: {}", trouble.message());
                return;
            }
            self.begin_folding(Duration::ZERO);
        }
    }

    // ---- all of it -----------------------------------------------------------------------------------------------------

    /// Writes everything in memory into a table that is emptied first, in one database transaction.
    fn write_all(&mut self) -> Result<u64, StoreError> {
        let start = time::Instant::now();
        self.note_in_hand();
        let mut round = self.location.begin_round(true);
        let (location, taken) = (&self.location, &mut self.taken);
        let terms = terms(&self.settings, self.wall_ms);
        taken.clear();
        let outcome = open(&mut self.table)?.rewrite(true, |writing| {
            while let Some(shard) = round.next_shard() {
                location.take_changed(shard, true, taken);
                if taken.size() >= BITE {
                    writing.write(taken.iter(), terms)?;
                    taken.clear();
                }
            }
            writing.write(taken.iter(), terms)
        });
        taken.clear();
        outcome?;
        self.is_replaced = false;
        self.note_in_hand();
        self.count_batch(start);
        Ok(round.number)
    }

    fn note_in_hand(&self) {
        let count = match self.is_replaced {
            true => self.location.records(),
            false => self.taken.len(),
        };
        *self.state.in_hand() = count;
    }

    fn count_batch(&self, start: time::Instant) {
        let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.state.batches.fetch_add(1, Ordering::Relaxed);
        self.state.batch_ns.fetch_add(ns, Ordering::Relaxed);
    }

    // ---- well and ill --------------------------------------------------------------------------------------------------

    pub(super) fn suffer(&mut self, trouble: &StoreError) {
        self.note_in_hand();
        self.state.failures.fetch_add(1, Ordering::Relaxed);
        self.troubles += 1;
        let doubled = RETRY_LEAST * 2u32.saturating_pow(self.troubles.min(8) - 1);
        self.retry_at = Some(time::Instant::now() + doubled.min(RETRY_MOST));
        // What was found wrong with an open file is checked again from the beginning.
        if let StoreError::NotOurs(_) = trouble {
            self.close();
            self.is_home = false;
            let file = fs::metadata(&self.settings.path);
            self.refused = file.ok().map(|file| (Stamp::of(&file), trouble.clone()));
        }
        let acknowledged = self.settings.durability == Durability::Acknowledged;
        let passes = matches!(trouble, StoreError::Busy(_)) && self.troubles < BUSY_TIMES;
        if self.is_ill || (passes && !acknowledged) {
            return;
        }
        self.is_ill = true;
        self.location.set_failing(true);
        log::error!(
            "{}: bindings are not stored: {}; {}",
            self.settings.path.display(),
            trouble.message(),
            match acknowledged {
                true => "registrations are answered 503 until they are, calls go on",
                false => "calls and registrations go on in memory",
            }
        );
    }

    fn recover(&mut self) {
        (self.troubles, self.retry_at) = (0, None);
        self.location.set_failing(false);
        if std::mem::take(&mut self.is_ill) {
            let path = self.settings.path.display();
            log::info!("{path}: bindings are stored again");
        }
    }
}

/// Returns the table; it is opened before this is called.
pub(super) fn open(table: &mut Option<(Table, FileId)>) -> Result<&mut Table, StoreError> {
    let open = table.as_mut().map(|(table, _)| table);
    open.ok_or_else(|| StoreError::Transient("it is not open".to_owned()))
}

pub(super) fn terms(settings: &Settings, wall_ms: u64) -> Terms<'_> {
    Terms { wall_ms, listeners: &settings.listeners }
}
