//! The lock by which one server at a time has the database of bindings: two would overwrite each other's rows.
//!
//! It is on a file beside the database, because closing any other descriptor of the database itself drops SQLite's locks on it. The
//! kernel drops it when its owner ends, however that ends; the file stays, and is nobody's then.

use super::error::StoreError;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

/// What the file's name adds to that of the database.
const END: &str = "-lock";

/// The lock, held. Dropping it lets the next server in.
#[derive(Debug)]
pub struct DatabaseLock {
    file: File,
}

impl DatabaseLock {
    /// Takes the lock of this database, which need not exist yet. [`StoreError::Held`] if another server has it, or another journal
    /// of this one.
    pub fn take(database: &Path) -> Result<DatabaseLock, StoreError> {
        let path = place(database);
        let unusable = |error: io::Error| StoreError::Transient(format!("the lock file {}: {error}", path.display()));
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = options.map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(&mut file, &path)),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        // Only for those who ask: a full disk does not keep the server from having the lock.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", process::id()));
        Ok(DatabaseLock { file })
    }
}

impl Drop for DatabaseLock {
    fn drop(&mut self) {
        // Nobody is to be told of an owner that has gone in good order.
        let _ = self.file.set_len(0);
    }
}

/// Returns the lock file's path. By whatever name the database is called, it is the same.
fn place(database: &Path) -> PathBuf {
    let whole = fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
    let mut name = OsString::from(whole);
    name.push(END);
    PathBuf::from(name)
}

fn held(file: &mut File, path: &Path) -> StoreError {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    let owner = match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(number)) => format!("process {number}"),
        _ => "another process".to_owned(),
    };
    StoreError::Held(format!(
        "another server has it: {owner}, by the lock on {}; stop that one, or give this one a database of its own ([registrar] database)",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(database: &Path) -> String {
        match DatabaseLock::take(database) {
            Err(StoreError::Held(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_has_it_and_the_next_learns_who() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("strowger.db");
        let lock = DatabaseLock::take(&database).unwrap();
        let said = refusal(&database);
        assert!(said.contains(&format!("another server has it: process {}, by the lock on ", process::id())), "{said}");
        assert!(said.contains("strowger.db-lock"), "{said}");
        drop(lock);
        let again = DatabaseLock::take(&database).unwrap();
        // By another name of the same database, once there is one.
        drop(again);
        fs::write(&database, "").unwrap();
        std::os::unix::fs::symlink(&database, folder.path().join("other.db")).unwrap();
        let _lock = DatabaseLock::take(&folder.path().join("other.db")).unwrap();
        refusal(&database);
    }

    #[test]
    fn a_file_that_its_owner_left_behind_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("strowger.db");
        fs::write(folder.path().join("strowger.db-lock"), "4194304\n").unwrap();
        let _lock = DatabaseLock::take(&database).unwrap();
        let said = fs::read_to_string(folder.path().join("strowger.db-lock")).unwrap();
        assert_eq!(said, format!("{}\n", process::id()));
    }

    #[test]
    fn without_a_folder_there_is_no_lock_but_there_may_be_later() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("missing").join("strowger.db");
        let Err(StoreError::Transient(what)) = DatabaseLock::take(&database) else {
            panic!("it was taken");
        };
        assert!(what.contains("missing/strowger.db-lock: No such file"), "{what}");
    }
}
