//! The journal's thread: writes what has changed in the location service to the disk, round by round, and reads it back at the start.
//!
//! Memory is the truth; the disk follows. While it does not, nothing is lost in memory and nothing piles up: what has changed stays
//! on the lists of the location service, which are as long as it has addresses, and what a round has in hand is tried again. A file
//! that is torn, or somebody else's, is neither served nor written into; when another one stands in its place, all bindings are
//! written there.

use super::bindings::Table;
use super::clock::{self, Seen};
use super::error::StoreError;
use super::restore::Restored;
use super::round_log::{self as binding_log, Folding, Pending};
use super::shared_file::{FileId, SharedDatabaseFile};
use super::stored::Terms;
use crate::base::{Instant, Transport};
use crate::stack::location::journal::{Round, Taken};
use crate::stack::location::{Durability, Location, RowRules};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{self, Duration};

/// How often a round begins where nobody waits for one: what a crash may take. Phones refresh minutes apart, so a longer time would
/// hardly make fewer rows of more changes.
const INTERVAL: Duration = Duration::from_secs(1);

/// Where answers wait for the disk, the least time from the beginning of one round to that of the next. A phone that registers alone waits
/// for nothing but the disk; where many do, they gather while the round before them is written, and for so long at the least,
/// far below the half second after which a phone asks again (T1).
const SPACING: Duration = Duration::from_millis(5);

/// How long to wait after a failure, doubled with each one that follows.
const RETRY_LEAST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(8);

/// So many times in a row another program may have the database locked before it is worth a line, where nobody waits.
const BUSY_TIMES: u32 = 3;

/// How long after the clock was set it must be set again before all bindings are written once more: a clock that cannot make up its mind
/// does not keep the disk busy.
const RESETTLE: Duration = Duration::from_secs(10);

/// Bytes of memory for what a round copies at a time.
const BITE: usize = 4 << 20;

/// Addresses that go from the log into the table with one round.
const FOLDED: usize = 1000;

/// The same while nobody waits: whoever comes meanwhile waits for some tens of milliseconds.
const FOLDED_AT_REST: usize = 10_000;

/// From so many bytes of memory on, what is in the log alone goes into the table at once.
const PENDING_MOST: usize = 64 << 20;

/// What the journal is to keep where.
pub struct Settings {
    pub path: PathBuf,
    /// As the location service was made with.
    pub durability: Durability,
    /// By position, as bound.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// By which bindings that are read back are judged.
    pub rules: RowRules,
}

/// The clock of the rules, and those of the machine.
pub struct Clocks {
    pub now: Box<dyn Fn() -> Instant + Send>,
    /// The time since 1970 at time 0, milliseconds, by the wall clock as it is now.
    pub wall_ms: Box<dyn Fn() -> u64 + Send>,
    /// How long the machine has been up, milliseconds, and the name of this run of it, or nothing.
    pub up_ms: Box<dyn Fn() -> u64 + Send>,
    pub boot: String,
}

impl Clocks {
    /// What they show now, where it was `wall_ms` since 1970 at time 0.
    fn showing(&self, wall_ms: u64) -> Seen {
        Seen {
            wall_ms: wall_ms.saturating_add((self.now)().as_ms()),
            boot: self.boot.clone(),
            up_ms: (self.up_ms)(),
        }
    }
}

/// What the thread calls.
pub struct Hooks {
    /// At its beginning.
    pub prepare: Box<dyn FnOnce() + Send>,
    /// When answers that wait may go, or must be refused.
    pub progress: Box<dyn Fn() + Send>,
}

/// Wakes the journal. To ring costs next to nothing while it is awake.
#[derive(Default)]
pub struct WakeHandle {
    is_rung: AtomicBool,
    thread: OnceLock<Thread>,
}

impl WakeHandle {
    pub fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Waits until it was rung, or the time is over.
    fn wait(&self, patience: Duration) {
        let end = time::Instant::now() + patience;
        while !self.is_rung.swap(false, Ordering::SeqCst) {
            let left = end.saturating_duration_since(time::Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }
}

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
    /// Rows that were read and not taken.
    pub unusable: u64,
}

#[derive(Default)]
struct State {
    /// Addresses that a round has in hand. Locked while it takes them, or those on their way would be counted nowhere.
    in_hand: Mutex<usize>,
    failures: AtomicU64,
    batches: AtomicU64,
    batch_ns: AtomicU64,
    unusable: AtomicU64,
    is_stopping: AtomicBool,
}

impl State {
    fn in_hand(&self) -> MutexGuard<'_, usize> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unstored(&self, location: &Location) -> usize {
        let in_hand = self.in_hand();
        location.untaken() + *in_hand
    }
}

/// The running journal. Dropping it writes what has changed, and ends the thread.
pub struct Journal {
    location: Arc<Location>,
    bell: Arc<WakeHandle>,
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

    /// Has all that has changed until now written, and waits for it. False where it is not on disk in time.
    pub fn flush(&self, patience: Duration) -> bool {
        let end = time::Instant::now() + patience;
        let round = self.location.last_round();
        while self.location.progress().durable < round {
            if time::Instant::now() >= end || self.location.progress().is_failing {
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
        self.state.is_stopping.store(true, Ordering::SeqCst);
        self.bell.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the journal's thread panicked");
        }
    }
}

/// The journal before its thread runs, with what the disk had read back.
pub struct UnstartedJournal(WriterThread);

impl UnstartedJournal {
    /// Opens the database and reads the bindings back. Where that cannot be done, the reason is in the log, and the journal tries
    /// again and again: calls go on with what memory has.
    pub fn open(location: Arc<Location>, settings: Settings, clocks: Clocks, door: Arc<SharedDatabaseFile>) -> UnstartedJournal {
        let mut desk = WriterThread {
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
        };
        if let Err(trouble) = desk.look() {
            desk.suffer(&trouble);
        }
        UnstartedJournal(desk)
    }

    /// Rung by who waits for the disk.
    pub fn bell(&self) -> Arc<WakeHandle> {
        self.0.bell.clone()
    }

    pub fn start(self, hooks: Hooks) -> io::Result<Journal> {
        let desk = self.0;
        let mut journal = Journal {
            location: desk.location.clone(),
            bell: desk.bell.clone(),
            state: desk.state.clone(),
            thread: None,
        };
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || desk.run(hooks))?;
        journal.thread = Some(thread);
        Ok(journal)
    }
}

/// What the thread works at.
struct WriterThread {
    location: Arc<Location>,
    settings: Settings,
    clocks: Clocks,
    /// The time since 1970 at time 0 that all times on disk are written by. The clock's own may differ by less than a step.
    wall_ms: u64,
    /// When all bindings were last written because the clock was set.
    settled: Option<time::Instant>,
    /// When it was last noted on disk what the clock shows.
    seen: Option<time::Instant>,
    door: Arc<SharedDatabaseFile>,
    bell: Arc<WakeHandle>,
    state: Arc<State>,
    table: Option<(Table, FileId)>,
    /// Which file the log beside the database is.
    log: Option<FileId>,
    /// A file that nothing is written into, and why.
    refused: Option<(Stamp, StoreError)>,
    /// Memory has taken in what the disk had.
    is_restored: bool,
    /// The file that was open last is the one to go on with, as far as one knows.
    is_home: bool,
    /// All that memory holds is to be written.
    is_replaced: bool,
    /// The log has pieces of an earlier run.
    has_old_log: bool,
    /// A round that is not on disk yet, and what it has in hand.
    round: Option<Round>,
    taken: Taken,
    /// A round as a piece of the log; kept for its memory.
    piece: Vec<u8>,
    /// What is in the log and not in the table yet, and what is on its way there.
    pending: Pending,
    folding: Option<Folding>,
    folded: time::Instant,
    /// When others were last told of changes by others.
    noted: time::Instant,
    retry_at: Option<time::Instant>,
    /// Failures in a row.
    troubles: u32,
    /// The failure was told, and is not over.
    is_ill: bool,
}

/// A file that is still the same, as far as one can see from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    place: FileId,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Stamp {
        Stamp {
            place: FileId::of(file),
            size: file.size(),
            changed: (file.mtime(), file.mtime_nsec()),
        }
    }
}

impl WriterThread {
    fn run(mut self, hooks: Hooks) {
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
                // What rings meanwhile waits for the same.
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
                // Nobody waits.
                None => return self.tidy(),
            },
        };
        self.location.finish_round(number);
        Ok(())
    }

    /// Writes what has changed, and returns the number of the round; `None` where nothing has.
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

    /// Appends what was taken to the log, and a bite of what is there already goes into the table.
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

    /// What the log has goes into the table, so many addresses of it.
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

    /// All that has changed is on disk, and there is time for what else is to be done there.
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

    /// At the end all of it is in the table, where others can read it.
    fn empty_log(&mut self) {
        for _ in 0..2 {
            let outcome = self.fold(usize::MAX);
            if let Err(trouble) = outcome {
                // It stands in the log, and is read from there.
                let path = self.settings.path.display();
                log::warn!("{path}: {}", trouble.message());
                return;
            }
            self.begin_folding(Duration::ZERO);
        }
    }

    // ---- all of it -----------------------------------------------------------------------------------------------------

    /// Writes all that memory holds into a table that is emptied first, in one change of the database.
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

    // ---- the file ------------------------------------------------------------------------------------------------------

    /// Sees that the file which is open is the one that stands there; opens it where none is, and reads it where none was read.
    fn look(&mut self) -> Result<(), StoreError> {
        let found = fs::metadata(&self.settings.path);
        if let Some((_, open)) = &self.table {
            let is_same = |file: &Metadata| FileId::of(file) == *open;
            if found.as_ref().is_ok_and(is_same) {
                return self.tell_others();
            }
            let what = match found {
                Ok(_) => "replaced",
                Err(_) => "removed",
            };
            let path = self.settings.path.display();
            log::warn!("{path}: the database was {what}");
            self.leave_file();
        }
        if let (Some((stamp, trouble)), Ok(found)) = (&self.refused, &found)
            && *stamp == Stamp::of(found)
        {
            return Err(trouble.clone());
        }
        let opened = self.open_file();
        let restored = opened.and_then(|()| self.restore());
        if let Err(trouble) = &restored {
            self.close();
            self.refused = match (trouble, fs::metadata(&self.settings.path)) {
                (StoreError::NotOurs(_), Ok(file)) => Some((Stamp::of(&file), trouble.clone())),
                _ => None,
            };
        }
        restored
    }

    fn open_file(&mut self) -> Result<(), StoreError> {
        let path = self.settings.path.clone();
        let path = &path;
        let stat = |path: &Path| fs::metadata(path).map(|file| FileId::of(&file));
        let opened: Result<_, StoreError> = self.door.open(|| {
            let table = Table::open(path)?;
            let place = stat(path).map_err(|error| StoreError::Transient(error.to_string()))?;
            let version = table.version()?;
            Ok(((table, place), place, version))
        });
        let (table, place) = opened?;
        self.table = Some((table, place));
        if self.is_restored && !self.is_home {
            log::warn!("{}: all bindings are written again", path.display());
            self.replace_all();
        }
        self.is_home = true;
        self.log = stat(&beside(path, "-wal")).ok();
        self.refused = None;
        Ok(())
    }

    /// Takes in what the disk has, once.
    fn restore(&mut self) -> Result<(), StoreError> {
        if self.is_restored {
            return Ok(());
        }
        let start = time::Instant::now();
        self.wall_ms = (self.clocks.wall_ms)();
        let (now, showing) = ((self.clocks.now)(), self.clocks.showing(self.wall_ms));
        let table = open(&mut self.table)?;
        let before = table.seen()?;
        let step = before.and_then(|before| clock::step(&before, &showing));
        // By the clock of the time when they were written.
        let back_ms = step.map_or(0, |(ms, _)| ms.saturating_neg());
        let wall_ms = self.wall_ms.saturating_add_signed(back_ms);
        let terms = terms(&self.settings, wall_ms);
        let restored = table.restore(&self.location, now, &self.settings.rules, terms)?;
        let unusable = restored.unusable as u64;
        self.state.unusable.store(unusable, Ordering::Relaxed);
        self.is_restored = true;
        self.has_old_log = restored.has_log;
        tell(&self.settings.path, &restored, start.elapsed());
        if let Some((ms, why)) = step {
            log::warn!(
                "{}: the clock was set by {} since the bindings were written ({why}): they last as long as they would have, and are written again",
                self.settings.path.display(),
                clock::spoken(ms)
            );
            self.settled = Some(time::Instant::now());
            self.replace_all();
        }
        Ok(())
    }

    /// All that memory holds is to be written, and what is on its way to the disk with it.
    fn replace_all(&mut self) {
        self.is_replaced = true;
        self.round = None;
        self.taken.clear();
        (self.pending, self.folding) = (Pending::default(), None);
    }

    /// Sees whether the clock was set: then the times on disk mean something else from now on, and are written anew.
    fn watch_clock(&mut self) {
        let wall_ms = (self.clocks.wall_ms)();
        let was_set = wall_ms.abs_diff(self.wall_ms) > clock::STEP_MS;
        let is_settled = |at: time::Instant| at.elapsed() >= RESETTLE;
        if was_set && self.settled.is_none_or(is_settled) {
            let step_ms = wall_ms.wrapping_sub(self.wall_ms) as i64;
            log::warn!(
                "{}: the clock was set by {}: all bindings last as long as before, and are written again with their new times",
                self.settings.path.display(),
                clock::spoken(step_ms)
            );
            self.wall_ms = wall_ms;
            (self.settled, self.seen) = (Some(time::Instant::now()), None);
            self.replace_all();
        }
        if self.seen.is_none_or(|at| at.elapsed() >= INTERVAL)
            && let Some((table, _)) = &mut self.table
        {
            table.see(self.clocks.showing(self.wall_ms));
            self.seen = Some(time::Instant::now());
        }
    }

    /// Tells who reads the same file, once a second, whether anybody else has changed it.
    fn tell_others(&mut self) -> Result<(), StoreError> {
        if let Some((table, _)) = &self.table
            && self.noted.elapsed() >= INTERVAL.mul_f32(0.9)
        {
            self.noted = time::Instant::now();
            self.door.note(table.version()?);
        }
        Ok(())
    }

    /// The file that was open stands there no more.
    fn leave_file(&mut self) {
        self.close();
        self.is_home = false;
        // SQLite leaves the log of a file that was moved where it is, and would take it for the new file's.
        let log = beside(&self.settings.path, "-wal");
        let is_ours = |file: &Metadata| Some(FileId::of(file)) == self.log;
        if fs::metadata(&log).is_ok_and(|file| is_ours(&file)) {
            for stale in [log, beside(&self.settings.path, "-shm")] {
                if let Err(error) = fs::remove_file(&stale)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    log::error!("{}: {error}", stale.display());
                }
            }
        }
    }

    fn close(&mut self) {
        if let Some((table, _)) = self.table.take() {
            self.door.close(table);
        }
    }

    // ---- well and ill --------------------------------------------------------------------------------------------------

    fn suffer(&mut self, trouble: &StoreError) {
        self.note_in_hand();
        self.state.failures.fetch_add(1, Ordering::Relaxed);
        self.troubles += 1;
        let doubled = RETRY_LEAST * 2u32.saturating_pow(self.troubles.min(8) - 1);
        self.retry_at = Some(time::Instant::now() + doubled.min(RETRY_MOST));
        // What was found wrong with an open file is looked at again from the beginning.
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

/// The table; it is opened before anybody asks.
fn open(table: &mut Option<(Table, FileId)>) -> Result<&mut Table, StoreError> {
    let open = table.as_mut().map(|(table, _)| table);
    open.ok_or_else(|| StoreError::Transient("it is not open".to_owned()))
}

fn terms(settings: &Settings, wall_ms: u64) -> Terms<'_> {
    Terms {
        wall_ms,
        listeners: &settings.listeners,
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    PathBuf::from(name)
}

fn tell(path: &Path, restored: &Restored, took: Duration) {
    let path = path.display();
    let Restored {
        bindings,
        expired,
        unusable,
        first,
        no_room,
        ..
    } = restored;
    log::info!(
        "{path}: {bindings} bindings read in {:.1} s, and {expired} that have expired",
        took.as_secs_f64()
    );
    if *unusable > 0 {
        log::error!("{path}: {unusable} bindings cannot be used, the first {first}");
    }
    if *no_room > 0 {
        log::error!("{path}: [limits] bindings leaves no room for {no_room} bindings");
    }
}

#[cfg(test)]
mod tests;
