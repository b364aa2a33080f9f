//! The file of the bindings: opened, read back, watched, and abandoned if another takes its place.

use super::writer::{INTERVAL, Stamp, WriterThread, open, terms};
use crate::store::bindings::Table;
use crate::store::clock;
use crate::store::database_lock::DatabaseLock;
use crate::store::error::StoreError;
use crate::store::restore::Restored;
use crate::store::round_log::Pending;
use crate::store::shared_file::FileId;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{self, Duration};

/// How long after the clock was set it must be set again before all bindings are rewritten: a clock that keeps jumping does not
/// keep the disk busy.
const RESETTLE: Duration = Duration::from_secs(10);

impl WriterThread {
    /// Checks that the open file is the one at the path; opens it if none is open, and reads it if none was read.
    pub(super) fn look(&mut self) -> Result<(), StoreError> {
        if self.lock.is_none() {
            self.lock = Some(DatabaseLock::take(&self.settings.path)?);
        }
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

    pub(super) fn open_file(&mut self) -> Result<(), StoreError> {
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

    /// Takes in what is on disk, once.
    pub(super) fn restore(&mut self) -> Result<(), StoreError> {
        if self.is_restored {
            return Ok(());
        }
        let start = time::Instant::now();
        self.wall_ms = (self.clocks.wall_ms)();
        let (now, showing) = ((self.clocks.now)(), self.clocks.showing(self.wall_ms));
        let table = open(&mut self.table)?;
        let before = table.seen()?;
        let step = before.and_then(|before| clock::step(&before, &showing));
        // By the clock at the time they were written.
        let back_ms = step.map_or(0, |(ms, _)| ms.saturating_neg());
        let wall_ms = self.wall_ms.saturating_add_signed(back_ms);
        let terms = terms(&self.settings, wall_ms);
        let restored = table.restore(&self.location, now, &self.settings.rules, terms)?;
        let unusable = restored.unusable as u64;
        self.state.unusable.store(unusable, Ordering::Relaxed);
        self.set_restored(true);
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

    pub(super) fn set_restored(&mut self, is_restored: bool) {
        self.is_restored = is_restored;
        self.state.is_restored.store(is_restored, Ordering::SeqCst);
    }

    /// Marks everything in memory to be written, including what is already on its way to the disk.
    pub(super) fn replace_all(&mut self) {
        self.is_replaced = true;
        self.round = None;
        self.taken.clear();
        (self.pending, self.folding) = (Pending::default(), None);
    }

    /// Checks whether the clock was set: the times on disk then have a new meaning, and are rewritten.
    pub(super) fn watch_clock(&mut self) {
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

    /// Tells readers of the same file, once a second, whether anybody else has changed it.
    pub(super) fn tell_others(&mut self) -> Result<(), StoreError> {
        if let Some((table, _)) = &self.table
            && self.noted.elapsed() >= INTERVAL.mul_f32(0.9)
        {
            self.noted = time::Instant::now();
            self.door.note(table.version()?);
        }
        Ok(())
    }

    /// The file that was open is no longer at its path.
    pub(super) fn leave_file(&mut self) {
        self.close();
        self.is_home = false;
        // SQLite leaves the log of a moved file where it is, and would take it for the new file's.
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

    pub(super) fn close(&mut self) {
        if let Some((table, _)) = self.table.take() {
            self.door.close(table);
        }
    }
}

pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    PathBuf::from(name)
}

fn tell(path: &Path, restored: &Restored, took: Duration) {
    let path = path.display();
    let Restored { bindings, expired, unusable, first, no_room, .. } = restored;
    log::info!("{path}: {bindings} bindings read in {:.1} s, and {expired} that have expired", took.as_secs_f64());
    if *unusable > 0 {
        log::error!("{path}: {unusable} bindings cannot be used, the first {first}");
    }
    if *no_room > 0 {
        log::error!("{path}: [limits] bindings leaves no room for {no_room} bindings");
    }
}
