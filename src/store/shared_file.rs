//! The door of the database that the journal has open, for others of this process that read the same file.
//!
//! Two things they must not do by themselves. To close any descriptor of the file takes all of SQLite's locks on it away from the whole
//! process, so nobody may look into it by other means while the journal has it open. And what SQLite tells a reader of changes by
//! others counts the journal's own, once a second: only the journal can tell them apart.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which file stands at a path: device and inode.
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

/// Two that are equal are of the same content, but for what the journal wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// Which of the journal's connections says so: each begins to count anew.
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
    /// Runs `look`, during which the journal opens and closes nothing; `None` where it has this very file open as a database.
    pub fn unless_open<T>(&self, place: FileId, look: impl FnOnce() -> T) -> Option<T> {
        let state = self.lock();
        match state.open {
            Some((open, _)) if open == place => None,
            _ => Some(look()),
        }
    }

    /// What the journal last saw of changes by others; `None` where it does not have this file open.
    pub fn version(&self, place: FileId) -> Option<Version> {
        match self.lock().open {
            Some((open, version)) if open == place => Some(version),
            _ => None,
        }
    }

    /// The journal opens something: where it is and what the connection says of changes, or nothing.
    pub(in crate::store) fn open<T, E>(&self, open: impl FnOnce() -> Result<(T, FileId, i64), E>) -> Result<T, E> {
        let mut state = self.lock();
        state.open = None;
        let (table, place, changes) = open()?;
        state.connections += 1;
        let version = Version { connection: state.connections, changes };
        state.open = Some((place, version));
        Ok(table)
    }

    /// The journal closes what it has.
    pub(in crate::store) fn close<T>(&self, table: T) {
        let mut state = self.lock();
        drop(table);
        state.open = None;
    }

    /// Others have made changes, as the journal's connection says.
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
        // Another connection counts from anywhere.
        door.close(());
        let opened: Result<(), ()> = door.open(|| Ok(((), one, 4)));
        assert_eq!(opened, Ok(()));
        assert_ne!(door.version(one), Some(before));
        let failed: Result<(), u8> = door.open(|| Err(1));
        assert_eq!(failed, Err(1));
        assert_eq!(door.version(one), None);
    }
}
