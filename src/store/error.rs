//! What can be wrong with the database of bindings.

use rusqlite::ErrorCode;

/// What a failure means to the journal. The text is what is wrong, without the name of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Another program has the database locked.
    Busy(String),
    /// It may recover by itself: a full disk, a missing folder, a file without write permission.
    Transient(String),
    /// Another server has it, and may go on having it.
    Held(String),
    /// Nothing is written into this file any more: it is torn, or it is somebody else's.
    NotOurs(String),
}

impl StoreError {
    pub fn message(&self) -> &str {
        match self {
            StoreError::Busy(what) | StoreError::Transient(what) | StoreError::Held(what) | StoreError::NotOurs(what) => what,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        let advice = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                return StoreError::Busy(format!("another program has it locked ({error})"));
            }
            Some(ErrorCode::NotADatabase) => {
                return StoreError::NotOurs(format!(
                    "{error}: name another file in [registrar] database, or move this one away, together with its -wal and -shm"
                ));
            }
            Some(ErrorCode::DatabaseCorrupt) => return torn(&error.to_string()),
            Some(ErrorCode::DiskFull) => ": make room on the disk",
            Some(ErrorCode::ReadOnly) => ": let the server's user write the file and its folder",
            _ => "",
        };
        StoreError::Transient(format!("{error}{advice}"))
    }
}

pub fn torn(what: &str) -> StoreError {
    StoreError::NotOurs(format!(
        "it is torn ({what}): move it away, together with the files beside it whose names end in -wal and -shm, which belong to it; \
         \"sqlite3 FILE .recover\" shows what is left in it"
    ))
}
