//! The guard of the database that the journal has open, for other parts of this process that read the same file.
//!
//! They must not do two things on their own. Closing any descriptor of the file drops all of SQLite's locks on it for the whole
//! process, so nothing may open it by other means while the journal has it open. And SQLite's change counter for a reader includes
//! the journal's own changes, one a second: only the journal can tell them apart.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Identity of the file at a path: device and inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub fn of(file: &Metadata) -> FileId {
        FileId { device: file.dev(), inode: file.ino() }
    }
}

/// Equal values mean equal content, except for what the journal wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// The journal's connection that the counter comes from: each starts counting anew.
    connection: u32,
    changes: i64,
}

/// What the journal has open.
#[derive(Default)]
pub struct SharedDatabaseFile {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: u32,
    open: Option<(FileId, Version)>,
}

impl SharedDatabaseFile {
    /// Runs `look`, during which the journal opens and closes nothing; `None` if it has this very file open as a database.
    pub fn unless_open<T>(&self, place: FileId, look: impl FnOnce() -> T) -> Option<T> {
        let state = self.lock();
        match state.open {
            Some((open, _)) if open == place => None,
            _ => Some(look()),
        }
    }

    /// Returns the changes by others that the journal last saw; `None` if it does not have this file open.
    pub fn version(&self, place: FileId) -> Option<Version> {
        match self.lock().open {
            Some((open, version)) if open == place => Some(version),
            _ => None,
        }
    }

    /// The journal opens a file: its path and its connection's change counter, or nothing.
    pub(in crate::store) fn open<T, E>(&self, open: impl FnOnce() -> Result<(T, FileId, i64), E>) -> Result<T, E> {
        let mut state = self.lock();
        state.open = None;
        let (table, place, changes) = open()?;
        state.connections += 1;
        let version = Version { connection: state.connections, changes };
        state.open = Some((place, version));
        Ok(table)
    }

    /// The journal closes its file.
    pub(in crate::store) fn close<T>(&self, table: T) {
        let mut state = self.lock();
        drop(table);
        state.open = None;
    }

    /// Others have made changes, according to the journal's connection.
    pub(in crate::store) fn note(&self, changes: i64) {
        if let Some((_, version)) = &mut self.lock().open {
            version.changes = changes;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_is_kept_out_of_what_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, name).unwrap();
            FileId::of(&std::fs::metadata(path).unwrap())
        };
        let (one, two) = (place("one"), place("two"));
        let door = SharedDatabaseFile::default();
        assert_eq!(door.unless_open(one, || 7), Some(7));
        assert_eq!(door.version(one), None);
        let opened: Result<(), ()> = door.open(|| Ok(((), one, 4)));
        assert_eq!(opened, Ok(()));
        assert_eq!(door.unless_open(one, || 7), None);
        assert_eq!(door.unless_open(two, || 7), Some(7));
        let before = door.version(one).unwrap();
        assert_eq!(door.version(one), Some(before));
        door.note(5);
        assert_ne!(door.version(one), Some(before));
        // Another connection may count from any number.
        door.close(());
        let opened: Result<(), ()> = door.open(|| Ok(((), one, 4)));
        assert_eq!(opened, Ok(()));
        assert_ne!(door.version(one), Some(before));
        let failed: Result<(), u8> = door.open(|| Err(1));
        assert_eq!(failed, Err(1));
        assert_eq!(door.version(one), None);
    }
}
