//! The result of reading the users, from any source.

use crate::stack::auth::users::Users;

pub const INTERRUPTED: &str = "reading was interrupted";

/// Lines or rows read between two calls of `breathe`.
pub const BITE: usize = 1024;

/// All users that were read, and what could not be used.
pub struct Loaded {
    pub users: Users,
    pub unusable: Unusable,
}

/// Rows of a database that cannot be used. (A text file is refused at its first such line.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unusable {
    pub count: usize,
    /// What is wrong with the first one.
    pub first: String,
}

impl Unusable {
    pub fn note(&mut self, name: &[u8], domain: &[u8], what: &str) {
        if self.count == 0 {
            let (name, domain) = (String::from_utf8_lossy(name), String::from_utf8_lossy(domain));
            self.first = format!("{name:?} of {domain:?} {what}");
        }
        self.count += 1;
    }
}

/// Called between two batches of reading, by code that must not occupy a core for the whole duration; false ends it.
pub type Breathe<'b> = &'b mut dyn FnMut() -> bool;

/// What a failure of SQLite means to the caller.
#[derive(Debug, PartialEq, Eq)]
pub enum UsersError {
    /// Somebody else has it locked for a while.
    Busy(String),
    Bad(String),
}

impl UsersError {
    pub fn message(self) -> String {
        match self {
            UsersError::Busy(message) | UsersError::Bad(message) => message,
        }
    }
}

impl From<rusqlite::Error> for UsersError {
    fn from(error: rusqlite::Error) -> UsersError {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        match error.sqlite_error_code() {
            Some(DatabaseBusy | DatabaseLocked) => UsersError::Busy(error.to_string()),
            _ => UsersError::Bad(error.to_string()),
        }
    }
}
