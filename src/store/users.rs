//! The source of the users: a SQLite database or a text file, told apart by its first bytes; read whole, and checked for changes.

use crate::base::Key;
use crate::stack::auth::digest::Algorithm;
use crate::stack::auth::users::{Entry, Users};
use crate::store::loaded::{BITE, Breathe, INTERRUPTED, UsersError};
use crate::store::shared_file::{FileId, SharedDatabaseFile, Version};
use crate::store::subscriber;
use crate::store::text::{self, Line};
use rusqlite::Connection;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use crate::store::loaded::{Loaded, Unusable};

/// The first bytes of every SQLite database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What indicates a database if there is no file yet.
const EXTENSIONS: [&str; 3] = ["db", "sqlite", "sqlite3"];

/// How long a check waits while somebody changes the database.
const PATIENCE: Duration = Duration::from_secs(2);

/// Approximate bytes per line, to estimate how many users there are.
const LINE: u64 = 56;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Database,
    Text,
}

impl Kind {
    /// Determined by the file's first bytes; by its extension if there is no file, or an empty one.
    pub fn of(path: &Path) -> io::Result<Kind> {
        let mut start = Vec::new();
        match File::open(path) {
            Ok(file) => drop(file.take(MAGIC.len() as u64).read_to_end(&mut start)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match start == MAGIC || (start.is_empty() && Kind::is_named_database(path)) {
            true => Ok(Kind::Database),
            false => Ok(Kind::Text),
        }
    }

    fn is_named_database(path: &Path) -> bool {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
    }
}

/// The file of users. Its messages name it.
pub struct Source {
    path: PathBuf,
    /// The table that the users are loaded into.
    key: Key,
    /// Kept open, because only an open connection can tell that others have changed the database.
    ///
    /// The file must not be opened separately: closing any descriptor of it drops all locks of the process.
    database: Option<(Connection, FileId)>,
    /// The journal may have the same file open.
    door: Arc<SharedDatabaseFile>,
    /// What was read last, and why it could not be.
    seen: Option<Stamp>,
    failed: Option<String>,
}

/// Equal stamps mean equal content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stamp {
    Database {
        place: FileId,
        version: Seen,
    },
    /// The time is that of the last change of the file's content, owner or mode.
    Text {
        place: FileId,
        size: u64,
        changed: (i64, i64),
    },
}

/// Where the change counter of a database comes from, and its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    ByUs(i64),
    /// From a file that it writes into itself.
    ByJournal(Version),
}

impl Source {
    pub fn new(path: &Path, key: Key) -> Source {
        Source { path: path.to_owned(), key, database: None, door: Arc::default(), seen: None, failed: None }
    }

    /// The same beside a journal, which has its database open behind this door.
    #[must_use]
    pub fn beside(mut self, door: Arc<SharedDatabaseFile>) -> Source {
        self.door = door;
        self
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all users, whether anything has changed or not.
    pub fn read(&mut self, breathe: Breathe) -> Result<Loaded, UsersError> {
        let stamp = self.stamp().map_err(|trouble| self.forget(trouble))?;
        self.read_as(stamp, breathe)
    }

    /// Reads all users if anything has changed since the last time. A source that could not be read and has not changed is not read
    /// again.
    pub fn read_changed(&mut self, breathe: Breathe) -> Result<Option<Loaded>, UsersError> {
        let stamp = self.stamp().map_err(|trouble| self.forget(trouble))?;
        match (&self.failed, self.seen == Some(stamp)) {
            (Some(what), true) => Err(UsersError::Bad(what.clone())),
            (None, true) => Ok(None),
            (_, false) => self.read_as(stamp, breathe).map(Some),
        }
    }

    /// Reads the content that had this stamp before.
    fn read_as(&mut self, stamp: Stamp, breathe: Breathe) -> Result<Loaded, UsersError> {
        let read = match &self.database {
            Some((connection, _)) => subscriber::read(connection, self.key, breathe),
            None => read_text(&self.path, self.key, breathe),
        };
        let read = read.map_err(|trouble| self.named(trouble));
        (self.seen, self.failed) = match &read {
            Ok(_) => (Some(stamp), None),
            // Only locked: it is read at a later check.
            Err(UsersError::Busy(_)) => (None, None),
            Err(UsersError::Bad(what)) => (Some(stamp), Some(what.clone())),
        };
        read
    }

    /// After it was read: whether it is a database.
    #[cfg(test)]
    fn is_database(&self) -> bool {
        self.database.is_some()
    }

    /// A file that cannot be checked is opened anew the next time, and read whole.
    fn forget(&mut self, trouble: UsersError) -> UsersError {
        if let UsersError::Bad(_) = trouble {
            (self.database, self.seen, self.failed) = (None, None, None);
        }
        self.named(trouble)
    }

    fn named(&self, trouble: UsersError) -> UsersError {
        let name = self.path.display();
        match trouble {
            UsersError::Busy(what) => UsersError::Busy(format!("{name}: {what}")),
            // A line of a text.
            UsersError::Bad(what) if what.starts_with(|c: char| c.is_ascii_digit()) => UsersError::Bad(format!("{name}:{what}")),
            UsersError::Bad(what) => UsersError::Bad(format!("{name}: {what}")),
        }
    }

    /// Returns the current stamp. Opens a database.
    fn stamp(&mut self) -> Result<Stamp, UsersError> {
        let file = std::fs::metadata(&self.path).map_err(|error| self.no_file(&error))?;
        let place = FileId::of(&file);
        if self.database.as_ref().is_none_or(|(_, open)| *open != place) {
            self.database = None;
            let kind = self.door.unless_open(place, || Kind::of(&self.path));
            let kind = kind.unwrap_or(Ok(Kind::Database));
            if kind.map_err(|error| self.no_file(&error))? == Kind::Text {
                return Ok(text_stamp(&file));
            }
            let connection = subscriber::open_to_read(&self.path, PATIENCE)?;
            self.database = Some((connection, place));
        }
        match &self.database {
            Some((connection, _)) => Ok(Stamp::Database {
                place,
                version: match self.door.version(place) {
                    Some(version) => Seen::ByJournal(version),
                    None => Seen::ByUs(subscriber::version(connection)?),
                },
            }),
            None => Ok(text_stamp(&file)),
        }
    }

    fn no_file(&self, error: &io::Error) -> UsersError {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        UsersError::Bad(match is_missing && Kind::is_named_database(&self.path) {
            true => "there is no such database; \"strowger user add --create\" makes it".to_owned(),
            false => format!("cannot be read: {error}"),
        })
    }
}

fn text_stamp(file: &Metadata) -> Stamp {
    Stamp::Text { place: FileId::of(file), size: file.size(), changed: (file.ctime(), file.ctime_nsec()) }
}

fn read_text(path: &Path, key: Key, breathe: Breathe) -> Result<Loaded, UsersError> {
    let unreadable = |error: io::Error| UsersError::Bad(format!("cannot be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut users = Users::new(key, usize::try_from(size / LINE).unwrap_or(0));
    let mut number = 0;
    text::read(BufReader::with_capacity(1 << 16, file), |line| {
        number += 1;
        if number % BITE == 0 && !breathe() {
            return Err(INTERRUPTED.to_owned());
        }
        match take(&mut users, line) {
            true => Ok(()),
            false => Err(subscriber::twice(line)),
        }
    })
    .map_err(UsersError::Bad)?;
    Ok(Loaded { users, unusable: Unusable::default() })
}

/// Adds the hash of a line to the known hashes of its user; false if there is one of this kind already.
fn take(users: &mut Users, line: &Line) -> bool {
    let mut entry = Entry { name: line.name, domain: line.realm, ..Entry::default() };
    if let Some(known) = users.find(line.name, line.realm) {
        let whole = [line.name, b"@", line.realm].concat();
        entry.md5 = known.ha1(Algorithm::Md5);
        entry.md5_whole = users.find(&whole, line.realm).and_then(|user| user.ha1(Algorithm::Md5));
        entry.sha256 = known.ha1(Algorithm::Sha256);
        entry.sha512_256 = known.ha1(Algorithm::Sha512_256);
    }
    let place = match (line.algorithm, line.whole) {
        (Algorithm::Md5, false) => &mut entry.md5,
        (Algorithm::Md5, true) => &mut entry.md5_whole,
        (Algorithm::Sha256, _) => &mut entry.sha256,
        (Algorithm::Sha512_256, _) => &mut entry.sha512_256,
    };
    if place.replace(line.ha1).is_some() {
        return false;
    }
    users.insert(&entry);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::auth::digest::ha1;
    use crate::store::subscriber::{Hashes, Table};
    use std::fs;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Place {
            Place(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn source(&self, name: &str) -> Source {
            Source::new(&self.path(name), Key::new(1, 2))
        }
    }

    fn line(name: &str, password: &str) -> String {
        let hash = ha1(Algorithm::Md5, name.as_bytes(), b"a", password.as_bytes());
        format!("{name}:a:{}\n", String::from_utf8_lossy(hash.hex().bytes()))
    }

    fn add(path: &Path, name: &str) {
        let mut table = Table::open(path, true).unwrap();
        let hashes = Hashes::of_password(name, "a", b"p");
        table.add(name, "a", &hashes).unwrap();
    }

    /// Returns how many users a check finds; `None` if nothing has changed.
    fn look(source: &mut Source) -> Option<usize> {
        let found = source.read_changed(&mut || true).unwrap();
        found.map(|loaded| loaded.users.len())
    }

    fn bad(source: &mut Source) -> String {
        match source.read_changed(&mut || true) {
            Err(UsersError::Bad(what)) => what,
            Err(UsersError::Busy(what)) => panic!("busy: {what}"),
            Ok(_) => panic!("it was read"),
        }
    }

    #[test]
    fn a_file_is_what_it_begins_with() {
        let place = Place::new();
        for (name, content, kind) in [
            ("none.db", None, Kind::Database),
            ("none.sqlite", None, Kind::Database),
            ("none.txt", None, Kind::Text),
            ("none", None, Kind::Text),
            ("empty.db", Some(""), Kind::Database),
            ("empty", Some(""), Kind::Text),
            ("text.db", Some("# alice"), Kind::Text),
            ("database", Some("SQLite format 3\0..."), Kind::Database),
        ] {
            if let Some(content) = content {
                fs::write(place.path(name), content).unwrap();
            }
            assert_eq!(Kind::of(&place.path(name)).unwrap(), kind, "{name}");
        }
    }

    #[test]
    fn a_text_file_is_read_when_it_has_changed() {
        let place = Place::new();
        let mut source = place.source("users");
        assert!(bad(&mut source).contains("users: cannot be read: No such file"));
        fs::write(place.path("users"), line("alice", "x") + &line("bob", "y")).unwrap();
        assert_eq!(look(&mut source), Some(2));
        assert!(!source.is_database());
        assert_eq!(look(&mut source), None);
        // Of the same length, under the same name: another file.
        fs::write(place.path("draft"), line("carol", "x") + &line("dan", "y")).unwrap();
        fs::rename(place.path("draft"), place.path("users")).unwrap();
        assert_eq!(look(&mut source), Some(2));

        fs::write(place.path("users"), line("alice", "x") + "bob").unwrap();
        let said = bad(&mut source);
        assert!(said.contains("users:2: a line must be"), "{said}");
        assert_eq!(bad(&mut source), said, "and is not read again until it has changed");
        fs::write(place.path("users"), line("alice", "x")).unwrap();
        assert_eq!(look(&mut source), Some(1));
        assert_eq!(source.read(&mut || true).map(|l| l.users.len()).ok(), Some(1));
        fs::remove_file(place.path("users")).unwrap();
        assert!(bad(&mut source).contains("No such file"));
        fs::write(place.path("users"), line("alice", "x")).unwrap();
        assert_eq!(look(&mut source), Some(1));
    }

    #[test]
    fn a_database_is_read_when_others_have_changed_it() {
        let place = Place::new();
        let mut source = place.source("users.db");
        let said = bad(&mut source);
        assert!(said.contains("users.db: there is no such database") && said.contains("user add"));
        add(&place.path("users.db"), "alice");
        assert_eq!(look(&mut source), Some(1));
        assert!(source.is_database());
        assert_eq!(look(&mut source), None);
        add(&place.path("users.db"), "bob");
        assert_eq!(look(&mut source), Some(2));
        assert_eq!(look(&mut source), None);
        // Another file under the same name.
        add(&place.path("other.db"), "carol");
        fs::rename(place.path("other.db"), place.path("users.db")).unwrap();
        assert_eq!(look(&mut source), Some(1));
        // The table goes, and comes back.
        let other = Connection::open(place.path("users.db")).unwrap();
        other.execute_batch("ALTER TABLE subscriber RENAME TO gone").unwrap();
        assert!(bad(&mut source).contains("no table subscriber"));
        other.execute_batch("ALTER TABLE gone RENAME TO subscriber").unwrap();
        assert_eq!(look(&mut source), Some(1));
        // A text file takes its place.
        fs::write(place.path("users"), line("alice", "x")).unwrap();
        fs::rename(place.path("users"), place.path("users.db")).unwrap();
        assert_eq!(look(&mut source), Some(1));
        assert!(!source.is_database());
    }

    /// Another program may keep its database that way without asking us.
    #[test]
    fn a_database_with_a_write_ahead_log_is_read_and_watched_too() {
        let place = Place::new();
        add(&place.path("users.db"), "alice");
        let other = Connection::open(place.path("users.db")).unwrap();
        let mode: String = other.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        let mut source = place.source("users.db");
        assert_eq!(look(&mut source), Some(1));
        assert_eq!(look(&mut source), None);
        let insert = "INSERT INTO subscriber (username, domain, ha1) SELECT 'bob', domain, ha1 FROM subscriber";
        other.execute_batch(insert).unwrap();
        assert_eq!(look(&mut source), Some(2));
        // A database that is being changed is read as it was before.
        let begun = "BEGIN; DELETE FROM subscriber WHERE username = 'bob'";
        other.execute_batch(begun).unwrap();
        assert_eq!(source.read(&mut || true).map(|l| l.users.len()).ok(), Some(2));
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(look(&mut source), Some(1));
        drop(other);
        assert_eq!(look(&mut source), None);
    }

    #[test]
    fn the_lines_of_one_user_come_together() {
        let place = Place::new();
        let all = [
            (Algorithm::Md5, &b"alice"[..], ""),
            (Algorithm::Md5, b"alice@a", ""),
            (Algorithm::Sha256, b"alice", ""),
            (Algorithm::Sha512_256, b"alice", ":SHA-512-256"),
        ];
        let mut text = String::new();
        for (algorithm, name, named) in all {
            let hash = ha1(algorithm, name, b"a", b"p");
            let (name, digits) = (String::from_utf8_lossy(name), hash.hex());
            let digits = String::from_utf8_lossy(digits.bytes());
            text.push_str(&format!("{name}:a:{digits}{named}\n"));
        }
        // In any order.
        for turn in 0..4 {
            let mut lines: Vec<&str> = text.lines().collect();
            lines.rotate_left(turn);
            fs::write(place.path("users"), lines.join("\n")).unwrap();
            let loaded = place.source("users").read(&mut || true).unwrap();
            assert_eq!(loaded.users.len(), 1);
            for (algorithm, name, _) in all {
                let found = loaded.users.find(name, b"a").and_then(|u| u.ha1(algorithm));
                assert!(found.is_some_and(|hash| hash.equals(&ha1(algorithm, name, b"a", b"p"))));
            }
            let twice = format!("{text}{}\n", lines[0]);
            fs::write(place.path("users"), twice).unwrap();
            let said = bad(&mut place.source("users"));
            assert!(said.contains("users:5: the user \"alice\" of \"a\" has a hash"), "{said}");
        }
    }
}
